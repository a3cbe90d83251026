"""Many processes as one: what ranks exchange.

`torchrun --nproc-per-node 2 -m foveate train ...` starts them; without torchrun there is one, and
nothing here costs anything. Rank 0 alone writes.
"""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foveate import machine
from foveate.arguments import option
from foveate.errors import FoveateError

# that a rank waits for the others in a step before it gives them up
PATIENCE = timedelta(minutes=10)
# while rank 0 downloads, decodes, solves a head or measures for all
LONG_PATIENCE = timedelta(days=7)

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    rank: int = 0
    world: int = 1
    local: int = 0  # number on this machine: of its GPU
    # the group of processes in which rank 0 is waited for; one that dies is noticed at once
    waiting: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """What rank 0 has, on all of them."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, group=self.waiting)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What each rank has, in their order, on all of them."""
        if self.world == 1:
            return [value]
        boxes: list[Any] = [None] * self.world
        dist.all_gather_object(boxes, value)
        return boxes

    def mean(self, number: float) -> float:
        """The mean of a number that each rank has."""
        return float(self.total(torch.tensor(float(number), device=self.device))) / self.world

    def largest(self, number: float) -> float:
        """The largest of a number that each rank has."""
        if self.world == 1:
            return number
        box = torch.tensor(float(number), device=self.device)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return float(box)

    def mean_of_buffers(self, network: nn.Module) -> None:
        """Give all ranks the mean of their running statistics, which each took from its own part of
        the batches."""
        if self.world == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer, dist.ReduceOp.SUM)
                buffer /= self.world

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        best = machine.device()
        if best.type == "cuda":
            return torch.device("cuda", self.local)
        return best if self.world == 1 else torch.device("cpu")


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; or this process alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    # gloo's threads live as long as anything that holds a group, such as a network in a cycle of
    # references; one that still drops a tensor during Python's shutdown would abort the process
    atexit.register(gc.collect)
    try:
        yield replace(ranks, waiting=dist.new_group(backend="gloo", timeout=LONG_PATIENCE))
    except RuntimeError as error:
        if is_lost(error):
            raise FoveateError(
                f"rank {ranks.rank} lost the others: one of the {world} processes has ended or "
                "does not answer; "
                f"see its output, then start all of them again with {option('resume', True)}"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another rank is gone."""
    words = (
        "Connection closed by peer",
        "Connection reset",
        "Timed out",
        "timeout",
        "NCCL",
        "Broken pipe",
        "Gloo",
    )
    return isinstance(error, dist.DistBackendError) or any(word in str(error) for word in words)
