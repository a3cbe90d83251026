"""What the rows of a table mean: one image a path, labels and what separates them, names."""

import itertools
import os
from pathlib import Path

import pytest
from indexed import fill, image, rows
from refusals import absent, refused

from foveate.data import tables
from foveate.data.dataset import Dataset, Task
from foveate.data.layouts import load_dataset
from foveate.errors import DataError, ImageError

NAMES = [f"{i}.jpg" for i in range(9)]


def load(folder: Path, text: str, task: Task = "multiclass") -> Dataset:
    fill(folder, *NAMES)
    (folder / "table.csv").write_text(text)
    return load_dataset(folder / "table.csv", task)


def labels(folder: Path, *cells: str) -> list[str]:
    """How a column of the task multilabel is read."""
    quoted = (f'{i}.jpg,"{cell}"\n' for i, cell in enumerate(cells))
    dataset = load(folder, "path,label\n" + "".join(quoted), "multilabel")
    found = dict(zip(dataset.files, map(dataset.label, range(len(dataset))), strict=True))
    return [found[f"{i}.jpg"] for i in range(len(cells))]


# What separates labels


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a|b", "a", "c, d|a"], ["a|b", "a", "a|c, d"]),
        (["a,b", "a", "c", ""], ["a|b", "a", "c", ""]),
        (["a, b", "b,a", "c"], ["a|b", "a|b", "c"]),
        (["a;b", "b", "c"], ["a|b", "b", "c"]),
        (["a b", "a", "b", "c"], ["a|b", "a", "b", "c"]),
        (["['a', 'b']", "['a']", "[]"], ["a|b", "a", ""]),
        (["['a' 'b']", "['b']"], ["a|b", "b"]),
        (["[a, b]", "[c]"], ["a|b", "c"]),
        (["{'a'}", "{'a', 'b'}"], ["a", "a|b"]),
        (["traffic light", "bus", "car"], ["traffic light", "bus", "car"]),
        (["hot dog|", "dog"], ["hot dog", "dog"]),
        (["Smith, J.|", "Doe, J."], ["Smith, J.", "Doe, J."]),
        (["", "a"], ["", "a"]),
    ],
)
def test_separators(tmp_path: Path, cells: list[str], expected: list[str]) -> None:
    assert labels(tmp_path, *cells) == expected


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["a,b", "c"], ["'a,b'", "a|b", "a,b|"]),
        (["a;b", "c"], ["'a;b'", "a|b"]),
        (["a,b", "a;b", "a"], ["'a;b'"]),
        (["a b", "a", "c"], ["'a b'", "a|b"]),
        (["stop sign", "road sign"], ["'stop sign'"]),
        (["['a', 'b']", "a"], ["a|b"]),
    ],
)
def test_separators_that_are_not_sure(tmp_path: Path, cells: list[str], names: list[str]) -> None:
    with refused(DataError, "table.csv'", *names):
        labels(tmp_path, *cells)


def test_a_label_a_row_may_have_spaces(tmp_path: Path) -> None:
    text = "path,label\n0.jpg,stop sign\n0.jpg,road sign\n1.jpg,sign\n"
    assert load(tmp_path, text, "multilabel").classes == ("road sign", "sign", "stop sign")


@pytest.mark.parametrize("cell", ["a,b", "a;b", "a|b", "['a', 'b']"])
def test_several_labels_as_one_class_are_noted(tmp_path: Path, cell: str) -> None:
    """Without --task multilabel"""
    dataset = load(tmp_path, f'path,label\n0.jpg,"{cell}"\n1.jpg,c\n')
    assert cell in dataset.classes
    assert any(not absent(note, repr(cell), "task='multilabel'") for note in dataset.notes)


def test_how_labels_were_separated_is_noted(tmp_path: Path) -> None:
    dataset = load(tmp_path, 'path,label\n0.jpg,"a,b"\n1.jpg,a\n', "multilabel")
    assert any(not absent(note, "'a,b'", "2 labels") for note in dataset.notes)


# A column a label


def test_a_column_a_label(tmp_path: Path) -> None:
    text = "path,Cat,dog,bird,split\n0.jpg,1,0,0,train\n1.jpg,1.0,1,0,\n2.jpg,0,False,0,test\n"
    dataset = load(tmp_path, text, "multilabel")
    found = {file: dataset.label(i) for i, file in enumerate(dataset.files)}
    assert found == {"0.jpg": "Cat", "1.jpg": "Cat|dog", "2.jpg": ""}
    assert any(not absent(note, "'bird'", "no image") for note in dataset.notes)
    with refused(DataError, "line 3", "2 columns", "task='multilabel'"):
        load(tmp_path, text)
    one = load(tmp_path, "path,cat,dog\n0.jpg,1,0\n1.jpg,0,1\n")
    assert rows(one) == [("0.jpg", "cat", "train"), ("1.jpg", "dog", "train")]


@pytest.mark.parametrize("value", ["640", "", "2", "yes"])
def test_columns_that_are_no_labels(tmp_path: Path, value: str) -> None:
    with refused(DataError, "column label", "'width'", f"'{value}'", "line 3"):
        load(tmp_path, f"path,cat,width\n0.jpg,1,0\n1.jpg,0,{value}\n", "multilabel")


# Names of files


def test_backslashes_and_unicode_forms(tmp_path: Path) -> None:
    fill(tmp_path, "x/1.jpg", "caf\u00e9/2.jpg", "back\\slash.jpg", " space.jpg")
    text = "path,label\nx\\1.jpg,a\ncafe\u0301\\2.jpg,b\nback\\slash.jpg,b\n space.jpg,a\n"
    dataset = load(tmp_path, text)
    assert set(dataset.files) == {"x/1.jpg", "caf\u00e9/2.jpg", "back\\slash.jpg", " space.jpg"}
    assert all(dataset.read(i) for i in range(4))


@pytest.mark.parametrize("place", ["t", "."])
def test_absolute_paths_are_named_from_their_common_folder(tmp_path: Path, place: str) -> None:
    """A run's files name no home folder"""
    photos = fill(tmp_path / "t" / "photos", "x/1.jpg", "y/2.jpg", "y/3.jpg")
    lines = "".join(f"{p},{p.parent.name}\n" for p in sorted(photos.rglob("*.jpg")))
    (tmp_path / place / "table.csv").write_text("path,label\n" + lines)
    dataset = load_dataset(tmp_path / place / "table.csv")
    above = "photos/" if place == "t" else "t/photos/"
    assert dataset.files == tuple(f"{above}{n}" for n in ("x/1.jpg", "y/2.jpg", "y/3.jpg"))
    assert dataset.read(1) == image(1)
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "table.csv").write_text("path,label\n" + lines)
    dataset = load_dataset(tmp_path / "u" / "table.csv")
    assert dataset.files == ("x/1.jpg", "y/2.jpg", "y/3.jpg")
    (photos / "y" / "2.jpg").unlink()
    with pytest.raises(ImageError) as error:
        dataset.read(1)
    assert "'y/2.jpg'" in str(error.value) and str(tmp_path) not in str(error.value)


def test_paths_that_lead_up(tmp_path: Path) -> None:
    fill(tmp_path / "me" / "photos", "x/1.jpg", "y/2.jpg")
    table = tmp_path / "elsewhere" / "table.csv"
    table.parent.mkdir()
    table.write_text("path,label\n../me/photos/x/1.jpg,a\n../me/photos/y/2.jpg,b\n")
    dataset = load_dataset(table)
    assert dataset.files == ("x/1.jpg", "y/2.jpg") and dataset.read(1) == image(1)


def test_a_path_up_from_a_link(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "there/1.jpg", "there/below/2.jpg")
    (tmp_path / "link").symlink_to("there/below")
    text = f"path,label\nlink/../1.jpg,a\n{tmp_path}/1.jpg,b\n"
    (tmp_path / "table.csv").write_text(text)
    dataset = load_dataset(tmp_path / "table.csv")
    assert rows(dataset) == [("there/1.jpg", "a", "train"), ("1.jpg", "b", "train")]
    assert [dataset.read(0), dataset.read(1)] == [image(1), image(0)]


def test_files_of_several_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    one, other = tmp_path / "home" / "me" / "1.jpg", tmp_path / "disk" / "2.jpg"
    fill(tmp_path, "home/me/1.jpg", "disk/2.jpg")
    dataset = Dataset.of([one, other], ["a", "b"])
    assert dataset.files == ("~/1.jpg", str(other).lstrip(os.sep))
    assert [dataset.read(0), dataset.read(1)] == [image(0), image(1)]


def test_absolute_paths_in_lists(tmp_path: Path) -> None:
    fill(tmp_path / "photos", "x/1.jpg", "y/2.jpg")
    dataset = Dataset.of([tmp_path / "photos/x/1.jpg", tmp_path / "photos/y/2.jpg"], ["a", "b"])
    assert dataset.files == ("x/1.jpg", "y/2.jpg") and dataset.read(1) == image(1)


# Limits


def test_a_table_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_BYTES", 20)
    with refused(DataError, "table.csv'", "20"):
        load(tmp_path, "path,label\n0.jpg,a\n1.jpg,b\n")


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.csv")
    with refused(DataError, "table.csv'"):
        load_dataset(tmp_path / "table.csv")


def test_many_rows_ask_for_each_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = os.path.realpath, []
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(path) or resolve(path))
    pairs = itertools.product(NAMES, "ab")
    load(tmp_path, "path,label\n" + "".join(f"{n},{c}\n" for n, c in pairs), "multilabel")
    assert len(asked) == 1
