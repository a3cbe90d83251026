"""How much memory a step takes, measured on a few pictures before the first step.

Where memory is only promised, as on Linux, a process that takes too much is killed, with no error to answer to. So a
batch that would not fit is cut into pieces from the start.
"""

import copy
import math

import torch
from torch import Tensor, nn

from foveate.data.pixels import free_memory
from foveate.training.folding import folded
from foveate.transfer import Plan

SHARE = 0.6  # of the free memory, for what forward leaves to backward; the rest is for gradients and kept pixels


def bytes_a_picture(network: nn.Module, plan: Plan, size: tuple[int, int, int]) -> int:
    """What the forward of one picture, (channels, height, width), keeps in memory for the backward: of four pictures
    what two do not keep, since something may be kept whatever their number."""
    network = copy.deepcopy(network)
    plan.apply(network, 0)
    network = folded(network, size)

    def kept(pictures: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.zeros(pictures, *size, device=next(network.parameters()).device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = network(x)  # alive until all is counted, so that no two share an address
        del outputs
        return sum(storages.values())

    return max(0, kept(4) - kept(2)) // 2


def pieces_that_fit(pictures: int, each: int, pieces: int, free: int | None = None) -> int:
    """Into how many pieces a batch has to be cut.

    Args:
        pictures: of the batch.
        each: bytes that one takes.
        pieces: at least as many.
        free: bytes of memory; what this machine has, by default.

    >>> pieces_that_fit(128, each=100 << 20, pieces=1, free=8 << 30)
    3
    """
    free = free_memory() if free is None else free
    at_once = max(1, int(SHARE * free) // max(1, each))
    return min(pictures, max(pieces, math.ceil(pictures / at_once)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in the words of each device."""
    words = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)
