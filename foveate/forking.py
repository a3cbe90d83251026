"""torch's threads, which the child of a fork does not have: whoever waits for them there waits for
ever. Loaded with the package, so that no fork is missed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FORKED = False  # from a process that had imported torch


def note_fork() -> None:
    global FORKED
    FORKED = FORKED or "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=note_fork)


@contextmanager
def torch_threads(n: int | None = None) -> Iterator[None]:
    """So many cores for torch's operations, or as many as it has; afterwards as many as before.

    In the child of a fork it is one. So everything public that computes in torch stands in this, or
    is decorated with it.
    """
    n = 1 if FORKED else n
    if n is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
