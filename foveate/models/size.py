"""Images of a size that a network cannot read are refused."""

from typing import Protocol

from torch import Tensor


class Sized(Protocol):
    """The sizes of the contract (`foveate.models.network.Network`), in pixels."""

    min_size: int
    input_size: int


def at_least(network: Sized, x: Tensor) -> None:
    """Refuse images (N, C, H, W) smaller than `network.min_size`: a later map would be empty.

    Raises:
        ValueError: the height or the width is smaller.
    """
    side = network.min_size
    if min(x.shape[-2:]) < side:
        raise ValueError(
            f"{type(network).__name__} needs images of at least {side}x{side} pixels, got "
            f"{shape(x)}: resize them"
        )


def exactly(network: Sized, x: Tensor) -> None:
    """Refuse images (N, C, H, W) that are not `network.input_size` square: its linear layers are
    of one size.

    Raises:
        ValueError: the height or the width is another.
    """
    side = network.input_size
    if tuple(x.shape[-2:]) != (side, side):
        raise ValueError(
            f"{type(network).__name__} reads images of {side}x{side} pixels only, got {shape(x)}: "
            "resize them"
        )


def shape(x: Tensor) -> str:
    """Height x width, as people write it."""
    return "x".join(str(n) for n in x.shape[-2:])
