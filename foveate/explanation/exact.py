"""What each region of an image adds to a probe's logit, exactly.

A probe pools the maps of its backbone, and its logits are linear in what is pooled. That is square
roots of means and of deviations, so the logit is no sum over positions. The value of a region is
therefore defined by what is lost without it:

    value(region) = logit - logit with each pooled number taken over all other positions

in the maps of the image and of its mirror image alike. All of it follows from sums over the regions
of the maps of one forward pass: no region is run through the network. It is exact for the maps, not
for the pixels: a position of a map sees more of the image than lies under it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-4  # of the probe's pooling

Floats = NDArray[np.float64]
Maps = Sequence[NDArray[np.float32]]  # of each stage, (C_i, H_i, W_i)


class Masks(NamedTuple):
    """Which positions of a map lie in which region: (rows of regions, H) and (columns, W), 0 or
    1."""

    rows: Floats
    columns: Floats

    @property
    def counts(self) -> Floats:
        """(rows, columns), the positions in each region."""
        return np.outer(self.rows.sum(axis=1), self.columns.sum(axis=1))

    def sums(self, x: Floats) -> Floats:
        """(C, H, W) -> (C, rows, columns), the sum over each region."""
        return np.asarray(self.rows @ x @ self.columns.T)


def grid_of(maps: Maps) -> tuple[int, int]:
    """Rows and columns of the regions: the positions of the last map that has more than one a
    side; at worst one region, the whole."""
    sides = [m.shape[1:] for m in maps if min(m.shape[1:]) > 1]
    return (int(sides[-1][0]), int(sides[-1][1])) if sides else (1, 1)


def lost_without(maps: Maps, mirrored: Maps | None = None, pooling: int = 2) -> Floats:
    """What each number that a view is pooled to loses without each region.

    Args:
        maps: of the view, from early to late.
        mirrored: those of its mirror image, where the probe averages with it.
        pooling: number of the probe's pooling.

    Returns:
        (width, rows, columns), float64. A map that has no position but in one region loses nothing.
    """
    grid = grid_of(maps)
    lost = pooled_loss(maps, grid, pooling, turned=False)
    if mirrored is None:
        return lost
    return (lost + pooled_loss(mirrored, grid, pooling, turned=True)) / 2


def values_of(weight: NDArray[np.float32], lost: Floats) -> Floats:
    """(classes, width), what the head makes of this view's numbers, and `lost_without` -> (classes,
    rows, columns), what the logits lose without each region. Positive: the region speaks for the
    class. They do not sum to the logit."""
    return np.tensordot(weight.astype(np.float64), lost, axes=1)


def pooled(maps: Maps, pooling: int = 2) -> Floats:
    """(width,), the numbers that a view is pooled to, as `foveate.probe.pool_stages` has them."""
    return pooled_without(maps, (1, 1), pooling, turned=False)[:, 0, 0]


def pooled_loss(maps: Maps, grid: tuple[int, int], pooling: int, turned: bool) -> Floats:
    """(width, rows, columns), the pooled numbers less those without each region."""
    return pooled(maps, pooling)[:, None, None] - pooled_without(maps, grid, pooling, turned)


def pooled_without(maps: Maps, grid: tuple[int, int], pooling: int, turned: bool) -> Floats:
    """(width, rows, columns), the pooled numbers over all positions but a region's.

    Args:
        grid: rows and columns of regions.
        turned: the maps are of the mirror image, the regions of the image.
    """
    pairs = [(m.astype(np.float64), masks_of(m.shape[1:], grid, turned)) for m in maps]
    spreads = [spread_without(m, mask) for m, mask in pairs[:-1]]
    if pooling == 1:
        return np.concatenate([*spreads, level_without(*pairs[-1], at_zero=EPSILON**0.5)])
    halves = [spread_without(*centred(m, mask)) for m, mask in pairs[:-1]]
    levels = [level_without(m, mask) for m, mask in pairs]
    return np.concatenate([*spreads, *halves, *levels])


def masks_of(sides: tuple[int, ...], grid: tuple[int, int], turned: bool) -> Masks:
    """A position belongs to the region in which its centre lies."""
    rows, columns = (
        np.array([(np.arange(n) * 2 + 1) * k // (2 * n) == i for i in range(k)], dtype=np.float64)
        for n, k in zip(sides, grid, strict=True)
    )
    return Masks(rows, columns[:, ::-1] if turned else columns)


def centred(x: Floats, masks: Masks) -> tuple[Floats, Masks]:
    """The centre half of each side, rounded up, as `foveate.probe.centre` cuts it."""
    height, width = x.shape[1:]
    h, w = (height + 1) // 2, (width + 1) // 2
    rows = slice((height - h) // 2, (height - h) // 2 + h)
    columns = slice((width - w) // 2, (width - w) // 2 + w)
    return x[:, rows, columns], Masks(masks.rows[:, rows], masks.columns[:, columns])


def mean_without(x: Floats, masks: Masks) -> Floats:
    """(C, H, W) -> (C, rows, columns), the mean over all other positions; over all where there is
    no other."""
    counts = masks.counts
    left = x[0].size - counts
    alone = left == 0
    rest = x.sum(axis=(1, 2))[:, None, None] - np.where(alone, 0, masks.sums(x))
    return np.asarray(rest / np.where(alone, x[0].size, left))


def spread_without(x: Floats, masks: Masks) -> Floats:
    """The square root of the standard deviation."""
    x = x - x.mean(axis=(1, 2), keepdims=True)  # the difference of squares then loses no digits
    variance = mean_without(x**2, masks) - mean_without(x, masks) ** 2
    return np.asarray(np.sqrt(np.sqrt(np.maximum(variance, 0) + EPSILON**2)))


def level_without(x: Floats, masks: Masks, at_zero: float = 0.0) -> Floats:
    """The square root of the mean, with its sign."""
    mean = mean_without(x, masks)
    return np.sign(mean) * (np.sqrt(np.abs(mean) + EPSILON) - (EPSILON**0.5 - at_zero))
