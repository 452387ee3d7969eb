"""The command line. No logic here: each command parses, calls, and prints what came back.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.main import get_command

from medtrans import __version__
from medtrans.cli import crash, preparing
from medtrans.cli.console import Device, Json, Output, Overwrite, Seed
from medtrans.config.terms import DEFAULT_MODE, Axis, Kind, Mode
from medtrans.errors import EXIT_OUR_FAULT, Interrupted, MedtransError, Terminated

app = typer.Typer(
    name="medtrans",
    help="Translate medical volumes from one imaging contrast to another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bundle_app = typer.Typer(help="Model packages as MONAI bundles.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

_STOPS = (signal.SIGINT, signal.SIGTERM)

TaskOption = Annotated[
    str | None,
    typer.Option(help="Task, as t1-to-t2; default: t1-to-t2, else the model's first."),
]
Model = Annotated[str, typer.Option(help="A shipped model's name, or a model package's folder.")]


def main() -> None:
    """Run the command line; errors a user can fix become one sentence and their exit code."""
    before = {number: signal.signal(number, _stopped) for number in _STOPS}
    try:
        app(standalone_mode=True)
    except MedtransError as error:
        _fail(error, error.exit_code)
    except Exception as error:
        where = f"{type(error).__name__} at {crash.place(error)}"
        text = f"This is a fault of medtrans ({where}). {report_crash(error)}"
        _fail(MedtransError(text), EXIT_OUR_FAULT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report_crash(error: BaseException) -> str:
    """Write a report of a fault of ours, without a path or a value; says where it is."""
    return crash.report(error, sys.argv[1:], frozenset(_words(get_command(app))))


def _words(command: Any) -> Iterator[str]:
    """Names of the commands and options below a command of typer's."""
    for parameter in command.params:
        yield from (name for name in parameter.opts if name.startswith("-"))
    for name, inner in getattr(command, "commands", {}).items():
        yield name
        yield from _words(inner)


def _fail(error: MedtransError, code: int) -> NoReturn:
    Output("--json" in sys.argv).error(error, code)
    raise SystemExit(code)


def _stopped(number: int, _: FrameType | None) -> NoReturn:
    kind = Terminated if number == signal.SIGTERM else Interrupted
    raise kind("Stopped; nothing half-written was left behind.")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"medtrans {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def translate(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT…", help="Volumes, DICOM folders or folders of volumes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output file or folder; default: beside INPUT."),
    ] = None,
    task: TaskOption = None,
    model: Model = "brain_mri",
    mode: Annotated[
        str, typer.Option(help="Mode: fidelity, balanced or realistic.")
    ] = DEFAULT_MODE,
    residual_steps: Annotated[
        int | None, typer.Option(help="Number of residual steps; default: the mode's.")
    ] = None,
    noise_steps: Annotated[
        int | None, typer.Option(help="Number of noise steps; default: the mode's.")
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(help="Fresh noise in the noise steps: 0 none, 1 most; default: the model's."),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Number of noise draws; the output is their mean.")
    ] = 1,
    axes: Annotated[
        str | None,
        typer.Option(help="Average over slices along these axes, as axial,coronal,sagittal."),
    ] = None,
    flips: Annotated[
        bool,
        typer.Option(
            "--flips", help="Also translate the left-right mirror image; the output is the mean."
        ),
    ] = False,
    uncertainty: Annotated[
        Path | None,
        typer.Option(help="File for the expected absolute error, in the output's unit."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Volume above 0 in the whole head or brain; the rest is hidden from the model."
        ),
    ] = None,
    brain: Annotated[
        str,
        typer.Option(
            metavar="auto|none|MASK",
            help="auto: find the brain in a whole head, where the model knows stripped brains "
            "alone; none: take the input as it is; a file: as --mask.",
        ),
    ] = "auto",
    save_mask: Annotated[
        Path | None, typer.Option(help="NIfTI file for the mask of what was translated.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(help="auto, float32 or bfloat16; auto is bfloat16 where it is the faster."),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Number of slices computed together; default: automatic."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML page to write, to look at and move through; for several inputs a folder."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="With --report: the real target volume, shown with the error."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV; its volumes of the source contrast are translated.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="With --manifest: folder for the outputs.")
    ] = None,
    bids: Annotated[
        bool,
        typer.Option("--bids", help="With --manifest: write the outputs as a BIDS derivative."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes that translate several inputs.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask scheduler whose workers translate, as tcp://10.0.0.1:8786."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="DICOM series in the folder: its number or UID.")
    ] = None,
    volume: Annotated[
        int | None, typer.Option(help="Volume in a 4D file or series, counted from 0.")
    ] = None,
    output_kind: Annotated[
        Kind | None, typer.Option(help="File format of the output; default: the input's.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            help="Refuse an input that is unlike the model's training volumes; stop at the first "
            "volume that fails otherwise."
        ),
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Translate volumes to another contrast, on the same voxel grid and in the same file format."""
    from medtrans import Settings
    from medtrans.cli.translate import TranslateRequest, choose_mask, translate_files

    search, mask = choose_mask(brain, mask)
    settings = Settings(
        task=task,
        mode=cast(Mode, mode),  # `Settings` checks it
        residual_steps=residual_steps,
        noise_steps=noise_steps,
        eta=eta,
        samples=samples,
        axes=cast("tuple[Axis, ...]", tuple(axes.split(",")) if axes else ()),
        flips=flips,
        seed=seed,
        brain=search,
        batch_size=batch_size,
        strict=strict,
    )
    request = TranslateRequest(
        inputs=tuple(inputs or ()),
        out=out,
        manifest=manifest,
        out_dir=out_dir,
        model=model,
        device=device,
        precision=precision,
        settings=settings,
        mask=mask,
        uncertainty=uncertainty,
        save_mask=save_mask,
        report=report,
        reference=reference,
        kind=output_kind,
        series=series,
        volume=volume,
        strict=strict,
        overwrite=overwrite,
        workers=workers,
        scheduler=scheduler,
        bids=bids,
        on_fault=report_crash,
    )
    result = translate_files(request)
    Output(json).result(result)
    raise typer.Exit(result["exit_code"])


@app.command()
def train(
    manifest: Annotated[
        Path, typer.Option(help="CSV with the columns subject,contrast,path[,split].")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run; the model is written to OUT/model.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Tasks, separated by commas, as t1-to-t2,t1-to-flair.")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="Recipe: a shipped one's name, or a TOML file; default: the task's."),
    ] = None,
    stage: Annotated[str, typer.Option(help="Stages to train: all, noise or residual.")] = "all",
    noise_from: Annotated[
        Path | None,
        typer.Option(
            help="Use a finished noise stage: folder of a run, a model or a denoiser.toml."
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="Number of subjects whose pairs are used; 0: no pairs; default: all."),
    ] = None,
    noise_iterations: Annotated[
        int | None, typer.Option(help="Training steps of the noise stage; default: the recipe's.")
    ] = None,
    residual_iterations: Annotated[
        int | None,
        typer.Option(help="Training steps of the residual stage; default: the recipe's."),
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Start from this model's weights, with its recipe."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model: the noise stage on unpaired targets, the residual stage on pairs."""
    from medtrans.cli.recipe import RecipeRequest, parse_tasks
    from medtrans.cli.train import TrainRequest, parse_stage, train_model

    request = TrainRequest(
        recipe=RecipeRequest(
            tasks=parse_tasks(task),
            pipeline=pipeline,
            initial=initial,
            noise_iterations=noise_iterations,
            residual_iterations=residual_iterations,
        ),
        manifest=manifest,
        out=out,
        stage=parse_stage(stage),
        noise_from=noise_from,
        pairs=pairs,
        seed=seed,
        device=device,
        resume=resume,
    )
    if result := train_model(request, dry_run):  # only the first process under torchrun has one
        Output(json).result(result)


for name, command in preparing.COMMANDS.items():
    app.command(name)(command)


@app.command()
def evaluate(
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV with the pairs, or with the columns subject,prediction,reference."),
    ] = None,
    model: Model = "brain_mri",
    task: TaskOption = None,
    split: Annotated[str, typer.Option(help="Split to score: train, val or test.")] = "test",
    mode: Annotated[
        list[str] | None,
        typer.Option(help="Mode to score; may be repeated; default: all modes of the model."),
    ] = None,
    prediction: Annotated[
        Path | None, typer.Option(help="Score this file, or a folder of files, of any tool.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="With --prediction: the real image, or a folder of them.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="With --prediction: the foreground is where this volume is above 0, or those of "
            "a folder; default: it is found."
        ),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(
            help="Also score where this volume is above 0, or those of a folder: a lesion."
        ),
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="With --prediction: lowest and highest intensity, as -1000 2000 (HU) for CT."
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="With --prediction: a map of how far off it is, or a folder of them, to score too."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores.csv, summary.csv, evaluation.json and pages to look at; "
            "default: none is written."
        ),
    ] = None,
    pages: Annotated[
        bool, typer.Option(help="With --out: write index.html and a page of each case.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Score a model and two baselines on a split, or files of any tool against real images."""
    from medtrans.cli.evaluate import EvaluateRequest, Files
    from medtrans.cli.evaluate import evaluate as run

    request = EvaluateRequest(
        manifest=manifest,
        model=model,
        device=device,
        task=task,
        split=split,
        modes=cast("tuple[Mode, ...]", tuple(mode or ())),  # `Settings` checks them
        files=Files(prediction, reference, mask, region, window, uncertainty),
        out=out,
        seed=seed,
        pages=pages,
        overwrite=overwrite,
    )
    found = run(request)
    Output(json).result(found.result, found.plain)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the volumes and the picture.")] = Path(
        "demo"
    ),
    device: Device = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Translate a real T1 volume with the shipped model, and write a picture of the result."""
    from medtrans.cli.demo import run_demo

    Output(json).result(run_demo(out, device, overwrite))


@app.command()
def manifest(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="BIDS, a tree of volumes, or of DICOM.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="CSV to write.")] = Path("manifest.csv"),
    layout: Annotated[
        str | None,
        typer.Option(help="How the files are named: a public data set's name, or a TOML file."),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of the subjects for val.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the subjects for test.")] = 0.1,
    keep_ids: Annotated[
        bool,
        typer.Option("--keep-ids", help="Name subjects by DICOM's PatientID, not by its hash."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a CSV that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """List the volumes of a folder in a manifest, with subject, contrast and split."""
    from medtrans.cli.listing import ManifestRequest, list_folder

    request = ManifestRequest(folder, out, layout, val, test, keep_ids, overwrite)
    Output(json).result(*list_folder(request))


@app.command()
def phantom(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the volumes and manifest.csv.")
    ],
    subjects: Annotated[int, typer.Option(help="Number of heads.")] = 4,
    contrasts: Annotated[
        str, typer.Option(help="Contrasts, separated by commas: t1, t1c, t2, flair, pd, mr, ct.")
    ] = "t1,t2",
    seed: Seed = 0,
    skull_stripped: Annotated[
        bool, typer.Option(help="Write the brain without the skull.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write digital head phantoms and a manifest, to try medtrans without data."""
    from medtrans.cli.listing import make_phantoms

    made = make_phantoms(out, subjects, contrasts, seed, skull_stripped, overwrite)
    Output(json).result(made)


@app.command()
def tasks(json: Json = False) -> None:
    """List the tasks that have a shipped recipe or model."""
    from medtrans.cli.listing import list_tasks

    Output(json).result(list_tasks())


@app.command()
def models(json: Json = False) -> None:
    """List the model packages that come with medtrans."""
    from medtrans.cli.listing import list_models

    Output(json).result(list_models())


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A volume, or a DICOM folder.")],
    series: Annotated[
        str | None, typer.Option(help="DICOM series in the folder: its number or UID.")
    ] = None,
    volume: Annotated[
        int | None, typer.Option(help="Volume in a 4D file or series, counted from 0.")
    ] = None,
    json: Json = False,
) -> None:
    """Say what a file is, and what translate would do with it."""
    from medtrans.cli.listing import describe_file

    Output(json).result(describe_file(path, series, volume))


@bundle_app.command("export")
def bundle_export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run, or a model's name or folder.")
    ],
    out: Annotated[
        Path, typer.Option(help="New folder of the bundle; its name becomes the model's name.")
    ],
    card: Annotated[
        Path | None, typer.Option(help="Text file for docs/README.md, the model card.")
    ] = None,
    license_file: Annotated[
        Path | None,
        typer.Option("--license", help="Text file for LICENSE, the terms of the weights."),
    ] = None,
    data_license: Annotated[
        Path | None,
        typer.Option(help="Text file for docs/data_license.txt, the terms of the training data."),
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "0.1.0",
    change: Annotated[
        str, typer.Option(help="Changelog entry of this version.")
    ] = "First version.",
    json: Json = False,
) -> None:
    """Write a trained model as a MONAI bundle."""
    from medtrans.cli.bundle import Texts, export_bundle

    texts = Texts(card, license_file, data_license)
    Output(json).result(export_bundle(run, out, texts, version, change))


@bundle_app.command("check")
def bundle_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Also run configs that medtrans did not write: this runs their code."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Check a bundle's files, and whether MONAI's own tools accept it."""
    from medtrans.cli.bundle import check_bundle

    result = check_bundle(folder, trust)
    Output(json).result(result)
    raise typer.Exit(result["exit_code"])


if __name__ == "__main__":
    main()
