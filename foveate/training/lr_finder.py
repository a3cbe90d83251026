"""The learning rate range test: what rates do to the loss, in a minute, before a training of an
hour.

Smith. "Cyclical Learning Rates for Training Neural Networks". WACV 2017, arXiv:1506.01186. The rate
rises from step to step by an equal factor; the loss falls slowly, then fast, then jumps. The rate
at which it falls fastest is a good highest rate of a schedule.
"""

import math
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from foveate.arguments import option
from foveate.errors import UsageError
from foveate.training.optim import set_rates
from foveate.training.trainer import Trainer

STEPS = 100
FROM, TO = 1e-3, 1e3  # factors on the configured rate
MEMORY = 0.9  # of the smoothed loss
JUMP = 3.0  # times the best smoothed loss is the end
LEAST = 12  # steps, at least, for a suggestion


@dataclass(frozen=True)
class RateTest:
    """What was tried.

    Args:
        rates: of the last stage, rising.
        losses: smoothed, after each.
        suggestion: the rate at which the loss fell fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def range_test(trainer: Trainer, steps: int = STEPS) -> RateTest:
    """Run the test with a trainer's network, which is of no use afterwards. All ranks see the same
    losses.

    Raises:
        UsageError: the loss jumped before a rate could be suggested: a rate a thousand times lower
            was too high.
    """
    with torch.random.fork_rng(devices=[]):
        return rising(trainer, steps)


def rising(trainer: Trainer, steps: int) -> RateTest:
    trainer.plan.apply(trainer.network, 0)
    module = trainer.module_of(0)
    trainer.progress.begin("rates", steps)
    factors = np.geomspace(FROM, TO, steps).tolist()
    epochs = range(math.ceil(steps / len(trainer.batches)))
    batches = chain.from_iterable(trainer.batches.epoch(epoch) for epoch in epochs)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step, (factor, batch) in enumerate(zip(factors, batches, strict=False), start=1):
        set_rates(trainer.optimizer, factor)
        loss = trainer.ranks.mean(trainer.gradients(module, batch)[0])
        norm = trainer.clipped()
        mean = MEMORY * mean + (1 - MEMORY) * loss
        smooth = mean / (1 - MEMORY**step)
        if not (math.isfinite(loss) and math.isfinite(norm)) or (
            losses and smooth > JUMP * min(losses)
        ):
            break
        trainer.optimizer.step()
        rates.append(factor * trainer.config.lr)
        losses.append(smooth)
        trainer.progress.advance()
    if len(losses) < LEAST:
        raise UsageError(
            f"the loss jumped at a rate of {trainer.config.lr * factors[len(losses)]:.2g}; start "
            f"lower, {option('lr')}"
        )
    return RateTest(tuple(rates), tuple(losses), suggest(rates, losses))


def suggest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest, by the logarithm of the rate; before the
    lowest loss."""
    end = max(LEAST // 2, int(np.argmin(losses)) + 1)
    slopes = np.gradient(np.array(losses[:end]), np.log(rates[:end]))
    return float(f"{rates[int(np.argmin(slopes))]:.1g}")
