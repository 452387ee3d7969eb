"""What `make audit` and `make sbom` look at, and that an audit of nothing is no clean one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.audit import audit
from tests.lowest_versions import lowest_versions
from tests.runtime_versions import runtime_versions

CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {
    "name": "pillow",
    "version": "10.3.0",
    "vulns": [{"id": "CVE-2026-59204", "fix_versions": ["12.3"]}],
}
SKIPPED = {"name": "torch", "skip_reason": "not found"}


def answers(**by_source: object) -> Any:
    def asking(source: str, pins: Path) -> subprocess.CompletedProcess[str]:
        packages = by_source.get(source)
        text = "" if packages is None else json.dumps({"dependencies": packages})
        return subprocess.CompletedProcess([], 1, text, "ConnectionError")

    return asking


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ({}, 0, "audit skipped"),
        ({"osv": [SKIPPED], "pypi": [SKIPPED]}, 0, "audit skipped"),
        ({"osv": [CLEAN, SKIPPED]}, 0, "osv: 1 of 2 packages looked up, 0 advisories"),
        ({"osv": [CLEAN, BAD]}, 1, "pillow 10.3.0: CVE-2026-59204, fixed in 12.3"),
        ({"pypi": [BAD]}, 1, "pypi: 1 of 1 packages looked up, 1 advisories"),
    ],
)
def test_audit(found: dict[str, object], code: int, words: str) -> None:
    answer, lines = audit(Path("pins.txt"), answers(**found))
    assert answer == code
    assert words in "\n".join(lines)


def test_what_users_install_and_nothing_else() -> None:
    pins = dict(pin.split("==") for pin in runtime_versions())
    assert {"torch", "monai", "pydicom", "einops", "typer"} <= pins.keys()
    assert not {"pytest", "mypy", "ruff", "pip-audit", "cyclonedx-bom"} & pins.keys()
    assert all("+" not in version for version in pins.values())
    assert not {pin.partition("==")[0] for pin in lowest_versions()} & {"pip-audit"}
