"""An OpenVINO graph as an ONNX model, operation by operation: what is served is what is exported,
and nothing is traced again. It takes no torch.

Each operation is written as the one ONNX operation that means the same, or as a few. One that is
not in the tables is an error that names it, never a guess.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ArtefactError, MissingExtraError

OPSET = 18  # the first whose ReduceMean takes its axes as the graph does; runtimes of 2023 read it
IR_VERSION = 8
LARGEST = 2**31 - 1  # bytes of a protobuf message

# mean the same, with the same inputs and no attributes
SAME = {
    "Abs": "Abs",
    "Add": "Add",
    "Divide": "Div",
    "Erf": "Erf",
    "Exp": "Exp",
    "HSwish": "HardSwish",
    "Maximum": "Max",
    "Minimum": "Min",
    "Multiply": "Mul",
    "Negative": "Neg",
    "Power": "Pow",
    "ReLU": "Relu",
    "Relu": "Relu",
    "ShapeOf": "Shape",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "SoftPlus": "Softplus",
    "Sqrt": "Sqrt",
    "Subtract": "Sub",
    "Tanh": "Tanh",
}
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


def onnx_package() -> Any:
    """The package onnx.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            "ONNX files are written by the package onnx, which is not installed: pip install "
            "'foveate[export]'"
        ) from error
    return onnx


def to_onnx(model: Any, metadata: dict[str, str]) -> Any:
    """An OpenVINO model as an `onnx.ModelProto`, checked by onnx.

    Args:
        model: inputs and one output, with names.
        metadata: becomes `metadata_props`.

    Raises:
        ArtefactError: an operation has no counterpart, or the model is too large for one file.
        MissingExtraError: the package onnx is not installed.
    """
    onnx = onnx_package()
    graph = Graph(onnx)
    for op in model.get_ordered_ops():
        graph.add(op)
    read = {name for node in graph.nodes for name in node.input}
    graph.constants = {name: value for name, value in graph.constants.items() if name in read}
    size = sum(tensor.nbytes for tensor in graph.constants.values())
    if size > LARGEST:
        raise ArtefactError(
            f"the network has {size / 1e9:.1f} GB of weights, more than one ONNX file holds "
            "(2.1 GB); export it with the format openvino"
        )
    from foveate import __version__

    written = onnx.helper.make_model(
        graph.proto(model),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="foveate",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(written, metadata)
    onnx.checker.check_model(written, full_check=True)
    return written


class Graph:
    """An ONNX graph that grows by one OpenVINO operation after the other."""

    def __init__(self, onnx: Any):
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.values: dict[str, NDArray[Any]] = {}  # of the OpenVINO constants, used or not
        self.names: dict[tuple[str, int], str] = {}  # of each operation's outputs
        self.counter = 0

    def fresh(self, stem: str) -> str:
        self.counter += 1
        return f"{stem}_{self.counter}"

    def constant(self, value: Any) -> str:
        """The name of a new constant."""
        name = self.fresh("constant")
        self.constants[name] = np.asarray(value)
        return name

    def node(self, kind: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Append a node; the names of its outputs."""
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, names[0], **attributes))
        return names

    def input(self, op: Any, number: int) -> str:
        """The name of what an operation reads; a constant is written when it is first read."""
        end = op.input_value(number)
        name = self.names[end.get_node().get_name(), end.get_index()]
        if name in self.values:
            self.constants[name] = self.values[name]
        return name

    def inputs(self, op: Any) -> list[str]:
        return [self.input(op, number) for number in range(op.get_input_size())]

    def as_int64(self, op: Any, number: int) -> str:
        """`input`, as int64."""
        if op.input_value(number).get_element_type().get_type_name() == "i64":
            return self.input(op, number)
        end = op.input_value(number)
        value = self.values.get(self.names[end.get_node().get_name(), end.get_index()])
        if value is not None:
            return self.constant(value.astype(np.int64))
        return self.node("Cast", [self.input(op, number)], to=self.type_of("i64"))[0]

    def axes(self, op: Any) -> str:
        """The second input, a constant, as ONNX takes axes: a vector of int64."""
        return self.constant(np.atleast_1d(self.given(op, 1)).astype(np.int64))

    def axis(self, op: Any, number: int) -> int:
        """An input, a constant, that is one axis."""
        return int(self.given(op, number).reshape(-1)[0])

    def given(self, op: Any, number: int) -> Any:
        """The value of an input that is a constant."""
        end = op.input_value(number)
        source = end.get_node()
        name = self.names[source.get_name(), end.get_index()]
        if name in self.values:
            return self.values[name]
        if source.get_type_name() == "Convert":  # weights that are kept in fewer bits
            source = source.input_value(0).get_node()
        if source.get_type_name() != "Constant":
            raise unknown(op, f"whose input {number} is computed")
        dtype = NUMPY[end.get_element_type().get_type_name()]
        return np.asarray(source.data).astype(dtype)

    def add(self, op: Any) -> None:
        """Write one operation."""
        kind, key = op.get_type_name(), op.get_name()
        if kind == "Result":
            return
        if kind == "Parameter":
            self.names[key, 0] = op.output(0).get_any_name()
            return
        if kind == "Constant":
            name = self.fresh("weight")
            self.names[key, 0], self.values[name] = name, np.asarray(op.data)
            return
        value = self.folded(op)
        if value is not None:
            name = self.fresh("weight")
            self.names[key, 0], self.values[name] = name, value
            return
        if kind in SAME:
            outputs = self.node(SAME[kind], self.inputs(op))
        elif kind in REDUCTIONS:
            keep = int(op.get_attributes()["keep_dims"])
            outputs = self.node(kind, [self.input(op, 0), self.axes(op)], keepdims=keep)
        elif kind in WRITERS:
            outputs = WRITERS[kind](self, op)
        else:
            raise unknown(op)
        for number, name in enumerate(outputs):
            self.names[key, number] = name

    def folded(self, op: Any) -> NDArray[Any] | None:
        """The whole numbers that an operation computes of constants and of sizes that do not depend
        on the number of images; None of any other.

        They are written as constants, also since ONNX Runtime 1.32 makes an empty range of the
        columns of a mirror image where it folds them itself.
        """
        end = op.output(0)
        if not end.get_element_type().is_integral() or op.get_output_size() > 1:
            return None
        dtype = NUMPY[end.get_element_type().get_type_name()]
        sizes = self.sizes(op)
        if sizes is not None:
            return sizes.astype(dtype)
        names = [self.names[s.get_node().get_name(), s.get_index()] for s in op.input_values()]
        if not names or not all(name in self.values for name in names):
            return None
        from foveate.engine.openvino import ov

        result = ov.Tensor(np.zeros(list(end.get_shape()), dtype))
        done = op.evaluate([result], [ov.Tensor(np.array(self.values[name])) for name in names])
        return np.array(result.data) if done else None

    def sizes(self, op: Any) -> NDArray[Any] | None:
        """The sizes that an operation reads of a shape, where none is the number of images."""
        picks = op.get_type_name() == "Gather"
        shape = op.input_value(0).get_node() if picks else op
        if shape.get_type_name() != "ShapeOf" or shape.get_input_partial_shape(0).rank.is_dynamic:
            return None
        sizes = list(shape.get_input_partial_shape(0))
        places = self.given(op, 1) if picks else np.arange(len(sizes))
        wanted = [sizes[int(place)] for place in places.reshape(-1)]
        if any(size.is_dynamic for size in wanted):
            return None
        return np.array([size.get_length() for size in wanted]).reshape(places.shape)

    def proto(self, model: Any) -> Any:
        """The graph with the model's inputs and its output, under their names."""
        helper = self.onnx.helper
        result = model.output(0)
        source = result.get_node().input_value(0)
        written = self.names[source.get_node().get_name(), source.get_index()]
        output = result.get_any_name()
        for node in self.nodes:
            node.output[:] = [output if name == written else name for name in node.output]
            node.input[:] = [output if name == written else name for name in node.input]
        ends = []
        for end in [*model.inputs, result]:
            sizes = [d.get_length() for d in list(end.get_partial_shape())[1:]]
            dtype = self.type_of(end.get_element_type().get_type_name())
            ends.append(helper.make_tensor_value_info(end.get_any_name(), dtype, ["n", *sizes]))
        *inputs, last = ends
        from_array = self.onnx.numpy_helper.from_array
        weights = [from_array(value, name) for name, value in self.constants.items()]
        return helper.make_graph(self.nodes, "foveate", inputs, [last], weights)

    def type_of(self, name: str) -> int:
        """ONNX's number of an OpenVINO type."""
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY[name])))


NUMPY: dict[str, Any] = {
    "boolean": np.bool_,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
    "i32": np.int32,
    "i64": np.int64,
    "i8": np.int8,
    "u8": np.uint8,
}


def unknown(op: Any, detail: str = "") -> ArtefactError:
    detail = f" {detail}" if detail else ""
    return ArtefactError(
        f"the network has an operation {op.get_type_name()}{detail}, which is not written to ONNX "
        f"(opset {OPSET}) here; export it with the format openvino"
    )


def window(op: Any) -> dict[str, Any]:
    """The attributes of an operation that slides a window."""
    found = op.get_attributes()
    if found.get("auto_pad", "explicit") not in ("explicit", "valid", "EXPLICIT", "VALID"):
        raise unknown(op, f"padded by {found['auto_pad']}")
    return {"strides": found["strides"], "pads": [*found["pads_begin"], *found["pads_end"]]}


def convolution(graph: Graph, op: Any) -> list[str]:
    images, weight = graph.inputs(op)
    dilations = op.get_attributes()["dilations"]
    return graph.node("Conv", [images, weight], dilations=dilations, **window(op))


def group_convolution(graph: Graph, op: Any) -> list[str]:
    weight = graph.given(op, 1)  # (groups, outputs of one, inputs of one, height, width)
    inputs = [graph.input(op, 0), graph.constant(weight.reshape(-1, *weight.shape[2:]))]
    dilations = op.get_attributes()["dilations"]
    return graph.node("Conv", inputs, group=len(weight), dilations=dilations, **window(op))


def pool(graph: Graph, op: Any) -> list[str]:
    found = op.get_attributes()
    common = window(op) | {"kernel_shape": found["kernel"]}
    common["ceil_mode"] = int(str(found["rounding_type"]).lower().startswith("ceil"))
    if op.get_type_name() == "AvgPool":
        counts = int(not found.get("exclude-pad", found.get("exclude_pad")))
        return graph.node("AveragePool", graph.inputs(op), count_include_pad=counts, **common)
    dilations = found.get("dilations", [1] * len(found["kernel"]))
    return graph.node("MaxPool", graph.inputs(op), dilations=dilations, **common)


def adaptive_pool(graph: Graph, op: Any) -> list[str]:
    """Means over windows that may overlap, as two products with matrices of shares."""
    sides = [d.get_length() for d in list(op.input_value(0).get_partial_shape())[2:]]
    wanted = [d.get_length() for d in list(op.output(0).get_partial_shape())[2:]]
    x = graph.input(op, 0)
    if sides == wanted:
        return graph.node("Identity", [x])
    if wanted == [1, 1]:
        return graph.node("GlobalAveragePool", [x])
    rows, columns = (graph.constant(shares(*pair)) for pair in zip(sides, wanted, strict=True))
    flipped = graph.node("Transpose", [columns], perm=[1, 0])
    return graph.node("MatMul", [*graph.node("MatMul", [rows, x]), *flipped])


def shares(side: int, wanted: int) -> NDArray[np.float32]:
    """(wanted, side): the share of each place in each mean, as torch's adaptive pooling has it.

    >>> shares(3, 2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    found = np.zeros((wanted, side), np.float32)
    for i in range(wanted):
        first, last = i * side // wanted, -(-(i + 1) * side // wanted)
        found[i, first:last] = 1 / (last - first)
    return found


def squeezed(graph: Graph, op: Any) -> list[str]:
    """One axis less, or more."""
    return graph.node(op.get_type_name(), [graph.input(op, 0), graph.axes(op)])


def clamp(graph: Graph, op: Any) -> list[str]:
    found = op.get_attributes()
    dtype = NUMPY[op.get_output_element_type(0).get_type_name()]
    bounds = [graph.constant(np.array(found[end], dtype)) for end in ("min", "max")]
    return graph.node("Clip", [*graph.inputs(op), *bounds])


def cast(graph: Graph, op: Any) -> list[str]:
    to = graph.type_of(op.get_output_element_type(0).get_type_name())
    return graph.node("Cast", [graph.input(op, 0)], to=to)


def concat(graph: Graph, op: Any) -> list[str]:
    return graph.node("Concat", graph.inputs(op), axis=op.get_attributes()["axis"])


def softmax(graph: Graph, op: Any) -> list[str]:
    return graph.node("Softmax", graph.inputs(op), axis=op.get_attributes()["axis"])


def transpose(graph: Graph, op: Any) -> list[str]:
    order = [int(axis) for axis in graph.given(op, 1)]
    return graph.node("Transpose", [graph.input(op, 0)], perm=order)


def reshape(graph: Graph, op: Any) -> list[str]:
    keeps = bool(op.get_attributes()["special_zero"])  # a 0 is the size of before
    inputs = [graph.input(op, 0), graph.as_int64(op, 1)]
    return graph.node("Reshape", inputs, allowzero=int(not keeps))


def gather(graph: Graph, op: Any) -> list[str]:
    if op.get_attributes().get("batch_dims", 0):
        raise unknown(op, "of batches")
    inputs = [graph.input(op, 0), graph.input(op, 1)]
    return graph.node("Gather", inputs, axis=graph.axis(op, 2))


def whole_range(graph: Graph, op: Any) -> list[str]:
    if not op.get_output_element_type(0).is_integral():
        raise unknown(op, "of fractions")
    # its ends may be of other types than what it gives
    numbers = graph.node("Range", [graph.as_int64(op, number) for number in range(3)])
    to = graph.type_of(op.get_output_element_type(0).get_type_name())
    return graph.node("Cast", numbers, to=to)


def split(graph: Graph, op: Any) -> list[str]:
    axis, count = graph.axis(op, 1), op.get_output_size()
    return graph.node("Split", [graph.input(op, 0)], count, axis=axis, num_outputs=count)


def variadic_split(graph: Graph, op: Any) -> list[str]:
    axis, lengths = graph.axis(op, 1), graph.given(op, 2)
    if (lengths < 0).any():
        ends = [op.output(number).get_partial_shape()[axis] for number in range(len(lengths))]
        lengths = np.array([end.get_length() for end in ends], np.int64)
    sizes = graph.constant(lengths.astype(np.int64))
    return graph.node("Split", [graph.input(op, 0), sizes], len(lengths), axis=axis)


def slice_(graph: Graph, op: Any) -> list[str]:
    if op.get_input_size() < 5:
        raise unknown(op, "without axes")
    # of int32 or int64 each, where ONNX wants them alike
    start, stop, step, axes = (graph.as_int64(op, number) for number in range(1, 5))
    return graph.node("Slice", [graph.input(op, 0), start, stop, axes, step])


def strided_slice(graph: Graph, op: Any) -> list[str]:
    found = op.get_attributes()
    if any(found.get("new_axis_mask", [])) or any(found.get("ellipsis_mask", [])):
        raise unknown(op, "with new axes")
    start, stop = graph.given(op, 1).astype(np.int64), graph.given(op, 2).astype(np.int64)
    step = graph.given(op, 3) if op.get_input_size() > 3 else np.ones_like(start)
    for axis, (first, last) in enumerate(zip(found["begin_mask"], found["end_mask"], strict=True)):
        start[axis] = 0 if first else start[axis]  # a mask says that its end is not looked at
        stop[axis] = np.iinfo(np.int64).max if last else stop[axis]
    dropped = [axis for axis, on in enumerate(found.get("shrink_axis_mask", [])) if on]
    for axis in dropped:
        stop[axis] = start[axis] + 1 or np.iinfo(np.int64).max
    axes = np.arange(len(start), dtype=np.int64)
    parts = [graph.constant(part.astype(np.int64)) for part in (start, stop, axes, step)]
    outputs = graph.node("Slice", [graph.input(op, 0), *parts])
    if not dropped:
        return outputs
    return graph.node("Squeeze", [*outputs, graph.constant(np.array(dropped, np.int64))])


def pad(graph: Graph, op: Any) -> list[str]:
    mode = str(op.get_attributes()["pad_mode"]).lower()
    if mode not in ("constant", "reflect", "edge"):
        raise unknown(op, f"of mode {mode}")
    width = np.concatenate([graph.given(op, 1), graph.given(op, 2)]).astype(np.int64)
    inputs = [graph.input(op, 0), graph.constant(width)]
    if op.get_input_size() == 4:
        inputs.append(graph.input(op, 3))
    return graph.node("Pad", inputs, mode=mode)


def matmul(graph: Graph, op: Any) -> list[str]:
    found, factors = op.get_attributes(), graph.inputs(op)
    for number, turned in enumerate((found["transpose_a"], found["transpose_b"])):
        rank = op.input_value(number).get_partial_shape().rank.get_length()
        if turned and rank > 1:
            order = [*range(rank - 2), rank - 1, rank - 2]
            factors[number] = graph.node("Transpose", [factors[number]], perm=order)[0]
    return graph.node("MatMul", factors)


def swish(graph: Graph, op: Any) -> list[str]:
    x, *beta = graph.inputs(op)
    scaled = graph.node("Mul", [x, *beta])[0] if beta else x
    return graph.node("Mul", [x, *graph.node("Sigmoid", [scaled])])


def hard_sigmoid(graph: Graph, op: Any) -> list[str]:
    return graph.node("HardSigmoid", graph.inputs(op), alpha=1 / 6, beta=0.5)


def gelu(graph: Graph, op: Any) -> list[str]:
    if str(op.get_attributes().get("approximation_mode", "ERF")).lower() != "erf":
        raise unknown(op, "by tanh")
    (x,) = graph.inputs(op)
    scaled = graph.node("Mul", [x, graph.constant(np.float32(0.5**0.5))])
    shifted = graph.node("Add", [*graph.node("Erf", scaled), graph.constant(np.float32(1))])
    half = graph.node("Mul", [x, graph.constant(np.float32(0.5))])
    return graph.node("Mul", [*half, *shifted])


def prelu(graph: Graph, op: Any) -> list[str]:
    slope = graph.given(op, 1)
    if slope.ndim == 1 and len(slope) > 1:  # one a channel
        rank = op.input_value(0).get_partial_shape().rank.get_length()
        slope = slope.reshape(-1, *[1] * (rank - 2))
    return graph.node("PRelu", [graph.input(op, 0), graph.constant(slope)])


def elu(graph: Graph, op: Any) -> list[str]:
    return graph.node("Elu", graph.inputs(op), alpha=op.get_attributes()["alpha"])


def normalised(graph: Graph, op: Any) -> list[str]:
    """MVN: less the mean, and divided by the standard deviation, over some axes."""
    found, x = op.get_attributes(), graph.input(op, 0)
    if not found["normalize_variance"] or str(found["eps_mode"]).lower() != "inside_sqrt":
        raise unknown(op, "of this kind")
    axes = graph.axes(op)
    less = graph.node("Sub", [x, *graph.node("ReduceMean", [x, axes], keepdims=1)])
    squared = graph.node("Mul", [*less, *less])
    variance = graph.node("ReduceMean", [*squared, axes], keepdims=1)
    shifted = graph.node("Add", [*variance, graph.constant(np.float32(found["eps"]))])
    return graph.node("Div", [*less, *graph.node("Sqrt", shifted)])


def lrn(graph: Graph, op: Any) -> list[str]:
    found = op.get_attributes()
    if [int(axis) for axis in np.atleast_1d(graph.given(op, 1))] != [1]:
        raise unknown(op, "over other axes than channels")
    named = {key: found[key] for key in ("alpha", "beta", "bias", "size")}
    return graph.node("LRN", [graph.input(op, 0)], **named)


def broadcast(graph: Graph, op: Any) -> list[str]:
    if str(op.get_attributes()["mode"]).lower() == "explicit":
        raise unknown(op, "with explicit axes")
    return graph.node("Expand", [graph.input(op, 0), graph.as_int64(op, 1)])


WRITERS: dict[str, Callable[[Graph, Any], list[str]]] = {
    "AdaptiveAvgPool": adaptive_pool,
    "AvgPool": pool,
    "Broadcast": broadcast,
    "Clamp": clamp,
    "Concat": concat,
    "Convert": cast,
    "ConvertLike": cast,
    "Convolution": convolution,
    "Elu": elu,
    "Gather": gather,
    "Gelu": gelu,
    "GroupConvolution": group_convolution,
    "HSigmoid": hard_sigmoid,
    "LRN": lrn,
    "MVN": normalised,
    "MatMul": matmul,
    "MaxPool": pool,
    "PRelu": prelu,
    "Pad": pad,
    "Range": whole_range,
    "Reshape": reshape,
    "Slice": slice_,
    "SoftMax": softmax,
    "Softmax": softmax,
    "Split": split,
    "Squeeze": squeezed,
    "StridedSlice": strided_slice,
    "Swish": swish,
    "Transpose": transpose,
    "Unsqueeze": squeezed,
    "VariadicSplit": variadic_split,
}
