"""Families of file names: what tools call the copies that they make of one file."""

import re
from pathlib import PurePosixPath

# Each takes away what a copy's name adds. A burst's number (IMG_0012) is not here: the next number
# may be of anything.
MARKS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Roboflow's versions of x.jpg: x_jpg.rf.0123456789abcdef0123456789abcdef
        r"[_.](?:jpe?g|png|bmp|webp|tiff?|gif|heic|avif)\.rf\.[0-9a-z]{16,}$",
        r" ?\(\d{1,3}\)$",  # browsers, Windows
        r" - copy$",  # Windows
        r" copy(?: \d{1,3})?$",  # macOS
    )
)


def name_family(name: str) -> str:
    """The name that a file and its copies have in common: its stem without what tools add.

    Names alone do not prove anything: "shirt (1).jpg" may be another shirt. Two files of one family
    have to look alike too.

    Args:
        name: a file's name or path; folders are left out, so that copies in other classes and
            splits are of the family.

    >>> name_family("train/cat/IMG_7_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg")
    'img_7'
    >>> name_family("hat - Copy (2).png"), name_family("hat copy 2.webp"), name_family("Hat.JPG")
    ('hat', 'hat', 'hat')
    """
    stem = PurePosixPath(name.replace("\\", "/")).stem
    while True:
        shorter = stem
        for mark in MARKS:
            shorter = mark.sub("", shorter)
        if shorter == stem or not shorter:
            return stem.casefold()
        stem = shorter
