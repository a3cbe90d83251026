"""R16: the exported graph gives the network's logits, for every family with its head."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import OpenVinoEngine
from foveate.models import MODELS, build

FAMILIES = (
    "lenet5 lenet5_1998 alexnet vgg11_bn nin_cifar googlenet inception_v3 resnet18 resnet20 "
    "plain20 squeezenet1_1 densenet121 mobilenet_v1_x0_25 mobilenet_v2 mobilenet_v3_small "
    "shufflenet_v1_g8 shufflenet_v2_x0_5 efficientnet_b0 efficientnet_lite0"
).split()


def test_no_paper_is_forgotten() -> None:
    assert {MODELS[name].__module__ for name in FAMILIES} == {
        builder.__module__ for builder in MODELS.values()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_r16_the_graph_says_what_the_network_says(name: str) -> None:
    """In f32, for batches of 1, 3 and 8: a channel shuffle must not fix the export's batch."""
    torch.manual_seed(0)
    with torch.device("meta"):
        meta_twin: Any = build(name)
    side = (
        meta_twin.input_size
        if meta_twin.min_size == meta_twin.input_size
        else max(64, meta_twin.min_size)
    )
    channels = next(m.in_channels for m in meta_twin.modules() if isinstance(m, nn.Conv2d))
    preprocess = Preprocess(
        side, side, channels=channels, mean=(0.4,) * channels, std=(0.2,) * channels
    )
    network: Any = build(name, num_classes=5)
    pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, channels), np.uint8)
    x = torch.from_numpy(preprocess.normalise(pixels))
    with torch.no_grad():
        network.train()(x)  # statistics that fit, so that nothing dies out
        expected = network.eval()(x).numpy()
    graph = to_graph(network, preprocess)
    for n in (1, 3, 8):
        found = np.concatenate(list(OpenVinoEngine(graph.clone(), 2, "f32", n).run([pixels[:n]])))
        gap = np.abs(found - expected[:n]).max() / max(1.0, float(np.abs(expected).max()))
        assert gap < 2e-3, f"{name}, {n} images: {gap:.2g}"
