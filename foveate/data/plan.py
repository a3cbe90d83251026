"""Which pictures a batch has, and how they are mixed: drawn from (seed, epoch) alone, so every rank draws the same."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from foveate.data.dataset import Dataset
from foveate.data.mix import span
from foveate.data.pixels import Pixels
from foveate.data.policy import Augmentation
from foveate.data.view import batch_generator, stream

Rows = NDArray[np.int64]

ORDERS = 2  # a stream of random numbers beside those of pictures and of batches (view.py)


class Mixture(NamedTuple):
    """How the pictures of a batch, over all ranks, are mixed."""

    partner: Rows  # of each picture, its place in the batch
    share: float  # of a picture's own label
    box: tuple[slice, slice] | None  # CutMix: what becomes the partner's; None is mixup


class Plan(NamedTuple):
    """What one rank makes in one step. Behind its own pictures come partners that are of another rank's part."""

    number: int  # of the batch in its epoch
    total: int  # pictures of the batch on all ranks
    own: int  # pictures of this rank
    rows: Rows  # (own + partners,)
    samples: Rows  # whose random numbers: the row, or beyond all rows when it comes again
    targets: Tensor  # (own,), int64; (own, classes): int64 where pictures have labels, float32 where they are mixed
    mixture: Mixture | None = None
    partner: Rows | None = None  # (own,), places in `rows`


class Order(NamedTuple):
    """The pictures of an epoch, over all ranks."""

    rows: Rows
    samples: Rows


def part(n: int, parts: int, i: int) -> slice:
    """Part i of n things: contiguous, and as large as the others up to one.

    >>> [part(7, 3, i) for i in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(n * i // parts, n * (i + 1) // parts)


def draw_order(dataset: Dataset, rows: Rows, sampling: Literal["all", "balanced"], seed: int, epoch: int) -> Order:
    """The order of an epoch. "balanced" goes through each class in rounds, in new orders, until it has its due."""
    rng = stream(seed, epoch, ORDERS, 0)
    if sampling == "all":
        rows = rng.permutation(rows)
        return Order(rows, rows)
    labels = dataset.labels[rows]
    classes = rng.permutation(np.unique(labels))  # chance decides which classes get what cannot be divided
    chosen, samples = [], []
    for i, label in enumerate(classes):
        members = rows[labels == label]
        due = part(len(rows), len(classes), i)
        n = due.stop - due.start
        rounds = -(-n // len(members))
        chosen.append(np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members])[:n])
        samples.append(chosen[-1] + len(dataset) * np.arange(rounds).repeat(len(members))[:n])
    order = rng.permutation(len(rows))
    return Order(np.concatenate(chosen)[order], np.concatenate(samples)[order])


def draw_mixture(augmentation: Augmentation, n: int, size: int, rng: np.random.Generator) -> Mixture:
    """The numbers that `mix.mix` draws for a batch of n pictures, in its order; mixup or CutMix is on."""
    heads = rng.random() < 0.5
    blends = bool(augmentation.mixup) and (heads or not augmentation.cutmix)
    alpha = augmentation.mixup if blends else augmentation.cutmix
    partner, share = rng.permutation(n), float(rng.beta(alpha, alpha))
    if blends:
        return Mixture(partner, share, None)
    (top, bottom), (left, right) = span(size, share, rng), span(size, share, rng)
    kept = 1 - (bottom - top) * (right - left) / (size * size)
    return Mixture(partner, kept, (slice(top, bottom), slice(left, right)))


def draw_plan(
    dataset: Dataset,
    order: Order,
    augmentation: Augmentation,
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
    if not (augmentation.mixup or augmentation.cutmix):
        targets = torch.from_numpy(dataset.labels[rows[places]])
        return Plan(number, len(rows), len(places), rows[places], samples[places], targets)

    mixture = draw_mixture(augmentation, len(rows), size, batch_generator(seed, epoch, number))
    partners = mixture.partner[places]
    made = np.concatenate([places, np.setdiff1d(partners, places)])
    found = np.empty(len(rows), np.int64)
    found[made] = np.arange(len(made))
    labels = torch.from_numpy(dataset.labels[rows])
    shares = (labels if labels.ndim == 2 else F.one_hot(labels, len(dataset.classes))).float()
    targets = shares[torch.from_numpy(partners)].lerp_(shares[mine], mixture.share)
    return Plan(number, len(rows), len(places), rows[made], samples[made], targets, mixture, found[partners])


def mixed(pixels: Pixels, plan: Plan) -> Pixels:
    """(own + partners, H, W, C), uint8 -> (own, H, W, C): what `mix.mix` makes of the same numbers."""
    if plan.mixture is None or plan.partner is None:
        return pixels
    result = np.empty((plan.own, *pixels.shape[1:]), np.uint8)
    for i, partner in enumerate(plan.partner):
        if plan.mixture.box is not None:
            result[i] = pixels[i]
            result[i][plan.mixture.box] = pixels[partner][plan.mixture.box]
        else:
            own, other = (torch.from_numpy(pixels[place]).float() for place in (i, partner))
            result[i] = other.lerp_(own, plan.mixture.share).round_().to(torch.uint8).numpy()
    return result
