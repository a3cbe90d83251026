"""The contract of a network: what training, the probe, explanation and export ask of it.

Every network of the canon keeps it, and so may a module of yours, or of another library in an
adapter: it derives from `nn.Module` and has these parts; nothing is registered and no base class is
needed.

>>> class Small(nn.Module):
...     input_size, min_size = 32, 2
...
...     def __init__(self) -> None:
...         super().__init__()
...         self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 10)
...
...     def stages(self, x: Tensor) -> list[Tensor]:
...         return [torch.relu(self.conv(x))]
...
...     def embed(self, x: Tensor) -> Tensor:
...         return self.stages(x)[-1].mean(dim=(2, 3))
>>> missing_parts(Small())
['forward']
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch  # noqa: F401 (for the example)
from torch import Tensor, nn


class Network(Protocol):
    """A network that classifies images; always an `nn.Module` too.

    N is the number of images, C, H, W those of channels, rows and columns of pixels.
    """

    @property
    def input_size(self) -> int:
        """Side of the images that it was made for, in pixels."""

    @property
    def min_size(self) -> int:
        """Side of the smallest images that it reads; `input_size` if it reads no others."""

    @property
    def head(self) -> nn.Module:
        """The last layer, one of its submodules: (N, D) -> (N, num_classes).

        Where it is a convolution (NiN, SqueezeNet), it reads the last map, not the embedding.
        """

    def stages(self, x: Tensor, /) -> list[Tensor]:
        """(N, C, H, W) -> the map at the end of each stage, (N, C_i, H_i, W_i), from early to late.

        Sides do not grow from one to the next, and no map is overwritten later.
        """

    def embed(self, x: Tensor, /) -> Tensor:
        """(N, C, H, W) -> (N, D), what the head reads."""

    @property
    def __call__(self) -> Callable[..., Any]:
        """(N, C, H, W) -> logits (N, num_classes), before softmax: `nn.Module` calls `forward`.

        In evaluation a Tensor. In training a network with auxiliary classifiers returns a named
        tuple instead, whose field `logits` is the Tensor.
        """


class Builder(Protocol):
    """Makes a network of the canon with random weights; the defaults are the paper's."""

    @property
    def __name__(self) -> str: ...

    def __call__(self, num_classes: int = ..., in_channels: int = ...) -> Network: ...


def missing_parts(module: nn.Module) -> list[str]:
    """Which parts of `Network` a module lacks, in the order of the contract; none if it is a
    network.

    A part of the wrong kind is missing too: a size is an integer of at least 1, the head a module,
    the others are methods.

    >>> missing_parts(nn.Linear(2, 3))
    ['input_size', 'min_size', 'head', 'stages', 'embed']
    """
    head = getattr(module, "head", None)
    found = {
        "input_size": is_size(getattr(module, "input_size", None)),
        "min_size": is_size(getattr(module, "min_size", None)),
        "head": head is not module and any(inner is head for inner in module.modules()),
        "stages": callable(getattr(module, "stages", None)),
        "embed": callable(getattr(module, "embed", None)),
        # every module has a forward: that of nn.Module itself only raises
        "forward": getattr(module.forward, "__func__", None) is not nn.Module.forward,
    }
    return [part for part, there in found.items() if not there]


def is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def as_network(module: nn.Module, *needed: str) -> Network:
    """The module itself, known to keep the contract.

    Args:
        module: of the canon, or anybody's.
        needed: the parts that have to be there; all where none is named.

    Raises:
        TypeError: parts are missing; the message names them.
    """
    missing = [part for part in missing_parts(module) if not needed or part in needed]
    if missing:
        raise TypeError(
            f"{type(module).__name__} is not a network: it has no {', '.join(missing)}; see "
            "foveate.models.Network for what each is"
        )
    # a Protocol with attributes cannot be checked at run time: missing_parts has done it
    return module  # type: ignore[return-value]
