"""How far a figure would be another one on other images of the same kind: groups of images are
drawn again and again, each as often as chance has it, and the figure is computed of each draw.

Source: Efron, Tibshirani. "An Introduction to the Bootstrap", 1993, chapters 13 and 10.6 (pivots);
    here with the group as unit. Coverage: tests/evaluation/test_intervals.py.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.estimate import FEW_GROUPS
from foveate.metrics import TINY, Floats, Ints, bin_of, confusion_matrix, precision_recall_f1

DRAWS = 1000
MOST = 2e7  # images drawn in all: of large sets there are fewer draws

Weights = NDArray[np.float64]
Interval = list[float] | None


def draws(groups: Ints, seed: int = 0) -> Iterator[Weights]:
    """(N,), how often each image counts, of each draw of as many groups as there are.

    Args:
        groups: (N,), any integers; images with the same number are of one group.
        seed: of the draws.
    """
    _, member = np.unique(groups, return_inverse=True)
    n, rng = int(member.max(initial=-1)) + 1, np.random.default_rng(seed)
    for _ in range(min(DRAWS, max(200, int(MOST / max(1, len(groups)))))):
        drawn = np.bincount(rng.integers(n, size=n), minlength=n)
        yield drawn.astype(np.float64)[member]


def resampled(
    figures: Callable[[Weights], dict[str, float]], groups: Ints, pivots: tuple[str, ...] = ()
) -> dict[str, Interval]:
    """The 95 % interval of each figure.

    Args:
        figures: computes them where each image counts as often as given, (N,).
        groups: (N,), of the images.
        pivots: the figures that have a bias, which a draw has twice: their interval is mirrored at
            the figure, so that it is taken off.

    Returns:
        [low, high] by the figure's name; None of fewer than FEW_GROUPS groups.
    """
    whole = figures(np.ones(len(groups)))
    if len(np.unique(groups)) < FEW_GROUPS:
        return dict.fromkeys(whole)
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for weights in draws(groups):
        for name, value in figures(weights).items():
            drawn[name].append(value)
    found: dict[str, Interval] = {}
    for name, values in drawn.items():
        known = [value for value in values if not np.isnan(value)]
        if not known:
            found[name] = None
            continue
        low, high = np.quantile(known, [0.025, 0.975])
        if name in pivots:
            low, high = max(0.0, 2 * whole[name] - high), max(0.0, 2 * whole[name] - low)
        found[name] = [float(low), float(high)]
    return found


def of_classes(
    probabilities: Floats, labels: Ints, answers: Ints, groups: Ints
) -> dict[str, Interval]:
    """macro_f1_ci95 and ece_ci95 of one class an image.

    Args:
        probabilities: (N, classes)
        labels, answers: (N,)
        groups: (N,)
    """
    classes = probabilities.shape[1]
    pairs = labels.astype(np.int64) * classes + answers
    there = confusion_matrix(labels, answers, classes).sum(axis=1) > 0
    confidence = probabilities.max(axis=1).astype(np.float64)
    which, gap = bin_of(confidence), (probabilities.argmax(axis=1) == labels) - confidence

    def figures(weights: Weights) -> dict[str, float]:
        confusion = np.bincount(pairs, weights, minlength=classes**2).reshape(classes, classes)
        _, _, f1 = precision_recall_f1(confusion)
        drawn = there & (confusion.sum(axis=1) > 0)
        return {
            "macro_f1_ci95": float(f1[drawn].mean()) if drawn.any() else np.nan,
            "ece_ci95": float(np.abs(np.bincount(which, gap * weights)).sum() / weights.sum()),
        }

    return resampled(figures, groups, pivots=("ece_ci95",))


def of_labels(probabilities: Floats, labels: Ints, given: Any, groups: Ints) -> dict[str, Interval]:
    """The same of any number of labels an image; each array is (N, classes), but groups."""
    there = labels == 1
    p = probabilities.astype(np.float64)
    bins, gaps = bin_of(p).ravel(), labels - p

    def figures(weights: Weights) -> dict[str, float]:
        right, support = weights @ (given & there), weights @ there
        f1 = 2 * right / np.maximum(weights @ given + support, TINY)
        per_bin = np.bincount(bins, (gaps * weights[:, None]).ravel())
        seen = support > 0
        return {
            "macro_f1_ci95": float(f1[seen].mean()) if seen.any() else np.nan,
            "ece_ci95": float(np.abs(per_bin).sum() / (weights.sum() * p.shape[1])),
        }

    return resampled(figures, groups, pivots=("ece_ci95",))
