"""Names that tools give to copies, and names that only look like them."""

import pytest

from foveate.audit.names import name_family

HEX = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


@pytest.mark.parametrize(
    "copy",
    [
        f"a_jpg.rf.{HEX}.jpg",
        f"a_jpeg.rf.{HEX}.png",
        f"a_PNG.rf.{HEX.upper()}.jpg",
        f"a.jpg.rf.{HEX}.jpg",
        "a (1).jpg",
        "a(12).jpg",
        "a - Copy.jpg",
        "a - Copy (3).jpg",
        "a copy.png",
        "a copy 2.png",
        "a.jpeg",
        "A.JPG",
        "other/folder/a.jpg",
        r"other\folder\a.jpg",
        f"a (1)_jpg.rf.{HEX}.jpg",
    ],
)
def test_a_copy_is_of_its_originals_family(copy):
    assert name_family(copy) == name_family("train/a.jpg")


@pytest.mark.parametrize(
    "other",
    [
        "a1.jpg",
        "a_1.jpg",
        "a-2.jpg",
        "a 2.jpg",
        "photocopy.jpg",
        "acopy 2.jpg",
        "a (2024).jpg",
        "a (front).jpg",
        "a_jpg.rf.12.jpg",
        "copy.jpg",
        "b.jpg",
    ],
)
def test_other_names_are_of_other_families(other):
    assert name_family(other) != name_family("a.jpg")


@pytest.mark.parametrize("name", ["(1).jpg", " copy.jpg", "(1) (2).png", ".jpg", ""])
def test_a_name_that_is_all_mark_is_kept(name):
    assert name_family(name) == name_family(name_family(name))
    assert name_family(name) or not name


def test_families_of_all_mark_names_differ():
    assert name_family("(1).jpg") != name_family("(2).jpg")
