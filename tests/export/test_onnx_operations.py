"""Each operation that is written to ONNX, run by ONNX Runtime beside OpenVINO."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refusals import refused

from foveate.engine.openvino import core, ov
from foveate.errors import ArtefactError, MissingExtraError
from foveate.export.onnx import OPSET, to_onnx

pytest.importorskip("onnx")
ops = ov.opset13
SIDE = 9


def whole(*numbers: int) -> Any:
    return ops.constant(np.array(numbers, np.int64))


def weight(*shape: int) -> Any:
    return ops.constant(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def same(kind: str) -> Callable[[Any], Any]:
    return lambda x: getattr(ops, kind)(x)


def mirrored(x: Any) -> Any:
    """As a probe of mirror images has it: from the last column to the first."""
    width = ops.gather(ops.shape_of(x), whole(3), whole(0))
    width = ops.squeeze(width, whole(0))
    columns = ops.range(ops.subtract(width, np.int64(1)), np.int64(-1), np.int64(-1), "i64")
    return ops.gather(x, columns, whole(3))


def each(x: Any) -> Any:
    """Every image of a batch, by its number; the types are mixed as converters mix them."""
    zero = ops.constant(np.int64(0))
    count = ops.gather(ops.shape_of(x), zero, zero)
    numbers = ops.range(ops.constant(np.int32(0)), count, ops.constant(np.int32(1)), "i32")
    return ops.gather(x, numbers, zero)


def nothing(x: Any) -> Any:
    """0, which depends on the number of images."""
    count = ops.gather(ops.shape_of(x), whole(0), whole(0))
    return ops.subtract(count, count)


ZERO, ONE = [0, 0], [1, 1]
OPERATIONS: dict[str, Callable[[Any], Any]] = {  # of (N, 6, 9, 9)
    **{kind: same(kind) for kind in "abs erf exp hswish hsigmoid negative relu sigmoid".split()},
    **{kind: same(kind) for kind in "sign softplus tanh".split()},
    "add": lambda x: ops.add(x, weight(6, 1, 1)),
    "adaptive to 1": lambda x: ops.adaptive_avg_pool(x, whole(1, 1)),
    "adaptive to 4": lambda x: ops.adaptive_avg_pool(x, whole(4, 3)),
    "adaptive to all": lambda x: ops.adaptive_avg_pool(x, whole(SIDE, SIDE)),
    "average": lambda x: ops.avg_pool(x, [2, 2], ONE, ONE, [3, 3], True),
    "average with borders": lambda x: ops.avg_pool(x, [2, 2], ONE, ONE, [3, 3], False),
    "broadcast": lambda x: ops.broadcast(ops.reduce_mean(x, whole(3), True), ops.shape_of(x)),
    "clamp": lambda x: ops.clamp(x, -0.5, 0.25),
    "concat": lambda x: ops.concat([x, ops.relu(x)], 1),
    "convolution": lambda x: ops.convolution(x, weight(4, 6, 3, 3), [2, 2], ONE, [1, 0], ONE),
    "dilated": lambda x: ops.convolution(x, weight(4, 6, 3, 3), ONE, ZERO, ZERO, [2, 2]),
    "each image": each,
    "elu": lambda x: ops.elu(x, 0.7),
    "gelu": lambda x: ops.gelu(x, "erf"),
    "groups": lambda x: ops.group_convolution(x, weight(3, 4, 2, 3, 3), ONE, ONE, ONE, ONE),
    "local response": lambda x: ops.lrn(x, whole(1), 0.2, 0.75, 2.0, 5),
    "matmul": lambda x: ops.matmul(x, weight(SIDE, SIDE), True, True),
    "max": lambda x: ops.max_pool(x, [2, 2], ONE, ZERO, ZERO, [2, 2], "ceil").output(0),
    "maximum": lambda x: ops.maximum(x, weight(6, 1, 1)),
    "minimum": lambda x: ops.minimum(x, weight(6, 1, 1)),
    "mirrored": mirrored,
    "normalised": lambda x: ops.mvn(x, whole(1, 2, 3), True, 1e-5, "inside_sqrt"),
    "padded": lambda x: ops.pad(x, whole(0, 0, 1, 2), whole(0, 1, 0, 0), "constant", np.float32(3)),
    "reflected": lambda x: ops.pad(x, whole(0, 0, 1, 2), whole(0, 0, 2, 0), "reflect"),
    "power": lambda x: ops.power(ops.abs(x), np.float32(0.75)),
    "prelu": lambda x: ops.prelu(x, weight(6)),
    "reduced": lambda x: ops.reduce_mean(x, whole(2, 3), False),
    "largest": lambda x: ops.reduce_max(x, whole(1), True),
    "least": lambda x: ops.reduce_min(x, whole(1), True),
    "reshape": lambda x: ops.reshape(x, whole(0, 2, 3, -1), True),
    "slice": lambda x: ops.slice(x, whole(2, 1), whole(-1, 8), whole(1, 2), whole(2, 3)),
    "softmax": lambda x: ops.softmax(x, 1),
    "split": lambda x: ops.split(x, np.int64(1), 3).output(1),
    "sqrt": lambda x: ops.sqrt(ops.abs(x)),
    "strided": lambda x: ops.strided_slice(
        x, whole(0, 1, 0, 0), whole(0, 4, 5, 0), whole(1, 1, 2, 1), [1, 0, 1, 1], [1, 0, 0, 1]
    ),
    "strided, an axis less": lambda x: ops.strided_slice(
        x, whole(0, 2), whole(0, 3), whole(1, 1), [1, 0], [1, 0], [], [0, 1]
    ),
    "swish": lambda x: ops.swish(x, np.float32(1.5)),
    "sum": lambda x: ops.reduce_sum(ops.divide(x, np.float32(3)), whole(1), True),
    "transpose": lambda x: ops.transpose(ops.subtract(x, np.float32(1)), whole(0, 2, 3, 1)),
    "unequal parts": lambda x: ops.variadic_split(x, whole(1), whole(2, -1)).output(1),
    "unsqueezed": lambda x: ops.multiply(ops.unsqueeze(x, whole(1)), np.float32(2)),
}


def model_of(operation: Callable[[Any], Any]) -> Any:
    x = ops.parameter([-1, 6, SIDE, SIDE], np.float32, name="x")
    x.output(0).set_names({"x"})
    result = ops.result(operation(x))
    result.output(0).set_names({"y"})
    return ov.Model([result], [x], "one operation")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_it_means_the_same(name: str, n: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(OPERATIONS[name])
    x = np.random.default_rng(0).normal(size=(n, 6, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(model, {}).SerializeToString())
    found = session.run(["y"], {"x": x})[0]
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = compiled({"x": x})[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_the_file_says_what_it_is() -> None:
    written = to_onnx(model_of(OPERATIONS["add"]), {"foveate.classes": '["cat"]'})
    assert written.producer_name == "foveate" and written.opset_import[0].version == OPSET
    assert {p.key: p.value for p in written.metadata_props} == {"foveate.classes": '["cat"]'}
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


@pytest.mark.parametrize(
    ("operation", "names"),
    [
        (lambda x: ops.cumsum(x, ops.constant(np.int64(1))), ["CumSum"]),
        (lambda x: ops.gelu(x, "tanh"), ["Gelu", "tanh"]),
        (lambda x: ops.mvn(x, whole(1), False, 1e-5, "inside_sqrt"), ["MVN"]),
        (lambda x: ops.lrn(x, whole(2), 0.2, 0.75, 2.0, 5), ["LRN", "channels"]),
        (lambda x: ops.pad(x, whole(0, 0, 0, 0), whole(0, 0, 0, 1), "symmetric"), ["symmetric"]),
        (
            lambda x: ops.convolution(x, weight(4, 6, 3, 3), ONE, ZERO, ZERO, ONE, "same_upper"),
            ["Convolution", "same_upper"],
        ),
        (
            lambda x: ops.strided_slice(x, whole(0), whole(0), whole(1), [1], [1], [1], [0], [0]),
            ["StridedSlice", "new axes"],
        ),
        (
            lambda x: ops.transpose(x, ops.add(whole(0, 1, 2, 3), nothing(x))),
            ["Transpose", "computed"],
        ),
    ],
)
def test_what_has_no_counterpart_is_named(operation: Any, names: list[str]) -> None:
    with refused(ArtefactError, "opset", "openvino", *names):
        to_onnx(model_of(operation), {})


def test_a_network_that_no_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.export.onnx.LARGEST", 10)
    with refused(ArtefactError, "openvino", "GB"):
        to_onnx(model_of(OPERATIONS["add"]), {})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with refused(MissingExtraError, "foveate[export]"):
        to_onnx(model_of(OPERATIONS["add"]), {})
