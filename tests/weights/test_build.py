"""build: networks with published weights, and with other classes or channels."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from refusals import refused

from foveate import models
from foveate.data.preprocess import Preprocess
from foveate.errors import UsageError
from foveate.weights import WEIGHTS, build, find_weights, list_models, pretrained, source_file
from foveate.weights.starting_point import find_start

LITE0 = "efficientnet_lite0"


def test_embedded_weights_give_timms_logits_exactly() -> None:
    raw = torch.load(source_file(WEIGHTS[LITE0]), weights_only=True)
    theirs = timm.create_model(f"tf_{LITE0}", pretrained=False).eval()
    assert len(raw) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), raw.values(), strict=True)))
    x = torch.randn(2, 3, 224, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(x)
        assert torch.equal(build(LITE0, weights="imagenet").eval()(x), expected)
    assert expected.std() > 0.1


def test_older_sets(plant: Callable[[str], dict[str, torch.Tensor]]) -> None:
    new, old = plant("efficientnet_b1"), plant("efficientnet_b1.v1")
    for weights, state in (("imagenet", new), ("imagenet-v1", old)):
        built = build("efficientnet_b1", weights=weights).state_dict()
        assert all(torch.equal(built[name], tensor) for name, tensor in state.items())
    assert torch.equal(
        pretrained("efficientnet_b1.v1").state_dict()["classifier.1.weight"],
        old["classifier.1.weight"],
    )


def test_other_classes_get_a_fresh_head() -> None:
    plain, built = build(LITE0, weights="imagenet"), build(LITE0, weights="imagenet", num_classes=5)
    assert built.head.out_features == 5 and built.head is built.classifier[1]
    kept = {
        k: torch.equal(v, plain.state_dict()[k])
        for k, v in built.state_dict().items()
        if "classifier" not in k
    }
    assert all(kept.values()) and len(kept) > 200


def test_the_published_number_of_classes_keeps_the_head() -> None:
    plain, built = (
        build(LITE0, weights="imagenet"),
        build(LITE0, weights="imagenet", num_classes=1000, in_channels=3),
    )
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in built.state_dict().items())


def test_a_grey_image_is_seen_as_three_equal_channels() -> None:
    colour, grey = (build(LITE0, weights="imagenet", in_channels=c).eval() for c in (3, 1))
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(2, 3, 64, 64)), rtol=1e-3, atol=1e-3)


def test_build_passes_on_only_what_is_given() -> None:
    assert build(LITE0, num_classes=3, in_channels=1).eval()(torch.zeros(1, 1, 32, 32)).shape == (
        1,
        3,
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"name": "efficientnet_lite9"}, ["'efficientnet_lite9'", "efficientnet_lite4"]),
        (
            {"name": "efficientnet_lite9", "weights": "imagenet"},
            ["'efficientnet_lite9'", "efficientnet_lite4"],
        ),
        (
            {"name": "efficientnet_lite9", "weights": "x.pth"},
            ["'efficientnet_lite9'", "efficientnet_lite4"],
        ),
        ({"name": LITE0, "weights": "jft"}, ["'jft'", "imagenet", "imagenet-v1", "None", ".pth"]),
        ({"name": LITE0, "weights": ""}, ["''", "imagenet"]),
        ({"name": LITE0, "weights": "imagenet-v1"}, ["'efficientnet_lite0.v1'", "pretrained"]),
        (
            {"name": "efficientnet_lite4", "weights": "imagenet"},
            ["'efficientnet_lite4'", "pretrained", LITE0],
        ),
        ({"name": LITE0, "weights": "imagenet", "num_classes": 0}, ["num_classes", "0"]),
        ({"name": LITE0, "weights": "imagenet", "in_channels": 0}, ["in_channels", "0"]),
    ],
)
def test_build_refuses(arguments: dict[str, object], names: list[str]) -> None:
    with refused(UsageError, *names):
        build(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, False, "imagenet"])
def test_the_argument_of_torchvision_is_refused(value: object) -> None:
    with refused(UsageError, f"pretrained={value!r}", 'weights="imagenet"', "None"):
        build("resnet18", pretrained=value)  # type: ignore[call-arg]


def test_a_network_has_one_name_however_it_is_written() -> None:
    assert build("EfficientNet-Lite0", weights="imagenet", num_classes=2).name == LITE0
    assert build("LeNet-5").name == "lenet5"
    assert list_models(family="SqueezeNet") == list_models(family="squeeze-net")
    assert find_weights("ResNet50.v1").key == "resnet50.v1"
    assert Preprocess.of("VGG-16") == WEIGHTS["vgg16"].preprocess
    with refused(UsageError, "'LeNet'", "lenet5", "lenet5_1998"):
        build("LeNet")
    with refused(UsageError, "'ResNet'", "resnet18", "resnet152"):
        find_weights("ResNet")


def test_a_file_may_be_of_an_older_set(tmp_path: Path) -> None:
    """Its key says how it expects images."""
    torch.save(models.build("mobilenet_v2").state_dict(), tmp_path / "mine")
    start = find_start("MobileNet-V2.v1", tmp_path / "mine")
    assert (start.name, start.preprocess) == (
        "mobilenet_v2",
        WEIGHTS["mobilenet_v2.v1"].preprocess,
    )


def test_importing_the_table_imports_neither_torch_nor_network(python: Callable[..., str]) -> None:
    python(
        "import sys; import foveate.weights, foveate.training\n"
        "assert not {'torch', 'urllib.request', 'ssl'} & set(sys.modules)"
    )
