"""Made predictions, of which it is known who is better: copies are not told apart, a planted better
one is found, and the accuracy of the best is what it will be on new images."""

from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from foveate.comparison.judgement import (
    SAME,
    Judged,
    best_of,
    differences,
    front,
    in_common,
    rivals_of,
)
from foveate.evaluation.pairs import NOISE, sign_flip
from foveate.evaluation.slices import holm

IMAGES, IN_A_GROUP = 300, 2


def made(right: NDArray[np.bool_], groups: Sequence[int] | None = None, seed: int = 0) -> Judged:
    """A classifier's results on images 0, 1, 2 ..."""
    n = len(right)
    return Judged(
        keys=tuple((seed, str(i), "cat") for i in range(n)),
        files=tuple(f"{i}.jpg" for i in range(n)),
        labels=("cat",) * n,
        answers=tuple("cat" if one else "dog" for one in right.tolist()),
        right=right,
        losses=np.where(right, 0.1, 2.3),
        groups=tuple(map(str, range(n) if groups is None else groups)),
    )


def classifiers(seed: int, accuracies: Sequence[float]) -> list[Judged]:
    """Of these accuracies on all images there are; some images, and groups, are hard for all."""
    rng = np.random.default_rng(seed)
    groups = np.arange(IMAGES) // IN_A_GROUP
    hard = 0.6 * rng.normal(size=IMAGES) + 0.8 * rng.normal(size=groups.max() + 1)[groups]
    own = rng.normal(size=(len(accuracies), IMAGES))
    scores = np.sqrt(0.6) * hard + np.sqrt(0.4) * own  # of variance 1
    limits = [NormalDist().inv_cdf(accuracy) for accuracy in accuracies]
    return [
        made(score < limit, groups.tolist()) for score, limit in zip(scores, limits, strict=True)
    ]


NAMES = [f"copy {i}" for i in range(10)]


def test_ten_copies_are_not_told_apart_and_the_best_of_them_is_not_flattered() -> None:
    named, plain, corrected = 0, [], []
    for seed in range(40):
        judged = classifiers(seed, [0.85] * 10)
        of_groups = [np.bincount(one.numbers, weights=one.right) for one in judged]
        chances = [sign_flip(a - b) for a, b in combinations(of_groups, 2)]
        named += min(holm(chances)) < NOISE
        if seed == 0:
            pairs = differences(NAMES, judged)
            assert sorted(pair["p"] for pair in pairs) == pytest.approx(sorted(chances))
            assert {pair["verdict"] for pair in pairs} == {SAME}
        best, correction = best_of(judged)
        plain.append(judged[best].right.mean())
        corrected.append(plain[-1] - correction)
        assert plain[-1] == max(one.right.mean() for one in judged)
    assert named <= 4  # 1 in 20 is allowed
    assert np.mean(plain) > 0.865  # the best of ten was lucky
    assert abs(np.mean(corrected) - 0.85) < 0.01


def test_ten_times_the_same_answers() -> None:
    judged = [classifiers(1, [0.8])[0]] * 10
    pairs = differences(NAMES, judged)
    assert [pair["p_corrected"] for pair in pairs] == [1.0] * 45
    assert {pair["verdict"] for pair in pairs} == {SAME} and pairs[0]["needed"] is None
    best, correction = best_of(judged)
    assert abs(correction) < 0.005
    assert sorted(rivals_of(NAMES[best], pairs)) == sorted({*NAMES} - {NAMES[best]})


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_better_network_is_found(seed: int) -> None:
    judged = classifiers(seed, [0.76] * 3 + [0.95] + [0.76] * 2)
    names = [f"n{i}" for i in range(6)]
    pairs = differences(names, judged)
    assert best_of(judged)[0] == 3
    assert rivals_of("n3", pairs) == []
    assert all(
        pair["verdict"] == ("better" if pair["first"] == "n3" else "worse")
        for pair in pairs
        if "n3" in (pair["first"], pair["second"])
    )


def test_probabilities_are_corrected_for_all_pairs() -> None:
    judged = classifiers(3, [0.7, 0.8, 0.85, 0.9])
    pairs = differences(["a", "b", "c", "d"], judged)
    assert len(pairs) == 6
    assert [pair["p_corrected"] for pair in pairs] == pytest.approx(
        holm([pair["p"] for pair in pairs])
    )
    assert pairs == sorted(pairs, key=lambda pair: pair["p_corrected"])


def test_what_belongs_together_is_one_witness() -> None:
    right, wrong = np.ones(40, bool), np.arange(40) >= 12
    alone = differences(["a", "b"], [made(right), made(wrong)])[0]
    groups = [0] * 12 + list(range(1, 29))
    together = differences(["a", "b"], [made(right, groups), made(wrong, groups)])[0]
    assert (alone["verdict"], together["verdict"]) == ("better", SAME)
    assert alone["difference"] == together["difference"] == pytest.approx(0.3)


def test_another_seed_is_no_new_image() -> None:
    """The same images, judged again, are no more evidence than once."""
    once = [made(np.ones(20, bool)), made(np.arange(20) >= 4)]
    twice = [
        Judged(
            one.keys + tuple((1, *key[1:]) for key in one.keys),
            one.files * 2,
            one.labels * 2,
            one.answers * 2,
            np.tile(one.right, 2),
            np.tile(one.losses, 2),
            one.groups * 2,
        )
        for one in once
    ]
    first, second = (differences(["a", "b"], judged)[0] for judged in (once, twice))
    assert first["p"] == second["p"] == pytest.approx(0.125)
    assert first["groups"] == second["groups"] == 20
    assert first["needed"] == second["needed"] > 20


def test_only_what_all_judged_is_compared_in_one_order() -> None:
    first = made(np.array([True, False, True, True]))
    second = made(np.array([False, True, True])).select([2, 0])
    a, b = in_common([first, second])
    assert a.keys == b.keys == ((0, "0", "cat"), (0, "2", "cat"))
    assert (a.right.tolist(), b.right.tolist()) == ([True, True], [False, True])


def test_the_front() -> None:
    assert front([0.9, 0.9, 0.8], [1.0, 2.0, 0.5]) == [True, False, True]
    assert front([0.9, 0.9], [1.0, 1.0]) == [True, True]  # neither is better
