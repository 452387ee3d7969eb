"""What each command does, between the command line and the modules that do the work.

Every function returns a mapping for `console.Output.result`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medtrans.cohort import Job, jobs_from_inputs, jobs_from_manifest, translate_cohort
from medtrans.config import MODES, STAGES, Pipeline, Task
from medtrans.errors import EXIT_DONE, EXIT_USER_CAN_FIX, Interrupted, MedtransError, UsageError
from medtrans.manifest import Manifest
from medtrans.package import (
    load_package,
)
from medtrans.progress import say, track
from medtrans.recipes import load_pipeline, pipeline_from_dict, shipped_tasks
from medtrans.settings import Settings
from medtrans.translate import Translator, Written
from medtrans.volumes import read_volume
from medtrans.volumes.atomic import make_folder, require_writable

_STAGES = ("all", "noise", "residual")


@dataclass(frozen=True)
class TranslateRequest:
    """The arguments of `medtrans translate`; `files` and `selection` go to `translate_file`."""

    inputs: tuple[Path, ...]
    out: Path | None
    model: str
    device: str
    settings: Mapping[str, Any]
    files: Mapping[str, Path | None]
    selection: Mapping[str, Any]
    output_kind: str | None
    report: Path | None
    manifest: Path | None
    out_dir: Path | None
    strict: bool


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of `medtrans train`."""

    task: str | None
    manifest: Path
    out: Path
    pipeline: str | None
    stage: str
    noise_from: Path | None
    pairs: int | None
    iterations: Mapping[str, int | None]
    resume: bool
    seed: int
    device: str
    initial: str | None = None


def translate_files(request: TranslateRequest) -> dict[str, Any]:
    """Translate one input or many; `exit_code` in the result is that of the first failure."""
    settings = Settings(**request.settings)
    translator = Translator.load(request.model, request.device)
    task = translator.package.task(settings.task)
    jobs = _jobs(request, task)
    if request.report is not None:
        _require_page(request.report)
    if len(jobs) > 1 and (request.report or any(request.files.values())):
        raise UsageError("--mask, --uncertainty and --report take one input at a time.")
    say(f"{task} with {translator.package.name}, {settings.mode} mode, on {translator.device}.")
    rows: list[dict[str, Any]] = []

    def on_done(job: Job, result: Written | MedtransError) -> None:
        rows.append(_row(job, result))
        if isinstance(result, MedtransError):
            say(f"medtrans: {_named(str(result), job.path)}")
        else:
            for warning in result.translation.warnings:
                say(f"Warning: {_named(warning, job.path)}")

    with track("slices") as on_slices:
        results = translate_cohort(
            translator,
            jobs,
            settings,
            strict=request.strict or len(jobs) == 1,
            on_done=on_done,
            on_slices=on_slices,
            output_kind=request.output_kind,
            **request.files,
            **request.selection,
        )
    if request.report is not None and isinstance(results[0], Written):
        _write_report(request, jobs[0].path, results[0])
    failures = [result for result in results if isinstance(result, MedtransError)]
    return {
        "task": str(task),
        "model": translator.package.name,
        "mode": settings.mode,
        "device": str(translator.device),
        "volumes": rows,
        "failed": len(failures),
        "exit_code": failures[0].exit_code if failures else EXIT_DONE,
    }


def train_model(request: TrainRequest, dry_run: bool) -> dict[str, Any]:
    """Train, or with `dry_run` say what would be trained.

    Of several processes under torchrun only the first has something to say.
    """
    from medtrans.training.parallel import joined, own_gpu
    from medtrans.training.run import TrainingPlan, summarise, train

    if request.stage not in _STAGES:
        raise UsageError(f"--stage is all, noise or residual, not '{request.stage}'.")
    plan = TrainingPlan(
        pipeline=_pipeline(request),
        manifest=Manifest.read(request.manifest),
        out=request.out,
        stages=request.stage,  # type: ignore[arg-type]
        noise_from=request.noise_from,
        pairs=request.pairs,
        seed=request.seed,
        device=own_gpu(request.device),
        resume=request.resume,
        initial=request.initial,
    )
    if dry_run:
        return summarise(plan)
    with joined() as group:
        try:
            model = train(plan, group)
        except Interrupted:
            if group.leads:
                raise
    return {"model": str(model), "run": str(request.out)} if group.leads else {}


def choose_noise_level(
    request: TrainRequest, weight: float, sweep_iterations: int | None
) -> dict[str, Any]:
    """Draw the curve of the noise criterion; with iterations, train models over a grid, too."""
    from medtrans.cache import VolumeCache
    from medtrans.pictures import save_curves
    from medtrans.training.noise_level import measure_noise_level
    from medtrans.training.run import TrainingPlan
    from medtrans.training.sweep import SWEPT, sweep

    if not 0 <= weight <= 1:
        raise UsageError(f"--lambda is between 0 and 1, not {weight:g}.")
    manifest, pipeline = Manifest.read(request.manifest), _pipeline(request)
    out = make_folder(request.out)
    cache = VolumeCache(out / "cache", pipeline)
    found = measure_noise_level(pipeline, manifest, cache, request.seed, weight)
    rows = [{"sigma": s, "A": a, "B": b, "J": j} for s, a, b, j in zip(*found, strict=True)]
    _write_rows(out / "noise_level.csv", rows)
    curves = {"A: source and target apart": found.apart, "B: source destroyed": found.destroyed}
    save_curves(out / "noise_level.png", found.sigma, {**curves, "J": found.total}, found.best)
    result = {"sigma": found.best, "lambda": weight, "curve": rows, "folder": str(out)}
    if sweep_iterations is not None:
        plan = TrainingPlan(
            pipeline, manifest, out / "sweep", seed=request.seed, device=request.device
        )
        swept = sweep(plan, SWEPT, sweep_iterations)
        beside = dict(zip(found.sigma, found.total, strict=True))
        swept = [{"sigma": row["sigma"], "J": beside[row["sigma"]], **row} for row in swept]
        _write_rows(out / "sweep.csv", swept)
        result["sweep"] = swept
    return result


def evaluate_manifest(
    model: str,
    manifest: Path | None,
    task: str | None,
    split: str,
    modes: list[str] | None,
    out: Path | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Score a model and its baselines on a split."""
    from medtrans.evaluate.compare import evaluate_model, summarise

    if manifest is None:
        raise UsageError("Give --manifest CSV, or --prediction and --reference.")
    scores = None if out is None else make_folder(out) / "scores.csv"
    cohort = Manifest.read(manifest)
    if not cohort.split_is_stated:
        say(
            f"{manifest} has no split column, so medtrans chose: {cohort.summary()}. Subjects that "
            "the model was trained on may be among those scored."
        )
    translator = Translator.load(model, device)
    supported = MODES if translator.package.noise is not None else MODES[:1]
    settings = [Settings(mode=m, seed=seed) for m in modes or supported]  # type: ignore[arg-type]
    table = evaluate_model(translator, cohort, split, task, settings)
    if scores is not None:
        table.to_csv(scores, index=False)
    return {
        **({} if scores is None else {"scores": str(scores)}),
        "model": translator.package.name,
        "split": split,
        "subjects": [_known(row) for row in table.to_dict("records")],
        "mean": summarise(table),
    }


def evaluate_pair(
    prediction: Path | None,
    reference: Path | None,
    mask: Path | None,
    window: tuple[float, float] | None,
    others: Iterable[Any] = (),
) -> dict[str, Any]:
    """Score one file against another; `others` are arguments that this has no use for."""
    from medtrans.evaluate.compare import evaluate_files

    if any(others):
        raise UsageError(
            "--prediction and --reference score two files: leave out --manifest, --task, --mode "
            "and --out."
        )
    if prediction is None or reference is None:
        raise UsageError("--prediction and --reference go together.")
    if window is not None and window[0] >= window[1]:
        raise UsageError(f"--window is its lower end, then its upper, not {window[0]} {window[1]}.")
    return dict(evaluate_files(prediction, reference, mask, window))


def export_bundle(
    source: str,
    out: Path,
    card: Path | None,
    license_file: Path | None,
    data_license: Path | None,
    version: str,
    change: str,
) -> dict[str, Any]:
    """Write a run's model, or a package, as a whole MONAI bundle."""
    from medtrans.bundle_files import Documents
    from medtrans.package import export_package

    documents = Documents(
        card=_text(card),
        license_text=_text(license_file),
        data_license=_text(data_license),
        version=version,
        changelog={version: change},
    )
    files = export_package(source, out, documents)
    return {"bundle": str(out), "files": [str(path) for path in files]}


def check_bundle(folder: Path, trust: bool) -> dict[str, Any]:
    """Run the checks of a MONAI bundle; `exit_code` in the result says whether all hold."""
    from medtrans.bundle_check import check

    rows = [asdict(result) for result in check(folder, trust=trust)]
    failed = sum(row["result"] == "failed" for row in rows)
    exit_code = EXIT_USER_CAN_FIX if failed else EXIT_DONE
    return {"bundle": str(folder), "checks": rows, "failed": failed, "exit_code": exit_code}


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error}). Name a text file.") from None


def _jobs(request: TranslateRequest, task: Task) -> list[Job]:
    if request.manifest is None:
        if request.out_dir is not None:
            raise UsageError("--out-dir goes with --manifest; for files use -o.")
        return jobs_from_inputs(request.inputs, request.out)
    if request.out_dir is None or request.inputs or request.out is not None:
        raise UsageError("With --manifest give --out-dir DIR, and neither inputs nor -o.")
    return jobs_from_manifest(Manifest.read(request.manifest), task.source, request.out_dir)


def _write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    import pandas as pd

    from medtrans.volumes.atomic import replacing

    with replacing(path) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False, float_format="%.6g")


def _known(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Leave out what a subject has no value for, which a table holds as not a number."""
    return {str(key): value for key, value in row.items() if value == value}  # noqa: PLR0124


def _named(sentence: str, path: Path) -> str:
    """Put the file's name before a sentence that does not say it."""
    return sentence if path.name in sentence else f"{path.name}: {sentence}"


def _row(job: Job, result: Written | MedtransError) -> dict[str, Any]:
    if isinstance(result, MedtransError):
        return {"input": str(job.path), "output": None, "error": str(result)}
    return {
        "input": str(job.path),
        "output": str(result.outputs[0]),
        "slices": result.translation.slices,
        "seconds": round(result.seconds, 2),
    }


def _require_page(path: Path) -> None:
    """Refuse a report that could not be written, before anything is translated."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report writes an HTML page: {path} should end in .html.")
    require_writable(path)


def _write_report(request: TranslateRequest, path: Path, written: Written) -> None:
    """Write the HTML page of one translation, with nothing of the input but its picture."""
    from medtrans.evaluate.report import save_html, save_picture

    assert request.report is not None
    source = read_volume(path, **request.selection)
    synthetic = read_volume(written.outputs[0])
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        save_picture(picture, {"source": source, "SYNTHETIC": synthetic})
        facts = asdict(replace(written.provenance, extra={}))
        warnings = list(written.translation.warnings)
        sections = {"How it was made": facts, "Warnings": warnings}
        save_html(request.report, f"medtrans: {facts['task']}", picture, sections)


def _only(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: values[key]} if key in values else {}


def _pipeline(request: TrainRequest) -> Pipeline:
    """Read the recipe, and lay over it what the command line says.

    A model to start from brings its own recipe, since its weights fit no other network.
    """
    overrides: dict[str, Any] = {
        stage: {"iterations": count}
        for stage, count in request.iterations.items()
        if count is not None
    }
    if request.task is not None:
        overrides["tasks"] = [str(Task.parse(text)) for text in request.task.split(",")]
    if request.pipeline is not None:
        return load_pipeline(request.pipeline, overrides)
    if request.initial is not None:
        own = load_package(request.initial).pipeline.model_dump(mode="json")
        for stage in STAGES:
            own[stage] |= overrides.get(stage, {})
        return pipeline_from_dict({**own, **_only(overrides, "tasks")}, request.initial)
    if request.task is None:
        raise UsageError(
            "Which task? Give --task t1-to-t2 (several with commas), or a recipe with --pipeline."
        )
    first = overrides["tasks"][0]
    return load_pipeline(first if first in shipped_tasks() else "base", overrides)
