"""Layouts of folders: classes, splits, links, odd names, and nothing there."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from indexed import fill, image, rows
from refusals import absent, refused

from foveate.data.dataset import check_trainable
from foveate.data.image import SUFFIXES
from foveate.data.layouts import SPLITS, load_dataset, natural
from foveate.errors import DataError, ImageError

# Folders


def test_one_folder_per_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", "dog/1.jpg", "cat/10.jpg", "cat/9.png", "cat/deep/er/2.WEBP")
    dataset = load_dataset(str(root))
    assert (dataset.name, dataset.layout, dataset.classes) == (
        "pets",
        "one folder per class",
        ("cat", "dog"),
    )
    assert rows(dataset) == [
        ("cat/9.png", "cat", "train"),
        ("cat/10.jpg", "cat", "train"),
        ("cat/deep/er/2.WEBP", "cat", "train"),
        ("dog/1.jpg", "dog", "train"),
    ]
    assert len(dataset) == 4 and dataset.labels.dtype == np.int64
    assert [dataset.read(i) for i in range(4)] == [
        (root / name).read_bytes() for name in dataset.files
    ]
    assert dataset.notes == dataset.ignored == ()
    assert dataset.groups == ("",) * 4


@pytest.mark.parametrize("alias,split", SPLITS.items())
@pytest.mark.parametrize("spelling", [str.lower, str.capitalize, str.upper])
def test_split_folders(
    tmp_path: Path, alias: str, split: str, spelling: Callable[[str], str]
) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg", f"{spelling(alias)}/a/3.jpg")
    dataset = load_dataset(root)
    assert dataset.layout.startswith("split folders: ")
    assert (f"{spelling(alias)}/a/3.jpg", "a", split) in rows(dataset)
    assert dataset.classes == ("a", "b")


def test_the_aliases() -> None:
    assert {alias for alias, split in SPLITS.items() if split == "validation"} == {
        "val",
        "valid",
        "validation",
        "dev",
    }
    assert {alias for alias, split in SPLITS.items() if split != "validation"} == {
        *("train", "training", "trn"),
        *("test", "testing", "tst"),
    }


def test_other_folders_beside_the_splits_are_noted(tmp_path: Path) -> None:
    dataset = load_dataset(fill(tmp_path / "p", "train/a/1.jpg", "test/a/2.jpg", "extra/a/3.jpg"))
    assert len(dataset) == 2
    assert any(not absent(note, "not used", "'extra'") for note in dataset.notes)


def test_natural_order(tmp_path: Path) -> None:
    names = ["10", "9", "a10", "a2", "b", "1", "01"]
    dataset = load_dataset(fill(tmp_path / "p", *(f"{c}/x.jpg" for c in names)))
    assert dataset.classes == ("01", "1", "9", "10", "a2", "a10", "b")


def test_the_order_on_the_disk_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "p", *(f"{c}/{i}.jpg" for c in "abc" for i in range(12)))
    before = load_dataset(root)
    scandir = os.scandir

    @contextmanager
    def backwards(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    assert rows(load_dataset(root)) == rows(before)
    assert load_dataset(root).classes == before.classes


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "p",
        "a/1.jpg",
        "b/2.jpg",
        ".git/3.jpg",
        "a/.thumbs/4.jpg",
        "a/._1.jpg",
        "a/.5.jpg",
        "a/Thumbs.db",
        ".DS_Store",
        "a/.DS_Store",
    )
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert dataset.ignored == (".git", "a/.5.jpg", "a/.thumbs")
    made, hidden = sorted(dataset.notes, key=len)[::-1]
    assert not absent(made, "machines", ": 1 ('.git')") and not absent(hidden, "hidden", ": 2 ")


def test_files_that_are_not_images_are_listed_as_ignored(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "p",
        "a/1.jpg",
        "b/2.jpg",
        "a/notes.txt",
        "b/c/x.mp4",
        "README.md",
        "loose.jpg",
    )
    (root / "b" / "noname").write_text("BM: begins as a bitmap does, and is none")
    (root / "b" / "P5 text").write_text("P5 is how a PGM begins, too")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert sorted(dataset.ignored) == [
        "README.md",
        "a/notes.txt",
        "b/P5 text",
        "b/c/x.mp4",
        "b/noname",
        "loose.jpg",
    ]


def test_ignored_files_of_the_split_layout(tmp_path: Path) -> None:
    dataset = load_dataset(
        fill(tmp_path / "p", "train/a/1.jpg", "train/list.txt", "test/a/2.jpg", "test/a/x.xml")
    )
    assert sorted(dataset.ignored) == ["test/a/x.xml", "train/list.txt"]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    assert len(load_dataset(fill(tmp_path / "p", f"a/1{suffix}", f"a/2{suffix.upper()}"))) == 2


def test_an_empty_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "c").mkdir()
    dataset = load_dataset(root)
    assert dataset.classes == ("a", "b")
    assert len(dataset.notes) == 1 and not absent(dataset.notes[0], "'c'", "no images")


@pytest.mark.parametrize(
    "files,names",
    [
        ([], ["p/CLASS/image.jpg", "p/train/CLASS/image.jpg"]),
        (["1.jpg", "2.PNG", "x.txt"], ["no class folders", "2 images"]),
        (["train/1.jpg"], ["'train'", "no class folders"]),
        (["a/x.txt"], ["no images", ".avif .bmp"]),
    ],
)
def test_folders_without_classes_or_images(
    tmp_path: Path, files: list[str], names: list[str]
) -> None:
    root = fill(tmp_path / "p", *files)
    root.mkdir(exist_ok=True)
    with refused(DataError, *names):
        load_dataset(root)


ODD_NAMES = [
    "été ☀️",
    "猫",
    "قطة",
    "line\nbreak",
    "-rf",
    'it\'s "quoted" `x`',
    "<b>&amp;",
    "=1+1",
    "back\\slash",
    " spaces ",
    "tab\t",
    "%s{}",
    "x" * 250,
    os.fsdecode(b"latin-\xe9"),
    "\x1b[31m",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_of_files_and_classes(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "p", f"{name}/{name}.jpg", "z/1.jpg")
    dataset = load_dataset(root)
    assert name in dataset.classes and f"{name}/{name}.jpg" in dataset.files
    position = dataset.files.index(f"{name}/{name}.jpg")
    assert dataset.classes[dataset.labels[position]] == name
    assert dataset.read(position) == image(0)
    assert dataset.digests[position]
    (root / name / f"{name}.jpg").unlink()
    with refused(ImageError, "No such file"):
        dataset.read(position)


def test_a_link_to_the_folder_above_is_no_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "round").symlink_to(root)
    (root / "above").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "a" / "again").symlink_to("..")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert sorted(dataset.ignored) == ["a/again", "above", "round", "self"]


def test_a_link_to_a_class_folder_elsewhere_is_a_class(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "1.jpg")
    root = fill(tmp_path / "p", "a/1.jpg")
    (root / "b").symlink_to(elsewhere)
    (root / "b" / "9.jpg").write_bytes(image(9))
    assert load_dataset(root).files == ("a/1.jpg", "b/1.jpg", "b/9.jpg")
    (root / "a" / "2.jpg").symlink_to(elsewhere / "1.jpg")
    with refused(DataError, "'a/2.jpg'", "'b/1.jpg'"):
        load_dataset(root)


def test_links_that_lead_nowhere_and_pipes_are_bad_images(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg")
    (root / "a" / "2.jpg").symlink_to("2.jpg")
    (root / "a" / "3.jpg").symlink_to("gone.jpg")
    os.mkfifo(root / "a" / "4.jpg")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg")
    for i, reason in [(1, "Too many levels"), (2, "No such file"), (3, "regular file")]:
        with refused(ImageError, dataset.files[i], reason):
            dataset.read(i)
    assert [bool(digest) for digest in dataset.digests] == [True, False, False, False]


def test_a_folder_below_a_class_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "a/shut/2.jpg")
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with refused(DataError, "a/shut'", "Permission denied"):
        load_dataset(root)


@pytest.mark.parametrize("closed", ["p", "p/train", "p/other"])
def test_a_root_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "test/a/2.jpg", "other/3.jpg")
    scandir = os.scandir

    def denied(path: str) -> object:
        if path == str(tmp_path / closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    if closed == "p/other":  # beside the splits, and not used
        assert len(load_dataset(root)) == 2
        return
    with refused(DataError, f"{closed}'", "Permission denied"):
        load_dataset(root)


def test_a_thousand_classes(tmp_path: Path) -> None:
    dataset = load_dataset(
        fill(tmp_path / "p", *(f"{c}/{i}.jpg" for c in range(1000) for i in range(2)))
    )
    assert dataset.classes == tuple(map(str, range(1000)))
    assert np.array_equal(dataset.labels, np.repeat(np.arange(1000), 2))
    check_trainable(dataset)


def test_the_name_of_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path / "pets", "a/1.jpg"))
    assert load_dataset(".").name == "pets"


# Sources


def test_a_path_wins_over_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "digits", "a/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("digits").files == ("a/1.jpg",)


@pytest.mark.parametrize("source", ["nowhere", "no\0where", "n" * 300, "Digits"])
def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(DataError, "digits", "fashion-mnist", "mnist", "cifar10"):
        load_dataset(source)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(image())
    with refused(DataError, "x.jpg'", ".csv", "path,label"):
        load_dataset(tmp_path / "x.jpg")


# Order


@pytest.mark.parametrize(
    "names",
    [
        ["9", "10"],
        ["", "a", "a1", "a2", "a10", "ab", "b"],
        ["1a", "1b", "a"],
        ["01", "1", "2"],
        ["x9y9", "x9y10", "x10y1"],
        ["٣", "٤"],
        ["1", "²"],
    ],
)
def test_natural(names: list[str]) -> None:
    shuffled = names[::-1]
    assert sorted(shuffled, key=natural) == names


def test_natural_tells_all_names_apart() -> None:
    names = ["1", "01", "001", "a1", "a01", "", "a"]
    assert len({natural(name) for name in names}) == len(names)


def test_the_same_folders_in_each_class_are_noted(tmp_path: Path) -> None:
    """Two cameras, or folds, with the classes in each"""
    files = [f"{camera}/{label}/1.jpg" for camera in ("left", "right") for label in ("cat", "dog")]
    dataset = load_dataset(fill(tmp_path / "p", *files))
    assert dataset.classes == ("left", "right")
    assert any(not absent(note, "'cat', 'dog'", "path,label,group") for note in dataset.notes)
    by_day = load_dataset(fill(tmp_path / "q", "cat/mon/1.jpg", "cat/tue/2.jpg", "dog/mon/3.jpg"))
    assert by_day.notes == ()


def test_images_beside_splits_are_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg", "more/3.jpg", "more/x/4.jpg")
    assert any(not absent(note, "'more'", "images: 2") for note in load_dataset(root).notes)


def test_a_table_beside_a_split_without_classes_is_named(tmp_path: Path) -> None:
    """As Kaggle has it: train.csv, and train/ID.jpg"""
    root = fill(tmp_path / "p", "train/1.jpg", "train/2.jpg")
    (root / "train.csv").write_text("Id,Label\n1,a\n2,b\n")
    with refused(DataError, "'train'", "train.csv'", "column path", "instead"):
        load_dataset(root)
