"""Train the brain finder anew: python -m benchmarks.brain.train DATA OUT.

DATA is a folder with brain.csv and raw_brain.csv; only subjects whose licence is CC BY are read.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.brain import labels
from benchmarks.brain.synthesis import scan
from medtrans.brain.network import BrainNet

BRAINS = ("openms-07", "openms-19", "tcga-du-7294")
PHANTOMS = 12
AROUND = 6


class Scans(Dataset[tuple[Tensor, Tensor]]):
    """Random scans of the maps in a folder; number i is always the same."""

    def __init__(self, folders: list[tuple[Path, int]], count: int, seed: int) -> None:
        self.files = [
            file for folder, times in folders for file in sorted(folder.glob("*.npz")) * times
        ]
        self.maps: dict[Path, labels.HeadMap] = {}
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        file = self.files[rng.integers(len(self.files))]
        if file not in self.maps:
            self.maps[file] = labels.HeadMap.read(file)
        image, brain = scan(self.maps[file], rng)
        return torch.from_numpy(image)[None], torch.from_numpy(np.asarray(brain))[None]


def draw_maps(data: Path, out: Path) -> None:
    """Write the label maps of phantoms, and of stripped brains in phantom heads."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(PHANTOMS):
        labels.phantom(seed).save(out / f"phantom-{seed}.npz")
    table = pd.read_csv(data / "brain.csv")
    for subject in BRAINS:
        paths = [data / path for path in table[table.subject == subject].path]
        for seed in range(AROUND):
            brain = labels.stripped(paths, 8 + 2 * (seed % 4), seed)
            labels.around(brain, seed).save(out / f"{subject}-{seed}.npz")


def loss_of(logits: Tensor, brain: Tensor) -> Tensor:
    """Cross entropy, and one minus the soft Dice coefficient."""
    share = logits.sigmoid()
    overlap = (2 * (share * brain).sum() + 500) / (share.sum() + brain.sum() + 500)
    return functional.binary_cross_entropy_with_logits(logits, brain) * 2 + 1 - overlap


def train(
    folders: list[tuple[Path, int]],
    out: Path,
    steps: int,
    rate: float,
    start: Path | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    net = BrainNet().to(memory_format=torch.channels_last_3d)
    if start is not None:
        net.load_state_dict(load_file(start))
    mean = {k: v.clone() for k, v in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    loader = DataLoader(Scans(folders, steps, seed), batch_size=1, num_workers=1, prefetch_factor=16)
    begun, losses = time.monotonic(), []
    for step, (image, brain) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = (
                rate
                * min(1, (step + 1) / 50)
                * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * step / steps)))
            )
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image)
        loss = loss_of(logits.float(), brain)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        decay = min(0.99, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            mean[name].lerp_(value, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(
                f"{step + 1} {np.mean(losses[-50:]):.4f} {time.monotonic() - begun:.0f} s",
                flush=True,
            )
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_file({k: v.contiguous() for k, v in mean.items()}, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("maps", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(1)
    folders = [(Path(m.split(":")[0]), int((m + ":1").split(":")[1])) for m in a.maps]
    if a.data:
        draw_maps(a.data, folders[0][0])
    train(folders, a.out, a.steps, a.rate, a.start, a.seed)
