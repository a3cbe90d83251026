"""Network in Network against its definition: pooling written out, and a perceptron that reads one
patch at a time."""

import functools

import pytest
import torch
from refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.nin import NiN, nin, nin_cifar

BUILDERS = {"nin": nin, "nin_cifar": nin_cifar}


@functools.cache
def meta_twin(name: str) -> NiN:
    """The network without memory for its numbers. To be read only."""
    with torch.device("meta"):
        return BUILDERS[name]().eval()


@functools.cache
def drawn(name: str) -> NiN:
    """The network with random weights. To be read only."""
    torch.manual_seed(0)
    return BUILDERS[name]().eval()


def overhanging(x: Tensor, beyond: float) -> Tensor:
    """All 3x3 windows at stride 2 that start inside; what hangs over is `beyond`.    (N, C, H', W',
    9)"""
    (h, w), (n, c) = x.shape[2:], x.shape[:2]
    down, right = (-(-(s - 3) // 2) * 2 + 3 for s in (h, w))
    x = F.pad(x, (0, right - w, 0, down - h), value=beyond)
    return x.unfold(2, 3, 2).unfold(3, 3, 2).reshape(n, c, (down - 1) // 2, (right - 1) // 2, 9)


def max_pool(x: Tensor) -> Tensor:
    return overhanging(x, -torch.inf).amax(dim=-1)


def mean_pool(x: Tensor) -> Tensor:
    """The mean over those pixels of the window that exist."""
    return overhanging(x, 0.0).sum(dim=-1) / overhanging(torch.ones_like(x), 0.0).sum(dim=-1)


def written_out(name: str, network: NiN, x: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, the map that the head reads), from the parameters in their order."""
    tensors = iter(network.parameters())

    def mlpconv(x: Tensor, layers: int, stride: int, padding: int) -> Tensor:
        x = F.conv2d(x, next(tensors), next(tensors), stride, padding).relu()
        for _ in range(layers - 1):
            x = F.conv2d(x, next(tensors), next(tensors)).relu()
        return x

    if name == "nin":
        x = max_pool(mlpconv(x, 3, 4, 0))
        x = max_pool(mlpconv(x, 3, 1, 2))
        x = max_pool(mlpconv(x, 3, 1, 1))
    else:
        x = max_pool(mlpconv(x, 3, 1, 2))
        x = mean_pool(mlpconv(x, 3, 1, 2))
    x = mlpconv(x, 2, 1, 1)
    return F.conv2d(x, next(tensors), next(tensors)).relu().mean(dim=(2, 3)), x


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("nin", (1, 3, 39, 39)),
        ("nin", (2, 3, 64, 90)),
        ("nin_cifar", (2, 3, 32, 32)),
        ("nin_cifar", (3, 3, 17, 30)),
        ("nin_cifar", (1, 3, 4, 4)),
    ],
)
def test_it_is_its_definition(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x, network = torch.randn(shape), drawn(name)
    with torch.no_grad():
        expected, last = written_out(name, network, x)
        torch.testing.assert_close(network(x), expected)
        torch.testing.assert_close(network.stages(x)[-1], last)
    assert expected.std() > 0


def test_an_mlpconv_is_a_perceptron_that_looks_at_each_patch() -> None:
    torch.manual_seed(1)
    layer = drawn("nin_cifar").mlpconv[0]
    convs = [m for m in layer if isinstance(m, nn.Conv2d)]
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found = layer[:-1](x)[0, :, 10, 20]
        hidden = x[0, :, 8:13, 18:23].flatten()
        for conv in convs:
            hidden = F.linear(hidden, conv.weight.flatten(1), conv.bias).relu()
    torch.testing.assert_close(found, hidden)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_head_reads_the_last_map(name: str) -> None:
    torch.manual_seed(1)
    x, network = torch.randn(2, 3, 48, 64), drawn(name)
    with torch.no_grad():
        last = network.stages(x)[-1]
        assert torch.equal(network.embed(x), last.mean(dim=(2, 3)))
        assert torch.equal(network(x), network.head(last).relu().mean(dim=(2, 3)))
        assert (network(x) >= 0).all()
    assert isinstance(network.head, nn.Conv2d) and network.head.kernel_size == (1, 1)
    assert any(child is network.head for child in network.modules())


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("nin", [(96, 27, 27), (256, 13, 13), (384, 6, 6), (1024, 6, 6)]),
        ("nin_cifar", [(96, 16, 16), (192, 8, 8), (192, 8, 8)]),
    ],
)
def test_stages(name: str, stages: list[tuple[int, int, int]]) -> None:
    network = meta_twin(name)
    x = torch.zeros(2, 3, network.input_size, network.input_size, device="meta")
    assert [tuple(m.shape[1:]) for m in network.stages(x)] == stages
    assert network.embed(x).shape == (2, stages[-1][0])


@pytest.mark.parametrize(
    ("name", "n", "classes"), [("nin", 7_595_176, 1000), ("nin_cifar", 966_986, 10)]
)
def test_parameters(name: str, n: int, classes: int) -> None:
    assert sum(p.numel() for p in meta_twin(name).parameters()) == n
    assert f"{n:,} parameters at {classes} classes" in (BUILDERS[name].__doc__ or "")


def test_d1_widths_and_kernels_for_cifar() -> None:
    convs = [m for m in meta_twin("nin_cifar").modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [192, 160, 96, 192, 192, 192, 192, 192, 10]
    assert [m.kernel_size[0] for m in convs] == [5, 1, 1, 5, 1, 1, 3, 1, 1]


def test_d2_four_layers_and_one_dropout_for_imagenet() -> None:
    imagenet, cifar = meta_twin("nin"), meta_twin("nin_cifar")
    assert (len(imagenet.mlpconv), len(cifar.mlpconv)) == (4, 3)
    drops = [[isinstance(m, nn.Dropout) for m in layer] for layer in imagenet.mlpconv]
    assert [sum(layer) for layer in drops] == [0, 0, 0, 1] and drops[3][0]
    drops = [[isinstance(m, nn.Dropout) for m in layer] for layer in cifar.mlpconv]
    assert [sum(layer) for layer in drops] == [0, 1, 1] and drops[1][0] and drops[2][0]
    convs = [m for m in imagenet.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [96] * 3 + [256] * 3 + [384] * 3 + [1024, 1024, 1000]


def test_d3_windows_reach_over_the_border() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    maximum, mean = (meta_twin("nin_cifar").mlpconv[i][-1] for i in range(2))
    assert (type(maximum), type(mean)) == (nn.MaxPool2d, nn.AvgPool2d)
    assert maximum(x).flatten().tolist() == [10, 11, 14, 15]
    assert mean(x).flatten().tolist() == [5, 6.5, 11, 12.5]  # of nine, six, six and four pixels
    pools = [type(layer[-1]) for layer in meta_twin("nin").mlpconv]
    assert pools == [nn.MaxPool2d, nn.MaxPool2d, nn.MaxPool2d, nn.ReLU]


@pytest.mark.parametrize("name", BUILDERS)
def test_d4_weights_are_drawn_by_hes_rule(name: str) -> None:
    for m in drawn(name).modules():
        if isinstance(m, nn.Conv2d):
            assert float(m.weight.detach().std()) == pytest.approx(
                (2 / m.weight[0].numel()) ** 0.5, rel=0.1
            )
            assert not m.bias.any()


@pytest.mark.parametrize("name", BUILDERS)
def test_smaller_images_are_refused(name: str) -> None:
    network = meta_twin(name)
    side = network.min_size
    assert (network.input_size, side) == {"nin": (224, 39), "nin_cifar": (32, 4)}[name]
    assert network(torch.zeros(1, 3, side, side + 3, device="meta")).shape == (
        1,
        network.head.out_channels,
    )
    with refused(ValueError, "NiN", f"{side}x{side}", f"{side}x{side - 1}"):
        network(torch.zeros(1, 3, side, side - 1, device="meta"))
    # the limit is the network's, not the message's
    with pytest.raises(RuntimeError, match="too small"):
        network.mlpconv(torch.zeros(1, 3, side - 1, side - 1, device="meta"))


@pytest.mark.parametrize("name", BUILDERS)
def test_a_later_layer_leaves_the_maps_alone(name: str) -> None:
    """In training too: the dropout that opens a layer must not drop from the map before it."""
    torch.manual_seed(1)
    network, x = drawn(name), torch.randn(2, 3, 48, 64)
    network.train()
    try:
        torch.manual_seed(2)
        with torch.no_grad():
            maps = network.stages(x)
        torch.manual_seed(2)
        with torch.no_grad():
            for stage, found in zip(network.mlpconv, maps, strict=True):
                x = stage(x.clone())
                assert torch.equal(found, x)
    finally:
        network.eval()


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = BUILDERS[name](num_classes=5, in_channels=1).train()
    F.cross_entropy(network(torch.randn(3, 1, 48, 64)), torch.tensor([0, 1, 4])).backward()
    assert [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ] == []
