"""Each trap against the library that it names: it is reported if and only if the results differ."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from refusals import absent
from torch import nn

from foveate.models import build
from foveate.weights.diagnosis import Diagnosis, diagnose
from foveate.weights.traps import TIMM, TRAPS, bad_numbers, traps


def settle(network: nn.Module) -> nn.Module:
    """Give each batch-norm statistics, so that activations live and eps counts."""
    generator = torch.Generator().manual_seed(0)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.05, generator=generator)
            m.running_var.uniform_(0.2, 0.6, generator=generator)
    return network.eval()


def ours(found: Diagnosis, path: Path) -> nn.Module:
    """Our network with the file's tensors."""
    network = build(found.nearest, found.classes)
    state = torch.load(path, weights_only=True)
    named = {found.names[name]: tensor for name, tensor in state.items()}
    full = network.state_dict()
    network.load_state_dict(
        full | {name: tensor.reshape(full[name].shape) for name, tensor in named.items()}
    )
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "same", "side"),
    [
        ("efficientnet_b0", True, 64),
        ("tf_efficientnet_b0", False, 64),
        ("efficientnet_b5", False, 64),
        ("tf_efficientnet_b5", False, 64),
        ("efficientnet_lite0", False, 64),
        ("tf_efficientnet_lite0", True, 64),
        ("mobilenetv1_100", True, 64),
        ("mobilenetv2_100", True, 64),
        ("mobilenetv3_small_100", False, 64),
        ("tf_mobilenetv3_small_100", False, 64),
        ("resnet18", True, 64),
        ("densenet121", True, 64),
        ("inception_v3", True, 75),
    ],
)
def test_timms_files(name: str, same: bool, side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = settle(timm.create_model(name, num_classes=5))
    path = tmp_path / f"{name}.a1_in1k.pth"
    torch.save(theirs.state_dict(), path)
    found = diagnose(path)
    assert (found.source, found.problems, found.failing) == (TIMM, (), 0)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, got = theirs(x), ours(found, path)(x)
    error = float((got - expected).abs().max() / expected.std())
    assert (error < 1e-4) == same, error
    assert any("the results differ" in trap for trap in found.traps) != same
    assert any("a table of its own" in trap for trap in found.traps)


@pytest.mark.slow
@pytest.mark.slow  # half a gigabyte
def test_a_vgg_of_timm_is_the_same_numbers(tmp_path: Path) -> None:
    theirs = timm.create_model("vgg11", num_classes=5).eval()
    path = tmp_path / "vgg11.tv_in1k.pth"
    torch.save(theirs.state_dict(), path)
    found = diagnose(path)
    assert found.network == "vgg11" and not found.loads
    assert any(not absent(note, "linear layer", "convolution") for note in found.notes)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(found, path)(x), theirs(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv3_small_100"]
)
def test_a_file_without_a_name_may_be_either(name: str, tmp_path: Path) -> None:
    torch.save(timm.create_model(name, num_classes=5).state_dict(), tmp_path / "model.pth")
    assert any("tf_" in trap for trap in diagnose(tmp_path / "model.pth").traps)


@pytest.mark.parametrize(("one", "other"), [("resnet50", "resnet50_v1"), ("resnet20", "plain20")])
def test_networks_with_the_same_tensors_give_other_results(
    one: str, other: str, tmp_path: Path
) -> None:
    a, b = settle(build(one)), build(other).eval()
    b.load_state_dict(a.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(a(x), b(x), rtol=0.01)
    torch.save(a.state_dict(), tmp_path / f"{one}.pth")
    found = diagnose(tmp_path / f"{one}.pth")
    assert (found.network, found.twins) == (one, (other,))
    assert any("have the same tensors" in trap for trap in found.traps)


def test_transform_input(tmp_path: Path) -> None:
    """Our Preprocess replaces the conversion inside torchvision's GoogLeNet."""
    torch.manual_seed(0)
    theirs = settle(
        torchvision.models.googlenet(num_classes=5, transform_input=True, init_weights=False)
    )
    path = tmp_path / "googlenet.pth"
    torch.save(theirs.state_dict(), path)
    found = diagnose(path)
    assert found.network == "googlenet" and any("transform_input" in trap for trap in found.traps)
    image = torch.rand(2, 3, 64, 64)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    )
    network = ours(found, path)
    with torch.no_grad():
        expected = theirs((image - mean) / std)
        torch.testing.assert_close(network((image - 0.5) / 0.5), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(network((image - mean) / std), expected, rtol=0.01)


@pytest.mark.parametrize(
    ("network", "source", "file", "published", "names"),
    [
        ("resnet50", "torchvision", "resnet50-0676ba61.pth", True, []),
        ("resnet50", "torchvision", "resnet50.pth", False, ["resnet50_v1 in the 1x1"]),
        (
            "resnet50",
            "unknown",
            "resnet50_caffe.pth",
            False,
            ["Caffe: then it needs resnet50_v1", "blue, green, red"],
        ),
        (
            "resnet101",
            "torchvision",
            "resnet101_msra.pth",
            False,
            ["strides in the 1x1", "blue, green, red"],
        ),
        ("vgg16", "unknown", "vgg16_caffe.pth", False, ["blue, green, red"]),
        ("vgg16", "torchvision", "vgg16.pth", False, []),
        ("resnet18", "torchvision", "resnet18.pth", False, []),
        ("googlenet", "torchvision", "googlenet-1378be20.pth", True, ["transform_input"]),
        (
            "inception_v3",
            "timm",
            "inception_v3.gluon_in1k.pth",
            False,
            ["gluon", "a table of its own"],
        ),
        ("efficientnet_b0", "torchvision", "efficientnet_b0_rwightman-7f5810bc.pth", True, []),
        ("efficientnet_b0", "torchvision", "mine.pth", False, []),
        ("efficientnet_b0", "unknown", "mine.pth", False, ["tf_efficientnet_b0"]),
        (
            "efficientnet_b0",
            "efficientnet_pytorch",
            "efficientnet-b0-355c32eb.pth",
            False,
            ["efficientnet_pytorch's"],
        ),
        ("efficientnet_lite0", "efficientnet_pytorch", "efficientnet-lite0-57934424.pth", True, []),
    ],
)
def test_a_trap_is_reported_only_where_it_applies(
    network: str, source: str, file: str, published: bool, names: list[str]
) -> None:
    found = traps(network, source, file, published)
    assert len(found) == len(names), found
    assert all(name in sentence for name, sentence in zip(names, found, strict=True)), found


def test_the_patterns_name_networks() -> None:
    from foveate.models import MODELS

    assert all(any(re.fullmatch(trap.networks, name) for name in MODELS) for trap in TRAPS)
    assert not any(
        "{" in sentence for name in MODELS for sentence in traps(name, TIMM, "x.pth", False)
    )


def test_numbers() -> None:
    good = {
        "a.weight": torch.ones(2),
        "b.running_var": torch.tensor([0.5, 0.0]),
        "b.running_mean": torch.ones(2),
    }
    assert bad_numbers(good) == []
    infinite = torch.tensor([1.0, float("inf")], dtype=torch.float16)
    for changed, *names in (
        ({"a.weight": torch.tensor([1.0, float("nan")])}, "1 tensors", "'a.weight'", "not finite"),
        ({"a.weight": infinite}, "'a.weight'", "not finite"),
        (
            {"a.weight": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)},
            "'a.weight'",
            "not finite",
        ),
        ({"b.running_var": torch.zeros(2)}, "'b.running_var'", "variance of 0"),
        ({"b.running_var": torch.tensor([-1.0, 1.0])}, "'b.running_var'", "negative variance"),
        (
            {"b.running_var": torch.ones(2), "b.running_mean": torch.zeros(2)},
            "every batch-norm",
            "new network",
        ),
    ):
        (found,) = bad_numbers(good | changed)
        assert not absent(found, *names)
