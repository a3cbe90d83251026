"""A network's numbers, as a page keeps them: small, and as text that HTML leaves as it is.

    convolutions, matrices   float16, or int8 with a scale for each output
    depthwise ones, small    float16: rounding them further costs most, and saves little
    ones, the head
    all else                 as it is, in the graph

The graph is an ONNX file without these numbers, which lie beside it (ONNX's external data): the
page makes float32 of them, in memory, and the network computes in float32.
"""

import gzip
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 256  # numbers of a tensor that is taken out of the graph
SMALL = 5000  # numbers of a tensor that stays in float16
BESIDE = "weights"  # the name under which the runtime finds the numbers
# what HTML changes in a script's text, or what could end it; written as these letters
ESCAPED = {0x00: "\u0100", 0x0D: "\u0101", 0x3C: "\u0102"}


class Coded(NamedTuple):
    """A tensor as a page keeps it.

    Args:
        kind: "int8", "f16", "f32" or "i32".
        shape: of the tensor.
        data: its bytes; of float16 all low bytes, and then all high ones, which packs better.
        scales: (outputs,), float32, of int8; the first axis of the shape is that of the outputs.
    """

    kind: str
    shape: tuple[int, ...]
    data: bytes
    scales: NDArray[np.float32] | None = None

    def about(self) -> dict[str, Any]:
        """What the page has to know of the bytes."""
        return {"kind": self.kind, "shape": list(self.shape)}

    def content(self) -> bytes:
        scales = b"" if self.scales is None else self.scales.tobytes()
        return scales + self.data

    def values(self) -> NDArray[Any]:
        """The numbers as the page has them, as float32; of "i32" whole ones."""
        if self.kind == "i32":
            return np.frombuffer(self.data, np.int32).reshape(self.shape)
        if self.kind == "f32":
            return np.frombuffer(self.data, np.float32).reshape(self.shape)
        if self.kind == "f16":
            planes = np.frombuffer(self.data, np.uint8).reshape(2, -1)
            halves = np.ascontiguousarray(planes.T).view(np.float16)
            return halves.astype(np.float32).reshape(self.shape)
        assert self.scales is not None
        steps = np.frombuffer(self.data, np.int8).reshape(len(self.scales), -1)
        return (steps * self.scales[:, None]).reshape(self.shape)


def as_float16(values: NDArray[np.float32]) -> Coded:
    """Half the size; float32 where a number is beyond float16's range.

    >>> as_float16(np.float32([[1.5, -2]])).values().tolist()
    [[1.5, -2.0]]
    >>> as_float16(np.float32([1e6])).kind
    'f32'
    """
    if values.size and np.abs(values).max() > np.finfo(np.float16).max:
        return as_float32(values)
    planes = values.astype(np.float16).reshape(-1, 1).view(np.uint8).T
    return Coded("f16", values.shape, planes.tobytes())


def as_float32(values: NDArray[np.floating[Any]]) -> Coded:
    return Coded("f32", values.shape, np.ascontiguousarray(values, np.float32).tobytes())


def as_int32(values: NDArray[Any]) -> Coded:
    return Coded("i32", values.shape, values.astype(np.int32).tobytes())


def as_int8(values: NDArray[np.float32]) -> Coded:
    """A quarter of the size: whole steps of a scale for each output.

    >>> as_int8(np.float32([[127, -64], [0, 0]])).values().tolist()
    [[127.0, -64.0], [0.0, 0.0]]
    """
    rows = values.reshape(len(values), -1)
    scales = (np.abs(rows).max(axis=1) / 127).astype(np.float32)
    scales[scales == 0] = 1
    steps = np.clip(np.round(rows / scales[:, None]), -127, 127).astype(np.int8)
    return Coded("int8", values.shape, steps.tobytes(), scales)


def code_weights(onnx: Any, model: Any, int8: bool) -> tuple[Any, list[Coded]]:
    """An ONNX model without its larger tensors, and these.

    Args:
        onnx: the package.
        model: an `onnx.ModelProto`.
        int8: whether to round most of them to int8.

    Returns:
        The model, whose tensors lie in a file BESIDE, as float32, one after the other in the order
        of the list.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    coded: list[Coded] = []
    offset = 0
    for tensor in bare.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FEWEST:
            continue
        depthwise = values.ndim == 4 and values.shape[1] == 1
        large = values.ndim in (2, 4) and values.size >= SMALL and not depthwise
        coded.append(as_int8(values) if int8 and large else as_float16(values))
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        size = 4 * values.size
        for key, value in (("location", BESIDE), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        offset += size
    return bare, coded


def with_weights(onnx: Any, bare: Any, coded: list[Coded]) -> Any:
    """The model that a page computes with, whole: an `onnx.ModelProto`."""
    model = onnx.ModelProto()
    model.CopyFrom(bare)
    outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor, part in zip(outside, coded, strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(part.values(), tensor.name))
    return model


def as_text(data: bytes) -> str:
    """Bytes as text for a script element: 7 bits a letter, a sixth more than there were, where
    base64 adds a third.

    The three letters that HTML would change are written as letters of two bytes.

    >>> as_text(bytes([255, 0]))
    '\\x7f@Ā'
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    whole = np.concatenate([bits, np.zeros(-len(bits) % 7, np.uint8)])
    letters = np.packbits(whole.reshape(-1, 7), axis=1)[:, 0] >> 1
    return letters.tobytes().decode("ascii").translate(ESCAPED)


def packed(data: bytes) -> bytes:
    """Gzipped, the same bytes for the same data."""
    return gzip.compress(data, 9, mtime=0)
