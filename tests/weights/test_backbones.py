"""From a weights file in the cache to a saved classifier, the same for every network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused
from settling import settled

from foveate import download
from foveate.classifier import Classifier
from foveate.errors import FoveateError
from foveate.training import train
from foveate.weights import WEIGHTS


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "engine"),
    [
        ("mobilenet_v3_small", "openvino"),
        ("shufflenet_v2_x0_5", "torch"),
        ("mobilenet_v2.v1", "torch"),
        ("squeezenet1_1", "torch"),
        ("googlenet", "torch"),
    ],
)
def test_train_save_load_predict(
    key: str,
    engine: str,
    plant: Callable[..., object],
    draw_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    plant(key, settled(WEIGHTS[key].network).state_dict())
    photos = draw_folder(tmp_path / "photos", 6)
    classifier = train(photos, model=key, engine=engine, out=tmp_path / "run")
    card = json.loads((tmp_path / "run/classifier/card.json").read_text())
    assert (
        card["model"] == key
        and json.loads((tmp_path / "run/metrics.json").read_text())["model"] == key
    )
    files = sorted(photos.rglob("*.*"))[:4]
    loaded = Classifier.load(tmp_path / "run")
    assert [p.label for p in loaded.predict(files)] == [p.label for p in classifier.predict(files)]
    pixels = np.stack([loaded.preprocess.pixels(image(file)) for file in files])
    with torch.no_grad():
        logits = loaded.network()(torch.from_numpy(loaded.preprocess.normalise(pixels)))
    top = {p.file: dict(p.top) for p in loaded.predict(files)}
    for file, row in zip(files, logits.softmax(dim=1), strict=True):
        for name, probability in zip(loaded.classes, row.tolist(), strict=True):
            assert top[str(file)][name] == pytest.approx(probability, abs=0.02)  # bf16 and f32
    again = train(photos, model=key, engine=engine, out=tmp_path / "again")
    assert json.loads((again.run / "metrics.json").read_text())["computed"] == 0


def image(file: Path) -> object:
    from foveate.data.image import load_image

    return load_image(file.read_bytes())


def test_without_the_file_nothing_begins(
    draw_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a run's folder is left, and no network is used."""
    monkeypatch.setattr(
        download.urllib.request, "build_opener", lambda *_: pytest.fail("used the network")
    )
    photos = draw_folder(tmp_path / "photos", 3)
    with refused(FoveateError, "resnet18-f37072fd.pth", "FOVEATE_OFFLINE"):
        train(photos, model="resnet18", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
