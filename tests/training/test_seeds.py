"""Seeds of a step's random numbers."""

import torch

from foveate.training.trainer import seed_dropout


def test_dropout_draws_the_same_after_the_same_seed() -> None:
    drawn = []
    for seed in (7, 8, 7):
        with torch.random.fork_rng(devices=[]):
            seed_dropout(seed, torch.device("cpu"))
            drawn.append(torch.nn.functional.dropout(torch.ones(64)).tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_seeding_a_step_keeps_nothing() -> None:
    """`torch.manual_seed` without a GPU appends a stack trace to torch.cuda's queue at every call:
    a training of many steps fills the memory and slows down."""
    waiting = len(torch.cuda._queued_calls)
    with torch.random.fork_rng(devices=[]):
        for step in range(10):
            seed_dropout(step, torch.device("cpu"))
    assert len(torch.cuda._queued_calls) == waiting
