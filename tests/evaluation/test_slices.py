"""Slices: what differs is named, and chance is not."""

import numpy as np
import pytest

from foveate.evaluation.slices import (
    accuracy_by_slice,
    by_column,
    by_distance,
    chances,
    holm,
    thirds,
)


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.evaluation.slices.SHUFFLES", 999)


def test_a_slice_that_is_worse_is_named_and_the_others_are_not() -> None:
    rng = np.random.default_rng(5)
    camera = np.array(["old", "new"])[(rng.random(400) < 0.7).astype(int)]
    right = rng.random(400) < np.where(camera == "old", 0.6, 0.95)
    cities = rng.choice(["Ulm", "Bonn", "Köln"], 400).tolist()
    found = accuracy_by_slice(right, np.arange(400), {"camera": camera.tolist(), "city": cities})
    assert {(one["by"], one["value"]) for one in found if one["differs"]} == {
        ("camera", "old"),
        ("camera", "new"),
    }
    worst = found[0]
    assert worst["value"] == "old" and worst["accuracy"] < 0.7 < worst["others"]
    assert worst["n"] == int((camera == "old").sum())
    assert worst["accuracy_ci95"][0] < worst["accuracy"] < worst["accuracy_ci95"][1]


def test_of_many_slices_one_that_is_far_worse_is_named() -> None:
    """However few shuffles there are: beyond them the tail of the normal distribution says it."""
    rng = np.random.default_rng(6)
    codes = rng.integers(20, size=20_000)
    right = rng.random(20_000) < np.where(codes == 7, 0.5, 0.9)
    values = {"code": [f"c{c}" for c in codes]}
    values |= {name: [f"v{c}" for c in rng.integers(20, size=20_000)] for name in ("a", "b", "d")}
    found = accuracy_by_slice(right, np.arange(20_000), values)
    worse = [one for one in found if one["differs"] and one["accuracy"] < one["others"]]
    assert [(one["by"], one["value"]) for one in worse] == [("code", "c7")]


def test_chance_names_a_slice_in_one_of_twenty_evaluations() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(60):
        right = rng.random(200) < 0.85
        values = {name: rng.choice(list("abcd"), 200).tolist() for name in ("x", "y", "z")}
        false += any(one["differs"] for one in accuracy_by_slice(right, np.arange(200), values))
    assert false <= 7  # of 60, where 3 are to be expected


def test_bursts_are_no_evidence() -> None:
    """Forty groups of ten images, each wholly right or wrong, and lying in one slice: images taken
    for independent ones name a difference nearly always."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(40), 10)
    named, plain = 0, 0
    for _ in range(25):
        right = (rng.random(40) < 0.8)[group]
        inside = (rng.random(40) < 0.4)[group][None]
        named += chances(right, group, inside)[0] < 0.05
        plain += chances(right, np.arange(400), inside)[0] < 0.05
    assert named <= 4 and plain >= 10


def test_the_probability_is_that_of_fishers_exact_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    right, inside = rng.random(80) < 0.7, (rng.random((3, 80)) < 0.4)
    found = chances(right, np.arange(80), inside)
    for mask, p in zip(inside, found, strict=True):
        table = [
            [int((right & mask).sum()), int((~right & mask).sum())],
            [int((right & ~mask).sum()), int((~right & ~mask).sum())],
        ]
        # two-sided by the distance from the mean, as here; Fisher's orders by probability
        k = np.arange(81)
        law = stats.hypergeom(80, int(right.sum()), int(mask.sum()))
        far = np.abs(k - law.mean()) >= abs(table[0][0] - law.mean()) - 1e-9
        assert p == pytest.approx(float(law.pmf(k[far]).sum()), abs=0.02)


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(4)
    for n in (1, 2, 7, 30):
        p = (rng.random(n) ** 3).tolist()
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())


def test_columns() -> None:
    assert by_column(["a", "b", "a"]) == ["a", "b", "a"]
    assert by_column(["a", "a", ""]) is None
    assert by_column([f"text {i}" for i in range(30)]) is None
    numbers = by_column([str(i) for i in range(30)])
    assert numbers is not None and len({*numbers}) == 3 and numbers[0] == "up to 9"
    assert thirds(np.array([np.nan, np.nan])) == ["", ""]
    equal = thirds(np.full(30, 5.0))
    assert len({*equal}) == 1


def test_distance_is_in_thirds_too() -> None:
    found = by_distance([float(i) for i in range(30)])
    assert [found.count(name) for name in dict.fromkeys(found)] == [10, 10, 10]
    assert found[0].startswith("near") and found[-1].startswith("far")


def test_slices_that_are_too_small_are_left_out() -> None:
    right = np.ones(20, bool)
    assert accuracy_by_slice(right, np.arange(20), {"x": ["a"] * 15 + ["b"] * 5}) == []
    assert accuracy_by_slice(right, np.arange(20), {}) == []
