"""The nearest training images, from what a run and the cache still have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from foveate.classifier import Classifier
from foveate.data.layouts import load_dataset
from foveate.errors import ArtefactError, UsageError
from foveate.explanation.neighbours import TrainingImages
from foveate.features import extract_features


@pytest.fixture
def kept(backbone_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache with which the run was trained."""
    monkeypatch.setenv("FOVEATE_CACHE", str(backbone_cache))


def spoilt(trained: Path, tmp_path: Path, change: dict) -> Classifier:
    """A copy of the run whose first image has something else in data.json."""
    run = shutil.copytree(trained, tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    for file in data["files"].values():
        file |= change
    (run / "data.json").write_text(json.dumps(data))
    return Classifier.load(run)


@pytest.mark.usefixtures("kept")
def test_they_are_the_nearest_of_all(trained: Path, images: Path) -> None:
    classifier = Classifier.load(trained)
    training = TrainingImages(classifier)
    assert training.gone == 0
    dataset = load_dataset(images)
    features = extract_features(dataset, framing=classifier.preprocess.framing)
    learnt = [i for i, split in enumerate(dataset.splits) if split != "test"]
    scaled = features[learnt] - features[learnt].mean(axis=0)
    deviation = features[learnt].std(axis=0) + 1e-6
    asked = dataset.files.index("test/blob/100.jpg")
    row = (features[asked] - features[learnt].mean(axis=0)) / deviation
    scaled /= deviation
    cosine = scaled @ row / np.linalg.norm(scaled, axis=1) / np.linalg.norm(row)
    best = np.argsort(-cosine)[:5]

    found = training.nearest(images / "test/blob/100.jpg", 5)
    assert [one.file for one in found] == [dataset.files[learnt[i]] for i in best]
    assert [one.similarity for one in found] == pytest.approx(cosine[best], abs=0.01)
    assert all(one.labels == (one.file.split("/")[1],) for one in found)


@pytest.mark.usefixtures("kept")
def test_a_training_image_is_not_its_own_neighbour(trained: Path, images: Path) -> None:
    training = TrainingImages(Classifier.load(trained))
    path = sorted((images / "train/noise").iterdir())[0]
    names = [one.file for one in training.nearest(path, 100)]
    assert f"train/noise/{path.name}" not in names and len(names) == 71
    # of its pixels alone it is not known whose they are
    from foveate.data.image import load_image

    first = training.nearest(np.asarray(load_image(path)), 1)[0]
    assert first.file == f"train/noise/{path.name}" and first.similarity > 0.9


def test_without_features_in_the_cache(trained: Path) -> None:
    with refused(ArtefactError, "72 training images", "FOVEATE_CACHE"):
        TrainingImages(Classifier.load(trained))


@pytest.mark.usefixtures("kept")
def test_a_run_that_lacks_what_is_needed(trained: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(trained / "classifier", tmp_path / "alone")
    with refused(ArtefactError, "data.json", "alone"):
        TrainingImages(Classifier.load(alone))
    with refused(ArtefactError, "data.json", "99"):
        TrainingImages(spoilt(trained, tmp_path / "a", {"label": 99}))
    with refused(ArtefactError, "data.json"):
        TrainingImages(spoilt(trained, tmp_path / "b", {"label": "blob"}))
    with refused(ArtefactError, "older version"):
        TrainingImages(spoilt(trained, tmp_path / "c", {"split": "test"}))


def test_what_is_no_probe(trained: Path) -> None:
    classifier = Classifier.load(trained)
    classifier.card |= {"recipe": "finetune"}
    with refused(UsageError, "fine-tuned"):
        TrainingImages(classifier)
    classifier.card |= {"recipe": "probe", "model": "module:Small"}
    with refused(UsageError, "of its own"):
        TrainingImages(classifier)
