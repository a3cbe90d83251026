"""Intervals hold what they say: on draws from a world whose figures are known."""

import numpy as np
import pytest

from foveate import metrics
from foveate.evaluation.intervals import draws, of_classes, of_labels, resampled


def world(rng: np.random.Generator, groups: int, sizes: tuple[int, ...] = (1,)) -> tuple:
    """Probabilities, labels and groups: calibrated, and alike within a group."""
    size = rng.choice(sizes, groups)
    group = np.repeat(np.arange(groups), size)
    logits = rng.normal(size=(groups, 3))[group] * 1.5 + rng.normal(size=(len(group), 3)) * 0.3
    p = metrics.softmax(logits)
    labels = (p.cumsum(axis=1) < rng.random(groups)[group][:, None]).sum(axis=1)
    return p, np.minimum(labels, 2), group


def macro_f1(p: np.ndarray, labels: np.ndarray) -> float:
    matrix = metrics.confusion_matrix(labels, p.argmax(axis=1), 3)
    return float(metrics.precision_recall_f1(matrix)[2].mean())


def test_draws_keep_groups_together() -> None:
    groups = np.repeat(np.arange(30), 3)
    some = [weights for weights, _ in zip(draws(groups), range(20), strict=False)]
    for weights in some:
        assert (weights.reshape(30, 3) == weights.reshape(30, 3)[:, :1]).all()
        assert weights.reshape(30, 3)[:, 0].sum() == 30
    again = next(draws(groups))
    assert np.array_equal(some[0], again)


def test_weights_are_copies_of_images() -> None:
    """What is computed with weights is what repeated images give."""
    rng = np.random.default_rng(0)
    p, labels, _ = world(rng, 60)
    weights = rng.integers(0, 3, 60)
    again = np.repeat(np.arange(60), weights)
    scores, there = p[:, 0], (labels == 0).astype(int)
    for figure in (metrics.area_under_roc, metrics.average_precision):
        assert figure(scores, there, weights) == pytest.approx(figure(scores[again], there[again]))


@pytest.mark.parametrize("sizes", [(1,), (1, 1, 6)], ids=["single", "bursts"])
def test_the_interval_of_macro_f1_covers_the_truth(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.evaluation.intervals.DRAWS", 200)
    rng = np.random.default_rng(1)
    many = world(rng, 40_000, sizes)
    true, held, plain, tries = macro_f1(*many[:2]), 0, 0, 60
    for _ in range(tries):
        p, labels, group = world(rng, 150, sizes)
        low, high = of_classes(p, labels, p.argmax(axis=1), group)["macro_f1_ci95"] or (1, 0)
        held += low <= true <= high
        alone = of_classes(p, labels, p.argmax(axis=1), np.arange(len(p)))["macro_f1_ci95"]
        plain += alone is not None and alone[0] <= true <= alone[1]
    assert held >= 0.88 * tries  # of 95 %, in 60 tries
    if len(sizes) > 1:
        assert plain < held - 3  # images of a burst taken for independent ones promise too much


def test_the_interval_of_ece_reaches_down_to_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """ECE itself is far from 0 on few images; its interval is not."""
    monkeypatch.setattr("foveate.evaluation.intervals.DRAWS", 200)
    rng = np.random.default_rng(2)
    lows, figures = [], []
    for _ in range(30):
        p, labels, group = world(rng, 200)
        lows.append((of_classes(p, labels, p.argmax(axis=1), group)["ece_ci95"] or [1])[0])
        figures.append(metrics.expected_calibration_error(p, labels))
    assert np.mean(figures) > 0.05 and np.mean(np.array(lows) < 0.03) > 0.8
    sharp = metrics.softmax(np.log(p) * 4)  # overconfident
    low, high = of_classes(sharp, labels, p.argmax(axis=1), group)["ece_ci95"] or (0, 0)
    assert low > 0.1 and high > low


def test_the_figure_itself_is_inside() -> None:
    rng = np.random.default_rng(3)
    p, labels, group = world(rng, 100)
    found = of_classes(p, labels, p.argmax(axis=1), group)["macro_f1_ci95"]
    assert found is not None and found[0] < macro_f1(p, labels) < found[1]
    marks = (rng.random(p.shape) < p).astype(np.int64)
    given = p >= 0.4
    several = of_labels(p, marks, given, group)
    whole = metrics.summarise_labels(p, given, marks, ("a", "b", "c"))
    assert several["macro_f1_ci95"] is not None
    assert several["macro_f1_ci95"][0] < whole["macro_f1"] < several["macro_f1_ci95"][1]


def test_too_few_groups_have_none() -> None:
    figures = resampled(lambda weights: {"mean": float(weights.mean())}, np.arange(7) % 7)
    assert figures == {"mean": None}
