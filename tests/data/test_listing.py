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


def test_the_thumbnails_of_a_nas_at_any_depth(tmp_path: Path) -> None:
    files = ("cat/1.jpg", "cat/deep/2.jpg", "dog/1.jpg")
    thumbs = ("cat/@eaDir/1.jpg", "cat/deep/@eaDir/2.jpg", "dog/@EADIR/1.jpg")
    root = fill(tmp_path / "p", *files, *(f"{name}/SYNOPHOTO_THUMB_M.jpg" for name in thumbs))
    dataset = load_dataset(root)
    assert dataset.classes == ("cat", "dog") and dataset.files == files
    (note,) = dataset.notes
    assert not absent(note, "left out", "machines", ": 3 (", "'cat/@eaDir'", "'cat/deep/@eaDir'")


@pytest.mark.parametrize("name", [".Trash-1000", ".Trash-501", ".trash-0"])
def test_the_trash_of_a_user(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg", f"{name}/files/2.jpg")
    (note,) = load_dataset(root).notes
    assert not absent(note, "machines", ": 1 (", f"'{name}'")


def test_classes_with_names_like_those_of_machines_folders(tmp_path: Path) -> None:
    names = ["@eaDirs", "RECYCLE", "cache", "lost", "recycle", "runs", "snapshot", "tmp", "trash-1"]
    dataset = load_dataset(fill(tmp_path / "p", *(f"{name}/1.jpg" for name in names)))
    assert set(dataset.classes) == set(names) and not dataset.ignored


# Runs

BEGUN = ("config.json", "env.json", "checkpoints/x.jpg")
ENDED = ("config.json", "env.json", "metrics.json", "curves.png", "classifier/card.json")
COPIED = ("config.json", "metrics.json")
CLASSIFIER = ("classifier/card.json", "classifier/model.safetensors")


@pytest.mark.parametrize(
    "place,top",
    [
        ("x", "x"),
        ("runs/2026/x", "runs"),
        ("train/x", "train"),
        ("cat/x", "cat/x"),
        ("cat/y/2026/x", "cat/y"),
    ],
)
@pytest.mark.parametrize("files", [BEGUN, ENDED, COPIED, CLASSIFIER])
def test_runs_at_any_depth(tmp_path: Path, place: str, top: str, files: tuple[str, ...]) -> None:
    """They are left out with the folders that hold nothing else"""
    root = fill(tmp_path / "p", "cat/1.jpg", "dog/1.jpg", *(f"{place}/{name}" for name in files))
    for tensors in root.rglob("*.safetensors"):
        tensors.write_bytes(b"no image")
    dataset = load_dataset(root)
    assert dataset.files == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == (top,)
    (note,) = dataset.notes
    assert not absent(note, "left out", "runs", ": 1 (", f"'{top}'")


def test_runs_beside_classes_of_a_split(tmp_path: Path) -> None:
    files = ("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg")
    runs = (f"train/{run}/{name}" for run in ("x", "y") for name in ENDED)
    dataset = load_dataset(fill(tmp_path / "p", *files, *runs))
    assert set(dataset.files) == set(files) and dataset.ignored == ("train/x", "train/y")


def test_a_folder_of_runs_and_of_images_is_entered(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "runs/2/2.jpg", *(f"runs/1/{name}" for name in ENDED))
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "runs/2/2.jpg") and dataset.ignored == ("runs/1",)


@pytest.mark.parametrize("names", [["config.json"], ["metrics.json", "card.json"], ["curves.png"]])
def test_other_folders_with_files_of_such_names(tmp_path: Path, names: list[str]) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/c/1.jpg", *(f"b/{name}" for name in names))
    assert "b/c/1.jpg" in load_dataset(root).files


def test_a_class_folder_with_a_run_s_files_among_its_images(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg", "b/config.json", "b/metrics.json")
    assert load_dataset(root).classes == ("a", "b")


def test_links_to_runs_and_in_a_circle_below_a_run(tmp_path: Path) -> None:
    run = fill(tmp_path / "run", *ENDED)
    root = fill(tmp_path / "p", "a/1.jpg", "b/1.jpg", "c/x/config.json", "d/y/config.json")
    (root / "c" / "x" / "d").symlink_to(root / "d")
    (root / "d" / "y" / "c").symlink_to(root / "c")
    (root / "last").symlink_to(run)
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/1.jpg") and "last" in dataset.ignored


def test_an_error_says_that_runs_are_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", *(f"runs/x/{name}" for name in ENDED), "@eaDir/1.jpg")
    with refused(DataError, "no class folders", "'runs'", "'@eaDir'"):
        load_dataset(root)


# Folders to predict


def test_images_below(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "2.jpg", "x/1", "x/.git/3.jpg", *(f"x/run/{n}" for n in ENDED))
    (root / "x.txt").write_text("no image")
    images, notes = images_below(root)
    assert images == [root / "2.jpg", root / "x" / "1"]
    assert [note.rpartition(" (")[2] for note in notes] == ["'x.txt')", "'x/.git')", "'x/run')"]
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
