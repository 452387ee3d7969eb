"""Train the brain finder: python -m benchmarks.brain.train OUT FOLDER:WEIGHT … [options].

Each folder holds maps of `benchmarks.brain.maps`, drawn in proportion to its weight. The shipped
weights are those of docs/whole-heads.md.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.brain.labels import HeadMap
from benchmarks.brain.synthesis import scan
from medtrans.brain.network import BrainNet

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 0.01, 1.0
WARM_UP, LAST_RATE = 50, 0.02  # steps; share of the rate that the cosine ends with
MEAN_DECAY = 0.99  # of the weights' running mean, which is what is kept
SMOOTHING = 500.0  # voxels, in the Dice coefficient
CROSS_ENTROPY = 2.0  # beside one minus the Dice coefficient


class Scans(Dataset[tuple[Tensor, Tensor]]):
    """Random scans of maps; number i is always the same."""

    def __init__(self, folders: list[tuple[Path, float]], count: int, seed: int) -> None:
        self.maps = [[HeadMap.read(f) for f in sorted(at.glob("*.npz"))] for at, _ in folders]
        weights = np.array([weight for _, weight in folders])
        self.odds = weights / weights.sum()
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        maps = self.maps[rng.choice(len(self.maps), p=self.odds)]
        image, brain = scan(maps[rng.integers(len(maps))], rng)
        return torch.from_numpy(image)[None], torch.from_numpy(brain)[None]


def loss_of(logits: Tensor, brain: Tensor) -> Tensor:
    """Cross entropy, and one minus the soft Dice coefficient."""
    share = logits.sigmoid()
    overlap = (2 * (share * brain).sum() + SMOOTHING) / (share.sum() + brain.sum() + SMOOTHING)
    entropy = functional.binary_cross_entropy_with_logits(logits, brain)
    return entropy * CROSS_ENTROPY + 1 - overlap


def train(out: Path, scans: Scans, rate: float, start: Path | None) -> None:
    """Train on every scan once, and write the running mean of the weights as float16."""
    torch.manual_seed(scans.seed)
    net = BrainNet().to(memory_format=torch.channels_last_3d)
    if start is not None:
        net.load_state_dict({k: v.float() for k, v in load_file(start).items()})
    mean = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    steps = len(scans)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    begun, losses = time.monotonic(), []
    loader = DataLoader(scans, batch_size=1, num_workers=1, prefetch_factor=16)
    for step, (image, brain) in enumerate(loader):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image)
        loss = loss_of(logits.float(), brain)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        falling.step()
        decay = min(MEAN_DECAY, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            mean[name].lerp_(value, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = time.monotonic() - begun
            print(f"{step + 1} {np.mean(losses[-100:]):.4f} {seconds:.0f} s", flush=True)
            save_file({name: value.half().contiguous() for name, value in mean.items()}, out)


def _share(step: int, steps: int) -> float:
    """Rise in a straight line, then fall by a cosine."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1, (step + 1) / WARM_UP) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("maps", nargs="+")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folders = [name.rpartition(":") for name in given.maps]
    scans = Scans([(Path(f), float(weight)) for f, _, weight in folders], given.steps, given.seed)
    train(given.out, scans, given.rate, given.start)


if __name__ == "__main__":
    main()
