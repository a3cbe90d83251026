"""The canon through the command, timm's networks, and the pages' JavaScript: slow."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import foveate
from exportable import ABOUT, odd_files, small_classifier
from settling import settled

from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.classifier.saving import make_card, write_classifier
from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.weights.timm import adapt

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

CANON = (  # of each kind of block one
    "alexnet alexnet_2012 densenet121 efficientnet_b0 efficientnet_lite0 googlenet inception_v3 "
    "mobilenet_v2 mobilenet_v3_large nin resnet18 resnet50 shufflenet_v1 shufflenet_v2_x0_5 "
    "squeezenet1_0 vgg11_bn"
).split()
TIMM = "convnext_atto mobilenetv3_small_100 regnetx_002 resnetv2_18 tresnet_m".split()
PAGE = Path(__file__).parents[2] / "docs/ship.md"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_files(tmp_path_factory.mktemp("files") / "odd")


def saved(folder: Path, name: str, network: torch.nn.Module, side: int) -> Classifier:
    """A classifier of a thousand classes, with the network as it is."""
    preprocess = Preprocess(side, side)
    tensors = {n: t.detach().clone().numpy() for n, t in network.state_dict().items()}
    card = make_card(
        form="network",
        recipe="scratch",
        model=name,
        mirror=False,
        temperature=1.0,
        divide=False,
        decision=Decision(),
        classes=tuple(f"class {number}" for number in range(1000)),
        preprocess=preprocess,
        about=ABOUT,
    )
    return write_classifier(folder, card, tensors, to_graph(network, preprocess))


def proves(folder: Path, files: Path) -> None:
    for format in ("onnx", "openvino"):
        done = foveate("export", folder, "--format", format, "--images", files, "--json")
        assert done.returncode == 0, done.stderr
        proof = json.loads(done.stdout)["proof"]
        assert proof["images"] == len(list(files.iterdir())), proof


@pytest.mark.parametrize("name", CANON)
def test_the_canon(name: str, tmp_path: Path, files: Path) -> None:
    network = settled(name)
    saved(tmp_path / "classifier", name, network, network.input_size)
    proves(tmp_path, files)


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name: str, tmp_path: Path, files: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = adapt(timm.create_model(name)).eval()
    saved(tmp_path / "classifier", f"timm:{name}", network, 128)
    proves(tmp_path, files)


def test_the_javascript_of_the_page(tmp_path: Path, files: Path) -> None:
    """Where node and the npm registry are."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node is not installed")
    (program,) = re.findall(r"^```javascript\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "classify.mjs").write_text(program)
    install = [npm, "install", "--no-audit", "--no-fund", "onnxruntime-web"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install onnxruntime-web: {installed.stderr[-200:]}")

    classifier = small_classifier(tmp_path / "run")
    exported = foveate("export", tmp_path / "run", "--images", files, "--out", tmp_path / "out")
    assert exported.returncode == 0, exported.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "pixels.raw").write_bytes(pixels.tobytes())
    done = subprocess.run(
        ["node", "classify.mjs", "out", "pixels.raw"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {row["label"]: row["probability"] for row in json.loads(done.stdout)}
    expected = dict(classifier.predict(pixels, top=3).top)
    assert found == pytest.approx(expected, abs=0.02)
