"""Occlusion: what the logit loses when a cell of the image is hidden (Zeiler, Fergus.
"Visualizing and Understanding Convolutional Networks". arXiv:1311.2901). It asks nothing of the
network, and takes a forward pass a cell."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from foveate.classifier.tta import Squares
from foveate.data.preprocess import Preprocess
from foveate.explanation.masking import Map, cells, hide

GRID = 7  # cells a side


def occlusion(
    logits: Callable[[Iterable[Squares]], NDArray[np.float32]],
    squares: Squares,
    classes: Sequence[int],
    preprocess: Preprocess,
    grid: int = GRID,
) -> list[list[Map]]:
    """Of each class, the map of each view: (grid, grid), what the logit loses when the cell is
    hidden in this view alone.

    Args:
        logits: gives those of images, (N, classes).
        squares: the pixels of each view.
        classes: their numbers.
        preprocess: its mean is the colour that hides.
        grid: cells a side, at most the pixels of a view's.
    """
    nothing = [np.zeros(view.shape[:2], bool) for view in squares]
    sides = [min(grid, len(view)) for view in squares]
    images = [squares]
    for number, (view, side) in enumerate(zip(squares, sides, strict=True)):
        cell_of = cells(len(view), (side, side))
        for cell in range(side * side):
            masks = [*nothing[:number], cell_of == cell, *nothing[number + 1 :]]
            images.append(hide(squares, masks, preprocess))
    whole, *hidden = logits(images)
    lost = np.split(whole - np.stack(hidden), np.cumsum([side**2 for side in sides])[:-1])
    return [
        [rows[:, n].reshape(side, side) for rows, side in zip(lost, sides, strict=True)]
        for n in classes
    ]
