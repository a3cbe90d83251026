"""Operating points: how well one class is told from all others, and from which probability on it is
given, so that a recall or a precision is kept on new images.

The threshold is fixed on images that the classifier did not learn from. Where it lies as low as the
weakest k of n images of the class, the number of m new ones that are missed has a distribution of
its own, whatever the scores: a beta-binomial one. The recall that was asked for is to be kept in
nine of ten sets of as many new images, not on the average: that is what the threshold is chosen by.
A precision is kept in the same way, among the images that are given the class.

Source: Wilks. "Determination of sample sizes for setting tolerance limits". Annals of Mathematical
    Statistics 12, 1941. Images of one group count as one, as of one answer.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import as_number, option, shown
from foveate.data.dataset import Dataset, listed
from foveate.data.layouts import composed
from foveate.errors import DataError, UsageError
from foveate.evaluation.intervals import Weights, resampled
from foveate.metrics import Floats, Ints, area_under_roc, average_precision, ranked_counts

KEPT = 0.9  # in how many sets of new images what was asked for is kept
POINTS = 200  # of a curve, at most
FEWEST = 5  # images of the class, and others, at least

Kind = Literal["recall", "precision"]


@dataclass(frozen=True)
class Target:
    """What a threshold is to keep.

    Args:
        positive: the name of the class.
        kind: "recall", the share of its images that are given it; or "precision", the share of the
            images that are given it that are its own.
        asked: a fraction below 1.
    """

    positive: str
    kind: Kind
    asked: float


def check_target(
    positive: Any, recall: Any, precision: Any, classes: tuple[str, ...], needed: bool = False
) -> tuple[int, Target | None]:
    """The number of a class among the classifier's, and what is asked of it, if anything.

    Raises:
        UsageError: no such class; a recall or precision without one, or both; neither, where one is
            `needed`; not between 0 and 1.
    """
    given = {"recall": recall, "precision": precision}
    given = {kind: value for kind, value in given.items() if value is not None}
    if not isinstance(positive, str):
        what = " and ".join(option(kind) for kind in given)
        raise UsageError(
            f"{what} is of one class: name it with {option('positive')}"
            if positive is None
            else f"positive is the name of a class, not {shown(positive)}"
        )
    names = [composed(name) for name in classes]
    if composed(positive) not in names:
        raise UsageError(f"positive {positive!r} is no class; the classes are {listed(names, 20)}")
    number = names.index(composed(positive))
    if len(given) > 1:
        raise UsageError(
            f"{option('recall')} and {option('precision')} each fix the threshold: give one of them"
        )
    if needed and not given:
        raise UsageError(
            f"{option('positive')} takes what is to be kept of the class: {option('recall', 0.99)} "
            f"or {option('precision', 0.95)}"
        )
    for kind, value in given.items():
        asked = as_number(value)
        if asked is None or not 0 < asked < 1:
            more = f"; a {kind} of 1 no threshold can promise" if asked == 1 else ""
            raise UsageError(f"{kind} is above 0 and below 1, not {shown(value)}{more}")
        return number, Target(classes[number], "recall" if kind == "recall" else "precision", asked)
    return number, None


def check_point(positive: Any, recall: Any, dataset: Dataset) -> None:
    """UsageError or DataError for what cannot be fixed when a training on these data has ended."""
    number, _ = check_target(positive, recall, None, dataset.classes, needed=True)
    learnt = dataset.having(number)[[split != "test" for split in dataset.splits]]
    own, others = int(learnt.sum()), int((~learnt).sum())
    if min(own, others) < FEWEST:
        raise DataError(
            f"{own} images of {positive!r} and {others} others are to be learnt from; to fix a "
            f"threshold takes {FEWEST} of each, or more"
        )


def rank(scores: Floats, there: NDArray[np.bool_], groups: Ints) -> dict[str, Any]:
    """How well a class is told from all others, whatever the threshold.

    Args:
        scores: (N,), its probabilities.
        there: (N,), whether each image is of the class.
        groups: (N,)

    Returns:
        n, positives; auroc and average_precision, each with an interval of groups drawn again and
        again; roc, points of (false positive rate, recall, threshold), and precision_recall, of
        (recall, precision, threshold), POINTS at most.

    Raises:
        DataError: all images are of the class, or none.
    """
    positives = int(there.sum())
    if positives in (0, len(there)):
        which = "all" if positives else "none"
        raise DataError(f"{which} of the {len(there)} images are of the class: nothing to tell")
    marks = there.astype(np.int64)

    def figures(weights: Weights) -> dict[str, float]:
        if not 0 < weights @ marks < weights.sum():
            return {"auroc_ci95": np.nan, "average_precision_ci95": np.nan}
        return {
            "auroc_ci95": area_under_roc(scores, marks, weights),
            "average_precision_ci95": average_precision(scores, marks, weights),
        }

    steps, found, others = ranked_counts(scores, marks)
    recall, false = found / positives, others / (len(there) - positives)
    precision = found / (found + others)
    some = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).astype(int))
    return {
        "n": len(there),
        "positives": positives,
        "auroc": area_under_roc(scores, marks),
        "average_precision": average_precision(scores, marks),
        **resampled(figures, groups),
        "roc": [[float(x[i]) for x in (false, recall, steps)] for i in some],
        "precision_recall": [[float(x[i]) for x in (recall, precision, steps)] for i in some],
    }


def fix_threshold(
    target: Target, scores: Floats, there: NDArray[np.bool_], groups: Ints
) -> dict[str, Any]:
    """The threshold that keeps what is asked, and what is to be expected of it.

    Args:
        target: what is asked.
        scores: (N,), probabilities of the class, of images that the classifier did not learn from.
        there: (N,), whether each image is of the class.
        groups: (N,), images with the same number are of one group.

    Returns:
        positive, asked ({"recall": ...} or {"precision": ...}), threshold; measured, from `judge`,
        on these images; expected, with low and high, what lies in 95 of 100 sets of as many new
        images, and promised, what is kept in KEPT of them; kept, whether that is what was asked;
        why, where it is not.

    Raises:
        DataError: fewer than FEWEST images of the class, or others.
    """
    n = int(there.sum())
    if min(n, len(there) - n) < FEWEST:
        raise DataError(
            f"of the {len(there)} images that were judged, {n} are of {target.positive!r}; to fix "
            f"a threshold takes {FEWEST} or more, and as many others"
        )
    of_recall = target.kind == "recall"
    found = recall_at_least if of_recall else precision_at_least
    threshold, wrong, of, worth = found(target.asked, scores, there, groups)
    sure = predicted(wrong * worth / of, worth, (1 - KEPT, 0.025, 0.975))
    promised, low, high = (float(value) for value in sure)
    kept = promised >= target.asked - 1e-9
    why = None
    if not kept:
        whose = "images of the class" if of_recall else "images that are given the class"
        why = (
            f"{of} {whose} promise {math.floor(1000 * promised) / 10:.1f} % at most, in nine of "
            f"ten sets of as many new ones; {100 * target.asked:g} % takes more of them, or "
            "classes that are better told apart"
        )
    return {
        "positive": target.positive,
        "asked": {target.kind: target.asked},
        "threshold": threshold,
        "measured": judge(threshold, scores, there, groups),
        "expected": {"low": low, "high": high, "promised": promised, "n": of},
        "kept": kept,
        "why": why,
    }


def judge(
    threshold: float, scores: Floats, there: NDArray[np.bool_], groups: Ints
) -> dict[str, Any]:
    """Recall, precision and the share of others that are given the class, at a threshold.

    Returns:
        n, positives, given (how many images are given the class), recall, precision and
        false_positive_rate, each with its interval; None where there is nothing to divide by.
    """
    flagged = scores >= threshold
    parts = {
        "recall": (flagged, there),
        "precision": (there, flagged),
        "false_positive_rate": (flagged, ~there),
    }

    def figures(weights: Weights) -> dict[str, float]:
        found = {}
        for name, (hit, among) in parts.items():
            whole = float(weights @ among)
            found[f"{name}_ci95"] = float(weights @ (hit & among)) / whole if whole else np.nan
        return found

    counted = {
        name: float(hit[among].mean()) if among.any() else None
        for name, (hit, among) in parts.items()
    }
    sure = resampled(figures, groups)
    return {
        "n": len(there),
        "positives": int(there.sum()),
        "given": int(flagged.sum()),
        **counted,
        **{key: None if counted[key[:-5]] is None else value for key, value in sure.items()},
    }


def recall_at_least(
    asked: float, scores: Floats, there: NDArray[np.bool_], groups: Ints
) -> tuple[float, int, int, float]:
    """The highest threshold that keeps a recall: it, how many images of the class are missed there,
    of how many, and how many independent ones these are worth."""
    own = np.sort(scores[there].astype(np.float64))
    n, worth = len(own), worth_of(groups[there])
    missed = 0
    low, high = 0, n - 1  # the more are missed here, the fewer are kept there
    while low <= high:
        k = (low + high) // 2
        if predicted(k * worth / n, worth, (1 - KEPT,))[0] >= asked - 1e-9:
            missed, low = k, k + 1
        else:
            high = k - 1
    threshold = at_or_above(own[missed])
    return threshold, int((own < threshold).sum()), n, worth


def precision_at_least(
    asked: float, scores: Floats, there: NDArray[np.bool_], groups: Ints
) -> tuple[float, int, int, float]:
    """The lowest threshold that keeps a precision: it, how many of the images that are given the
    class are others, of how many, and how many independent ones these are worth. Where none keeps
    it, the one that comes nearest."""
    steps, found, others = ranked_counts(scores, there.astype(np.int64))
    given = found + others
    # each a tenth larger than the last: a search through all would find what chance has made good
    wanted = np.geomspace(1, given[-1], 2 + int(7 * math.log2(given[-1] + 1))).astype(int)
    best: tuple[bool, float, int] = (False, -1.0, 0)
    for at in np.unique(np.searchsorted(given, np.unique(wanted))).tolist():
        worth = worth_of(groups[scores >= steps[at]])
        sure = float(predicted(others[at] * worth / given[at], worth, (1 - KEPT,))[0])
        keeps = sure >= asked - 1e-9
        if keeps or (not best[0] and sure > best[1]):
            best = keeps, sure, at
    at = best[2]
    threshold = at_or_above(steps[at])
    flagged = scores >= threshold
    wrong = int((flagged & ~there).sum())
    return threshold, wrong, int(flagged.sum()), worth_of(groups[flagged])


def at_or_above(score: float) -> float:
    """A threshold that this score reaches, in six digits, above 0 and below 1."""
    return min(1 - 1e-6, max(1e-6, math.floor(score * 1e6) / 1e6))


def worth_of(groups: Ints) -> float:
    """How many independent images are as many as these, where those of one group answer alike.

    Source: Kish. "Survey Sampling", 1965: (sum of sizes)^2 / sum of their squares.

    >>> worth_of(np.array([1, 2, 3])), worth_of(np.array([1, 1, 1]))
    (3.0, 1.0)
    """
    _, sizes = np.unique(groups, return_counts=True)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def predicted(wrong: float, n: float, quantiles: tuple[float, ...]) -> NDArray[np.float64]:
    """Quantiles of the share that is right of as many new images, where of n images the weakest
    `wrong` are below the threshold.

    The number that is wrong of m = n new ones is beta-binomial, with parameters wrong + 1 and
    n - wrong: exactly so where the threshold is the score of the next image.

    >>> predicted(0, 20, (0.1, 0.975)).round(2).tolist()
    [0.85, 1.0]
    """
    m = max(1, round(n))
    a, b = wrong + 1, max(n - wrong, 1e-9)
    j = np.arange(m)
    # p(j + 1) / p(j)
    ratios = np.log((m - j) * (a + j)) - np.log((j + 1) * (b + m - j - 1))
    logs = np.concatenate([[0.0], np.cumsum(ratios)])
    chances = np.exp(logs - logs.max())
    below = np.cumsum(chances / chances.sum())  # of at most j wrong
    at = [int(np.searchsorted(below, 1 - q - 1e-12)) for q in quantiles]
    return np.array([1 - min(i, m) / m for i in at])
