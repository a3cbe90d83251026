"""`foveate.freeze` in a loop of one's own: the lecture's transfer learning, on torch's objects."""

import copy
from typing import Any

import pytest
import torch
from refusals import refused
from torch import nn

import foveate
from foveate.errors import UsageError
from foveate.models import build
from foveate.training.freezing import FrozenBatchNorm
from foveate.weights.starting_point import find_start

SIZE = 64


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, n: int = 2) -> None:
    network.train()
    for _ in range(n):
        optimizer.zero_grad()
        network(torch.randn(4, 3, SIZE, SIZE)).square().mean().backward()
        optimizer.step()


def moved(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, t in network.state_dict().items() if not torch.equal(t, before[name])}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "densenet121"])
def test_the_lectures_order_trains_the_new_head_and_nothing_else(name: str) -> None:
    """Freeze, replace the head, make the optimiser."""
    torch.manual_seed(0)
    network = build(name)
    names = list(network.state_dict())
    groups = foveate.freeze(network, "backbone")
    foveate.replace_head(network, 10)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    before = tensors(network)
    steps(network, optimizer)
    head = {n for n, m in network.named_modules() if m is network.head}.pop()
    assert moved(network, before) == {f"{head}.weight", f"{head}.bias"}  # no statistics either
    assert list(network.state_dict()) == names


def test_some_stages_with_rates_of_their_own() -> None:
    network = build("resnet18", num_classes=5)
    groups = foveate.freeze(network, 2, lr=0.1, head_lr=1.0, layer_decay=0.5)
    optimizer = torch.optim.AdamW(groups)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"stage 3": 0.05, "stage 4": 0.1, "head": 1.0}
    before = tensors(network)
    steps(network, optimizer)
    still = ("conv1.", "bn1.", "layer1.", "layer2.")
    assert not any(name.startswith(still) for name in moved(network, before))
    assert {"layer3.0.bn1.running_mean", "layer4.0.conv1.weight"} <= moved(network, before)


def test_early_is_two_fifths_of_the_stages() -> None:
    network = build("resnet18")
    foveate.freeze(network, "early")
    learns = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("conv1", "layer1", "layer2")) for name in learns)
    assert any(name.startswith("layer3") for name in learns)


def test_thawing_gives_back_ordinary_norms() -> None:
    network = build("resnet18")
    kinds = [type(module) for module in network.modules()]
    foveate.freeze(network, "backbone")
    assert isinstance(network.bn1, FrozenBatchNorm)
    x = torch.randn(2, 3, SIZE, SIZE)
    frozen = network.train()(x)
    assert torch.equal(frozen, network.eval()(x))  # no mode changes what a frozen norm does
    foveate.freeze(network, "none")
    assert [type(module) for module in network.modules()] == kinds
    assert all(p.requires_grad for p in network.parameters())
    before = tensors(network)
    steps(network, torch.optim.SGD(network.parameters(), lr=0.1), 1)
    assert "bn1.running_mean" in moved(network, before)


def test_a_frozen_network_is_copied_and_loaded_as_any_other() -> None:
    network = build("mobilenet_v3_small", num_classes=3)
    foveate.freeze(network, "backbone")
    twin = copy.deepcopy(network)
    fresh = build("mobilenet_v3_small", num_classes=3)
    fresh.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(network.eval()(x), twin.eval()(x))
    assert torch.equal(network(x), fresh.eval()(x))


def test_a_network_of_ones_own() -> None:
    class Own(nn.Module):
        input_size = 16

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.two = nn.Conv2d(4, 8, 3)
            self.head = nn.Linear(8, 2)

        def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
            first = self.one(x)
            return [first, self.two(first)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.stages(x)[-1].mean(dim=(2, 3)))

    network = Own()
    groups = foveate.freeze(network, 1, lr=0.1)
    assert [group["name"] for group in groups] == ["stage 2", "head"]
    assert "stage 2: 296 parameters at 0.1" in repr(groups) and len(groups) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all",), ["'all'", "backbone"]),
        ((5,), ["5", "4"]),
        ((-1,), ["-1"]),
        ((True,), ["True"]),
        ((1, {"lr": 0}), ["lr", "0"]),
        ((1, {"layer_decay": 0.5}), ["layer_decay", "lr"]),
        ((1, {"layer_decay": 2, "lr": 1}), ["layer_decay", "2"]),
        ((1, {"lr": "0.1"}), ["lr", "'0.1'"]),
        ((1, {"lr": True}), ["lr", "True"]),
        ((1, {"head_lr": float("inf")}), ["head_lr", "inf"]),
        ((1, {"layer_decay": "0.5", "lr": 1}), ["layer_decay", "'0.5'"]),
        ((1, {"size": 8}), ["8x8"]),
        ((1, {"size": 0}), ["size", "0"]),
        ((1, {"size": "64"}), ["size", "'64'"]),
    ],
)
def test_what_is_refused(arguments: tuple, words: list[str]) -> None:
    *positional, options = [*arguments, {}] if len(arguments) == 1 else arguments
    network = build("googlenet_2014" if options.get("size") == 8 else "resnet18")
    with pytest.raises(UsageError) as caught:
        foveate.freeze(network, *positional, **options)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: x, "Tensor"),
        (lambda x: [], "nothing"),
        (lambda x: {"one": x}, "dict"),
        (lambda x: [x, x.mean(dim=(2, 3))], "(2, 3) as map 2"),
        (lambda x: [x[:1]], "(1, 3, 32, 32) as map 1"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_stages_that_are_no_maps(given: Any, words: str) -> None:
    """Of freeze, and of what a probe starts from."""

    class Broken(nn.Module):
        input_size = 32

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

        def stages(self, x: torch.Tensor) -> Any:
            return given(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).mean(dim=(2, 3)))

    with refused(UsageError, "Broken.stages", words, "32x32"):
        foveate.freeze(Broken(), 1)
    with refused(UsageError, "Broken.stages", words, "32x32"):
        find_start(Broken())


@pytest.mark.parametrize(
    ("network", "missing"), [(nn.Linear(2, 2), "stages"), ("resnet18", "Module"), (None, "Module")]
)
def test_what_is_no_network_is_named(network: object, missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        foveate.freeze(network)  # type: ignore[arg-type]
