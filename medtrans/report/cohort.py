"""The pages of many translations: one of each, and an index that lists them all.

The page of a translation holds what the index says of it, so that a later run, which leaves what
is done, lists that too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medtrans.errors import MedtransError
from medtrans.inference.cohort import Result, Unchanged
from medtrans.inference.jobs import Job
from medtrans.inference.recall import fingerprint, recalled
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.report.index import CASES, Card, Index, file_name, save_index
from medtrans.report.made import contrast_name
from medtrans.report.page import save_page
from medtrans.report.still import draw_small
from medtrans.report.translation import describe, grid_text, translation_scene
from medtrans.volumes.files import load


class CohortPages:
    """The pages of a cohort, as its translations come in.

    Parameters
    ----------
    folder : Path
        `require_pages` has made it.
    jobs : sequence of Job
        All of them: the index tells which are not translated.
    translator : Translator
    settings : Settings
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], translator: Translator, settings: Settings
    ) -> None:
        self.folder, self.translator, self.settings = folder, translator, settings
        self.names = _names(jobs)
        self.failed: list[Card] = []
        self.done: list[Card] = []

    def add(self, job: Job, result: Result) -> None:
        """Write the page of a result, unless it has one; the index is written by `save`."""
        name = self.names[job.path]
        if isinstance(result, MedtransError):
            self.failed.append(Card(name, notes=[_without_folder(str(result), job.path)]))
            return
        if isinstance(result, Unchanged):
            card = Card.read(self.folder, name)
            if card is not None and card.of == fingerprint(result.outputs):
                self.done.append(card)
                return
        try:
            self.done.append(self._written(job, result, name))
        except MedtransError as error:
            self.failed.append(Card(name, notes=[f"Translated, but it has no page: {error}"]))

    def save(self) -> Path:
        """Write the index page; raises `OutputError` if it cannot be written."""
        task = self.translator.package.task(self.settings.task)
        warned = [card for card in self.done if card.notes]
        plain = [card for card in self.done if not card.notes]
        seen = {card.name for card in (*self.failed, *self.done)}
        left = [Card(name) for name in self.names.values() if name not in seen]
        lead = (
            f"{len(self.done)} of {len(self.names)} volumes are translated, {len(warned)} of them "
            f"with a warning; {len(self.failed)} failed."
        )
        source, target = (contrast_name(contrast) for contrast in task)
        index = Index(
            f"Synthetic {target} from {source}: {len(self.names)} volumes",
            lead,
            {
                "Failed": self.failed,
                "With a warning": warned,
                "Translated": plain,
                "Not translated": left,
            },
            below={"How they were made": self._how()},
        )
        return save_index(self.folder, index)

    def _how(self) -> Mapping[str, object]:
        package, settings = self.translator.package, self.settings
        return {
            "Model": package.name,
            "Model SHA256": package.sha256,
            "Mode": settings.mode,
            "Seed": settings.seed,
        }

    def _written(self, job: Job, result: Written | Unchanged, name: str) -> Card:
        """Write the page of a translation, from the files that it was made of and became."""
        of = fingerprint(result.outputs)
        if isinstance(result, Unchanged):
            result = recalled(self.translator, job, self.settings, result.outputs)
        image = load(job.path, job.series, job.volume)
        scene = translation_scene(image, result)
        page = describe(scene, image.source, result)
        card = Card(
            name,
            file_name(name),
            draw_small(scene, {"source": "source", "synthetic": "SYNTHETIC"}),
            " and ".join(shown.layer.name for shown in scene.shown),
            list(page.warnings),
            {"Grid": grid_text(scene)},
            of,
        )
        save_page(self.folder / CASES / file_name(name), replace(page, facts=card.facts()))
        return card


def _names(jobs: Sequence[Job]) -> dict[Path, str]:
    """Name each input by its path below what all have in common: its file's name, in one folder."""
    paths = [job.path for job in jobs]
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return {path: path.absolute().relative_to(common).as_posix() for path in paths}


def _without_folder(sentence: str, path: Path) -> str:
    return sentence.replace(str(path), path.name)
