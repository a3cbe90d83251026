"""SqueezeNet against torchvision's and the paper's Table 1."""

import functools

import pytest
import torch
import torchvision
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.squeezenet import TABLE_1, Fire, Row, SqueezeNet, squeezenet1_0, squeezenet1_1

BUILDERS = {"squeezenet1_0": squeezenet1_0, "squeezenet1_1": squeezenet1_1}
NAMES = list(BUILDERS)


@functools.cache
def meta_twin(name: str) -> SqueezeNet:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return BUILDERS[name]().eval()


@functools.cache
def pair(name: str) -> tuple[nn.Module, SqueezeNet]:
    """Torchvision's network, drawn from seed 0, and ours around its tensors. To be read only."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    with torch.device("meta"):
        ours = BUILDERS[name]().eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return theirs, ours


@functools.cache
def drawn(name: str) -> SqueezeNet:
    """The network with random weights. To be read only."""
    torch.manual_seed(0)
    return BUILDERS[name]().eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_torchvisions_tensors_in_torchvisions_order(name: str) -> None:
    theirs, ours = pair(name)[0].state_dict(), meta_twin(name).state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 50, 97), (1, 3, 224, 224)])
@pytest.mark.parametrize("name", NAMES)
def test_it_gives_torchvisions_logits(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    theirs, ours = pair(name)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0
        assert torch.equal(ours(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_torchvisions_gradients(name: str) -> None:
    torch.manual_seed(0)
    theirs = (
        getattr(torchvision.models, name)(weights=None, num_classes=10, dropout=0.0)
        .double()
        .train()
    )
    ours = BUILDERS[name](num_classes=10).double().train()
    ours.load_state_dict(theirs.state_dict())
    ours.classifier[0].p = 0.0
    x, labels = torch.randn(3, 3, 64, 96, dtype=torch.float64), torch.tensor([1, 0, 9])
    for network in (theirs, ours):
        F.cross_entropy(network(x), labels).backward()
    for (name, p), (_, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.any()
        assert torch.equal(q.grad, p.grad), name


@pytest.mark.parametrize("name", NAMES)
def test_it_drops_half_in_training(name: str) -> None:
    assert meta_twin(name).classifier[0].p == pair(name)[0].classifier[0].p == 0.5


def test_a_fire_module_squeezes_and_expands_with_two_kinds_of_filters() -> None:
    torch.manual_seed(1)
    fire, x = Fire(8, Row(squeeze=3, expand1x1=4, expand3x3=5)), torch.randn(2, 8, 6, 7)
    with torch.no_grad():
        squeezed = F.conv2d(x, fire.squeeze.weight, fire.squeeze.bias).relu()
        ones = F.conv2d(squeezed, fire.expand1x1.weight, fire.expand1x1.bias).relu()
        threes = F.conv2d(
            F.pad(squeezed, (1, 1, 1, 1)), fire.expand3x3.weight, fire.expand3x3.bias
        ).relu()
        found = fire(x)
    assert found.shape == (2, 9, 6, 7)
    torch.testing.assert_close(found, torch.cat([ones, threes], dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_the_head_reads_the_last_map(name: str) -> None:
    torch.manual_seed(1)
    x, network = torch.randn(2, 3, 64, 96), drawn(name)
    with torch.no_grad():
        last = network.stages(x)[-1]
        assert torch.equal(network.embed(x), last.mean(dim=(2, 3)))
        assert torch.equal(network(x), network.head(last).relu().mean(dim=(2, 3)))
    assert isinstance(network.head, nn.Conv2d) and network.head.kernel_size == (1, 1)
    assert any(child is network.head for child in network.modules())


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("squeezenet1_0", [(96, 109, 109), (256, 54, 54), (512, 27, 27), (512, 13, 13)]),
        ("squeezenet1_1", [(64, 111, 111), (128, 55, 55), (256, 27, 27), (512, 13, 13)]),
    ],
)
def test_stages(name: str, stages: list[tuple[int, int, int]]) -> None:
    network = meta_twin(name)
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    assert [tuple(m.shape[1:]) for m in network.stages(x)] == stages
    assert network.embed(x).shape == (2, stages[-1][0])


@pytest.mark.parametrize(
    ("name", "n"), [("squeezenet1_0", 1_248_424), ("squeezenet1_1", 1_235_496)]
)
def test_parameters(name: str, n: int) -> None:
    assert sum(p.numel() for p in meta_twin(name).parameters()) == n
    assert f"{n:,} parameters at 1000 classes" in (BUILDERS[name].__doc__ or "")


def test_each_layer_has_the_parameters_of_table_1() -> None:
    network = meta_twin("squeezenet1_0")
    layers = [m for m in network.features if any(True for _ in m.parameters())]
    found = [sum(p.numel() for p in layer.parameters()) for layer in [*layers, network.head]]
    conv1, fires, conv10 = (
        14_208,
        [11_920, 12_432, 45_344, 49_440, 104_880, 111_024, 188_992, 197_184],
        513_000,
    )
    assert found == [conv1, *fires, conv10]


def test_d1_table_1_has_the_maps_of_227_pixels() -> None:
    network = meta_twin("squeezenet1_0")
    assert network.input_size == 224
    sides = [
        [m.shape[-1] for m in network.stages(torch.zeros(1, 3, side, side, device="meta"))]
        for side in (224, 227)
    ]
    assert sides == [[109, 54, 27, 13], [111, 55, 27, 13]]


@pytest.mark.parametrize("name", NAMES)
def test_d2_logits_are_never_negative(name: str) -> None:
    torch.manual_seed(1)
    x, network = torch.randn(2, 3, 64, 64), drawn(name)
    with torch.no_grad():
        assert (network.head(network.stages(x)[-1]) < 0).any()
        assert (network(x) >= 0).all()


def test_d3_the_later_network_starts_smaller_and_pools_earlier() -> None:
    first = [meta_twin(name).features[0] for name in NAMES]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in first] == [
        (96, (7, 7), (2, 2)),
        (64, (3, 3), (2, 2)),
    ]
    pooled = {
        name: [i for i, row in enumerate(TABLE_1[name].fires, start=2) if row.pool]
        for name in NAMES
    }
    assert pooled == {"squeezenet1_0": [4, 8], "squeezenet1_1": [3, 5]}
    macs = {name: multiplications(meta_twin(name)) for name in NAMES}
    assert macs["squeezenet1_0"] / macs["squeezenet1_1"] == pytest.approx(2.3, abs=0.05)


def multiplications(network: SqueezeNet) -> int:
    counts: list[int] = []

    def count(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        counts.append(conv.weight.numel() * output.shape[-2] * output.shape[-1])

    handles = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)
    ]
    network(torch.zeros(1, 3, 224, 224, device="meta"))
    for handle in handles:
        handle.remove()
    return sum(counts)


@pytest.mark.parametrize("name", NAMES)
def test_d4_weights_are_drawn_as_torchvision_does(name: str) -> None:
    network = drawn(name)
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            std = 0.01 if m is network.head else (2 / m.weight[0].numel()) ** 0.5
            assert float(m.weight.detach().std()) == pytest.approx(std, rel=0.1)
            assert m.bias is not None and not m.bias.any()
    for (key, ours), theirs in zip(
        network.named_parameters(),
        getattr(torchvision.models, name)(weights=None).parameters(),
        strict=True,
    ):
        if ours.dim() > 1:
            found, expected = float(ours.detach().abs().max()), float(theirs.detach().abs().max())
            # uniform: a sharp bound; the head's is normal
            assert found == pytest.approx(expected, rel=0.3), key


@pytest.mark.parametrize("name", NAMES)
def test_smaller_images_are_refused(name: str) -> None:
    network = meta_twin(name)
    side = network.min_size
    assert side == {"squeezenet1_0": 21, "squeezenet1_1": 17}[name]
    assert network(torch.zeros(1, 3, side, side + 3, device="meta")).shape == (1, 1000)
    small = torch.zeros(1, 3, side, side - 1, device="meta")
    for method in (network, network.stages, network.embed):
        with refused(ValueError, "SqueezeNet", f"{side}x{side}", f"{side}x{side - 1}"):
            method(small)
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network.features(small)


@pytest.mark.parametrize("name", NAMES)
def test_a_later_layer_leaves_the_maps_alone(name: str) -> None:
    torch.manual_seed(1)
    network, x = drawn(name), torch.randn(2, 3, 48, 64)
    ends = [i - 1 for i, m in enumerate(network.features) if isinstance(m, nn.MaxPool2d)] + [
        len(network.features) - 1
    ]
    with torch.no_grad():
        maps = network.stages(x)
        for end, found in zip(ends, maps, strict=True):
            assert torch.equal(found, network.features[: end + 1](x))


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_channels(name: str) -> None:
    network = BUILDERS[name](num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 1, 32, 40)).shape == (2, 7)
