"""Distances of features, beside numpy and scikit-learn."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from foveate.distance import NEAREST, Moments, fit_space, nearest, nearest_of, squares

RNG = np.random.default_rng


def by_hand(rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    return ((rows[:, None].astype(np.float64) - references[None]) ** 2).sum(axis=2)


def test_squares_and_nearest() -> None:
    rows, references = (RNG(i).standard_normal((n, 7), np.float32) for i, n in ((0, 30), (1, 20)))
    expected = by_hand(rows, references)
    assert squares(rows, references) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    few = np.sort(expected, axis=1)[:, :NEAREST]
    assert nearest(rows, references) == pytest.approx(np.sqrt(few.mean(axis=1)), rel=1e-4)
    assert nearest(rows, references[:1]) == pytest.approx(np.sqrt(expected[:, 0]), rel=1e-4)


def test_infinite_ones_do_not_count() -> None:
    values = np.array([[4, np.inf, np.inf], [np.inf] * 3, [1, 1, 7]], np.float32)
    assert nearest_of(values).tolist() == pytest.approx([2, np.nan, np.sqrt(3)], nan_ok=True)


@pytest.mark.parametrize("n", [8, 200, 1500])
def test_reduced_features_keep_distances(n: int) -> None:
    features = RNG(0).standard_normal((n, 600), np.float32) * RNG(1).uniform(0.1, 9, 600)
    features = features.astype(np.float32)
    space = fit_space(features)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0) / np.sqrt(600)
    expected = np.sqrt(by_hand(scaled[:8], scaled[:8]))
    found = np.sqrt(by_hand(space.reduced(features[:8]), space.reduced(features[:8])))
    apart = ~np.eye(8, dtype=bool)
    assert found[apart] == pytest.approx(expected[apart], rel=0.35)
    assert found[apart].mean() == pytest.approx(expected[apart].mean(), rel=0.1)
    assert np.array_equal(fit_space(features).directions, space.directions)


def blobs(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    labels = rng.integers(3, size=n)
    centres = RNG(9).normal(0, 2, (3, 6))
    return (centres[labels] + rng.normal(0, 1, (n, 6))).astype(np.float32), labels


def test_the_discriminant_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.distance.SHRINK", 0.0)
    rows, labels = blobs(0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(rows, labels)
    ours = Moments.of(rows, labels, 3).gaussians().logits(rows)
    # theirs leaves out what all classes share
    apart, expected = (
        x - x.mean(axis=1, keepdims=True) for x in (ours, theirs.decision_function(rows))
    )
    assert apart == pytest.approx(expected, rel=0.02, abs=0.1)  # n or n - 3 in the covariance
    assert (ours.argmax(axis=1) == theirs.predict(rows)).all()


def test_mahalanobis_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.distance.SHRINK", 0.0)
    rows, labels = blobs(1)
    rest = rows - np.stack([rows[labels == c].mean(axis=0) for c in range(3)])[labels]
    inverse = np.linalg.inv(rest.T @ rest / (len(rows) - 3))
    away = rows[:5] - rows[labels == 1].mean(axis=0)
    found = Moments.of(rows, labels, 3).gaussians().distances(rows[:5])[:, 1]
    assert found == pytest.approx(np.einsum("nd,de,ne->n", away, inverse, away), rel=1e-3)


def test_moments_can_be_taken_off_again() -> None:
    rows, labels = blobs(2)
    kept = RNG(0).random(len(rows)) < 0.6
    kept &= labels != 2  # a class that is then gone
    all_, gone = Moments.of(rows, labels, 3), Moments.of(rows[~kept], labels[~kept], 3)
    left = all_.without(gone).gaussians().logits(rows)
    direct = Moments.of(rows[kept], labels[kept], 3).gaussians().logits(rows)
    assert left[:, :2] == pytest.approx(direct[:, :2], rel=1e-3, abs=1e-3)
    assert np.isneginf(left[:, 2]).all()
