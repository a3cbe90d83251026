"""How long an epoch takes, measured on its first steps: what loads the images, the step, and the
validation."""

import time
from itertools import chain, islice
from statistics import median

from foveate.training.cost import synchronise
from foveate.training.trainer import Trainer

STEPS = 5  # the first of which, in which memory is taken and programs are made, is not counted


def seconds_an_epoch(trainer: Trainer) -> float:
    """Of a trainer before its first step, which is spoilt by it."""
    trainer.plan.apply(trainer.network, 0)
    module = trainer.module_of(0)
    begun = time.perf_counter()
    trainer.validated()
    validation = time.perf_counter() - begun
    epochs = range(STEPS)  # of one batch each, at least
    batches = chain.from_iterable(trainer.batches.epoch(epoch) for epoch in epochs)
    trainer.progress.begin("pace", STEPS)
    taken: list[float] = []
    begun = time.perf_counter()
    for batch in islice(batches, STEPS):
        trainer.gradients(module, batch)
        trainer.clipped()
        trainer.optimizer.step()
        synchronise(trainer.device)
        now = time.perf_counter()
        taken.append(now - begun)
        begun = now
        trainer.progress.advance()
    return median(taken[1:]) * len(trainer.batches) + validation
