"""The commands and the Python of the documentation, typed as they stand, on phantoms.

A page's commands are typed one after another, in a folder that has the files that the pages name.
A training says what it would do (--dry-run), a model that is not named is a small one, and what
cannot be done here is listed below with its reason.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from medtrans.data.manifest import write_manifest
from tests import helpers
from tests.cli.messy import write_messy
from tests.helpers import Run
from tests.test_docs import FENCE, ROOT
from tests.volumes.builders import dicom_series

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
NOT_HERE = {  # the start of a command, and why it is not typed
    "medtrans translate head.nii.gz": "the shipped model; tests/inference/test_whole_heads.py",
    "medtrans translate scan.nii.gz": "the shipped model; tests/package/test_shipped_look.py",
    "medtrans phantom heads": "takes half a minute; tests/cli/test_cli.py makes smaller ones",
    "medtrans manifest IXI": "needs the data set; tests/data/test_layouts.py makes its tree",
    "medtrans manifest DATA --layout mine.toml": "its own layout; tests/data/test_layouts.py",
    "medtrans noise-level --task t1-to-t2 --manifest data.csv --sweep": "trains fourteen models",
    "medtrans bundle": "tests/bundle exports and checks one",
    "medtrans train --from my_model": "the bundle of the lines before it",
    "medtrans translate --manifest cohort.csv --out-dir out --scheduler": "a scheduler of others",
    "medtrans translate --manifest cohort.csv --out-dir out --workers": "tests/cli/test_cluster.py",
    "medtrans align --manifest data.csv --out aligned --to mr": "data.csv holds T1 and T2 here",
    "medtrans check --task mr-to-ct": "as above",
    "medtrans train --task mr-to-ct": "as above",
    "medtrans evaluate --manifest predictions.csv": "CT; tests/evaluate/test_files.py",
    "medtrans train --task t1-to-t2 --manifest coronal_t1t2.csv": "a data set of others",
    "medtrans info FILE": "any file",
}
OTHER_PROGRAMS = {  # the start of a line that is no command of medtrans, and why it is not typed
    "make demo": "the shipped model; tests/cli/test_overwrite.py",
    "make test": "this is it",
    "pip install": "the network",
    "cd my_model": "for MONAI's commands",
    "python -m monai.bundle run": "tests/bundle runs both",
    "torchrun": "four GPUs; tests/training/test_parallel.py starts processes",
    "srun": "SLURM",
    "dciodvfy": "a program of others; tests/volumes/dicom/test_write.py",
    "dcentvfy": "as above",
    "dcm2niix": "a program of others",
    "python -m tests.volumes.fuzz": "takes hours; make fuzz",
    "python -m benchmarks.brain": "data sets of others",
}
TYPED_ELSEWHERE = ("own-data.md",)  # tests/cli/test_own_data.py takes its commands from the page
PYTHON_NOT_HERE = {"cluster.md": "SLURM and Kubernetes"}


def blocks(page: Path, kind: str) -> Iterator[str]:
    """Yield the fenced blocks of a kind; a block of commands may say sh, or nothing."""
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        named = block[0].partition("\n")[0].strip("` ")
        if named == kind or (kind == "" and named == "sh"):
            yield block[1]


def lines(page: Path) -> list[str]:
    """Return what a page types in a shell, without comments."""
    whole = [
        re.sub(r"(^|\s)#.*", "", line).split()
        for text in blocks(page, "")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    return [" ".join(words) for words in whole if words]


def commands(page: Path) -> list[str]:
    return [line for line in lines(page) if line.startswith("medtrans ")]


def typed(command: str) -> list[str] | None:
    """Return what is typed for a command of a page; None where it is not."""
    if command.startswith(tuple(NOT_HERE)):
        return None
    words = shlex.split(command)[1:]
    name, options = words[0], words[1:]
    if name == "train":
        options[options.index("--out") + 1] = "new-run"  # a model is in the one of the page
        options.append("--dry-run")
    if name == "check":
        options += ["--steps", "0"]
    if name == "translate" and "--model" not in options:
        options += ["--model", "run/model"]
    files = [sorted(glob.glob(word)) if "*" in word else [word] for word in options]  # noqa: PTH207
    return [name, *(word for found in files for word in found)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    manifest = helpers.write_cohort(folder / "heads")
    for name in ("run", "aligned"):
        (folder / name).mkdir()
    recipe = helpers.tiny_pipeline()
    helpers.save_model(folder / "run" / "model", recipe, error=helpers.known_error(recipe))
    shutil.copytree(folder / "run" / "model", folder / "adapted" / "model")
    rows = [line.split(",")[:4] for line in manifest.read_text().splitlines()[1:]]
    listed = [
        {"subject": s, "contrast": c, "path": f"heads/{p}", "split": split}
        for s, c, p, split in rows
    ]
    for name in ("data.csv", "raw.csv", "cohort.csv", "mine.csv"):
        write_manifest(folder / name, listed)
    write_manifest(
        folder / "aligned" / "manifest.csv",
        [row | {"path": f"../{row['path']}"} for row in listed],
    )
    one = folder / "heads" / "sub-001"
    for name in ("t1.nii.gz", "t2.nii.gz"):
        shutil.copy(one / name, folder / name)
    shutil.copy(one / "t1.nii.gz", folder / "head_t1.nii.gz")
    for copy in ("real_t2.nii.gz", "synthetic.nii.gz", "others/a.nii.gz", "real/a.nii.gz"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(one / "t2.nii.gz", folder / copy)
    (folder / "cohort").mkdir()
    for number in (1, 2):
        shutil.copy(folder / f"heads/sub-00{number}/t1.nii.gz", folder / f"cohort/{number}.nii.gz")
    image = nib.load(one / "t1.nii.gz")
    mask = (np.asanyarray(image.dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, image.affine), folder / "brain.nii.gz")
    several = np.stack([np.asanyarray(image.dataobj)] * 2, axis=3)
    nib.save(nib.Nifti1Image(several, image.affine), folder / "fmri.nii.gz")
    dicom_series(folder / "study" / "dicom")
    return folder


@pytest.fixture
def here(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(medtrans: Run) -> Run:
    """Under a name that is not the package's."""
    return medtrans


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands(page) and page.name not in TYPED_ELSEWHERE],
    ids=lambda page: page.name,
)
def test_what_a_page_types_works(page: Path, here: Path, run: Run) -> None:
    if "DATA" in page.read_text(encoding="utf-8"):
        write_messy(here / "DATA")
    if page.name != "evaluate.md":  # which has it as the real one
        (here / "t2.nii.gz").unlink()
    for command in commands(page):
        words = typed(command)
        if words is None:
            continue
        if words[0] == "manifest" and Path(words[words.index("--out") + 1]).exists():
            words.append("--overwrite")
        if words[0] == "align":
            shutil.rmtree(here / "aligned")
        code, _, said = run(*words)
        assert code == 0, f"{command}\n{said}"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if [*blocks(page, "python")] and page.name not in PYTHON_NOT_HERE],
    ids=lambda page: page.name,
)
def test_the_python_of_a_page_works(page: Path, here: Path, run: Run) -> None:
    import medtrans

    voxels = np.asanyarray(nib.load("t1.nii.gz").dataobj, dtype=np.float32)
    names = {
        "image": nib.load("t1.nii.gz"),
        "predicted": voxels,
        "reference": voxels + 1,
        "mask": voxels > 0,
        "slicer": slicer(),
    }
    (here / "t2.nii.gz").unlink()
    small = medtrans.Translator.load("run/model")

    def start(command: list[str], *, check: bool, env: dict[str, str]) -> None:
        assert check
        assert env == {"FROM": "before Slicer"}
        words = typed(shlex.join(["medtrans", *command[1:]]))
        assert words is not None
        assert run(*words).code == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medtrans.Translator, "load", lambda *_: small)
        patch.setattr(subprocess, "run", start)
        for text in blocks(page, "python"):
            exec(compile(text, page.name, "exec"), names)


def slicer() -> SimpleNamespace:
    """What the pages use of 3D Slicer's module, with the parameters that it has there."""

    def load_volume(filename: str, properties: dict[str, str]) -> object:
        assert set(properties) == {"name"}
        return nib.load(filename)

    environment = {"FROM": "before Slicer"}
    return SimpleNamespace(
        util=SimpleNamespace(startupEnvironment=lambda: environment, loadVolume=load_volume)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_of_medtrans_is_listed(page: Path) -> None:
    known = ("medtrans ", *OTHER_PROGRAMS)
    assert not [line for line in lines(page) if not line.startswith(known)]


def test_every_exception_is_still_in_a_page() -> None:
    every_line = [line for page in PAGES for line in lines(page)]
    for start in OTHER_PROGRAMS:
        assert any(line.startswith(start) for line in every_line), start
    every = [command for page in PAGES for command in commands(page)]
    for start in NOT_HERE:
        assert any(command.startswith(start) for command in every), start
    for name in PYTHON_NOT_HERE:
        assert [*blocks(ROOT / "docs" / name, "python")]
