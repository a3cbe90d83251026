"""Images that cannot be read, too few of them, and arguments that do not fit: skipped and named, or
refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnt import tensors
from PIL import Image
from refusals import refused

from foveate.data.image import load_image
from foveate.data.layouts import load_dataset
from foveate.errors import DataError, FoveateError, UsageError
from foveate.evaluation import evaluate
from foveate.runs import read_json
from foveate.training import train

pytestmark = pytest.mark.usefixtures("warm_features")


# Bad images


def spoil(root: Path, n: int, split: str = "train") -> None:
    for file in sorted((root / split / "blob").iterdir())[:n]:
        file.write_bytes(b"\x89PNG\r\n\x1a\n")


def test_bad_images_are_skipped_and_named(root: Path, tmp_path: Path) -> None:
    spoil(root, 2)
    spoil(root, 1, "test")
    (root / "train" / "blob" / "listing").write_text("left out")
    found = train(root, out=tmp_path / "r")
    metrics, data = read_json(found.run / "metrics.json"), read_json(found.run / "data.json")
    names = ["test/blob/100.jpg", "train/blob/000.png", "train/blob/001.jpg"]
    assert sorted(metrics["bad"]) == sorted(data["bad"]) == names
    assert not set(names) & set(data["files"])
    assert (metrics["out_of_fold"]["n"], metrics["test"]["n"]) == (70, 23)
    log = (found.run / "log.txt").read_text()
    assert all(name in log for name in names)
    left = "train/blob/listing"
    assert any(left in note for note in metrics["notes"]) and left in log
    assert data["ignored"] == [left]


@pytest.mark.precision
@pytest.mark.usefixtures("cold_features")
def test_skipping_a_bad_image_is_as_if_it_were_not_there(root: Path, tmp_path: Path) -> None:
    spoil(root, 1)
    a = train(root, out=tmp_path / "a")
    (root / "train" / "blob" / "000.png").unlink()
    assert tensors(a.run) == tensors(train(root, out=tmp_path / "b").run)


@pytest.mark.parametrize(
    ("n", "policy", "names"),
    [
        (1, "error", ["1 of 96", "'train/blob/000.png'"]),
        (5, None, ["5 of 96", "5%"]),
    ],
)
def test_too_many_bad_images(
    n: int, policy: Any, names: list[str], root: Path, tmp_path: Path
) -> None:
    spoil(root, n)
    with refused(DataError, *names):
        train(root, out=tmp_path / "r", on_bad=policy)
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("cold_features")
def test_damaged_images_are_learnt_from_and_named(root: Path, tmp_path: Path) -> None:
    """Also by a second run, which finds the features of all others in the cache."""
    path = root / "train" / "blob" / "001.jpg"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    for n in range(2):
        found = train(root, out=tmp_path / str(n))
        metrics = read_json(found.run / "metrics.json")
        assert any("train/blob/001.jpg" in note for note in metrics["notes"])
        assert not metrics["bad"] and metrics["out_of_fold"]["n"] == 72
        assert metrics["computed"] == (1 if n else 96)
    with refused(DataError, "1 of 96", "'train/blob/001.jpg'", "damaged"):
        train(root, out=tmp_path / "r", on_bad="error")


def test_more_than_five_percent_are_skipped_when_asked(root: Path, tmp_path: Path) -> None:
    spoil(root, 8)
    found = train(root, out=tmp_path / "r", on_bad="skip")
    assert len(read_json(found.run / "metrics.json")["bad"]) == 8


@pytest.mark.precision
def test_a_probe_of_twelve_bits_is_that_of_eight(root: Path, tmp_path: Path) -> None:
    """Grey images as PNG of 8 bits, and the same as a camera with 12 bits writes them."""
    for path in sorted(root.rglob("*.*g")):
        grey = np.asarray(Image.open(path).convert("L"))
        path.unlink()
        for kind, values in (("eight", grey), ("twelve", grey.astype(np.uint16) * 16 + grey // 16)):
            folder = tmp_path / kind / path.relative_to(root).parent
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / f"{path.stem}.png")
    eight, twelve = (
        train(tmp_path / kind, out=tmp_path / f"run {kind}") for kind in ("eight", "twelve")
    )
    assert (eight.preprocess.levels, twelve.preprocess.levels) == (None, (0, 4095))
    assert "levels" not in eight.card["preprocess"]
    for image in ("test/blob/100.png", "train/noise/001.png"):
        pixels = [
            np.asarray(load_image(tmp_path / kind / image, levels=clf.preprocess.levels))
            for clf, kind in ((eight, "eight"), (twelve, "twelve"))
        ]
        assert np.array_equal(*pixels)
    # the folds are others, since the bytes are, but no more
    top = [clf.predict(tmp_path / "eight/test/blob/100.png").probability for clf in (eight, twelve)]
    assert top[0] == pytest.approx(top[1], abs=0.1)
    assert any("0 to 4095" in note for note in twelve.metrics["notes"])
    measured = {clf: evaluate(clf, tmp_path / "twelve")["notes"] for clf in (eight, twelve)}
    assert any("0 to 4095" in note for note in measured[eight])  # they are nearly black to it
    assert not measured[twelve]


def test_a_class_whose_images_are_all_bad(
    root: Path, tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    (root / "train" / "empty").mkdir()
    for name in "ab":
        (root / "train" / "empty" / f"{name}.jpg").write_bytes(name.encode())
    with refused(DataError, "'empty' (0)"):
        train(root, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"effort": "slow"}, UsageError, ["effort", "'slow'", "fast", "best"]),
        ({"on_bad": "ignore"}, UsageError, ["'ignore'", "skip", "error"]),
        ({"threads": 0}, UsageError, ["threads", "not 0"]),
        ({"threads": -2}, UsageError, ["threads", "not -2"]),
        ({"engine": "onnx"}, UsageError, ["engine", "'onnx'", "auto", "openvino", "torch"]),
        (
            {"model": "efficientnet_lite4", "recipe": "probe"},
            UsageError,
            ["weights", "'efficientnet_lite4'", "efficientnet_lite0"],
        ),
        ({"data": "no-such-folder"}, DataError, ["'no-such-folder'"]),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any],
    error: type[FoveateError],
    names: list[str],
    images: Path,
    tmp_path: Path,
) -> None:
    with refused(error, *names):
        train(**({"data": images, "out": tmp_path / "r"} | arguments))
    assert not (tmp_path / "r").exists()


def test_one_class(flat: Path, tmp_path: Path) -> None:
    for kind in ("blob", "noise"):
        shutil.rmtree(flat / kind)
    with refused(DataError, "one class", "'stripes'"):
        train(flat, out=tmp_path / "r")


def test_one_image_in_a_class(flat: Path, tmp_path: Path) -> None:
    for file in sorted((flat / "noise").iterdir())[1:]:
        file.unlink()
    with refused(DataError, "'noise' (1)"):
        train(flat, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_run_is_never_overwritten(there: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir() if there == "folder" else (tmp_path / "r").touch()
    with refused(UsageError, "r' exists", "out", "resume"):
        train(images, out=tmp_path / "r")
    assert (tmp_path / "r").exists()


def test_a_run_below_a_file(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(UsageError, "file", "out"):
        train(images, out=tmp_path / "file" / "r")


@pytest.mark.parametrize("recipe", ["probe", "finetune"])
def test_a_class_of_one_group(recipe: Any, images: Path, tmp_path: Path) -> None:
    """Nothing of it could be held out."""
    dataset = load_dataset(images)
    blob = dataset.classes.index("blob")
    groups = tuple("one" if label == blob else str(i) for i, label in enumerate(dataset.labels))
    with refused(DataError, "'blob'", "one group"):
        train(replace(dataset, groups=groups), recipe=recipe, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
