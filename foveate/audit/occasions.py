"""Bursts and occasions: images of one class that were taken together, so that they are more alike
than two images of the class that are independent of each other.

Idea: what independent images look like is read from the data. Images of different classes are
(nearly always) independent. So take from each feature vector its class's mean, which leaves what
the image has of its own (light, place, camera, this very thing), and compare these rests:

    similarities of rests, images of different classes    the null model
    the same within a class                               the null model, times the class's spread;
                                                          and more, where images belong together

A class's spread makes its images unlike as well as alike, while images that belong together only
make the upper side heavier. So the spread is measured on the lower side. What two digits of one
kind have in common is thus not taken for a burst, however tight the class.

First bursts: pairs so similar that at most a tenth of them is so by chance (Efron's false
discovery rate). If what is then left, one image a burst, is still more alike than independent
images are, or much of it came in bursts, then images were taken on occasions, of which bursts are
only the densest part. What an occasion leaves in its images is light, camera and place, which show
in the early stages and in few directions: there images are grouped as long as those of a group are,
on the average over its pairs, one standard deviation more alike than independent ones. What a fold
judges is then about as new as an image of another occasion.

Source: B. Efron. "Large-Scale Simultaneous Hypothesis Testing". JASA 99, 2004.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.audit.neighbours import Array, Map, Rows, components, whitened

DIMENSIONS = 96  # that rests are reduced to
EARLY = 0.14  # share of the columns that are of early stages, whose spread comes first
OF_LIGHT = 40  # the same of the early stages, where occasions are looked for
NULL = 1_000_000  # pairs of different classes that make the null model
FEW = 24  # images, below which nothing can be said of how alike they are
FEWEST = 4  # images of a class, below which its spread is not known
LARGE = 4_000  # images of a class above which only bursts are looked for: a matrix of its pairs

# Independent images of one class: their upper tail is heavier than the lower side says, by this
# factor, at all quantiles from 0.9 to 0.999 and with 33, 150 and 340 images a class: clothing 1.35
# to 1.5, digits 1.4 to 1.6, Fashion-MNIST 1.4 to 1.6 (docs/decisions/026).
TAIL = 1.5
CERTAIN = 0.9  # share of the pairs that are called bursts and are, at least
BIN = 0.02  # of similarities, where their density is compared
EXCESS = 0.01  # of the nearest image's similarity over the null model's, from which occasions are
SURE = 2  # standard errors by which it has to be beyond that
LEAST = 4  # occasions of most classes, at least: fewer are rather one kind of image
MEDIAN = 1.2533  # a median's standard error in that of a mean
MOSTLY = 0.4  # of the bursts and single images: if more are bursts, there are occasions
# Quantiles of the null model that the mean similarity within an occasion exceeds; the first that
# leaves LEAST occasions. Of 16 to 48 directions and 0.80 to 0.92, these left the smallest
# error on made occasions (docs/decisions/026).
ALIKE = (0.84, 0.9, 0.93, 0.96, 0.99)


@dataclass(frozen=True)
class Occasions:
    """What `find_occasions` found.

    Args:
        bursts: (N,), the smallest row of each image's burst; an image without one has its own.
        groups: (N,), the same of its occasion; the bursts, where none were found.
        structured: whether the images were taken on occasions.
    """

    bursts: Rows
    groups: Rows
    structured: bool


def find_occasions(
    features: Array,
    labels: NDArray[np.int64],
    again: NDArray[np.bool_] | None = None,
    together: Rows | None = None,
    threads: int = 2,
) -> Occasions:
    """Images of one class that were taken together.

    Args:
        features: (N, width), of a frozen backbone (`foveate.extract_features`), one image of each
            set of copies. The first EARLY of the columns are of its early stages.
        labels: (N,), integers.
        again: (N,), images of which another shot is known, which is not among these since it is so
            alike that it passes for a copy; none by default.
        together: (N,), the smallest row of those that are known to belong together; none by
            default.
        threads: cores to use. The result is the same for any number.

    Raises:
        ValueError: shapes differ; features that are not finite.

    Cost: a matrix of the pairs of each class of up to 4,000 images.
    """
    n = len(features)
    if features.ndim != 2 or labels.shape != (n,):
        raise ValueError(f"expected (N, width) and (N,), got {features.shape} and {labels.shape}")
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise ValueError("features that are not finite")
    alone = np.arange(n)
    if n < FEW or len(np.unique(labels)) < 2:
        return Occasions(alone, alone, False)
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        rests = Rests(features, labels, pool.map)
        bursts = rests.linked(rests.burst_similarity())
        bursts = bursts if together is None else joined(bursts, together)
        sizes = np.bincount(bursts, weights=None if again is None else 1.0 + again, minlength=n)
        several = float((sizes[np.unique(bursts)] > 1).mean())
        if several <= MOSTLY and not more_alike(features, labels, bursts, pool.map):
            return Occasions(bursts, bursts, False)
        early = Rests(early_stages(features), labels, pool.map, OF_LIGHT)
        return Occasions(bursts, joined(bursts, occasions(early)), True)


class Rests:
    """What images have of their own, and how alike these rests are within each class.

    Similarities are in units of the null model: divided by the class's spread.
    """

    def __init__(
        self,
        features: Array,
        labels: NDArray[np.int64],
        each: Map,
        dimensions: int = DIMENSIONS,
    ):
        self.labels, self.each = labels, each
        rest = features.astype(np.float32)
        for c in np.unique(labels):
            rest[labels == c] -= rest[labels == c].mean(axis=0)
        self.rest = whitened(rest, each, dimensions)
        self.null = self.of_other_classes()
        self.low = -float(np.quantile(self.null, 0.1))
        self.rows = [
            rows for c in np.unique(labels) if len(rows := np.flatnonzero(labels == c)) > 1
        ]

    def of_other_classes(self) -> Array:
        """Similarities of images of different classes, sorted, with median 0."""
        rng, n = np.random.default_rng(0), len(self.labels)
        first, second = rng.integers(n, size=(2, NULL))
        other = self.labels[first] != self.labels[second]
        first, second = first[other], second[other]
        parts = [slice(i, i + 65536) for i in range(0, len(first), 65536)]

        def of_part(part: slice) -> Array:
            return np.einsum("pd,pd->p", self.rest[first[part]], self.rest[second[part]])

        similar = np.sort(np.concatenate(list(self.each(of_part, parts))))
        return similar - np.median(similar)

    def within(self) -> Iterator[tuple[Rows, Array]]:
        """The rows of each class that is not large, and the similarities of their pairs."""
        for rows in self.rows:
            if len(rows) <= LARGE:
                yield rows, self.similarity(rows, rows, *self.scale(rows))

    def scale(self, rows: Rows) -> tuple[float, float]:
        """The median similarity within a class, and its spread, in that of the null model.

        Of a large class a sample says it."""
        some = rows[np.random.default_rng(0).permutation(len(rows))[:2000]]
        similar = self.rest[some] @ self.rest[some].T
        pairs = similar[np.triu_indices(len(some), 1)]
        if len(rows) < FEWEST:
            return 0.0, 1.0
        low, median = np.quantile(pairs, [0.1, 0.5])
        return float(median), max(1.0, float(median - low) / max(self.low, 1e-6))

    def similarity(self, rows: Rows, others: Rows, median: float, spread: float) -> Array:
        return (self.rest[rows] @ self.rest[others].T - median) / np.float32(spread)

    def nearest_by_chance(self, rivals: NDArray[np.int64], tail: float) -> Array:
        """The median of the largest of so many similarities of independent images."""
        share = 0.5 ** (1 / np.maximum(rivals, 1))
        return tail * np.quantile(self.null, share).astype(np.float32)

    def burst_similarity(self) -> float:
        """From which similarity on a pair is more probably of a burst than not."""
        edges = np.arange(-0.2, 2.0, BIN)
        counts, pairs = np.zeros(len(edges) - 1), 0
        for rows, similar in self.within():
            found = similar[np.triu_indices(len(rows), 1)]
            counts += np.histogram(found, edges)[0]
            pairs += len(found)
        if not pairs:
            return np.inf
        # pairs at least as similar: by chance, and in fact
        chance = np.histogram(TAIL * self.null, edges)[0][::-1].cumsum()[::-1] / len(self.null)
        there = counts[::-1].cumsum()[::-1] / pairs
        certain = (there > 0) & (chance <= (1 - CERTAIN) * there) & (edges[:-1] > 0)
        return float(edges[np.argmax(certain)]) if certain.any() else np.inf

    def linked(self, least: float) -> Rows:
        """(N,), the smallest row of each image's group: within groups similarity is at least this,
        in the mean over pairs; of large classes, from one image to the next."""
        groups = np.arange(len(self.labels))
        if not np.isfinite(least):
            return groups
        for rows, similar in self.within():
            groups[rows] = cut(tree(similar), least, rows)
        for rows in self.rows:
            if len(rows) > LARGE:
                groups[rows] = rows[self.chained(rows, least)]
        return groups

    def chained(self, rows: Rows, least: float) -> Rows:
        """Which of the rows of a large class are connected by similar pairs."""
        median, spread = self.scale(rows)

        def of_block(start: int) -> Rows:
            similar = self.similarity(rows[start : start + 256], rows, median, spread)
            first, second = np.nonzero(similar >= least)
            pairs = np.stack([first + start, second], axis=1)
            return pairs[pairs[:, 0] < pairs[:, 1]]

        found = list(self.each(of_block, range(0, len(rows), 256)))
        return components(len(rows), np.concatenate(found))

    def trees(self) -> list[tuple[Rows, NDArray[np.float64]]]:
        """The rows of each class that is not large, and their average linkage."""
        return [(rows, tree(similar)) for rows, similar in self.within()]

    def excesses(self, groups: Rows, tail: float) -> Array:
        """By how much each image's nearest one of another group is more alike than by chance."""
        found = []
        for rows, similar in self.within():
            outside = groups[rows][:, None] != groups[rows]
            rivals = outside.sum(axis=1)
            seen = rivals > 0
            nearest = np.where(outside, similar, -np.inf).max(axis=1)[seen]
            found.append(nearest - self.nearest_by_chance(rivals[seen], tail))
        return np.concatenate(found) if found else np.zeros(0, np.float32)


def occasions(early: Rests) -> Rows:
    """(N,), groups whose pairs are on the average more alike than independent images."""
    best, trees = np.arange(len(early.labels)), early.trees()
    for share in ALIKE:
        least = float(np.quantile(early.null, share))
        groups = best.copy()
        for rows, merges in trees:
            groups[rows] = cut(merges, least, rows)
        if np.median([len(np.unique(groups[rows])) for rows, _ in trees] or [LEAST]) >= LEAST:
            return groups
    return best


def early_stages(features: Array) -> Array:
    """Light, place and texture show in these columns more than what an image is of."""
    return features[:, : max(8, round(EARLY * features.shape[1]))]


def more_alike(features: Array, labels: NDArray[np.int64], bursts: Rows, each: Map) -> bool:
    """Whether images, one a burst, are more alike than independent ones."""
    units = np.unique(bursts)
    if len(units) < FEW:
        return False
    early = Rests(early_stages(features[units]), labels[units], each)
    found = early.excesses(np.arange(len(units)), TAIL)
    if len(found) < FEW:
        return False
    error = MEDIAN * found.std() / np.sqrt(len(found))
    return float(np.median(found) - SURE * error) > EXCESS


def tree(similar: Array) -> NDArray[np.float64]:
    """Average linkage of (n, n) similarities, as scipy has it; distances are 2 - similarity."""
    from scipy.cluster.hierarchy import linkage

    distance = 2 - similar[np.triu_indices(len(similar), 1)].astype(np.float64)
    return linkage(np.maximum(distance, 0), "average")


def cut(merges: NDArray[np.float64], least: float, rows: Rows) -> Rows:
    """The smallest of the rows in each one's cluster, merged at a similarity of at least this."""
    from scipy.cluster.hierarchy import fcluster

    cluster = fcluster(merges, 2 - least, "distance")
    smallest = np.full(cluster.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, cluster, rows)
    return smallest[cluster]


def joined(first: Rows, second: Rows) -> Rows:
    """(N,), the smallest row that two groupings, by smallest rows, connect."""
    own = np.arange(len(first))
    pairs = np.concatenate([np.stack([own, first], axis=1), np.stack([own, second], axis=1)])
    return components(len(first), pairs)
