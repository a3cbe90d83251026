"""D15: what nearly is a layout is understood or refused, with what to do, and never learnt so."""

from pathlib import Path

import pytest
from indexed import fill, rows
from refusals import absent, refused

from foveate.data.layouts import load_dataset
from foveate.errors import DataError

SPLIT = [("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]


def found(root: Path) -> list[tuple[str, str]]:
    return sorted((split, label) for _, label, split in rows(load_dataset(root)))


def both(train: str, test: str) -> list[str]:
    """An image of each class in each of two splits."""
    return [f"{split}/{c}/1.jpg" for split in (train, test) for c in "ab"]


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("trn", "tst"),
        ("TRAIN", "Test"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train", "test/test"),
        ("train/images", "test/images"),
        ("train_set", "TestSet"),
        ("trainset", "testset"),
        ("Training Data", "test-images"),
        ("birds-train-2017", "birds-test-2017"),
        ("photos/train", "photos/test"),
        ("one/two/Training", "one/two/Testing"),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    assert found(fill(tmp_path / "p", *both(*names))) == sorted(SPLIT)


def test_words_of_validation(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", *both("training", "test"), "validation/a/1.jpg")
    assert ("validation", "a") in found(root)
    evaluated = fill(tmp_path / "q", *both("val", "test"))  # without train: for evaluate
    assert {split for split, _ in found(evaluated)} == {"validation", "test"}


def test_classes_first_and_splits_below(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", *(f"{c}/{s}/1.jpg" for c in "ab" for s in ("Train", "test")))
    assert found(root) == sorted(SPLIT)
    fill(root, "c/1.jpg")
    with refused(DataError, "'c'", "CLASS/train"):
        load_dataset(root)


def test_one_folder_too_deep(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "photos/photos/a/1.jpg", "photos/photos/b/2.jpg", "README.md")
    fill(root, "__MACOSX/photos/a/1.jpg")
    dataset = load_dataset(root)
    assert dataset.classes == ("a", "b") and dataset.files[0] == "photos/photos/a/1.jpg"
    assert any("'photos/photos'" in note for note in dataset.notes)


def test_one_class_alone_is_a_class(tmp_path: Path) -> None:
    assert load_dataset(fill(tmp_path / "p", "a/1.jpg")).classes == ("a",)


@pytest.mark.parametrize("name", ["train", "valid", "dev", "training", "toy_train", "trainer"])
def test_a_class_with_the_name_of_a_split(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "p", f"{name}/1.jpg", "bus/1.jpg", "car/1.jpg")
    assert load_dataset(root).classes == tuple(sorted([name, "bus", "car"]))
    fill(root, f"{name}/old/2.jpg")  # a folder beside the images makes it no split
    assert len(load_dataset(root).classes) == 3


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["train/1.jpg", "test/2.jpg"], ["'test'", "path,label,split"]),
        (["Training/1.jpg", "Testing/2.jpg"], ["'Testing'"]),
        (["test/1.jpg", "val/2.jpg"], ["'test'"]),
        (["a/1.jpg", "b/1.jpg", "test/2.jpg"], ["'test'", "another name"]),
        (["a/1.jpg", "seg_train/1.jpg", "seg_test/2.jpg"], ["'seg_test'"]),
        (["bus/red/1.jpg", "train/red/2.jpg", "train/blue/2.jpg"], ["'train'", "'bus'"]),
        (["images/1.jpg", "masks/1.png"], ["'masks'", "path,label"]),
        (["images/train/1.jpg", "labels/train/1.txt"], ["'labels'"]),
        ([*both("x_train", "x_test"), *both("y_train", "y_test")], ["'x_train'", "'y_test'"]),
    ],
)
def test_never_learnt_as_classes(tmp_path: Path, files: list[str], names: list[str]) -> None:
    with refused(DataError, *names):
        load_dataset(fill(tmp_path / "p", *files))


def test_a_test_folder_without_labels_is_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg")
    dataset = load_dataset(root)
    assert dataset.files == ("train/a/1.jpg", "train/b/1.jpg")
    assert dataset.ignored == ("test/1.jpg", "test/2.jpg")
    assert any(
        not absent(note, "foveate predict", ": 2 (", "'test/1.jpg'") for note in dataset.notes
    )


@pytest.mark.parametrize("place", ["runs/first", "runs", "old/probe"])
def test_runs_beside_the_classes_are_passed_over(tmp_path: Path, place: str) -> None:
    run = ("config.json", "metrics.json", "classifier/card.json", "checkpoints/x.jpg")
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg", *(f"{place}/{name}" for name in run))
    dataset = load_dataset(root)
    assert dataset.classes == ("a", "b")
    assert any(place.partition("/")[0] in note for note in dataset.notes)
    deep = fill(tmp_path / "q", "photos/a/1.jpg", "photos/b/1.jpg", "runs/x/config.json")
    fill(deep, "runs/x/env.json")
    assert load_dataset(deep).classes == ("a", "b")


def test_a_table_beside_a_flat_folder(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "1.jpg", "2.jpg")
    (root / "labels.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    with refused(DataError, "2 images", f"'{root / 'labels.csv'}'", "instead of the folder"):
        load_dataset(root)
    (root / "labels.csv").write_text("file_name,class\n1.jpg,a\n")
    with refused(DataError, "labels.csv'", "path and label", "file_name, class"):
        load_dataset(root)


def test_a_table_beside_a_folder_of_all_images(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "images/1.jpg", "images/2.jpg")
    assert load_dataset(root).classes == ("images",)  # and one class is refused by training
    (root / "train.csv").write_text("id,breed\n1,a\n2,b\n")
    with refused(DataError, "'images'", "train.csv'", "id, breed"):
        load_dataset(root)


def test_a_table_beside_flat_splits(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "train/1.jpg", "test/2.jpg")
    (root / "train.csv").write_text("path,label\ntrain/1.jpg,a\n")
    with refused(DataError, f"'{root / 'train.csv'}'"):
        load_dataset(root)
    (root / "train.csv").rename(root / "train" / "metadata.csv")
    with refused(DataError, f"'{root / 'train' / 'metadata.csv'}'"):
        load_dataset(root)


def test_a_wrapper_of_links_in_a_circle(tmp_path: Path) -> None:
    for one, other in ("xy", "yx"):
        (tmp_path / one).mkdir()
        (tmp_path / one / "next").symlink_to(tmp_path / other)
    with refused(DataError, "no images"):
        load_dataset(tmp_path / "x")
