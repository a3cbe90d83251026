"""Test-time augmentation: several views of one image, their probabilities averaged."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveate.data.preprocess import Preprocess
from foveate.errors import UsageError

Pixels = NDArray[np.uint8]  # (side, side, C)
Tta = Literal["none", "mirror", "ten"]

KINDS = ("none", "mirror", "ten")
MARGIN = 8 / 7  # of the ten crops: 256 pixels for 224, as in the AlexNet paper


class Views:
    """The views of one kind.

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
        self.kind, self.side = kind, preprocess.crop
        self.count = {"none": 1, "mirror": 2, "ten": 10}[kind]
        larger = round(MARGIN * preprocess.crop)
        self.preprocess = preprocess.at(larger, preprocess.stretch) if kind == "ten" else preprocess

    def of(self, pixels: Pixels) -> list[Pixels]:
        """The views of an image that was decoded with `self.preprocess`, each (crop, crop, C)."""
        if self.kind == "none":
            return [pixels]
        if self.kind == "mirror":
            return [pixels, pixels[:, ::-1]]
        end = len(pixels) - self.side
        starts = [(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]
        crops = [pixels[y : y + self.side, x : x + self.side] for y, x in starts]
        return [*crops, *(crop[:, ::-1] for crop in crops)]
