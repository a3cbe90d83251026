"""Stratified folds that keep groups together."""

import math

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import option
from foveate.data.dataset import Dataset, listed
from foveate.errors import DataError

FOLDS = 5
MOST_FOLDS = 10  # where a class has fewer groups than FOLDS
TWENTIETHS = 20  # folds of which `hold_out` composes its parts


def stratified_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Assign images to folds so that each fold has its share of every class and groups stay whole.

    Groups are assigned in random order, the large ones first, each to the fold that has fewest
    images of the group's classes, where an image of a rare class counts for more. With groups of
    one this is plain stratification: class counts of two folds differ by at most one. Images with
    several labels are assigned by `label_folds`.

    Args:
        labels: (N,), integers from 0; or (N, classes), 0 or 1.
        groups: (N,), any integers; images with the same number stay together.
        folds: number of folds.
        seed: of the random order.

    Returns:
        (N,), the fold of each image, in [0, folds).
    """
    if labels.ndim == 2:
        return label_folds(labels, groups, folds, seed)
    rng = np.random.default_rng(seed)
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    n_classes = int(labels.max()) + 1
    weight = 1 / np.maximum(np.bincount(labels), 1)  # of a class: the rarer, the more
    # images of each class in each fold so far
    filled = np.zeros((folds, n_classes), dtype=np.int64)
    chosen = np.full(len(labels), -1, dtype=np.int64)

    large = rng.permutation(np.flatnonzero(size > 1))
    for g in large[np.argsort(-size[large], kind="stable")]:
        members = np.flatnonzero(group == g)
        counts = np.bincount(labels[members], minlength=n_classes)
        # the second term prefers the smaller fold where the first is (nearly) equal
        fold = int(np.argmin(filled @ (weight * counts) + filled.sum(axis=1) / (len(labels) + 1)))
        chosen[members] = fold
        filled[fold] += counts

    for c in range(n_classes):
        singles = rng.permutation(np.flatnonzero((labels == c) & (chosen < 0)))
        # Each fold has places for class c, numbered from filled[fold, c] up. The lowest places are
        # taken first; among equal ones that of the fold with fewest images in all.
        height = (filled[:, c] + np.arange(len(singles))[:, None]).ravel()
        tie = np.tile(filled.sum(axis=1), len(singles))
        assigned = np.lexsort((tie, height))[: len(singles)] % folds
        chosen[singles] = assigned
        filled[:, c] += np.bincount(assigned, minlength=folds)
    return chosen


def judging_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The fold of each image, and -1 of each that is learnt from in every fold and never judged.

    A class whose images are all of one group cannot be judged: a head that was solved without the
    group does not know the class. It stays as a rival of the others.

    Args:
        labels, groups, seed: as for `stratified_folds`.

    Returns:
        (N,), folds from 0 that are in use; all -1 where nothing can be judged.
    """
    folds = np.full(len(labels), -1)
    if labels.ndim == 2:
        if len(np.unique(groups)) < 2:
            return folds
        chosen = stratified_folds(labels, groups, FOLDS, seed)
        return np.unique(chosen, return_inverse=True)[1]
    number = {c: len(np.unique(groups[labels == c])) for c in np.unique(labels).tolist()}
    alone = [c for c, n in number.items() if n < 2]
    judged = ~np.isin(groups, groups[np.isin(labels, alone)])
    if not judged.any():
        return folds
    fewest = min(n for n in number.values() if n > 1)
    chosen = stratified_folds(
        labels[judged], groups[judged], FOLDS if fewest >= FOLDS else MOST_FOLDS, seed
    )
    folds[judged] = np.unique(chosen, return_inverse=True)[1]
    return folds if folds.max() > 0 else np.full(len(labels), -1)


def check_spread(
    labels: NDArray[np.int64], groups: NDArray[np.int64], classes: tuple[str, ...]
) -> None:
    """DataError unless each class is in two groups: one to train on and one to validate on.

    It is for the groups that a table gives. With several labels an image, unless there are two
    groups at all. Arguments as for `stratified_folds`.
    """
    if labels.ndim == 2:
        lacking = list(classes) if len(np.unique(groups)) < 2 else []
    else:
        lacking = [classes[c] for c in np.unique(labels) if len(np.unique(groups[labels == c])) < 2]
    if lacking:
        raise DataError(
            f"all images of {listed(lacking)} are of one group: one to learn and one to check are "
            "needed; add images, or correct the column group"
        )


def label_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """`stratified_folds` where an image has any number of labels: iterative stratification.

    The rarest label is assigned first, since common ones can still be balanced afterwards: each
    group that has it, the large ones first, goes to the fold with the fewest images of it, among
    equals with the fewest in all, and among those at random. Then the rarest label of the remaining
    groups. Groups without labels come last.

    Source: Sechidis, Tsoumakas, Vlahavas. "On the Stratification of Multi-Label Data". ECML PKDD
        2011.
    """
    rng = np.random.default_rng(seed)
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    counts = np.zeros((len(size), labels.shape[1]), dtype=np.int64)  # of each group
    np.add.at(counts, group, labels)
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    chosen = np.full(len(size), -1, dtype=np.int64)
    filled = np.zeros((folds, labels.shape[1]), dtype=np.int64)
    images = np.zeros(folds, dtype=np.int64)
    while (chosen < 0).any():
        left = counts[chosen < 0].sum(axis=0)
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1))) if left.any() else None
        due = chosen[order] < 0
        if rarest is not None:
            due &= counts[order, rarest] > 0
        for g in order[due]:
            first = images if rarest is None else filled[:, rarest]
            fold = int(np.lexsort((rng.random(folds), images, first))[0])
            chosen[g] = fold
            filled[fold] += counts[g]
            images[fold] += size[g]
    return chosen[group]


def part_of_fold(shares: tuple[float, ...]) -> NDArray[np.int64]:
    """(20,), the part that each fold belongs to; 0 is the remainder.

    A part's folds are spread out, because a class with few images is in neighbouring folds.

    >>> part_of_fold((0.15, 0.15)).tolist()
    [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0]
    """
    due = np.array([round(TWENTIETHS * share) for share in shares])
    owed = np.zeros_like(due)  # what each part has to come, in twentieths of a fold
    part = np.zeros(TWENTIETHS, dtype=np.int64)
    for fold in range(TWENTIETHS):
        owed += due
        most = int(np.argmax(owed))
        if 2 * owed[most] >= TWENTIETHS:
            part[fold] = most + 1
            owed[most] -= TWENTIETHS
    return part


def hold_out(
    labels: NDArray[np.int64], groups: NDArray[np.int64], shares: tuple[float, ...], seed: int
) -> NDArray[np.int64]:
    """Hold out parts of a data set: 0 is for training, 1 the first share, 2 the second, and so on.

    Parts consist of twentieths from `stratified_folds`. A class that would have no image left for
    training, which happens to one of two images, keeps all of its groups in part 0.

    Args:
        labels, groups, seed: as for `stratified_folds`.
        shares: fractions of the whole, rounded to twentieths: 0.15 is three of them.

    Returns:
        (N,), the part of each image.

    >>> hold_out(np.zeros(100, int), np.arange(100), (0.15, 0.15), seed=0).tolist().count(1)
    15
    """
    part = part_of_fold(shares)[stratified_folds(labels, groups, TWENTIETHS, seed)]
    classes = labels.T == 1 if labels.ndim == 2 else [labels == c for c in np.unique(labels)]
    for members in classes:
        if not (members & (part == 0)).any():
            part[np.isin(groups, groups[members])] = 0
    return part


HELD_OUT = 0.15  # of the images, for validation and for test each, where the data has no such split


ENOUGH = 5_000  # held out are enough; or ENOUGH_EACH of a class, if there are many classes


ENOUGH_EACH = 50


def with_splits(dataset: Dataset, seed: int) -> tuple[Dataset, list[str]]:
    """The dataset with a validation and a test split: its own, or held out; and what a person
    should know of that."""
    there = set(dataset.splits)
    wanted = [split for split in ("validation", "test") if split not in there]
    if not wanted:
        return dataset, []
    learn = np.flatnonzero([split == "train" for split in dataset.splits])
    groups = dataset.grouping()[learn]
    shares = (held_out(len(learn), len(dataset.classes)),) * len(wanted)
    part = hold_out(dataset.labels[learn], groups, shares, seed)
    splits = np.array(dataset.splits, dtype=object)
    for number, split in enumerate(wanted, start=1):
        splits[learn[part == number]] = split
        if not (part == number).any():
            raise DataError(
                f"{len(learn)} images in {len(np.unique(groups))} groups are too few to hold some "
                f"out for {split}; "
                f"a probe needs none: {option('recipe', 'probe')}"
            )
    counts = " and ".join(
        f"{int((part == n).sum())} for {split}" for n, split in enumerate(wanted, start=1)
    )
    return dataset.resplit(tuple(splits)), [f"held out of {len(learn)} images: {counts}"]


def held_out(images: int, classes: int) -> float:
    """The share held out for one split: in twentieths, as few as are enough.

    >>> held_out(1_000, 10), held_out(60_000, 10), held_out(1_000_000, 1_000)
    (0.15, 0.1, 0.05)
    """
    enough = max(ENOUGH, ENOUGH_EACH * classes)
    return min(HELD_OUT, math.ceil(20 * enough / images) / 20)
