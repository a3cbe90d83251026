"""A classifier's folder: its contents, detection of changes, and atomic saving."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from safetensors.numpy import load_file

from foveate.classifier import Classifier
from foveate.classifier.card import model_card
from foveate.classifier.decision import Decision
from foveate.classifier.saving import ProbeBranch, save_probe
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, FoveateError
from foveate.heads import Head
from foveate.storage import sha256
from foveate.weights import find_weights
from foveate.weights.starting_point import find_start

FILES = ("README.md", "card.json", "engine.bin", "engine.xml", "model.safetensors")


# What is on disk


def test_the_folder_holds_what_is_documented(trained: Path) -> None:
    folder = trained / "classifier"
    assert sorted(p.name for p in folder.iterdir()) == list(FILES)
    card = json.loads((folder / "card.json").read_text())
    assert card["files"] == {
        name: sha256(folder / name) for name in FILES if name not in ("README.md", "card.json")
    }
    assert card["classes"] == ["blob", "noise", "stripes"] and card["format"] == 4
    assert (
        card["model"] == "efficientnet_lite0"
        and card["mirror"] is False
        and card["temperature"] > 0
    )
    assert card["metrics"]["test"]["n"] == 24 and card["metrics"]["out_of_fold"]["n"] == 72
    readme = (folder / "README.md").read_text()
    assert (
        "blob, noise, stripes" in readme and f"{card['metrics']['test']['accuracy']:.1%}" in readme
    )


def test_nothing_names_its_owner(trained: Path, images: Path) -> None:
    """No path, host or user in any text of the run; no path or time in the tensors."""
    import getpass
    import socket

    secrets = [
        str(trained.parent),
        str(images.parent),
        str(Path.home()),
        "/tmp/",
        str(Path.cwd()),
        socket.gethostname(),
    ]
    secrets += [name for name in (getpass.getuser(),) if len(name) > 4]
    binary = (".bin", ".safetensors", ".png")
    texts = [p for p in trained.rglob("*") if p.is_file() and p.suffix not in binary]
    assert len(texts) >= 9
    for file in texts:
        text = re.sub(r"base64,[^\"']*", "", file.read_text())  # images, of random letters
        assert [secret for secret in secrets if secret and secret in text] == [], file
    head = (trained / "classifier" / "model.safetensors").read_bytes()
    assert "__metadata__" not in json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])


def test_no_pickle_anywhere(trained: Path) -> None:
    for file in trained.rglob("*"):
        if file.is_file():
            texts = {".json", ".jsonl", ".txt", ".md", ".html"}
            assert file.suffix in {*texts, ".safetensors", ".xml", ".bin", ".png"}
            assert file.read_bytes()[:2] not in (
                b"\x80\x02",
                b"\x80\x03",
                b"\x80\x04",
                b"\x80\x05",
                b"PK",
            )


def test_tensors_are_the_probes(trained: Path) -> None:
    tensors = load_file(trained / "classifier" / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"backbone", "linear"}
    assert tensors["linear.weight"].shape == (3, 3632) and tensors["linear.bias"].shape == (3,)
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
    with refused(ArtefactError, f"{name}'", "SHA-256"):
        Classifier.load(folder)


@pytest.mark.parametrize("name", ["engine.bin", "engine.xml", "model.safetensors"])
def test_a_missing_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with refused(ArtefactError, f"{name}'", "missing"):
        Classifier.load(folder)
    (folder / name).mkdir()
    with refused(ArtefactError, f"{name}'", "missing"):
        Classifier.load(folder)


@pytest.mark.parametrize("damage", ["half", "empty", "longer", "pickle", "first byte"])
def test_a_damaged_card_is_refused(damage: str, folder: Path) -> None:
    (folder / "card.json").write_bytes(DAMAGES[damage]((folder / "card.json").read_bytes()))
    with refused(ArtefactError, "card.json'", "damaged"):
        Classifier.load(folder)


@pytest.mark.parametrize(
    "where",
    [
        lambda t: t / "nothing",
        lambda t: t,
        lambda t: t / ("x" * 300),
        lambda t: t / "file" / "below",
    ],
)
def test_no_classifier_there(where: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(ArtefactError, str(where(tmp_path)), "foveate train"):
        Classifier.load(where(tmp_path))


def test_a_newer_format_is_refused(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"format": 6}))
    with refused(ArtefactError, "format 6", "5"):
        Classifier.load(folder)


def test_the_model_card_says_its_numbers() -> None:
    metrics = {
        "test": {
            "n": 10,
            "accuracy": 0.9,
            "accuracy_ci95": [0.596, 0.982],
            "macro_f1": 0.8,
            "ece": 0.05,
        }
    }
    card = {
        "classes": ["a", "b"],
        "thresholds": None,
        "model": "m",
        "recipe": "probe",
        "preprocess": Preprocess(224, 224).framed("whole+2/3").to_dict(),
        "metrics": metrics,
    }
    text = model_card(card)
    assert "Backbone m, frozen" in text
    assert (
        "It sees the whole of an image's shorter side, in 224 pixels; and the centre 67 % of an "
        "image's shorter side, in 224 pixels." in text
    )
    joined = model_card(card | {"branches": [{"model": "m"}, {"model": "n"}]})
    assert "Backbones m, n, frozen; a linear head solved on their stages" in joined
    assert (
        "- test: accuracy 90.0% (95 % interval 59.6% to 98.2%) on 10 images, macro-F1 0.800, ECE "
        "0.050" in text
    )
    assert "It knows only these classes" in text
    several = model_card(card | {"thresholds": [0.5, 0.25]})
    assert (
        "- test: all labels right 90.0% " in several
        and "Labels: a (from 50% on), b (from 25% on)." in several
    )


# Saving


def head(classes: int = 2, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    weight, bias = (
        rng.normal(size=(classes, 3632)).astype(np.float32),
        np.zeros(classes, np.float32),
    )
    none = np.zeros((1, 0))
    return Head(weight, bias, 1e-3, 1.0, np.zeros((0, classes), np.float32), (), none, none == 1)


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
        [ProbeBranch(find_start("efficientnet_lite0"), preprocess)],
        head(len(classes), seed),
        Decision(thresholds),
        classes,
        engine,
        {"metrics": {}},
    )


@pytest.mark.usefixtures("warm_cache")
def test_saving_onto_an_older_classifier_replaces_it(tmp_path: Path) -> None:
    save(tmp_path / "c", engine="openvino")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == list(FILES)
    assert save(tmp_path / "c", classes=("x", "y", "z")).classes == ("x", "y", "z")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "README.md",
        "card.json",
        "model.safetensors",
    ]
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
            return file.write(
                arguments[0] if isinstance(arguments[0], bytes) else arguments[0].encode()
            )

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with refused(FoveateError, str(tmp_path), "disk is full"):
        save(tmp_path / "c", seed=1)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    Classifier.load(tmp_path / "c")


@pytest.mark.usefixtures("warm_cache")
def test_any_class_name_is_kept_and_harmless(tmp_path: Path, image: Path) -> None:
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
    assert found.classes == names and found.predict(image).label in names
    readme = (tmp_path / "c" / "README.md").read_text(encoding="utf-8")
    assert (
        "<script" not in readme
        and "](http" not in readme
        and "\u202e" not in readme
        and "`c`" not in readme
    )
    assert "new\nline" not in readme


@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize(
    "thresholds", [[0.5], [0.5, 0.5, 0.5], [0.5, 1.0], [0.5, "x"], [0.5, 1], 0.5, {}]
)
def test_a_card_with_impossible_thresholds_is_damaged(thresholds: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "c", thresholds=(0.5, 0.25)).folder
    assert Classifier.load(folder).decision == Decision((0.5, 0.25))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"thresholds": thresholds}))
    with refused(ArtefactError, "card.json'", "damaged"):
        Classifier.load(folder)
