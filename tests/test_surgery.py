"""Surgery on any network's ends."""

import copy
import functools

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from foveate import models
from foveate.models import MODELS
from foveate.models.surgery import drop_head, last_layers, replace_head, set_in_channels

SMALL = (
    "lenet5 alexnet nin_cifar vgg11_bn googlenet inception_v3 resnet18 resnet20 squeezenet1_1 "
    "densenet_bc_100_12 mobilenet_v1_x0_25 mobilenet_v2 mobilenet_v3_small shufflenet_v1 "
    "shufflenet_v2_x0_5 efficientnet_b0 efficientnet_lite0"
).split()


def meta_twin(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(name).eval()


def first_conv(network: nn.Module) -> nn.Conv2d:
    return next(m for m in network.modules() if isinstance(m, nn.Conv2d))


def zeros(network: nn.Module) -> Tensor:
    side = network.input_size
    return torch.zeros(1, first_conv(network).in_channels, side, side, device="meta")


@functools.cache
def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, num_classes=5).eval()


def width(head: nn.Module) -> int:
    return head.in_channels if isinstance(head, nn.Conv2d) else head.in_features


@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_other_classes_other_channels_and_no_head(name: str) -> None:
    network = meta_twin(name)
    assert replace_head(network, 7) is network
    assert set_in_channels(network, 2) is network
    with torch.device("meta"):
        fresh = models.build(name, num_classes=7, in_channels=2)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in fresh.state_dict().items()
    }
    assert network(zeros(network)).shape == (1, 7)

    head = network.head
    before = {id(p) for p in network.parameters()}
    assert drop_head(network) is network
    assert {id(p) for p in network.parameters()} == before - {id(p) for p in head.parameters()}
    assert network(zeros(network)).shape == network.embed(zeros(network)).shape == (1, width(head))
    assert isinstance(network.head, nn.Identity)


def test_drop_head_then_forward_is_embed() -> None:
    network = drop_head(models.build("efficientnet_lite0", num_classes=5).eval())
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(network(x), network.embed(x))


def test_a_head_that_is_no_part_of_its_network() -> None:
    class Odd(nn.Module):
        @property
        def head(self) -> nn.Module:
            return nn.Linear(1, 1)

    with refused(ValueError, "head"):
        drop_head(Odd())


@pytest.mark.parametrize("name", SMALL)
def test_replace_head_leaves_the_rest_alone(name: str) -> None:
    network = copy.deepcopy(small(name))
    before = network.state_dict()
    after = replace_head(network, 3).state_dict()
    fresh = {id(p) for layer in last_layers(network) for p in layer.parameters()}
    kept = [key for key, p in network.named_parameters() if id(p) not in fresh]
    assert kept and all(torch.equal(before[key], after[key]) for key in kept)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014", "inception_v3"])
def test_auxiliary_classifiers_get_new_heads_too(name: str) -> None:
    network = replace_head(meta_twin(name), 7).train()
    x = zeros(network).expand(2, -1, -1, -1)
    assert {tuple(out.shape) for out in network(x)} == {(2, 7)}


def test_a_new_head_is_where_and_what_the_old_one_was() -> None:
    network = replace_head(models.build("squeezenet1_1", num_classes=5).double(), 3)
    assert network.head.weight.dtype == torch.float64 and network.head.kernel_size == (1, 1)
    assert replace_head(meta_twin("resnet18"), 3).head.weight.is_meta


@pytest.mark.parametrize("name", [name for name in SMALL if name != "lenet5"])
def test_grey_is_answered_as_three_equal_channels(name: str) -> None:
    network = copy.deepcopy(small(name))
    side = (
        max(64, network.min_size) if network.min_size != network.input_size else network.input_size
    )
    grey = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(grey.expand(-1, 3, -1, -1))
        found = set_in_channels(network, 1)(grey)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_more_channels_keep_the_sum() -> None:
    network = models.build("resnet18")
    before = network.conv1.weight.sum(dim=1)
    weight = set_in_channels(network, 6).conv1.weight
    assert weight.shape == (64, 6, 7, 7) and network.conv1.in_channels == 6 and weight.requires_grad
    torch.testing.assert_close(weight.sum(dim=1), before)


def test_the_same_channels_change_nothing() -> None:
    network = models.build("resnet18")
    before = network.conv1.weight
    assert set_in_channels(network, 3).conv1.weight is before


@pytest.mark.parametrize("n", [0, -1])
def test_impossible_numbers(n: int) -> None:
    network = meta_twin("resnet18")
    with refused(ValueError, f"num_classes={n}"):
        replace_head(network, n)
    with refused(ValueError, f"channels={n}"):
        set_in_channels(network, n)
