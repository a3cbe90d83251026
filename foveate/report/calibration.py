"""Whether the probabilities of answers can be believed, from how sure they were and how often they
were right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

DRAWS = 1000  # of what chance alone would give
FEWEST = 30  # images, below which nothing is said

Verdict = Literal["believe", "too_sure", "too_unsure", "uneven"]


class Bin(NamedTuple):
    """The images whose answer's probability is above `low` and at most `high`.

    Args:
        low, high: of the bin.
        n: images; at least 1.
        confidence: the mean probability.
        accuracy: the share that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How probabilities compare with being right.

    Args:
        bins: those that have images.
        error: the expected calibration error.
        chance: the error that probabilities as these stay below 95 times in 100 if they are exactly
            right: on few images it is never 0.
        confidence, accuracy: means over all images.
        n: images.
    """

    bins: tuple[Bin, ...]
    error: float
    chance: float
    confidence: float
    accuracy: float
    n: int

    @property
    def verdict(self) -> Verdict | None:
        """Whether they can be believed, or in which direction they err; None where images are too
        few to say."""
        if self.n < FEWEST:
            return None
        if self.error <= self.chance:
            return "believe"
        if abs(self.confidence - self.accuracy) < self.error / 2:
            return "uneven"
        return "too_sure" if self.confidence > self.accuracy else "too_unsure"


def calibrate(found: Sequence[dict[str, Any]] | None) -> Calibration | None:
    """The calibration of answers; None where there are none.

    Args:
        found: what `metrics.reliability` returns.

    >>> one = {"low": 0.8, "high": 1.0, "n": 100, "confidence": 0.9, "accuracy": 0.5}
    >>> calibrated = calibrate([one])
    >>> round(calibrated.error, 3), calibrated.verdict
    (0.4, 'too_sure')
    """
    if not found:
        return None
    bins = tuple(Bin(*(one[key] for key in Bin._fields)) for one in found)
    n = np.array([b.n for b in bins])
    sure, right = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    total = n.sum()
    # a bin's answers are right independently of one another, each with the mean probability
    spread = np.sqrt(n * sure * (1 - sure))
    drawn = np.abs(np.random.default_rng(0).normal(size=(DRAWS, len(bins))) * spread).sum(axis=1)
    return Calibration(
        bins=bins,
        error=float((n * np.abs(right - sure)).sum() / total),
        chance=float(np.quantile(drawn, 0.95) / total),
        confidence=float((n * sure).sum() / total),
        accuracy=float((n * right).sum() / total),
        n=int(total),
    )
