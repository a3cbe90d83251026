"""Random numbers of a training: each step has its own seed, so that one that goes on draws what it would have drawn."""

import hashlib

import torch


def mixed(*numbers: int) -> int:
    """A seed of 63 bits from several numbers.

    >>> mixed(0, 1) == mixed(0, 1) != mixed(1, 0)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from on a device, and nothing else: on a machine without a GPU `torch.manual_seed` keeps
    the caller's stack at every call, for the GPU that might yet come."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
