"""The honest estimate: choices are paid for, intervals count groups."""

import numpy as np
import pytest

from foveate.audit.estimate import FEW_GROUPS, estimate_accuracy
from foveate.metrics import wilson_interval

Answers = tuple[np.ndarray, np.ndarray]


def answers(groups: int, size: float, rate: float, alike: float, seed: int) -> Answers:
    """Whether images are answered rightly, those of a group alike (beta-binomial), and their
    groups."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.poisson(size - 1, groups)
    of_group = rng.beta(rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1), groups)
    group = np.repeat(np.arange(groups), sizes)
    return rng.random(len(group)) < of_group[group], group


@pytest.mark.parametrize(
    ("groups", "size", "rate", "alike"),
    [(400, 1, 0.9, 0.3), (200, 4, 0.9, 0.5), (60, 8, 0.85, 0.5), (12, 8, 0.9, 0.3)],
)
def test_the_interval_holds_the_truth(groups: int, size: float, rate: float, alike: float) -> None:
    held = 0
    for seed in range(100):
        right, group = answers(groups, size, rate, alike, seed)
        found = estimate_accuracy(right[None], 1.0 - right[None], group, seed)
        assert found.interval and found.accuracy == right.mean() and found.groups == groups
        held += found.interval[0] <= rate <= found.interval[1]
    assert 84 <= held <= 100


def test_the_choice_among_many_is_paid_for() -> None:
    """Labels that nothing can know, by groups, and fifty candidates."""
    corrected, plain = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(60), 5)
        labels = rng.integers(0, 2, 60)[group]
        guesses = rng.random((50, 60))[:, group] / 2 + rng.random((50, 300)) / 2
        losses = -np.log(np.where(labels == 1, guesses, 1 - guesses))
        found = estimate_accuracy((guesses > 0.5) == labels, losses, group, seed)
        corrected.append(found.accuracy)
        plain.append(found.accuracy + found.correction)
    assert abs(np.mean(corrected) - 0.5) < 0.02 < 0.06 < np.mean(plain) - 0.5


def test_without_errors_a_group_is_one_answer() -> None:
    right = np.ones((1, 200), dtype=bool)
    found = estimate_accuracy(right, 1.0 - right, np.arange(200) // 10)
    assert found.interval == wilson_interval(20, 20) and found.interval[0] == pytest.approx(
        0.839, abs=1e-3
    )


def test_too_few_groups_have_no_interval() -> None:
    right = np.arange(70) % 10 > 0
    few = estimate_accuracy(right[None], 1.0 - right[None], np.arange(70) % (FEW_GROUPS - 1))
    assert few.interval is None and few.accuracy == 0.9
    assert estimate_accuracy(right[None], 1.0 - right[None], np.arange(70) % FEW_GROUPS).interval


def test_numbers_and_order_of_groups_do_not_matter() -> None:
    right, group = answers(50, 4, 0.8, 0.5, 3)
    order = np.random.default_rng(0).permutation(len(right))
    for other in (group * 7 - 3, group):
        found = estimate_accuracy(right[None], 1.0 - right[None], other)
        assert found == estimate_accuracy(
            right[None][:, order], 1.0 - right[None][:, order], other[order]
        )


@pytest.mark.parametrize("shape", [(0, 3), (1, 0), (3,)])
def test_nothing_to_judge(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="candidates"):
        estimate_accuracy(np.zeros(shape, bool), np.zeros(shape), np.zeros(3, np.int64))


def test_a_candidate_that_was_preferred_has_its_own_accuracy() -> None:
    """A rival has a lower loss, and the chosen one costs less to run."""
    rng = np.random.default_rng(0)
    right = np.stack([rng.random(400) < 0.9, rng.random(400) < 0.96])
    losses, groups = 1.0 - right, np.arange(400)
    found = estimate_accuracy(right, losses, groups, chosen=0)
    assert found.correction == estimate_accuracy(right, losses, groups).correction
    assert found.accuracy == pytest.approx(right[0].mean() - found.correction)
    assert found.interval is not None and found.interval[0] < found.accuracy < found.interval[1]
