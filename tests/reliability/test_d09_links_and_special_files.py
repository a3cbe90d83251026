"""Links, circles of links, pipes, sockets and devices."""

import os
import socket
from pathlib import Path

import pytest
from indexed import fill, image, rows
from refusals import absent, refused

from foveate.data.layouts import load_dataset
from foveate.errors import DataError


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    os.mkfifo(root / "a" / "pipe")  # opening it would wait for ever
    here = Path.cwd()
    os.chdir(root / "a")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.chdir(here)
    (root / "a" / "device").symlink_to("/dev/null")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/1.jpg")
    assert dataset.ignored == ("a/device", "a/pipe", "a/socket")


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    """A class's images by day, on another disk"""
    fill(tmp_path / "disk", "monday/1.jpg", "monday/deep/2.jpg")
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    (root / "a" / "monday").symlink_to(tmp_path / "disk" / "monday")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "a/monday/1.jpg", "a/monday/deep/2.jpg", "b/1.jpg")
    assert dataset.read(2) == image(1) and dataset.notes == ()


def test_a_folder_and_links_to_it_count_once(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/z/1.jpg", "b/1.jpg")
    for name in ("y", "zz"):
        (root / "a" / name).symlink_to("z")
    (root / "a" / "2.jpg").symlink_to("z/1.jpg")
    (root / "a" / "copy.jpg").symlink_to("2.jpg")
    dataset = load_dataset(root)
    assert dataset.files == ("a/z/1.jpg", "b/1.jpg")
    assert dataset.ignored == ("a/2.jpg", "a/copy.jpg", "a/y", "a/zz")
    assert any(not absent(note, "listed already", ": 4 (") for note in dataset.notes)


def test_circles_of_links_end(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    fill(tmp_path / "x", "1.jpg")
    fill(tmp_path / "y", "2.jpg")
    (root / "a" / "x").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x")
    (tmp_path / "y" / "root").symlink_to(root)
    (tmp_path / "y" / "above").symlink_to(tmp_path)
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "a/x/1.jpg", "a/x/y/2.jpg", "b/1.jpg")
    assert dataset.ignored == ("a/x/y/above", "a/x/y/root", "a/x/y/x")


@pytest.mark.parametrize(
    ("link", "target", "names"),
    [
        ("b/again", "../a", ["a/1.jpg", "b/again/1.jpg"]),
        ("c", "a", ["a/1.jpg", "c/1.jpg"]),
        ("b/2.jpg", "../a/1.jpg", ["a/1.jpg", "b/2.jpg"]),
    ],
)
def test_one_file_in_two_classes(tmp_path: Path, link: str, target: str, names: list[str]) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    (root / link).symlink_to(target)
    with refused(DataError, *names):
        load_dataset(root)


def test_one_file_in_two_splits(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg")
    (root / "test").symlink_to("train")
    with refused(DataError, "train/a/1.jpg", "test/a/1.jpg"):
        load_dataset(root)


def test_a_root_that_is_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    (tmp_path / "link").symlink_to("p")
    assert rows(load_dataset(tmp_path / "link")) == rows(load_dataset(tmp_path / "p"))


@pytest.mark.parametrize("name", ["pipe", "pipe.csv"])
def test_a_pipe_is_no_data(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with refused(DataError, f"{name}'", "pipe or a device"):
        load_dataset(tmp_path / name)
