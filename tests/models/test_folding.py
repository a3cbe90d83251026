"""Folding frozen batch-norms changes nothing but the time: outputs, gradients and steps are those
of the network, in training and for export."""

import copy

import pytest
import torch
from torch import Tensor, nn

from foveate.models import build
from foveate.models.folding import FoldedConv2d, adjacent, fold_batchnorm, folded
from foveate.probe import Probe

NETWORKS = (
    "resnet18 densenet121 googlenet mobilenet_v3_small shufflenet_v2_x0_5 efficientnet_lite0 "
    "vgg11_bn"
).split()


def drawn(network: nn.Module) -> nn.Module:
    """With statistics and affine numbers that are not 0 and 1."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def joined(network: nn.Module) -> int:
    return sum(isinstance(m, FoldedConv2d) for m in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_the_networks(name: str) -> None:
    network = drawn(build(name, num_classes=5))
    # whose convolutions have biases; a hundred million numbers behind them add nothing
    if name == "vgg11_bn":
        network.classifier = nn.Sequential(*6 * [nn.Identity()], nn.Linear(512 * 7 * 7, 5))
    network.eval().double()
    side = max(64, network.min_size)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    network.float()
    twin = folded(network, (3, side, side))
    assert joined(twin) > 0 and twin is not network
    assert {id(p) for p in twin.parameters()} == {id(p) for p in network.parameters()}
    network.double(), twin.double()
    gradients: list[dict[int, Tensor]] = []
    outputs = []
    for module in (network, twin):
        network.zero_grad()
        outputs.append(module(x))
        outputs[-1].square().sum().backward()
        gradients.append(
            {id(p): p.grad.clone() for p in network.parameters() if p.grad is not None}
        )
    torch.testing.assert_close(outputs[1], outputs[0])
    assert gradients[0].keys() == gradients[1].keys()
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient)
    after = network.state_dict()
    assert all(torch.equal(after[n].float(), t.float()) for n, t in before.items())


def test_norms_that_take_statistics_stay() -> None:
    network = drawn(build("resnet18"))
    assert folded(network.train(), (3, 64, 64)) is network
    network.layer1.eval()
    statistics = copy.deepcopy(network.state_dict())
    twin = folded(network, (3, 64, 64))
    assert joined(twin) == 4
    assert [m.training for m in twin.modules() if isinstance(m, nn.BatchNorm2d)].count(True) == 16
    assert all(torch.equal(t, statistics[n]) for n, t in network.state_dict().items())


def test_a_probe_is_folded_too() -> None:
    probe = Probe(drawn(build("resnet18")), 1856, 3).eval()
    twin = folded(probe, (3, 64, 64))
    assert joined(twin) == 20
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(twin(x), probe(x), rtol=1e-4, atol=1e-4)


class Twice(nn.Module):
    """Something else reads what the convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


def test_a_map_that_two_read_is_left_alone() -> None:
    network = drawn(Twice()).eval()
    assert folded(network, (3, 8, 8)) is network
    before = {name: id(t) for name, t in network.state_dict(keep_vars=True).items()}
    fold_batchnorm(network, torch.randn(2, 3, 8, 8))
    assert {name: id(t) for name, t in network.state_dict(keep_vars=True).items()} == before
    assert type(network.norm) is nn.BatchNorm2d and network.conv.weight.requires_grad


class Shared(nn.Module):
    """Pairs by their tensors that are none: a layer that runs twice, and one that writes into what
    the batch-norm then reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(3))
        self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(x)) + self.second(self.conv(x))
        return self.last(self.other(x))


def test_only_layers_that_run_once_and_are_read_as_they_are_make_a_pair() -> None:
    network, x = drawn(Shared()).eval(), torch.randn(2, 3, 4, 4)
    expected, pairs = adjacent(network, x)
    assert pairs == [("last.0", "last.1")]
    assert torch.equal(expected, network(x))
    assert joined(folded(network, (3, 4, 4))) == 1
    fold_batchnorm(network, x)
    assert [type(m) for m in (network.first, network.other[2], network.last[1])] == [
        nn.BatchNorm2d,
        nn.BatchNorm2d,
        nn.Identity,
    ]
    torch.testing.assert_close(network(x), expected)


def test_norms_in_training_are_not_multiplied_in() -> None:
    network = drawn(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))).train()
    fold_batchnorm(network, torch.randn(2, 3, 4, 4))
    assert type(network[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_multiplied_in_give_the_same_outputs(name: str) -> None:
    with torch.device("meta"):
        fewer = build(name, num_classes=5)
    side = max(64, fewer.min_size)
    network = build(name, num_classes=5) if name != "vgg11_bn" else build(name, 5).features
    network, x = drawn(network).eval(), torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = network(x)
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        fold_batchnorm(network, x)
        torch.testing.assert_close(
            network(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    left = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    # those behind a concatenation, and those of the auxiliary classifiers, which do not run
    assert left == {"densenet121": 62, "googlenet": 2}.get(name, 0) < norms


@pytest.mark.parametrize("bias", [True, False])
def test_by_hand(bias: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d(4), nn.ReLU()
    )
    drawn(network).eval()
    twin = folded(network, (3, 9, 9))
    x = torch.randn(2, 3, 9, 9)
    assert isinstance(twin[0], FoldedConv2d) and isinstance(twin[1], nn.Identity)
    torch.testing.assert_close(twin(x), network(x))
    with torch.no_grad():
        network[1].weight *= 2
    torch.testing.assert_close(twin(x), network(x))  # the very same tensors
