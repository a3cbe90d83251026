"""Versions of one file, by their names."""

import pytest

from foveate.audit.names import version_of

HASH = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    [
        f"train/cat/a_jpg.rf.{HASH}.jpg",
        f"test\\cat\\A_JPG.rf.{HASH.upper()}.JPG",
        f"a_png.rf.{HASH[:20]}.png",
        f"a.jpeg.rf.{HASH}.webp",
        f"a_jpg.rf.{HASH}_jpg.rf.{HASH[::-1]}.jpg",
    ],
)
def test_versions_have_the_name_of_their_file(name: str) -> None:
    assert version_of(name) == "a"


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a (1).jpg", "a - Copy.jpg", "IMG_0012.jpg", "a_jpg.rf.12.jpg", "a.rf.jpg", "", "/"],
)
def test_other_names_say_nothing(name: str) -> None:
    assert version_of(name) == ""


def test_two_files_have_two_names() -> None:
    assert version_of(f"a_jpg.rf.{HASH}.jpg") != version_of(f"b_jpg.rf.{HASH}.jpg")
