"""What a network says to an image that does not fit it."""

from typing import Protocol

from torch import Tensor


class Sized(Protocol):
    """Of every network: the side of the smallest image it can read, and of those it was made for,
    in pixels."""

    min_size: int
    input_size: int


def at_least(network: Sized, x: Tensor) -> None:
    """ValueError if the images (N, C, H, W) are smaller than `network.min_size`: a later map would
    be empty."""
    side = network.min_size
    if min(x.shape[-2:]) < side:
        raise ValueError(
            f"{type(network).__name__} needs images of at least {side}x{side} pixels, got "
            f"{shape(x)}: resize them"
        )


def exactly(network: Sized, x: Tensor) -> None:
    """ValueError if the images (N, C, H, W) are not `network.input_size` square: its linear layers
    are fixed."""
    side = network.input_size
    if tuple(x.shape[-2:]) != (side, side):
        raise ValueError(
            f"{type(network).__name__} reads images of {side}x{side} pixels only, got {shape(x)}: "
            "resize them"
        )


def shape(x: Tensor) -> str:
    """Height x width, as people write it."""
    return "x".join(str(n) for n in x.shape[-2:])
