"""Test-time augmentation: several variants of one image, their probabilities averaged."""

from dataclasses import asdict, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import MARGIN, Preprocess, View
from foveate.errors import UsageError

Squares = tuple[NDArray[np.uint8], ...]  # (side, side, C) of each view of the Preprocess
Tta = Literal["none", "mirror", "ten"]

KINDS = ("none", "mirror", "ten")


class Samples:
    """What one kind averages over.

        none     the image as it was learnt
        mirror   and its mirror image
        ten      four corners and the centre of the image shown larger, and their mirror images
                 (AlexNet, section 4.1)

    Args:
        kind: one of these.
        preprocess: of the classifier.

    Raises:
        UsageError: no such kind.
    """

    def __init__(self, kind: str, preprocess: Preprocess):
        if kind not in KINDS:
            raise UsageError(
                f"no test-time augmentation is called {kind!r}; expected {', '.join(KINDS)}"
            )
        self.kind, self.sides = kind, [view.crop for view in preprocess.views]
        self.count = {"none": 1, "mirror": 2, "ten": 10}[kind]
        self.preprocess = preprocess
        if kind == "ten":
            first, *more = map(larger, preprocess.views)
            self.preprocess = replace(preprocess, **asdict(first), more=tuple(more))

    def of(self, squares: Squares) -> list[Squares]:
        """The samples of an image that was decoded with `self.preprocess`, each (crop, crop, C) of
        each view."""
        if self.kind == "none":
            return [squares]
        if self.kind == "mirror":
            return [squares, mirrored(squares)]
        pairs = zip(squares, self.sides, strict=True)
        crops = list(zip(*(five_crops(pixels, side) for pixels, side in pairs), strict=True))
        return [*crops, *map(mirrored, crops)]


def larger(view: View) -> View:
    """The view with more pixels around the centre square of before, which shows a little less."""
    side = round(MARGIN * view.crop)
    return replace(view, resize=round(view.resize * side / view.crop), crop=side)


def five_crops(pixels: NDArray[np.uint8], side: int) -> list[NDArray[np.uint8]]:
    """The corners and the centre, (side, side, C)."""
    end = len(pixels) - side
    starts = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
    return [pixels[y : y + side, x : x + side] for y, x in starts]


def mirrored(squares: Squares) -> Squares:
    return tuple(pixels[:, ::-1] for pixels in squares)
