"""Print the lowest versions that pyproject.toml allows, as constraints for pip (make test-oldest).

A lower bound that does not exist, or does not go with the others, then fails to install: pip may
choose no newer version.
"""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)")
TOOLS = "dev"  # the extra of tools that no test imports


def lowest_versions(pyproject: Path = PYPROJECT) -> list[str]:
    """Return `name==version` for every dependency, those of the extras too.

    Raises
    ------
    ValueError
        If a dependency states no lowest version.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = (listed for name, listed in project["optional-dependencies"].items() if name != TOOLS)
    pins = []
    for requirement in chain(project["dependencies"], *extras):
        bound = BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"{pyproject}: '{requirement}' states no lowest version.")
        pins.append("{}=={}".format(*bound.groups()))
    return pins


if __name__ == "__main__":
    sys.stdout.writelines(f"{pin}\n" for pin in lowest_versions())
