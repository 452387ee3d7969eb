"""What a look at an input says, and what becomes of it: warnings, the sidecar, the page, strict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtrans import Translator as PublicTranslator
from medtrans.config.terms import Task
from medtrans.errors import PackageError, UnusualInputError
from medtrans.inference.cohort import Unchanged, translate_cohort
from medtrans.inference.jobs import Job
from medtrans.inference.look import describe_orientation, look_at
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.networks.unet import residual_network
from medtrans.package.bundle_files import Documents
from medtrans.package.folder import LOOK
from medtrans.package.look import Extent, Known, Usual, new_network
from medtrans.package.store import TrainedModel, export_package, load_package, save_package
from medtrans.preprocessing.coarse import ORIENTATIONS
from medtrans.preprocessing.intensity import Profile
from medtrans.report.translation import save_translation
from medtrans.volumes.files import load
from tests import helpers

T1_TO_T2, T2_TO_T1 = Task("t1", "t2"), Task("t2", "t1")
UPRIGHT = ORIENTATIONS[0]
BOX_MM = 8.0


def usual(**changes: object) -> Usual:
    every: dict[str, object] = {
        "spacing_mm": ((BOX_MM, BOX_MM),) * 3,
        "size_mm": ((100.0, 200.0),) * 3,
        "litres": (1.0, 3.0),
        "at_top": (0.0, 0.01),
    }
    return Usual(**{**every, **changes})  # type: ignore[arg-type]


class _Says(nn.Module):
    """Gives the same answer to whatever it is shown."""

    def __init__(self, answers: int, chosen: int, confidence: float) -> None:
        super().__init__()
        rest = (1 - confidence) / (answers - 1)
        shares = torch.full((answers,), rest)
        shares[chosen] = confidence
        self.logits = shares.log()

    def forward(self, batch: Tensor) -> Tensor:
        return self.logits.expand(len(batch), -1)


def known(
    contrast: int = 0, sure: float = 0.9, turned: int = 0, turned_sure: float = 0.9,
    **changes: object,
) -> Known:  # fmt: skip
    """A look that knows t1 and t2 and has made up its mind."""
    network = new_network(2, 0)
    network.contrast = _Says(3, contrast, sure)  # type: ignore[assignment]
    network.orientation = _Says(24, turned, turned_sure)  # type: ignore[assignment]
    return Known(("t1", "t2"), usual(**changes), network)


def box(size_mm: float = 160.0) -> np.ndarray:
    image = np.full((40, 40, 40), -1, np.float32)
    n = round(size_mm / BOX_MM)
    image[:n, :n, :n] = np.linspace(-0.9, 0.9, n, dtype=np.float32)[:, None, None]
    return image


def said(known: Known, image: np.ndarray | None = None, task: Task = T1_TO_T2) -> tuple[str, ...]:
    shown = box() if image is None else image
    return look_at(shown, (BOX_MM,) * 3, task, [T1_TO_T2, T2_TO_T1], known).unusual


class TestSentences:
    def test_nothing_unusual(self) -> None:
        assert said(known()) == ()

    def test_another_contrast_is_named_with_what_to_do(self) -> None:
        [sentence] = said(known(contrast=0), task=T2_TO_T1)
        assert "look like t1 (90% sure), and t2-to-t1 expects t2" in sentence
        assert "--task or --model" in sentence  # t1-to-t1 is no task
        three = replace(known(contrast=1), contrasts=("t1", "flair"))
        tasks = [T1_TO_T2, Task("flair", "t2")]
        [sentence] = look_at(box(), (BOX_MM,) * 3, T1_TO_T2, tasks, three).unusual
        assert "choose --task flair-to-t2" in sentence

    def test_none_of_the_contrasts(self) -> None:
        [sentence] = said(known(contrast=2))
        assert "none of the contrasts that the model knows (t1, t2)" in sentence

    def test_a_contrast_that_is_well_possible_is_not_doubted(self) -> None:
        assert said(known(contrast=1, sure=0.5)) == said(known()) == ()
        assert len(said(known(contrast=1, sure=0.8))) == 1

    def test_a_source_that_training_had_none_of_is_not_doubted(self) -> None:
        assert said(known(contrast=1), task=Task("flair", "t2")) == ()

    def test_a_turned_head(self) -> None:
        down = next(
            k for k, o in enumerate(ORIENTATIONS)
            if o.axes == (0, 1, 2) and o.flipped == (False, False, True)
        )  # fmt: skip
        [sentence] = said(known(turned=down))
        assert "the top of the head points to the header's inferior side" in sentence
        assert "its front to the anterior side" in sentence
        assert said(known(turned=down, turned_sure=0.6)) == ()

    def test_of_a_few_slices_no_orientation_is_told(self) -> None:
        flat = box()
        flat[:, :, 2:] = -1
        look = look_at(flat, (BOX_MM,) * 3, T1_TO_T2, [T1_TO_T2], known(turned=5))
        assert look.orientation is None
        assert describe_orientation(None) == "cannot be told"
        assert not any("header" in w and "lie" in w for w in look.unusual)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"size_mm": ((30.0, 90.0),) * 3}, "what it shows measures"),
            ({"spacing_mm": ((1.0, 1.0),) * 3}, "apart, and those of"),
            ({"litres": (0.1, 0.2)}, "litres"),
        ],
    )
    def test_what_is_measured(self, change: dict[str, object], words: str) -> None:
        found = said(known(**change))
        assert found
        assert all(words in sentence for sentence in found)

    def test_clipped_values(self) -> None:
        image = box()
        image[image > 0.3] = 1
        [sentence] = said(known(), image)
        assert "as bright as the model sees" in sentence


def test_left_and_right_are_said_to_be_alike() -> None:
    assert "left and right cannot be told apart" in describe_orientation(UPRIGHT)


def save_with_look(folder: Path, look: Known | None) -> Path:
    recipe = helpers.tiny_pipeline("base", tasks=["t1-to-t2", "t2-to-t1"])
    model = TrainedModel(
        pipeline=recipe,
        profiles={"t1": Profile(0, 1000), "t2": Profile(0, 1000)},
        residual=residual_network(recipe, 0).state_dict(),
        noise=None,
        masked_background=False,
        training={"seed": 0},
        look=look,
    )
    save_package(folder, model)
    return folder


def real_known() -> Known:
    network = helpers.randomise(new_network(2, 0), 1).eval()
    return Known(("t1", "t2"), usual(), network)  # type: ignore[arg-type]


class TestPackage:
    def test_it_comes_back(self, tmp_path: Path) -> None:
        first, folder = real_known(), save_with_look(tmp_path / "m", real_known())
        copy = tmp_path / "copy"
        export_package(folder, copy, Documents())
        for place in (folder, copy):
            found = load_package(place).look
            assert found is not None
            assert (found.contrasts, found.usual) == (first.contrasts, first.usual)
            for key, value in first.network.state_dict().items():
                assert torch.allclose(
                    found.network.state_dict()[key].float(), value.float(), atol=1e-3
                )

    def test_a_package_without_one_works(self, tmp_path: Path) -> None:
        folder = save_with_look(tmp_path / "m", None)
        assert load_package(folder).look is None
        head = helpers.volume(*helpers.head())
        translation = Translator.load(folder, "cpu").translate_volume(head, Settings())
        assert (translation.look, translation.warnings) == (None, ())

    @pytest.mark.parametrize("spoil", ["missing", "changed", "record"])
    def test_a_damaged_one_is_refused(self, tmp_path: Path, spoil: str) -> None:
        folder = save_with_look(tmp_path / "m", real_known())
        metadata = folder / "configs" / "metadata.json"
        if spoil == "missing":
            (folder / LOOK).unlink()
        elif spoil == "changed":
            (folder / LOOK).write_bytes((folder / LOOK).read_bytes()[:-1] + b"x")
        else:
            record = json.loads(metadata.read_text())
            record["medtrans"]["look"]["contrasts"] = ["t1"]
            metadata.write_text(json.dumps(record))
        with pytest.raises(PackageError, match=r"Copy the package again|cannot be read"):
            load_package(folder)


@pytest.fixture
def doubtful(tmp_path: Path) -> Translator:
    """A translator whose look takes whatever it is shown for t2."""
    translator = Translator.load(save_with_look(tmp_path / "model", real_known()), "cpu")
    wide = ((0.0, 1e3),) * 3
    look = known(contrast=1, spacing_mm=wide, size_mm=wide, litres=(0.0, 99.0), at_top=(0.0, 1.0))
    translator.package = replace(translator.package, look=look)
    return translator


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    manifest = helpers.write_cohort(tmp_path / "data", 1)
    return (manifest.parent / "sub-001" / "t1.nii.gz").rename(tmp_path / "scan.nii.gz")


class TestWhatBecomesOfIt:
    def test_python_warns_and_strict_refuses(
        self, doubtful: Translator, scan: Path, tmp_path: Path
    ) -> None:
        with pytest.warns(UserWarning, match="look like t2"):
            out = doubtful.translate(scan)
        out.unlink()
        with pytest.raises(UnusualInputError, match="look like t2") as refused:
            doubtful.translate(scan, strict=True)
        assert refused.value.exit_code == 2
        assert not out.exists()
        doubtful.translate(scan, task="t2-to-t1", strict=True)

    def test_the_sidecar_and_the_page_say_it(
        self, doubtful: Translator, scan: Path, tmp_path: Path
    ) -> None:
        written = doubtful.translate_file(Job(scan, out=tmp_path / "o.nii.gz"), Settings())
        entry = json.loads((tmp_path / "o.json").read_text())["InputLook"]
        assert entry["Contrast"] == "t2"
        assert entry["ContrastConfidence"] == pytest.approx(0.9)
        assert [s for s in entry["Unusual"] if "look like t2" in s]
        page = tmp_path / "page.html"
        save_translation(page, load(scan, None, None), written)
        text = page.read_text()
        assert "A look at the input" in text
        assert "T2 (90% sure); expected: T1" in text
        assert "Input Look" not in text

    def test_of_a_cohort_the_refused_row_fails_alone(
        self, doubtful: Translator, tmp_path: Path
    ) -> None:
        manifest = helpers.write_cohort(tmp_path / "data", 2)
        jobs = [
            Job(manifest.parent / f"sub-00{k}" / "t1.nii.gz", out=tmp_path / f"{k}.nii.gz")
            for k in (1, 2)
        ]

        def run(*, strict: bool) -> list[object]:
            settings = Settings(strict=strict)
            return list(
                translate_cohort(doubtful, jobs, settings, strict=strict, on_done=lambda *_: None)
            )

        refused = run(strict=True)
        assert [type(r) for r in refused] == [UnusualInputError, UnusualInputError]
        assert all(isinstance(r, Written) for r in run(strict=False))
        assert all(isinstance(r, Unchanged) for r in run(strict=False))
        # What was translated with a warning is not taken for a result that passed.
        assert [type(r) for r in run(strict=True)] == [UnusualInputError, UnusualInputError]


def test_the_public_translator_is_this_one() -> None:
    assert PublicTranslator is Translator


def test_extent() -> None:
    extent = Extent.of(box(80.0), (BOX_MM, BOX_MM, 2 * BOX_MM))
    assert extent.size_mm == (80.0, 80.0, 160.0)
    assert extent.litres == pytest.approx(0.8 * 0.8 * 1.6)
