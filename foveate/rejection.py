"""When to answer none of these: images unlike all that were learnt from, and kinds of thing that
were never taught.

No single measure finds both, so two are made of five, each of which grows with strangeness:

    doubt        less the log-odds of the most probable class
    distance     squared Mahalanobis distance to the nearest class, in all of the reduced features
    excess       the same less the distance to one Gaussian of all classes (Ren et al.,
                 arXiv:2106.09022)
    turn         distance of the features' direction alone, on their principal axes: of vectors of
                 length 1
    turn excess  that less the distance of the direction to one Gaussian of all classes

Each becomes a normal score by its rank among training images, measured without their fold. Then

    foreign      the larger of distance and excess: noise, pages of text, other worlds
    unknown kind doubt + turn + turn excess: another thing of the same world

and an image is refused if one of them is beyond its threshold. The two thresholds refuse a share of
the training images, out of fold, that is set beforehand; no foreign image is looked at for that.

What that is worth is measured by leaving classes out, one after the other: a head, and Gaussians,
are made of the images of all other classes but one fold, and refuse images of the class and of the
fold. Nothing is chosen by what comes out. Those heads are solved on the reduced features, ten in
the time of one on all.

Measured against other combinations in docs/decisions/031-none-of-these.md.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.audit.estimate import students
from foveate.distance import BLOCK, Array, Gaussians, Labels, Moments, Space, check_tensors
from foveate.heads import minimise

Floats = NDArray[np.float64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or a pool's

FOREIGN, UNKNOWN = "foreign", "unknown kind"
NONE_OF_THESE = "none of these"  # the answer; no class may have this name
PREFIX = "rejection."  # of a file's tensors
FEWEST = 100  # judged images with which a threshold can be set
MOST = 4096  # images from which heads without a class are made
SHARE = 0.4  # of the false refusals that are spent on foreign images
WEAKEST = 1e-5  # penalty of the heads without a class, at least
KINDS = 20  # classes that are left out, at most
OUTPUTS = 2000  # of all these heads together, at most, where they are more than FEW_KINDS
FEW_KINDS = 5  # classes left out without which nothing is said of how sure their mean is
A_KIND = 5  # images of a class that is left out, at least
BESIDE = 10  # images of other classes, of the fold that is left out with it, at least
RANKS = 1000  # measures by which others are ranked
UNKNOWN_AT_LEAST = 3  # classes, of which one is left out
RESAMPLES = 1000
STEPS = 40  # halvings when thresholds are sought

MEASURES = ("doubt", "distance", "excess", "turn", "turn_excess")
DOUBT, DISTANCE, EXCESS, TURN, TURN_EXCESS = range(5)


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
        known: (5, n), the measures of those, each sorted.
    """

    known: Floats

    @classmethod
    def of(cls, known: Floats) -> "Scale":
        """Of images' measures, (5, N); of many, RANKS order statistics of each."""
        places = np.linspace(0, known.shape[1] - 1, min(RANKS, known.shape[1])).round().astype(int)
        return cls(np.sort(known, axis=1)[:, places])

    def scores(self, measures: Floats) -> Floats:
        """(5, N) -> the same shape."""
        places = normal_places(self.known.shape[1])
        found = [
            np.where(values > known[-1], places[-1], np.interp(values, known, places[:-1]))
            for values, known in zip(measures, self.known, strict=True)
        ]
        return np.stack(found)

    def strangeness(self, measures: Floats) -> Floats:
        """(5, N) -> (2, N): how foreign, and how much of an unknown kind."""
        z = self.scores(measures)
        foreign = np.maximum(z[DISTANCE], z[EXCESS])
        return np.stack([foreign, z[DOUBT] + z[TURN] + z[TURN_EXCESS]])


@dataclass(frozen=True)
class Rejection:
    """When a classifier answers none of these.

    Args:
        space: of the features.
        whole: Gaussians in it.
        turned: of the directions on its principal axes.
        scale: of the training images, out of fold.
        thresholds: (2,), of how foreign, and how much of an unknown kind, an image may be.
    """

    space: Space
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
        reduced = self.space.reduced(features)
        parts = reduced, turned(reduced, self.space)
        strange = self.scale.strangeness(measured(parts, (self.whole, self.turned), logits))
        beyond = strange > self.thresholds[:, None]
        return [
            FOREIGN if foreign else UNKNOWN if unknown else None for foreign, unknown in beyond.T
        ]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds beside the space."""
        return {
            **self.whole.tensors(PREFIX + "whole"),
            **self.turned.tensors(PREFIX + "turned"),
            PREFIX + "known": self.scale.known.astype(np.float32),
            PREFIX + "thresholds": self.thresholds,
        }

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], space: Space, classes: int) -> "Rejection":
        """The rejection of a file's tensors.

        Raises:
            ValueError: they are of other shapes, or not finite.
        """
        size, axes = space.directions.shape[1], space.axes
        found = {name: tensors[name] for name in tensors if name.startswith(PREFIX)}
        known = found.get(f"{PREFIX}known", np.zeros((5, 0)))
        shapes: dict[str, tuple[int, ...]] = {"known": (5, known.shape[-1]), "thresholds": (2,)}
        for name, width in (("whole", size), ("turned", axes)):
            shapes |= {f"{name}.means": (classes, width), f"{name}.root": (width, width)}
            shapes |= {f"{name}.mean": (1, width), f"{name}.all": (width, width)}
        check_tensors(found, {PREFIX + name: shape for name, shape in shapes.items()})
        return cls(
            space=space,
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
    space: Space,
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
        space: of these features.
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
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        reduced = np.concatenate(list(pool.map(lambda b: space.reduced(features[b]), blocks)))
        world = World(reduced, labels, space, classes)
        known = np.zeros((len(MEASURES), len(rows)))
        for f in np.unique(folds[judged]).tolist():
            here = np.flatnonzero(folds == f)
            known[:, here] = world.measures(here, here, out_of_fold[folds[judged] == f])
        known = known[:, judged]
        few = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
        kinds = leave_out(
            reduced[few], labels[few], folds[few], space, penalty, rate, classes, seed, pool.map
        )
    scale, thresholds = thresholds_of(known, rate)
    refused = refused_by_other_folds(known, folds[judged], rate)
    return Fitted(Rejection(space, *world.pairs(), scale, thresholds), refused, kinds)


class World:
    """Images that are learnt from, and Gaussians without some of them.

    Args:
        reduced: (N, dimensions)
        labels: (N,)
        space: of the features.
        classes: how many there are.
    """

    def __init__(self, reduced: Array, labels: Labels, space: Space, classes: int):
        self.labels, self.classes = labels, classes
        self.parts = reduced, turned(reduced, space)
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

    def measures(self, rows: Labels, without: Labels, logits: NDArray[np.floating[Any]]) -> Floats:
        """(5, n), of some images, by Gaussians without some, and by a head's logits."""
        pairs = self.pairs(without)
        return measured([part[rows] for part in self.parts], pairs, logits)


def turned(reduced: Array, space: Space) -> Array:
    """(N, dimensions) -> (N, axes), the directions on the principal axes."""
    axes = np.ascontiguousarray(reduced[:, : space.axes])
    return axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.float32(1e-12))


def measured(
    parts: Sequence[Array], pairs: Sequence[Pair], logits: NDArray[np.floating[Any]]
) -> Floats:
    """(5, N), the measures of images: their reduced features and directions by a Pair each, and
    their logits, (N, classes)."""
    distances = [pair.distances(part) for pair, part in zip(pairs, parts, strict=True)]
    return np.stack([doubt(logits), *distances[0], *distances[1]]).astype(np.float64)


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
    """The scale of known images' measures, (5, n), and the two thresholds, (2,), beyond which the
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
    space: Space,
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
    held = [
        np.flatnonzero((labels == c) | (folds == names[i % len(names)]))
        for i, c in enumerate(drawn)
    ]
    weights = np.ones((len(labels), len(drawn)), np.float32)
    for i, rows in enumerate(held):
        weights[rows, i] = 0
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
    world = World(reduced, labels, space, classes)

    def judge(c: int, rows: Labels, solution: Array) -> Kind | None:
        strange = labels[rows] == c
        if np.count_nonzero(~strange) < BESIDE:
            return None
        logits = np.delete(reduced[rows] @ solution[:-1] + solution[-1], c, axis=1)
        measures = world.measures(rows, rows, logits)
        scale, edges = thresholds_of(measures[:, ~strange], rate)
        found = scale.strangeness(measures)
        refused = beyond(found[:, strange], edges)
        return Kind(c, refused, area_under_roc(found[1, strange], found[1, ~strange]))

    found = each(lambda held_out: judge(*held_out), zip(drawn, held, solutions, strict=True))
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
