"""`medtrans translate`: one input, several, or a manifest's volumes.

The request, the model's metadata and a single input are checked before torch is imported, so that
what cannot be done is refused within a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrans.cli.crew import CrewRequest, shared_model
from medtrans.cli.jobs import jobs_as_bids, read_checked
from medtrans.cli.page import PageJob, PageRequest, check_page, check_pages, first_page, pages_of
from medtrans.config.terms import BRAIN_SEARCHES, BrainSearch, Kind, Task
from medtrans.errors import EXIT_DONE, FaultError, MedtransError, UsageError
from medtrans.inference.jobs import Job, ReadJob, jobs_from_inputs, jobs_from_manifest
from medtrans.inference.settings import Settings
from medtrans.package.folder import choose_task, find_package, package_name, read_recipe
from medtrans.system.progress import say, track

if TYPE_CHECKING:
    from medtrans.inference.cohort import OnDone, Result
    from medtrans.inference.translator import Translator


@dataclass(frozen=True)
class TranslateRequest:
    """The arguments of `medtrans translate`.

    Attributes
    ----------
    inputs : tuple of Path
        Files and folders; none where a manifest lists them.
    out : Path or None
        File or folder for what `inputs` become.
    manifest, out_dir : Path or None
        A CSV of volumes, and the folder for what they become.
    model, device, precision : str
    settings : Settings
    mask, uncertainty, save_mask, report, reference : Path or None
        Further files of a single input; a reference goes with a report.
    kind, series, volume
        As in `Job`, for every input.
    strict : bool
        Stop at the first volume that fails.
    overwrite : bool
        Replace files that medtrans did not write for this result, and translate again what an
        earlier run did.
    workers, scheduler
        Which other processes translate several inputs; as in `CrewRequest`.
    bids : bool
        Name the outputs of a manifest as a BIDS derivative.
    on_fault : callable, optional
        Told of a fault of ours that stopped one volume; returns a sentence about it.
    """

    inputs: tuple[Path, ...]
    out: Path | None
    manifest: Path | None
    out_dir: Path | None
    model: str
    device: str
    precision: str
    settings: Settings
    mask: Path | None
    uncertainty: Path | None
    save_mask: Path | None
    report: Path | None
    kind: Kind | None
    series: str | None
    volume: int | None
    strict: bool
    overwrite: bool = False
    reference: Path | None = None
    workers: int | None = None
    scheduler: str | None = None
    bids: bool = False
    on_fault: Callable[[BaseException], str] | None = None

    def __post_init__(self) -> None:
        if self.page is None and self.reference is not None:
            raise UsageError("--reference is shown on one input's page: add --report page.html.")
        if self.manifest is None and self.out_dir is not None:
            raise UsageError("--out-dir goes with --manifest; for files use -o.")
        if self.manifest and (self.out_dir is None or self.inputs or self.out is not None):
            raise UsageError("With --manifest give --out-dir DIR, and neither inputs nor -o.")
        if self.bids and (self.manifest is None or self.kind not in (None, "nifti")):
            raise UsageError("--bids goes with --manifest and --out-dir, and writes NIfTI.")
        _ = self.crew  # which refuses what does not go together

    @property
    def crew(self) -> CrewRequest:
        """Who translates; raises `UsageError` for what does not go together."""
        return CrewRequest(self.workers, self.scheduler)

    @property
    def page(self) -> PageRequest | None:
        """What --report asks for of one input; raises `UsageError` for another kind of file."""
        if self.report is None or self.pages is not None:
            return None
        return PageRequest(self.report, self.reference, self.uncertainty is not None)

    @property
    def pages(self) -> Path | None:
        """The folder that --report names for the pages of many inputs."""
        if self.report is None or (self.report.suffix and not self.report.is_dir()):
            return None
        return self.report

    def jobs(self, task: Task) -> list[Job]:
        """List what is to be translated; raises `UsageError` for what does not go together."""
        jobs = [
            replace(
                job,
                mask=self.mask,
                uncertainty=self.uncertainty,
                save_mask=self.save_mask,
                kind=self.kind or job.kind,
                series=self.series or job.series,
                volume=self.volume,
                overwrite=self.overwrite,
            )
            for job in self._listed(task)
        ]
        if len(jobs) > 1 and (self.mask or self.uncertainty or self.save_mask):
            raise UsageError(
                "--mask, --brain MASK, --save-mask and --uncertainty take one input at a time."
            )
        if len(jobs) > 1 and self.page is not None:
            raise UsageError(
                f"{self.report} is the page of one input. For {len(jobs)} inputs name a folder: "
                "--report pages"
            )
        return jobs

    def _listed(self, task: Task) -> list[Job]:
        if self.manifest is None or self.out_dir is None:
            return jobs_from_inputs(self.inputs, self.out)
        if self.bids:
            return jobs_as_bids(self.manifest, task, self.out_dir, overwrite=self.overwrite)
        return jobs_from_manifest(self.manifest, task.source, self.out_dir)


def choose_mask(brain: str, mask: Path | None) -> tuple[BrainSearch, Path | None]:
    """Tell what --brain and --mask ask for together: whether to search, and the user's own mask.

    Raises
    ------
    UsageError
        When both name a mask.
    """
    if brain in BRAIN_SEARCHES:
        return brain, mask
    if mask is not None:
        raise UsageError("--mask and --brain both name a mask: give one of them.")
    return "auto", Path(brain)


def translate_files(request: TranslateRequest) -> dict[str, Any]:
    """Translate one input or many; `exit_code` in the result is that of the first failure."""
    folder = find_package(request.model)
    task = choose_task(
        request.settings.task, read_recipe(folder).parsed_tasks, package_name(folder)
    )
    jobs, page = request.jobs(task), request.page
    if request.pages is not None:
        check_pages(request.pages, overwrite=request.overwrite)
    if len(jobs) > 1:
        return _translate(request, jobs)
    read = read_checked(jobs[0], task, request.settings.samples, folder)
    return _translate(request, [read], None if page is None else check_page(page, read))


def _translate(
    request: TranslateRequest, jobs: Sequence[Job | ReadJob], page: PageJob | None = None
) -> dict[str, Any]:
    from medtrans.inference.translator import Translator, Written
    from medtrans.system.devices import tune_process

    settings, crew = request.settings, request.crew
    rows, codes = dict[Job, dict[str, Any]](), dict[Job, int]()
    plain = [job.job if isinstance(job, ReadJob) else job for job in jobs]
    tune_process()
    helped = crew.helps(jobs)
    device = "cpu" if helped else request.device
    translator = Translator.load(request.model, device, request.precision)
    task, where = translator.package.task(settings.task), str(crew if helped else translator.device)
    say(f"{task} with {translator.package.name}, {settings.mode} mode, on {where}.")

    def on_done(job: Job, result: Result) -> None:
        rows[job] = _row(job, result)
        add_page(job, result)
        if isinstance(result, MedtransError):
            codes[job] = result.exit_code
            say(f"medtrans: {_named(str(result), job.path)}")
            if isinstance(result, FaultError) and result.__cause__ and request.on_fault:
                say(request.on_fault(result.__cause__))
        elif isinstance(result, Written):
            for warning in result.translation.warnings:
                say(f"Warning: {_named(warning, job.path)}")
            if (brain := result.translation.brain) is not None:
                say(_named(f"a whole head; its brain was found, {brain.litres:.2f} l", job.path))

    with pages_of(request.pages, jobs, translator, settings) as add_page:
        if helped:
            model = shared_model(request.model, translator, request.device)
            crew.translate(model, plain, settings, strict=request.strict, on_done=on_done)
        else:
            results = _translate_here(translator, request, jobs, on_done)
    if page is not None:
        assert isinstance(results[0], Written)  # a single job's error has been raised
        page.save(results[0])
    counts = Counter(row["result"] for row in rows.values())
    return {
        "task": str(task),
        "model": translator.package.name,
        "mode": settings.mode,
        "device": where,
        "volumes": [rows[job] for job in plain],
        **{name: counts[name] for name in ("translated", "unchanged", "failed")},
        **({} if request.report is None else {"page": str(first_page(request.report))}),
        "exit_code": next((codes[job] for job in plain if job in codes), EXIT_DONE),
    }


def _translate_here(
    translator: Translator,
    request: TranslateRequest,
    jobs: Sequence[Job | ReadJob],
    on_done: OnDone,
) -> list[Result]:
    from medtrans.inference.cohort import translate_cohort

    with track("slices") as on_slices:
        return translate_cohort(
            translator,
            jobs,
            request.settings,
            strict=request.strict or len(jobs) == 1,
            on_done=on_done,
            on_slices=on_slices,
        )


def _named(sentence: str, path: Path) -> str:
    """Put the file's name before a sentence that does not say it."""
    return sentence if path.name in sentence else f"{path.name}: {sentence}"


def _row(job: Job, result: Result) -> dict[str, Any]:
    from medtrans.inference.cohort import Unchanged

    row: dict[str, Any] = {"input": str(job.path)}
    if isinstance(result, MedtransError):
        return {**row, "output": None, "result": "failed", "error": str(result)}
    row["output"] = str(result.outputs[0])
    if isinstance(result, Unchanged):
        return {**row, "result": "unchanged"}
    brain = result.translation.brain
    return {
        **row,
        "result": "translated",
        "slices": result.translation.slices,
        "seconds": round(result.seconds, 2),
        **({} if brain is None else {"brain_litres": round(brain.litres, 3)}),
    }
