"""The accuracy that a classifier will have on new groups of images, from its answers out of fold.

Two things make the plain figure too good. The penalty, and whatever else was chosen, was chosen on
the very images that then judge the choice; and images of one group (one object, one burst, copies)
answer together, so that there are fewer independent answers than images. So groups are resampled,
not images: in each resample, the candidate is chosen on the groups drawn, and judged on those that
were not drawn.

Source: Tsamardinos, Greasidou, Borboudakis. "Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation". Machine Learning 107, 2018; here with the group as unit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.metrics import wilson_interval

Floats = NDArray[np.floating[Any]]

RESAMPLES = 500
FEW_GROUPS = 8  # with fewer, no interval
MANY_GROUPS = 30  # with fewer, resampling has nothing to vary
MANY_ERRORS = 10  # groups with an error; with fewer, the same


@dataclass(frozen=True)
class Estimate:
    """What is known of the accuracy on new groups.

    Args:
        accuracy: a fraction, corrected for the choice.
        interval: 95 %, or None where groups are too few to say.
        groups: that were judged.
        correction: by how much the choice had flattered the accuracy; a fraction.
    """

    accuracy: float
    interval: tuple[float, float] | None
    groups: int
    correction: float


def estimate_accuracy(
    right: NDArray[np.bool_],
    losses: Floats,
    groups: NDArray[np.int64],
    seed: int = 0,
    chosen: int | None = None,
) -> Estimate:
    """The accuracy on new groups of the candidate with the lowest loss, or of the chosen one.

    Args:
        right: (candidates, N), whether each candidate's answer is right, from heads that were
            solved without the image's fold.
        losses: (candidates, N), the loss by which a candidate is chosen.
        groups: (N,), any integers; images with the same number are of one group.
        seed: of the resamples.
        chosen: the candidate that was taken, where one with a higher loss was preferred for what it
            saves. What is taken off is what the lowest loss would have flattered itself by.

    Raises:
        ValueError: there are no images.
    """
    if right.shape != losses.shape or right.ndim != 2 or not right.size:
        raise ValueError(f"expected (candidates, N) twice, got {right.shape} and {losses.shape}")
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    lowest = int(np.argmin(losses.mean(axis=1)))
    chosen = lowest if chosen is None else chosen
    plain = float(right[chosen].mean())
    right_of, loss_of = sums(right, group, len(sizes)), sums(losses, group, len(sizes))
    with threadpool_limits(1):  # products so small that threads only wait for one another
        judged = resampled(right_of, loss_of, sizes, seed)
    # with one candidate there is nothing to correct: the mean would only add its noise
    flattered = float(right[lowest].mean())
    correction = flattered - float(judged.mean()) if len(right) > 1 and len(judged) else 0.0
    correction = max(correction, 0.0)
    accuracy = plain - correction
    errors = sizes - right_of[chosen]
    if len(sizes) < FEW_GROUPS:
        interval = None
    elif len(sizes) < MANY_GROUPS or np.count_nonzero(errors) < MANY_ERRORS:
        interval = interval_of_few(accuracy, right_of[chosen], sizes)
    else:
        # As in the source. A resample leaves out about 37 % of the groups, so these quantiles are
        # some 30 % wider than those of as many independent answers. Heads that learnt from four
        # fifths of the images differ from the one that learnt from all by about that much
        # (benchmarks/truth.py, coverage)
        low, high = np.quantile(judged, [0.025, 0.975]) - judged.mean()
        interval = max(0.0, float(accuracy + low)), min(1.0, float(accuracy + high))
    return Estimate(accuracy, interval, len(sizes), correction)


def by_groups(
    result: dict[str, Any], right: NDArray[np.bool_], groups: NDArray[np.int64]
) -> dict[str, Any]:
    """The figures of a split that was held out; its interval counts groups, not images."""
    there = len(np.unique(groups))
    if there == len(groups):
        return result
    interval = estimate_accuracy(right[None], np.zeros((1, len(right))), groups).interval
    ci = None if interval is None else list(interval)
    return result | {"groups": there, "accuracy_ci95": ci}


def sums(values: Floats | NDArray[np.bool_], group: NDArray[np.int64], groups: int) -> Floats:
    """(candidates, groups), the sum over each group's images."""
    return np.stack([np.bincount(group, row, minlength=groups) for row in values])


def resampled(right_of: Floats, loss_of: Floats, sizes: NDArray[np.int64], seed: int) -> Floats:
    """(RESAMPLES,), the accuracy on the groups not drawn of the candidate chosen on those drawn;
    fewer where a resample drew them all."""
    rng, groups = np.random.default_rng(seed), len(sizes)
    counts, found = sizes.astype(np.float64), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(groups, size=groups)
        times = np.bincount(drawn, minlength=groups).astype(np.float64)
        left = (times == 0).astype(np.float64)
        if images := left @ counts:
            chosen = int(np.argmin(loss_of @ times))
            found.append(float(right_of[chosen] @ left / images))
    return np.array(found)


def interval_of_few(
    accuracy: float, right_of: Floats, sizes: NDArray[np.int64]
) -> tuple[float, float]:
    """Wilson's interval on as many independent answers as the groups are worth.

    The design effect is the variance of the accuracy between groups, over that of as many
    independent images; at least 1. Without any error it cannot be seen, and a group counts as one.
    """
    n, groups = int(sizes.sum()), len(sizes)
    rate = right_of.sum() / n
    if right_of.sum() in (0, n):
        return wilson_interval(accuracy * groups, groups)
    between = ((right_of - rate * sizes) ** 2).sum() * groups / (groups - 1) / n**2
    worth = n / max(1.0, between / (rate * (1 - rate) / n))
    return wilson_interval(accuracy * worth, worth, students(groups - 1))


def students(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 0.01 from five degrees of freedom on.

    Source: Abramowitz, Stegun. Handbook of Mathematical Functions, 26.7.5.

    >>> round(students(19), 2)
    2.09
    """
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
