"""The transfer plan: which parameter belongs to which part, what is frozen, and that frozen means
frozen."""

import pytest
import torch
from refusals import refused
from torch import nn

from foveate.errors import UsageError
from foveate.models import build
from foveate.probe import Probe
from foveate.training.config import TrainConfig
from foveate.training.freezing import make_plan
from foveate.training.optim import make_optimizer

FEW = (
    "lenet5_1998 lenet5 alexnet vgg11_bn nin_cifar googlenet inception_v3 resnet18 plain20 "
    "squeezenet1_1 densenet121 mobilenet_v1_x0_25 mobilenet_v2 mobilenet_v3_small "
    "shufflenet_v1_g8 shufflenet_v2_x0_5 efficientnet_b0 efficientnet_lite0"
).split()
OTHERS = (  # where a block, or what is around it, is another one
    "alexnet_2012 vgg16 nin googlenet_2014 resnet50 resnet20 densenet_bc_100_12 squeezenet1_0 "
    "mobilenet_v1 mobilenet_v3_large shufflenet_v2_x2_0 efficientnet_lite4"
).split()


def channels(network: nn.Module) -> int:
    return next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", FEW + OTHERS)
def test_every_parameter_has_one_part(name: str) -> None:
    with torch.device("meta"):
        network = build(name, num_classes=7)
    plan = make_plan(
        network, (channels(network), network.input_size, network.input_size), "none", 1e-3, 1e-2
    )
    placed = [parameter for part in plan.parts for parameter in part.names]
    assert sorted(placed) == sorted(name for name, _ in network.named_parameters())
    assert plan.learning() == sum(p.numel() for p in network.parameters())
    assert plan.parts[0].name == "stage 1"
    last = {part.name: part for part in plan.parts}
    if any(True for _ in network.head.parameters()):
        assert len(last["head"].names) == len(list(network.head.parameters()))
    assert bool(getattr(network, "AUXILIARY", ())) == ("auxiliary" in last)


@pytest.mark.parametrize("name", FEW)
def test_parts_are_what_the_maps_depend_on(name: str) -> None:
    """By automatic differentiation: a stage's parameters move its own map and no earlier one."""
    torch.manual_seed(0)
    network = build(name).eval()
    side = (
        network.input_size if network.min_size == network.input_size else max(32, network.min_size)
    )
    plan = make_plan(network, (channels(network), side, side), "none", 1e-3, 1e-3)
    maps = network.stages(torch.randn(2, channels(network), side, side))
    parameters = dict(network.named_parameters())
    seen: set[str] = set()
    for number, y in enumerate(maps, start=1):
        gradients = torch.autograd.grad(
            y.sum(), parameters.values(), retain_graph=True, allow_unused=True
        )
        reached = {n for n, g in zip(parameters, gradients, strict=True) if g is not None}
        assert reached - seen == set(plan.parts[number - 1].names), f"stage {number}"
        seen |= reached


def test_frozen_means_frozen() -> None:
    """Weights and statistics of frozen stages stay, bit for bit, through steps in training mode."""
    torch.manual_seed(0)
    network = build("mobilenet_v2", num_classes=4)
    plan = make_plan(network, (3, 64, 64), 3, 0.1, 0.1)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    optimizer = make_optimizer(network, plan, TrainConfig(lr=0.1, head_lr=0.1, weight_decay=0.1))
    plan.apply(network, 0)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 64, 64)).square().sum().backward()
        optimizer.step()
    still = {name for part in plan.parts[:3] for name in part.names}
    modules = {name.rpartition(".")[0] for name in still}
    for name, tensor in network.state_dict().items():
        if name.rpartition(".")[0] in modules:
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(network.head.weight, before["classifier.1.weight"])
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == plan.learning()


def test_frozen_statistics_everywhere() -> None:
    network = build("resnet20", num_classes=4)
    plan = make_plan(network, (3, 32, 32), "none", 0.1, 0.1, frozen_norms=True)
    plan.apply(network, 0)
    assert all(not m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert {part.norms for part in plan.parts} == {"frozen", ""}


def test_backbone() -> None:
    network = build("googlenet", num_classes=4)
    plan = make_plan(network, (3, 224, 224), "backbone", 0.1, 0.2)
    learning = [part for part in plan.parts if not part.frozen]
    assert [part.name for part in learning] == ["head"] and learning[0].lr == 0.2


def test_auxiliary_classifiers_cost_as_well() -> None:
    parts = {
        part.name: part
        for part in make_plan(build("googlenet", 1000), (3, 224, 224), 0, 0.1, 0.1).parts
    }
    one, two = (channels * 128 * 4 * 4 + 2048 * 1024 + 1024 * 1000 for channels in (512, 528))
    assert parts["auxiliary"].macs == one + two
    assert "auxiliary" not in {
        part.name for part in make_plan(build("resnet18"), (3, 64, 64), 0, 0.1, 0.1).parts
    }


def test_early_stages() -> None:
    for name, still in (("efficientnet_lite0", 3), ("resnet18", 2), ("resnet20", 1), ("vgg11", 2)):
        network = build(name, num_classes=4)
        side = network.input_size
        plan = make_plan(network, (3, side, side), "early", 0.1, 0.1)
        assert [part.name for part in plan.parts if part.frozen] == [
            f"stage {i + 1}" for i in range(still)
        ]


def test_thawed_at_an_epoch() -> None:
    network = build("resnet20", num_classes=4)
    plan = make_plan(network, (3, 32, 32), 2, 0.1, 0.1, unfreeze_at=3)
    everything = sum(p.numel() for p in network.parameters())
    assert [plan.learning(epoch) == everything for epoch in (0, 2, 3, 9)] == [
        False,
        False,
        True,
        True,
    ]
    plan.apply(network, 2)
    assert not network.conv1.weight.requires_grad
    plan.apply(network, 3)
    assert all(p.requires_grad for p in network.parameters())
    assert plan.macs(0) < plan.macs(3)


def test_a_probe() -> None:
    """What its stages do not read can never learn; and a step costs three times the forward where
    it learns."""
    probe = Probe(build("vgg11", num_classes=4), 3 * (64 + 128 + 256 + 512) + 512, 4)
    plan = make_plan(probe, (3, 64, 64), "none", 0.1, 0.1)
    parts = {part.name: part for part in plan.parts}
    assert parts["unread"].frozen and parts["unread"].lr == 0
    assert set(parts["head"].names) == {"linear.weight", "linear.bias"}
    assert parts["head"].macs == 4 * 3392
    assert plan.macs() == 3 * sum(part.macs for part in plan.parts)
    plan.apply(probe, 0)
    probe(torch.randn(2, 3, 64, 64)).sum().backward()
    for name, parameter in probe.named_parameters():
        assert (parameter.grad is None) == (name in parts["unread"].names), name


def test_what_does_not_fit() -> None:
    network = build("resnet20", num_classes=4)
    with refused(UsageError, "freeze 99", "0 to 3"):
        make_plan(network, (3, 32, 32), 99, 0.1, 0.1)
    with refused(UsageError, "LeNet5", "28x28", "30x30", "size"):
        make_plan(build("lenet5"), (1, 30, 30), 0, 0.1, 0.1)
    with refused(UsageError, "AlexNet", "63x63", "32x32", "size"):
        make_plan(build("alexnet", num_classes=2), (3, 32, 32), 0, 0.1, 0.1)


def test_as_json() -> None:
    import json

    plan = make_plan(build("resnet20"), (3, 32, 32), 1, 0.1, 0.1)
    saved = json.loads(json.dumps(plan.to_dict()))
    assert [part["name"] for part in saved["parts"]] == ["stage 1", "stage 2", "stage 3", "head"]
    assert saved["learning"] + saved["parts"][0]["parameters"] == saved["parameters"] == 269_722
