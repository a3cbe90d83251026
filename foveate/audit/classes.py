"""Classes that look alike: pairs that are taken for each other, in both directions, far more often
than classes of this data set are otherwise.

One direction alone is no likeness: it comes from few images of one class, or wrong labels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

SHARE = 0.05  # of the groups of both classes that are taken for the other, from which it matters
EACH = 1.0  # groups of each class that are taken for the other, at least
BALANCE = 0.25  # of the rarer direction to the other
CHANCE = 0.01  # that any pair of classes which are like the others is named


@dataclass(frozen=True)
class Alike:
    """Two classes that look alike.

    Args:
        classes: their numbers.
        taken: of the images of each, the share that is taken for the other; a group counts as one.
        images: of each, that were judged.
        accuracy: of all classes, a fraction.
        merged: the same if the two were one class.
    """

    classes: tuple[int, int]
    taken: tuple[float, float]
    images: tuple[int, int]
    accuracy: float
    merged: float

    def to_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For JSON, with the names of the classes."""
        return {
            "classes": [classes[c] for c in self.classes],
            "taken_for_the_other": list(self.taken),
            "images": list(self.images),
            "accuracy": self.accuracy,
            "accuracy_if_merged": self.merged,
        }


def find_alike(probabilities: Floats, labels: Ints, groups: Ints) -> list[Alike]:
    """The pairs of classes that look alike, the most alike first.

    Args:
        probabilities: (N, classes), of images that are judged, from heads solved without their
            groups.
        labels: (N,), their classes.
        groups: (N,), any integers; images with the same number are of one group, and count as one.

    Returns:
        None of fewer than three classes: there is no rest to compare with, and nothing to merge.
    """
    classes = probabilities.shape[1]
    if classes < 3 or not len(labels):
        return []
    answers = probabilities.argmax(axis=1)
    accuracy = float((answers == labels).mean())
    images = np.bincount(labels, minlength=classes)
    # images of a group, of one class, share the weight of one
    _, which, sizes = np.unique(
        np.stack([labels, groups]), axis=1, return_inverse=True, return_counts=True
    )
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, answers), 1 / sizes[which.reshape(-1)])
    there = confusion.sum(axis=1)
    errors = confusion.sum() - np.trace(confusion)
    first, second = np.triu_indices(classes, 1)
    both = confusion[first, second] + confusion[second, first]
    chances = there[first] + there[second]
    found = []
    for a, b, wrong, of in zip(first, second, both, chances, strict=True):
        if not of or wrong < SHARE * of:
            continue
        ways = confusion[a, b] / there[a], confusion[b, a] / there[b]
        if min(confusion[a, b], confusion[b, a]) < EACH or min(ways) < BALANCE * max(ways):
            continue
        # as if the errors of all other pairs were spread evenly over them
        expected = (errors - wrong) / (chances.sum() - of) * of
        if poisson_tail(wrong, expected) * len(both) > CHANCE:
            continue
        found.append(
            Alike(
                classes=(int(a), int(b)),
                taken=(float(ways[0]), float(ways[1])),
                images=(int(images[a]), int(images[b])),
                accuracy=accuracy,
                merged=merged_accuracy(probabilities, labels, int(a), int(b)),
            )
        )
    return sorted(found, key=lambda pair: -sum(pair.taken))


def merged_accuracy(probabilities: Floats, labels: Ints, a: int, b: int) -> float:
    """The accuracy if two classes were one, whose probability is the sum of theirs."""
    merged = probabilities.copy()
    merged[:, a] += merged[:, b]
    merged[:, b] = -1
    return float((merged.argmax(axis=1) == np.where(labels == b, a, labels)).mean())


def poisson_tail(seen: float, expected: float) -> float:
    """The probability of so many events or more.

    >>> round(poisson_tail(3, 1.0), 4)
    0.0803
    """
    if expected <= 0:
        return 0.0 if seen > 0 else 1.0
    below = range(int(seen))  # parts of groups do not count
    logs = (k * math.log(expected) - expected - math.lgamma(k + 1) for k in below)
    return max(0.0, 1 - sum(map(math.exp, logs)))
