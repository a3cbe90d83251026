import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from foveate.data.splits import hold_out, stratified_folds


def class_counts(labels: np.ndarray, fold_of: np.ndarray, folds: int) -> np.ndarray:
    """(folds, classes)"""
    return np.array(
        [np.bincount(labels[fold_of == f], minlength=labels.max() + 1) for f in range(folds)]
    )


def badness(labels: np.ndarray, fold_of: np.ndarray, folds: int) -> float:
    """Spread of each class over the folds, as scikit-learn measures it."""
    counts = class_counts(labels, fold_of, folds)
    return float((counts / np.bincount(labels)).std(axis=0).mean())


def sample(
    seed: int, n: int = 300, classes: int = 4, groups: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate(
        [np.arange(classes), rng.choice(classes, n - classes, p=rng.dirichlet(np.ones(classes)))]
    )
    return labels, rng.integers(0, groups, n)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_groups_are_never_torn(seed: int, folds: int) -> None:
    labels, groups = sample(seed)
    fold_of = stratified_folds(labels, groups, folds, seed)
    assert fold_of.shape == labels.shape and set(fold_of) == set(range(folds))
    assert all(len(set(fold_of[groups == g])) == 1 for g in groups)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("n,classes", [(100, 2), (101, 3), (23, 7), (1000, 10), (4, 2)])
def test_singletons_are_dealt_evenly(n: int, classes: int, folds: int, seed: int) -> None:
    labels = sample(seed, n, classes)[0]
    fold_of = stratified_folds(labels, np.arange(n), folds, seed)
    counts = class_counts(labels, fold_of, folds)
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= classes
    assert np.array_equal(counts.sum(axis=0), np.bincount(labels))


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
@pytest.mark.parametrize(
    "n,classes,groups", [(300, 4, 60), (300, 4, 150), (1000, 10, 100), (200, 2, 20)]
)
def test_as_even_as_scikit_learn(n: int, classes: int, groups: int) -> None:
    ours, theirs = [], []
    for seed in range(20):
        labels, group = sample(seed, n, classes, groups)
        reference = np.empty(n, dtype=int)
        for fold, (_, held_out) in enumerate(StratifiedGroupKFold(5).split(labels, labels, group)):
            reference[held_out] = fold
        for fold_of, found in [
            (stratified_folds(labels, group, 5, seed), ours),
            (reference, theirs),
        ]:
            found.append((badness(labels, fold_of, 5), np.ptp(np.bincount(fold_of, minlength=5))))
    spread, size = np.mean(ours, axis=0) / np.mean(theirs, axis=0)
    assert spread <= 1.05  # of the classes over the folds
    assert size <= 1  # of the largest fold and the smallest


def test_a_class_without_images() -> None:
    labels, groups = np.array([0, 0, 2, 2, 2, 2]), np.array([0, 0, 1, 1, 2, 3])
    fold_of = stratified_folds(labels, groups, 2, 0)
    assert class_counts(labels, fold_of, 2)[:, 2].tolist() == [2, 2]


def test_large_groups_are_evened_out_by_singletons() -> None:
    labels = np.zeros(50, dtype=np.int64)
    groups = np.concatenate([np.zeros(9), np.full(3, 1), np.arange(2, 40)]).astype(np.int64)
    sizes = np.bincount(stratified_folds(labels, groups, 5, 0), minlength=5)
    assert sizes.tolist() == [10] * 5


def test_the_seed_decides() -> None:
    labels, groups = sample(0)
    first = stratified_folds(labels, groups, 5, 1)
    assert np.array_equal(first, stratified_folds(labels, groups, 5, 1))
    assert not np.array_equal(first, stratified_folds(labels, groups, 5, 2))


def test_the_numbers_of_the_groups_do_not_matter() -> None:
    labels, groups = sample(0)
    assert np.array_equal(
        stratified_folds(labels, groups, 5, 3), stratified_folds(labels, groups * 7 - 1000, 5, 3)
    )


def test_arguments_are_left_alone() -> None:
    labels, groups = sample(0)
    kept = labels.copy(), groups.copy()
    stratified_folds(labels, groups, 5, 0)
    assert np.array_equal(labels, kept[0]) and np.array_equal(groups, kept[1])


def test_fewer_images_than_folds_and_one_group() -> None:
    assert len(set(stratified_folds(np.array([0, 1, 0]), np.arange(3), 5, 0))) == 3
    assert len(set(stratified_folds(np.array([0, 1, 0]), np.zeros(3, dtype=np.int64), 5, 0))) == 1


def labelled(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels from common to rare, some images with none; and groups of one to many."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, 5)) < [0.6, 0.3, 0.1, 0.05, 0.02]).astype(np.int64), rng.integers(
        0, n // 3, n
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folds", [2, 5, 20])
def test_labels_are_dealt_evenly(seed: int, folds: int) -> None:
    labels, _ = labelled(seed)
    fold_of = stratified_folds(labels, np.arange(len(labels)), folds, seed)
    counts = np.array([labels[fold_of == f].sum(axis=0) for f in range(folds)])
    due = labels.sum(axis=0) / folds
    assert (np.abs(counts - due) <= 3).all()
    assert (np.abs(counts[:, -1] - due[-1]) < 1).all()  # the rarest label is assigned first
    chance = np.random.default_rng(seed).integers(0, folds, len(labels))
    spread = np.array([labels[chance == f].sum(axis=0) for f in range(folds)]).std(axis=0)
    assert counts.std(axis=0).sum() < 0.6 * spread.sum()
    assert np.ptp(np.bincount(fold_of, minlength=folds)) <= 3 + len(labels) // (10 * folds)


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_labelled_images_are_not_torn(seed: int) -> None:
    labels, groups = labelled(seed)
    fold_of = stratified_folds(labels, groups, 5, seed)
    assert all(len(set(fold_of[groups == g])) == 1 for g in np.unique(groups))
    assert np.array_equal(fold_of, stratified_folds(labels, groups, 5, seed))
    part = hold_out(labels, groups, (0.15, 0.15), seed)
    assert all(len(set(part[groups == g])) == 1 for g in np.unique(groups))
    assert labels[part == 0].any(axis=0).all()


def test_a_label_of_two_images_is_left_to_learn_from() -> None:
    labels = np.zeros((100, 2), np.int64)
    labels[:50, 0] = labels[:2, 1] = 1
    for seed in range(20):
        part = hold_out(labels, np.arange(100), (0.15, 0.15), seed)
        assert labels[part == 0].any(axis=0).all() and set(part) == {0, 1, 2}
