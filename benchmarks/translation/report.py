"""From results.csv to docs/benchmark.md and its two pictures.

`python -m benchmarks.translation.report`; needs matplotlib (the `bench` extra).
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import ModuleType

import pandas as pd

from benchmarks.translation.__main__ import RESULTS
from benchmarks.translation.cells import LONGER
from benchmarks.translation.cohorts import HERE
from benchmarks.translation.hospitals import tables
from benchmarks.translation.scoring import named
from benchmarks.translation.unified import LONGER_SINGLE
from benchmarks.translation.unified import RESULTS as UNIFIED

RETRAINED = HERE / "retrained.csv"
DOCS = HERE.parents[1] / "docs"
PAIRS = ("none", "8 slices", "32 slices", "1 subject", "2 subjects", "all")
_COLUMNS = {
    "psnr_fit": "PSNR, dB",
    "ssim_fit": "SSIM",
    "mae_fit": "MAE",
    "psnr": "raw PSNR, dB",
    "whole_psnr": "whole, raw PSNR, dB",
    "high_frequency": "high-frequency ratio",
    "slice_to_slice": "slice-to-slice ratio",
    "realism": "realism distance",
    "network_calls": "calls",
    "seconds": "CPU seconds",
}

_TICKS = (1, 2, 3, 5, 10, 20, 30)
_TRIED = {
    "psnr_fit": "PSNR, dB",
    "ssim_fit": "SSIM",
    "high_frequency": "high-frequency ratio",
    "realism": "realism distance",
}

Styles = dict[str, dict[str, object]]


def main() -> None:
    """Write the page and draw the pictures."""
    table, tried = load(RESULTS, "test"), load(RESULTS, "val")
    sections = ["# The translation benchmark", _INTRODUCTION]
    for (cohort, task), rows in table.groupby(["cohort", "task"], sort=False):
        sections += [f"## {cohort}, {task}", *_tables(rows)]
    sections += [*_hospitals(), *_tried(tried), *_unified(UNIFIED), *_again(RESULTS, RETRAINED)]
    main_rows = table[(table.cohort == "brain") & (table.task == "t1-to-t2")]
    draw(main_rows, DOCS / "pictures")
    (DOCS / "benchmark.md").write_text("\n\n".join(sections) + "\n")


def load(path: Path, split: str) -> pd.DataFrame:
    """Read the rows of a split; a method's name carries its mode."""
    scores = {column: [""] for column in _COLUMNS}  # "none" pairs and an empty mode are no gaps
    table = pd.read_csv(path, keep_default_na=False, na_values=scores)
    table = table[table.split == split]
    order = pd.Categorical(table.pairs, PAIRS, ordered=True)
    return named(table).assign(pairs=order)


def _tables(rows: pd.DataFrame) -> list[str]:
    parts = []
    for pairs, group in rows.groupby("pairs", observed=True):
        columns = [c for c in _COLUMNS if c in group and group[c].notna().any()]
        means = group.groupby("name", sort=False)[columns].mean()
        spread = _spread_over_seeds(group)
        lines = []
        for name, row in means.iterrows():
            deviation = spread.get(name)
            shown = "–" if deviation is None or pd.isna(deviation) else f"{deviation:.2f}"
            lines.append([name, *(f"{row[c]:.4g}" for c in columns), shown])
        names = ["method", *(_COLUMNS[c] for c in columns), "sd over seeds, dB"]
        seeds = group.seed.nunique()
        parts += [f"### Pairs: {pairs} ({seeds} seed{'s' * (seeds > 1)})", _markdown(names, lines)]
    return parts


def _hospitals() -> list[str]:
    """Table the hospitals that were left out in turn."""
    names = ["method", "seeds", "PSNR, dB", "raw PSNR, dB", "SSIM", "MAE"]
    names += ["PSNR above l2", "PSNR above l2 with pseudo-pairs first"]
    parts = [_HOSPITALS_INTRODUCTION]
    for title, rows in tables():
        parts += [f"### {title}", _markdown(names, [[row.name, *row.cells] for row in rows])]
    return parts


def _tried(rows: pd.DataFrame) -> list[str]:
    """Table the variants on the val split, the best first."""
    if rows.empty:
        return []
    names = ["variant and mode", "seeds", *_TRIED.values()]
    best_first = rows.groupby("name").psnr_fit.mean().sort_values(ascending=False).index
    lines = []
    for name in best_first:
        variant = rows[rows.name == name]
        cells = [_mean_and_spread(variant, column) for column in _TRIED]
        lines.append([name, str(variant.seed.nunique()), *cells])
    return [_TRIED_INTRODUCTION, _markdown(names, lines)]


def _unified(path: Path) -> list[str]:
    """Table one model for all tasks against a model for each."""
    table = pd.read_csv(path)
    scores = {"psnr_fit": "PSNR, dB", "ssim_fit": "SSIM"}
    pivot = table.pivot_table(list(scores), "task", "model", sort=False)
    models = [m for m in ("single", LONGER_SINGLE, "unified") if m in set(table.model)]
    columns = list(product(scores, models))
    names = ["task", *(f"{model}: {scores[score]}" for score, model in columns)]
    rows = pd.concat([pivot, pivot.mean(skipna=False).to_frame("mean").T])[columns]
    lines = [
        [str(task), *("–" if pd.isna(v) else f"{v:.4g}" for v in row)]
        for task, row in rows.iterrows()
    ]
    return [_UNIFIED_INTRODUCTION, _markdown(names, lines)]


def _again(before: Path, after: Path) -> list[str]:
    """Table the cells that were trained again after the fault of the augmentation was corrected."""
    keys = ["cohort", "task", "pairs", "name"]
    old, new = (
        load(path, "test").groupby([*keys, "seed"], observed=True).psnr_fit.mean()
        for path in (before, after)
    )
    pairs = pd.DataFrame({"before": old, "after": new}).dropna()
    rows = pairs.groupby(keys, observed=True).agg(["mean", "count"])
    lines = [
        [*map(str, key), str(int(row["after", "count"])), f"{row['before', 'mean']:.4g}",
         f"{row['after', 'mean']:.4g}"]
        for key, row in rows.iterrows()
    ]  # fmt: skip
    change = pairs.after - pairs.before
    total = (
        f"On average {change.mean():+.3f} dB over {len(change)} cells and modes, at most "
        f"{change.abs().max():.2f}."
    )
    names = ["cohort", "task", "pairs", "method", "seeds", "before: PSNR, dB", "after: PSNR, dB"]
    return [_AGAIN_INTRODUCTION, _markdown(names, lines), total]


def _markdown(names: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (names, *rows)]
    return "\n".join([lines[0], "|---" * len(names) + "|", *lines[1:]])


def _mean_and_spread(rows: pd.DataFrame, column: str) -> str:
    """Give mean ± standard deviation over seeds; no deviation of one."""
    seeds = rows.groupby("seed")[column].mean()
    return f"{seeds.mean():.4g}" + (f" ± {seeds.std():.2g}" if len(seeds) > 1 else "")


def _spread_over_seeds(rows: pd.DataFrame) -> pd.Series:
    """Give the standard deviation over seeds of the mean over subjects, by method."""
    means = rows.groupby(["name", "seed"]).psnr_fit.mean()
    return means.groupby("name").std()


def draw(rows: pd.DataFrame, folder: Path) -> None:
    """Draw quality against the number of pairs, and fidelity against realism."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    colours = mpl.colormaps["tab20"].colors
    names = dict.fromkeys(name.replace(LONGER, "") for name in rows.name)
    styles = {
        name: {"color": colour, "marker": "o" if name.startswith("drdd") else "s"}
        for name, colour in zip(names, colours[::2] + colours[1::2], strict=False)
    }
    _draw_quality(rows, folder / "quality_against_pairs.png", plt, styles)
    _draw_realism(rows, folder / "fidelity_against_realism.png", plt, styles)


def _draw_quality(rows: pd.DataFrame, path: Path, plt: ModuleType, styles: Styles) -> None:
    """One panel for each budget."""
    present = [p for p in PAIRS if (rows.pairs == p).any()]
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    longer = rows.name.str.contains(LONGER)
    budgets = {"400 steps on pairs": rows[~longer], "1600 steps on pairs (x4)": rows[longer]}
    for axes, (title, chosen) in zip(panels, budgets.items(), strict=True):
        for name, method in chosen.groupby("name", sort=False):
            means = (
                method.groupby(["pairs", "seed"], observed=True).psnr_fit.mean().groupby("pairs")
            )
            centre, spread = means.mean().reindex(present), means.std().reindex(present)
            known = centre.notna().to_numpy().nonzero()[0]  # a line over numbers that were not run
            style = styles[name.replace(LONGER, "")]
            axes.errorbar(known, centre.iloc[known], spread.iloc[known], capsize=3, **style)
        axes.set_xticks(range(len(present)), present)
        axes.set(xlabel="pairs", title=title, xlim=(-0.3, len(present) - 0.7))
        axes.grid(alpha=0.3)
    for name, style in styles.items():
        panels[0].plot([], [], label=name, **style)
    figure.legend(fontsize=8, loc="outside right upper")
    panels[0].set_ylabel("foreground PSNR after a linear fit, dB")
    figure.savefig(path, dpi=120)


def _draw_realism(rows: pd.DataFrame, path: Path, plt: ModuleType, styles: Styles) -> None:
    """Hollow marks are the longer budget."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True, layout="constrained")
    measures = {
        "high_frequency": "high-frequency energy ratio (1 is right)",
        "realism": "realism distance (0 is best)",
    }
    most = rows[rows.pairs == "all"]
    for axes, (column, label) in zip(panels, measures.items(), strict=True):
        for name, method in most.groupby("name", sort=False):
            fill = "none" if LONGER in name else "full"
            style = styles[name.replace(LONGER, "")] | {"fillstyle": fill, "linestyle": ""}
            axes.plot(method[column].mean(), method.psnr_fit.mean(), label=name, **style)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    panels[0].axvline(1, color="grey", linewidth=0.8)
    panels[0].set_ylabel("foreground PSNR after a linear fit, dB")
    panels[1].set_xscale("log")
    panels[1].set_xticks(_TICKS, map(str, _TICKS))
    panels[1].minorticks_off()
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)


_INTRODUCTION = """\
`python -m benchmarks.translation.report` writes this page from
[results.csv](../benchmarks/translation/results.csv). The
[README of the benchmark](../benchmarks/translation/README.md) says how to add to it.

Methods:

- All learnt methods have the same U-Net, pairs, augmentation and number of paired images.
- `drdd` has two things more. Before the pairs it trains on pseudo-pairs of all unpaired targets of
  the train split. Beside the pairs it trains on as many images of related tasks (T1c and FLAIR to
  the same target), where the cohort has them.
- `drdd-paper` has neither.
- `rddm` is coupled residual diffusion.
- `cyclegan` is given the same images, but never the two of a pair together.
- Training is short: 400 steps on pairs, and 1600 for methods called x4. Differences of a tenth of a
  dB therefore say little.
- "2+10" is realistic mode with ten noise steps.

Scores:

- They are means over the test subjects and seeds, in the target's foreground, on a [0, 1] scale.
- PSNR, SSIM and MAE are after a least-squares linear fit, unless the column says "raw".
- The texture ratios and the realism distance are without the fit.
- `rddm x4` has one seed. Where a table has fewer seeds or methods than another, they were not run
  yet.
- In brain-known-site each seed leaves out another subject of the train split and tests on it.

![quality against pairs](pictures/quality_against_pairs.png)

![fidelity against realism](pictures/fidelity_against_realism.png)"""

_HOSPITALS_INTRODUCTION = """## Another hospital: MR to CT, three hospitals

One axial slice of a whole head for each of 120 patients of three hospitals, MR and CT of 8 bits
(not HU). Each hospital is left out in turn: the two others train (80 patients), 20 of its
patients are scored. The other 20 give their CT as unpaired targets, or nothing. Scores are means
over patients and seeds, in the target's foreground, on a [0, 1] scale, after a least-squares
linear fit but for the raw PSNR. Differences are paired by patient, with 95 % bootstrap intervals
over patients. `identity` is the linear fit of the MR itself. `l2 pseudo-first` is the regression,
trained on as many pseudo-pairs before the pairs as `drdd`."""

_TRIED_INTRODUCTION = """\
## What was tried

The table has variants of the paper's method
([variants.toml](../benchmarks/translation/variants.toml)), ℓ2 regression and `drdd`. They are
trained on 8 paired T1/T2 slices and scored on the val subject: mean ± standard deviation over
seeds. The mode "fidelity x4" is the mean over four draws of the noise. The mode "fidelity flips" is
the mean over left-right mirror images."""

_AGAIN_INTRODUCTION = """## Before and after a fault of the augmentation

Up to version 7b2293a one random number chose a training slice and decided whether it was flipped.
So a slice was always flipped or never. The tables above keep the rows of those versions (column
`version` of results.csv). These cells were trained again without the fault
([retrained.csv](../benchmarks/translation/retrained.csv))."""

_UNIFIED_INTRODUCTION = """\
## One model for twelve tasks

`python -m benchmarks.translation.unified` measures this: fidelity mode, all pairs, one seed, mean
of the test subjects. Each single-task model takes 400 steps, or 1600 (x4). The unified model takes
1600, a third of what the twelve of 400 take together. The picture has the tasks in the table's
order: down the left half, then down the right half. Its images are without a linear fit.

![one model for twelve tasks beside twelve models](pictures/unified.png)"""

if __name__ == "__main__":
    main()
