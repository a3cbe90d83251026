"""EfficientNet-Lite against timm's, which carries the published weights."""

import functools

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from foveate import models
from foveate.models.efficientnet import SqueezeExcitation
from foveate.models.efficientnet_lite import ConvSame, MBConv

LITE = [f"efficientnet_lite{i}" for i in range(5)]


@functools.cache
def meta_twin(name: str) -> nn.Module:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return models.build(name)


def settle(network: nn.Module, x: Tensor) -> nn.Module:
    """Set batch-norm statistics from one batch, so that nothing overflows or dies out; then
    evaluate."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def by_order(source: nn.Module, target: nn.Module) -> dict[str, Tensor]:
    """The source's tensors under the target's names; both list them in the order of the network."""
    theirs, ours = source.state_dict(), target.state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in ours.values()]
    return dict(zip(ours, theirs.values(), strict=True))


@pytest.mark.parametrize("name", LITE)
@pytest.mark.parametrize("shape", [(64, 64), (97, 70)])
def test_lite_is_timms_exactly(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *shape)
    theirs = settle(timm.create_model(f"tf_{name}", pretrained=False), x)
    ours = models.build(name)
    ours.load_state_dict(by_order(theirs, ours))
    with torch.no_grad():
        expected, found = theirs(x), ours.eval()(x)
    assert expected.std() > 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", LITE)
def test_lite_differs_as_its_authors_say(name: str) -> None:
    network = meta_twin(name)
    parts = list(network.modules())
    assert not any(isinstance(m, (SqueezeExcitation, nn.SiLU)) for m in parts)
    assert any(isinstance(m, nn.ReLU6) for m in parts)
    assert network.features[0][0].out_channels == 32 and network.features[8][0].out_channels == 1280
    assert len(network.features[1]) == len(network.features[7]) == 1
    assert {m.eps for m in parts if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert all(
        isinstance(m, ConvSame) for m in parts if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    )


@pytest.mark.parametrize("name", LITE)
def test_d1_batchnorms_momentum_is_torchs(name: str) -> None:
    assert {m.momentum for m in meta_twin(name).modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize(("name", "side"), list(zip(LITE, (224, 240, 260, 280, 300), strict=True)))
def test_the_rest_of_the_authors_table(name: str, side: int) -> None:
    ours = meta_twin(name)
    assert (ours.input_size, ours.min_size) == (side, 1)
    assert ours.classifier[0].p == (0.2 if side < 260 else 0.3)
    drops = [m.stochastic_depth.p for m in ours.modules() if isinstance(m, MBConv)]
    assert drops == pytest.approx([0.2 * i / len(drops) for i in range(len(drops))])


@pytest.mark.parametrize("name", [LITE[0], LITE[4]])
def test_only_blocks_that_keep_their_shape_add_their_input(name: str) -> None:
    for stage in meta_twin(name).features[1:8]:
        adds = [block.adds for block in stage]
        assert all(isinstance(block, MBConv) for block in stage)
        assert adds[1:] == [True] * (len(adds) - 1)


def test_a_pixel_is_enough() -> None:
    assert meta_twin(LITE[0])(torch.zeros(2, 3, 1, 1, device="meta")).shape == (2, 1000)


def convolve_same(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's documented SAME arithmetic, one output pixel at a time."""
    (h, w), k = x.shape, len(kernel)
    out = np.zeros((-(-h // stride), -(-w // stride)))
    above = max((out.shape[0] - 1) * stride + k - h, 0) // 2
    left = max((out.shape[1] - 1) * stride + k - w, 0) // 2
    for i, j in np.ndindex(out.shape):
        for a, b in np.ndindex(k, k):
            y, z = i * stride + a - above, j * stride + b - left
            if 0 <= y < h and 0 <= z < w:
                out[i, j] += x[y, z] * kernel[a, b]
    return out


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(8, 8), (7, 8), (9, 5), (1, 2)])
def test_conv_same_is_tensorflows_arithmetic(
    kernel: int, stride: int, shape: tuple[int, int]
) -> None:
    conv = ConvSame(1, 1, kernel, stride, bias=False).double()
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    expected = convolve_same(x[0, 0].numpy(), conv.weight[0, 0].detach().numpy(), stride)
    np.testing.assert_allclose(conv(x)[0, 0].detach().numpy(), expected, atol=1e-12)


def test_d2_depthwise_convolutions_start_as_narrow_as_efficientnets() -> None:
    torch.manual_seed(0)
    for m in models.efficientnet_lite0().modules():
        if isinstance(m, nn.Conv2d) and m.groups > 1:
            authors = (2 / m.weight[0, 0].numel()) ** 0.5
            found = float(m.weight.detach().std()) * m.groups**0.5
            assert found == pytest.approx(authors, rel=6 / m.weight.numel() ** 0.5)
