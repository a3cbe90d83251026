"""An untrusted classifier folder: impossible cards, forged tensors and pickles are refused."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused
from safetensors.numpy import load_file

from foveate.classifier import Classifier
from foveate.errors import ArtefactError
from foveate.storage import sha256


def use_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")


# Cards


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
        *[("classes", v) for v in (["a"], [], None, 3, "abc", ["a", 1, "b"])],
        *[("classes", v) for v in (["a", "b"], list("abcd"), [["a"], "b", "c"])],
        ("classes", {"a": 1, "b": 2, "c": 3}),
        ("classes", ["a", "a", "b"]),
        *[("model", v) for v in (None, 1, [], {}, "resnet", "efficientnet_b0", "os.system")],
        ("model", "efficientnet_lite1"),
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
    path: str, value: Any, engine: str, folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at the latest at the first prediction, or the predictions are as before."""
    if engine == "torch":
        use_torch(monkeypatch)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(changed(card, path, value)))
    answers_or_refuses(folder, image)


def test_a_card_cannot_point_outside(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    card["files"]["../secret"] = "0" * 64
    (folder / "card.json").write_text(json.dumps(card))
    with refused(ArtefactError, "card.json'", "damaged"):
        Classifier.load(folder)


def test_a_graph_of_another_size_is_refused(folder: Path, image: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(changed(card, "preprocess/crop", 192)))
    with refused(ArtefactError, "engine.xml'", "(224, 224, 3)"):
        Classifier.load(folder).predict(image)


def answers_or_refuses(folder: Path, image: Path) -> None:
    try:
        found = Classifier.load(folder).predict(image)
    except ArtefactError as error:
        assert str(error)
    else:
        assert (
            np.isfinite(found.probability)
            and len(found.top) == 3
            and all(isinstance(c, str) for c, _ in found.top)
        )


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


def test_a_fuzzed_card_gives_our_errors_only(trained: Path, folder: Path, image: Path) -> None:
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
                classifier.predict(image)
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


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 10_000, '{"format": 1}', "null", '"x"', "[]", "NaN", "\ufeff{}"]
)
def test_odd_json_is_refused(text: str, folder: Path) -> None:
    (folder / "card.json").write_text(text, encoding="utf-8")
    with refused(ArtefactError, "card.json'", "damaged"):
        Classifier.load(folder)


# Pickles and tensors


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
    name: str,
    disguise: str,
    card: str,
    folder: Path,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        torch.save(
            {"linear.weight": bomb},
            folder / name,
            _use_new_zipfile_serialization=disguise == "torch",
        )
    if card == "forged" and name != "card.json":
        forged = json.loads((folder / "card.json").read_text())
        forged["files"][name] = sha256(folder / name)
        (folder / "card.json").write_text(json.dumps(forged))
    for engine in ("openvino", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr("foveate.classifier.choose_engine", lambda engine=engine: engine)
            if card == "forged" and name in ("engine.xml", "engine.bin") and engine == "torch":
                Classifier.load(folder).predict(image)  # does not touch the graph
            else:
                with pytest.raises(ArtefactError):
                    Classifier.load(folder).predict(image)
    assert not marker.exists()


def test_the_bomb_of_the_test_above_goes_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))
    assert (tmp_path / "boom").exists()


def test_forged_tensors_are_refused(
    folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Safetensors of another shape or name, under a card that vouches for them."""
    from safetensors.numpy import save_file

    good = load_file(folder / "model.safetensors")
    card = json.loads((folder / "card.json").read_text())
    use_torch(monkeypatch)
    for tensors in (
        good | {"linear.weight": good["linear.weight"][0]},
        good
        | {
            "linear.weight": good["linear.weight"][:2].copy(),
            "linear.bias": good["linear.bias"][:2].copy(),
        },
        good | {"extra": good["linear.bias"]},
        {name: t for name, t in good.items() if name != "linear.bias"},
        {"linear.weight": good["linear.weight"]},
        {"x": good["linear.bias"]},
    ):
        save_file(tensors, folder / "model.safetensors")
        card["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
        (folder / "card.json").write_text(json.dumps(card))
        with refused(ArtefactError, "model.safetensors'", "fit"):
            Classifier.load(folder).predict(image)
