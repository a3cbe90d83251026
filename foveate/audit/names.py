"""Versions of one file, by the names that annotation services give them."""

import re
from pathlib import PurePosixPath

# Roboflow's versions of x.jpg: x_jpg.rf.0123456789abcdef0123456789abcdef
VERSION = re.compile(
    r"[_.](?:jpe?g|png|bmp|webp|tiff?|gif|heic|avif)\.rf\.[0-9a-z]{16,}$", re.IGNORECASE
)


def version_of(name: str) -> str:
    """The stem of the file of which this one is a turned, mirrored or otherwise changed version;
    "" if its name does not say so.

    "shirt (1).jpg" and "shirt - Copy.jpg" say nothing: browsers call other people's shirts that.

    Args:
        name: a file's name or path; folders are left out.

    >>> version_of("train/cat/IMG_7_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg")
    'img_7'
    >>> version_of("train/cat/IMG_7 (1).jpg")
    ''
    """
    stem = PurePosixPath(name.replace("\\", "/")).stem
    original = VERSION.sub("", stem)
    while original != (shorter := VERSION.sub("", original)):  # a version of a version
        original = shorter
    return original.casefold() if original != stem else ""
