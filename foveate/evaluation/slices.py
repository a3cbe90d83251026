"""Where a classifier is better or worse than elsewhere: its accuracy on parts of the images, by
what a table says of them, by how they look, and by how many images their class had to learn from.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.estimate import by_groups
from foveate.audit.quality import Measures
from foveate.metrics import Ints, wilson_interval

LEAST = 10  # images on either side of a slice: fewer say nothing
MANY = 20  # different values of a column: more numbers are cut into thirds, more texts left out
SHUFFLES = 9999
MOST = 5e7  # results that are shuffled in all: of large sets there are fewer shuffles
NOISE = 0.05  # corrected p from which a difference is called noise

Values = Sequence[str]  # of each image


def by_looks(measures: Measures) -> dict[str, Values]:
    """The slice of each image, by its size, sharpness and shape."""
    short = np.minimum(measures.width, measures.height)
    ratio = measures.width / np.maximum(measures.height, 1)
    shape = np.where(ratio < 0.9, "upright", np.where(ratio > 1 / 0.9, "lying", "square"))
    return {
        "shorter side": thirds(short, "pixels"),
        "sharpness": thirds(measures.sharpness),
        "shape": shape.tolist(),
    }


def by_distance(scores: Sequence[float | None]) -> Values:
    """The third of the images in which each is, by how far from the training images it lies."""
    values = np.array([np.nan if score is None else score for score in scores])
    names = ["near the training images", "at a usual distance", "far from the training images"]
    return thirds(values, names=names)


def by_column(cells: Values) -> Values | None:
    """The slice of each image by a column of a table: its value; a third of the numbers, where
    there are many; None where there are many texts, or one value."""
    different = {*cells} - {""}
    if len(different) < 2:
        return None
    if len(different) <= MANY:
        return cells
    try:
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return None
    return thirds(numbers)


def thirds(
    values: NDArray[np.floating[Any]], unit: str = "", names: list[str] | None = None
) -> Values:
    """The third of the values in which each is, in words, or by names; "" of what is no number.

    >>> thirds(np.array([1.0, 2.0, 3.0]), "pixels")
    ['up to 1 pixels', '1 to 2 pixels', 'above 2 pixels']
    """
    unit = f" {unit}" if unit else ""
    known = np.isfinite(values)
    if not known.any():
        return [""] * len(values)
    low, high = np.quantile(values[known], [1 / 3, 2 / 3], method="inverted_cdf")
    first, second = (f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}" for x in (low, high))
    names = names or [f"up to {first}{unit}", f"{first} to {second}{unit}", f"above {second}{unit}"]
    place = np.digitize(values, [low, high], right=True)
    return [names[at] if there else "" for at, there in zip(place.tolist(), known, strict=True)]


def accuracy_by_slice(
    right: NDArray[np.bool_], groups: Ints, values: Mapping[str, Values]
) -> list[dict[str, Any]]:
    """The accuracy on each slice, beside that on all other images.

    Args:
        right: (N,), whether each answer is right.
        groups: (N,), images with the same number are of one group.
        values: by what is sliced, and the slice of each image; "" is none.

    Returns:
        Of each slice of LEAST images that leaves as many others: by, value, n, groups, accuracy,
        accuracy_ci95, others (their accuracy), p and differs, the one with the lowest accuracy
        first. p is the probability that the results of as many images, drawn from all, were as far
        from the others', times the number of slices that were not left out before (Holm).
    """
    named, masks = list[tuple[str, str]](), list[NDArray[np.bool_]]()
    for by, each in values.items():
        for value, n in Counter(each).items():
            if value and LEAST <= n <= len(right) - LEAST:
                named.append((by, value))
                masks.append(np.array([one == value for one in each]))
    if not named:
        return []
    inside = np.stack(masks)
    corrected = holm(chances(right, groups, inside))
    found = []
    for (by, value), mask, p in zip(named, inside, corrected, strict=True):
        n, correct = int(mask.sum()), int(right[mask].sum())
        accuracy = {"accuracy": correct / n, "accuracy_ci95": list(wilson_interval(correct, n))}
        found.append(
            {
                "by": by,
                "value": value,
                "n": n,
                **by_groups(accuracy, right[mask], groups[mask]),
                "others": float(right[~mask].mean()),
                "p": p,
                "differs": p < NOISE,
            }
        )
    return sorted(found, key=lambda one: one["accuracy"])


def chances(
    right: NDArray[np.bool_], groups: Ints, inside: NDArray[np.bool_], seed: int = 0
) -> list[float]:
    """Of each slice, the probability that its results are as far from what is usual, if results
    had nothing to do with it (two-sided).

    Groups of one size exchange their results, at random; so what belongs together stays so. Where
    no exchange is as far, the tail is the normal distribution's.

    Args:
        right, groups: (N,)
        inside: (slices, N), whether an image is in a slice.
    """
    order = np.argsort(groups, kind="stable")
    _, sizes = np.unique(groups, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    blocks = [order[starts[sizes == s][:, None] + np.arange(s)] for s in np.unique(sizes)]
    rng, member = np.random.default_rng(seed), inside.astype(np.float32)
    times = min(SHUFFLES, max(999, int(MOST / len(right))))
    counts = np.empty((times, len(inside)), np.float32)
    some = max(1, int(2e6 / len(right)))  # shuffles at once
    for start in range(0, times, some):
        n = min(some, times - start)
        shuffled = np.empty((n, len(right)), np.float32)
        for rows in blocks:
            places = rng.permuted(np.tile(np.arange(len(rows)), (n, 1)), axis=1)
            shuffled[:, rows.ravel()] = right[rows][places].reshape(n, -1)
        counts[start : start + n] = shuffled @ member.T
    usual, spread = counts.mean(axis=0), counts.std(axis=0)
    away = np.abs(member @ right.astype(np.float32) - usual)
    far = (np.abs(counts - usual) >= away - 1e-3).sum(axis=0)
    found = (far + 1) / (times + 1)
    for i in np.flatnonzero((far == 0) & (spread > 0)):  # beyond what shuffles can tell
        found[i] = min(found[i], math.erfc(float(away[i] / spread[i]) / math.sqrt(2)))
    return [float(p) for p in found]


def holm(chances: Sequence[float]) -> list[float]:
    """Probabilities corrected for how many there are, so that of all differences that are named,
    none is chance, in 19 of 20 evaluations.

    Source: Holm. "A simple sequentially rejective multiple test procedure". Scandinavian Journal
        of Statistics 6, 1979. Checked against statsmodels in tests/evaluation/test_slices.py.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(chances, kind="stable")
    found, worst = [0.0] * len(chances), 0.0
    for done, i in enumerate(order.tolist()):
        worst = max(worst, min(1.0, chances[i] * (len(chances) - done)))
        found[i] = worst
    return found
