"""Receptive fields, followed through what a network does.

Which pixels of the image can change one pixel of a map? Along each side they are an interval that
moves along with the pixel, i * step + first ... i * step + last. A convolution or a pooling widens
it by (kernel - 1) steps and multiplies the step by its stride; an addition or a concatenation takes
the smallest interval that holds its inputs'; an average over all pixels, a linear layer that reads
a flattened map, and attention between positions see everything.

These rules are applied to torch's own operations as they happen, below the level of modules, so
that they hold for any forward that is made of operations with a rule. Beside its intervals every
tensor has a layout: which of its dimensions hold rows and columns of pixels, so that a linear layer
over channels is told from one over positions. An operation without a rule, and one that rearranges
pixels in another way than by their rows and columns, is refused: nothing is guessed.

>>> x = torch.zeros(1, 3, 32, 32, device="meta")
>>> with Follower(x) as follower:
...     y = torch.relu(nn.Conv2d(3, 8, 3, stride=2, device="meta")(x))
...     y = y + nn.Conv2d(8, 8, 3, padding=1, device="meta")(y)
>>> follower.origin(y).field(), follower.origin(y).stride(), follower.origin(y).depth, follower.macs
((7, 7), (2, 2), 2, 178200)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn  # noqa: F401 (nn is for the example)
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Axis:
    """A map's pixel i depends on the image's pixels i * step + first ... i * step + last."""

    first: float = 0
    last: float = 0
    step: int = 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "Axis":
        """The axis of a map that a sliding window makes out of this one's."""
        first = self.first - padding * self.step
        last = self.last + (dilation * (kernel - 1) - padding) * self.step
        return Axis(first, last, self.step * stride)


STAY = (1, 1, 0, 1)  # the window that changes nothing

# What a dimension counts, from outer to inner: "rows" and "columns" of pixels, "images" of the
# batch, "" anything else; each with its size. () is a dimension of size 1 that counts nothing.
Dim = tuple[tuple[str, int], ...]
SIDES = ("rows", "columns")


@dataclass(frozen=True)
class Origin:
    """What a tensor comes from."""

    height: Axis = Axis()
    width: Axis = Axis()
    depth: int = 0  # convolutions and linear layers behind it, on the longest way
    time: int = 0  # operations up to the one that made it
    dims: tuple[Dim, ...] | None = None  # its layout; None: not known, and not to be read on

    def field(self) -> tuple[int, int] | None:
        """Height and width of what one pixel sees of the image; None: the whole image."""
        if math.inf in (self.height.last, self.width.last):
            return None
        high, wide = (int(axis.last - axis.first) + 1 for axis in (self.height, self.width))
        return high, wide

    def stride(self) -> tuple[int, int] | None:
        """Pixels of the image from one pixel to the next, down and across; None: there is none."""
        return (self.height.step, self.width.step) if self.height.step and self.width.step else None

    def axis(self, side: str) -> Axis:
        return self.height if side == "rows" else self.width

    def laid(self, dims: Iterable[Dim]) -> "Origin":
        """The same pixels in another layout."""
        return replace(self, dims=tuple(dims))

    def mixed(self, dims: Iterable[Dim], over: set[str]) -> "Origin":
        """In a new layout, after each number has read all rows, all columns, or both.

        A side of which the layout still counts the pixels keeps its step; else there is no next
        pixel.
        """
        dims = tuple(dims)
        left = {name for dim in dims for name, size in dim if size > 1}

        def axis(side: str) -> Axis:
            if side not in over:
                return self.axis(side)
            return Axis(-math.inf, math.inf, self.axis(side).step if side in left else 0)

        return replace(self, height=axis("rows"), width=axis("columns"), dims=dims)


class Unknown(Exception):  # noqa: N818 (it is caught here, and never seen outside)
    """There is no rule for this."""


# torch leaves the constructor of TorchDispatchMode without types
class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every tensor that comes of `image` (N, C, H, W) has an origin.

    It keeps all of them alive, so it is for the meta device. `macs` counts the multiply-accumulates
    of convolutions and matrix products, `time` the operations.

    Raises, at the operation:
        NotImplementedError: there is no rule for it.
    """

    def __init__(self, image: Tensor):
        super().__init__()  # type: ignore[no-untyped-call]
        n, c, h, w = image.shape
        start = Origin(dims=((("images", n),), other(c), (("rows", h),), (("columns", w),)))
        self.origins = {id(image): (image, start)}  # holds the tensors: no id is given twice
        self.macs = self.time = 0

    def origin(self, x: Tensor) -> Origin:
        """Of a tensor that comes of the image.

        Raises:
            NotImplementedError: it does not, as far as the rules tell.
        """
        if id(x) not in self.origins:
            raise NotImplementedError(
                f"a tensor of shape {tuple(x.shape)} does not come of the image"
            )
        return self.origins[id(x)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        call = Call(func, bound(func, args, kwargs or {}), self.origins, next(tensors(out), None))
        if call.result is None or not call.origins:
            return out  # it is about weights alone
        if call.op in SHAPED:
            return out  # all that it takes of the image is its shape
        try:
            origin = follow(call)
        except Unknown as error:
            raise NotImplementedError(
                f"receptive fields cannot be followed through {func}: {error}"
            ) from None
        macs = multiply_accumulates(call)
        layer = macs > 0 and len(call.origins) == 1  # by weights, not of two maps
        depth = max(o.depth for o in call.origins) + layer
        self.macs, self.time = self.macs + macs, self.time + 1
        for x in tensors(out):
            dims = resized(origin.dims or (), x)
            self.origins[id(x)] = (x, replace(origin, depth=depth, time=self.time, dims=dims))
        return out


class Call:
    """One operation: its arguments by name, and what is known of those that come of the image."""

    def __init__(
        self,
        func: Any,
        given: dict[str, Any],
        origins: dict[int, tuple[Tensor, Origin]],
        result: Tensor | None,
    ):
        self.func, self.op, self.given, self.result = func, func.overloadpacket, given, result
        self.known = origins
        self.inputs = [x for x in tensors(list(given.values())) if id(x) in origins]
        self.origins = [origins[id(x)][1] for x in self.inputs]

    @property
    def out(self) -> Tensor:
        assert self.result is not None
        return self.result

    def of(self, name: str) -> Origin | None:
        """Of an argument, if it comes of the image."""
        value = self.given[name]
        return self.known[id(value)][1] if id(value) in self.known else None

    def dims(self, name: str) -> tuple[Dim, ...]:
        """The layout of an argument, which may be weights."""
        origin = self.of(name)
        return layout(origin) if origin else tuple(other(n) for n in self.given[name].shape)


def follow(call: Call) -> Origin:
    """Where an operation's result comes from.

    Raises:
        Unknown: there is no rule.
    """
    pointwise = torch.Tag.pointwise in call.func.tags or call.op in ALIKE
    rule = together if pointwise else RULES.get(call.op)
    if rule is None:
        raise Unknown("it has no rule")
    origin = rule(call)
    before = call.of("self") if call.op.__name__.endswith("_") else origin
    if before is None or (before.height, before.width) != (origin.height, origin.width):
        written = call.given["self"]
        if written._is_view() or any(x._base is written for x, _ in call.known.values()):
            raise Unknown("it writes into numbers that another tensor shares")
    return origin


def together(call: Call) -> Origin:
    """Number by number, of tensors that are broadcast to the result's shape."""
    return union(call.origins, broadcast(call.inputs, call.origins, call.out.shape))


def union(origins: list[Origin], dims: Iterable[Dim]) -> Origin:
    """The smallest intervals that hold all; what goes together has one step, or none."""

    def axis(side: str) -> Axis:
        axes = [o.axis(side) for o in origins]
        steps = {a.step for a in axes if a.step}
        if len(steps) > 1:
            raise Unknown(f"it puts {side} with different strides together")
        return Axis(min(a.first for a in axes), max(a.last for a in axes), max({0, *steps}))

    return Origin(axis("rows"), axis("columns"), dims=tuple(dims))


def broadcast(inputs: list[Tensor], origins: list[Origin], shape: Iterable[int]) -> list[Dim]:
    """The layout of a result, to whose shape all inputs are broadcast."""
    found = []
    for back, size in enumerate(reversed(list(shape)), start=1):
        dims = [
            (layout(o)[-back], o) for x, o in zip(inputs, origins, strict=True) if back <= x.ndim
        ]
        sizes = [x.shape[-back] for x in inputs if back <= x.ndim]
        whole = [dim for (dim, _), n in zip(dims, sizes, strict=True) if n == size]
        if len({names(dim) for dim in whole if size > 1 or names(dim)}) > 1:
            raise Unknown("it puts dimensions of different meaning together")
        for (dim, origin), n in zip(dims, sizes, strict=True):
            if n != size and any(origin.axis(s).last < math.inf for s in sides(dim)):
                raise Unknown("it repeats one pixel")
        found.append(max(whole, key=lambda dim: len(names(dim)), default=other(size)))
    return found[::-1]


def rearranged(call: Call) -> Origin:
    """The same numbers in another shape."""
    [origin] = call.origins
    return origin.laid(regrouped(layout(origin), call.out.shape))


def regrouped(dims: tuple[Dim, ...], shape: Iterable[int]) -> list[Dim]:
    """Dimensions merged and split into others; rows and columns stay whole.

    >>> image = ((("images", 2),), (("", 6),), (("rows", 5),), (("columns", 4),))
    >>> regrouped(image, (2, 3, 2, 20))
    [(('images', 2),), (('', 3),), (('', 2),), (('rows', 5), ('columns', 4))]
    """
    parts: list[tuple[str, int]] = []
    for name, n in (part for dim in dims for part in dim):
        if parts and name == parts[-1][0] == "":
            parts[-1] = ("", parts[-1][1] * n)
        else:
            parts.append((name, n))
    found: list[Dim] = []
    for size in shape:
        dim: Dim = ()
        if size == 1 and parts and parts[0][1] == 1:
            dim = (parts.pop(0),)
        left = size
        while left > 1:
            name, n = parts.pop(0)
            if left % n == 0:
                dim, left = (*dim, (name, n)), left // n
            elif name == "" and n % left == 0:
                dim, left = (*dim, ("", left)), 1
                parts.insert(0, ("", n // dim[-1][1]))
            else:
                raise Unknown(f"it cuts {name or 'channels'} into pieces")
        found.append(dim)
    if parts:  # each of size 1
        found[-1] = (*found[-1], *parts)
    return found


def permuted(call: Call) -> Origin:
    [origin], dims = call.origins, list(layout(call.origins[0]))
    if call.op is aten.permute:
        return origin.laid(dims[i] for i in call.given["dims"])
    i, j = (0, len(dims) - 1) if call.op is aten.t else (call.given["dim0"], call.given["dim1"])
    if dims:
        dims[i], dims[j] = dims[j], dims[i]
    return origin.laid(dims)


def unsqueezed(call: Call) -> Origin:
    [origin], dims = call.origins, list(layout(call.origins[0]))
    dims.insert(call.given["dim"] % (len(dims) + 1), ())
    return origin.laid(dims)


def squeezed(call: Call) -> Origin:
    [x], [origin] = call.inputs, call.origins
    chosen = numbered(call.given.get("dim"), x.ndim)
    dims = enumerate(layout(origin))
    return origin.laid(dim for i, dim in dims if i not in chosen or x.shape[i] != 1)


def picked(call: Call) -> Origin:
    """One index, or some, of a dimension that does not count pixels."""
    [origin], dims = call.origins, list(layout(call.origins[0]))
    dim = call.given["dim"] % len(dims)
    if names(dims[dim]) != ("",) and names(dims[dim]):
        raise Unknown(f"it takes {names(dims[dim])[0]} apart")
    if call.op in (aten.select, aten.unbind):
        del dims[dim]
    return origin.laid(dims)


def joined(call: Call) -> Origin:
    """Concatenated or stacked along a dimension that does not count pixels."""
    dim, shape = call.given["dim"] % call.out.ndim, list(call.out.shape)
    inputs, origins = call.inputs, call.origins
    if call.op is aten.stack:
        origins = [o.laid([*layout(o)[:dim], (), *layout(o)[dim:]]) for o in origins]
        inputs = [x.unsqueeze(dim) for x in inputs]
    if any(n not in ("",) for o in origins for n in names(layout(o)[dim])):
        raise Unknown("it puts maps beside each other")
    bare = [o.laid([*layout(o)[:dim], (), *layout(o)[dim + 1 :]]) for o in origins]
    narrow = [x.narrow(dim, 0, 1) for x in inputs]
    dims = broadcast(narrow, bare, [*shape[:dim], 1, *shape[dim + 1 :]])
    dims[dim] = other(shape[dim])
    return union(origins, dims)


def reduced(call: Call) -> Origin:
    """A mean, a sum, a maximum: of the pixels too, where it is over rows or columns."""
    [x], [origin] = call.inputs, call.origins
    chosen = numbered(call.given.get("dim"), x.ndim)
    keep = call.given.get("keepdim", False)
    dims = enumerate(layout(origin))
    left = [single(dim) if i in chosen else dim for i, dim in dims if keep or i not in chosen]
    return origin.mixed(left, {side for i in chosen for side in sides(layout(origin)[i])})


def softmax(call: Call) -> Origin:
    [origin] = call.origins
    return origin.mixed(layout(origin), set(sides(layout(origin)[call.given["dim"]])))


def layer_norm(call: Call) -> Origin:
    origin = only(call, "input")
    normalised = layout(origin)[-len(call.given["normalized_shape"]) :]
    return origin.mixed(layout(origin), {side for dim in normalised for side in sides(dim)})


def group_norm(call: Call) -> Origin:
    origin = only(call, "input")
    return origin.mixed(layout(origin), {side for dim in layout(origin)[1:] for side in sides(dim)})


def batch_norm(call: Call) -> Origin:
    """By fixed statistics pixel by pixel; by those of the batch, each pixel depends on all."""
    origin = only(call, "input")
    counted = set(SIDES) & {side for dim in layout(origin) for side in sides(dim)}
    return origin.mixed(layout(origin), counted if call.given.get("training") else set())


MATRICES = {  # the names of the two factors
    aten.mm: ("self", "mat2"),
    aten.addmm: ("mat1", "mat2"),
    aten.bmm: ("self", "mat2"),
    aten.baddbmm: ("batch1", "batch2"),
}


def product(call: Call) -> Origin:
    """(..., i, k) times (..., k, j).

    What k counts is summed up: all of it is read. A product of two maps with positions in both i
    and j is how attention begins; it is taken to read all positions that j counts.
    """
    a, b = MATRICES[call.op]
    if call.op in (aten.addmm, aten.baddbmm) and call.of("self"):
        raise Unknown("what it adds comes of the image too")
    left, right = call.dims(a), call.dims(b)
    read = {*sides(left[-1]), *sides(right[-2])}
    both = call.of(a) is not None and call.of(b) is not None
    if both:
        read |= set(sides(right[-1]))
    batch: list[Dim] = [
        max(dims, key=lambda d: len(names(d))) for dims in zip(left[:-2], right[:-2], strict=True)
    ]
    if both and any(names(x) != names(y) for x, y in zip(left[:-2], right[:-2], strict=True)):
        raise Unknown("its batches are of different meaning")
    columns = other(call.out.shape[-1]) if both else right[-1]
    dims = [*batch, left[-2], columns]
    return union(call.origins, dims).mixed(dims, read)


def slid(origin: Origin, looks: list[tuple[int, int, int, int]], out: Tensor) -> Origin:
    """Windows over the last dimensions, each (kernel, stride, padding, dilation)."""
    dims = list(layout(origin))
    for i, look in enumerate(looks, start=len(dims) - len(looks)):
        dim = dims[i]
        if not names(dim) or names(dim) == ("",):
            dims[i] = other(out.shape[i])
        elif look != STAY or out.shape[i] != math.prod(n for _, n in dim):
            if len(dim) != 1 or dim[0][0] not in SIDES:
                raise Unknown(f"its window runs over {' and '.join(names(dim))}")
            name, axis = dim[0][0], origin.axis(dim[0][0]).window(*look)
            origin = replace(origin, height=axis) if name == "rows" else replace(origin, width=axis)
            dims[i] = ((name, out.shape[i]),)
    return origin.laid(dims)


def convolution(call: Call) -> Origin:
    origin, given = only(call, "input"), call.given
    if given["transposed"]:
        raise Unknown("it is transposed")
    sizes = given["weight"].shape[2:]
    looks = zip(sizes, *(given[k] for k in ("stride", "padding", "dilation")), strict=True)
    read = set(sides(layout(origin)[1]))
    origin = slid(origin, list(looks), call.out)
    dims = list(layout(origin))
    dims[1] = other(call.out.shape[1])
    return origin.mixed(dims, read)


def pooling(call: Call) -> Origin:
    given, n = call.given, 3 if "3d" in call.op.__name__ else 2
    kernel = spread(given["kernel_size"], n)
    stride = spread(given["stride"], n) or kernel
    rest = (spread(given.get(name, 1), n) for name in ("padding", "dilation"))
    return slid(only(call, "self"), list(zip(kernel, stride, *rest, strict=True)), call.out)


def adaptive_pooling(call: Call) -> Origin:
    origin = only(call, "self")
    sizes = zip(call.given["self"].shape[-2:], spread(call.given["output_size"], 2), strict=True)
    looks = [(largest_window(n, o), max(1, n // o), 0, 1) for n, o in sizes]
    return slid(origin, looks, call.out)


def padded(call: Call) -> Origin:
    pad = call.given["pad"]
    return slid(only(call, "self"), [(1, 1, before, 1) for before in pad[::2][::-1]], call.out)


def sliced(call: Call) -> Origin:
    origin, given = only(call, "self"), call.given
    n, dim = given["self"].ndim, given["dim"] % given["self"].ndim
    size = given["self"].shape[dim]
    start = given["start"] or 0
    start = min(size, start if start >= 0 else max(0, start + size))
    looks = [STAY] * (n - dim)
    looks[0] = (1, given["step"], -start, 1)
    return slid(origin, looks, call.out)


def only(call: Call, name: str) -> Origin:
    """The origin of an argument, if it is the only one that comes of the image."""
    origin = call.of(name)
    if origin is None or len(call.origins) > 1:
        raise Unknown("its weights come of the image too")
    return origin


# They change each number by itself, or none, and torch does not tag them as such.
ALIKE = {aten.clone, aten.detach, aten.alias, aten._to_copy, aten.expand, aten.lift_fresh}
ALIKE |= {aten.hardswish, aten.hardswish_, aten.native_dropout, aten.masked_fill}
ALIKE |= {aten._prelu_kernel}
SHAPED = {aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like}
SHAPED |= {aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full}
RULES: dict[Any, Callable[[Call], Origin]] = {
    **dict.fromkeys([aten.view, aten._unsafe_view, aten._reshape_alias], rearranged),
    **dict.fromkeys([aten.transpose, aten.t, aten.permute], permuted),
    **dict.fromkeys([aten.select, aten.unbind, aten.split, aten.split_with_sizes], picked),
    **dict.fromkeys([aten.cat, aten.stack], joined),
    **dict.fromkeys([aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std], reduced),
    **dict.fromkeys([aten._softmax, aten._log_softmax, aten._safe_softmax], softmax),
    **dict.fromkeys([aten.native_batch_norm, aten._native_batch_norm_legit], batch_norm),
    **dict.fromkeys(MATRICES, product),
    **dict.fromkeys([aten.avg_pool2d, aten.avg_pool3d], pooling),
    **dict.fromkeys([aten.max_pool2d_with_indices, aten.max_pool3d_with_indices], pooling),
    **dict.fromkeys([aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d], adaptive_pooling),
    aten._native_batch_norm_legit_no_training: batch_norm,
    aten.native_layer_norm: layer_norm,
    aten.native_group_norm: group_norm,
    aten.unsqueeze: unsqueezed,
    aten.squeeze: squeezed,
    aten.convolution: convolution,
    aten.constant_pad_nd: padded,
    aten.slice: sliced,
}


def layout(origin: Origin) -> tuple[Dim, ...]:
    if origin.dims is None:
        raise Unknown("it reads a by-product whose layout is not known")
    return origin.dims


def resized(dims: tuple[Dim, ...], x: Tensor) -> tuple[Dim, ...] | None:
    """A layout for a tensor: parts of a split may have other sizes; None if it does not fit."""
    if len(dims) != x.ndim:
        return None
    found = []
    for dim, size in zip(dims, x.shape, strict=True):
        if math.prod(n for _, n in dim) != size:
            if any(name for name, _ in dim):
                return None
            dim = other(size)
        found.append(dim)
    return tuple(found)


def other(size: int) -> Dim:
    """A dimension that counts neither images nor pixels."""
    return () if size == 1 else (("", size),)


def names(dim: Dim) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _ in dim))


def sides(dim: Dim) -> tuple[str, ...]:
    return tuple(name for name, _ in dim if name in SIDES)


def single(dim: Dim) -> Dim:
    """What is left of a dimension after a sum over it."""
    return tuple((name, 1) for name, _ in dim if name)


def numbered(dim: int | list[int] | None, n: int) -> set[int]:
    """Dimensions as numbers from 0 on; all, where none is named."""
    if dim is None or dim == []:
        return set(range(n))
    return {d % n for d in ([dim] if isinstance(dim, int) else dim)}


def spread(value: int | list[int], n: int) -> list[int]:
    """A number for each of n sides; none where none is given."""
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """An operation's arguments by their names; torch leaves out those that are the default."""
    wanted = func._schema.arguments
    given = {argument.name: argument.default_value for argument in wanted}
    given |= {argument.name: value for argument, value in zip(wanted, args, strict=False)}
    return given | kwargs


def largest_window(n: int, outputs: int) -> int:
    """Of adaptive pooling, whose output i averages inputs floor(i n / outputs) to
    ceil((i + 1) n / outputs) - 1.

    That is n / outputs where it divides, and then the field is exact; else it is that of the pixel
    that sees most.
    """
    return max(-(-(i + 1) * n // outputs) - i * n // outputs for i in range(outputs))


def multiply_accumulates(call: Call) -> int:
    """Of a convolution or a matrix product: one per number of the output and number summed up."""
    if call.op is aten.convolution:
        return call.out.numel() * int(call.given["weight"][0].numel())
    if call.op in MATRICES:
        return call.out.numel() * int(call.given[MATRICES[call.op][1]].shape[-2])
    return 0


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in an argument or a result."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
