"""Groups of all kinds, put together, on images that are made."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from refusals import refused

from foveate.audit.groups import Grouping, check_groups, find_groups
from foveate.data.dataset import Dataset
from foveate.data.small import grey
from foveate.errors import UsageError
from foveate.features import Extracted
from foveate.progress import Silent

HASH = "0123456789abcdef0123456789abcdef"


def noise(seed: int) -> Image.Image:
    """An image with detail of all sizes, like no other."""
    rng = np.random.default_rng(seed)
    parts = [
        Image.fromarray(rng.integers(256, size=(side, side, 3), dtype=np.uint8)).resize((96, 96))
        for side in (6, 12, 24)
    ]
    pixels = np.mean([np.asarray(part, np.float32) for part in parts], axis=0)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, quality: int = 95, taken: str = "") -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


class Folder:
    """Images, to be made a dataset."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes, int, str, str]] = []
        self.vectors: list[NDArray[np.float32]] = []

    def add(
        self,
        name: str,
        data: bytes,
        label: int = 0,
        *,
        like: int,
        split: str = "train",
        group: str = "",
    ) -> None:
        """`like`: what the features of the image are those of."""
        self.rows.append((name, data, label, split, group))
        rng = np.random.default_rng(like)
        self.vectors.append(rng.normal(size=64).astype(np.float32))

    def grouping(self, how: str = "auto") -> tuple[Grouping, Dataset]:
        names, data, labels, splits, groups = zip(*self.rows, strict=True)
        dataset = Dataset(
            *("made", "", names, np.array(labels), ("a", "b"), splits, groups),
            read=data.__getitem__,
        )
        greys = np.stack([grey(dataset[i][0]) for i in range(len(dataset))])
        found = Extracted(np.stack(self.vectors), {}, {}, 0, greys)
        return find_groups(dataset, found, check_groups(how), 2, Silent()), dataset


@pytest.fixture
def folder() -> Folder:
    """Twenty images of two classes, independent of one another."""
    made = Folder()
    for i in range(20):
        made.add(f"{'ab'[i % 2]}/{i}.jpg", encoded(noise(i)), i % 2, like=i)
    return made


def test_independent_images_have_a_group_each(folder: Folder) -> None:
    grouping, dataset = folder.grouping()
    for numbers in (grouping.photos, grouping.copies, grouping.bursts, grouping.groups):
        assert numbers.tolist() == list(range(20))
    assert grouping.listed(dataset) == [] and not any(grouping.applied(dataset).groups)


def test_copies_are_one_photo_and_of_two_labels_one_group(folder: Folder) -> None:
    folder.add(
        "a/mirrored.jpg", encoded(noise(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)), like=0
    )
    folder.add("b/same.jpg", encoded(noise(0)), 1, like=0)  # the bytes of a/0.jpg
    grouping, dataset = folder.grouping()
    assert grouping.photos[[0, 20, 21]].tolist() == [0, 0, 21]
    assert grouping.copies[[0, 20, 21]].tolist() == [0, 0, 0]
    (group,) = grouping.listed(dataset)
    assert group["kind"] == "copies" and len(group["files"]) == 3
    assert "same bytes" in group["reason"] and "mirrored" in group["reason"]


def test_versions_of_a_file_are_one_photo_within_a_class(folder: Folder) -> None:
    for label, row in ((0, 0), (0, 1), (1, 2)):
        name = f"{'ab'[label]}/x_jpg.rf.{HASH[row:]}{HASH[:row]}.jpg"
        folder.add(name, encoded(noise(50 + row)), label, like=50 + row)
    grouping, _ = folder.grouping()
    assert grouping.photos[20:].tolist() == [20, 20, 22]


def test_images_seconds_apart_are_a_group_and_count_each(folder: Folder) -> None:
    for i, second in enumerate((10, 15, 50)):
        taken = f"2024:05:01 12:00:{second}"
        folder.add(f"a/t{i}.jpg", encoded(noise(60 + i), taken=taken), like=60 + i)
    grouping, dataset = folder.grouping()
    assert grouping.groups[20:].tolist() == [20, 20, 22]
    assert grouping.photos[20:].tolist() == [20, 21, 22]
    assert grouping.listed(dataset)[0]["kind"] == "burst"


def test_the_tables_groups_are_kept_and_joined_with_what_is_found(folder: Folder) -> None:
    folder.add("a/one.jpg", encoded(noise(70)), like=70, group="visit")
    folder.add("b/two.jpg", encoded(noise(71)), 1, like=71, group="visit")
    folder.add("b/again.jpg", encoded(noise(71), 60), 1, like=71)
    grouping, dataset = folder.grouping()
    assert grouping.groups[20:].tolist() == [20, 20, 20]
    assert grouping.listed(dataset)[0]["kind"] == "given"
    again, _ = folder.grouping("given")
    assert again.groups[20:].tolist() == [20, 20, 22]
    none, _ = folder.grouping("none")
    assert none.groups[20:].tolist() == [20, 21, 22]


def test_pairs_of_photos_seconds_apart_are_pairs_and_no_more() -> None:
    """Half of the photos of a set of independent ones."""
    made = Folder()
    for i in range(80):
        taken = f"2024:05:{1 + i // 4:02} 12:00:0{i % 2}" if i % 4 < 2 else ""
        made.add(f"{'ab'[i >= 40]}/{i}.jpg", encoded(noise(i), taken=taken), int(i >= 40), like=i)
    grouping, _ = made.grouping()
    assert len(np.unique(grouping.groups)) == 60


def test_copies_in_the_test_change_no_group_of_what_is_learnt(folder: Folder) -> None:
    before, _ = folder.grouping()
    for i in range(20):
        folder.add(f"0 test/{i}.jpg", encoded(noise(i)), i % 2, like=i, split="test")
    after, dataset = folder.grouping()
    assert (after.groups[:20] == before.groups).all()
    assert len(after.leaks(dataset)) == 20


def test_files_with_the_same_bytes_are_known_in_any_case(folder: Folder) -> None:
    folder.add("a/0 again.jpg", encoded(noise(0)), like=0)
    for how in ("auto", "given", "none"):
        grouping, _ = folder.grouping(how)
        assert grouping.photos[20] == 0 and grouping.groups[20] == 0


def test_a_test_image_that_was_learnt_from_is_a_leak(folder: Folder) -> None:
    folder.add("a/test.jpg", encoded(noise(0).resize((48, 48))), like=0, split="test")
    folder.add("a/other.jpg", encoded(noise(80)), like=80, split="test")
    grouping, dataset = folder.grouping()
    assert [(row, of) for row, of, _ in grouping.leaks(dataset)] == [(20, 0)]


def test_the_groups_are_the_datasets_from_then_on(folder: Folder) -> None:
    folder.add("a/again.jpg", encoded(noise(0), 60), like=0)
    grouping, dataset = folder.grouping()
    applied = grouping.applied(dataset)
    assert [i for i, group in enumerate(applied.groups) if group] == [0, 20]
    assert applied.grouping()[20] == applied.grouping()[0]


@pytest.mark.parametrize("how", ["all", "", None, 1])
def test_there_are_three_ways(how: object) -> None:
    with refused(UsageError, "auto", "given", "none"):
        check_groups(how)


def test_no_images_are_no_error(tmp_path: Path) -> None:
    dataset = Dataset(*("none", "", (), np.zeros(0, np.int64), ("a",), (), ()), read=lambda _: b"")
    found = Extracted(np.zeros((0, 4), np.float32), {}, {}, 0, np.zeros((0, 64, 64), np.uint8))
    grouping = find_groups(dataset, found, "auto", 1, Silent())
    assert len(grouping.groups) == 0 and grouping.leaks(dataset) == []
