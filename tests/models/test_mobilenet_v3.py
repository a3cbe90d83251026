"""MobileNetV3 against torchvision's, number by number."""

import functools

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import _make_divisible

from foveate.models import mobilenet_v3
from foveate.models.mobilenet_v3 import Bneck, SqueezeExcitation, activation, quarter

COUNTS = {"mobilenet_v3_small": 2_542_856, "mobilenet_v3_large": 5_483_032}


def torchvision_network(name: str, **options: float) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None, **options)


@functools.cache
def meta_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """Torchvision's network and ours without memory for their numbers. To be read only."""
    with torch.device("meta"):
        return torchvision_network(name).eval(), getattr(mobilenet_v3, name)().eval()


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


def assert_equal_logits(theirs: nn.Module, ours: nn.Module, height: int, width: int) -> None:
    """In evaluation, with the same numbers in both, for one image and for three; head(embed(x)) is
    forward(x)."""
    x = torch.randn(3, 3, height, width)
    settle(theirs, x)
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    with torch.no_grad():
        for images in (x, x[:1], torch.randn(1, 3, 32, 32)):
            expected, found = theirs(images), ours(images)
            assert expected.isfinite().all() and expected.std() > 0
            assert torch.equal(found, expected)
            assert torch.equal(ours.head(ours.embed(images)), found)


def assert_equal_gradients(theirs: nn.Module, ours: nn.Module, shape: tuple[int, ...]) -> None:
    """In training, with the same numbers in both: gradients and batch-norm statistics after one
    step."""
    theirs, ours = theirs.double().train(), ours.double().train()
    ours.load_state_dict(theirs.state_dict())
    x, labels = torch.randn(shape, dtype=torch.float64), torch.arange(shape[0])
    for network in (theirs, ours):
        nn.functional.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(
            q.grad, p.grad, rtol=1e-9, atol=1e-12 * float(p.grad.abs().max()) + 1e-15, msg=name
        )
    for (name, p), (_, q) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
        torch.testing.assert_close(q, p, msg=name)


def multiply_adds(network: nn.Module, side: int) -> int:
    """Of the convolutions and linear layers, for one image; the network has no memory for its
    numbers."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output[0, 0].numel()

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    network(torch.zeros(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def assert_stages_are_kept(network: nn.Module, ends: list[str], x: Tensor) -> None:
    """What stages() returns is what these submodules returned: nothing later has written over
    it."""
    copies = []
    hooks = [
        network.get_submodule(end).register_forward_hook(
            lambda m, inputs, output: copies.append(output.clone())
        )
        for end in ends
    ]
    maps = network.stages(x)
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(copies) == len(ends)
    for found, expected in zip(maps, copies, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", COUNTS)
def test_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    theirs, ours = meta_twin(name)
    expected = [(k, t.shape) for k, t in theirs.state_dict().items()]
    assert [(k, t.shape) for k, t in ours.state_dict().items()] == expected


# Millions, the paper's Table 3 and (multiply-adds of small) torchvision's count.
@pytest.mark.parametrize(
    ("name", "parameters", "work"),
    [("mobilenet_v3_small", 2.5, 57), ("mobilenet_v3_large", 5.4, 217)],
)
def test_parameters_and_multiply_adds(name: str, parameters: float, work: float) -> None:
    _, ours = meta_twin(name)
    count = sum(p.numel() for p in ours.parameters())
    assert count == COUNTS[name]
    assert count / 1e6 == pytest.approx(parameters, abs=0.1)
    assert multiply_adds(ours, 224) / 1e6 == pytest.approx(work, abs=0.5)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(("height", "width"), [(96, 64), (65, 97)])
def test_torchvisions_logits(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    assert_equal_logits(torchvision_network(name), getattr(mobilenet_v3, name)(), height, width)


@pytest.mark.parametrize("name", COUNTS)
def test_torchvisions_gradients(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = torchvision_network(name, dropout=0.0), getattr(mobilenet_v3, name)()
    ours.classifier[2].p = 0.0
    assert_equal_gradients(theirs, ours, (3, 3, 64, 80))


@pytest.mark.parametrize("name", COUNTS)
def test_torchvisions_initial_numbers(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision_network(name).state_dict()
    torch.manual_seed(0)
    ours = getattr(mobilenet_v3, name)().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_d1_the_last_convolution_is_not_weighed() -> None:
    _, ours = meta_twin("mobilenet_v3_small")
    assert [type(m) for m in ours.features[-1]] == [nn.Conv2d, nn.BatchNorm2d, nn.Hardswish]
    assert ours.features[-1][0].weight.shape == (576, 96, 1, 1)


def test_d2_squeezed_to_a_quarter_in_eights() -> None:
    wide = {
        row.expanded
        for table in (mobilenet_v3.TABLE_1, mobilenet_v3.TABLE_2)
        for stage in table
        for row in stage
    }
    for channels in wide | set(range(8, 1000, 4)):
        assert quarter(channels) % 8 == 0
        assert quarter(channels) >= 0.9 * (channels // 4)
        assert quarter(channels) == _make_divisible(channels // 4, 8)
    assert quarter(120) == 32 != 120 // 4


@pytest.mark.parametrize("name", COUNTS)
def test_d3_the_last_layers_are_the_papers_1x1_convolutions(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(mobilenet_v3, name)(num_classes=7).eval()
    x, (first, last) = torch.randn(2, 3, 64, 96), (network.classifier[0], network.classifier[3])
    with torch.no_grad():
        y = network.stages(x)[-1].mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        y = nn.functional.hardswish(
            nn.functional.conv2d(y, first.weight[:, :, None, None], first.bias)
        )
        y = nn.functional.conv2d(y, last.weight[:, :, None, None], last.bias)
        torch.testing.assert_close(network(x), y[:, :, 0, 0])


@pytest.mark.parametrize(
    ("name", "unexpanded"), [("mobilenet_v3_small", [0]), ("mobilenet_v3_large", [0])]
)
def test_d4_a_block_that_does_not_widen_does_not_expand(name: str, unexpanded: list[int]) -> None:
    _, ours = meta_twin(name)
    blocks = [m for m in ours.modules() if isinstance(m, Bneck)]
    first = [
        next(m for m in block.modules() if isinstance(m, nn.Conv2d)).kernel_size[0]
        for block in blocks
    ]
    assert [i for i, kernel in enumerate(first) if kernel != 1] == unexpanded


@pytest.mark.parametrize("name", COUNTS)
def test_dropout_and_decay_of_the_paper(name: str) -> None:
    theirs, ours = meta_twin(name)
    assert ours.classifier[2].p == theirs.classifier[2].p == pytest.approx(1 - 0.8)
    norms = [
        {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
        for net in (theirs, ours)
    ]
    assert norms[0] == norms[1] == {(1e-3, 0.01)}


def test_h_swish_and_squeeze_and_excitation_by_hand() -> None:
    x = torch.randn(2, 24, 4, 5, dtype=torch.float64) * 3
    v = x.numpy()
    np.testing.assert_allclose(
        activation("HS")(x.clone()).numpy(), v * np.clip(v + 3, 0, 6) / 6, atol=1e-12
    )
    np.testing.assert_allclose(activation("RE")(x.clone()).numpy(), np.maximum(v, 0))
    layer = SqueezeExcitation(24).double()
    w1, w2 = (m.weight[:, :, 0, 0].detach().numpy() for m in (layer.fc1, layer.fc2))
    b1, b2 = (m.bias.detach().numpy() for m in (layer.fc1, layer.fc2))
    squeezed = np.maximum(v.mean(axis=(2, 3)) @ w1.T + b1, 0)
    weight = np.clip(squeezed @ w2.T + b2 + 3, 0, 6) / 6
    np.testing.assert_allclose(layer(x).detach().numpy(), v * weight[:, :, None, None], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mobilenet_v3_large",
            [(16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (160, 7), (960, 7)],
        ),
        ("mobilenet_v3_small", [(16, 56), (24, 28), (40, 14), (48, 14), (96, 7), (576, 7)]),
    ],
)
def test_tables_1_and_2(name: str, expected: list[tuple[int, int]]) -> None:
    _, ours = meta_twin(name)
    x = torch.zeros(2, 3, ours.input_size, ours.input_size, device="meta")
    assert [tuple(m.shape) for m in ours.stages(x)] == [(2, c, side, side) for c, side in expected]
    assert ours.embed(x).shape == (2, 1280 if "large" in name else 1024)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("mobilenet_v3_large", (1, 3, 6, 10, 12, 15, 16)),
        ("mobilenet_v3_small", (1, 3, 6, 8, 11, 12)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_stages_are_not_written_over(name: str, ends: tuple[int, ...], training: bool) -> None:
    network = getattr(mobilenet_v3, name)(num_classes=5).train(training)
    assert_stages_are_kept(network, [f"features.{i}" for i in ends], torch.randn(2, 3, 64, 48))


@pytest.mark.parametrize("name", COUNTS)
def test_one_pixel_is_enough(name: str) -> None:
    network = getattr(mobilenet_v3, name)(num_classes=5).eval()
    assert network.min_size == 1
    assert network(torch.randn(1, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize("name", COUNTS)
def test_d5_depthwise_convolutions_start_narrow_for_torchs_fan_out_forgets_the_groups(
    name: str,
) -> None:
    """The authors' code draws all weights alike, with 0.09."""
    torch.manual_seed(0)
    network = getattr(mobilenet_v3, name)()
    widths = set()
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            rule = (2 / (m.weight[0, 0].numel() * m.out_channels / m.groups)) ** 0.5
            found = float(m.weight.detach().std())
            near = 6 / m.weight.numel() ** 0.5
            assert found * m.groups**0.5 == pytest.approx(rule, rel=near)
            widths.add(round(found, 2))
    assert len(widths) > 3  # not alike
