"""The pages of an evaluation: one of each case, and an index with the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medtrans.evaluate.case_scene import Naming, charts_of, scene_of
from medtrans.evaluate.compared import Compared
from medtrans.evaluate.headlines import decisive_score, headline_scores, headlines
from medtrans.evaluate.regions import FOREGROUND
from medtrans.evaluate.result import Evaluation, scale_facts
from medtrans.evaluate.table import NAMES, Row
from medtrans.report.document import Section
from medtrans.report.index import CASES, Card, Index, file_name, save_index
from medtrans.report.packing import MAX_BYTES
from medtrans.report.page import Page, save_page
from medtrans.report.scene import Role
from medtrans.report.still import draw_small

_ALL_BYTES = 400_000_000  # of the volumes of all pages together, if that leaves each
_FEWEST_BYTES = 1_500_000
_CAPTIONS: dict[Role, str] = {"synthetic": "SYNTHETIC", "reference": "real", "error": "error"}


class EvaluationPages:
    """The pages of an evaluation, as its cases come in.

    Parameters
    ----------
    folder : Path
        `require_pages` has made it.
    cases : int
        How many there will be; of many each page gets fewer bytes.
    naming : Naming
    """

    def __init__(self, folder: Path, cases: int, naming: Naming) -> None:
        self.folder, self.naming = folder, naming
        share = _ALL_BYTES // max(cases, 1)
        self.max_bytes = min(max(share, _FEWEST_BYTES), MAX_BYTES)
        self.cards: list[tuple[float, Card]] = []  # with how bad the case is
        self.order = ""

    def add(self, case: Compared) -> None:
        """Write the page of a case; raises `OutputError` if it cannot be written."""
        name = self._new_name(case.name)
        scene = scene_of(case, self.naming)
        card = Card(
            name,
            file_name(name),
            draw_small(scene, _CAPTIONS),
            ", ".join(_CAPTIONS.values()),
            figures=_figures(case),
        )
        made = {"How it was made": self.naming.facts, "Scale": _scale(case)}
        page = Page(
            f"{name}: {self._what()}", scene, (), {**_tables(case), **made}, charts=charts_of(case)
        )
        save_page(self.folder / CASES / str(card.page), page, self.max_bytes)
        self.cards.append((self._badness(case), card))

    def save(self, found: Evaluation) -> Path:
        """Write the index; raises `OutputError` if it cannot be written."""
        summary: Section = [
            {column: f"{value}" for column, value in row.items()}
            for row in headlines(found.summary)
        ]
        worst = [card for _, card in sorted(self.cards, key=lambda pair: -pair[0])]
        index = Index(
            f"Evaluation: {self._what()}",
            f"The first is the worst by {self.order} in the foreground.",
            {"Cases, worst first": worst},
            above={"Mean over n subjects [95 % interval]": summary},
            below={
                "How they were made": self.naming.facts,
                "Scale": _facts_of_scale(scale_facts(found.window)),
            },
        )
        return save_index(self.folder, index)

    def _what(self) -> str:
        source, target, _ = self.naming
        made = f"synthetic {target}" if target else "prediction"
        return f"{made} {f'from {source} ' if source else ''}beside the real image"

    def _new_name(self, name: str) -> str:
        taken = {card.name for _, card in self.cards}
        others = (f"{name} ({n})" for n in range(2, len(taken) + 2))
        return name if name not in taken else next(n for n in others if n not in taken)

    def _badness(self, case: Compared) -> float:
        """Give what is larger for a worse case; what has no score comes first."""
        method = next(iter(case.predicted))
        row = next(row for row in _inside(case) if row["method"] == method)
        score, higher_is_better = decisive_score(row.keys())
        self.order = f"{score} of {method}"
        value = float(row.get(score, np.nan))
        return np.inf if np.isnan(value) else -value if higher_is_better else value


def _inside(case: Compared) -> list[Row]:
    return [row for row in case.rows if row["region"] == FOREGROUND]


def _figures(case: Compared) -> dict[str, str]:
    """Give the few scores that tell most, by method."""
    rows = _inside(case)
    return {
        str(row["method"]): ", ".join(
            f"{name} {row[name]:.4g}" for name in headline_scores(row.keys())[:3] if name in row
        )
        for row in rows
    }


def _tables(case: Compared) -> dict[str, Section]:
    """Give all scores: a table for each region, the methods side by side."""
    tables: dict[str, Section] = {}
    for region in dict.fromkeys(str(row["region"]) for row in case.rows):
        rows = [row for row in case.rows if row["region"] == region]
        names = dict.fromkeys(name for row in rows for name in row if name not in NAMES)
        tables[f"Scores: {region}"] = [
            {"score": name, **{str(row["method"]): _spelt(row.get(name)) for row in rows}}
            for name in names
        ]
    return tables


def _spelt(value: object) -> str:
    return "-" if value is None else f"{value:.4g}"


def _scale(case: Compared) -> Mapping[str, object]:
    return _facts_of_scale(scale_facts(case.truth.window))


def _facts_of_scale(facts: Mapping[str, object]) -> Mapping[str, object]:
    return {name: facts[name] for name in ("normalisation", "fit")}
