"""Images in tars are those of the folder they were packed from; and tars that others made."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from refusals import absent, refused

from foveate import train
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.listing import Folder
from foveate.data.shards import INDEX, is_sharded, pack
from foveate.errors import DataError, FoveateError, ImageError, UsageError

Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_folder: Draw) -> Path:
    """photos/train, and photos/test. To be read only."""
    root = tmp_path_factory.mktemp("sharded") / "photos"
    draw_folder(root / "test", 2, first=100)
    return draw_folder(root / "train", 6).parent


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """The same in tars of some 100 kB."""
    pack(load_dataset(photos), tmp_path / "shards", 100_000)
    return tmp_path / "shards"


def same(first: Dataset, second: Dataset) -> None:
    for what in ("name", "task", "files", "classes", "splits", "groups"):
        assert getattr(first, what) == getattr(second, what)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert [first.read(i) for i in range(len(first))] == [
        second.read(i) for i in range(len(second))
    ]


def test_they_are_the_folder(photos: Path, shards: Path) -> None:
    expected, found = load_dataset(photos), load_dataset(shards)
    same(found, expected)
    assert found.digests == expected.digests and found.layout == "tars of images"
    assert len(list(shards.glob("*.tar"))) > 1


def test_the_index_is_made_again_from_the_tars_alone(photos: Path, shards: Path) -> None:
    before = (shards / INDEX).read_bytes()
    (shards / INDEX).unlink()
    same(load_dataset(shards), load_dataset(photos))
    assert (shards / INDEX).read_bytes() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: lines[:-1],
        lambda lines: ["{}", *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1][:20]],
        lambda lines: [*lines[:-1], lines[-1].replace("[", "[9", 1)],
        lambda lines: [lines[0].replace('"format": 1', '"format": 2'), *lines[1:]],
    ],
)
def test_an_index_that_is_damaged_or_of_other_tars(
    spoil: Callable[[list[str]], list[str]], photos: Path, shards: Path
) -> None:
    lines = (shards / INDEX).read_text().splitlines()
    (shards / INDEX).write_text("\n".join(spoil(lines)))
    same(load_dataset(shards), load_dataset(photos))


def test_an_index_older_than_its_tar(photos: Path, shards: Path) -> None:
    first = sorted(shards.glob("*.tar"))[0]
    content = first.read_bytes()
    offset = json.loads((shards / INDEX).read_text().splitlines()[1])[1]  # of row 0
    first.write_bytes(content[:offset] + b"\0" + content[offset + 1 :])  # of the same size
    os.utime(first, ns=(1, 1))  # and said to be old: only the bytes tell
    dataset = load_dataset(shards)
    with refused(ImageError, first.name, INDEX):
        dataset.read(0)
    os.utime(first)  # newer, as copying makes it, too: the index is made again, and compared
    with refused(DataError, first.name, dataset.files[0], INDEX):
        load_dataset(shards)
    (shards / INDEX).unlink()
    assert load_dataset(shards).digests != dataset.digests


def test_tars_that_are_only_newer(photos: Path, shards: Path) -> None:
    for tar in shards.glob("*.tar"):
        os.utime(tar, ns=(10**19, 10**19))
    same(load_dataset(shards), load_dataset(photos))


def test_a_tar_that_is_missing(shards: Path) -> None:
    first = sorted(shards.glob("*.tar"))[0]
    first.unlink()
    with refused(DataError, first.name, "missing", INDEX):
        load_dataset(shards)


def test_in_a_folder_that_is_read_only(
    photos: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_allowed(*_: object) -> None:  # whoever is root may write anywhere
        raise FoveateError("no permission to write")

    (shards / INDEX).unlink()
    monkeypatch.setattr("foveate.data.shards.write_index", not_allowed)
    same(load_dataset(shards), load_dataset(photos))
    assert not (shards / INDEX).exists()


@pytest.mark.slow
def test_the_classifier_is_the_folders_to_the_byte(
    photos: Path, shards: Path, tmp_path: Path, warm_features: Path
) -> None:
    runs = [train(data, out=tmp_path / str(i)).run for i, data in enumerate((photos, shards))]
    files = [{p.name: p.read_bytes() for p in (run / "classifier").iterdir()} for run in runs]
    assert files[0].keys() == files[1].keys()
    differing = {name for name, content in files[0].items() if content != files[1][name]}
    assert not differing


def test_several_labels(photos: Path, tmp_path: Path) -> None:
    files = sorted((photos / "train").rglob("*.png"))[:4]
    table = "\n".join(
        f"{file},{label}" for file, label in zip(files, ["a|b", "a", "", "b"], strict=True)
    )
    (tmp_path / "labels.csv").write_text(f"path,label\n{table}\n")
    dataset = load_dataset(tmp_path / "labels.csv", "multilabel")
    pack(dataset, tmp_path / "shards")
    same(load_dataset(tmp_path / "shards", "multilabel"), dataset)
    with refused(DataError, "shards", "multilabel"):
        load_dataset(tmp_path / "shards")
    (tmp_path / "shards" / INDEX).unlink()
    same(load_dataset(tmp_path / "shards", "multilabel"), dataset)


def test_groups_of_a_table_travel_along(photos: Path, tmp_path: Path) -> None:
    files = sorted((photos / "train").rglob("*.png"))[:6]
    dataset = Dataset.of(files, list("ababab"), groups=["x", "x", "y", "y", "", ""])
    pack(dataset, tmp_path / "shards")
    same(load_dataset(tmp_path / "shards"), dataset)


# Tars that others made


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def image(photos: Path) -> bytes:
    return next((photos / "train").rglob("*.png")).read_bytes()


def test_labels_in_every_way(image: bytes, tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    members = [
        ("a/1.PNG", image),
        ("a/1.cls", b"3"),
        ("a/2.json", b'{"label": 7, "caption": "x"}'),
        ("a/2.png", image + b" "),
        ("b/1.png", image + b"  "),
        ("b/1.txt", b"  Katze\n"),
        ("b/1.npy", b"x"),
    ]
    tar_of(root / "train-000000.tar", members)
    tar_of(root / "val-000000.tar", [("c.png", image), ("c.json", b'{"class": "Katze"}')])
    found = load_dataset(root)
    assert found.classes == ("3", "7", "Katze") and len(found) == 4
    assert dict(zip(found.files, found.splits, strict=True))["c.png"] == "validation"
    assert found.read(found.files.index("a/2.png")) == image + b" "
    assert any("left out: 1" in note for note in found.notes)
    assert load_dataset(root).notes == found.notes  # by the index


BAD: dict[str, tuple[list[tuple[str, bytes]], list[str]]] = {
    "two images of one key": ([("1.png", b"x"), ("1.jpg", b"y"), ("1.cls", b"0")], ["'1'", "two"]),
    "no label": ([("1.png", b"x")], ["1.png", ".cls"]),
    "an empty label": ([("1.png", b"x"), ("1.cls", b" ")], ["1.png", ".cls"]),
    "a way out": ([("../1.png", b"x"), ("../1.cls", b"0")], ["../1.png", "trusted"]),
    "an absolute way": ([("/1.png", b"x"), ("/1.cls", b"0")], ["/1.png", "trusted"]),
    "a way out in a label": (
        [("1.png", b"x"), ("1.json", b'{"label": "a", "file": "../../x"}')],
        ["../../x", "trusted"],
    ),
    "no JSON": ([("1.png", b"x"), ("1.json", b"{")], ["label"]),
    "no object": ([("1.png", b"x"), ("1.json", b"[1]")], ["object"]),
    "no text": ([("1.png", b"x"), ("1.cls", b"\xff\xfe")], ["label"]),
    "a large label": ([("1.png", b"x"), ("1.txt", b"x" * 70_000)], ["70,000"]),
    "no split": (
        [("1.png", b"x"), ("1.json", b'{"label": "a", "split": "later"}')],
        ["later", "split"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tars(case: str, tmp_path: Path) -> None:
    members, named = BAD[case]
    tar_of(tmp_path / "theirs" / "x.tar", members)
    with refused(DataError, "x.tar", *named):
        load_dataset(tmp_path / "theirs")


def test_one_key_in_two_tars(image: bytes, tmp_path: Path) -> None:
    for name in ("x.tar", "y.tar"):
        tar_of(tmp_path / "theirs" / name, [("1.png", image), ("1.cls", b"0")])
    with refused(DataError, "y.tar", "'1.png'"):
        load_dataset(tmp_path / "theirs")


def test_cut_off_compressed_and_no_tar(shards: Path, tmp_path: Path) -> None:
    first = sorted(shards.glob("*.tar"))[0]
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with refused(DataError, first.name, "cut off"):
        load_dataset(shards)
    first.write_bytes(b"no tar at all" * 100)
    with refused(DataError, first.name):
        load_dataset(shards)
    first.rename(first.with_suffix(".tar.gz"))
    with refused(DataError, "compressed", "gunzip"):
        load_dataset(shards)


def test_links_and_devices_are_left_out(image: bytes, tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    tar_of(root / "x.tar", [("1.png", image), ("1.cls", b"0"), ("2.png", image), ("2.cls", b"1")])
    with tarfile.open(root / "x.tar", "a") as tar:
        for name, kind in (("3.png", tarfile.SYMTYPE), ("4.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    found = load_dataset(root)
    assert found.files == ("1.png", "2.png") and any("left out: 2" in n for n in found.notes)


def test_a_folder_of_images_with_a_tar_beside_is_a_folder(
    draw_folder: Draw, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "photos", 2)
    tar_of(tmp_path / "photos" / "old.tar", [])
    assert not is_sharded(Folder.of(tmp_path / "photos"))
    assert len(load_dataset(tmp_path / "photos")) == 6


# The command


def test_pack(photos: Path, tmp_path: Path) -> None:
    done = foveate("data", "pack", photos, tmp_path / "shards", "--size", "100KB", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    assert found["images"] == 24 and found["tars"] == len(tars) > 1
    assert found["bytes"] == sum(tar.stat().st_size for tar in tars)
    done = foveate("data", "show", tmp_path / "shards")
    assert not absent(done.stdout, "tars of images", "24")
    again = foveate("data", "pack", photos, tmp_path / "shards")
    assert again.returncode == 2 and not absent(again.stderr, "shards", "exists")


@pytest.mark.parametrize("size", ["0MB", "x", "1TB", "-1MB", "1e3KB"])
def test_no_such_size(size: str, photos: Path, tmp_path: Path) -> None:
    done = foveate("data", "pack", photos, tmp_path / "shards", f"--size={size}")
    assert done.returncode == 2 and not absent(done.stderr, "--size", "500MB")


def test_tars_are_not_packed_into_the_images(draw_folder: Draw, tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", 2)
    done = foveate("data", "pack", photos, photos / "shards")
    assert done.returncode == 2 and not absent(done.stderr, "shards", "photos")


def test_an_image_that_cannot_be_read_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    files = sorted((photos / "train").rglob("*.png"))[:2]
    copies = [tmp_path / f"{i}.png" for i in range(2)]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    dataset = Dataset.of(copies, ["a", "b"])
    copies[1].unlink()
    with refused(ImageError, "1.png"):
        pack(dataset, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    with refused(UsageError, "exists"):
        pack(dataset, tmp_path)
