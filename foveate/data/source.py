"""Where the pixels of a dataset's rows come from: a cache if they are known, else their file.

    row ── cache: known? ── yes ──> pixels (H, W, C), uint8
                  └─ no ──> read ── digest ── decode by a rule ── keep ──> pixels

There are two rules. Evaluation keeps the square that prediction sees; training keeps the whole picture, scaled down,
from which every epoch cuts something else.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from foveate.data.dataset import Dataset
from foveate.data.image import DECODER, JPEGS, load_image, load_pixels
from foveate.data.loader import decode
from foveate.data.pixels import PixelCache, Pixels
from foveate.data.preprocess import Preprocess
from foveate.data.threads import work_ahead
from foveate.errors import ImageError

RULES = 2  # part of every kept picture's key: raise it when `for_training` or `scaled` changes


class Rule(NamedTuple):
    """How pixels are made of a picture's bytes, and everything that decides what they are."""

    make: Callable[[bytes, str], Pixels]
    identity: dict[str, object]


def for_evaluation(preprocess: Preprocess) -> Rule:
    """The picture as prediction sees it."""
    return Rule(
        lambda data, name: decode(data, name, preprocess),
        {"view": "evaluation", "preprocess": preprocess.to_dict(), "decoder": DECODER},
    )


def for_training(preprocess: Preprocess, short_side: int) -> Rule:
    """The whole picture, its shorter side brought down to `short_side` if it is more."""

    def make(data: bytes, name: str) -> Pixels:
        if preprocess.channels == 1:
            pixels = np.asarray(load_image(data, name, short_side).convert("L"))[:, :, None]
        else:
            pixels = load_pixels(data, name, short_side)
        return scaled(pixels, short_side, preprocess.interpolation) if min(pixels.shape[:2]) > short_side else pixels

    identity = {
        "view": "training",
        "rules": RULES,
        "short_side": short_side,
        "channels": preprocess.channels,
        "interpolation": preprocess.interpolation,
        "decoder": f"{DECODER}, {JPEGS}",
        "resize": f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return Rule(make, identity)


def scaled(pixels: Pixels, short_side: int, interpolation: str) -> Pixels:
    """The picture, its shorter side of `short_side` pixels: Pillow's resize but for rounding, five times as fast."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    size = [max(short_side, round(side * scale)) for side in (height, width)]
    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    small = resize(x, size, InterpolationMode(interpolation), antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


class Source:
    """Pixels of a dataset's rows, from a cache where they are known.

    A file's digest is taken when it is first read. Where the dataset knows it already, a file that has changed since is
    refused; where it does not, it is not asked to read all its files only for that.
    """

    def __init__(self, dataset: Dataset, rule: Rule, cache: PixelCache):
        self.dataset, self.rule, self.cache = dataset, rule, cache
        self.digests: dict[int, str] = dict(enumerate(vars(dataset).get("digests", ())))

    def pixels(self, row: int) -> Pixels:
        """Raises ImageError: the picture cannot be read or decoded, or is not what it was."""
        expected = self.digests.get(row)
        kept = self.cache.find(expected) if expected else None
        if kept is not None:
            return kept
        name = self.dataset.files[row]
        data = self.dataset.read(row)
        digest = hashlib.sha256(data).hexdigest()
        if expected is not None and digest != expected:
            raise ImageError(f"image {name!r} changed while it was read; run again")
        self.digests[row] = digest
        if expected is None and (kept := self.cache.find(digest)) is not None:
            return kept
        pixels = self.rule.make(data, name)
        pixels.flags.writeable = False  # whoever comes next finds them as they are
        self.cache.keep(digest, pixels)
        return pixels


def unreadable(source: Source, rows: NDArray[np.int64], threads: int, advance: Callable[[], None]) -> dict[str, str]:
    """Decode every row once, which fills the source's cache; name and reason of each that cannot be read.

    Raises:
        ImageError: a file does not come in time; it names the file.
    """

    def attempt(row: int) -> ImageError | None:
        try:
            source.pixels(row)
        except ImageError as error:
            return error
        return None

    outcomes = work_ahead([int(row) for row in rows], attempt, lambda row: source.dataset.files[row], threads, 64)
    bad: dict[str, str] = {}
    for row, error in zip(rows, outcomes, strict=True):
        advance()
        if error is not None:
            bad[source.dataset.files[row]] = str(error)
    return bad
