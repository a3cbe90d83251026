"""Two classifiers on the same images: which is better, or how many images it would take to tell."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveate.evaluation.intervals import Weights, resampled
from foveate.metrics import Ints

NOISE = 0.05  # p from which a difference is called noise
POWER = 0.8416  # quantile of the normal distribution: a difference is found in 80 of 100 tries
SURE = 1.96
MOST = 10**7  # images: more are never asked for


def compare(
    right: NDArray[np.bool_], other: NDArray[np.bool_], losses: Any, groups: Ints
) -> dict[str, Any]:
    """Whether a classifier is right more often than another one, on images that both judged.

    Args:
        right, other: (N,), whether the answer of each is right.
        losses: (2, N), the log-losses of the two.
        groups: (N,), images with the same number are of one group.

    Returns:
        n, groups; accuracy and other_accuracy; difference, of the first to the other one, and
        difference_ci95, of groups drawn again and again; log_loss_difference and its interval;
        newly_right and newly_wrong, images that only the first, or only the other, has right; p,
        of `sign_flip` over groups; verdict, "better", "worse" or "not distinguishable"; needed, how
        many images would show a difference of this size in 80 of 100 tries, or None where there is
        none.
    """
    change = right.astype(np.int64) - other
    costs = losses[0] - losses[1]

    def figures(weights: Weights) -> dict[str, float]:
        n = weights.sum()
        return {
            "difference_ci95": float(change @ weights / n),
            "log_loss_difference_ci95": float(costs @ weights / n),
        }

    _, member = np.unique(groups, return_inverse=True)
    of_groups = np.bincount(member, weights=change)
    p, difference = sign_flip(of_groups), float(change.mean())
    verdict = "not distinguishable"
    if p < NOISE:
        verdict = "better" if difference > 0 else "worse"
    return {
        "n": len(change),
        "groups": len(of_groups),
        "accuracy": float(right.mean()),
        "other_accuracy": float(other.mean()),
        "difference": difference,
        "log_loss_difference": float(costs.mean()),
        **resampled(figures, groups),
        "newly_right": int((change > 0).sum()),
        "newly_wrong": int((change < 0).sum()),
        "p": p,
        "verdict": verdict,
        "needed": needed(of_groups, len(change)),
    }


def needed(differences: ArrayLike, n: int) -> int | None:
    """How many images would show a difference as large as this one, of 5 % noise, in 80 of 100
    tries.

    Args:
        differences: (groups,), the sum of each group's paired differences.
        n: images in all.

    Returns:
        Their number, of groups as large as these; None if there is no difference, or MOST are not
        enough.

    Source: Connor. "Sample size for testing differences in proportions for the paired-sample
        design". Biometrics 43, 1987; with the variance between groups in the place of that between
        images.

    >>> needed([1] * 10 + [-1] * 5 + [0] * 85, 100)
    469
    """
    each = np.asarray(differences, np.float64)
    mean = each.mean()
    if not mean:
        return None
    # under no difference the mean square is the variance
    without, spread = math.sqrt((each**2).mean()), float(each.std())
    groups = ((SURE * without + POWER * spread) / mean) ** 2
    images = math.ceil(groups * n / len(each))
    return images if images <= MOST else None


def sign_flip(differences: ArrayLike) -> float:
    """Exact p-value of the sum of paired differences, where the sign of each could as well be the
    other one (two-sided).

    With differences of 1 and -1, one an image, it is McNemar's exact test. With the sums of groups
    (images of one object) it does not take what belongs together for independent.

    Args:
        differences: (groups,), whole numbers.

    Returns:
        The probability of a sum at least as far from 0; 1 where nothing differs.

    Source: McNemar 1947, Psychometrika 12(2). Checked against scipy's exact binomial test and
    against all signs, one by one, in tests/training/test_previous.py.

    >>> round(sign_flip([1, 1, 1, 1, 1, -1]), 5)
    0.21875
    """
    found = np.rint(np.asarray(differences)).astype(np.int64)
    sizes = np.abs(found[found != 0])
    spread = np.ones(1)  # of the sum: entry i is the probability of i - len // 2
    for size, n in zip(*np.unique(sizes, return_counts=True), strict=True):
        signs = np.zeros(2 * size * n + 1)
        signs[:: 2 * size] = coin_tosses(int(n))
        spread = np.convolve(spread, signs)
    distance = np.abs(np.arange(len(spread)) - len(spread) // 2)
    return min(1.0, float(spread[distance >= abs(found.sum())].sum()))


def coin_tosses(n: int) -> NDArray[np.float64]:
    """(n + 1,), the probabilities of 0 to n heads."""
    logs: Iterable[float] = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)
    )
    return np.exp(np.fromiter(logs, np.float64, n + 1) - n * math.log(2))
