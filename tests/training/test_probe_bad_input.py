"""Images that cannot be read, too few of them, and arguments that do not fit: skipped and named, or
refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learnt import tensors

from foveate.data.layouts import load_dataset
from foveate.errors import DataError, FoveateError, UsageError
from foveate.runs import read_json
from foveate.training import train

pytestmark = pytest.mark.usefixtures("warm_cache")


# Bad images


def spoil(root: Path, n: int, split: str = "train") -> None:
    for file in sorted((root / split / "blob").iterdir())[:n]:
        file.write_bytes(b"\x89PNG\r\n\x1a\n")


def test_bad_images_are_skipped_and_named(root: Path, tmp_path: Path) -> None:
    spoil(root, 2)
    spoil(root, 1, "test")
    found = train(root, out=tmp_path / "r")
    metrics, data = read_json(found.run / "metrics.json"), read_json(found.run / "data.json")
    names = ["test/blob/100.jpg", "train/blob/000.png", "train/blob/001.jpg"]
    assert sorted(metrics["bad"]) == sorted(data["bad"]) == names
    assert not set(names) & set(data["files"])
    assert (metrics["out_of_fold"]["n"], metrics["test"]["n"]) == (70, 23)
    assert all(name in (found.run / "log.txt").read_text() for name in names)


def test_skipping_a_bad_image_is_as_if_it_were_not_there(root: Path, tmp_path: Path) -> None:
    spoil(root, 1)
    a = train(root, out=tmp_path / "a")
    (root / "train" / "blob" / "000.png").unlink()
    assert tensors(a.run) == tensors(train(root, out=tmp_path / "b").run)


@pytest.mark.parametrize(
    ("n", "policy", "message"),
    [
        (1, "error", r"^1 of 96 images are unreadable .* image 'train/blob/000\.png' is not"),
        (5, "skip", "5 of 96 images are unreadable, more than 5%"),
    ],
)
def test_too_many_bad_images(n: int, policy: Any, message: str, root: Path, tmp_path: Path) -> None:
    spoil(root, n)
    with pytest.raises(DataError, match=message):
        train(root, out=tmp_path / "r", on_bad=policy)
    assert not (tmp_path / "r").exists()


def test_a_class_whose_images_are_all_bad(
    root: Path, tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    (root / "train" / "empty").mkdir()
    for name in "ab":
        (root / "train" / "empty" / f"{name}.jpg").write_bytes(name.encode())
    with pytest.raises(
        DataError, match=r"too few readable images to learn from in class 'empty' \(0\)"
    ):
        train(root, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"effort": "slow"}, UsageError, "no effort is called 'slow'; expected fast or best"),
        ({"on_bad": "ignore"}, UsageError, "no policy is called 'ignore'; expected skip or error"),
        ({"threads": 0}, UsageError, "threads .* not 0"),
        ({"threads": -2}, UsageError, "threads .* not -2"),
        (
            {"engine": "onnx"},
            UsageError,
            "no engine is called 'onnx'; expected auto, openvino, torch",
        ),
        (
            {"model": "efficientnet_lite4", "recipe": "probe"},
            UsageError,
            "no pretrained weights for 'efficientnet_lite4'; there are for",
        ),
        ({"data": "no-such-folder"}, DataError, "no such folder or file: 'no-such-folder'"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any], error: type[FoveateError], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(**({"data": images, "out": tmp_path / "r"} | arguments))
    assert not (tmp_path / "r").exists()


def test_one_class(flat: Path, tmp_path: Path) -> None:
    for kind in ("blob", "noise"):
        shutil.rmtree(flat / kind)
    with pytest.raises(
        DataError, match="has only one class, 'stripes'; a classifier needs at least two"
    ):
        train(flat, out=tmp_path / "r")


def test_one_image_in_a_class(flat: Path, tmp_path: Path) -> None:
    for file in sorted((flat / "noise").iterdir())[1:]:
        file.unlink()
    with pytest.raises(
        DataError, match=r"too few readable images to learn from in class 'noise' \(1\)"
    ):
        train(flat, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_run_is_never_overwritten(there: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir() if there == "folder" else (tmp_path / "r").touch()
    with pytest.raises(
        UsageError, match=r"r' exists; choose another --out, or .*--resume to go on with it"
    ):
        train(images, out=tmp_path / "r")
    assert (tmp_path / "r").exists()


def test_a_run_below_a_file(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="below a file; choose another --out"):
        train(images, out=tmp_path / "file" / "r")


@pytest.mark.parametrize("recipe", ["probe", "finetune"])
def test_a_class_of_one_group(recipe: Any, images: Path, tmp_path: Path) -> None:
    """Nothing of it could be held out."""
    dataset = load_dataset(images)
    blob = dataset.classes.index("blob")
    groups = tuple("one" if label == blob else str(i) for i, label in enumerate(dataset.labels))
    with pytest.raises(
        DataError, match="all images of 'blob' are of one group, or copies of one image"
    ):
        train(replace(dataset, groups=groups), recipe=recipe, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
