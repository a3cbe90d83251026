"""Images of nothing that a folder of photos holds: noise, pages of text, flat colour, and pieces of
the training images put together wrongly. A run says how many of them its classifier refuses."""

import hashlib
import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from foveate.data.dataset import Dataset

Rows = NDArray[np.int64]
Pixels = NDArray[np.uint8]

KINDS = ("noise", "text", "flat colour", "scrambled pieces")
EACH = 6  # images of a kind
SIDE = 256  # pixels
PIECES = 4  # a side, into which an image is cut
LETTERS = np.array(list("eeeeettttaaaooiinnsshhrrddllcumwfgypbvk        "))
LINE, MARGIN = 14, 16  # pixels between the lines of a page, and around them
LETTERS_A_LINE = 44


def foreign_images(dataset: Dataset, rows: Rows) -> Dataset:
    """EACH images of each of KINDS, which are their classes; the same for the same images.

    Args:
        dataset: whose images are cut into pieces.
        rows: of it, from which these are taken evenly.
    """
    rng = np.random.default_rng(0)
    made = [noise(rng, i) for i in range(EACH)]
    made += [page(rng) for _ in range(EACH)]
    made += [np.tile(rng.integers(0, 256, 3, np.uint8), (SIDE, SIDE, 1)) for _ in range(EACH)]
    own = rows[np.linspace(0, len(rows) - 1, EACH).round().astype(int)]
    made += [scrambled(rng, dataset, row) for row in own.tolist()]
    files = [encoded(pixels) for pixels in made]
    labels = np.repeat(np.arange(len(KINDS)), EACH)
    names = tuple(f"{KINDS[label]} {i % EACH}.ppm" for i, label in enumerate(labels.tolist()))
    found = replace(
        dataset,
        name="foreign images",
        files=names,
        labels=labels,
        classes=KINDS,
        splits=("train",) * len(files),
        groups=("",) * len(files),
        read=files.__getitem__,
        pixels=None,
    )
    found.__dict__["digests"] = tuple(hashlib.sha256(file).hexdigest() for file in files)
    return found


def noise(rng: np.random.Generator, i: int) -> Pixels:
    """Independent pixels, or blobs of 2, 4, 8 ... pixels."""
    side = max(4, SIDE >> i)
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def page(rng: np.random.Generator) -> Pixels:
    """Black lines of words on white."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    for top in range(MARGIN, SIDE - MARGIN, LINE):
        pen.text((MARGIN, top), "".join(rng.choice(LETTERS, LETTERS_A_LINE)), fill="black")
    pen.rectangle((SIDE - MARGIN, 0, SIDE, SIDE), fill="white")
    return np.asarray(image)


def scrambled(rng: np.random.Generator, dataset: Dataset, row: int) -> Pixels:
    """An image, cut into squares that are put together in another order."""
    image = dataset[row][0].convert("RGB").resize((SIDE, SIDE))
    s = SIDE // PIECES
    cut = np.asarray(image).reshape(PIECES, s, PIECES, s, 3).swapaxes(1, 2)
    pieces = rng.permutation(cut.reshape(PIECES**2, s, s, 3))
    together = pieces.reshape(PIECES, PIECES, s, s, 3).swapaxes(1, 2)
    return np.ascontiguousarray(together.reshape(SIDE, SIDE, 3))


def encoded(pixels: Pixels) -> bytes:
    """As a PPM, which loses nothing and takes no time."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PPM")
    return file.getvalue()
