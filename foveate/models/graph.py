"""A network as a graph: its operations, the blocks they form, and what reads what.

A twin of the network on torch's meta device runs once, and torch's own operations are written down
as they happen, each with the module in which it happens. So the edges are those of the network,
whatever its forward looks like, and nothing is computed.

- A batch-norm or an activation goes into the box of the layer before it.
- A layer of torch, and a module without modules in it, is one box.
- A module of several layers is a block, which has a graph of its own inside. Sequences
  (`nn.Sequential`) are not blocks, nor is what makes one box in the end (convolution, norm,
  activation), nor a module of which there is one if it holds blocks.

>>> from foveate.models import build
>>> graph = trace(build("resnet18"), (3, 224, 224))
>>> [node.label for node in graph][:5]
['conv 7×7 /2', 'max pool 3×3 /2', 'Basic', 'Basic', 'Basic']
>>> [node.label for node in graph[2].inner]
['conv 3×3', 'conv 3×3', '+', 'ReLU']
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.models.receptive_field import bound
from foveate.models.summary import by, on_meta

aten = torch.ops.aten

NORMS = {
    aten.native_batch_norm: "BN",
    aten._native_batch_norm_legit: "BN",
    aten._native_batch_norm_legit_no_training: "BN",
    aten.native_layer_norm: "layer norm",
    aten.native_group_norm: "group norm",
}
ACTIVATIONS = {
    aten.relu: "ReLU",
    aten.leaky_relu: "leaky ReLU",
    aten._prelu_kernel: "PReLU",
    aten.silu: "SiLU",
    aten.gelu: "GELU",
    aten.elu: "ELU",
    aten.mish: "Mish",
    aten.sigmoid: "sigmoid",
    aten.tanh: "tanh",
    aten.hardswish: "h-swish",
    aten.hardsigmoid: "h-sigmoid",
    aten._softmax: "softmax",
    aten._safe_softmax: "softmax",
    aten._log_softmax: "log-softmax",
}
JOINS = {aten.add: "+", aten.sub: "-", aten.mul: "×", aten.div: "÷"}
MATRICES = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
MAX_POOLS = {aten.max_pool2d_with_indices, aten.max_pool3d_with_indices}
AVERAGES = {aten.avg_pool2d, aten.avg_pool3d}
ADAPTIVE = {aten._adaptive_avg_pool2d: "avg pool", aten.adaptive_max_pool2d: "max pool"}
REDUCTIONS = {aten.mean: "avg pool", aten.amax: "max pool", aten.sum: "sum"}
SPLITS = {aten.split, aten.split_with_sizes, aten.unbind}
TURNS = {aten.transpose, aten.permute}
# The same numbers under another shape or name: no box.
SAME = {aten.view, aten._unsafe_view, aten._reshape_alias, aten.expand, aten.squeeze}
SAME |= {aten.unsqueeze, aten.clone, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh}
SAME |= {aten.native_dropout, aten.as_strided, aten.t}
SHAPES = {aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like}
SHAPES |= {aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full}
# Modules that only string others together.
SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(eq=False)
class Node:
    """A box of the graph: a layer with the norm and the activation behind it, or a block.

    Args:
        label: what it does, "conv 3×3 /2"; of a block its class.
        role: "conv", "linear", "pool", "point" (number by number), "join" (+ and ×), "concat",
            "split", "other", or "block".
        shape: of the output, without the batch.
        reads: numbers of the operations whose results it reads; 0 is the image.
        covers: numbers of the operations that it stands for.
        name: dotted name of the module that it is or lies in.
        about: what its class says of itself, of a class that is not torch's.
        extras: norm and activation behind it.
        inner: of a block, the nodes inside, in the order in which they run.
        sizes: of what it reads, without the batch, by the number of the operation.
    """

    label: str
    role: str
    shape: tuple[int, ...]
    reads: list[int]
    covers: set[int]
    name: str
    about: str = ""
    extras: list[str] = field(default_factory=list)
    inner: list["Node"] = field(default_factory=list)
    sizes: dict[int, tuple[int, ...]] = field(default_factory=dict)


def inputs(nodes: list[Node]) -> list[list[int]]:
    """For each node of one graph the indices of the nodes that it reads; -1 is what comes in.

    >>> relu = Node("ReLU", "point", (8,), reads=[1], covers={2}, name="")
    >>> inputs([relu, Node("+", "join", (8,), reads=[2, 1], covers={3}, name="")])
    [[-1], [0, -1]]
    """
    owner = {number: i for i, node in enumerate(nodes) for number in node.covers}
    return [
        [j for j in dict.fromkeys(owner.get(read, -1) for read in node.reads) if j != i]
        for i, node in enumerate(nodes)
    ]


def outside(nodes: list[Node]) -> list[int]:
    """What a graph reads that is not made in it."""
    made = {number for node in nodes for number in node.covers}
    return list(dict.fromkeys(read for node in nodes for read in node.reads if read not in made))


def signature(node: Node) -> tuple[Any, ...]:
    """Two nodes with one signature do the same in the same size."""
    inner = tuple(signature(inside) for inside in node.inner)
    return (node.label, node.role, node.shape, tuple(node.extras), inner)


def trace(network: nn.Module, size: tuple[int, int, int]) -> list[Node]:
    """The graph of a network in evaluation, in the order in which it runs.

    Args:
        network: any module that takes one batch of images, on any device; it is left as it is.
        size: of the image, (channels, height, width).

    Raises:
        ValueError: size is not three positive numbers; the network refuses images of that size,
            or does what cannot be traced, such as deciding by the values of a tensor: the message
            names the module.
    """
    twin, image = on_meta(network, size)
    tracer = Tracer(twin, image)
    try:
        with torch.no_grad(), tracer:
            out = twin(image)
    except ValueError:
        raise  # the network's own, about the size of the image
    except Exception as error:
        where = tracer.stack[-1]
        inside = f" its {where.name} ({type(where.module).__name__})" if where.name else " it"
        raise ValueError(
            f"{type(network).__name__} cannot be traced with an image of {by(size)}:{inside} "
            f"fails where tensors have a shape but no values: {error}"
        ) from error
    results = [tracer.made[id(y)] for y in tree_leaves(out) if id(y) in tracer.made]
    if not results:
        raise ValueError(
            f"{type(network).__name__} cannot be traced: no tensor of its answer comes of the image"
        )
    return Assembly(tracer.root, needed(tracer.operations, results), results).graph


@dataclass(eq=False)
class Frame:
    """One call of a module: the operations and the calls in it, in their order."""

    name: str
    module: nn.Module
    calls: list["Frame | int"] = field(default_factory=list)

    def operations(self) -> Iterator[int]:
        for call in self.calls:
            yield from call.operations() if isinstance(call, Frame) else (call,)


# torch leaves the constructor of TorchDispatchMode without types
class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, writes down what happens to the image, and in which module."""

    def __init__(self, twin: nn.Module, image: Tensor):
        super().__init__()  # type: ignore[no-untyped-call]
        self.root = Frame("", twin)
        self.stack = [self.root]
        self.made = {id(image): 0}  # id of a tensor -> the operation that made it
        self.alive: list[Any] = [image]  # no id is given twice
        self.operations: dict[int, Node] = {}
        for name, module in twin.named_modules():
            if name:
                self.watch(name, module)

    def watch(self, name: str, module: nn.Module) -> None:
        def enter(module: nn.Module, args: Any) -> None:
            frame = Frame(name, module)
            self.stack[-1].calls.append(frame)
            self.stack.append(frame)

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self.stack.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = bound(func, args, kwargs or {})
        read = [x for x in tree_leaves(list(given.values())) if id(x) in self.made]
        before = [tuple(x.shape) for x in read]
        out = func(*args, **(kwargs or {}))
        results = [y for y in tree_leaves(out) if isinstance(y, Tensor)]
        if not read or not results or func.overloadpacket in SHAPES:
            return out  # about weights, or about a shape
        self.alive += results
        reads = [self.made[id(x)] for x in read]
        node = described(func, given, before, tuple(results[0].shape), reads, parts=len(results))
        if node is None:
            number = reads[0]
            if number in self.operations:
                reshape(self.operations[number], tuple(results[0].shape))
        else:
            number = len(self.operations) + 1
            node.covers, node.name = {number}, self.stack[-1].name
            node.sizes = {n: shape[1:] for n, shape in zip(reads, before, strict=True)}
            self.operations[number] = node
            self.stack[-1].calls.append(number)
        for y in results:
            self.made[id(y)] = number
        return out


def reshape(node: Node, shape: tuple[int, ...]) -> None:
    """What a new shape says of the operation before it.

    Channels (groups, n), transposed and in a row again, are shuffled. A linear layer over
    positions reads them in a row, and then they are in their places again.
    """
    if node.label == "transpose":
        if len(node.shape) == len(shape) == 4:
            node.label, node.extras = "channel shuffle", [f"{node.shape[1]} groups"]
        node.shape = shape[1:]
    elif node.role == "linear" and len(node.shape) == 1 and node.shape[0] == shape[-1]:
        node.shape = shape[1:]


def described(
    func: Any,
    given: dict[str, Any],
    before: list[tuple[int, ...]],
    shape: tuple[int, ...],
    reads: list[int],
    parts: int,
) -> Node | None:
    """An operation of torch as a node; None where nothing is to be drawn."""

    def node(label: str, role: str) -> Node:
        return Node(label, role, shape[1:], reads, set(), "")

    # in-place operations have a "_" behind the name
    op = getattr(aten, func.overloadpacket.__name__.rstrip("_"), func.overloadpacket)
    if op is aten.convolution:
        return node(convolution(given), "conv")
    if op in MATRICES:
        return node("linear", "linear") if len(reads) == 1 else node("matrix product", "other")
    if op in NORMS:
        return node(NORMS[op], "point")
    if op is aten.hardtanh:
        six = (given["min_val"], given["max_val"]) == (0, 6)
        return node("ReLU6" if six else "hard tanh", "point")
    if op in ACTIVATIONS:
        return node(ACTIVATIONS[op], "point")
    if op in MAX_POOLS | AVERAGES:
        kind = "max pool" if op in MAX_POOLS else "avg pool"
        return node(f"{kind} {window(given['kernel_size'], given['stride'])}", "pool")
    if op in ADAPTIVE:
        one = max(shape[2:]) == 1
        same = before[0] == shape
        return None if same else node(f"{'global ' * one}{ADAPTIVE[op]}", "pool")
    if op in REDUCTIONS:
        dims = given.get("dim")
        chosen = range(len(before[0])) if not dims else [d % len(before[0]) for d in dims]
        over_pixels = len(before[0]) == 4 and set(chosen) == {2, 3}
        name = f"global {REDUCTIONS[op]}" if over_pixels else op.__name__
        return node(name, "pool" if over_pixels else "other")
    if op in (aten.cat, aten.stack):
        return node("concat" if op is aten.cat else "stack", "concat")
    if op in SPLITS:
        return node(f"split in {parts}", "split")
    if op in TURNS:
        return node("transpose", "other")
    if op in (aten.slice, aten.select):
        return None if before[0] == shape else node("slice", "split")
    if op is aten.constant_pad_nd:
        more_channels = before[0][1:2] != shape[1:2]
        return node("zero channels", "other") if more_channels else None
    if op in JOINS and len(reads) > 1:
        return node(JOINS[op], "join")
    if op in SAME or (op in JOINS and not isinstance(given.get("other"), Tensor)):
        return None
    pointwise = torch.Tag.pointwise in func.tags and len(reads) == 1
    name = {aten.mul: "scale", aten.add: "shift"}.get(op, op.__name__.strip("_"))
    return node(name, "point" if pointwise else "other")


def convolution(given: dict[str, Any]) -> str:
    weight, groups = given["weight"], given["groups"]
    across = weight.shape[0] if given["transposed"] else weight.shape[1] * groups
    words = ["depthwise" if 1 < groups == across else "conv"]
    words += ["transposed"] if given["transposed"] else []
    words += [window(list(weight.shape[2:]), given["stride"], default=1)]
    if max(given["dilation"]) > 1:
        words.append(f"dilated {max(given['dilation'])}")
    if 1 < groups < across:
        words.append(f"in {groups} groups")
    return " ".join(words)


def window(kernel: list[int], stride: list[int], default: int | None = None) -> str:
    """Kernel and stride in a few words; pooling strides by its kernel where it says nothing.

    >>> window([3], [2]), window([2, 2], []), window([1, 7], [1, 1], default=1)
    ('3×3 /2', '2×2 /2', '1×7')
    """
    kernel = kernel * 2 if len(kernel) == 1 else kernel
    steps = stride or kernel
    step = "" if max(steps) == 1 else f" /{'×'.join(map(str, dict.fromkeys(steps)))}"
    return "×".join(map(str, kernel)) + step


def needed(operations: dict[int, Node], results: Iterable[int]) -> dict[int, Node]:
    """Those operations on which the results depend."""
    found: set[int] = set()
    open_ = list(results)
    while open_:
        number = open_.pop()
        if number and number not in found:
            found.add(number)
            open_ += operations[number].reads
    return {number: node for number, node in operations.items() if number in found}


class Assembly:
    """Makes boxes and blocks of the operations of a trace."""

    def __init__(self, root: Frame, operations: dict[int, Node], results: list[int]):
        self.operations = operations
        self.readers = Counter(results)  # of each operation, the answer among them
        for node in operations.values():
            self.readers.update(set(node.reads))
        # what the frames of a class have in common decides for all of them
        self.times: Counter[type[nn.Module]] = Counter()
        self.branching: set[type[nn.Module]] = set()
        self.count(root)
        self.graph = self.boxes(root, top=True)

    def count(self, frame: Frame) -> None:
        kind = type(frame.module)
        self.times[kind] += 1
        numbers = [n for n in frame.operations() if n in self.operations]
        if any(len(set(self.operations[n].reads)) > 1 for n in numbers):
            self.branching.add(kind)
        for call in frame.calls:
            if isinstance(call, Frame):
                self.count(call)

    def boxes(self, frame: Frame, top: bool) -> list[Node]:
        """What a frame is made of.

        Args:
            top: of the whole network. Inside of a block a row of layers is no block of its own.
        """
        found: list[Node] = []
        for call in frame.calls:
            if not isinstance(call, Frame):
                if call in self.operations:
                    found.append(self.operations[call])
            elif type(call.module) in SEQUENCES:
                found += self.boxes(call, top)
            elif is_layer(call.module):
                found += self.layer(call)
            else:
                found += self.block(call, top)
        return folded(found, self.readers)

    def layer(self, frame: Frame) -> list[Node]:
        """As one box, whatever it does inside."""
        nodes = [self.operations[n] for n in frame.operations() if n in self.operations]
        return nodes if len(nodes) < 2 else [self.whole(frame, nodes, "other")]

    def block(self, frame: Frame, top: bool) -> list[Node]:
        """As a block, or as its parts."""
        nodes = self.boxes(frame, top=False)
        kind = type(frame.module)
        wraps = self.times[kind] == 1 and any(node.inner for node in nodes)
        if len(nodes) < 2 or (kind not in self.branching and not top):
            return nodes
        if wraps and top:
            return self.boxes(frame, top=True)
        block = self.whole(frame, nodes, "block")
        block.inner = nodes
        return [block]

    def whole(self, frame: Frame, nodes: list[Node], role: str) -> Node:
        """One box for all that happens in a frame."""
        kind = type(frame.module)
        about = "" if kind.__module__.startswith("torch.") else kind.__doc__ or ""
        return Node(
            label=kind.__name__.lstrip("_"),
            role=role,
            shape=nodes[-1].shape,
            reads=outside(nodes),
            covers={number for node in nodes for number in node.covers},
            name=frame.name,
            about=about.strip().partition("\n")[0],
            sizes={n: shape for node in nodes for n, shape in node.sizes.items()},
        )


def is_layer(module: nn.Module) -> bool:
    """A layer of torch's, or a module without modules in it."""
    of_torch = type(module).__module__.startswith("torch.nn.modules")
    return (of_torch and not is_stack(module)) or not any(True for _ in module.children())


def is_stack(module: nn.Module) -> bool:
    """torch's own modules of many layers: they are opened."""
    return type(module).__module__.endswith(".transformer")


def folded(nodes: list[Node], readers: Counter[int]) -> list[Node]:
    """Norms and activations go into the box before them, if nothing else reads that one."""
    found: list[Node] = []
    for node in nodes:
        before = [i for i, other in enumerate(found) if other.covers & set(node.reads)]
        alone = len(node.reads) == 1 and readers[node.reads[0]] == 1
        takes = [i for i in before if found[i].role in ("conv", "linear", "pool", "point")]
        if node.role == "point" and alone and takes:
            [i] = takes
            found[i] = replace(
                found[i],
                extras=[*found[i].extras, node.label, *node.extras],
                covers=found[i].covers | node.covers,
                shape=node.shape,
            )
        else:
            found.append(node)
    return found
