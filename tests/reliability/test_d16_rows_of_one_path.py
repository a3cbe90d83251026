"""The rows of a table are not images: one path in several rows is one image."""

from pathlib import Path

import pytest
from indexed import fill
from refusals import absent, refused

from foveate.data.dataset import Dataset, Task
from foveate.data.layouts import load_dataset
from foveate.errors import DataError

NAMES = [f"{i}.jpg" for i in range(9)]


def load(folder: Path, text: str, task: Task = "multiclass") -> Dataset:
    fill(folder, *NAMES)
    (folder / "table.csv").write_text(text)
    return load_dataset(folder / "table.csv", task)


def test_labels_of_one_path_are_united(tmp_path: Path) -> None:
    """A label a row, and 16 images stay 16"""
    text = "path,label,group\n0.jpg,b,\n./0.jpg,a,g\n1.jpg,a,\nx/../0.jpg,b,\n1.jpg,,\n"
    (tmp_path / "x").mkdir()
    dataset = load(tmp_path, text, "multilabel")
    assert [(f, dataset.label(i)) for i, f in enumerate(dataset.files)] == [
        ("1.jpg", "a"),
        ("0.jpg", "a|b"),
    ]
    assert dataset.groups == ("", "g")
    assert any(not absent(note, ": 3;", "one image") for note in dataset.notes)


def test_the_same_row_twice_is_one_image(tmp_path: Path) -> None:
    dataset = load(tmp_path, "path,label\n0.jpg,a\n1.jpg,b\n0.jpg,a\n")
    assert len(dataset) == 2 and any("earlier row: 1;" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("text", "task", "names"),
    [
        ("0.jpg,a,train\n1.jpg,b,\n\n./0.jpg,b,train", "multiclass", ["2 and 5", "'a'", "'b'"]),
        ("0.jpg,a,train\n0.jpg,a,test", "multiclass", ["lines 2 and 3", "train", "test"]),
        ("0.jpg,a,train\n0.jpg,b,test", "multilabel", ["lines 2 and 3", "train", "test"]),
        ("0.jpg,a,,g\n0.jpg,b,,h", "multilabel", ["lines 2 and 3", "'g'", "'h'"]),
        ('0.jpg,"a\nb",\n1.jpg,c,\n0.jpg,d,', "multiclass", ["lines 2 and 5"]),
    ],
)
def test_rows_that_contradict_each_other(
    tmp_path: Path, text: str, task: Task, names: list[str]
) -> None:
    with refused(DataError, "table.csv'", "'0.jpg'", *names):
        load(tmp_path, "path,label,split,group\n" + text, task)


def test_a_link_and_its_target_are_one_path(tmp_path: Path) -> None:
    fill(tmp_path, "0.jpg")
    (tmp_path / "link.jpg").symlink_to("0.jpg")
    (tmp_path / "folder").symlink_to(".")
    for name in ("link.jpg", "folder/0.jpg"):
        with refused(DataError, "lines 2 and 3", "'0.jpg'"):
            load(tmp_path, f"path,label\n0.jpg,a\n{name},b\n")


def test_lists_with_one_image_twice(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in fill_names(tmp_path)]
    for again in (paths[0], f"{tmp_path}/./0.jpg", f"{tmp_path}/x/../0.jpg"):
        with refused(DataError, "0.jpg"):
            Dataset.of([*paths, again], ["a"] * (len(paths) + 1))


def fill_names(folder: Path) -> list[str]:
    fill(folder, *NAMES)
    (folder / "x").mkdir()
    return NAMES
