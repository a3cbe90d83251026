"""When to answer none of these: images unlike all that were learnt from, and kinds of thing that
were never taught.

No single measure finds both, so two are made of three, each of which grows with strangeness:

    energy       less the log of the sum of the exponentials of the logits (Liu et al.,
                 arXiv:2010.03759): low where any class is probable by far
    distance     squared Mahalanobis distance to the nearest class
    excess       the same less the distance to one Gaussian of all classes (Ren et al.,
                 arXiv:2106.09022)

Each becomes a normal score by its rank among training images, measured without their fold. Then

    foreign      the larger of distance and excess: noise, pages of text, other worlds
    unknown kind energy + excess: another thing of the same world

and an image is refused if one of them is beyond its threshold. The two thresholds refuse a share of
the training images, out of fold, that is set beforehand; no foreign image is looked at for that.

Distances are measured on hashed features: sums of a few standardised ones, drawn and signed by
chance. They know of no image: principal axes are made for the classes that were taught, and a kind
that is left out of everything else must not be in them.

What refusing is worth is measured by leaving classes out, one after the other: a head, and
Gaussians, are made of the images of all other classes but one fold, and refuse images of the class
and of the fold. Nothing is chosen by what comes out.

A network that learns its features from the training images is another matter: its thresholds come
of images that were held out (`fit_to_held_out`), and of unknown kinds nothing is measured.

Measured against other combinations in docs/decisions/031-none-of-these.md.
"""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.audit.estimate import students
from foveate.distance import (
    BLOCK,
    Array,
    Hashing,
    Labels,
    Moments,
    check_tensors,
    inverse_of_lower,
    times,
)
from foveate.heads import minimise

Floats = NDArray[np.float64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or a pool's

FOREIGN, UNKNOWN = "foreign", "unknown kind"
NONE_OF_THESE = "none of these"  # the answer; no class may have this name
PREFIX = "rejection."  # of a file's tensors
FEWEST = 100  # judged images with which a threshold can be set
MOST = 2048  # images from which heads without a class are made
SHARE = 0.4  # of the false refusals that are spent on foreign images
WEAKEST = 1e-5  # penalty of the heads without a class, at least
KINDS = 20  # classes that are left out, at most
OUTPUTS = 2000  # of all these heads together, at most, where they are more than FEW_KINDS
FEW_KINDS = 5  # classes left out without which nothing is said of how sure their mean is
A_KIND = 5  # images of a class that is left out, at least
BESIDE = 10  # images of other classes, of the fold that is left out with it, at least
TOLERANCE = 0.05  # where these heads stop: solved further, they find no more unknown kinds
DIMENSIONS = 512  # of what is hashed
SHRINK = 0.3  # of the covariance
RANKS = 1000  # measures by which others are ranked
UNKNOWN_AT_LEAST = 3  # classes, of which one is left out
RESAMPLES = 1000
STEPS = 30  # halvings when thresholds are sought

MEASURES = ("energy", "distance", "excess")
ENERGY, DISTANCE, EXCESS = range(3)


@dataclass(frozen=True)
class Pair:
    """A Gaussian a class, all with one covariance, and one Gaussian of all of them.

    The covariance of all is the one within classes and, on top, the one of their means. Where the
    first is the identity, the distances differ in the directions of the means alone, so that both
    cost what one does (Woodbury).

    Args:
        root: (dimensions, dimensions), which turns the covariance within classes into the identity.
        mean: (dimensions,), of all, so turned.
        means: (classes, dimensions), so turned, less that of all; nan of a class without images.
        between: (dimensions, classes); a row's square is how much shorter the distance to all is.
    """

    root: Array
    mean: Array
    means: Array
    between: Array

    @functools.cached_property
    def known(self) -> tuple[Array, Array]:
        """Of the classes with images: twice their means, (dimensions, k), and squared lengths."""
        means = self.means[np.isfinite(self.means).all(axis=1)]
        return np.ascontiguousarray(2 * means.T), (means**2).sum(axis=1)

    def distances(self, rows: Array) -> tuple[Array, Array]:
        """(N, dimensions) -> (N,) twice: to the nearest class, and that less the one to all."""
        turned = times(rows, self.root) - self.mean
        means, lengths = self.known
        nearer = (lengths - times(turned, means)).min(axis=1)
        shorter = (times(turned, self.between) ** 2).sum(axis=1)
        return np.maximum((turned**2).sum(axis=1) + nearer, 0), nearer + shorter

    @classmethod
    def fit(cls, moments: Moments) -> "Pair":
        found = moments.gaussians(SHRINK)
        shares = moments.counts / moments.counts.sum()
        turned = found.means.astype(np.float64)
        mean = shares @ np.nan_to_num(turned)
        means = turned - mean
        spread = np.sqrt(shares)[:, None] * np.nan_to_num(means)  # nan have no share
        lower = np.linalg.cholesky(np.eye(len(spread)) + spread @ spread.T)
        between = (inverse_of_lower(lower) @ spread).T
        parts = (np.asarray(part, np.float32) for part in (mean, means, between))
        return cls(found.root, *parts)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds."""
        between = np.ascontiguousarray(self.between)
        return {"root": self.root, "mean": self.mean, "means": self.means, "between": between}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], size: int, classes: int) -> "Pair":
        """ValueError if the tensors are of other shapes, or not finite."""
        shapes = {"root": (size, size), "mean": (size,)}
        shapes |= {"means": (classes, size), "between": (size, classes)}
        check_tensors(tensors, shapes)
        return cls(**{name: tensors[name].astype(np.float32) for name in shapes})


@dataclass(frozen=True)
class Scale:
    """Normal scores of measures, by their ranks among images that are known.

    Args:
        known: (3, n), the measures of those, each sorted.
    """

    known: Floats

    @classmethod
    def of(cls, known: Floats) -> "Scale":
        """Of images' measures, (3, N); of many, RANKS order statistics of each."""
        places = np.linspace(0, known.shape[1] - 1, min(RANKS, known.shape[1])).round().astype(int)
        return cls(np.sort(known, axis=1)[:, places])

    def scores(self, measures: Floats) -> Floats:
        """(3, N) -> the same shape."""
        places = normal_places(self.known.shape[1])
        found = [
            np.interp(values, known, places[:-1], right=places[-1])
            for values, known in zip(measures, self.known, strict=True)
        ]
        return np.array(found)

    def strangeness(self, measures: Floats) -> Floats:
        """(3, N) -> (2, N): how foreign, and how much of an unknown kind."""
        return strangeness(self.scores(measures))


def strangeness(scores: Floats) -> Floats:
    """Normal scores of the measures, (3, N) -> (2, N): how foreign, and how much of an unknown
    kind."""
    foreign = np.maximum(scores[DISTANCE], scores[EXCESS])
    return np.array([foreign, scores[ENERGY] + scores[EXCESS]])


@dataclass(frozen=True)
class Rejection:
    """When a classifier answers none of these.

    Args:
        hashing: of the features.
        pair: Gaussians of what is hashed.
        scale: of the training images, out of fold.
        thresholds: (2,), of how foreign, and how much of an unknown kind, an image may be.
    """

    hashing: Hashing
    pair: Pair
    scale: Scale
    thresholds: Floats

    def refused(self, features: Array, logits: NDArray[np.floating[Any]]) -> list[str | None]:
        """Why each image is refused: "foreign", "unknown kind", or None.

        Args:
            features: (N, width), raw.
            logits: (N, classes), calibrated.
        """
        return self.reasons(self.strangeness(features, logits))

    def reasons(self, strangeness: Floats) -> list[str | None]:
        """The same, where it is known how strange each image is: (2, N)."""
        beyond = strangeness > self.thresholds[:, None]
        return [
            FOREIGN if foreign else UNKNOWN if unknown else None for foreign, unknown in beyond.T
        ]

    def strangeness(self, features: Array, logits: NDArray[np.floating[Any]]) -> Floats:
        """(2, N): how foreign each image is, and how much of an unknown kind."""
        return strangeness(self.scores(features, logits))

    def scores(self, features: Array, logits: NDArray[np.floating[Any]]) -> Floats:
        """(3, N), the measures as normal scores by their ranks among the training images."""
        return self.scale.scores(measured(self.hashing.reduced(features), self.pair, logits))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds."""
        known = self.scale.known.astype(np.float32)
        parts = {**self.hashing.tensors(), **self.pair.tensors()}
        parts |= {"known": known, "thresholds": self.thresholds}
        return {PREFIX + name: part for name, part in parts.items()}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int | None, classes: int) -> "Rejection":
        """The rejection of a file's tensors.

        Args:
            tensors: as `tensors` gives them, perhaps among others.
            width, classes: of the classifier's head; without a width any is taken.

        Raises:
            ValueError: they are of other shapes, or not finite.
        """
        tensors = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(PREFIX)
        }
        if width is None:
            width = tensors["factors"].size if "factors" in tensors else 0
        hashing = Hashing.of(tensors, width)
        pair = Pair.of(tensors, len(hashing.shift), classes)
        known = tensors.get("known", np.zeros((0, 0)))
        check_tensors(tensors, {"known": (len(MEASURES), known.shape[-1]), "thresholds": (2,)})
        thresholds = tensors["thresholds"].astype(np.float64)
        return cls(hashing, pair, Scale(known.astype(np.float64)), thresholds)


class Kind(NamedTuple):
    """A class that was left out.

    Args:
        label: its number.
        refused: (n,), whether each of its images was refused.
        auroc: how well they are told from images of the other classes by the measure of unknown
            kinds.
    """

    label: int
    refused: NDArray[np.bool_]
    auroc: float


@dataclass(frozen=True)
class Fitted:
    """A rejection, and what its run knows of it.

    Args:
        rejection: fitted on all images.
        refused: (judged,), whether each image was refused by thresholds of the other folds.
        kinds: the classes that were left out.
    """

    rejection: Rejection
    refused: NDArray[np.bool_]
    kinds: tuple[Kind, ...]


def fit_rejection(
    features: Array,
    rows: Labels,
    labels: Labels,
    folds: Labels,
    out_of_fold: Array,
    penalty: float,
    rate: float,
    classes: int,
    seed: int = 0,
    threads: int = 1,
) -> Fitted | None:
    """Fit when to refuse on training images; None where they are too few.

    Args:
        features: (M, width), raw, of any images.
        rows: (N,), those that are looked at, one a photo.
        labels: (N,)
        folds: (N,), and -1 of images that are not judged.
        out_of_fold: (judged, classes), calibrated logits of the images that are, in their order.
        penalty: of the classifier's head.
        rate: share of images like the training images that may be refused.
        classes: how many there are.
        seed: draws the classes that are left out where they are more than KINDS.
        threads: cores to use. The result is the same for any number.

    Cost: a pass over the features; and heads without classes, of up to MOST images.
    """
    judged = folds >= 0
    if judged.sum() < FEWEST:
        return None
    few = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        hashing = Hashing.fit(features[rows[few]], DIMENSIONS)
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        reduced = np.concatenate(list(pool.map(lambda b: hashing.reduced(features[b]), blocks)))
        names = np.unique(folds).tolist()  # -1 too, perhaps
        parts = [np.flatnonzero(folds == fold) for fold in names]
        moments = list(pool.map(lambda p: Moments.of(reduced[p], labels[p], classes), parts))
        everything = functools.reduce(Moments.plus, moments)

        def out_of(fold: int) -> Floats:
            i = names.index(fold)
            pair = Pair.fit(everything.without(moments[i]))
            return measured(reduced[parts[i]], pair, out_of_fold[folds[judged] == fold])

        known = np.zeros((len(MEASURES), int(judged.sum())))
        tested = [fold for fold in names if fold >= 0]
        for fold, found in zip(tested, pool.map(out_of, tested), strict=True):
            known[:, folds[judged] == fold] = found
        whole = Pair.fit(everything)
        kinds = leave_out(
            reduced[few], labels[few], folds[few], penalty, rate, classes, seed, pool.map
        )
    scale, thresholds = thresholds_of(known, rate)
    refused = refused_by_other_folds(known, folds[judged], rate)
    return Fitted(Rejection(hashing, whole, scale, thresholds), refused, kinds)


def fit_to_held_out(
    learnt: tuple[Array, Labels],
    held_out: tuple[Array, Array, Labels],
    rate: float,
    classes: int,
    threads: int = 1,
) -> Fitted | None:
    """Fit when a network refuses that learnt its features from the training images; None where the
    images that were held out are too few.

    To such a network its training images look less strange than new ones. The Gaussians are theirs,
    and everything that is measured against these is of images that were held out. No class can be
    left out: the features know them all.

    Args:
        learnt: (M, width), raw features of training images, and (M,), their labels.
        held_out: (N, width) of those that were held out; (N, classes), their calibrated logits; and
            (N,), folds, by which it is measured what their thresholds refuse.
        rate, classes, threads: as for `fit_rejection`.
    """
    (features, labels), (others, logits, folds) = learnt, held_out
    if len(others) < FEWEST:
        return None
    with threadpool_limits(threads):
        hashing = Hashing.fit(features, DIMENSIONS)
        pair = Pair.fit(Moments.of(hashing.reduced(features), labels, classes))
        known = measured(hashing.reduced(others), pair, logits)
    scale, thresholds = thresholds_of(known, rate)
    refused = refused_by_other_folds(known, folds, rate)
    return Fitted(Rejection(hashing, pair, scale, thresholds), refused, ())


def measured(reduced: Array, pair: Pair, logits: NDArray[np.floating[Any]]) -> Floats:
    """(3, N), the measures of images.

    Args:
        reduced: (N, dimensions)
        logits: (N, classes), calibrated.
    """
    return np.array([energy(logits), *pair.distances(reduced)], np.float64)


def energy(logits: NDArray[np.floating[Any]]) -> Floats:
    """(N, classes) -> (N,), less the log of the sum of the exponentials.

    >>> energy(np.array([[0.0, 0.0], [900.0, 0.0]])).round(2).tolist()
    [-0.69, -900.0]
    """
    top = logits.max(axis=1).astype(np.float64)
    found: Floats = -top - np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found


@functools.cache
def normal_places(n: int) -> Floats:
    """(n + 1,), normal scores of n sorted numbers, and of one beyond them.

    >>> normal_places(1).round(2).tolist()
    [0.0, 0.67]
    """
    shares = [*((np.arange(n) + 0.5) / n), 1 - 0.25 / n]
    return np.array([NormalDist().inv_cdf(share) for share in shares])


def thresholds_of(known: Floats, rate: float) -> tuple[Scale, Floats]:
    """The scale of known images' measures, (3, n), and the two thresholds, (2,), beyond which the
    share `rate` of them lies, or a little less; SHARE of it for being foreign."""
    scale = Scale.of(known)
    strange = scale.strangeness(known)
    rising = np.sort(strange, axis=1)
    edges, last = rising[:, -1], rising.shape[1] - 1
    low, high = rate, min(1.0, 2 * rate / (1 - SHARE))
    for _ in range(STEPS):  # they overlap: together a little more can be spent than `rate`
        middle = (low + high) / 2
        at = (1 - middle * np.array([SHARE, 1 - SHARE])) * last
        tried = np.array(
            [np.interp(a, np.arange(last + 1), s) for a, s in zip(at, rising, strict=True)]
        )
        if beyond(strange, tried).mean() <= rate:
            low, edges = middle, tried
        else:
            high = middle
    return scale, edges


def beyond(strange: Floats, edges: Floats) -> NDArray[np.bool_]:
    """(2, N) -> (N,), whether one of the two is above its threshold."""
    foreign, unknown = strange > edges[:, None]
    either: NDArray[np.bool_] = foreign | unknown
    return either


def refused_by_other_folds(known: Floats, folds: Labels, rate: float) -> NDArray[np.bool_]:
    """(n,), whether each image is refused by the thresholds of the other folds' images."""
    refused = np.zeros(len(folds), bool)
    for f in np.unique(folds):
        here = folds == f
        scale, edges = thresholds_of(known[:, ~here], rate)
        refused[here] = beyond(scale.strangeness(known[:, here]), edges)
    return refused


def leave_out(
    reduced: Array,
    labels: Labels,
    folds: Labels,
    penalty: float,
    rate: float,
    classes: int,
    seed: int,
    each: Map = map,
) -> tuple[Kind, ...]:
    """Leave classes out, each with one fold of the others, and refuse images of both."""
    sizes = np.bincount(labels, minlength=classes)
    there = np.flatnonzero(sizes >= A_KIND)
    if np.count_nonzero(sizes) < UNKNOWN_AT_LEAST:
        return ()
    most = min(KINDS, max(FEW_KINDS, OUTPUTS // classes))
    drawn = np.sort(np.random.default_rng(seed).permutation(there)[:most]).tolist()
    names = np.unique(folds[folds >= 0])
    beside = [  # of each, the images of the others that are left out too
        np.flatnonzero((labels != c) & (folds == names[i % len(names)]))
        for i, c in enumerate(drawn)
    ]
    weights = np.ones((len(labels), len(drawn)), np.float32)
    for i, (c, rows) in enumerate(zip(drawn, beside, strict=True)):
        weights[labels == c, i] = weights[rows, i] = 0
    weights /= weights.sum(axis=0)
    solutions = minimise(
        reduced,
        labels,
        weights,
        max(penalty, WEAKEST),
        np.zeros((len(drawn), reduced.shape[1] + 1, classes), np.float32),
        (reduced**2).mean(axis=0),
        each,
        TOLERANCE,
    )
    everything = Moments.of(reduced, labels, classes)

    def judge(c: int, rows: Labels, solution: Array) -> Kind | None:
        if len(rows) < BESIDE:
            return None
        images = np.flatnonzero(labels == c)
        gone = np.concatenate([images, rows])
        pair = Pair.fit(everything.without(Moments.of(reduced[gone], labels[gone], classes)))

        def measures(rows: Labels) -> Floats:
            logits = np.delete(reduced[rows] @ solution[:-1] + solution[-1], c, axis=1)
            return measured(reduced[rows], pair, logits)

        known = measures(rows)
        scale, edges = thresholds_of(known, rate)
        strange = scale.strangeness(measures(images))
        area = area_under_roc(strange[1], scale.strangeness(known)[1])
        return Kind(c, beyond(strange, edges), area)

    found = each(lambda left: judge(*left), zip(drawn, beside, solutions, strict=True))
    return tuple(kind for kind in found if kind is not None)


def area_under_roc(higher: Floats, lower: Floats) -> float:
    """How often one of the first is above one of the second; a tie counts half.

    >>> area_under_roc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    rising = np.sort(lower)
    below = np.searchsorted(rising, higher, "left") + np.searchsorted(rising, higher, "right")
    return float(below.mean() / (2 * len(lower)))


def share_of_kinds(shares: Floats, seed: int = 0) -> dict[str, Any]:
    """What is known of the share of unknown kinds that is refused.

    Args:
        shares: (k,), of each class that was left out.

    Returns:
        share: the mean over classes; share_ci95: where it lies, the classes resampled; a_kind_ci95:
        where the share of one further kind lies, by Student's t on the arcsine of the root, which
        evens out the spread. None of fewer than FEW_KINDS.
    """
    found: dict[str, Any] = {"share": float(shares.mean()), "share_ci95": None, "a_kind_ci95": None}
    n = len(shares)
    if n >= FEW_KINDS:
        rng = np.random.default_rng(seed)
        means = shares[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
        found["share_ci95"] = np.quantile(means, [0.025, 0.975]).tolist()
        angles = np.arcsin(np.sqrt(shares))
        reach = students(n - 1) * float(angles.std(ddof=1)) * (1 + 1 / n) ** 0.5
        ends = np.clip([angles.mean() - reach, angles.mean() + reach], 0, np.pi / 2)
        found["a_kind_ci95"] = (np.sin(ends) ** 2).tolist()
    return found
