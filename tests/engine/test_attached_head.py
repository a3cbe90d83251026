"""A head attached to a graph, for batches of every size."""

import numpy as np
import pytest

from foveate.engine.openvino import Branch, OpenVinoEngine, attach_head, ov

SIDE = 8


def pooled() -> "ov.Model":
    """A backbone of one operation: pixels (N, 8, 8, 3) -> their square roots, (N, 192)."""
    ops = ov.opset13
    pixels = ops.parameter([-1, SIDE, SIDE, 3], np.uint8, name="pixels")
    flat = ops.reshape(
        ops.convert(pixels, np.float32), ops.constant(np.array([-1, 3 * SIDE * SIDE])), False
    )
    return ov.Model([ops.result(ops.sqrt(flat))], [pixels], "backbone")


@pytest.mark.parametrize("classes", [2, 4, 10])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 49])
def test_every_image_of_a_batch_has_its_own_logits(classes: int, mirror: bool, batch: int) -> None:
    """A bias added behind a sum along the last axis: OpenVINO mixed up the rows of a batch."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(classes, 3 * SIDE * SIDE)).astype(np.float32)
    bias = rng.normal(scale=5, size=classes).astype(np.float32)
    engine = OpenVinoEngine(
        attach_head([Branch(pooled(), mirror=mirror)], weight, bias), 2, "f32", batch
    )
    for n in (1, 2, 3, 4, 7, 10, 1):
        pixels = rng.integers(0, 256, (n, SIDE, SIDE, 3)).astype(np.uint8)
        looks = [pixels, pixels[:, :, ::-1]] if mirror else [pixels]
        features = np.mean(
            [np.sqrt(look.reshape(n, -1).astype(np.float32)) for look in looks], axis=0
        )
        found = np.concatenate(list(engine.run(pixels[i : i + batch] for i in range(0, n, batch))))
        np.testing.assert_allclose(found, features @ weight.T + bias, rtol=1e-4, atol=1e-2)
