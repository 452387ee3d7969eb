"""Imports point downwards only (ARCHITECTURE: layers), and each library has its one home."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import medtrans

ROOT = Path(medtrans.__file__).parent
STANDARD = set(sys.stdlib_module_names)

# From top to bottom. A module may import its own layer and those below it, never one above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("commands", "listing"),
    ("demo", "bundle", "bundle_check", "cluster"),
    ("bundle_training",),
    ("training.sweep",),
    ("training.run",),
    ("training.noise_level", "training.noise_origin"),
    ("training.loop", "training.log", "training.examples"),
    ("training.stages",),
    ("training.validation",),
    ("training.data", "training.checkpoint", "training.parallel", "training.run_folder"),
    ("training.augment", "training.pseudo", "training"),
    ("evaluate.compare", "cohort"),
    ("translate",),
    ("input_checks",),
    ("sampling",),
    ("evaluate.report",),
    ("evaluate.metrics", "evaluate.baselines", "evaluate.texture", "evaluate.realism", "evaluate"),
    ("package", "cache", "foreign_noise"),
    ("model_folder",),
    ("bundle_files",),
    ("model_card",),
    ("transforms",),
    ("slices", "intensity"),
    ("foreground", "pictures"),
    ("console", "progress", "signals", "devices"),
    ("phantom",),
    ("phantom_anatomy",),
    ("volumes",),
    ("manifest",),
    ("manifest_checks",),
    ("networks",),
    ("diffusion", "fast_norm"),
    ("settings",),
    ("recipes",),
    ("config",),
    ("denoiser_config",),
    ("errors", "resources"),
)
RANK = {name: len(LAYERS) - i for i, names in enumerate(LAYERS) for name in names}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> every module it imports, also inside functions; ours without `medtrans.`."""
    return {module_name(path): set(imported(path)) for path in sorted(ROOT.rglob("*.py"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [full(str(node.module), alias.name) for alias in node.names]
    return found


def full(module: str, name: str) -> str:
    """`from medtrans.volumes import nifti` imports a module, `… import read_volume` does not."""
    inner = ROOT.parent.joinpath(*module.split("."), name)
    is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
    return f"{module}.{name}" if module.startswith("medtrans") and is_module else module


def ours(names: set[str]) -> set[str]:
    inside = {name.removeprefix("medtrans").lstrip(".") for name in names if is_ours(name)}
    return inside - {""}  # the version


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "medtrans"


def rank(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in RANK:
            return RANK[name]
    raise AssertionError(f"medtrans.{module} has no layer: give it one in tests/test_layers.py")


def homes(library: str) -> set[str]:
    return {
        module
        for module, names in imports().items()
        if any(name.partition(".")[0] == library for name in names)
        and not only_asks_its_version(module, library)
    }


def only_asks_its_version(module: str, library: str) -> bool:
    text = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not text.is_file():
        return False
    nodes = list(ast.walk(ast.parse(text.read_text(encoding="utf-8"))))
    uses = [n for n in nodes if isinstance(n, ast.Name) and n.id == library]
    versions = [ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute)]
    return bool(uses) and versions.count(f"{library}.__version__") == len(uses)


def test_every_module_has_a_layer() -> None:
    for module in imports():
        if module:
            assert rank(module) > 0


def test_imports_point_downwards() -> None:
    breaches = [
        f"{module} imports {other}"
        for module, names in imports().items()
        for other in ours(names)
        if module and rank(other) > rank(module)
    ]
    assert not breaches, "\n".join(breaches)


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {module: ours(names) - {module} for module, names in imports().items() if module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done:
            return
        for other in graph.get(module, set()):
            if not module.startswith(other + "."):  # a package is loaded before its parts
                visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        if not module.startswith("volumes"):  # its front imports its parts lazily
            visit(module, ())


def test_diffusion_is_plain_torch() -> None:
    for module, names in imports().items():
        if module.partition(".")[0] != "diffusion":
            continue
        foreign = {
            name
            for name in names
            if name.partition(".")[0] not in STANDARD | {"torch"}
            and not name.startswith(("medtrans.diffusion", "medtrans.errors"))
        }
        assert not foreign, f"medtrans.{module} imports {foreign}"


@pytest.mark.parametrize(
    ("library", "most"), [("nibabel", 1), ("pydicom", 1), ("SimpleITK", 2), ("nilearn", 1)]
)
def test_a_library_has_one_home(library: str, most: int) -> None:
    found = homes(library)
    assert 1 <= len(found) <= most, found


@pytest.mark.parametrize("library", ["pickle", "marshal", "shelve", "dill", "joblib"])
def test_nothing_unpickles(library: str) -> None:
    assert not homes(library)


def test_torch_load_is_always_guarded() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval"):
                guarded = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert guarded.get("weights_only") == "True", f"{path.name}:{node.lineno}"


def test_the_command_line_starts_light() -> None:
    """What `--help` loads: no torch, no MONAI, no imaging library at the top of a module."""
    heavy = {"torch", "monai", "nibabel", "SimpleITK", "pydicom", "pandas", "scipy", "skimage"}
    for module in ("", "cli", "console", "errors"):
        path = (
            ROOT.joinpath(*module.split("."), "__init__.py")
            if not module
            else (ROOT / f"{module}.py")
        )
        top = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in top.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {name.partition(".")[0] for name in names} & heavy


def test_a_breach_would_be_seen() -> None:
    """The reader of imports finds the ones that this file forbids."""
    assert rank("translate") > rank("volumes.nifti") > rank("diffusion.sampler") > rank("errors")
    assert "medtrans.volumes.nifti" in imports()["phantom"]
    assert "diffusion" in ours(imports()["networks"])
