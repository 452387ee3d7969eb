"""Imports point downwards only (ARCHITECTURE.md), and each library has its one home."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import medtrans

ROOT = Path(medtrans.__file__).parent
STANDARD = set(sys.stdlib_module_names)

# From top to bottom. A module may import its own package and those below it, never one above.
LAYERS = (
    "__main__",
    "cli",
    "bundle",
    "training",
    "evaluate",
    "registration",
    "report",
    "inference",
    "phantom",
    "package",
    "data",
    "preprocessing",
    "brain",
    "networks",
    "volumes",
    "config",
    "system",
    "diffusion",
    "errors",
    "version",
)


@cache
def imports() -> dict[str, set[str]]:
    """Module -> every module it imports, also inside functions; ours without `medtrans.`."""
    return {module_name(path): set(imported(path)) for path in sorted(ROOT.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [full(str(node.module), alias.name) for alias in node.names]
    return names


def full(module: str, name: str) -> str:
    """`from medtrans.volumes import nifti` imports a module, `… import read_volume` does not."""
    inner = ROOT.parent.joinpath(*module.split("."), name)
    is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
    return f"{module}.{name}" if module.startswith("medtrans") and is_module else module


def ours(module: str) -> set[str]:
    """What a module imports of ours, without itself and without `medtrans` alone."""
    names = {name for name in imports()[module] if name.partition(".")[0] == "medtrans"}
    return {name.partition(".")[2] for name in names} - {"", module}


def layer(module: str) -> int:
    return LAYERS.index(module.partition(".")[0])


def homes(library: str) -> set[str]:
    return {
        module
        for module, names in imports().items()
        if any(name.partition(".")[0] == library for name in names)
    }


def test_every_module_has_a_layer() -> None:
    assert {module.partition(".")[0] for module in imports() if module} == set(LAYERS)


def test_imports_point_downwards() -> None:
    breaches = [
        f"{module} imports {other}"
        for module in imports()
        for other in ours(module)
        if module and layer(other) < layer(module)
    ]
    assert not breaches, "\n".join(breaches)


def test_no_import_goes_round_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in ours(module) & imports().keys():
                visit(other, (*trail, module))
            done.add(module)

    for module in imports():
        visit(module, ())


def test_nothing_leans_on_too_much() -> None:
    """A module that imports more than a dozen of ours does several things."""
    leaning = {module: len(ours(module)) for module in imports() if module}
    assert max(leaning.values()) <= 12, {m: n for m, n in leaning.items() if n > 12}


def test_diffusion_is_plain_torch() -> None:
    allowed = STANDARD | {"torch"}
    for module in imports():
        if module.partition(".")[0] == "diffusion":
            foreign = {n for n in imports()[module] if n.partition(".")[0] not in allowed}
            within = ("medtrans.diffusion", "medtrans.errors")
            assert all(name.startswith(within) for name in foreign), f"{module}: {foreign}"


@pytest.mark.parametrize(
    ("library", "most"), [("nibabel", 2), ("pydicom", 1), ("SimpleITK", 2), ("nilearn", 1)]
)
def test_a_library_has_one_home(library: str, most: int) -> None:
    assert 1 <= len(homes(library)) <= most, homes(library)


@pytest.mark.parametrize("library", ["pickle", "marshal", "shelve", "dill", "joblib"])
def test_nothing_unpickles(library: str) -> None:
    assert not homes(library)


def test_torch_load_is_always_guarded() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval"):
                guarded = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert guarded.get("weights_only") == "True", f"{path.name}:{node.lineno}"


def test_a_breach_would_be_seen() -> None:
    """The reader of imports finds the ones that this file forbids."""
    assert layer("inference.translator") < layer("volumes.nifti") < layer("errors")
    assert "volumes.nifti" in ours("phantom.heads")
    assert "diffusion" in ours("networks.binding")
