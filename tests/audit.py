"""Look up known advisories with pip-audit (make audit); where none can be asked, say so and pass.

A package index without advisories answers too, and pip-audit then finds nothing: what it left out
is counted, so that an audit of nothing does not look like a clean one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SOURCES = ("osv", "pypi")
Answer = subprocess.CompletedProcess[str]


def ask(source: str, pins: Path) -> Answer:
    """Run pip-audit over pinned versions, with one source of advisories."""
    command = [
        str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(pins), "--no-deps",
        "--disable-pip", "--vulnerability-service", source, "--format", "json",
        "--progress-spinner", "off",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def audit(pins: Path, asking: Callable[[str, Path], Answer] = ask) -> tuple[int, list[str]]:
    """Ask the first source that answers for at least one package.

    Parameters
    ----------
    pins
        File of `name==version`.
    asking
        Runs pip-audit.

    Returns
    -------
    code : int
        1 where an advisory fits a version, else 0.
    lines : list of str
        What to print.
    """
    for source in SOURCES:
        try:
            packages = json.loads(asking(source, pins).stdout)["dependencies"]
        except (ValueError, KeyError):
            continue  # no JSON: the source cannot be reached
        known = [package for package in packages if "skip_reason" not in package]
        if known:
            return _judge(source, known, len(packages))
    return 0, ["audit skipped: no source of advisories can be reached (osv, pypi)"]


def _judge(source: str, known: Sequence[dict[str, Any]], count: int) -> tuple[int, list[str]]:
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, fixed in "
        f"{', '.join(advisory['fix_versions']) or 'no version'}"
        for package in known
        for advisory in package["vulns"]
    ]
    lines.append(f"{source}: {len(known)} of {count} packages looked up, {len(lines)} advisories")
    return int(len(lines) > 1), lines


if __name__ == "__main__":
    code, said = audit(Path(sys.argv[1]))
    sys.stdout.writelines(f"{line}\n" for line in said)
    sys.exit(code)
