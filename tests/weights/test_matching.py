"""Matching: the networks of Foveate, torchvision and timm are recognised by names and shapes."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from foveate.models import MODELS
from foveate.weights import WEIGHTS
from foveate.weights.diagnosis import nearest
from foveate.weights.matching import best_match, blueprint, candidates, in_forward_order

TIMM = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "densenet121": "densenet121",
    "densenet161": "densenet161",
    "vgg11": "vgg11",
    "vgg16_bn": "vgg16_bn",
    "efficientnet_b0": "efficientnet_b0",
    "tf_efficientnet_b0": "efficientnet_b0",
    "tf_efficientnet_b5": "efficientnet_b5",
    **{f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}" for i in range(5)},
    "mobilenetv1_100": "mobilenet_v1",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "inception_v3": "inception_v3",
}


def found(model: torch.nn.Module) -> dict[str, Tensor]:
    """As a .safetensors file gives them: sorted by name."""
    return dict(sorted(model.state_dict().items()))


@pytest.mark.parametrize("name", MODELS)
def test_our_own(name: str) -> None:
    tensors = dict(sorted(blueprint(name).tensors.items()))
    # the fixed codes of lenet5_1998 are tensors, but not parameters
    assert name in candidates(tensors) or name == "lenet5_1998"
    match = best_match(tensors, name)
    assert (match.failing, match.way, len(match.names)) == (0, "ours", len(tensors))


@pytest.mark.parametrize(
    "name", sorted({w.network for w in WEIGHTS.values() if "pytorch.org" in w.url})
)
def test_torchvisions(name: str) -> None:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, **extra)
    match, twins, prefix = nearest(found(theirs), "model.pth")
    assert (match.network, match.way, match.failing, prefix) == (name, "ours", 0, "")
    assert twins == (("resnet50_v1",) if name == "resnet50" else ())


@pytest.mark.parametrize("name", TIMM)
def test_timms(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=7, in_chans=1)
    match, _, _ = nearest(found(theirs), "model.safetensors")
    assert (match.network, match.failing, match.plan.classes, match.plan.channels) == (
        TIMM[name],
        0,
        7,
        1,
    )
    assert len(match.names) == len(theirs.state_dict())


@pytest.mark.parametrize(
    "name", ["resnet50d", "resnext50_32x4d", "mobilenetv1_100h", "mobilenetv4_conv_small"]
)
def test_other_networks_fit_nothing(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    match, _, _ = nearest(found(theirs), "model.pth")
    assert match.failing > 0


def test_order_and_shape_alone() -> None:
    """Unknown names in the network's order match only if every kind and shape agrees."""
    tensors = blueprint("squeezenet1_1").tensors
    strange = {
        f"layer.{i}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(tensors.items())
    }
    match = best_match(strange, "squeezenet1_1")
    assert (match.way, match.failing) == ("order", 0)
    assert list(match.names.values()) == list(tensors)
    swapped = dict(sorted(strange.items()))
    assert best_match(swapped, "squeezenet1_1").failing > len(tensors)


def test_kinds_are_compared_too() -> None:
    """A bias and a mean of one length do not change places."""
    tensors = blueprint("resnet20").tensors
    wrong = {"bias": "running_mean", "running_mean": "bias"}
    names = [name.rpartition(".") for name in tensors]
    strange = {
        f"m.{i}.{wrong.get(n[2], n[2])}": t
        for i, (n, t) in enumerate(zip(names, tensors.values(), strict=True))
    }
    assert best_match(strange, "resnet20").failing > 0


def test_the_files_name_decides_between_networks_with_the_same_tensors() -> None:
    tensors = dict(blueprint("resnet50").tensors)
    for file, expected in (
        ("resnet50_v1.pth", "resnet50_v1"),
        ("my-resnet50_v1-best.pth", "resnet50_v1"),
        ("resnet50_v1.5.pth", "resnet50"),
        ("resnet50.pth", "resnet50"),
        ("model.pth", "resnet50"),
    ):
        match, twins, _ = nearest(tensors, file)
        assert (match.network, *sorted(twins)) == (
            expected,
            *({"resnet50", "resnet50_v1"} - {expected}),
        ), file


def test_names_outside_the_scheme_have_no_order() -> None:
    assert in_forward_order(["conv_stem.weight", "stem.weight"]) is None
    names = ["blocks.0.0.conv_pw.weight", "blocks.0.0.conv_dw.weight", "blocks.0.0.bn1.weight"]
    assert in_forward_order(names) == [names[1], names[2], names[0]]  # this block does not widen
    assert in_forward_order([*names, "blocks.0.0.conv_pwl.weight"])[:3] == [
        names[0],
        names[2],
        names[1],
    ]
