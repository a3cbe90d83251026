"""A table of corrections is applied as it is written, and nothing else."""

from pathlib import Path

import pytest
from indexed import fill
from refusals import absent, refused

from foveate.data.corrections import correct
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.errors import DataError, UsageError

FILES = ("ant/1.png", "ant/2.png", "bee/3.png", "bee/4.png", "cat/5.png")


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    return load_dataset(fill(tmp_path / "photos", *FILES))


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "corrections.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_that_say_something_are_applied(photos: Dataset, tmp_path: Path) -> None:
    before = photos.digests
    path = table(
        tmp_path,
        "file,label,correction\nant/1.png,ant,bee\nant/2.png,ant,\nbee/3.png,bee,OK\n"
        "bee/4.png,bee,Remove\ncat/5.png,cat,cat\n",
    )
    right = correct(photos, path)
    assert right.dataset.files == ("ant/1.png", "ant/2.png", "bee/3.png", "cat/5.png")
    assert [right.dataset.label(i) for i in range(4)] == ["bee", "ant", "bee", "cat"]
    assert right.confirmed == {"ant/1.png", "bee/3.png", "cat/5.png"}
    assert right.table == path.read_bytes()
    assert right.dataset.digests == (*before[:3], before[4])
    note = right.dataset.notes[-1]
    assert not absent(note, "changed: 1", "removed: 1", "confirmed: 2")
    assert photos.label(0) == "ant"  # as it was


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_as_excel_saves_it(
    photos: Dataset, tmp_path: Path, mark: str, newline: str, encoding: str
) -> None:
    lines = ["file,label,suggested,probability,correction", "ant/1.png,ant,bee,0.9,cat", ",,,,", ""]
    path = table(tmp_path, newline.join(lines).replace(",", mark), encoding)
    assert correct(photos, path).dataset.label(0) == "cat"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("file,label\nant/1.png,bee\n", ["correction", "file, label"]),
        ("", ["file", "correction", "no rows"]),
        ("file,correction\nant/1.png,bea\n", ["line 2", "bea", "'bee'", "remove"]),
        ("file,correction\nx/9.png,bee\n", ["other data", "x/9.png", "ant/1.png"]),
        ("file,correction\nant/1.png,bee\nx/9.png,ok\n", ["1 file", "x/9.png"]),
        ("file,correction\nant/1.png,bee\nant/1.png,cat\n", ["lines 2 and 3", "bee", "cat"]),
    ],
)
def test_what_does_not_fit_is_refused(
    photos: Dataset, tmp_path: Path, text: str, names: list[str]
) -> None:
    with refused(DataError, "corrections.csv", *names):
        correct(photos, table(tmp_path, text))


def test_no_table(photos: Dataset, tmp_path: Path) -> None:
    with refused(DataError, "absent.csv"):
        correct(photos, tmp_path / "absent.csv")
    with refused(UsageError, "corrections", "3"):
        correct(photos, 3)


def test_the_same_twice_is_once_and_nothing_is_nothing(photos: Dataset, tmp_path: Path) -> None:
    twice = table(tmp_path, "file,correction\nant/1.png,bee\nant/1.png,bee\n")
    assert correct(photos, twice).dataset.label(0) == "bee"
    empty = correct(photos, table(tmp_path, "file,correction\nant/1.png,\n"))
    assert not empty.confirmed and "no correction" in empty.dataset.notes[-1]


def test_names_in_either_form_of_unicode(tmp_path: Path) -> None:
    photos = load_dataset(fill(tmp_path / "photos", "café/1.png", "thé/2.png"))
    path = table(tmp_path, "file,correction\ncafe\u0301/1.png,the\u0301\n")
    assert correct(photos, path).dataset.label(0) == "thé"


def test_a_class_called_ok_is_a_class(tmp_path: Path) -> None:
    photos = load_dataset(fill(tmp_path / "photos", "ok/1.png", "broken/2.png"))
    right = correct(photos, table(tmp_path, "file,correction\nbroken/2.png,ok\n"))
    assert [right.dataset.label(i) for i in range(2)] == ["ok", "ok"]


def test_several_labels(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "set.csv").write_text("path,label\n1.png,ant|bee\n2.png,bee\n3.png,ant\n")
    photos = load_dataset(tmp_path / "set.csv", "multilabel")
    path = table(tmp_path, "file,correction\n1.png,bee\n2.png,bee|ant\n3.png,|\n")
    right = correct(photos, path).dataset
    labels = dict(zip(right.files, right.labels.tolist(), strict=True))
    assert labels == {"1.png": [0, 1], "2.png": [1, 1], "3.png": [0, 0]}
    with refused(DataError, "line 2", "cow"):
        correct(photos, table(tmp_path, "file,correction\n1.png,bee|cow\n"))
