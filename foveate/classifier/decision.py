"""From logits to answers, and how good they are: one class of all, or each label by its own
threshold; or one class from a probability of its own on, or what costs least."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate import metrics
from foveate.metrics import Floats, Ints


@dataclass(frozen=True)
class Decision:
    """How a classifier decides.

    Args:
        thresholds: (classes,), the least probability at which an image gets a label; None: an image
            gets the one most probable class.
        point: the number of a class, and the probability from which on an image gets it, whatever
            else is more probable; below it, the most probable of the others. None is none.
        costs: (classes, classes), what it costs that an image of a class, the row, is given
            another, the column: the answer is then the one that costs least on the average. None is
            none. It wins over `point`.
    """

    thresholds: tuple[float, ...] | None = None
    point: tuple[int, float] | None = None
    costs: tuple[tuple[float, ...], ...] | None = None

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """(N, classes) -> the same shape: rows sum to 1, or each label's probability is its own."""
        return metrics.softmax(logits) if self.thresholds is None else metrics.sigmoid(logits)

    def answers(self, probabilities: Floats) -> NDArray[np.bool_]:
        """(N, classes) -> the same shape: what an image is given."""
        if self.thresholds is not None:
            return probabilities >= np.array(self.thresholds)
        found = np.zeros(probabilities.shape, dtype=bool)
        found[np.arange(len(found)), self.chosen(probabilities)] = True
        return found

    def chosen(self, probabilities: Floats) -> NDArray[np.int64]:
        """(N,), the one class that each image is given."""
        if self.costs is not None:
            return (probabilities @ np.array(self.costs)).argmin(axis=1)
        if self.point is None:
            return probabilities.argmax(axis=1)
        positive, threshold = self.point
        others = probabilities.astype(np.float64)
        others[:, positive] = -1
        flagged = probabilities[:, positive] >= threshold
        return np.where(flagged, positive, others.argmax(axis=1))

    def at(self, positive: int, threshold: float) -> "Decision":
        """The same with a class that is given from a probability on."""
        if self.thresholds is None:
            return replace(self, point=(positive, threshold))
        thresholds = [*self.thresholds]
        thresholds[positive] = threshold
        return replace(self, thresholds=tuple(thresholds))

    def summarise(
        self, probabilities: Floats, labels: Ints, classes: tuple[str, ...]
    ) -> dict[str, Any]:
        """All metrics, as `metrics.summarise` or `metrics.summarise_labels` gives them."""
        if self.thresholds is None:
            return metrics.summarise(probabilities, labels, classes, self.chosen(probabilities))
        return metrics.summarise_labels(probabilities, self.answers(probabilities), labels, classes)


def decide(logits: Floats, labels: Ints) -> Decision:
    """The decision that fits labels: with thresholds where they are (N, classes), 0 or 1.

    Args:
        logits: (N, classes), calibrated, of images that the classifier did not learn from.
        labels: theirs.
    """
    return (
        Decision(tuple(map(best_threshold, metrics.sigmoid(logits).T)))
        if labels.ndim == 2
        else Decision()
    )


# a label whose F1 would stay below 0.2 has not been learnt: better not given than given to all
# images
LEAST = 0.1


def best_threshold(probabilities: Floats) -> float:
    """The threshold with the highest F1 to be expected of a label's calibrated probabilities.

    If image i has the label with probability p_i, the k most probable ones give an F1 of about

        F(k) = 2 (p_1 + ... + p_k) / (k + sum of all p)

    and the best of these is reached at a threshold of half its value. No label is looked at:
    probabilities say more than the few images that have a rare label, of which the best threshold
    is mostly chance (docs/LOG.md).

    Args:
        probabilities: (N,), calibrated, of images that the classifier did not learn from.

    Returns:
        From LEAST to 0.5.

    Source: Lipton, Elkan, Naryanaswamy. "Thresholding Classifiers to Maximize F1 Score".
        arXiv:1402.1892.

    >>> best_threshold(np.array([1.0, 1.0, 0.0])), best_threshold(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.333333)
    """
    p = np.sort(probabilities.astype(np.float64))[::-1]
    f1 = 2 * p.cumsum() / (np.arange(1, len(p) + 1) + p.sum())
    return round(max(LEAST, float(f1.max(initial=0)) / 2), 6)
