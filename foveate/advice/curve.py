"""How the errors fall as images are added, and so what twice as many would bring.

Heads learn from a quarter and from half of the groups, in every combination, and answer for all
others; from four fifths the run's own did, out of fold. Errors are taken to fall by a power of the
number of images (Hestness et al., "Deep learning scaling is predictable, empirically",
arXiv:1712.00409) to what no number of images takes away, which is set to half of those that are
left: without that floor twice the images are promised half as much again as they bring. The same
power gives the errors of all images and of twice as many.

Where images are of occasions, more of the same ones are another question: heads that learn from
half of each occasion's images answer for other occasions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from foveate.advice.gain import Gain
from foveate.data.splits import judging_folds, stratified_folds
from foveate.heads import Head, fit_head
from foveate.training.honest import Judging

PARTS = 4
PIECES = 10  # heads of a curve, without those of occasions
LEAST = 60  # photos that can be judged
STRONGER = (100.0, 32.0, 10.0, 3.2, 1.0)  # penalties of parts, in times of that of all images
RESAMPLES = 400
STEEPEST = 1.0  # power by which errors fall, at most
# chosen on parts of clothing's and produce's training images, and tried on digits
# (benchmarks/advise.py): the part of the errors that stays, and by which part of itself a gain is
# unsure beyond what resampling shows, since it is extrapolated
FLOOR, UNSURE = 0.5, 0.4

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """Errors by the number of images that were learnt from.

    Args:
        sizes: (S,), photos that were learnt from.
        errors: (S, J), the share of heads of this size that were wrong at each photo.
        labels, groups: (J,), of the photos.
        n: photos in all.
        within: the gain of twice the photos of each group; None where groups are of one.
    """

    sizes: Floats
    errors: Floats
    labels: Rows
    groups: Rows
    n: int
    within: Gain | None

    def gain(self) -> Gain:
        """Of twice as many photos."""
        gains = self.resampled(lambda means: extrapolated(self.sizes, means, self.n))
        error = np.hypot(gains[1:].std(), UNSURE * gains[0])
        return Gain(float(gains[0]), max(float(error), 1e-6))

    def resampled(self, of: Callable[[Floats], float]) -> Floats:
        """A number that follows from the mean errors, (S,): of the photos, and of RESAMPLES draws
        of their groups."""
        _, group, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(group, row, minlength=len(sizes)) for row in self.errors])
        rng, found = np.random.default_rng(0), [of(self.errors.mean(axis=1))]
        for _ in range(RESAMPLES):
            times = np.bincount(rng.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
            found.append(of(sums @ times / (sizes @ times)))
        return np.array(found)

    def fallen(self, classes: int) -> Floats:
        """(classes,), errors fewer at photos of each class, from the fewest images to the most."""
        fallen = self.errors[0] - self.errors[-1]
        return np.array([fallen[self.labels == c].sum() for c in range(classes)])


def extrapolated(sizes: Floats, errors: Floats, n: int) -> float:
    """The errors of n images less those of twice as many.

    >>> sizes = np.array([100.0, 200.0, 400.0])
    >>> round(extrapolated(sizes, 0.02 + 8 / sizes, 400), 4)
    0.01
    """
    floor = FLOOR * errors[-1]
    if errors[-1] <= 0 or errors.min() <= floor:
        return 0.0
    x, y = np.log(sizes), np.log(errors - floor)
    x0, y0 = x.mean(), y.mean()
    power = float(np.clip(-((x - x0) @ (y - y0)) / ((x - x0) @ (x - x0)), 0, STEEPEST))

    def at(images: float) -> float:
        return float(np.exp(y0 - power * (np.log(images) - x0)))

    return at(n) - at(2 * n)


def learn_curve(
    features: NDArray[np.float32],
    labels: Rows,
    judging: Judging,
    head: Head,
    classes: int,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Curve | None:
    """Errors by the number of images; None where parts of them cannot be learnt from.

    Args:
        features, labels: of the photos that are learnt from, as `judging` has them.
        judging: their groups and folds.
        head: solved on all of them, whose penalty is tried again, and stronger ones.
        advance: called after each head of PIECES.
    """
    judged = judging.folds >= 0
    if judged.sum() < LEAST:
        return None
    quarter = stratified_folds(labels, judging.groups, PARTS, 0)
    errors, sizes = [], []
    for parts in (1, 2):
        wrong, times, learnt = np.zeros(len(labels)), np.zeros(len(labels)), []
        for taken in combinations(range(PARTS), parts):
            rows = np.flatnonzero(np.isin(quarter, taken))
            others = np.flatnonzero(~np.isin(quarter, taken))
            solved = solve_part(features, labels, judging.groups, rows, head, classes, threads)
            advance()
            if solved is None:
                break
            wrong[others] += answers(solved, features[others]) != labels[others]
            times[others] += 1
            learnt.append(len(rows))
        else:
            errors.append((wrong / times)[judged])
            sizes.append(float(np.mean(learnt)))
    if not errors:
        return None
    errors.append((head.out_of_fold.argmax(axis=1) != labels[judged]).astype(np.float64))
    sizes.append(len(labels) * (1 - 1 / (judging.folds.max() + 1)))
    curve = Curve(
        np.array(sizes),
        np.stack(errors),
        labels[judged],
        judging.groups[judged],
        len(labels),
        None,
    )
    return with_occasions(curve, features, labels, judging, head, classes, threads)


def solve_part(
    features: NDArray[np.float32],
    labels: Rows,
    groups: Rows,
    rows: Rows,
    head: Head,
    classes: int,
    threads: int,
) -> Head | None:
    """A head of some of the photos; None where nothing of them can be judged."""
    folds = judging_folds(labels[rows], groups[rows], 0)
    if (folds < 0).all():
        return None
    penalties = tuple(times * head.penalty for times in STRONGER)
    return fit_head(features[rows], labels[rows], folds, classes, threads, penalties=penalties)


def answers(head: Head, features: NDArray[np.float32]) -> Rows:
    """(n, width) -> (n,)"""
    return np.asarray((features @ head.weight.T + head.bias).argmax(axis=1))


def with_occasions(
    curve: Curve,
    features: NDArray[np.float32],
    labels: Rows,
    judging: Judging,
    head: Head,
    classes: int,
    threads: int,
) -> Curve:
    """The same, with what twice the photos of each group would bring, where groups have several."""
    thin = halved(judging.groups)
    if len(np.unique(judging.groups)) > 0.8 * len(labels):
        return curve
    judged, wrong = judging.folds >= 0, np.zeros(len(labels))
    learnt, of_all = [], []
    for fold in range(judging.folds.max() + 1):
        rows = np.flatnonzero((judging.folds != fold) & thin)
        others = np.flatnonzero(judging.folds == fold)
        solved = solve_part(features, labels, judging.groups, rows, head, classes, threads)
        if solved is None:
            return curve
        wrong[others] = answers(solved, features[others]) != labels[others]
        learnt.append(len(rows))
        of_all.append((judging.folds != fold).sum())
    sizes = np.array([np.mean(learnt), np.mean(of_all)])
    two = Curve(
        sizes,
        np.stack([wrong[judged], curve.errors[-1]]),
        curve.labels,
        curve.groups,
        curve.n,
        None,
    )
    return Curve(curve.sizes, curve.errors, curve.labels, curve.groups, curve.n, two.gain())


def halved(groups: Rows) -> NDArray[np.bool_]:
    """(N,), of each group half of its photos, rounded up.

    >>> int(halved(np.array([0, 0, 0, 1, 2, 2])).sum())
    4
    """
    order = np.random.default_rng(0).permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.arange(len(groups)) - np.repeat(first, counts)
    kept = np.zeros(len(groups), bool)
    kept[order] = place < np.repeat((counts + 1) // 2, counts)
    return kept
