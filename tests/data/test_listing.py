"""What is left out of a folder, and why: by content, links, machines' folders, special files."""

import os
from pathlib import Path

import pytest
from encoded import encode, scene
from indexed import fill
from refusals import absent, refused

from foveate.data.layouts import load_dataset
from foveate.data.listing import MACHINES, Folder, images_below, is_image
from foveate.errors import DataError


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO"])
def test_every_format_is_known_by_its_first_bytes(kind: str) -> None:
    assert is_image(encode(scene(), kind)[:64])


@pytest.mark.parametrize(
    "pixels", [b"P1 2 2 0 1 1 0", b"P6\n# by a camera\n2 2\n255\n", b"P2\n2 2 9"]
)
def test_netpbm_with_comments_and_without(pixels: bytes) -> None:
    assert is_image(pixels)


@pytest.mark.parametrize(
    "text",
    [b"", b"BM: a story", b"P5 is a name", b"RIFF1234WAVEfmt ", b"\0\0\0\x18ftypmp42", b"%PDF"],
)
def test_other_content(text: bytes) -> None:
    assert not is_image(text)


def test_odd_suffixes_are_images_by_content(tmp_path: Path) -> None:
    names = ["1.jpg_large", "2.JPEG_", "3", "4.jfif", "5.jpg.bak", "6.image"]
    root = fill(tmp_path / "p", *(f"a/{name}" for name in names), "b/1.jpg")
    dataset = load_dataset(root)
    assert sorted(f for f in dataset.files if f[0] == "a") == [f"a/{name}" for name in names]
    assert dataset.notes == dataset.ignored == ()


@pytest.mark.parametrize("name", ["x.jp2", "x.PSD", "x.svg", "x.dcm"])
def test_images_of_other_formats_are_called_so(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg")
    (root / "a" / name).write_text("none")
    (note,) = load_dataset(root).notes
    assert not absent(note, "left out", "images of a format", "JPEG or PNG", f"'a/{name}'")


def test_what_is_left_out_is_counted_by_cause(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg", "a/x.txt", "a/y.xml", "b/1.NEF", "loose.jpg")
    (root / "a" / "notes").write_text("none")
    (root / "b" / "gone").symlink_to("nowhere")
    (root / "b" / "@eaDir").mkdir()
    os.mkfifo(root / "b" / "pipe")
    notes = load_dataset(root).notes
    expected = {"not images": 3, "raw files": 1, "no class folder": 1, "nowhere": 1}
    expected |= {"pipes": 1, "machines": 1}
    assert len(notes) == len(expected)
    for cause, n in expected.items():
        assert any(not absent(note, "left out", cause, f": {n} (") for note in notes), cause


@pytest.mark.parametrize("name", sorted(MACHINES))
@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_folders_that_only_machines_make(tmp_path: Path, name: str, spelling: type[str]) -> None:
    """A NAS's thumbnails of `1.jpg` lie in `@eaDir/1.jpg`"""
    folder = spelling(name)
    root = fill(tmp_path / "p", "a/1.jpg", f"a/{folder}/1.jpg/THUMB_M.jpg", "b/1.jpg")
    fill(root, f"{folder}/2.jpg")
    dataset = load_dataset(root)
    assert dataset.classes == ("a", "b") and dataset.files == ("a/1.jpg", "b/1.jpg")
    assert dataset.ignored == tuple(sorted([folder, f"a/{folder}"]))


# Folders to predict


def test_images_below(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "2.jpg", "x/1", "x/.git/3.jpg")
    (root / "x.txt").write_text("no image")
    images, notes = images_below(root)
    assert images == [root / "2.jpg", root / "x" / "1"]
    assert [note.rpartition(" (")[2] for note in notes] == ["'x/.git')", "'x.txt')"][::-1]
    (root / "2.jpg").unlink()
    (root / "x" / "1").unlink()
    with refused(DataError, "p'", "no images", "'x.txt'"):
        images_below(root)


def test_a_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "p", *(f"{c}/{i}.jpg" for c in "abc" for i in range(3)))
    scandir, opened = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    load_dataset(root)
    assert len(opened) == 4 and Folder.of(root).images == []
