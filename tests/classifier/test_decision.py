"""From logits to predictions, and the thresholds of labels."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from foveate.classifier.decision import LEAST, Decision, best_threshold, decide
from foveate.metrics import sigmoid, softmax


def test_one_class_of_all() -> None:
    logits, labels = np.array([[0.0, 2.0, 1.0]]), np.array([1])
    decision = decide(logits, labels)
    assert decision == Decision()
    np.testing.assert_allclose(decision.probabilities(logits), softmax(logits))
    assert decision.answers(decision.probabilities(logits)).tolist() == [[False, True, False]]
    assert (
        decision.summarise(decision.probabilities(logits), labels, ("a", "b", "c"))["accuracy"] == 1
    )


def test_each_label_by_its_threshold() -> None:
    decision = Decision((0.5, 0.2))
    logits = np.array([[0.1, -1.0], [-0.1, -2.0]])
    np.testing.assert_allclose(decision.probabilities(logits), sigmoid(logits))
    assert decision.answers(decision.probabilities(logits)).tolist() == [
        [True, True],
        [False, False],
    ]
    assert (
        decision.summarise(sigmoid(logits), np.array([[1, 1], [1, 0]]), ("a", "b"))["accuracy"]
        == 0.5
    )
    assert decide(logits, np.array([[1, 0], [0, 1]])).thresholds == tuple(
        best_threshold(p) for p in sigmoid(logits).T
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_threshold_is_expected_to_be_better(seed: int, share: float) -> None:
    """The mean F1 over labels that are drawn from the probabilities, at every threshold."""
    rng = np.random.default_rng(seed)
    p = sigmoid(np.log(share / (1 - share)) + 3 * rng.normal(size=300))
    drawn = (rng.random((400, 300)) < p).astype(np.int64)

    def mean_f1(threshold: float) -> float:
        given = p >= threshold
        return float((2 * (drawn & given).sum(axis=1) / (given.sum() + drawn.sum(axis=1))).mean())

    best = max(mean_f1(t) for t in np.linspace(0.01, 0.99, 99))
    assert mean_f1(best_threshold(p)) > best - 0.005 > mean_f1(0.9)


def test_half_of_the_f1_that_it_reaches() -> None:
    p = np.linspace(0, 1, 1000) ** 2
    threshold = best_threshold(p)
    drawn = (np.random.default_rng(0).random((100, 1000)) < p).astype(np.int64)
    reached = np.mean([f1_score(y, p >= threshold) for y in drawn])
    assert threshold == pytest.approx(reached / 2, abs=0.005)


def test_a_label_that_was_not_learnt_is_not_given_to_all() -> None:
    assert best_threshold(np.full(500, 0.02)) == LEAST
    assert best_threshold(np.zeros(0)) == LEAST
    assert best_threshold(np.ones(10)) == 0.5
