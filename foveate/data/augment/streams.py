"""Random numbers that belong to (seed, epoch, image) alone, or to (seed, epoch, batch).

Philox computes its numbers from a key and a counter, so a start anywhere costs microseconds, and
two streams that differ in the key or in the upper words of the counter never meet. No global random
state is read or changed: the number of threads and ranks cannot change what is drawn.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SAMPLES, BATCHES = 0, 1  # kinds of streams; batches/order.py has another


def stream(seed: int, epoch: int, kind: int, number: int, part: int = 0) -> "np.random.Generator":
    """The numbers of one image, batch or order; `part` is 0, or the number of a part's name."""
    import numpy as np

    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, part, kind, number], np.uint64)  # the first word counts
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def generator(seed: int, epoch: int, index: int) -> "np.random.Generator":
    """The numbers of one image in one epoch. `index` is its row in the whole data set, not in a
    part of it."""
    return stream(seed, epoch, SAMPLES, index)


def batch_generator(seed: int, epoch: int, batch: int) -> "np.random.Generator":
    """The numbers of one batch in one epoch, for mixup and CutMix."""
    return stream(seed, epoch, BATCHES, batch)


class Numbers:
    """The random numbers of one image in one epoch.

    Each recorded part has its places in `uniforms` and `normals`, whether it is on or off, so that
    to switch one leaves the others as they were.

    Args:
        seed, epoch, index: whole numbers from 0, below 2^64.
        uniforms, normals: how many numbers of each kind the recorded parts take together.
    """

    __slots__ = ("identity", "normals", "rest", "uniforms")

    def __init__(self, seed: int, epoch: int, index: int, uniforms: int, normals: int):
        self.identity = seed, epoch, index
        self.rest = generator(seed, epoch, index)  # what is left to draw: the noise of erasing
        self.uniforms: list[float] = self.rest.random(uniforms).tolist()  # in [0, 1)
        self.normals: list[float] = self.rest.standard_normal(normals).tolist()

    def of(self, part: str) -> "np.random.Generator":
        """A stream of its own for a part that came later, by its name."""
        seed, epoch, index = self.identity
        return stream(seed, epoch, SAMPLES, index, named(part))


@cache
def named(part: str) -> int:
    """A name's number: not 0, which is the stream of the recorded parts.

    >>> named("blur") != named("posterize") != 0
    True
    """
    import hashlib

    return int.from_bytes(hashlib.sha256(part.encode()).digest()[:8]) | 1


def symmetric(u: float, most: float) -> float:
    """A number in [0, 1) -> uniform from -most to most."""
    return most * (2 * u - 1)
