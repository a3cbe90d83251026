"""The table of published weights, against torchvision's and timm's own registries and networks."""

import functools
import re
from collections.abc import Sequence

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from foveate import models
from foveate.weights import WEIGHTS, Weights
from foveate.weights.tensors import rename, under_our_names

TORCHVISION = [key for key, entry in WEIGHTS.items() if "pytorch.org" in entry.url]
LITE = [key for key in WEIGHTS if "_lite" in key]
LITE0 = "efficientnet_lite0"


def registered(entry: Weights) -> torchvision.models.WeightsEnum:
    """torchvision's own entry for the same weights."""
    enum = get_model_weights(entry.network)
    return enum.IMAGENET1K_V1 if entry.key.endswith(".v1") else enum.DEFAULT


@functools.cache
def theirs(network: str) -> nn.Module:
    """torchvision's network on the meta device, with the auxiliary heads that its files have."""
    auxiliary = {"aux_logits": True, "init_weights": False}
    options = auxiliary if network in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return get_model(network, weights=None, **options)


@functools.cache
def ours(network: str) -> nn.Module:
    """Ours, likewise."""
    with torch.device("meta"):
        return models.build(network)


@pytest.mark.parametrize("key", TORCHVISION)
def test_torchvisions_rows_are_torchvisions(key: str) -> None:
    entry = WEIGHTS[key]
    registry = registered(entry)
    metrics, transforms = registry.meta["_metrics"]["ImageNet-1K"], registry.transforms()
    assert entry.url == registry.url
    assert entry.file == registry.url.rsplit("/", 1)[1]
    assert re.search(rf"-{entry.sha256}\.pth$", entry.file) and len(entry.sha256) >= 8
    assert (entry.accuracy, entry.accuracy5) == (metrics["acc@1"], metrics["acc@5"])
    assert entry.size == round(registry.meta["_file_size"] * 2**20)
    preprocess = entry.preprocess
    assert ([preprocess.crop], [preprocess.resize]) == (
        transforms.crop_size,
        transforms.resize_size,
    )
    assert preprocess.interpolation == transforms.interpolation.value
    # torchvision's own networks undo ImageNet's mean and std in `forward`
    undone = entry.network in ("googlenet", "inception_v3")
    assert list(preprocess.mean) == (3 * [0.5] if undone else transforms.mean)
    assert list(preprocess.std) == (3 * [0.5] if undone else transforms.std)
    assert preprocess.stretch == 1 and preprocess.channels == 3
    assert entry.licence == "BSD-3-Clause" and "license" not in registry.meta


@pytest.mark.parametrize("key", TORCHVISION)
def test_torchvisions_networks_are_ours(key: str) -> None:
    """Parameters as torchvision counts them, and a file of their size."""
    entry, network = WEIGHTS[key], ours(WEIGHTS[key].network)
    uncounted = ("aux1.", "aux2.") if key == "googlenet" else ()
    counted = [
        p.numel() for name, p in network.named_parameters() if not name.startswith(tuple(uncounted))
    ]
    assert sum(counted) == registered(entry).meta["num_params"]
    held = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    assert entry.size == pytest.approx(held, rel=0.03)


def test_no_weights_of_torchvision_are_missing() -> None:
    """Of the networks that both have, all weights that classify."""
    known = set(torchvision.models.list_models(torchvision.models)) & set(models.MODELS)
    registry = {
        w.url for name in known for w in get_model_weights(name) if "FEATURES" not in w.name
    }
    assert registry == {WEIGHTS[key].url for key in TORCHVISION}


def test_the_best_set_has_the_networks_name() -> None:
    for key, entry in WEIGHTS.items():
        assert entry.key == key and key in (entry.network, f"{entry.network}.v1")
        assert entry.accuracy <= WEIGHTS[entry.network].accuracy


@pytest.mark.parametrize("key", WEIGHTS)
def test_every_entry_is_of_a_network(key: str) -> None:
    entry, network = WEIGHTS[key], ours(WEIGHTS[key].network)
    assert dict(network.named_modules())[entry.head] is network.head
    assert 50 < entry.accuracy < 100
    assert bool(entry.package) != bool(entry.url)
    assert (
        len(entry.sha256) == 64
        if entry.package
        else entry.url.startswith("https://") and entry.size > 10**6
    )
    assert entry.licence in ("Apache-2.0", "BSD-3-Clause")


def test_every_entry_has_an_identity_of_its_own() -> None:
    assert len({entry.identity for entry in WEIGHTS.values()}) == len(WEIGHTS)
    assert WEIGHTS[LITE0].identity == WEIGHTS[LITE0].sha256  # as in the caches that are out there
    assert WEIGHTS["resnet50"].identity == "resnet50-11ad3fa6.pth"


def published_names(entry: Weights) -> list[str]:
    """The names in the published file, from an independent network of the same library."""
    if entry.key in LITE:
        return lite_names(entry.network)
    if entry.network == "mobilenet_v1":
        with torch.device("meta"):
            return list(timm.create_model("mobilenetv1_100").state_dict())
    names = list(theirs(entry.network).state_dict())
    if entry.network.startswith("densenet"):  # the files are older than the names
        names = [
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name) for name in names
        ]
    return names


def lite_names(network: str) -> list[str]:
    """The names in a published Lite file, derived from timm's independent network."""
    with torch.device("meta"):
        theirs = timm.create_model(f"tf_{network}", pretrained=False).state_dict()
    separable = {
        "conv_dw": "_depthwise_conv",
        "bn1": "_bn1",
        "conv_pw": "_project_conv",
        "bn2": "_bn2",
    }
    inverted = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
    }
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    ends = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    blocks = list(
        dict.fromkeys(m[0] for name in theirs if (m := re.match(r"blocks\.\d+\.\d+\.", name)))
    )
    names = []
    for name in theirs:
        block = re.match(r"blocks\.(\d+)\.\d+\.", name)
        part, leaf = name.split(".")[-2:]
        if block:
            table = separable if block[1] == "0" else inverted
            names.append(f"_blocks.{blocks.index(block[0])}.{table[part]}.{leaf}")
        else:
            names.append(f"{ends[part]}.{leaf}")
    return names


def test_timms_names_are_a_faithful_copy_of_lites_published_ones() -> None:
    """`lite_names` is right for the file we have; the next test uses it for those we have not."""
    from foveate.weights import source_file

    assert sorted(lite_names(LITE0)) == sorted(
        torch.load(source_file(WEIGHTS[LITE0]), weights_only=True)
    )


@pytest.mark.parametrize("key", WEIGHTS)
def test_rules_give_every_published_tensor_its_place(key: str) -> None:
    entry, expected = WEIGHTS[key], ours(WEIGHTS[key].network).state_dict()
    assert [rename(name, entry.rename) for name in published_names(entry)] == list(expected)
    # our own names are left alone
    assert not any(rename(name, entry.rename) != name for name in expected)


def test_densenets_files_have_dots_where_names_have_none() -> None:
    entry = WEIGHTS["densenet121"]
    names = published_names(entry)
    assert "features.denseblock1.denselayer1.norm.1.weight" in names
    assert sum(".norm.1." in name or ".conv.2." in name for name in names) == 6 * 58
    assert rename("features.denseblock4.denselayer16.conv.2.weight", entry.rename) == (
        "features.denseblock4.denselayer16.conv2.weight"
    )


@pytest.mark.parametrize("key", ["_blocks.16._bn1.weight", "_extra.weight", "x._fc.weight", ""])
def test_unknown_names_are_left_as_they_are(key: str) -> None:
    assert rename(key, WEIGHTS[LITE0].rename) == key


@pytest.mark.parametrize("key", [*LITE, "mobilenet_v1"])
def test_timms_settings_are_ours(key: str) -> None:
    entry = WEIGHTS[key]
    name = "mobilenetv1_100" if key == "mobilenet_v1" else f"tf_{key}"
    with torch.device("meta"):
        config = timm.create_model(name, pretrained=False).pretrained_cfg
    assert entry.preprocess.crop / entry.preprocess.resize == pytest.approx(0.875, abs=0.002)
    assert entry.preprocess.crop == config["input_size"][-1]
    assert entry.preprocess.interpolation == config["interpolation"] == "bicubic"
    assert entry.preprocess.mean == pytest.approx(config["mean"], abs=0.003)
    assert entry.preprocess.std == pytest.approx(config["std"], abs=0.003)
    if key == "mobilenet_v1":
        assert config["hf_hub_id"] in entry.url and config["license"] == entry.licence.lower()
        assert config["crop_pct"] == 0.875
        assert config["hf_hub_id"].endswith(entry.file.removesuffix(".safetensors"))


@pytest.mark.parametrize("key", LITE)
def test_a_lite_file_is_named_by_its_hash(key: str) -> None:
    assert WEIGHTS[key].sha256[:8] == WEIGHTS[key].file[-12:-4]


@pytest.mark.parametrize(
    "key", ["resnet18", "resnet50", "inception_v3", "efficientnet_b0", "efficientnet_b2"]
)
@pytest.mark.parametrize("size", [(640, 427), (300, 500), (256, 256)])
def test_preprocess_shows_what_torchvisions_transform_shows(
    key: str, size: tuple[int, int]
) -> None:
    """One resize with a box instead of a resize and a crop: the same pixels to half a pixel."""
    ramp = np.stack(
        np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(255, 0, size[1])), axis=-1
    )
    image = Image.fromarray(np.dstack([ramp, ramp.mean(axis=-1)]).astype(np.uint8))
    transform = registered(WEIGHTS[key]).transforms()
    shown = transform(image) * torch.tensor(transform.std).view(3, 1, 1) + torch.tensor(
        transform.mean
    ).view(3, 1, 1)
    pixels = WEIGHTS[key].preprocess.pixels(image)
    assert np.abs(shown.permute(1, 2, 0).numpy() * 255 - pixels).max() <= 2


@pytest.mark.parametrize("network", ["googlenet", "inception_v3"])
def test_transform_input_is_in_preprocess(network: str) -> None:
    """torchvision's network on what its transform gives, ours on what its Preprocess gives: the
    same logits.

    In double precision: fifty layers of random weights amplify how the last digit of a pixel was
        rounded.
    """
    torch.manual_seed(0)
    reference = get_model(
        network, weights=None, aux_logits=True, init_weights=False, transform_input=True
    ).double()
    scaled = torch.rand(3, 3, 128, 160, dtype=torch.float64)
    transform, preprocess = registered(WEIGHTS[network]).transforms(), WEIGHTS[network].preprocess
    theirs = normalised(scaled, transform.mean, transform.std)
    settle(reference, theirs)
    net = models.build(network).double().eval()
    net.load_state_dict(reference.state_dict())
    with torch.no_grad():
        expected, found = (
            reference(theirs),
            net(normalised(scaled, preprocess.mean, preprocess.std)),
        )
        other = net(theirs)
    bound = 1e-5 * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= bound < float((other - expected).abs().max())


def normalised(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    mean, std = (torch.tensor(values, dtype=x.dtype).view(-1, 1, 1) for values in (mean, std))
    return (x - mean) / std


def settle(network: nn.Module, x: Tensor) -> None:
    """Batch-norm statistics of a batch, so that activations neither overflow nor vanish."""
    norms = [m for m in network.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.train().momentum = 1.0
    with torch.no_grad():
        network(x)
    network.eval()


def test_doubles_keep_their_names() -> None:
    """A file with a tensor under the published name and under ours keeps both."""
    zero, expected = torch.zeros(1), {"norm1.weight": torch.zeros(1)}
    rules = ((r"norm\.1\.", "norm1."),)
    for names in (["norm.1.weight", "norm1.weight"], ["norm1.weight", "norm.1.weight"]):
        named = under_our_names(dict.fromkeys(names, zero), expected, rules)
        assert set(named) == {"norm1.weight", "norm.1.weight"}, names
