"""Print what medtrans needs to run, as installed here: for `make audit` and `make sbom`.

The tools of tests and development, which users do not install, are left out.
"""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def runtime_versions(name: str = "medtrans") -> list[str]:
    """Return `name==version` for every package that a package needs, itself left out, sorted.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If one is not installed.
    """
    found: dict[str, str] = {}
    waiting = _needed_by(name)
    while waiting:
        needed = waiting.pop()
        if needed not in found:
            found[needed] = metadata.version(needed).partition("+")[0]  # +cpu is the same source
            waiting += _needed_by(needed)
    return [f"{needed}=={version}" for needed, version in sorted(found.items())]


def _needed_by(name: str) -> list[str]:
    requirements = map(Requirement, metadata.requires(name) or ())
    return [
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


if __name__ == "__main__":
    sys.stdout.writelines(f"{pin}\n" for pin in runtime_versions())
