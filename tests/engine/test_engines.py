"""Engines: OpenVINO against torch, and what happens when a graph is damaged or cannot be made."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from refusals import refused
from torch import nn

from foveate import engine, models
from foveate.engine import choose_engine, prepare_backbone
from foveate.engine.conversion import graph_path, is_whole
from foveate.engine.openvino import (
    Branch,
    OpenVinoBackbone,
    OpenVinoEngine,
    attach_head,
    precision,
    read_graph,
    save_graph,
)
from foveate.engine.torch import TorchBackbone, TorchEngine
from foveate.errors import ArtefactError, FoveateError, MissingExtraError, UsageError
from foveate.machine import has_gpu
from foveate.models.folding import fold_batchnorm
from foveate.probe import PooledStages, Probe
from foveate.weights import build, find_weights
from foveate.weights.starting_point import find_start

LITE0 = "efficientnet_lite0"
START = find_start(LITE0)
PREPROCESS = find_weights(LITE0).preprocess.at(224)
WIDTH = 3632  # numbers in Lite0's pooled stages
PRECISIONS = ("bf16", "f32") if precision() == "bf16" else ("f32",)


@pytest.fixture(scope="module")
def pixels(draw_image: Callable[[str, int], Image.Image]) -> NDArray[np.uint8]:
    """Two dozen drawn images, (24, 224, 224, 3)."""
    kinds = ("blob", "noise", "stripes")
    return np.stack(
        [PREPROCESS.pixels(draw_image(kind, seed)) for kind in kinds for seed in range(8)]
    )


@pytest.fixture(scope="module")
def reference(pixels: NDArray[np.uint8], backbone_cache: Path) -> NDArray[np.float32]:
    """The pooled stages in plain torch, on numbers that Preprocess normalised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        network = PooledStages(build(LITE0, weights="imagenet")).eval()
    with torch.no_grad():
        return network(torch.from_numpy(PREPROCESS.normalise(pixels))).numpy()


def run(
    runner: engine.Engine, pixels: NDArray[np.uint8], batch: int | None = None
) -> NDArray[np.float32]:
    size = batch or runner.batch
    return np.concatenate(
        list(runner.run(pixels[i : i + size] for i in range(0, len(pixels), size)))
    )


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def close(found: NDArray[np.float32], expected: NDArray[np.float32], share: float) -> bool:
    return bool(np.abs(found - expected).max() <= share * np.abs(expected).max())


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("hint", PRECISIONS)
def test_openvino_gives_torchs_features(
    hint: str, pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    found = run(OpenVinoEngine(graph_path(START, PREPROCESS), 2, hint), pixels)
    assert found.shape == (24, WIDTH) and found.dtype == np.float32
    likeness = cosines(found, reference)
    assert likeness.min() >= 0.995 and np.median(likeness) >= 0.999
    # images differ by more than precisions do: compare what is left when the mean is taken away
    centred = cosines(found - reference.mean(axis=0), reference - reference.mean(axis=0))
    assert np.median(centred) >= (0.98 if hint == "bf16" else 0.9999)
    if hint == "f32":
        assert close(found, reference, 1e-3)


@pytest.mark.usefixtures("warm_cache")
def test_the_torch_engine_gives_torchs_features(
    pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    backbone = prepare_backbone("torch", START, PREPROCESS, 2)
    backbone.start()
    found = run(backbone.engine(), pixels)
    backbone.cancel()
    assert isinstance(backbone, TorchBackbone) and found.dtype == np.float32
    assert close(found, reference, 1e-4)
    assert torch.__version__ in backbone.identity and "f32" in backbone.identity


@pytest.mark.usefixtures("warm_cache")
def test_prepared_openvino_backbone(
    pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    backbone = prepare_backbone("openvino", START, PREPROCESS, 1)
    assert isinstance(backbone, OpenVinoBackbone)
    assert cosines(run(backbone.engine(), pixels[:3]), reference[:3]).min() > 0.995
    assert backbone.process is None  # the graph was there
    assert precision() in backbone.identity and "openvino" in backbone.identity


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("hint", PRECISIONS)
def test_threads_do_not_change_a_bit(hint: str, threads: int, pixels: NDArray[np.uint8]) -> None:
    path = graph_path(START, PREPROCESS)
    assert np.array_equal(
        run(OpenVinoEngine(path, threads, hint), pixels[:9]),
        run(OpenVinoEngine(path, 2, hint), pixels[:9]),
    )


@pytest.mark.usefixtures("warm_cache")
def test_openvino_keeps_the_order_and_may_be_left_and_shared(
    pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    """More images than requests; a run may be abandoned halfway, or used by several threads."""
    runner = OpenVinoEngine(graph_path(START, PREPROCESS), 1, "f32")
    left = runner.run(pixels[i : i + 1] for i in range(24))
    assert close(next(left), reference[:1], 1e-3)
    with ThreadPoolExecutor(2) as pool:
        forwards, backwards = pool.map(
            lambda order: run(runner, pixels[order]), [np.arange(24), np.arange(24)[::-1]]
        )
    assert close(forwards, reference, 1e-3)
    assert np.array_equal(forwards, backwards[::-1])
    assert np.array_equal(np.concatenate(list(left)), forwards[1:])


@pytest.mark.parametrize("size", [1, 5, 24])
def test_torch_batches_do_not_matter(size: int, pixels: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    runner = TorchEngine(module, PREPROCESS, 1)
    with torch.no_grad():
        expected = module.cpu()(torch.from_numpy(PREPROCESS.normalise(pixels))).numpy()
    assert close(run(runner, pixels, size), expected, 1e-4)


def test_the_torch_engine_gives_back_the_threads_it_took() -> None:
    before = torch.get_num_threads()
    list(TorchEngine(nn.Flatten(), PREPROCESS, before + 1).run([np.zeros((1, 2, 2, 3), np.uint8)]))
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("warm_cache")
def test_no_batches_give_no_rows() -> None:
    assert list(OpenVinoEngine(graph_path(START, PREPROCESS), 1).run([])) == []


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("mirror", [True, False], ids=["mirror", "plain"])
def test_attached_head_is_the_probe(mirror: bool, pixels: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    probe = Probe(build(LITE0, weights="imagenet"), WIDTH, 5, mirror).eval()
    nn.init.normal_(probe.linear.bias)
    weight, bias = (p.detach().numpy() for p in (probe.linear.weight, probe.linear.bias))
    graph = attach_head([Branch(graph_path(START, PREPROCESS), mirror=mirror)], weight, bias)
    found = run(OpenVinoEngine(graph, 2, "f32"), pixels[:6])
    with torch.no_grad():
        expected = probe(torch.from_numpy(PREPROCESS.normalise(pixels[:6]))).numpy()
    assert found.shape == (6, 5)
    assert close(found, expected, 1e-3)
    flipped = run(OpenVinoEngine(graph, 2, "f32"), pixels[:6, :, ::-1])
    assert close(found, flipped, 1e-4) == mirror


@pytest.mark.parametrize("name", [LITE0, "efficientnet_b0"])
def test_folding_batchnorm_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = models.build(name)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for m in network.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = 1.0
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias)
        network.train()(x)
        expected = network.eval()(x)
        fold_batchnorm(network, x)
        assert close(network(x).numpy(), expected.numpy(), 1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.usefixtures("warm_cache")
def test_folding_the_published_batchnorms_changes_no_feature(
    pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    module = PooledStages(build(LITE0, weights="imagenet")).eval()
    x = torch.from_numpy(PREPROCESS.normalise(pixels[::6]))
    with torch.no_grad():
        fold_batchnorm(module, x[:2])
        assert close(module(x).numpy(), reference[::6], 1e-4)


def test_a_batchnorm_that_reads_no_convolution_stays() -> None:
    module = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 3, 1),
        nn.ReLU(),
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 2, 1, bias=False),
    )
    module.append(nn.BatchNorm2d(2))
    module.eval()
    for m in (module[0], module[3], module[5]):
        m.running_mean.fill_(0.3)
        m.running_var.fill_(2.0)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        expected = module(x)
        fold_batchnorm(module, x)
        torch.testing.assert_close(module(x), expected)
    assert [type(m) for m in module] == [
        nn.BatchNorm2d,
        nn.Conv2d,
        nn.ReLU,
        nn.BatchNorm2d,
        nn.Conv2d,
        nn.Identity,
    ]


class Shortcut(nn.Module):
    """What a convolution gives is read by a batch-norm, and by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class Shared(nn.Module):
    """One convolution with two batch-norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.conv(self.one(self.conv(x))))


class WithActivation(nn.BatchNorm2d):
    """As timm's: the activation is in the batch-norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x))


@pytest.mark.parametrize(
    "module",
    [
        Shortcut(),
        Shared(),
        nn.Sequential(nn.Conv2d(3, 3, 1), WithActivation(3)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(3)),
    ],
    ids=["read twice", "used twice", "a subclass", "changed in place"],
)
def test_a_batchnorm_that_is_not_the_convolutions_stays(module: nn.Module) -> None:
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -1, 1)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -1, 1)
    x = torch.randn(2, 3, 4, 4)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with torch.no_grad():
        expected = module.eval()(x)
        fold_batchnorm(module, x)
        torch.testing.assert_close(module(x), expected)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], t) for name, t in before.items())


# Choosing


def test_engines_are_named() -> None:
    assert choose_engine("torch") == "torch"
    assert choose_engine("openvino") == "openvino"
    with refused(UsageError, "'tensorrt'", "auto", "openvino", "torch"):
        choose_engine("tensorrt")


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert choose_engine() == "torch"
    with refused(MissingExtraError, "pip install openvino"):
        choose_engine("openvino")


@pytest.mark.parametrize(("gpu", "chosen"), [(True, "torch"), (False, "openvino")])
def test_a_gpu_decides(gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_gpu", lambda: gpu)
    assert choose_engine() == chosen
    assert choose_engine("openvino") == "openvino"


@pytest.mark.parametrize("there", [True, False])
def test_torch_is_asked_for_a_gpu_only_where_a_driver_is(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: there)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert has_gpu() == there


def test_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert has_gpu()


# Damage


@pytest.mark.parametrize(
    "content", [b"", b"<net>", b"\x80\x04cposix\nsystem\n", b"<?xml version='1.0'?><net/>"]
)
def test_damaged_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.xml").write_bytes(content)
    (tmp_path / "graph.bin").write_bytes(b"")
    with refused(ArtefactError, "graph.xml", "OpenVINO"):
        OpenVinoEngine(tmp_path / "graph.xml", 1)


def test_missing_graph_is_refused(tmp_path: Path) -> None:
    with refused(ArtefactError, "none.xml", "OpenVINO"):
        read_graph(tmp_path / "none.xml")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "graph.xml"),
        lambda folder: flip(folder / "graph.bin"),
        lambda folder: os.truncate(folder / "graph.bin", 100),
        lambda folder: (folder / "graph.bin").unlink(),
        lambda folder: (folder / "SHA256").unlink(),
        lambda folder: (folder / "SHA256").write_bytes(b"\xff\xfe\x00"),
        lambda folder: shutil.rmtree(folder),
    ],
    ids=["xml", "bin", "truncated", "no bin", "no stamp", "binary stamp", "gone"],
)
def test_damage_is_noticed(
    damage: Callable[[Path], None], backbone_cache: Path, cache: Path
) -> None:
    shutil.copytree(backbone_cache / "networks", cache / "networks")
    path = graph_path(START, PREPROCESS)
    assert path.is_relative_to(cache) and is_whole(path)
    damage(path.parent)
    assert not is_whole(path)


@pytest.mark.slow
def test_a_damaged_graph_is_converted_again(
    backbone_cache: Path, cache: Path, pixels: NDArray[np.uint8], reference: NDArray[np.float32]
) -> None:
    shutil.copytree(backbone_cache / "networks", cache / "networks")
    (cache / "weights").symlink_to(backbone_cache / "weights")
    path = graph_path(START, PREPROCESS)
    flip(path.with_suffix(".bin"))
    backbone = prepare_backbone("openvino", START, PREPROCESS, 2)
    backbone.start()
    backbone.start()  # once is enough
    assert cosines(run(backbone.engine(), pixels[:2]), reference[:2]).min() > 0.995
    assert is_whole(path)
    assert not list((cache / "networks").glob(".*"))  # nothing temporary is left


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda p: p.at(256), False),
        (lambda p: p.at(224, 1.12), True),  # a way to cut images, not to compute
    ],
)
def test_a_graphs_path_depends_on_what_is_in_the_graph(
    change: Callable[..., Any], same: bool
) -> None:
    changed = change(PREPROCESS)
    assert (graph_path(START, changed) == graph_path(START, PREPROCESS)) == same


def test_new_rules_make_a_new_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_path(START, PREPROCESS)
    monkeypatch.setattr("foveate.engine.conversion.RULES", 99)
    assert graph_path(START, PREPROCESS) != before


def test_a_failing_conversion_reports_the_reason() -> None:
    backbone = OpenVinoBackbone(START, PREPROCESS, 1)
    backbone.command = [sys.executable, "-c", "raise SystemExit('the moon is full')"]
    backbone.start()
    with refused(FoveateError, LITE0, "OpenVINO", "the moon is full"):
        backbone.engine()


def test_the_conversion_reports_a_refused_weights_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = find_weights(LITE0)
    place = tmp_path / weights.package
    (place / weights.file).parent.mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / weights.file).write_bytes(b"\x80\x04cposix\nsystem\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with refused(FoveateError, Path(weights.file).name, "not the published file"):
        OpenVinoBackbone(START, PREPROCESS, 1).engine()


def test_cancelled_conversion_is_gone() -> None:
    backbone = OpenVinoBackbone(START, PREPROCESS, 1)
    backbone.cancel()  # nothing was begun
    backbone.command = [sys.executable, "-c", "import time; time.sleep(600)"]
    backbone.start()
    backbone.cancel()
    assert backbone.process is not None and backbone.process.returncode != 0
    backbone.cancel()


@pytest.mark.usefixtures("warm_cache")
def test_openvino_neither_calls_nor_writes_home(python: Callable[..., str], tmp_path: Path) -> None:
    """Its telemetry does both when it is imported without precautions."""
    home = tmp_path / "home"
    home.mkdir()
    program = """
import os, socket, sys
def refuse(*_, **__): raise AssertionError("a socket was opened")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
import foveate.engine.openvino as openvino
from foveate.weights.starting_point import find_start
start = find_start("efficientnet_lite0")
backbone = openvino.OpenVinoBackbone(start, start.preprocess, 1)
backbone.engine()
assert sys.modules["openvino_telemetry"] is None
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
assert "torch" not in sys.modules
"""
    gone = {
        name: str(home)
        for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    }
    python(program, **gone)
    assert list(home.rglob("*")) == []


def test_no_module_but_one_imports_openvino() -> None:
    import ast

    package = Path(engine.__file__).parents[1]
    importers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += (
                [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            )
            if any(
                name.split(".")[0] in ("openvino", "openvino_telemetry", "nncf") for name in names
            ):
                importers.add(file.relative_to(package).as_posix())
    assert importers == {"engine/openvino.py"}


@pytest.mark.usefixtures("warm_cache")
def test_a_graph_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.xml").mkdir()
    with refused(FoveateError, "x.xml", "disk"):
        save_graph(read_graph(graph_path(START, PREPROCESS)), tmp_path / "x.xml")


def test_the_converter_is_imported_when_it_is_called(python) -> None:
    """By whoever in the process calls it, also by OpenVINO's own name."""
    program = """
import sys
import foveate.engine.openvino
import openvino
before = "openvino.tools.ovc" in sys.modules
try:
    openvino.convert_model()
except Exception as error:
    print(before, "openvino.tools.ovc" in sys.modules, type(error).__module__.split(".")[0])
"""
    before, after, whose = python(program).split()
    assert (before, after) == ("False", "True") and whose != "foveate"


def test_an_openvino_that_was_there_first_stays_as_it_is(python) -> None:
    program = """
import sys
sys.modules["openvino_telemetry"] = None
import openvino
theirs = openvino.convert_model
import foveate.engine.openvino
print(openvino.convert_model is theirs)
"""
    assert python(program).strip() == "True"
