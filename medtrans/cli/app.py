"""The command line. No logic here: each command parses, calls, and prints what came back.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer

from medtrans.cli.console import Output
from medtrans.errors import EXIT_OUR_FAULT, Interrupted, MedtransError, Terminated
from medtrans.version import __version__

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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Decides all randomness.")]
TaskOption = Annotated[str | None, typer.Option(help="For example t1-to-t2.")]
OutputKind = Literal["nifti", "dicom", "itk"]
Model = Annotated[str, typer.Option(help="Name of a shipped model, or a model package's folder.")]


def main() -> None:
    """Run the command line; errors a user can fix become one sentence and their exit code."""
    before = {number: signal.signal(number, _stopped) for number in _STOPS}
    try:
        app(standalone_mode=True)
    except MedtransError as error:
        _fail(error, error.exit_code)
    except Exception as error:
        # Only where it happened: a message or a local could hold what a file's header says.
        frames = traceback.extract_tb(error.__traceback__)
        where = "".join(traceback.format_list(frames[-4:]))
        text = f"medtrans failed ({type(error).__name__}). This is a fault of medtrans:\n{where}"
        _fail(MedtransError(text), EXIT_OUR_FAULT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(error: MedtransError, code: int) -> NoReturn:
    Output("--json" in sys.argv).error(error, code)
    raise SystemExit(code)


def _stopped(number: int, _: FrameType | None) -> NoReturn:
    kind = Terminated if number == signal.SIGTERM else Interrupted
    raise kind("Stopped; nothing half-written was left behind.")


def _version(wanted: bool) -> None:
    if wanted:
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
        list[Path] | None, typer.Argument(metavar="INPUT…", help="Volumes, or folders of them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File or folder.")] = None,
    task: TaskOption = None,
    model: Model = "brain_mri",
    mode: Annotated[str, typer.Option(help="fidelity, balanced or realistic.")] = "fidelity",
    residual_steps: Annotated[int | None, typer.Option(help="Instead of the mode's.")] = None,
    noise_steps: Annotated[int | None, typer.Option(help="Instead of the mode's.")] = None,
    eta: Annotated[float | None, typer.Option(help="0 deterministic … 1 stochastic.")] = None,
    samples: Annotated[int, typer.Option(help="Draws of the noise to average.")] = 1,
    axes: Annotated[
        str | None,
        typer.Option(help="Average over slices along these, for example axial,coronal,sagittal."),
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over left-right mirror images.")
    ] = False,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Write the samples' standard deviation here.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Where the patient is: a whole head or brain above 0, not a region."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Slices at a time; by default what fits in memory.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with a picture.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Translate the CSV's volumes.")] = None,
    out_dir: Annotated[Path | None, typer.Option(help="With --manifest: where to.")] = None,
    series: Annotated[str | None, typer.Option(help="Which DICOM series of a folder.")] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of a 4D file, from 0.")] = None,
    output_kind: Annotated[
        OutputKind | None, typer.Option(help="Instead of the input's kind.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first volume that fails.")] = False,
    json: Json = False,
) -> None:
    """Translate volumes; the output has the input's kind and exactly its grid."""
    from medtrans.cli.translate import TranslateRequest, translate_files

    request = TranslateRequest(
        inputs=tuple(inputs or ()),
        out=out,
        model=model,
        device=device,
        settings={
            "task": task,
            "mode": mode,
            "residual_steps": residual_steps,
            "noise_steps": noise_steps,
            "eta": eta,
            "samples": samples,
            "axes": tuple(axes.split(",")) if axes else (),
            "flips": flips,
            "seed": seed,
            "batch_size": batch_size,
        },
        files={"mask_path": mask, "uncertainty_path": uncertainty},
        selection={"series": series, "volume": volume},
        output_kind=output_kind,
        report=report,
        manifest=manifest,
        out_dir=out_dir,
        strict=strict,
    )
    result = translate_files(request)
    Output(json).result(result)
    raise typer.Exit(result["exit_code"])


@app.command()
def train(
    manifest: Annotated[Path, typer.Option(help="CSV: subject,contrast,path[,split].")],
    out: Annotated[Path, typer.Option(help="The run's folder; the model will be OUT/model.")],
    task: Annotated[
        str | None, typer.Option(help="For example t1-to-t2; several with commas.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="A recipe: its shipped name, or a TOML file of your own.")
    ] = None,
    stage: Annotated[str, typer.Option(help="all, noise or residual.")] = "all",
    noise_from: Annotated[
        Path | None,
        typer.Option(help="Take the noise stage of a run, a model or a denoiser.toml."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Use the pairs of so many subjects; 0: none at all.")
    ] = None,
    noise_iterations: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    residual_iterations: Annotated[
        int | None, typer.Option(help="Instead of the recipe's.")
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Start from this model, with its recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
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


@app.command("noise-level")
def noise_level(
    task: Annotated[str, typer.Option(help="For example t1-to-t2; several with commas.")],
    manifest: Annotated[Path, typer.Option(help="CSV: subject,contrast,path[,split].")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")] = Path(
        "noise-level"
    ),
    pipeline: Annotated[
        str | None, typer.Option(help="A recipe: its shipped name, or a TOML file of your own.")
    ] = None,
    weight: Annotated[
        float,
        typer.Option("--lambda", help="Weight of A (source and target apart) against B, 0 to 1."),
    ] = 0.5,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Train short models over a grid and compare.")
    ] = False,
    iterations: Annotated[int, typer.Option(help="Of each stage, with --sweep.")] = 300,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Choose the residual stage's noise for a task from the manifest's images."""
    from medtrans.cli.noise_level import NoiseLevelRequest, choose_noise_level
    from medtrans.cli.recipe import RecipeRequest, parse_tasks

    request = NoiseLevelRequest(
        recipe=RecipeRequest(parse_tasks(task), pipeline),
        manifest=manifest,
        out=out,
        weight=weight,
        sweep_iterations=iterations if sweep else None,
        seed=seed,
        device=device,
    )
    Output(json).result(choose_noise_level(request))


@app.command()
def evaluate(
    manifest: Annotated[Path | None, typer.Option(help="CSV with the pairs to score.")] = None,
    model: Model = "brain_mri",
    task: TaskOption = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    mode: Annotated[
        list[str] | None, typer.Option(help="Modes to score; give it several times.")
    ] = None,
    prediction: Annotated[Path | None, typer.Option(help="Score this file instead …")] = None,
    reference: Annotated[Path | None, typer.Option(help="… against this one.")] = None,
    mask: Annotated[Path | None, typer.Option(help="… inside this mask.")] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="… on this intensity window, for example -1000 2000 for CT."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.csv.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score a model beside its baselines, or one file against another."""
    from medtrans.cli.evaluate import evaluate_manifest, evaluate_pair

    if prediction is not None or reference is not None:
        result = evaluate_pair(
            prediction, reference, mask, window, others=(manifest, task, mode, out)
        )
    else:
        result = evaluate_manifest(model, manifest, task, split, mode, out, seed, device)
    Output(json).result(result)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the volume and the picture.")] = Path(
        "demo"
    ),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Translate a real T1 volume with the shipped model, and draw a picture of it."""
    from medtrans.cli.demo import run_demo

    Output(json).result(run_demo(out, device))


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for volumes and manifest.")],
    subjects: Annotated[int, typer.Option(help="How many heads.")] = 4,
    contrasts: Annotated[str, typer.Option(help="Separated by commas.")] = "t1,t2",
    seed: Seed = 0,
    skull_stripped: Annotated[bool, typer.Option(help="Only the brain.")] = False,
    json: Json = False,
) -> None:
    """Make digital head phantoms with a manifest, to try medtrans without data."""
    from medtrans.cli.listing import make_phantoms

    Output(json).result(make_phantoms(out, subjects, contrasts, seed, skull_stripped))


@app.command()
def tasks(json: Json = False) -> None:
    """List the tasks that have a shipped recipe."""
    from medtrans.cli.listing import list_tasks

    Output(json).result(list_tasks())


@app.command()
def models(json: Json = False) -> None:
    """List the model packages that come with medtrans."""
    from medtrans.cli.listing import list_models

    Output(json).result(list_models())


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A volume, or a folder of DICOM.")],
    series: Annotated[str | None, typer.Option(help="Which DICOM series of a folder.")] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of a 4D file, from 0.")] = None,
    json: Json = False,
) -> None:
    """Say what a file is, and what translate would do with it."""
    from medtrans.cli.listing import describe_file

    Output(json).result(describe_file(path, series, volume))


@bundle_app.command("export")
def bundle_export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, or a model's name or folder.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; its name is the model's.")],
    card: Annotated[Path | None, typer.Option(help="Text for docs/README.md.")] = None,
    license_file: Annotated[
        Path | None, typer.Option("--license", help="Text for LICENSE: the weights' terms.")
    ] = None,
    data_license: Annotated[
        Path | None, typer.Option(help="Text for docs/data_license.txt.")
    ] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "0.1.0",
    change: Annotated[str, typer.Option(help="What the version brings.")] = "First version.",
    json: Json = False,
) -> None:
    """Write a trained model as a MONAI bundle."""
    from medtrans.cli.bundle import export_bundle

    Output(json).result(export_bundle(run, out, card, license_file, data_license, version, change))


@bundle_app.command("check")
def bundle_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Run configs that medtrans did not write.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a bundle's files, and that MONAI's own tools accept it."""
    from medtrans.cli.bundle import check_bundle

    result = check_bundle(folder, trust)
    Output(json).result(result)
    raise typer.Exit(result["exit_code"])


if __name__ == "__main__":
    main()
