"""Which of several classifiers is better, on images that all of them judged: what is only chance,
and what the best one owes to having been the best of many.

A difference is one of the paired results of groups of images (`foveate.evaluation.pairs`). Of k
classifiers there are k (k - 1) / 2 differences: their probabilities are corrected for that, so that
of all differences that are named none is chance, in 19 of 20 comparisons. The one that was right
most often was also lucky: in each of many draws of groups the best is chosen on the groups drawn
and judged on those that were not, and its accuracy is corrected by how much less it has there
(`foveate.audit.estimate`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.estimate import estimate_accuracy
from foveate.evaluation.pairs import NOISE
from foveate.evaluation.pairs import compare as compare_pair
from foveate.evaluation.slices import holm

SAME = "not distinguishable"
TIE = 1e-6  # of an accuracy: how much a nat of log-loss counts where accuracies are equal

Key = tuple[Any, ...]  # of an image that was judged: its seed, its bytes, its label


@dataclass(frozen=True)
class Judged:
    """What a classifier made of N images that it had not learnt from.

    Args:
        keys: what each is known by, in other classifiers too.
        files: their names.
        labels, answers: (N,), the names of the class or labels of each, and of those it was given.
        right: (N,)
        losses: (N,), the log-loss of each, in nats.
        groups: the name of each one's group.
    """

    keys: tuple[Key, ...]
    files: tuple[str, ...]
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    groups: tuple[str, ...]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(N,), the groups by number."""
        return np.unique(np.array(self.groups, dtype=object), return_inverse=True)[1]

    @property
    def images(self) -> int:
        """How many there are, whatever the seed with which each was judged."""
        return len({key[1:] for key in self.keys})

    def select(self, rows: Sequence[int]) -> "Judged":
        """Some of them, in this order."""
        kept = list(rows)

        def of(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[row] for row in kept)

        return Judged(
            of(self.keys),
            of(self.files),
            of(self.labels),
            of(self.answers),
            self.right[kept],
            self.losses[kept],
            of(self.groups),
        )


def in_common(judged: Sequence[Judged]) -> list[Judged]:
    """The images that all of them judged, in one order."""
    places = [{key: row for row, key in enumerate(one.keys)} for one in judged]
    shared = [key for key in places[0] if all(key in place for place in places)]
    return [
        one.select([place[key] for key in shared])
        for one, place in zip(judged, places, strict=True)
    ]


def differences(
    names: Sequence[str], judged: Sequence[Judged], advance: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Every pair, the surest difference first.

    Args:
        names: of the classifiers.
        judged: what each made of the same images, in one order.
        advance: called after each pair.

    Returns:
        Of each pair what `pairs.compare` returns, of the first to the second, and: first, second,
        their names; p_corrected, by Holm for the number of pairs, which the verdict goes by. n
        counts an image as often as it was judged, with another seed each time; needed counts it
        once.
    """
    groups = judged[0].numbers
    times = len(judged[0].keys) / judged[0].images
    found: list[dict[str, Any]] = []
    for i, j in combinations(range(len(names)), 2):
        losses = np.stack([judged[i].losses, judged[j].losses])
        pair = compare_pair(judged[i].right, judged[j].right, losses, groups)
        if pair["needed"] is not None:
            pair["needed"] = math.ceil(pair["needed"] / times)
        found.append({"first": names[i], "second": names[j], **pair})
        advance()
    for pair, p in zip(found, holm([pair["p"] for pair in found]), strict=True):
        better = "better" if pair["difference"] > 0 else "worse"
        pair |= {"p_corrected": p, "verdict": better if p < NOISE else SAME}
    return sorted(found, key=lambda pair: (pair["p_corrected"], pair["p"]))


def best_of(judged: Sequence[Judged], seed: int = 0) -> tuple[int, float]:
    """The one that was right most often, and of those the one with the lowest log-loss; and by how
    much its accuracy was flattered by being the best of these.

    Args:
        judged: what each made of the same images, in one order.
        seed: of the draws.
    """
    right = np.stack([one.right for one in judged])
    losses = ~right + TIE * np.stack([one.losses for one in judged])
    best = int(np.argmin(losses.mean(axis=1)))
    return best, estimate_accuracy(right, losses, judged[0].numbers, seed).correction


def rivals_of(name: str, pairs: Sequence[dict[str, Any]]) -> list[str]:
    """Those that cannot be told from one."""
    return [
        pair["second"] if pair["first"] == name else pair["first"]
        for pair in pairs
        if name in (pair["first"], pair["second"]) and pair["verdict"] == SAME
    ]


def front(accuracies: Sequence[float], seconds: Sequence[float]) -> list[bool]:
    """Whether none of the others is both at least as accurate and as fast, and one of the two more.

    >>> front([0.9, 0.8, 0.7], [2.0, 1.0, 1.5])
    [True, True, False]
    """
    rows = list(zip(accuracies, seconds, strict=True))
    return [not any(a >= x and s <= t and (a, s) != (x, t) for a, s in rows) for x, t in rows]
