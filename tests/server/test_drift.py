"""Alarms of drift: as seldom as is said where nothing has changed, and soon where something has."""

import numpy as np

from foveate.rejection import DISTANCE, Scale
from foveate.server.drift import FALSE_ALARMS, WINDOW, Drift


class Usual:
    """What of a rejection drift reads.

    Args:
        distances: (n,), of training images.
    """

    def __init__(self, distances: np.ndarray):
        self.scale = Scale.of(np.tile(distances, (3, 1)))


def alarms(usual: Usual, distances: np.ndarray) -> tuple[int, int]:
    """Windows, and those with an alarm."""
    drift = Drift(usual)
    for score in usual.scale.scores(np.tile(distances, (3, 1)))[DISTANCE]:
        drift.add(float(score))
    return drift.windows, drift.alarms


def test_false_alarms_are_as_seldom_as_is_said() -> None:
    rng = np.random.default_rng(0)
    windows = found = 0
    for _ in range(200):  # training sets, of a skewed distribution
        usual = Usual(rng.gamma(3, size=1000))
        n, alarmed = alarms(usual, rng.gamma(3, size=40 * WINDOW))
        windows, found = windows + n, found + alarmed
    assert windows == 8000
    assert found <= 3 * FALSE_ALARMS * windows


def test_images_that_are_farther_are_found() -> None:
    rng = np.random.default_rng(0)
    usual = Usual(rng.gamma(3, size=1000))
    assert alarms(usual, 1.4 * rng.gamma(3, size=10 * WINDOW)) == (10, 10)
    assert alarms(usual, rng.gamma(3, size=WINDOW - 1)) == (0, 0)


def test_nearer_ones_are_no_alarm() -> None:
    rng = np.random.default_rng(0)
    usual = Usual(rng.gamma(3, size=1000))
    assert alarms(usual, 0.5 * rng.gamma(3, size=WINDOW)) == (1, 0)
