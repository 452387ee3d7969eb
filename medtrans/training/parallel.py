"""One training in several processes, as torchrun starts them.

Each process reads its share of every batch, and gradients are averaged, so that the weights are
those of one process up to rounding, and the same in all. The first process does all else: logs,
checkpoints, validation, the package. All processes have to see the run's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from medtrans.errors import TrainingError
from medtrans.system.devices import lacks_memory

_LONGEST = timedelta(hours=12)  # the others wait while the first prepares volumes or validates


@dataclass(frozen=True)
class Group:
    """The processes that train together, seen from one of them.

    Attributes
    ----------
    rank : int
        Which of them this is, from 0.
    world : int
        How many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def rows(self, batch_size: int, accumulate: int = 1) -> Tensor:
        """Which rows of a batch are this process's.

        Parameters
        ----------
        batch_size : int
            Of all processes together.
        accumulate : int
            Into how many parts each process cuts its share.

        Returns
        -------
        Tensor
            Shape (batch_size / world,), integers: rank, rank + world, …

        Raises
        ------
        TrainingError
            When shares or parts would not be equal.
        """
        if batch_size % (self.world * accumulate):
            raise TrainingError(
                f"batch_size is {batch_size}; for {self.world} processes and accumulate = "
                f"{accumulate} it must be a multiple of {self.world * accumulate}. Change it "
                "in the recipe, or start another number of processes."
            )
        return torch.arange(self.rank, batch_size, self.world)

    def average(self, network: nn.Module, loss: Tensor) -> Tensor:
        """Average the gradients, in place, and the loss; all in one message.

        Parameters
        ----------
        network : Module
            After its backward pass; every process has the same one.
        loss : Tensor
            A scalar.

        Returns
        -------
        Tensor
            The mean loss, a scalar.

        Raises
        ------
        TrainingError
            When another process has ended.
        """
        if self.world == 1:
            return loss
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([loss.view(1), *(g.reshape(-1) for g in gradients)])
        _reduce(flat, distributed.ReduceOp.SUM)
        flat /= self.world
        start = 1
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view(gradient.shape))
            start = end
        return flat[0]

    def agree(self, signal: int | None) -> int | None:
        """Return the signal that any process has received, so that all stop at one step.

        Raises
        ------
        TrainingError
            When another process has ended.
        """
        if self.world == 1:
            return signal
        most = torch.tensor(signal or 0)
        _reduce(most, distributed.ReduceOp.MAX)
        return int(most) or None

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.agree(None)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process go through the block, then the others, who find its files."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


ALONE = Group()


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun there is one."""
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    join()
    yield current()
    # Not after an error: the others may wait for this process, until torchrun ends them.
    distributed.destroy_process_group()


def join() -> None:
    """Join the processes that torchrun started, over gloo, and over NCCL where there are GPUs."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # else page-locked memory takes a context on the first GPU
    mixed = torch.cuda.is_available() and distributed.is_nccl_available()
    store, rank, world = next(rendezvous("env://", timeout=_LONGEST))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if mixed else "gloo",
        # torchrun keeps the store over a restart: the addresses in it may be of processes before.
        store=PrefixStore(f"medtrans-{_restarts()}", store),
        rank=rank,
        world_size=world,
        timeout=_LONGEST,
    )


def current() -> Group:
    """Return the group that this process has joined."""
    if not distributed.is_initialized():
        return ALONE
    return Group(distributed.get_rank(), distributed.get_world_size())


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that ended before its time."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _reduce(values: Tensor, by: distributed.ReduceOp.RedOpType) -> None:
    try:
        distributed.all_reduce(values, by)
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        raise TrainingError(
            "Another process of this training has ended, so this one cannot go on. With "
            "--max-restarts torchrun starts them all anew; otherwise give the same command with "
            "--resume."
        ) from error


def own_gpu(device: str) -> str:
    """Name this process's GPU, where a GPU is wanted and torchrun says which; else `device`.

    Raises
    ------
    TrainingError
        When there are more processes than GPUs.
    """
    local = os.environ.get("LOCAL_RANK")
    if device not in ("auto", "cuda") or local is None or not torch.cuda.is_available():
        return device
    if int(local) >= (count := torch.cuda.device_count()):
        raise TrainingError(
            f"torchrun started process {int(local) + 1} here, but there is no GPU for it. Start "
            f"--nproc_per_node={count}, or train with --device cpu."
        )
    return f"cuda:{local}"
