"""What a network is made of, what it costs and what it sees: a line per layer.

Nothing is computed. A twin of the network, without memory for its numbers, runs once on torch's
meta device while every operation is watched (see `foveate.models.receptive_field`). What follows
from shapes is exact, in a second, and the network itself is not touched.

>>> from foveate.models import build
>>> summary = summarise(build("efficientnet_lite0"))
>>> f"{summary.parameters:,} parameters, {summary.macs / 1e9:.3f} G MACs, {summary.depth} deep"
'4,652,008 parameters, 0.385 G MACs, 50 deep'
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate.models.network import as_network
from foveate.models.receptive_field import Follower, tensors


@dataclass(frozen=True)
class Layer:
    """A layer, or a block of layers.

    Args:
        name: dotted, as in `state_dict()`.
        kind: the class, with kernel, stride and groups: "Conv2d 3x3 /2 depthwise".
        shape: of the output, without the batch.
        parameters: numbers that training may change.
        macs: multiply-accumulates of convolutions and matrix products for one image, biases not
            counted.
        field: the receptive field of an output pixel, (height, width) in pixels of the image. It
            may be larger than the image: then it reaches beyond the border. None: the whole image,
            whatever its size.
        stride: pixels of the image from one output pixel to the next, (height, width). None: there
            is no next.
        block: it stands for the rows below it whose names begin with its own; its parameters and
            macs include theirs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    field: tuple[int, int] | None
    stride: tuple[int, int] | None
    block: bool = False


@dataclass(frozen=True)
class Stage:
    """What lies between one map of `network.stages` and the next; after the last, the head.

    The terms are those of Layer.
    """

    name: str  # "stage 1", ..., "head"
    layers: tuple[Layer, ...]
    shape: tuple[int, ...]
    parameters: int
    macs: int
    field: tuple[int, int] | None
    stride: tuple[int, int] | None


@dataclass(frozen=True)
class Summary:
    """A network in evaluation, at one size of images.

    Args:
        size: of the image, (channels, height, width).
        shape: of the answer, without the batch.
        layers: in the order in which they run, a block above its layers. Activations, dropout and
            whatever else has neither parameters nor an effect on shape or receptive field are left
            out.
        parameters: of the whole network.
        idle: those among them that evaluation does without: auxiliary classifiers. They are in no
            row.
        depth: convolutions and linear layers on the longest way from the image to the answer.
    """

    size: tuple[int, int, int]
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    parameters: int
    idle: int
    macs: int
    depth: int


class Recorder:
    """Writes down the modules that an image passes while its follower is entered."""

    def __init__(self, image: Tensor):
        self.follower = Follower(image)
        self.rows: list[tuple[Layer, int]] = []  # each with the time when it ended
        self.used: dict[int, int] = {}  # id of a parameter -> its size

    def watch(self, name: str, module: nn.Module, listed: bool) -> None:
        """Whenever the module has run, it gets a row, if it is to be listed and does anything."""
        entered: list[tuple[int, int]] = []

        def enter(module: nn.Module, args: Any) -> None:
            entered.append((len(self.rows), self.follower.macs))
            self.used |= {id(p): p.numel() for p in module.parameters(recurse=False)}

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            row, macs = entered.pop()
            x, y = next(tensors(args)), next(tensors(out))
            before, after = self.follower.origin(x), self.follower.origin(y)
            parameters = sum(p.numel() for p in module.parameters())
            idle = (x.shape, before.field(), before.stride()) == (
                y.shape,
                after.field(),
                after.stride(),
            )
            if listed and (parameters or not idle):
                shape, work, block = (
                    tuple(y.shape[1:]),
                    self.follower.macs - macs,
                    len(self.rows) > row,
                )
                layer = Layer(
                    name,
                    kind(module),
                    shape,
                    parameters,
                    work,
                    after.field(),
                    after.stride(),
                    block,
                )
                # a block above the layers that ran in it
                self.rows.insert(row, (layer, self.follower.time))

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


def summarise(network: nn.Module, size: tuple[int, int, int] | None = None) -> Summary:
    """The table of a network's layers, and its totals; `as_text` prints it.

    Args:
        network: on any device, the meta device too; it is left as it is.
        size: of the image, (channels, height, width); by default the network's own.

    Raises:
        TypeError: no size is given, and the module has no `input_size`.
        ValueError: size is not three positive numbers, or the network refuses images of that size.
        NotImplementedError: the forward does what `foveate.models.receptive_field` cannot follow.
    """
    if size is None:
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        side = as_network(network, "input_size").input_size
        size = (first.in_channels, side, side)
    out, recorder = run(network, size, lambda twin, image: twin(image))
    parameters = sum(p.numel() for p in network.parameters())
    return Summary(
        size=size,
        shape=tuple(out.shape[1:]),
        layers=tuple(layer for layer, _ in recorder.rows),
        parameters=parameters,
        idle=parameters - sum(recorder.used.values()),
        macs=recorder.follower.macs,
        depth=recorder.follower.origin(out).depth,
    )


def summarise_stages(network: nn.Module, summary: Summary | None = None) -> tuple[Stage, ...]:
    """A network in as many parts as `stages` returns maps, and the head.

    Args:
        network: on any device; it is left as it is.
        summary: of the network, if there is one already.

    Raises:
        TypeError: the module has no `stages`.
        ValueError, NotImplementedError: as `summarise`.
    """
    summary = summary or summarise(network)
    maps, recorder = run(
        network, summary.size, lambda twin, image: as_network(twin, "stages").stages(image)
    )
    stages: list[Stage] = []
    begin = 0
    for y in maps:
        origin = recorder.follower.origin(y)
        layers = tuple(layer for layer, end in recorder.rows if begin < end <= origin.time)
        name, shape, costs = f"stage {len(stages) + 1}", tuple(y.shape[1:]), sum_up(layers)
        stages.append(Stage(name, layers, shape, *costs, origin.field(), origin.stride()))
        begin = origin.time
    known = [layer.name for stage in stages for layer in stage.layers]
    head = tuple(
        row
        for row in summary.layers
        if not any(f"{name}.".startswith(f"{row.name}.") for name in known)
    )
    return (*stages, Stage("head", head, summary.shape, *sum_up(head), None, None))


def on_meta(network: nn.Module, size: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """A twin of the network and an image of a size, with shapes and no numbers."""
    if len(size) != 3 or min(size) < 1:
        raise ValueError(
            f"an image's size is (channels, height, width), each at least 1, got {size}"
        )
    twin = meta_twin(network)
    dtype = next((p.dtype for p in twin.parameters()), torch.float32)
    image = torch.empty(1, *size, dtype=dtype, device="meta")
    return twin, image


def run(
    network: nn.Module, size: tuple[int, ...], function: Callable[[nn.Module, Tensor], Any]
) -> tuple[Any, Recorder]:
    """What a function of the network and an image returns, and the record of it."""
    twin, image = on_meta(network, size)
    recorder = Recorder(image)
    for name, module in twin.named_modules():
        recorder.watch(name, module, listed=name != "" and not nameless(twin, name))
    with torch.no_grad(), recorder.follower:
        return function(twin, image), recorder


def meta_twin(network: nn.Module) -> nn.Module:
    """A twin on the meta device, in evaluation. No number is copied."""
    twins: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in network.parameters()
    }
    twins |= {id(b): b.to("meta") for b in network.buffers()}
    return copy.deepcopy(network, twins).eval()


def nameless(network: nn.Module, name: str) -> bool:
    """A Sequential inside a block of another class only strings layers together: it gets no row."""
    above = [network.get_submodule(name[:end]) for end, letter in enumerate(name) if letter == "."]
    return type(network.get_submodule(name)) is nn.Sequential and any(
        type(m) is not nn.Sequential for m in above
    )


def kind(module: nn.Module) -> str:
    """A layer in a few words.

    >>> kind(nn.Conv2d(8, 8, (1, 7), stride=2, groups=4)), kind(nn.Linear(2, 1))
    ('Conv2d 1x7 /2 in 4 groups', 'Linear')
    """
    words = [type(module).__name__]
    kernel, stride = pair(getattr(module, "kernel_size", 1)), pair(getattr(module, "stride", 1))
    words += [by(kernel)] if hasattr(module, "kernel_size") else []
    words += [f"/{stride[0]}"] if stride != (1, 1) else []
    groups = getattr(module, "groups", 1)
    if isinstance(module, nn.Conv2d) and groups > 1:
        words += ["depthwise" if groups == module.in_channels else f"in {groups} groups"]
    return " ".join(words)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def by(sizes: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in sizes)


def outermost(layers: tuple[Layer, ...]) -> list[Layer]:
    """Those that are in no block of the others."""
    blocks = tuple(f"{layer.name}." for layer in layers if layer.block)
    return [layer for layer in layers if not layer.name.startswith(blocks)]


def sum_up(layers: tuple[Layer, ...]) -> tuple[int, int]:
    """Parameters and multiply-accumulates."""
    return sum(layer.parameters for layer in outermost(layers)), sum(
        layer.macs for layer in outermost(layers)
    )


def as_text(summary: Summary) -> str:
    """The table for people: the parts of a block are indented, its figures include theirs."""
    lines = [("layer", "kind", "output", "parameters", "MACs", "field", "stride")]
    blocks: list[str] = []  # those that the row is in
    for layer in summary.layers:
        while blocks and not layer.name.startswith(blocks[-1]):
            blocks.pop()
        name = "  " * len(blocks) + layer.name.removeprefix(blocks[-1] if blocks else "")
        costs = f"{layer.parameters:,}", f"{layer.macs:,}"
        lines.append(
            (
                name,
                layer.kind,
                by(layer.shape),
                *costs,
                sides(layer.field, "global"),
                sides(layer.stride, "-"),
            )
        )
        blocks += [f"{layer.name}."] if layer.block else []
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    aligned = [f"{{:<{w}}}" if i < 2 else f"{{:>{w}}}" for i, w in enumerate(widths)]
    table = ["  ".join(aligned).format(*line) for line in lines]
    total = (
        f"{summary.parameters:,} parameters, {summary.macs / 1e9:.3f} G MACs, {summary.depth} "
        "layers deep"
    )
    idle = f"; {summary.idle:,} of the parameters are for training only" if summary.idle else ""
    rule = "-" * len(table[0])
    return "\n".join(
        [table[0], rule, *table[1:], rule, f"{total}, images of {by(summary.size)}{idle}"]
    )


def in_units(n: int) -> str:
    """A number in a few characters.

    >>> in_units(940), in_units(117_600), in_units(70_276_800), in_units(15_470_264_320)
    ('940', '117.6 k', '70.28 M', '15.47 G')
    """
    for unit, size in {"G": 1e9, "M": 1e6, "k": 1e3}.items():
        if n >= size:
            return f"{n / size:.4g} {unit}"
    return str(n)


def sides(sizes: tuple[int, int] | None, none: str) -> str:
    """(3, 3) -> "3", (1, 7) -> "1x7"."""
    if sizes is None:
        return none
    return str(sizes[0]) if sizes[0] == sizes[1] else by(sizes)
