"""The small grey version of an image, by which copies of it are known (foveate/audit/copies.py)."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
RULES = 1  # part of every cached version's key: raise it when `grey` changes


def grey(image: Image.Image) -> NDArray[np.uint8]:
    """(SIDE, SIDE), grey, squashed to a square."""
    image = image.convert("L")  # first: one channel is resized in a third of the time
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0))
