"""Groups, rates and averages, against torch's own and by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from foveate.models import build
from foveate.training.config import SCRATCH, TrainConfig
from foveate.training.freezing import make_plan
from foveate.training.optim import (
    EMA,
    make_optimizer,
    optimizer_tensors,
    rate_factor,
    restore_optimizer,
    set_rates,
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet20", num_classes=4)


def optimizer_of(network: nn.Module, **options) -> torch.optim.Optimizer:
    config = TrainConfig(**options)
    rates = (config.lr, config.head_lr, config.layer_decay)
    return make_optimizer(network, make_plan(network, (3, 32, 32), config.freeze, *rates), config)


def test_norms_and_biases_do_not_decay(network: nn.Module) -> None:
    optimizer = optimizer_of(network, weight_decay=0.3)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(decays) == len(list(network.parameters()))
    for parameter in network.parameters():
        assert decays[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0)


def test_each_part_has_its_rate(network: nn.Module) -> None:
    optimizer = optimizer_of(network, lr=0.1, head_lr=0.5, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in network.named_parameters()}
    stages = sorted({rate for name, rate in by_name.items() if not name.startswith("fc.")})
    assert stages == pytest.approx([0.025, 0.05, 0.1])
    assert by_name["fc.weight"] == by_name["fc.bias"] == 0.5
    set_rates(optimizer, 0.1)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx(
        [0.0025, 0.005, 0.01, 0.05]
    )


def test_kinds(network: nn.Module) -> None:
    sgd = optimizer_of(network, momentum=0.8)
    assert (
        isinstance(sgd, torch.optim.SGD)
        and sgd.defaults["nesterov"]
        and sgd.defaults["momentum"] == 0.8
    )
    assert not optimizer_of(network, momentum=0.0).defaults["nesterov"]
    assert isinstance(optimizer_of(network, optimizer="adamw"), torch.optim.AdamW)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_what_it_remembers_goes_through_tensors(kind: str, network: nn.Module) -> None:
    def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        net(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()

    first = optimizer_of(network, optimizer=kind, lr=1e-3, head_lr=1e-3)
    step(network, first, 0)
    twin = copy.deepcopy(network)
    second = optimizer_of(twin, optimizer=kind, lr=1e-3, head_lr=1e-3)
    restore_optimizer(second, optimizer_tensors(first, ""))
    step(network, first, 1)
    step(twin, second, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True)
    )


def test_adamw_in_one_pass_is_adamw(network: nn.Module) -> None:
    """It goes through memory whatever the strides: gradients and what is restored have to lie as
    the parameters do."""
    slow = copy.deepcopy(network)
    network.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(network, optimizer="adamw", lr=1e-2)
    groups = optimizer_of(slow, optimizer="adamw", lr=1e-2).param_groups
    obvious = torch.optim.AdamW([{**group, "fused": False} for group in groups], foreach=False)
    x = torch.randn(4, 3, 32, 32)
    for step in range(4):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        for mine, its in zip(network.parameters(), slow.parameters(), strict=True):
            its.grad = mine.grad.contiguous()
        optimizer.step()
        obvious.step()
        if step == 1:
            kept = optimizer_tensors(optimizer, "o.")  # a file has them contiguous
            restore_optimizer(
                optimizer, {name.removeprefix("o."): t.contiguous() for name, t in kept.items()}
            )
    for mine, its in zip(network.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_cosine_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert rate_factor("cosine", step, 50, 0) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        theirs.step()


def test_one_cycle_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    n = 101
    options = {
        "total_steps": n,
        "pct_start": 0.3,
        "div_factor": 25,
        "final_div_factor": 1e12,
        "cycle_momentum": False,
    }
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, **options)
    for step in range(n - 1):
        # theirs reaches the top a step earlier and the bottom at the last one
        assert rate_factor("one-cycle", step, n, 0) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=0.06
        )
        optimizer.step()
        theirs.step()
    assert rate_factor("one-cycle", 0, n, 0) == pytest.approx(1 / 25)
    assert max(rate_factor("one-cycle", s, n, 0) for s in range(n)) > 0.999


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_warmup_rises_evenly_to_the_highest(schedule) -> None:
    rates = [rate_factor(schedule, step, 20, 5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(rates) == 1
    assert rate_factor(schedule, 0, 20, 0.5) == 1


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_trainings(schedule, steps: int) -> None:
    for warmup in (0, steps) if schedule != "one-cycle" else (0,):
        assert all(0 <= rate_factor(schedule, step, steps, warmup) <= 1 for step in range(steps))


def test_average_by_hand(network: nn.Module) -> None:
    average = EMA(network, 0.9)
    expected = network.fc.weight.detach().clone()
    for update in range(40):
        with torch.no_grad():
            network.fc.weight += torch.randn_like(network.fc.weight)
            network.bn1.running_mean += 1
        average.update(network)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network.fc.weight.detach()
    torch.testing.assert_close(
        average.network.fc.weight, nn.Parameter(expected, requires_grad=False)
    )
    assert torch.equal(average.network.bn1.running_mean, network.bn1.running_mean)
    assert not average.network.training and not any(
        p.requires_grad for p in average.network.parameters()
    )


def test_the_average_of_what_is_frozen_is_itself(network: nn.Module) -> None:
    average = EMA(network, 0.9)
    network.conv1.weight.requires_grad_(False)
    before = average.network.conv1.weight.clone()
    for _ in range(50):
        average.update(network)
    assert torch.equal(average.network.conv1.weight, before)
    assert math.isclose(SCRATCH.ema, 0)
