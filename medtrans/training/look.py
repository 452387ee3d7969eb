"""Training what a model knows of its training volumes: the look at an input.

It takes a minute or two on a CPU at the end of a run. Its examples are the run's train volumes
under `look_changes`, and made-up volumes that are none of the known contrasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from medtrans.config.schema import LookConfig
from medtrans.config.terms import Contrast
from medtrans.diffusion.randomness import generator, seed_of
from medtrans.networks.look import LookNetwork, tissue_statistics
from medtrans.package.look import Extent, Known, Usual, new_network
from medtrans.preprocessing.coarse import ORIENTATIONS, cells_of, fine_cube
from medtrans.system.progress import track
from medtrans.training.look_changes import changed, moved, spoilt
from medtrans.volumes.voxels import Voxels

_STORED = 127  # of ranks from -1 to 1, as whole numbers of 8 bits
_SMOOTHING = 0.05  # of labels, so that confidences stay honest
_UPRIGHT = 0.3  # of the examples; the others lie in any of the orientations


@dataclass(frozen=True)
class Shown:
    """A train volume, as the look sees it.

    Attributes
    ----------
    patient : str
        Volumes of the same one are compared with each other.
    contrast : Contrast
    cube : Tensor
        As `fine_cube` gives it, in half precision.
    extent : Extent
    """

    patient: str
    contrast: Contrast
    cube: Tensor
    extent: Extent

    @classmethod
    def of(
        cls, patient: str, contrast: Contrast, image: Voxels, spacing_mm: Sequence[float]
    ) -> Shown:
        """Take a volume (X, Y, Z) in the space of the networks, with its spacing."""
        cube = fine_cube(image, spacing_mm).half()
        return cls(patient, contrast, cube, Extent.of(image, spacing_mm))


@dataclass(frozen=True)
class _Examples:
    """Cells (N, C, E, E, E) of 8 bits and labels (N,): below `contrasts`, or that for none."""

    cells: Tensor
    labels: Tensor
    contrasts: int


def learn(volumes: Iterable[Shown], config: LookConfig, seed: int) -> Known:
    """Train the look; a function of its arguments on one machine.

    Parameters
    ----------
    volumes : iterable of Shown
        At least one.
    config : LookConfig
        With at least one example.
    seed : int
    """
    every = list(volumes)
    contrasts = tuple(dict.fromkeys(volume.contrast for volume in every))
    examples = _examples(every, contrasts, config, seed)
    network = new_network(len(contrasts), seed_of(seed, "look"))
    with torch.random.fork_rng(devices=[]):  # of its dropout
        torch.manual_seed(seed_of(seed, "look", "dropout"))
        _learn_contrasts(network, examples, config, generator(seed, "look", "contrasts"))
        _learn_orientations(network, examples, config, generator(seed, "look", "orientations"))
    usual = Usual.of(volume.extent for volume in every)
    return Known(contrasts, usual, network.eval().requires_grad_(False))


def _examples(
    volumes: Sequence[Shown], contrasts: Sequence[Contrast], config: LookConfig, seed: int
) -> _Examples:
    by_contrast = {c: [v for v in volumes if v.contrast == c] for c in contrasts}
    by_patient: dict[str, list[Tensor]] = {}
    for volume in volumes:
        by_patient.setdefault(volume.patient, []).append(volume.cube)
    cells, labels = [], []
    with track("examples of the look") as update:
        for number in range(config.examples):
            rng = generator(seed, "look", "example", number)
            volume, label = _drawn(by_contrast, rng)
            cube = volume.cube.float()
            if float(torch.rand((), generator=rng)) < config.none_share:
                known = [other.float() for other in by_patient[volume.patient]]
                example, label = spoilt(cube, known, rng), len(contrasts)
            else:
                example = changed(cube, rng)
            cells.append((cells_of(example) * _STORED).round().to(torch.int8))
            labels.append(label)
            update(number + 1, config.examples)
    return _Examples(torch.stack(cells), torch.tensor(labels), len(contrasts))


def _drawn(by_contrast: Mapping[Contrast, Sequence[Shown]], rng: Generator) -> tuple[Shown, int]:
    """Draw a contrast, and a volume of it: each contrast as often."""
    label = int(torch.randint(len(by_contrast), (), generator=rng))
    listed = list(by_contrast.values())[label]
    return listed[int(torch.randint(len(listed), (), generator=rng))], label


def _learn_contrasts(
    network: LookNetwork, examples: _Examples, config: LookConfig, rng: Generator
) -> None:
    statistics = torch.stack([
        tissue_statistics(cells.float() / _STORED) for cells in examples.cells
    ])  # fmt: skip

    def loss(rows: Tensor) -> Tensor:
        answers, labels = network.contrast(statistics[rows]), examples.labels[rows]
        return functional.cross_entropy(answers, labels, label_smoothing=_SMOOTHING)

    _fit(network.contrast, loss, len(statistics), config.contrast_epochs, config, rng)


def _learn_orientations(
    network: LookNetwork, examples: _Examples, config: LookConfig, rng: Generator
) -> None:
    """Show the examples of a contrast in random orientations."""
    known = examples.cells[examples.labels < examples.contrasts]

    def loss(rows: Tensor) -> Tensor:
        turned = torch.randint(len(ORIENTATIONS), (len(rows),), generator=rng)
        turned[torch.rand(len(rows), generator=rng) < _UPRIGHT] = 0
        seen = moved(known[rows].float() / _STORED, rng)
        cubes = [ORIENTATIONS[k].turned(c) for c, k in zip(seen, turned.tolist(), strict=True)]
        answers = network.orientation(torch.stack(cubes))
        return functional.cross_entropy(answers, turned, label_smoothing=_SMOOTHING)

    _fit(network.orientation, loss, len(known), config.orientation_epochs, config, rng)


def _fit(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    config: LookConfig,
    rng: Generator,
) -> None:
    """Lower the loss of batches of rows below `count`."""
    size = min(config.batch_size, count)
    steps = epochs * (count // size)
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps + 1
    )
    with track("steps of the look") as update:
        done = 0
        for _ in range(epochs):
            order = torch.randperm(count, generator=rng)
            for first in range(0, count - size + 1, size):
                optimiser.zero_grad()
                torch.autograd.backward(loss(order[first : first + size]))
                optimiser.step()
                schedule.step()
                done += 1
                update(done, steps)
