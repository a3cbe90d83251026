"""What is to be expected of images without labels, on features whose truth is known."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from foveate.data.splits import judging_folds
from foveate.heads import Head, fit_head
from foveate.metrics import sigmoid, softmax
from foveate.novelty import FEWEST, Relation, fit_relation, halved, logistic

RNG = np.random.default_rng
CLASSES, WIDTH = 5, 40


def drawn(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of five classes; a shift moves every image the same way and adds noise."""
    rng, fixed = RNG(seed), RNG(99)
    centres = fixed.normal(0, 1, (CLASSES, WIDTH))
    kinds = fixed.normal(0, 1.2, (CLASSES, 6, WIDTH))
    aside = fixed.normal(0, 1, WIDTH)
    labels = rng.integers(CLASSES, size=n)
    features = centres[labels] + kinds[labels, rng.integers(6, size=n)]
    features += rng.normal(0, 2.5, (n, WIDTH))
    features += shift * (aside + rng.normal(0, 3, (n, WIDTH)))
    return features.astype(np.float32), labels


def learnt(n: int = 900, threads: int = 1) -> tuple[Head, Relation | None]:
    features, labels = drawn(n, 0)
    groups = np.arange(n)
    folds = judging_folds(labels, groups, 0)
    head = fit_head(features, labels, folds, CLASSES)
    args = features, groups, labels, groups, folds, head.out_of_fold, CLASSES, threads
    return head, fit_relation(*args)


@pytest.fixture(scope="module")
def known() -> tuple[Head, Relation]:
    head, relation = learnt()
    assert relation is not None
    return head, relation


def answered(head: Head, features: np.ndarray) -> np.ndarray:
    return features @ head.weight.T + head.bias


def test_images_like_those_of_training(known: tuple[Head, Relation]) -> None:
    head, relation = known
    features, labels = drawn(2000, 1)
    logits = answered(head, features)
    truth = (logits.argmax(axis=1) == labels).mean()
    found = relation.expect(features, logits, np.arange(2000))
    assert found.accuracy == pytest.approx(truth, abs=0.03) and not found.why
    assert found.interval is not None and found.interval[0] < truth < found.interval[1]
    assert abs(found.excess) < 0.03 and found.unlike < 0.03 and found.groups == 2000


def test_images_that_are_farther(known: tuple[Head, Relation]) -> None:
    """What is expected falls with the truth, and further than confidence does."""
    head, relation = known
    features, labels = drawn(2000, 2, shift=0.6)
    logits = answered(head, features)
    truth = (logits.argmax(axis=1) == labels).mean()
    confidence = softmax(logits).max(axis=1).mean()
    found = relation.expect(features, logits, np.arange(2000))
    assert found.accuracy is not None and found.interval is not None
    assert abs(found.accuracy - truth) < abs(confidence - truth)
    assert found.excess > 0.05 and found.interval[0] < truth < found.interval[1]


def test_nothing_is_said_of_what_is_unlike_all(known: tuple[Head, Relation]) -> None:
    head, relation = known
    features = RNG(3).normal(20, 5, (50, WIDTH)).astype(np.float32)
    found = relation.expect(features, answered(head, features), np.arange(50))
    assert found.accuracy is None and found.interval is None
    assert found.unlike == 1 and "unlike" in found.why


def test_the_interval_counts_groups(known: tuple[Head, Relation]) -> None:
    head, relation = known
    features = np.repeat(drawn(10, 4)[0], 20, axis=0)
    logits = answered(head, features)
    alone = relation.expect(features, logits, np.arange(200))
    bursts = relation.expect(features, logits, np.arange(200) // 20)
    assert alone.accuracy == bursts.accuracy and bursts.groups == 10
    assert alone.interval is not None and bursts.interval is not None
    assert np.ptp(bursts.interval) > 1.3 * np.ptp(alone.interval)


def test_it_is_the_same_for_any_number_of_threads(known: tuple[Head, Relation]) -> None:
    _, again = learnt(threads=3)
    assert again is not None
    for name, tensor in known[1].tensors().items():
        assert np.array_equal(tensor, again.tensors()[name]), name
    assert known[1].coefficients[1] > 0 >= known[1].coefficients[2]
    assert 1 <= known[1].sharpness <= 3


def test_too_few_images_say_nothing() -> None:
    assert learnt(FEWEST - 1)[1] is None
    relation = learnt(FEWEST)[1]
    assert relation is not None and np.isfinite(relation.coefficients).all()


def test_of_many_images_some_are_looked_at(
    known: tuple[Head, Relation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.novelty.MOST", 400)
    monkeypatch.setattr("foveate.novelty.REFERENCES", 100)
    head, relation = learnt()
    assert relation is not None and relation.references.shape[0] == 100
    features, labels = drawn(2000, 1)
    logits = answered(head, features)
    found = relation.expect(features, logits, np.arange(2000))
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).mean(), abs=0.05)


def test_classes_told_apart_without_error() -> None:
    labels = RNG(0).integers(3, size=300)
    features = (50 * np.eye(3)[labels] + RNG(1).normal(0, 1, (300, 3))).astype(np.float32)
    groups = np.arange(300)
    folds = judging_folds(labels, groups, 0)
    head = fit_head(features, labels, folds, 3)
    relation = fit_relation(features, groups, labels, groups, folds, head.out_of_fold, 3)
    assert relation is not None
    found = relation.expect(features, answered(head, features), groups)
    assert found.accuracy is not None and found.accuracy > 0.98 and found.interval is not None


def test_classes_that_cannot_be_judged() -> None:
    """Images of fold -1 are learnt from and never judged."""
    features, labels = drawn(600, 0)
    groups = np.where(labels == 0, 10_000, np.arange(600))
    folds = judging_folds(labels, groups, 0)
    assert (folds[labels == 0] == -1).all()
    head = fit_head(features, labels, folds, CLASSES)
    rows = np.arange(600)
    relation = fit_relation(features, rows, labels, groups, folds, head.out_of_fold, CLASSES)
    assert relation is not None and np.isfinite(relation.usual).all()


def test_hardly_more_images_than_classes() -> None:
    labels = np.arange(160) % 80
    features = (3 * RNG(0).normal(0, 1, (80, 90))[labels]).astype(np.float32)
    features += RNG(1).normal(0, 1, features.shape).astype(np.float32)
    groups = np.arange(160)
    folds = judging_folds(labels, groups, 0)
    head = fit_head(features, labels, folds, 80)
    relation = fit_relation(features, groups, labels, groups, folds, head.out_of_fold, 80)
    assert relation is not None and relation.sharpness >= 1
    assert np.isfinite(relation.coefficients).all() and np.isfinite(relation.edge)


# Parts


def test_the_logistic_regression_is_scikit_learns() -> None:
    x = np.concatenate([np.ones((400, 1)), RNG(0).normal(0, 1, (400, 2))], axis=1)
    right = RNG(1).random(400) < sigmoid(x @ np.array([0.5, 1.5, -2.0]))
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(x, right)
    assert logistic(x, right) == pytest.approx(theirs.coef_[0], abs=0.01)
    few = slice(0, 6)
    assert logistic(x[few], right[few], effect=-3.0)[2] == pytest.approx(-3, abs=1.5)


def test_halves_keep_groups_whole() -> None:
    rows = RNG(0).normal(0, 1, (200, 4)).astype(np.float32)
    rows[:, 1] *= 5
    groups = np.arange(200) // 2
    part = halved(rows, groups, np.zeros(200, np.int64))
    assert np.bincount(part).tolist() == [100, 100]
    assert (part[::2] == part[1::2]).all()
    means = rows[:, 1].reshape(-1, 2).mean(axis=1), part[::2]
    assert abs(np.corrcoef(*means)[0, 1]) > 0.7  # along the axis of the most variance
    assert sorted(np.unique(halved(rows, groups, part))) == [0, 1, 2, 3]


# The file


def test_the_tensors_are_the_relation(known: tuple[Head, Relation]) -> None:
    head, relation = known
    again = Relation.of(relation.tensors(), WIDTH, CLASSES)
    features, _ = drawn(300, 5, shift=0.3)
    logits = answered(head, features)
    first, second = (r.expect(features, logits, np.arange(300)) for r in (relation, again))
    assert first.accuracy == pytest.approx(second.accuracy, abs=2e-3)
    assert second.interval == pytest.approx(first.interval, abs=2e-3)


def test_a_feature_that_hardly_varies() -> None:
    """Standardised, it is multiplied by more than half precision holds."""
    features, labels = drawn(300, 0)
    features[:, 0] = 1e-3 + 2e-9 * features[:, 0]
    rows = np.arange(300)
    folds = judging_folds(labels, rows, 0)
    head = fit_head(features, labels, folds, CLASSES)
    relation = fit_relation(features, rows, labels, rows, folds, head.out_of_fold, CLASSES)
    assert relation is not None and np.abs(relation.space.directions).max() > 1e5
    again = Relation.of(relation.tensors(), WIDTH, CLASSES)
    assert np.array_equal(again.space.directions, relation.space.directions)
    found = [r.expect(features, answered(head, features), rows) for r in (relation, again)]
    assert found[0].accuracy == pytest.approx(found[1].accuracy, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("directions", np.zeros((3, 3), np.float16)),
        ("directions", np.zeros(3, np.float16)),
        ("references", np.zeros((0, 168), np.float16)),
        ("usual", np.zeros(2)),
        ("coefficients", np.array([0, np.nan, 0])),
        ("covariance", np.zeros(9)),
        ("edge", None),
    ],
)
def test_impossible_tensors(name: str, value: Any, known: tuple[Head, Relation]) -> None:
    tensors = known[1].tensors()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(ValueError):
        Relation.of(tensors, WIDTH, CLASSES)
