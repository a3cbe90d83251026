"""A map of what decides is believed, a map of anything else is not."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from foveate.classifier.decision import Decision
from foveate.data.preprocess import Preprocess
from foveate.explanation.checks import (
    ALIKE,
    curves,
    likeness,
    places_of,
    rank_correlation,
    verdict,
)

SIDE = 28


class Corner:
    """An engine that sees how bright the upper left quarter of an image is."""

    batch = 4

    def run(self, batches: Any) -> Any:
        for (views,) in batches:
            bright = views[:, : SIDE // 2, : SIDE // 2].mean(axis=(1, 2, 3)) - 128
            yield np.stack([np.zeros(len(views)), bright / 12], axis=1).astype(np.float32)


@pytest.fixture
def classifier() -> Any:
    return SimpleNamespace(
        engine=Corner(),
        classes=("dark", "bright"),
        decision=Decision(),
        preprocess=Preprocess(SIDE, SIDE, mean=(0.5,) * 3, std=(0.5,) * 3),
        scaled=lambda logits: logits,
    )


def of_quarter(row: int, column: int) -> np.ndarray:
    values = np.zeros((4, 4), np.float32)
    values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    return values


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (0, 1)])
def test_only_the_quarter_that_decides_passes(classifier: Any, place: tuple[int, int]) -> None:
    pixels = np.full((SIDE, SIDE, 3), 192, np.uint8)
    found = curves(classifier, (pixels,), 1, (of_quarter(*place),))
    failed = verdict(found | {"randomisation": {"the head": 0.1}})
    assert (failed == "") == (place == (0, 0)), (found, failed)
    assert ("random map" in failed and "centre" in failed) == (place != (0, 0))


def test_a_map_that_stays_with_random_weights_fails(classifier: Any) -> None:
    figures = {"map": 0.9, "random": 0.5, "centre": 0.4}
    good = {"insertion": figures, "deletion": {"map": 0.1, "random": 0.5, "centre": 0.6}}
    assert verdict(good | {"randomisation": {"the head": ALIKE - 0.01}}) == ""
    failed = verdict(good | {"randomisation": {"the head": 0.2, "the last stage": ALIKE}})
    assert "the last stage" in failed and "the head" not in failed


def test_likeness_is_the_mean_of_sizes() -> None:
    a = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert likeness([a], [[a], [-a]]) == pytest.approx(1)
    assert likeness([a, a], [[a, -a], [a, a]]) == pytest.approx((0 + 1) / 2)


def test_rank_correlation_beside_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 6, (2, 30))  # with equal numbers among them
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(np.zeros(5), np.arange(5)) == 0


def test_places_are_an_order_of_all_pixels() -> None:
    values = np.array([[3, 1], [2, 0]], np.float32)
    places = places_of(values, 10)
    assert sorted(places.ravel()) == pytest.approx(np.arange(100) / 100)
    assert places[0, 0] < places[9, 0] < places[9, 9]
    assert np.unique(places_of(np.zeros((2, 2), np.float32), 10)).size == 100
