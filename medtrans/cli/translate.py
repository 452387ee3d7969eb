"""`medtrans translate`: one input, several, or a manifest's volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest
from medtrans.errors import EXIT_DONE, MedtransError, UsageError
from medtrans.inference.cohort import Job, jobs_from_inputs, jobs_from_manifest, translate_cohort
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.system.atomic import require_writable
from medtrans.system.devices import tune_process
from medtrans.system.progress import say, track
from medtrans.volumes import read_volume


@dataclass(frozen=True)
class TranslateRequest:
    """The arguments of `medtrans translate`; `files` and `selection` go to `translate_file`."""

    inputs: tuple[Path, ...]
    out: Path | None
    model: str
    device: str
    precision: str
    settings: Mapping[str, Any]
    files: Mapping[str, Path | None]
    selection: Mapping[str, Any]
    output_kind: str | None
    report: Path | None
    manifest: Path | None
    out_dir: Path | None
    strict: bool


def translate_files(request: TranslateRequest) -> dict[str, Any]:
    """Translate one input or many; `exit_code` in the result is that of the first failure."""
    settings = Settings(**request.settings)
    tune_process()
    translator = Translator.load(request.model, request.device, request.precision)
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


def _jobs(request: TranslateRequest, task: Task) -> list[Job]:
    if request.manifest is None:
        if request.out_dir is not None:
            raise UsageError("--out-dir goes with --manifest; for files use -o.")
        return jobs_from_inputs(request.inputs, request.out)
    if request.out_dir is None or request.inputs or request.out is not None:
        raise UsageError("With --manifest give --out-dir DIR, and neither inputs nor -o.")
    return jobs_from_manifest(Manifest.read(request.manifest), task.source, request.out_dir)


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
    from medtrans.report.page import save_html, save_picture

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
