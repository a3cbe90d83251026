"""Stratified folds that keep groups together."""

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import listed
from foveate.errors import DataError

TWENTY = 20  # folds to deal held-out parts from


def stratified_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Deal images into folds so that each fold has its share of every class and no group is torn.

    Groups are dealt in random order, the large ones first, each to the fold that has least of what
    the group brings, an image of a rare class counting for more.
    With groups of one this is plain stratification: class counts of two folds differ by at most
    one. Several labels an image are dealt by `label_folds`.

    Args:
        labels: (N,), integers from 0; or (N, classes), 0 or 1.
        groups: (N,), any integers; equal numbers stay together.
        folds: how many.
        seed: of the random order.

    Returns:
        (N,), the fold of each image, in [0, folds).
    """
    if labels.ndim == 2:
        return label_folds(labels, groups, folds, seed)
    rng = np.random.default_rng(seed)
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    n_classes = int(labels.max()) + 1
    weight = 1 / np.maximum(np.bincount(labels), 1)
    # images of each class in each fold so far
    filled = np.zeros((folds, n_classes), dtype=np.int64)
    chosen = np.full(len(labels), -1, dtype=np.int64)

    large = rng.permutation(np.flatnonzero(size > 1))
    for g in large[np.argsort(-size[large], kind="stable")]:
        members = np.flatnonzero(group == g)
        brings = np.bincount(labels[members], minlength=n_classes)
        fold = int(np.argmin(filled @ (weight * brings) + filled.sum(axis=1) / (len(labels) + 1)))
        chosen[members] = fold
        filled[fold] += brings

    for c in range(n_classes):
        singles = rng.permutation(np.flatnonzero((labels == c) & (chosen < 0)))
        # fold f can take its next images of class c at heights filled[f, c], filled[f, c] + 1, ...:
        # lowest first, and among equals the fold with fewest images in all
        height = (filled[:, c] + np.arange(len(singles))[:, None]).ravel()
        tie = np.tile(filled.sum(axis=1), len(singles))
        deal = np.lexsort((tie, height))[: len(singles)] % folds
        chosen[singles] = deal
        filled[:, c] += np.bincount(deal, minlength=folds)
    return chosen


def check_spread(
    labels: NDArray[np.int64], groups: NDArray[np.int64], classes: tuple[str, ...]
) -> None:
    """DataError unless each class is in two groups, so that it is learnt in every fold's absence;
    of several labels an image, unless there are two groups at all. Arguments as for
    `stratified_folds`."""
    if labels.ndim == 2:
        together = list(classes) if len(np.unique(groups)) < 2 else []
    else:
        together = [
            classes[c] for c in np.unique(labels) if len(np.unique(groups[labels == c])) < 2
        ]
    if together:
        raise DataError(
            f"all images of {listed(together)} are of one group, or copies of one image: one to "
            "learn and one to check are needed; add images, or correct the column group"
        )


def label_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """`stratified_folds` where an image has any number of labels: iterative stratification.

    The rarest label is dealt first, since the common ones leave room to make up for it: each group
    that has it, the large ones first, goes to the fold with the fewest images of it, among equals
    with the fewest in all, and among those by chance. Then the rarest of what is left. Groups
    without labels come last.

    Source: Sechidis, Tsoumakas, Vlahavas. "On the Stratification of Multi-Label Data". ECML PKDD
        2011.
    """
    rng = np.random.default_rng(seed)
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    brings = np.zeros((len(size), labels.shape[1]), dtype=np.int64)
    np.add.at(brings, group, labels)
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    chosen = np.full(len(size), -1, dtype=np.int64)
    filled, images = (
        np.zeros((folds, labels.shape[1]), dtype=np.int64),
        np.zeros(folds, dtype=np.int64),
    )
    while (chosen < 0).any():
        left = brings[chosen < 0].sum(axis=0)
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1))) if left.any() else None
        due = chosen[order] < 0
        if rarest is not None:
            due &= brings[order, rarest] > 0
        for g in order[due]:
            first = images if rarest is None else filled[:, rarest]
            fold = int(np.lexsort((rng.random(folds), images, first))[0])
            chosen[g] = fold
            filled[fold] += brings[g]
            images[fold] += size[g]
    return chosen[group]


def part_of_fold(shares: tuple[float, ...]) -> NDArray[np.int64]:
    """(20,), the part to which each fold goes. A small class lies in neighbouring folds, so a
    part's folds are spread.

    >>> part_of_fold((0.15, 0.15)).tolist()
    [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0]
    """
    due = np.array([round(TWENTY * share) for share in shares])
    owed = np.zeros_like(due)
    part = np.zeros(TWENTY, dtype=np.int64)
    for fold in range(TWENTY):
        owed += due
        most = int(np.argmax(owed))
        if 2 * owed[most] >= TWENTY:
            part[fold] = most + 1
            owed[most] -= TWENTY
    return part


def hold_out(
    labels: NDArray[np.int64], groups: NDArray[np.int64], shares: tuple[float, ...], seed: int
) -> NDArray[np.int64]:
    """Deal images into parts: 0 to learn from, 1 for the first share, 2 for the second, and so on.

    As `stratified_folds` deals them, twenty to the whole. A class that would have nothing left to
    learn from, as one of two images may, keeps all of its groups in part 0.

    Args:
        labels, groups, seed: as there.
        shares: parts of the whole, in twentieths: 0.15 is three of them.

    Returns:
        (N,), the part of each image.

    >>> hold_out(np.zeros(100, int), np.arange(100), (0.15, 0.15), seed=0).tolist().count(1)
    15
    """
    part = part_of_fold(shares)[stratified_folds(labels, groups, TWENTY, seed)]
    columns = (
        labels.T == 1 if labels.ndim == 2 else (labels == label for label in np.unique(labels))
    )
    for there in columns:
        if not (there & (part == 0)).any():
            part[np.isin(groups, groups[there])] = 0
    return part
