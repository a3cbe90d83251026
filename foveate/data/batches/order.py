"""Which images a batch has, and how they are mixed: drawn from (seed, epoch) alone, so every rank
draws the same."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from foveate.data.augment import Augment
from foveate.data.augment.mix import Mix, Mixture, mixed_targets
from foveate.data.augment.streams import batch_generator, stream
from foveate.data.dataset import Dataset

Rows = NDArray[np.int64]

ORDERS = 2  # a stream of random numbers beside those of images and of batches (streams.py)


class Plan(NamedTuple):
    """What one rank makes in one step. Behind its own images come partners that are of another
    rank's part."""

    number: int  # of the batch in its epoch
    total: int  # images of the batch on all ranks
    own: int  # images of this rank
    rows: Rows  # (own + partners,)
    samples: Rows  # whose random numbers: the row, or beyond all rows when it comes again
    # (own,), int64; (own, classes): int64 where images have labels, float32 where they are mixed
    targets: Tensor
    mixture: Mixture | None = None  # of the own images; its partners are places in `rows`


class Order(NamedTuple):
    """The images of an epoch, over all ranks."""

    rows: Rows
    samples: Rows


def part(n: int, parts: int, i: int) -> slice:
    """Part i of n things: contiguous, and as large as the others up to one.

    >>> [part(7, 3, i) for i in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(n * i // parts, n * (i + 1) // parts)


def draw_order(
    dataset: Dataset, rows: Rows, sampling: Literal["all", "balanced"], seed: int, epoch: int
) -> Order:
    """The order of an epoch. "balanced" goes through each class in rounds, each in a new order,
    until the class has its share."""
    rng = stream(seed, epoch, ORDERS, 0)
    if sampling == "all":
        rows = rng.permutation(rows)
        return Order(rows, rows)
    labels = dataset.labels[rows]
    # chance decides which classes get what cannot be divided
    classes = rng.permutation(np.unique(labels))
    chosen, samples = [], []
    for i, label in enumerate(classes):
        members = rows[labels == label]
        due = part(len(rows), len(classes), i)
        n = due.stop - due.start
        rounds = -(-n // len(members))
        chosen.append(
            np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members])[:n]
        )
        samples.append(chosen[-1] + len(dataset) * np.arange(rounds).repeat(len(members))[:n])
    order = rng.permutation(len(rows))
    return Order(np.concatenate(chosen)[order], np.concatenate(samples)[order])


def draw_plan(
    dataset: Dataset,
    order: Order,
    augmentation: Augment,
    size: int,
    seed: int,
    epoch: int,
    number: int,
    steps: int,
    rank: int,
    world: int,
) -> Plan:
    """What a rank makes of batch `number` of `steps`."""
    batch = part(len(order.rows), steps, number)
    rows, samples = order.rows[batch], order.samples[batch]
    mine = part(len(rows), world, rank)
    places = np.arange(mine.start, mine.stop)
    mix = augmentation.part(Mix)
    if not mix.on:
        targets = torch.from_numpy(dataset.labels[rows[places]])
        return Plan(number, len(rows), len(places), rows[places], samples[places], targets)

    mixture = mix.draw(len(rows), size, size, batch_generator(seed, epoch, number))
    partners = mixture.partner[places]
    made = np.concatenate([places, np.setdiff1d(partners, places)])
    found = np.empty(len(rows), np.int64)
    found[made] = np.arange(len(made))
    mixture = mixture._replace(partner=found[partners])
    labels = torch.from_numpy(dataset.labels[rows[made]])
    shares = (labels if labels.ndim == 2 else F.one_hot(labels, len(dataset.classes))).float()
    return Plan(
        number,
        len(rows),
        len(places),
        rows[made],
        samples[made],
        mixed_targets(shares, mixture),
        mixture,
    )
