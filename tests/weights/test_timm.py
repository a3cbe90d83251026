"""timm's networks through Foveate's contract: against timm itself, and published files on their
way."""

import copy
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import OpenVinoEngine
from foveate.errors import ArtefactError, FoveateError, MissingExtraError, UsageError
from foveate.models.adapters import TimmNetwork
from foveate.models.surgery import drop_head, replace_head
from foveate.probe import PooledStages
from foveate.storage import sha256
from foveate.training.freezing import make_plan
from foveate.weights import timm as ours
from foveate.weights.timm import (
    adapt,
    timm_file,
    timm_network,
    timm_preprocess,
    timm_weights,
)

# The channels of the maps, and the smallest side: a family each.
FAMILIES: dict[str, tuple[tuple[int, ...], int]] = {
    "resnet18": ((64, 64, 128, 256, 512), 1),
    "tf_efficientnet_lite0": ((16, 24, 40, 112, 320, 1280), 1),
    "mobilenetv3_small_100": ((16, 16, 24, 48, 576), 1),
    "convnext_atto": ((40, 80, 160, 320), 32),  # norm, flatten and dropout in its head
    "regnetx_002": ((32, 24, 56, 152, 368), 1),
    "densenet121": ((64, 256, 512, 1024, 1024), 29),
    "vgg11_bn": ((64, 128, 256, 512, 512, 512), 32),  # convolutions 7x7 in its head
    "resnetv2_18": ((64, 64, 128, 256, 512), 1),  # a convolution for a head
    "inception_v3": ((64, 192, 288, 768, 2048), 75),
    "tresnet_m": ((64, 64, 128, 1024, 2048), 20),  # folds 4x4 pixels into channels
}
LARGE = ("densenet121", "inception_v3", "tresnet_m")  # slow to export
EXPORTED = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FAMILIES
]
SMALL = "test_resnet"  # timm's own, for tests


def settle(module: nn.Module, x: Tensor) -> nn.Module:
    """Batch-norm statistics of these images: activations neither overflow nor die out."""
    for m in module.eval().modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train().momentum = 1.0
    with torch.no_grad():
        module(x)
    return module.eval()


def pixels(side: int, n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


# Networks


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name: str) -> None:
    channels, smallest = FAMILIES[name]
    torch.manual_seed(0)
    side = 160 if name == "inception_v3" else 64
    preprocess = Preprocess(side, side)
    x = torch.from_numpy(preprocess.normalise(pixels(side)))
    theirs: Any = settle(timm.create_model(name, num_classes=7), x)
    network = adapt(theirs)
    assert not network.training and network.in_channels == 3
    assert network.input_size == theirs.pretrained_cfg["input_size"][1]
    assert network.min_size == smallest

    with torch.no_grad():
        logits = theirs(x)
        assert torch.equal(network(x), logits)
        embedded = network.embed(x)
        assert embedded.ndim == 2
        if isinstance(network.head, nn.Conv2d):
            embedded = embedded[:, :, None, None]
        torch.testing.assert_close(network.head(embedded).flatten(1), logits)
        torch.testing.assert_close(network(x[:1]), logits[:1], rtol=1e-3, atol=1e-3)

        maps = network.stages(x)
        assert tuple(m.shape[1] for m in maps) == channels
        assert all(m.shape[0] == 4 and m.ndim == 4 for m in maps)
        assert torch.equal(maps[-1], theirs.forward_features(x))
        for i, found in enumerate(maps[:-1]):  # one at a time, so that none is changed in place
            (alone,) = theirs.forward_intermediates(
                x, indices=[i], stop_early=True, intermediates_only=True
            )
            assert torch.equal(found, alone)

        twin = copy.deepcopy(network)
        theirs.get_submodule(network.head_path).weight.zero_()
        assert torch.equal(twin(x), logits) and not torch.equal(network(x), logits)
        last = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(last(x), logits, rtol=1e-3, atol=1e-3)

    replace_head(twin, 3)
    assert twin.eval()(x).shape == (4, 3)
    drop_head(twin)
    assert isinstance(twin.head, nn.Identity) and len(twin.stages(x)) == len(channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_openvino_agrees(name: str) -> None:
    torch.manual_seed(0)
    side = 160 if name == "inception_v3" else 64
    preprocess = Preprocess(side, side)
    x = torch.from_numpy(preprocess.normalise(pixels(side)))
    pooled = PooledStages(adapt(settle(timm.create_model(name, num_classes=2), x)))
    with torch.no_grad():
        expected = pooled(x).numpy()
    graph = to_graph(pooled, preprocess)
    engine = OpenVinoEngine(graph, threads=1, precision_hint="f32", batch=4)
    found = np.concatenate(list(engine.run([pixels(side)])))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "tresnet_m"])
def test_a_transfer_plan(name: str) -> None:
    network = timm_network(name, num_classes=2)
    side = max(64, network.min_size)
    plan = make_plan(network, (3, side, side), "early", lr=1e-3, head_lr=1e-2)
    placed = [name for part in plan.parts for name in part.names]
    assert sorted(placed) == sorted(name for name, _ in network.named_parameters())
    (head,) = (part for part in plan.parts if part.name == "head")
    assert {n.rpartition(".")[0] for n in head.names} == {f"timm.{network.head_path}"}


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = timm_network(SMALL, num_classes=3)
        assert network(torch.empty(2, 3, 64, 64)).shape == (2, 3)


def test_modes_are_timms() -> None:
    module = timm.create_model(SMALL)
    module.layer1.eval()
    network = TimmNetwork(module)
    assert network.training and not module.layer1.training
    assert not network.eval().timm.training


def test_images_that_are_too_small() -> None:
    network = timm_network("densenet121", num_classes=2)
    for reads in (network, network.stages, network.embed):
        with pytest.raises(ValueError, match=r"29x29.*28x28"):
            reads(torch.zeros(2, 3, 28, 28))


def test_a_network_is_adapted_once() -> None:
    network = timm_network(SMALL)
    assert adapt(network) is network


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_vit", "VisionTransformer.*transformer"),
        ("test_convnext3", None),
        ("coat_tiny", "CoaT.*list"),
        ("mambaout_femto", "MambaOut.*channels last"),
        ("levit_128s", "LevitDistilled has 2 last layers"),
        ("efficientvit_m0", "EfficientVitMsra.*head.bn"),  # a batch-norm between
    ],
)
def test_what_is_no_convolutional_network(name: str, words: str | None) -> None:
    if words is None:
        assert timm_network(name).input_size
        return
    with torch.device("meta"), pytest.raises(UsageError, match=f"'{name}'.*{words}"):
        timm_network(name)


def test_modules_that_are_not_timms() -> None:
    with pytest.raises(UsageError, match="Linear is no network of timm"):
        adapt(nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"ResNet has no last layer.*'fc'"):
        adapt(timm.create_model(SMALL, num_classes=0))


# Names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", "'resnet81'.*resnet18"),
        ("resnet18.nope", "'nope' for resnet18.*resnet18.a1_in1k"),
        ("qqq", "'qqq'.*list_models"),
        ("hf-hub:timm/resnet18.a1_in1k", "hf-hub"),
    ],
)
def test_names_that_timm_does_not_know(name: str, words: str) -> None:
    for call in (timm_network, timm_weights, timm_file):
        with pytest.raises(UsageError, match=words):
            call(name)


def test_weights_have_a_full_name_and_an_address() -> None:
    weights = timm_weights("resnet18")
    assert weights == timm_weights("resnet18.a1_in1k")
    assert weights.name == "resnet18.a1_in1k" and weights.licence == "apache-2.0"
    assert weights.url == (
        "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    )
    assert weights.file == "resnet18.a1_in1k.safetensors"
    assert weights.preprocess.resize == 235  # 224 / 0.95


def test_weights_that_are_pickles_are_not_fetched(server: Any) -> None:
    with pytest.raises(UsageError, match=r"legacy_seresnet18.*pickle.*\.pth"):
        timm_file("legacy_seresnet18")
    assert server.asked == []


def test_networks_without_published_weights() -> None:
    with pytest.raises(UsageError, match=r"no published weights for 'botnet50ts_256'.*none"):
        timm_weights("botnet50ts_256")


@pytest.mark.parametrize("key", ["num_classes", "in_channels"])
def test_numbers_below_one(key: str) -> None:
    options: dict[str, Any] = {key: 0}
    with pytest.raises(UsageError, match=f"{key}.*0"):
        timm_network(SMALL, **options)


def test_timm_is_an_extra() -> None:
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "from foveate.weights.timm import timm_network\n"
        "from foveate.errors import MissingExtraError\n"
        "try:\n    timm_network('resnet18')\n"
        "except MissingExtraError as error:\n"
        "    assert \"pip install 'foveate[timm]'\" in str(error), error\n"
        "else:\n    raise SystemExit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert MissingExtraError.exit_code == 3


# Preprocess


def test_preprocess_is_timms_own() -> None:
    """Against timm's transform, on an image larger than it needs."""
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    module = timm.create_model("tf_efficientnet_lite0")
    config = resolve_data_config({}, model=module)
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8))
    image = small.resize((512, 512), Image.Resampling.BICUBIC)
    preprocess = timm_preprocess(module.pretrained_cfg)
    found = preprocess.normalise(preprocess.pixels(image))
    expected = create_transform(**config)(image).numpy()
    assert found.shape == expected.shape == (3, 224, 224)
    assert np.abs(found - expected).mean() < 0.02


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"interpolation": "lanczos"}, "'lanczos'"),
        ({"input_size": (3, 224, 192)}, "224x192"),
        ({"crop_mode": "border"}, "'border'"),
        ({"crop_pct": 1.5}, "106"),
    ],
)
def test_what_no_preprocess_shows(changed: dict[str, Any], words: str) -> None:
    config = timm.create_model(SMALL).pretrained_cfg
    with pytest.raises(UsageError, match=words):
        timm_preprocess({**config, **changed})


def test_a_squashed_image_is_shown_whole() -> None:
    config = timm.create_model(SMALL).pretrained_cfg
    preprocess = timm_preprocess({**config, "crop_mode": "squash", "crop_pct": 1.0})
    assert preprocess.views[0].window(400, 100) == (0, 0, 400, 100)


# Files


def trained(name: str = SMALL, **options: Any) -> Any:
    torch.manual_seed(1)
    return settle(timm.create_model(name, **options), torch.randn(4, 3, 64, 64))


@pytest.fixture
def hub(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(body, path) -> the server, at which timm's files are now found."""

    def publish(body: bytes, path: str = "/good") -> Any:
        server.body = body
        monkeypatch.setattr(ours.TimmWeights, "url", property(lambda _: server.url(path)))
        return server

    return publish


def test_published_weights_are_fetched_once(hub: Callable[..., Any], cache: Path) -> None:
    theirs = trained()
    server = hub(save(theirs.state_dict()))
    with pytest.raises(ArtefactError):
        timm_file(SMALL, fetch=False)
    x = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        network = timm_network(SMALL, pretrained=True).eval()
        with torch.no_grad():
            assert torch.equal(network(x), theirs(x))
    assert server.asked == ["/good"]
    path = timm_file(SMALL, fetch=False)
    assert path == cache / "weights" / "downloads" / timm_weights(SMALL).file
    assert path.with_name(f"{path.name}.sha256").read_text().strip() == sha256(path)
    assert "state_dict" not in network.timm.pretrained_cfg


def test_other_classes_and_channels(hub: Callable[..., Any]) -> None:
    theirs = trained()
    hub(save(theirs.state_dict()))
    network = timm_network(SMALL, num_classes=3, in_channels=1, pretrained=True).eval()
    assert network.head.out_features == network.timm.num_classes == 3
    assert network.in_channels == 1
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        found = network.stages(grey)[-1]
        expected = theirs.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_folding_network_keeps_its_channels(tmp_path: Path) -> None:
    save_file(
        timm.create_model("tresnet_m", num_classes=2).state_dict(), tmp_path / "t.safetensors"
    )
    with pytest.raises(UsageError, match=r"'tresnet_m'.*3 channels"):
        timm_network("tresnet_m", in_channels=1, pretrained=tmp_path / "t.safetensors")


def test_a_backbone_that_was_published_without_a_head(hub: Callable[..., Any]) -> None:
    name = "convnext_atto"
    theirs = trained(name)
    hub(save({k: t for k, t in theirs.state_dict().items() if not k.startswith("head.fc")}))
    with pytest.raises(ArtefactError, match=name):  # this one has a head
        timm_network(name, num_classes=2, pretrained=True)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/cut", "ended after"),
        ("/larger", "more than"),
        ("/endless", "how many bytes"),
        ("/redirect", "only https"),
        ("/missing", "404"),
    ],
)
def test_downloads_that_fail(hub: Callable[..., Any], cache: Path, path: str, words: str) -> None:
    size = 2 * 4 * ours.numbers(SMALL) + ours.MARGIN
    server = hub(bytes(size), path)
    with pytest.raises(FoveateError, match=words):
        timm_network(SMALL, pretrained=True)
    assert set(server.asked) == {path}
    assert not list(cache.rglob("*.safetensors"))


def test_a_file_of_another_network(hub: Callable[..., Any]) -> None:
    hub(save({"weight": torch.zeros(2)}))
    with pytest.raises(ArtefactError, match=f"{timm_weights(SMALL).file}.*{SMALL}"):
        timm_network(SMALL, pretrained=True)


def test_a_pickle_under_that_name_is_not_read(hub: Callable[..., Any]) -> None:
    file = io.BytesIO()
    torch.save(trained().state_dict(), file)
    hub(file.getvalue())
    with pytest.raises(ArtefactError, match="safetensors"):
        timm_network(SMALL, pretrained=True)


def test_a_file_that_changed_is_not_read(hub: Callable[..., Any]) -> None:
    hub(save(trained().state_dict()))
    path = timm_file(SMALL)
    save_file(timm.create_model(SMALL).state_dict(), path)
    with pytest.raises(ArtefactError, match="SHA-256"):
        timm_network(SMALL, pretrained=True)


def test_offline_nothing_is_fetched(
    hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = hub(save(trained().state_dict()))
    with pytest.raises(ArtefactError, match="not in the cache"):
        timm_file(SMALL, fetch=False)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    with pytest.raises(FoveateError, match="FOVEATE_OFFLINE"):
        timm_network(SMALL, pretrained=True)
    assert server.asked == []


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of SMALL, as huggingface's own client keeps them; the path of the bytes."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = timm_weights(SMALL).repository.replace("/", "--")
    folder = tmp_path / "hub" / f"models--{repository}"
    for part in ("blobs", "refs", "snapshots/abc"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    save_file(trained().state_dict(), tmp_path / "file")
    blob = folder / "blobs" / sha256(tmp_path / "file")
    (tmp_path / "file").rename(blob)
    (folder / "snapshots/abc/model.safetensors").symlink_to(blob)
    return blob


def test_huggingfaces_own_cache_is_used(hub: Callable[..., Any], hugging_face: Path) -> None:
    server = hub(b"")
    assert timm_file(SMALL, fetch=False).resolve() == hugging_face
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = timm_network(SMALL, pretrained=True).eval()(x)
        assert torch.equal(found, trained()(x))
    assert server.asked == []
    hugging_face.write_bytes(hugging_face.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="damaged"):
        timm_file(SMALL)


@pytest.mark.parametrize("prefix", ["", "timm.", "module."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_of_the_users(tmp_path: Path, prefix: str, suffix: str) -> None:
    theirs = trained(num_classes=5)
    path = tmp_path / f"mine{suffix}"
    tensors = {prefix + name: t for name, t in theirs.state_dict().items()}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    network = timm_network(SMALL, pretrained=path).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), theirs(x))
    assert timm_network(SMALL, num_classes=2, pretrained=str(path)).head.out_features == 2


def test_a_networks_own_state_comes_back(tmp_path: Path) -> None:
    network = timm_network(SMALL, num_classes=4, in_channels=1)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    back = timm_network(SMALL, pretrained=tmp_path / "own.safetensors")
    assert back.in_channels == 1
    state = back.state_dict()
    assert state.keys() == load_file(tmp_path / "own.safetensors").keys()
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())


def test_files_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    tensors = trained(num_classes=5).state_dict()
    del tensors["conv1.weight" if "conv1.weight" in tensors else next(iter(tensors))]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(ArtefactError, match=r"part.safetensors.*1 missing"):
        timm_network(SMALL, pretrained=tmp_path / "part.safetensors")
    with pytest.raises(ArtefactError, match="no file"):
        timm_network(SMALL, pretrained=tmp_path / "none.pth")
