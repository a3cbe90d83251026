"""A gain that is expected, and how several of them are drawn towards nothing.

The best of several estimates is too good: it was chosen for its error, too. The true gains are
taken to be normal around 0, as far apart as the estimates are beyond their errors; each estimate is
then drawn towards 0 by as much as its error is large beside that (James and Stein, 1961; Efron and
Morris, "Data analysis using Stein's estimator", JASA 70, 1975).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NINE_TENTHS = 1.2816  # normal deviate, of an interval of 80 %
OF_95 = 1.96


@dataclass(frozen=True)
class Gain:
    """A gain of accuracy on new images.

    Args:
        mean: expected; a fraction.
        error: its standard error.
    """

    mean: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """80 %."""
        reach = NINE_TENTHS * self.error
        return self.mean - reach, self.mean + reach

    @classmethod
    def of_95(cls, mean: float, interval: tuple[float, float] | None) -> "Gain | None":
        """Of an interval of 95 %; None without one."""
        if interval is None:
            return None
        return cls(mean, max((interval[1] - interval[0]) / (2 * OF_95), 1e-6))


def shrunk(gains: Sequence[Gain]) -> list[Gain]:
    """Gains, each drawn towards 0.

    >>> [round(g.mean, 3) for g in shrunk([Gain(0.04, 0.005), Gain(0.01, 0.03)])]
    [0.039, 0.006]
    """
    if not gains:
        return []
    means, errors = (np.array([getattr(g, key) for g in gains]) for key in ("mean", "error"))
    precision = 1 / errors**2
    # by weights, so that one estimate of which nothing is known does not hide all others
    spread = float((precision * (means**2 - errors**2)).sum() / precision.sum())
    spread = max(spread, float(errors.min()) ** 2 / 4)  # something may always help a little
    keep = spread / (spread + errors**2)
    return [
        Gain(float(k * mean), float(np.sqrt(k) * error))
        for k, mean, error in zip(keep, means, errors, strict=True)
    ]
