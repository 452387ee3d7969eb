"""The commands that come before a training: align, check and noise-level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from medtrans.cli.console import Device, Json, Output, Overwrite, Seed


def align(
    manifest: Annotated[
        Path, typer.Option(help="CSV with the columns subject,contrast,path[,split,session,mask].")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the volumes, pictures and the new manifest.csv.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Only this task's source and target, as t1-to-t2.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Contrast whose grid the others get; default: the task's target, else the last "
            "of t1, t1c, t2, flair, pd, mr, ct that most sessions have."
        ),
    ] = None,
    n4: Annotated[
        bool, typer.Option("--n4", help="Also take the coils' bias field out of MR volumes.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Pairs with a lower similarity are marked, and not trained on; default: where "
            "pairs of two patients lie (docs/align.md)."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Register the volumes of each subject rigidly, and bring them onto one voxel grid."""
    from medtrans.cli.align import AlignRequest, align_manifest
    from medtrans.config.terms import Task

    parsed = None if task is None else Task.parse(task)
    result = align_manifest(AlignRequest(manifest, out, parsed, to, n4, threshold))
    Output(json).result(result)
    raise typer.Exit(result["exit_code"])


def check(
    manifest: Annotated[
        Path, typer.Option(help="CSV with the columns subject,contrast,path[,split].")
    ],
    task: Annotated[
        str | None, typer.Option(help="Tasks, separated by commas, as t1-to-t2,t1-to-flair.")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="Recipe: a shipped one's name, or a TOML file; default: the task's."),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Training steps of each stage to time; 0: none.")
    ] = 3,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Look at the data before training: counts, odd volumes and pairs, the time it takes."""
    from medtrans.cli.check import CheckRequest, check_data
    from medtrans.cli.recipe import RecipeRequest, parse_tasks

    recipe = RecipeRequest(tasks=parse_tasks(task), pipeline=pipeline)
    result = check_data(CheckRequest(recipe, manifest, steps, device))
    Output(json).result(result, {k: v for k, v in result.items() if k != "recipe" or json})


def noise_level(
    task: Annotated[str, typer.Option(help="Tasks, separated by commas, as t1-to-t2,t1-to-flair.")],
    manifest: Annotated[
        Path, typer.Option(help="CSV with the columns subject,contrast,path[,split].")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the table and the plot.")] = Path(
        "noise-level"
    ),
    pipeline: Annotated[
        str | None,
        typer.Option(help="Recipe: a shipped one's name, or a TOML file; default: the task's."),
    ] = None,
    weight: Annotated[
        float,
        typer.Option("--lambda", help="Weight of A in the criterion, 0 to 1; B has the rest."),
    ] = 0.5,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Also train short models over a grid of sigma, and score them."
        ),
    ] = False,
    iterations: Annotated[
        int, typer.Option(help="With --sweep: training steps of each stage.")
    ] = 300,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose sigma, the noise level of the residual stage, from the images of the train split.

    The criterion J = lambda A + (1 - lambda) B is lowest at the chosen sigma. A is the distance
    between noisy sources and noisy targets; B is that between noisy and clean sources.
    """
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
        overwrite=overwrite,
    )
    Output(json).result(choose_noise_level(request))


COMMANDS: dict[str, Callable[..., None]] = {
    "align": align,
    "check": check,
    "noise-level": noise_level,
}
