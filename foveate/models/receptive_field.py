"""Receptive fields, followed through whatever a network does.

Which pixels of the image can change one pixel of a map? Along each side they are an interval that
moves along with the pixel, i * step + first ... i * step + last. A convolution or a pooling widens
it by (kernel - 1) steps and multiplies the step by its stride; an addition or a concatenation takes
the smallest interval that holds its inputs'; an average over all pixels, and a linear layer, see
everything.

These rules are applied to torch's own operations as they happen, below the level of modules, so
that they hold for any forward.

>>> x = torch.zeros(1, 3, 32, 32, device="meta")
>>> with Follower(x) as follower:
...     y = torch.relu(nn.Conv2d(3, 8, 3, stride=2, device="meta")(x))
...     y = y + nn.Conv2d(8, 8, 3, padding=1, device="meta")(y)
>>> follower.origin(y).field(), follower.origin(y).stride(), follower.origin(y).depth, follower.macs
((7, 7), (2, 2), 2, 178200)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn  # noqa: F401 (nn is for the example)
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Axis:
    """Along one side, a map's pixel i depends on the image's pixels i * step + first ... i * step +
    last."""

    first: float = 0
    last: float = 0
    step: int = 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "Axis":
        """The axis of a map that a sliding window makes out of this one's."""
        first = self.first - padding * self.step
        last = self.last + (dilation * (kernel - 1) - padding) * self.step
        return Axis(first, last, self.step * stride)


WHOLE = Axis(-math.inf, math.inf, step=0)  # everything, and there is no next pixel
STAY = (1, 1, 0, 1)  # the window that changes nothing


@dataclass(frozen=True)
class Origin:
    """What a tensor comes from."""

    height: Axis = Axis()
    width: Axis = Axis()
    depth: int = 0  # convolutions and linear layers behind it, on the longest way
    time: int = 0  # operations up to the one that made it

    def field(self) -> tuple[int, int] | None:
        """Height and width of what one pixel depends on, in pixels of the image; None: the whole
        image."""
        if math.inf in (self.height.last, self.width.last):
            return None
        return int(self.height.last - self.height.first) + 1, int(
            self.width.last - self.width.first
        ) + 1

    def stride(self) -> tuple[int, int] | None:
        """Pixels of the image from one pixel to the next, down and across; None: there is one pixel
        only."""
        return (self.height.step, self.width.step) if self.height.step and self.width.step else None


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every tensor that comes of `image` (N, C, H, W) has an origin.

    It keeps all of them alive, so it is for the meta device. `macs` counts the multiply-accumulates
    of convolutions and matrix products, `time` the operations.
    """

    def __init__(self, image: Tensor):
        super().__init__()  # type: ignore[no-untyped-call]
        self.origins = {id(image): (image, Origin())}  # holds the tensors: no id is given twice
        self.macs = self.time = 0

    def origin(self, x: Tensor) -> Origin:
        return self.origins[id(x)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [x for x in tensors(args) if id(x) in self.origins]
        if inputs:  # else it is about weights alone
            result = next(tensors(out))
            height, width = follow(func, args, inputs, [self.origin(x) for x in inputs], result)
            macs = multiply_accumulates(func.overloadpacket, args, result)
            depth = max(self.origin(x).depth for x in inputs) + (macs > 0)
            self.macs, self.time = self.macs + macs, self.time + 1
            for x in tensors(out):
                self.origins[id(x)] = (x, Origin(height, width, depth, self.time))
        return out


def follow(
    func: Any, args: Any, inputs: list[Tensor], origins: list[Origin], out: Tensor
) -> tuple[Axis, Axis]:
    """The two axes of an operation's result.

    Raises:
        NotImplementedError: it is not known what the operation does to pixels.
    """
    height, width = union([o.height for o in origins]), union([o.width for o in origins])
    op, maps = func.overloadpacket, [x for x in inputs if x.ndim >= 4]
    if maps and (looks := windows(op, args)):
        return height.window(*looks[0]), width.window(*looks[1])
    averages = (
        op is aten.mean
        and maps
        and (len(args) < 2 or any(dim % maps[0].ndim >= 2 for dim in args[1]))
    )
    if averages or op in (aten.addmm, aten.mm):
        return WHOLE, WHOLE
    if maps and not (
        func.is_view or op is aten._unsafe_view or out.shape[-2:] in [x.shape[-2:] for x in maps]
    ):
        raise NotImplementedError(f"receptive fields cannot be followed through {func}")
    return height, width  # pixel by pixel, or it only arranges them anew


def union(axes: list[Axis]) -> Axis:
    """The smallest axis that holds all; maps that go together have the same step, or are one pixel
    with none."""
    return Axis(min(a.first for a in axes), max(a.last for a in axes), max(a.step for a in axes))


def windows(op: Any, args: Any) -> list[tuple[int, int, int, int]] | None:
    """(kernel, stride, padding, dilation) along height and width, if the operation looks through a
    window."""
    if op is aten.convolution:
        assert not args[6], "transposed convolutions are in no network of the canon"
        return list(zip(args[1].shape[2:], *args[3:6], strict=True))
    if op is aten.max_pool2d_with_indices:
        _, kernel, stride, padding, dilation, *_ = complete(args, None, None, [], [0, 0], [1, 1])
        return list(zip(kernel, stride or kernel, padding, dilation, strict=True))
    if op is aten.avg_pool2d:
        _, kernel, stride, padding, *_ = complete(args, None, None, [], [0, 0])
        return list(zip(kernel, stride or kernel, padding, [1, 1], strict=True))
    if op is aten._adaptive_avg_pool2d:
        return [
            (largest_window(n, o), max(1, n // o), 0, 1)
            for n, o in zip(args[0].shape[-2:], args[1], strict=True)
        ]
    if op is aten.constant_pad_nd:
        left, _, top, *_ = complete(args[1], 0, 0, 0)
        return [(1, 1, top, 1), (1, 1, left, 1)]
    if op is aten.slice:
        x, dim, start, _, step = complete(args, None, 0, 0, None, 1)
        looks = {x.ndim - 2: STAY, x.ndim - 1: STAY}
        if dim % x.ndim in looks:
            looks[dim % x.ndim] = (1, step, -((start or 0) % x.shape[dim]), 1)
        return list(looks.values())
    return None


def complete(args: Any, *defaults: Any) -> list[Any]:
    """An operation's arguments: torch leaves out the last ones where they are the default."""
    return [*args, *defaults[len(args) :]]


def largest_window(n: int, outputs: int) -> int:
    """Of adaptive pooling: output i averages inputs floor(i n / outputs) to ceil((i + 1) n /
    outputs) - 1.

    That is n / outputs where it divides, and then the field is exact; else it is that of the pixel
    that sees most.
    """
    return max(-(-(i + 1) * n // outputs) - i * n // outputs for i in range(outputs))


def multiply_accumulates(op: Any, args: Any, out: Tensor) -> int:
    """Of a convolution or a matrix product: one per number of the output and weight that goes into
    it."""
    if op is aten.convolution:
        return out.numel() * int(args[1][0].numel())
    if op in (aten.addmm, aten.mm):
        return out.numel() * int(args[-1].shape[0])
    return 0


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in an argument or a result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
