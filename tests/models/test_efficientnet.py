"""EfficientNet against torchvision's."""

import functools
import math

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from foveate import models
from foveate.models.efficientnet import (
    VARIANTS,
    MBConv,
    SqueezeExcitation,
    StochasticDepth,
    compound_scaling,
    scale_depth,
    scale_width,
)
from foveate.models.efficientnet_lite import ConvSame

B = [f"efficientnet_b{i}" for i in range(8)]


def torchvision_network(name: str, **options: float) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None, **options)


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return torchvision_network(name), models.build(name)


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


@pytest.mark.parametrize("name", B)
def test_b_has_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    theirs, ours = meta_twin(name)
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == [
        (k, t.shape) for k, t in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("name", B)
def test_b_drops_as_torchvision_does(name: str) -> None:
    theirs, ours = meta_twin(name)
    expected = [m.p for m in theirs.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
    assert [m.p for m in ours.modules() if isinstance(m, StochasticDepth)] == pytest.approx(
        expected
    )
    assert ours.classifier[0].p == theirs.classifier[0].p


@pytest.mark.parametrize("name", B)
def test_b_gives_torchvisions_logits(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 96, 64)
    theirs = settle(torchvision_network(name), x)
    ours = models.build(name)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected, found = theirs(x), ours.eval()(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_b0_gives_torchvisions_gradients() -> None:
    torch.manual_seed(0)
    theirs = (
        torchvision_network("efficientnet_b0", dropout=0.0, stochastic_depth_prob=0.0)
        .double()
        .train()
    )
    ours = models.build("efficientnet_b0").double().train()
    ours.load_state_dict(theirs.state_dict())
    ours.classifier[0].p = 0.0
    for m in ours.modules():
        if isinstance(m, StochasticDepth):
            m.p = 0.0
    x, labels = torch.randn(3, 3, 64, 96, dtype=torch.float64), torch.tensor([1, 10, 999])
    for network in (theirs, ours):
        nn.functional.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(
            q.grad, p.grad, rtol=1e-6, atol=1e-9 * float(p.grad.abs().max()) + 1e-12, msg=name
        )
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        torch.testing.assert_close(q, p, msg=name)  # the batch-norm statistics have moved alike


@pytest.mark.parametrize(("phi", "name"), [(0.5, B[1]), (1, B[2]), (2, B[3])])
def test_compound_scaling_gives_the_published_b1_to_b3(phi: float, name: str) -> None:
    v = VARIANTS[name]
    assert compound_scaling(phi) == (v.width, v.depth, v.resolution)


def test_compound_scaling_starts_at_b0() -> None:
    assert compound_scaling(0)[:2] == (1.0, 1.0)


@pytest.mark.parametrize(("phi", "name"), [(3, B[4]), (4, B[5]), (5, B[6]), (6, B[7])])
def test_d1_the_published_b4_to_b7_depart_from_the_rule(phi: float, name: str) -> None:
    v = VARIANTS[name]
    width, depth, resolution = compound_scaling(phi)
    assert (width, depth, resolution) != (v.width, v.depth, v.resolution)
    # by little in width and depth, and always towards smaller images at the top
    assert v.width == pytest.approx(width, rel=0.15) and v.depth == pytest.approx(depth, rel=0.15)
    # torchvision publishes the scales we hold
    theirs, ours = meta_twin(name)
    assert [len(stage) for stage in ours.features[1:8]] == [
        len(stage) for stage in theirs.features[1:8]
    ]


@pytest.mark.parametrize("name", B)
def test_d2_b_pads_evenly(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert not any(isinstance(m, ConvSame) for m in convs)
    assert all(m.padding == (m.kernel_size[0] // 2,) * 2 for m in convs)


def test_d2_even_padding_differs_from_tensorflows() -> None:
    same, even = ConvSame(1, 1, 3, 2, bias=False), nn.Conv2d(1, 1, 3, 2, padding=1, bias=False)
    even.load_state_dict(same.state_dict())
    x = torch.randn(1, 1, 8, 8)
    assert same(x).shape == even(x).shape
    assert not torch.allclose(same(x), even(x))
    # at odd sizes the two agree
    torch.testing.assert_close(same(x[..., :7, :7]), even(x[..., :7, :7]))


@pytest.mark.parametrize("name", B)
def test_d3_batchnorm_is_torchvisions(name: str) -> None:
    theirs, ours = meta_twin(name)
    expected = {(m.eps, m.momentum) for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)}
    assert {
        (m.eps, m.momentum) for m in ours.modules() if isinstance(m, nn.BatchNorm2d)
    } == expected
    assert expected == ({(1e-5, 0.1)} if name < B[5] else {(1e-3, 0.01)})


@pytest.mark.parametrize("name", [B[0], B[7]])
def test_only_blocks_that_keep_their_shape_add_their_input(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name)
    for stage in network.features[1:8]:
        adds = [block.adds for block in stage]
        assert all(isinstance(block, MBConv) for block in stage)
        assert adds[1:] == [True] * (len(adds) - 1)


def test_stochastic_depth_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    layer, n, p = StochasticDepth(0.3).train(), 20_000, 0.3
    y = layer(torch.ones(n, 2, 1, 1))
    assert torch.equal(y[:, 0], y[:, 1])  # a sample is dropped whole
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert abs(float(y.mean()) - 1) < 4 * math.sqrt(p / (1 - p) / n)


@pytest.mark.parametrize(("p", "training"), [(0.3, False), (0.0, True), (0.0, False)])
def test_stochastic_depth_is_the_identity(p: float, training: bool) -> None:
    x = torch.randn(4, 2, 3, 3)
    assert StochasticDepth(p).train(training)(x) is x


def test_squeeze_and_excitation_by_hand() -> None:
    layer, x = SqueezeExcitation(3, 2).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    w1, w2 = (m.weight[:, :, 0, 0].detach().numpy() for m in (layer.fc1, layer.fc2))
    b1, b2 = (m.bias.detach().numpy() for m in (layer.fc1, layer.fc2))
    squeezed = x.numpy().mean(axis=(2, 3)) @ w1.T + b1
    weight = 1 / (1 + np.exp(-((squeezed / (1 + np.exp(-squeezed))) @ w2.T + b2)))
    np.testing.assert_allclose(
        layer(x).detach().numpy(), x.numpy() * weight[:, :, None, None], atol=1e-12
    )


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0])
@pytest.mark.parametrize("channels", [3, 16, 24, 32, 40, 80, 112, 192, 320, 1280])
def test_scaled_widths_are_torchvisions(channels: int, factor: float) -> None:
    from torchvision.models._utils import _make_divisible

    assert scale_width(channels, factor) == _make_divisible(channels * factor, 8)


@pytest.mark.parametrize(
    ("layers", "factor", "scaled"), [(1, 1.0, 1), (2, 1.1, 3), (3, 1.4, 5), (4, 3.1, 13)]
)
def test_scaled_depths_round_up(layers: int, factor: float, scaled: int) -> None:
    assert scale_depth(layers, factor) == scaled


@pytest.mark.parametrize("name", B)
def test_images_may_be_a_pixel_or_the_papers_size(name: str) -> None:
    _, ours = meta_twin(name)
    assert ours.input_size == VARIANTS[name].resolution
    assert ours(torch.zeros(2, 3, ours.min_size, ours.min_size, device="meta")).shape == (2, 1000)


def test_stages_are_not_overwritten() -> None:
    torch.manual_seed(0)
    network = models.build(B[0]).eval()
    kept: list[Tensor] = []
    handles = [
        part.register_forward_hook(lambda *call: kept.append(call[2].clone()))
        for part in network.features[1:]
    ]
    with torch.no_grad():
        maps = network.stages(torch.randn(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    assert len(maps) == len(kept) == 8 and all(map(torch.equal, maps, kept))


def test_d4_depthwise_convolutions_start_narrow_for_torchs_fan_out_forgets_the_groups() -> None:
    """As torchvision's; the authors' kernels have one output per channel, so a fan-out of k^2."""
    torch.manual_seed(0)
    theirs = torchvision.models.efficientnet_b0(weights=None).state_dict()
    torch.manual_seed(0)
    ours = models.efficientnet_b0()
    for m in ours.modules():
        if isinstance(m, nn.Conv2d) and m.groups > 1:
            authors = (2 / m.weight[0, 0].numel()) ** 0.5
            found = float(m.weight.detach().std()) * m.groups**0.5
            assert found == pytest.approx(authors, rel=6 / m.weight.numel() ** 0.5)
    drawn = [float(w.std()) for w in (ours.state_dict()[k] for k in theirs) if w.ndim > 1]
    assert drawn == pytest.approx([float(w.std()) for w in theirs.values() if w.ndim > 1], rel=0.15)
