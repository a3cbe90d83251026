"""When to answer none of these: images unlike all that were learnt from, and kinds of thing that
were never taught.

No single measure finds both, so two are made of four, each of which grows with strangeness:

    doubt        less the log-odds of the most probable class
    distance     squared Mahalanobis distance to the nearest class
    excess       the same less the distance to one Gaussian of all classes (Ren et al.,
                 arXiv:2106.09022)
    turn         the same of the features' direction alone: of vectors of length 1

Each becomes a normal score by its rank among training images, measured without their fold. Then

    foreign      the larger of distance and excess: noise, pages of text, other worlds
    unknown kind doubt + excess + turn: another thing of the same world

and an image is refused if one of them is beyond its threshold. The two thresholds refuse a share of
the training images, out of fold, that is set beforehand; no foreign image is looked at for that.

Distances are measured on a random projection of the standardised features (Achlioptas, 2003: signs,
which keep distances). It knows of no image: principal axes are made for the classes that were
taught, and a kind that is left out of everything else must not be in them.

What refusing is worth is measured by leaving classes out, one after the other: a head, and
Gaussians, are made of the images of all other classes but one fold, and refuse images of the class
and of the fold. Nothing is chosen by what comes out.

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
from foveate.distance import BLOCK, Array, Gaussians, Labels, Moments, check_tensors, times
from foveate.heads import minimise, standard_scale

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
DIMENSIONS = 512  # of the projection
RANKS = 1000  # measures by which others are ranked
UNKNOWN_AT_LEAST = 3  # classes, of which one is left out
RESAMPLES = 1000
STEPS = 40  # halvings when thresholds are sought

MEASURES = ("doubt", "distance", "excess", "turn")
DOUBT, DISTANCE, EXCESS, TURN = range(4)


@dataclass(frozen=True)
class Projection:
    """Features, standardised and projected on random signs.

    Args:
        signs: (width, DIMENSIONS), bool: whether each is 1 or -1.
        scale: (width,), by which features are multiplied first.
        shift: (DIMENSIONS,), what is then taken off: the mean of the training images.
    """

    signs: NDArray[np.bool_]
    scale: Array
    shift: Array

    @functools.cached_property
    def matrix(self) -> Array:
        """(width, DIMENSIONS)"""
        length = np.float32(self.signs.shape[1] ** -0.5)
        return np.where(self.signs, length, -length) * self.scale[:, None]

    def reduced(self, features: Array) -> Array:
        """(N, width), raw -> (N, DIMENSIONS)"""
        return times(features, self.matrix) - self.shift

    @classmethod
    def fit(cls, features: Array) -> "Projection":
        """That of training images' features, (N, width), raw."""
        width = features.shape[1]
        signs = np.random.default_rng(0).random((width, DIMENSIONS)) < 0.5
        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        plain = cls(signs, standard_scale(features), np.zeros(DIMENSIONS, np.float32))
        return cls(signs, plain.scale, mean @ plain.matrix)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {
            PREFIX + "signs": np.packbits(self.signs, axis=1),
            PREFIX + "scale": self.scale,
            PREFIX + "shift": self.shift,
        }

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int) -> "Projection":
        """ValueError if the tensors are of other shapes, or not finite."""
        size = tensors[f"{PREFIX}shift"].size if f"{PREFIX}shift" in tensors else 0
        shapes = {"signs": (width, -(-size // 8)), "scale": (width,), "shift": (size,)}
        check_tensors(tensors, {PREFIX + name: shape for name, shape in shapes.items()})
        packed = tensors[PREFIX + "signs"].astype(np.uint8)
        signs = np.unpackbits(packed, axis=1, count=size).astype(bool)
        scale, shift = (tensors[PREFIX + name].astype(np.float32) for name in ("scale", "shift"))
        return cls(signs, scale, shift)


@dataclass(frozen=True)
class Pair:
    """A Gaussian a class, and one of all."""

    classes: Gaussians
    everything: Gaussians

    def distances(self, rows: Array) -> tuple[Array, Array]:
        """(N, axes) -> (N,) twice: to the nearest class, and that less the distance to all."""
        nearest = np.nanmin(self.classes.distances(rows), axis=1)
        return nearest, nearest - self.everything.distances(rows)[:, 0]

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        return {
            f"{name}.means": self.classes.means,
            f"{name}.root": self.classes.root,
            f"{name}.mean": self.everything.means,
            f"{name}.all": self.everything.root,
        }

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], name: str) -> "Pair":
        means, root, mean, everything = (
            tensors[f"{name}.{part}"] for part in ("means", "root", "mean", "all")
        )
        logs = np.zeros(len(means), np.float32)  # which play no part in distances
        return cls(Gaussians(means, root, logs), Gaussians(mean, everything, logs[:1]))


@dataclass(frozen=True)
class Scale:
    """Normal scores of measures, by their ranks among images that are known.

    Args:
        known: (4, n), the measures of those, each sorted.
    """

    known: Floats

    @classmethod
    def of(cls, known: Floats) -> "Scale":
        """Of images' measures, (4, N); of many, RANKS order statistics of each."""
        places = np.linspace(0, known.shape[1] - 1, min(RANKS, known.shape[1])).round().astype(int)
        return cls(np.sort(known, axis=1)[:, places])

    def scores(self, measures: Floats) -> Floats:
        """(4, N) -> the same shape."""
        places = normal_places(self.known.shape[1])
        found = [
            np.where(values > known[-1], places[-1], np.interp(values, known, places[:-1]))
            for values, known in zip(measures, self.known, strict=True)
        ]
        return np.stack(found)

    def strangeness(self, measures: Floats) -> Floats:
        """(4, N) -> (2, N): how foreign, and how much of an unknown kind."""
        z = self.scores(measures)
        foreign = np.maximum(z[DISTANCE], z[EXCESS])
        return np.stack([foreign, z[DOUBT] + z[EXCESS] + z[TURN]])


@dataclass(frozen=True)
class Rejection:
    """When a classifier answers none of these.

    Args:
        projection: of the features.
        whole: Gaussians of what is projected.
        turned: of its directions.
        scale: of the training images, out of fold.
        thresholds: (2,), of how foreign, and how much of an unknown kind, an image may be.
    """

    projection: Projection
    whole: Pair
    turned: Pair
    scale: Scale
    thresholds: Floats

    def refused(self, features: Array, logits: NDArray[np.floating[Any]]) -> list[str | None]:
        """Why each image is refused: "foreign", "unknown kind", or None.

        Args:
            features: (N, width), raw.
            logits: (N, classes), calibrated.
        """
        beyond = self.strangeness(features, logits) > self.thresholds[:, None]
        return [
            FOREIGN if foreign else UNKNOWN if unknown else None for foreign, unknown in beyond.T
        ]

    def strangeness(self, features: Array, logits: NDArray[np.floating[Any]]) -> Floats:
        """(2, N): how foreign each image is, and how much of an unknown kind."""
        reduced = self.projection.reduced(features)
        return self.scale.strangeness(measured(reduced, (self.whole, self.turned), logits))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds."""
        return {
            **self.projection.tensors(),
            **self.whole.tensors(PREFIX + "whole"),
            **self.turned.tensors(PREFIX + "turned"),
            PREFIX + "known": self.scale.known.astype(np.float32),
            PREFIX + "thresholds": self.thresholds,
        }

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int, classes: int) -> "Rejection":
        """The rejection of a file's tensors.

        Args:
            tensors: as `tensors` gives them, perhaps among others.
            width, classes: of the classifier's head.

        Raises:
            ValueError: they are of other shapes, or not finite.
        """
        tensors = {name: tensors[name] for name in tensors if name.startswith(PREFIX)}
        projection = Projection.of(tensors, width)
        size, known = len(projection.shift), tensors.get(f"{PREFIX}known", np.zeros((0, 0)))
        shapes: dict[str, tuple[int, ...]] = {"known": (len(MEASURES), known.shape[-1])}
        shapes["thresholds"] = (2,)
        for name in ("whole", "turned"):
            shapes |= {f"{name}.means": (classes, size), f"{name}.root": (size, size)}
            shapes |= {f"{name}.mean": (1, size), f"{name}.all": (size, size)}
        check_tensors(tensors, {PREFIX + name: shape for name, shape in shapes.items()})
        return cls(
            projection=projection,
            whole=Pair.of(tensors, PREFIX + "whole"),
            turned=Pair.of(tensors, PREFIX + "turned"),
            scale=Scale(tensors[PREFIX + "known"].astype(np.float64)),
            thresholds=tensors[PREFIX + "thresholds"].astype(np.float64),
        )


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

    Cost: two passes over the features; and heads without classes, of up to MOST images.
    """
    judged = folds >= 0
    if judged.sum() < FEWEST:
        return None
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        projection = Projection.fit(features[rows])
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        reduced = np.concatenate(list(pool.map(lambda b: projection.reduced(features[b]), blocks)))
        world = World(reduced, labels, classes)

        def out_of(fold: int) -> Floats:
            here = np.flatnonzero(folds == fold)
            return measured(reduced[here], world.pairs(here), out_of_fold[folds[judged] == fold])

        known = np.zeros((len(MEASURES), int(judged.sum())))
        names = np.unique(folds[judged]).tolist()
        for fold, found in zip(names, pool.map(out_of, names), strict=True):
            known[:, folds[judged] == fold] = found
        few = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
        kinds = leave_out(
            reduced[few], labels[few], folds[few], penalty, rate, classes, seed, pool.map
        )
    scale, thresholds = thresholds_of(known, rate)
    refused = refused_by_other_folds(known, folds[judged], rate)
    return Fitted(Rejection(projection, *world.pairs(), scale, thresholds), refused, kinds)


class World:
    """Images that are learnt from, and Gaussians without some of them.

    Args:
        reduced: (N, dimensions), their mean 0.
        labels: (N,)
        classes: how many there are.
    """

    def __init__(self, reduced: Array, labels: Labels, classes: int):
        self.labels, self.classes = labels, classes
        self.parts = reduced, turned(reduced)
        self.all = [Moments.of(part, labels, classes) for part in self.parts]

    def pairs(self, without: Labels | None = None) -> tuple[Pair, Pair]:
        """Of the features and of their directions, without these images."""
        moments = self.all
        if without is not None:
            labels = self.labels[without]
            gone = [Moments.of(part[without], labels, self.classes) for part in self.parts]
            moments = [m.without(g) for m, g in zip(self.all, gone, strict=True)]
        whole, direction = (Pair(m.gaussians(), m.merged().gaussians()) for m in moments)
        return whole, direction


def turned(reduced: Array) -> Array:
    """(N, dimensions) -> the same shape, at length 1."""
    return reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), np.float32(1e-12))


def measured(reduced: Array, pairs: tuple[Pair, Pair], logits: NDArray[np.floating[Any]]) -> Floats:
    """(4, N), the measures of images, by Gaussians of the features and of their directions.

    Args:
        reduced: (N, dimensions)
        logits: (N, classes), calibrated.
    """
    whole, direction = pairs
    distance, excess = whole.distances(reduced)
    turn = direction.distances(turned(reduced))[1]
    return np.stack([doubt(logits), distance, excess, turn]).astype(np.float64)


def doubt(logits: NDArray[np.floating[Any]]) -> Floats:
    """(N, classes) -> (N,), log-odds of all classes but the most probable one.

    >>> doubt(np.log([[0.9, 0.1], [0.5, 0.5]])).round(2).tolist()
    [-2.2, 0.0]
    """
    rising = np.sort(logits.astype(np.float64), axis=1)
    top, rest = rising[:, -1], rising[:, :-1]
    beyond: Floats = rest[:, -1] + np.log(np.exp(rest - rest[:, -1:]).sum(axis=1)) - top
    return beyond


@functools.cache
def normal_places(n: int) -> Floats:
    """(n + 1,), normal scores of n sorted numbers, and of one beyond them.

    >>> normal_places(1).round(2).tolist()
    [0.0, 0.67]
    """
    shares = [*((np.arange(n) + 0.5) / n), 1 - 0.25 / n]
    return np.array([NormalDist().inv_cdf(share) for share in shares])


def thresholds_of(known: Floats, rate: float) -> tuple[Scale, Floats]:
    """The scale of known images' measures, (4, n), and the two thresholds, (2,), beyond which the
    share `rate` of them lies, or a little less; SHARE of it for being foreign."""
    scale = Scale.of(known)
    strange = scale.strangeness(known)
    parts = np.array([SHARE, 1 - SHARE])
    low, high = rate, min(1.0, 2 * rate / (1 - SHARE))
    edges = np.array([s.max() for s in strange])
    for _ in range(STEPS):  # they overlap: together a little more can be spent than `rate`
        middle = (low + high) / 2
        tried = np.array(
            [np.quantile(s, 1 - middle * part) for s, part in zip(strange, parts, strict=True)]
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
    )

    def judge(c: int, rows: Labels, solution: Array) -> Kind | None:
        if len(rows) < BESIDE:
            return None
        others = np.flatnonzero(labels != c)
        centre = reduced[others].mean(axis=0)
        world = World(reduced[others] - centre, labels[others], classes)
        pairs = world.pairs(np.searchsorted(others, rows))

        def measures(rows: Labels) -> Floats:
            logits = np.delete(reduced[rows] @ solution[:-1] + solution[-1], c, axis=1)
            return measured(reduced[rows] - centre, pairs, logits)

        known = measures(rows)
        scale, edges = thresholds_of(known, rate)
        strange = scale.strangeness(measures(np.flatnonzero(labels == c)))
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
