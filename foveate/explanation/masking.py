"""Images of which parts are hidden, and what a classifier makes of them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.classifier import Classifier
from foveate.classifier.tta import Squares
from foveate.data.preprocess import Preprocess
from foveate.engine import run_each
from foveate.errors import ArtefactError, quoted

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]  # (side, side), True where a view is hidden


def rows_of(classifier: Classifier, images: Iterable[Squares]) -> NDArray[np.float32]:
    """What the classifier's engine makes of images: (N, classes), calibrated logits; and after them
    what the head read, where the classifier refuses images.

    Args:
        images: the pixels of each view, (side, side, C), uint8.

    Raises:
        ArtefactError: numbers that are not finite.
    """
    tagged = ((None, squares) for squares in images)
    rows = np.stack([row for _, row in run_each(classifier.engine, tagged) if row is not None])
    if not np.isfinite(rows).all():
        raise ArtefactError(
            f"the classifier in {quoted(classifier.folder)} gives numbers that are not finite: its "
            "weights are damaged; train again"
        )
    n = len(classifier.classes)
    return np.concatenate([classifier.scaled(rows[:, :n]), rows[:, n:]], axis=1)


def logits_of(classifier: Classifier, images: Iterable[Squares]) -> NDArray[np.float32]:
    """(N, classes), calibrated."""
    return rows_of(classifier, images)[:, : len(classifier.classes)]


def hide(squares: Squares, masks: Iterable[Mask], preprocess: Preprocess) -> Squares:
    """The pixels of each view with the mean colour of the network's training images where its mask
    is True: 0, after normalising."""
    colour = np.round(255 * np.array(preprocess.mean)).astype(np.uint8)
    return tuple(
        np.where(mask[:, :, None], colour, view) for view, mask in zip(squares, masks, strict=True)
    )


def cells(side: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """(side, side), the number of the cell of a grid, row by row, in which each pixel lies."""
    rows, columns = (np.arange(side) * n // side for n in grid)
    return np.asarray(rows[:, None] * grid[1] + columns)


def enlarged(values: Map, height: int, width: int) -> Map:
    """A map at another size, between its points linearly."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
