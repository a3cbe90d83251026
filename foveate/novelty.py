"""The accuracy to be expected on images without labels, from how sure the classifier is of them and
how far they are from the training images.

Confidence that is calibrated on images like the training images is too high on others. By how much,
training images show when they are held out in ever coarser parts, so that what is judged lies at
various distances from what was learnt from:

    folds of groups          as new as another occasion
    parts of each class      sixteenths, eighths and quarters along its principal axes: kinds of a
                             thing that were never seen
    parts of all images      eighths, quarters and halves along theirs: other light, other places

Halves of a class are left out: without half of what a class is, the task is another one.

Images are judged by a score,

    score = a + b * log-odds of the most probable class + c * excess of distance

where the excess is the logarithm of the distance to the nearest training images, less what is usual
of the predicted class: a logistic regression of being right on the folds. Its mean probability is
right on images like those of the folds, and falls too little on others. So the score is multiplied
by a sharpness of 1 or more, with which the accuracies of all coarser parts are met best, and moved
so that those of the folds stay as they were. What is then still missed from one part to another,
beyond chance, goes into the interval.

The folds' answers are the head's own. A head for each coarser part would take longer than all the
rest of a probe, so there a linear discriminant on the reduced features answers in its place, its
confidence calibrated on the same folds as the head's.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from foveate.distance import (
    BLOCK,
    Array,
    Labels,
    Moments,
    Space,
    check_tensors,
    fit_space,
    nearest,
    nearest_of,
    squares,
)
from foveate.heads import fit_temperature
from foveate.metrics import sigmoid, softmax

Floats = NDArray[np.float64]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or a pool's

FEWEST = 100  # judged images with which a relation is fitted, at least
MOST = 4096  # of them that are looked at
REFERENCES = 1024  # training images to which distances are measured
CLASS_LEVELS = (2, 3, 4)  # halvings of each class
WHOLE_LEVELS = (1, 2, 3)  # halvings of all images
HELD_OUT = 4  # parts of a class held out at once, at most: finer ones are dealt to so many folds
WORTH = 10  # images of a class that its own usual distance is worth: with fewer the mean counts
Z = 1.959964  # of the normal distribution, for 95 %
EDGE = 0.99  # quantile of the excess of held-out images beyond which an image is unlike them
UNLIKE = 0.5  # share of such images from which on nothing is predicted
FEW = 5  # sets on one side of what is expected; fewer count as so many
TINY = 1e-9
LEAST = np.float32(-1e4)  # of a logit
CLIP = 1e-4  # of probabilities, so that log-odds are finite
RIDGE = 1e-5
SHARPNESS = (1.0, 1.5, 2.0, 2.5, 3.0)  # of the score
SETS = 20  # images with which the misses of a held-out set are counted, at least


@dataclass(frozen=True)
class Judged:
    """Answers on images that were not learnt from.

    Args:
        log_odds: (n,), calibrated, of the most probable class.
        predicted: (n,), that class.
        distance: (n,), logarithm of the distance to the nearest images that were learnt from.
        labels: (n,)
        part: (n,), which of the held-out parts each is of.
    """

    log_odds: Floats
    predicted: Labels
    distance: Floats
    labels: Labels
    part: Labels

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.predicted == self.labels

    def covariates(self, usual: Floats) -> Floats:
        return covariates(self.log_odds, self.distance - usual[self.predicted])


@dataclass(frozen=True)
class Expectation:
    """What is to be expected on images without labels.

    Args:
        accuracy: a fraction; None where nothing can be said.
        interval: 95 %, or None.
        groups: in which the images are.
        unlike: share of the images that are farther from the training images than nearly all that
            were held out.
        excess: mean logarithm of the distance over the usual one: 0.1 is 10 % farther.
        why: nothing can be said, or "".
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    groups: int
    unlike: float
    excess: float
    why: str = ""


@dataclass(frozen=True)
class Relation:
    """How confidence and distance go with being right.

    Args:
        space: of the features.
        references: (M, dimensions), of training images.
        usual: (classes,), mean logarithm of the distance of images out of fold, by the class that
            they are taken for.
        coefficients: (3,), of `covariates`.
        covariance: (3, 3), of the coefficients.
        sharpness: that is in the coefficients.
        misses: by how much a held-out set's accuracy p lay below and above what was expected,
            beyond chance: so many times sqrt(p (1 - p)), one standard deviation of each side.
        edge: of the excess; beyond it an image is unlike those that were held out.
    """

    space: Space
    references: Array
    usual: Floats
    coefficients: Floats
    covariance: Floats
    sharpness: float
    misses: tuple[float, float]
    edge: float

    def expect(
        self, features: Array, logits: NDArray[np.floating[Any]], groups: Labels
    ) -> Expectation:
        """The accuracy to be expected.

        Args:
            features: (N, width), raw, at least one image.
            logits: (N, classes), calibrated.
            groups: (N,), any integers; images of one group are right or wrong together.
        """
        log_odds, predicted = confident(logits)
        distance = np.log(nearest(self.space.reduced(features), self.references) + TINY)
        excess = distance - self.usual[predicted]
        x = covariates(log_odds, excess)
        p = sigmoid(x @ self.coefficients)
        accuracy, n = float(p.mean()), len(p)
        _, group = np.unique(groups, return_inverse=True)
        number, unlike = int(group.max()) + 1, float((excess > self.edge).mean())
        by_chance = float((np.bincount(group, np.sqrt(p * (1 - p))) ** 2).sum()) / n**2
        slope = ((p * (1 - p))[:, None] * x).mean(axis=0)
        of_relation = float(slope @ self.covariance @ slope)
        below, above = (
            Z * float(np.sqrt(by_chance + of_relation + miss**2 * accuracy * (1 - accuracy)))
            for miss in self.misses
        )
        interval = max(0.0, accuracy - below), min(1.0, accuracy + above)
        if unlike > UNLIKE:
            why = (
                f"unlike anything it was judged on: {unlike:.0%} of the images are farther from "
                f"the training images than {EDGE:.0%} of those that were held out"
            )
            return Expectation(None, None, number, unlike, float(excess.mean()), why)
        return Expectation(accuracy, interval, number, unlike, float(excess.mean()))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a file holds, the space's own included; distances need no more than half
        precision."""
        return {
            **self.space.tensors(),
            "references": self.references.astype(np.float16),
            "usual": self.usual,
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "sharpness": np.array([self.sharpness]),
            "misses": np.array(self.misses),
            "edge": np.array([self.edge]),
        }

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], width: int, classes: int) -> "Relation":
        """The relation of a file's tensors.

        Args:
            tensors: as `tensors` gives them.
            width, classes: of the classifier's head.

        Raises:
            ValueError: they are of other shapes, or not finite.
        """
        space = Space.of(tensors, width)
        references = len(tensors["references"]) if "references" in tensors else 0
        shapes = {
            "references": (references, space.directions.shape[1]),
            "usual": (classes,),
            "coefficients": (3,),
            "covariance": (3, 3),
            "sharpness": (1,),
            "misses": (2,),
            "edge": (1,),
        }
        check_tensors(tensors, shapes)
        if not references:
            raise ValueError("there are no references")
        below, above = tensors["misses"].tolist()
        return cls(
            space=space,
            references=tensors["references"].astype(np.float32),
            usual=tensors["usual"].astype(np.float64),
            coefficients=tensors["coefficients"].astype(np.float64),
            covariance=tensors["covariance"].astype(np.float64),
            sharpness=float(tensors["sharpness"][0]),
            misses=(below, above),
            edge=float(tensors["edge"][0]),
        )


def fit_relation(
    features: Array,
    rows: Labels,
    labels: Labels,
    groups: Labels,
    folds: Labels,
    out_of_fold: Array,
    classes: int,
    threads: int = 1,
) -> Relation | None:
    """Learn the relation from training images; None where they are too few.

    Args:
        features: (M, width), raw, of any images.
        rows: (N,), those that are looked at, one a photo.
        labels: (N,)
        groups: (N,), any integers; images of one group are never on both sides.
        folds: (N,), and -1 of images that are not judged.
        out_of_fold: (judged, classes), calibrated logits of the images that are, in their order.
        classes: how many there are.
        threads: cores to use. The result is the same for any number.

    Cost: of up to MOST images, whatever N is.
    """
    if (folds >= 0).sum() < FEWEST:
        return None
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(rows))[:MOST])
    out_of_fold = out_of_fold[(np.cumsum(folds >= 0) - 1)[chosen[folds[chosen] >= 0]]]
    labels, groups, folds = labels[chosen], groups[chosen], folds[chosen]
    features = features[rows[chosen]]
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        space = fit_space(features)
        blocks = [features[i : i + BLOCK] for i in range(0, len(features), BLOCK)]
        reduced = np.concatenate(list(pool.map(space.reduced, blocks)))
        references = np.sort(rng.permutation(len(reduced))[:REFERENCES])
        parts = HeldOut(reduced, labels, groups, references, space.axes, classes)
        real = parts.of_head(folds, out_of_fold)
        coarser = parts.coarser(folds, rng, pool.map)
    usual = usual_distance(real.distance, real.predicted, classes)
    x, right = real.covariates(usual), real.right
    plain = falling(real, coarser, usual)
    sets = held_out_sets([real, *coarser], usual, classes)
    sharpness, coefficients = sharpened(plain, x, right, sets)
    everything = np.concatenate([x, *(one.covariates(usual) for one in coarser)])
    return Relation(
        space=space,
        references=reduced[references],
        usual=usual,
        coefficients=coefficients,
        covariance=sharpness**2 * sandwich(x, right, plain, groups[folds >= 0]),
        sharpness=sharpness,
        misses=missed(sets, coefficients),
        edge=float(np.quantile(everything[:, 2], EDGE)),
    )


class HeldOut:
    """Training images held out in parts, what answers there, and how far they are from the rest.

    Args:
        rows: (N, dimensions), reduced features.
        labels, groups: (N,)
        references: numbers of rows to which distances are measured.
        axes: how many of the dimensions the discriminant reads.
        classes: how many there are.
    """

    def __init__(
        self,
        rows: Array,
        labels: Labels,
        groups: Labels,
        references: Labels,
        axes: int,
        classes: int,
    ):
        self.labels, self.groups = labels, groups
        self.references, self.classes = references, classes
        self.seen = np.ascontiguousarray(rows[:, :axes])
        self.all = Moments.of(self.seen, labels, classes)
        together = groups[:, None] == groups[references]
        self.squares = squares(rows, rows[references])
        self.squares[together] = np.inf

    def distances(self, part: Labels | None = None) -> Floats:
        """(N,), logarithm of the distance to references of other groups, and of other parts."""
        found = self.squares
        if part is not None:
            same = part[:, None] == part[self.references]
            found = np.where(same, np.float32(np.inf), found)
        return np.log(nearest_of(found) + TINY)

    def of_head(self, folds: Labels, out_of_fold: Array) -> Judged:
        """The head's own answers on the folds."""
        judged = folds >= 0
        log_odds, predicted = confident(out_of_fold)
        distance = self.distances()[judged]
        distance = np.where(np.isfinite(distance), distance, np.nanmedian(distance))
        return Judged(log_odds, predicted, distance, self.labels[judged], folds[judged])

    def coarser(self, folds: Labels, rng: np.random.Generator, each: Map = map) -> list[Judged]:
        """The discriminant's answers on ever coarser parts; `each` goes through them, perhaps in
        threads."""
        logits, known = self.discriminant(folds)
        judged = known & (folds >= 0)
        if not judged.any():  # hardly more images than classes
            return []
        logits, labels = logits[judged], self.labels[judged]
        temperature = fit_temperature(logits, labels)
        log_odds, predicted = confident(logits / temperature)
        straight = np.stack([np.ones(len(labels)), log_odds], axis=1)
        lift, slope = logistic(straight, predicted == labels)

        def on(part: Labels) -> Judged:
            logits, known = self.discriminant(part)
            log_odds, predicted = confident(logits / temperature)
            distance = self.distances(part)
            known &= np.isfinite(distance)
            return Judged(
                lift + slope * log_odds[known],
                predicted[known],
                distance[known],
                self.labels[known],
                part[known],
            )

        found = list(each(on, self.parts(rng)))
        return [one for one in found if len(one.labels)]

    def discriminant(self, part: Labels) -> tuple[Array, NDArray[np.bool_]]:
        """(N, classes), logits of each image from all images that are of other parts, and which
        images have a class that is left there."""
        logits = np.zeros((len(part), self.classes), np.float32)
        known = np.zeros(len(part), bool)
        for p in np.unique(part[part >= 0]).tolist():
            rows = np.flatnonzero(part == p)
            labels = self.labels[rows]
            rest = self.all.without(Moments.of(self.seen[rows], labels, self.classes))
            if rest.counts.sum() < 2 * self.classes:
                continue
            logits[rows] = np.maximum(rest.gaussians().logits(self.seen[rows]), LEAST)
            known[rows] = rest.counts[labels] > 0.5
        return logits, known

    def parts(self, rng: np.random.Generator) -> list[Labels]:
        """(N,) of each coarser granularity, the part of each image."""
        found = []
        whole = np.zeros(len(self.labels), np.int64)
        for _ in WHOLE_LEVELS:
            whole = halved(self.seen, self.groups, whole)
            found.append(whole)
        part = self.labels.astype(np.int64)
        for level in range(1, max(CLASS_LEVELS) + 1):
            part = halved(self.seen, self.groups, part)
            if level not in CLASS_LEVELS:
                continue
            fold = part - self.labels * 2**level
            for c in range(self.classes):  # which parts of two classes go together is chance
                members = self.labels == c
                fold[members] = rng.permutation(2**level)[fold[members]]
            found.append(fold % HELD_OUT)
        return found


def covariates(log_odds: Floats, excess: Floats) -> Floats:
    """(n, 3), what the relation reads."""
    return np.stack([np.ones(len(log_odds)), log_odds, excess], axis=1)


def confident(logits: NDArray[np.floating[Any]]) -> tuple[Floats, Labels]:
    """(n, classes) -> log-odds of the most probable class, and that class."""
    probabilities = softmax(logits)
    top = np.clip(probabilities.max(axis=1), CLIP, 1 - CLIP)
    return np.log(top / (1 - top)), probabilities.argmax(axis=1)


def usual_distance(distance: Floats, predicted: Labels, classes: int) -> Floats:
    """(classes,), the mean over images that are taken for each class, drawn towards the mean over
    all where they are few."""
    n = np.bincount(predicted, minlength=classes)
    total = np.bincount(predicted, distance, minlength=classes)
    return (total + WORTH * distance.mean()) / (n + WORTH)


def logistic(x: Floats, right: NDArray[np.bool_], effect: float | None = None) -> Floats:
    """The coefficients of a logistic regression, by Newton's method; the penalty RIDGE an image
    keeps them finite where all are right.

    Args:
        x: (n, k), the first column 1.
        right: (n,)
        effect: what is believed of the last coefficient beforehand, with a standard deviation of 1;
            nothing by default.

    >>> x = np.ones((4, 1))
    >>> round(float(sigmoid(x @ logistic(x, np.array([True, True, True, False])))[0]), 2)
    0.75
    """
    beta, pull = np.zeros(x.shape[1]), np.full(x.shape[1], RIDGE * len(x))
    target = np.zeros(x.shape[1])
    if effect is not None:
        pull[-1], target[-1] = 1.0, effect
    for _ in range(25):
        p = sigmoid(x @ beta)
        slope = x.T @ (p - right) + pull * (beta - target)
        step = np.linalg.solve(curvature(x, p) + np.diag(pull), slope)
        beta = beta - step / max(1.0, float(np.abs(step).max()))  # no longer than 1
        if np.abs(step).max() < 1e-6:
            break
    return beta


def falling(real: Judged, coarser: list[Judged], usual: Floats) -> Floats:
    """(3,), the coefficients on the folds, of which that of distance is not above 0. Errors on the
    folds may be few: what is believed of it beforehand is its mean on the coarser parts."""
    x = real.covariates(usual)
    effects = [logistic(one.covariates(usual), one.right)[2] for one in coarser]
    found = logistic(x, real.right, float(np.mean(effects)) if effects else None)
    return found if found[2] <= 0 else np.append(logistic(x[:, :2], real.right), 0.0)


def curvature(x: Floats, p: Floats) -> Floats:
    """(k, k), of the log-loss of a logistic regression."""
    bend: Floats = (x * np.maximum(p * (1 - p), 1e-6)[:, None]).T @ x
    return bend


def sandwich(x: Floats, right: NDArray[np.bool_], coefficients: Floats, groups: Labels) -> Floats:
    """The covariance of coefficients where the images of a group answer together (Huber's
    sandwich)."""
    p = sigmoid(x @ coefficients)
    scores = x * (right - p)[:, None]
    _, group = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(group, column) for column in scores.T], axis=1)
    inverse = np.linalg.inv(curvature(x, p) + RIDGE * len(x) * np.eye(x.shape[1]))
    found: Floats = inverse @ (totals.T @ totals) @ inverse
    return found


def held_out_sets(
    granularities: list[Judged], usual: Floats, classes: int
) -> list[tuple[Floats, float]]:
    """Covariates and accuracy of sets of held-out images: each part, and two halves of its
    classes."""
    rng, found = np.random.default_rng(0), []
    for one in granularities:
        x, right = one.covariates(usual), one.right
        for part in np.unique(one.part).tolist():
            here = one.part == part
            half = np.isin(one.labels, rng.permutation(classes)[: classes // 2])
            for members in (here, here & half, here & ~half):
                if int(members.sum()) >= SETS:
                    found.append((x[members], float(right[members].mean())))
    return found


def sharpened(
    plain: Floats, x: Floats, right: NDArray[np.bool_], sets: list[tuple[Floats, float]]
) -> tuple[float, Floats]:
    """The sharpness with which the accuracies of the sets are met best, and the coefficients with
    it, whose mean probability on the folds is the accuracy there.

    Args:
        plain: (3,), the coefficients on the folds.
        x, right: of the folds.
        sets: as `held_out_sets` gives them.
    """
    accuracy, best = float(right.mean()), (np.inf, 1.0, plain)
    for sharpness in SHARPNESS:
        coefficients = sharpness * plain
        low, high = -50.0, 50.0
        for _ in range(30):
            coefficients[0] = (low + high) / 2
            if sigmoid(x @ coefficients).mean() < accuracy:
                low = coefficients[0]
            else:
                high = coefficients[0]
        found = [error for error, _, _ in errors(sets, coefficients)]
        loss = float(np.mean(np.square(found))) if found else 0.0
        if loss < best[0]:
            best = loss, sharpness, coefficients
    return best[1], best[2]


def errors(
    sets: list[tuple[Floats, float]], coefficients: Floats
) -> list[tuple[float, float, float]]:
    """Of each set, what is expected less its accuracy, the variance of that by chance, and what
    both are to be divided by: p (1 - p) of the expected accuracy p."""
    found = []
    for x, accuracy in sets:
        p = sigmoid(x @ coefficients)
        mean = float(p.mean())
        chance = float((p * (1 - p)).mean()) / len(p)
        found.append((mean - accuracy, chance, max(mean * (1 - mean), 1e-3)))
    return found


def missed(sets: list[tuple[Floats, float]], coefficients: Floats) -> tuple[float, float]:
    """By how much accuracies lie below and above what is expected: as `Relation.misses`."""
    found = errors(sets, coefficients)
    sides = []
    for sign in (1, -1):
        beyond = [(e**2 - chance) / scale for e, chance, scale in found if sign * e > 0]
        sides.append(float(np.sqrt(max(0.0, sum(beyond) / max(FEW, len(beyond))))))
    return sides[0], sides[1]


def halved(rows: Array, groups: Labels, part: Labels) -> Labels:
    """Each part cut in two at the median along its own principal axis, groups whole: parts 2 p and
    2 p + 1."""
    cut = 2 * part
    order = np.argsort(part, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        if len(members) < 2:
            continue
        centred = rows[members] - rows[members].mean(axis=0)
        axis = centred[np.argmax((centred**2).sum(axis=1))]
        for _ in range(8):  # power iteration: any direction of much variance will do
            axis = centred.T @ (centred @ axis)
            axis /= np.linalg.norm(axis) + np.float32(TINY)
        _, group, size = np.unique(groups[members], return_inverse=True, return_counts=True)
        along = (np.bincount(group, centred @ axis) / size)[group]
        cut[members] += along > np.median(along)
    return cut
