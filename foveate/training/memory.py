"""How much memory a step takes, measured on a few images before the first step; and how it is
taken.

Where memory is only promised, as on Linux, a process that takes too much is killed, with no error
to answer to. So a batch that would not fit is cut into micro-batches from the start.
"""

import copy
import ctypes
import math
import platform
import sys

import torch
from torch import Tensor, nn

from foveate.arguments import option
from foveate.errors import UsageError
from foveate.models.folding import folded
from foveate.training.config import TrainConfig
from foveate.training.freezing import Plan

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# of the memory that pixels will not take, for what forward leaves to backward; the rest is for
# gradients
SHARE = 0.6


def bytes_per_image(
    network: nn.Module, plan: Plan, size: tuple[int, int, int], epoch: int, precision: str
) -> int:
    """What the forward of one image, (channels, height, width), keeps in memory for an epoch's
    backward: half of what four images keep and two do not, since something may be kept whatever
    their number."""
    network = copy.deepcopy(network)
    plan.apply(network, epoch)
    network = folded(network, size)

    def kept(images: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.zeros(images, *size, device=next(network.parameters()).device)
        x = x.contiguous(memory_format=torch.channels_last)
        rounded = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16")
        noted = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with torch.random.fork_rng(devices=[]), noted, rounded:
            outputs = network(x)  # alive until all is counted, so that no two share an address
        del outputs
        return sum(storages.values())

    return max(0, kept(4) - kept(2)) // 2


def micro_batches_that_fit(
    images: int, each: int, micro_batches: int, least: int, free: int
) -> int:
    """Into how many micro-batches a batch has to be cut.

    Args:
        images: of the batch.
        each: bytes that one takes.
        micro_batches: at least as many.
        least: images that a piece has to have.
        free: bytes of memory.

    >>> micro_batches_that_fit(128, each=100 << 20, micro_batches=1, least=1, free=8 << 30)
    3
    """
    at_once = max(least, int(SHARE * free) // max(1, each))
    return min(max(1, images // least), max(micro_batches, math.ceil(images / at_once)))


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for whoever takes it next, until the process ends.

    By itself glibc gives blocks of more than 32 MB back to the system at once, and every map of the
    next step comes as new pages, cleared one by one: up to a quarter of a step (docs/LOG.md). It is
    a setting of the whole process, so the command line alone calls this. Other C libraries are left
    as they are.
    """
    c = glibc()
    if c is not None:
        c.mallopt(M_MMAP_MAX, 0)
        c.mallopt(M_TRIM_THRESHOLD, -1)  # never


def give_back() -> None:
    """Give what was freed, and kept, back to the system, which then counts it as free."""
    c = glibc()
    if c is not None:
        c.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    return (
        ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
    )


def check_batches(plan: Plan, images: int, config: TrainConfig, world: int) -> None:
    """UsageError if batch-norm would take statistics from a single image, in whatever epoch.

    Args:
        plan: which parts learn.
        images: to train on.
        config: its batches are cut into micro-batches.
        world: processes that share a batch.
    """
    steps = -(-images // config.batch_size)
    smallest = images // steps // world // config.accumulate
    if smallest < plan.least(config.epochs - 1):
        remedies = [option("batch_norm", "frozen")]
        if config.accumulate > 1:
            remedies.insert(0, f"a smaller {option('accumulate')}")
        if config.batch_size < images:
            remedies.insert(0, f"a larger {option('batch_size')}")
        raise UsageError(
            "batch-norm takes statistics from a batch, and some would have one image (of each "
            f"process and micro-batch); give {' or '.join(remedies)}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in the words of each device."""
    words = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        word in str(error) for word in words
    )
