"""Two classifiers on the same images; and what mistakes cost."""

from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from foveate.classifier.decision import Decision
from foveate.errors import DataError
from foveate.evaluation.costs import read_costs, weigh
from foveate.evaluation.pairs import compare, needed

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals have tests of their own."""
    monkeypatch.setattr("foveate.evaluation.intervals.DRAWS", 50)


def pair(rng: np.random.Generator, n: int, gain: float) -> tuple:
    right = rng.random(n) < 0.8 + gain
    other = np.where(rng.random(n) < 0.7, right, rng.random(n) < 0.8)
    losses = np.stack([np.where(x, 0.1, 2.0) for x in (right, other)])
    return right, other.astype(bool), losses, np.arange(n)


def test_a_better_one_is_better_and_the_other_way_round() -> None:
    right, other, losses, groups = pair(np.random.default_rng(0), 3000, 0.1)
    found = compare(right, other, losses, groups)
    assert found["verdict"] == "better" and found["p"] < 0.001
    low, high = found["difference_ci95"]
    assert 0 < low < found["difference"] < high
    assert found["log_loss_difference_ci95"][1] < 0
    assert found["newly_right"] - found["newly_wrong"] == round(3000 * found["difference"])
    back = compare(other, right, losses[::-1], groups)
    assert back["verdict"] == "worse" and back["difference"] == -found["difference"]


def test_chance_is_not_distinguishable() -> None:
    rng = np.random.default_rng(1)
    verdicts = [compare(*pair(rng, 200, 0.0))["verdict"] for _ in range(40)]
    assert verdicts.count("not distinguishable") >= 35


def test_as_many_images_as_are_said_to_be_needed_show_the_difference() -> None:
    rng = np.random.default_rng(2)
    right, other, *_ = pair(rng, 100_000, 0.03)  # of which the difference is 2.1 points
    n = needed(right.astype(int) - other, 100_000)
    assert n is not None
    found = [compare(*pair(rng, n, 0.03))["verdict"] == "better" for _ in range(60)]
    assert 0.65 <= np.mean(found) <= 0.93  # of 80 %
    assert needed(np.zeros(50), 50) is None


def test_the_test_is_mcnemars_of_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    right, other, losses, groups = pair(np.random.default_rng(3), 150, 0.05)
    table = [[int((a & b).sum()) for b in (other, ~other)] for a in (right, ~right)]
    expected = tables.mcnemar(table, exact=True).pvalue
    assert compare(right, other, losses, groups)["p"] == pytest.approx(expected)


def table(folder: Path, text: str) -> Path:
    (folder / "costs.csv").write_text(text, encoding="utf-8")
    return folder / "costs.csv"


def test_a_table_in_any_order(tmp_path: Path) -> None:
    path = table(tmp_path, "true,dog,cat\ndog,0,5\n\ncat,1,0\n")
    assert read_costs(path, CLASSES) == ((0.0, 1.0), (5.0, 0.0))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty",)),
        ("true,cat\ncat,0\ndog,1\n", ("lacks", "column", "'dog'")),
        ("true,cat,dog\ncat,0,1\n", ("lacks", "row", "'dog'")),
        ("true,cat,dog,bird\ncat,0,1,1\ndog,1,0,1\n", ("column", "'bird'")),
        ("true,cat,dog\ncat,0,1\ndog,1,0\ndog,1,0\n", ("twice", "row", "'dog'")),
        ("true,cat,dog\ncat,0,dear\ndog,1,0\n", ("line 2", "'dear'", "number")),
        ("true,cat,dog\ncat,0\ndog,1,0\n", ("line 2", "''", "number")),
        ("true,cat,dog\ncat,0,inf\ndog,1,0\n", ("line 2", "number")),
        ("true,cat,dog\ncat,3,1\ndog,1,0\n", ("cat", "right answer")),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    with refused(DataError, *parts):
        read_costs(table(tmp_path, text), CLASSES)


def test_the_answers_that_cost_least_cost_less() -> None:
    rng = np.random.default_rng(4)
    p = rng.random(2000)
    probabilities = np.stack([p, 1 - p], axis=1)
    labels = (rng.random(2000) > p).astype(np.int64)
    costs = ((0.0, 1.0), (9.0, 0.0))  # a dog taken for a cat is dear
    found = weigh(costs, probabilities, labels, probabilities.argmax(axis=1), np.arange(2000))
    assert found["after"] < found["before"] / 2 and found["saved_ci95"][0] > 0
    assert found["saved"] == pytest.approx(found["before"] - found["after"])
    chosen = Decision(costs=costs).chosen(probabilities)
    assert np.array_equal(chosen == 0, p > 0.9) and found["changed"] == int(
        (chosen == 1).sum()
    ) - int((p <= 0.5).sum())
    assert np.trace(found["confusion"]) == round(found["accuracy"] * 2000)
