"""mixup and CutMix: two training pictures become one, and its label says how much of each.

Zhang, Cisse, Dauphin, Lopez-Paz. "mixup: Beyond Empirical Risk Minimization". ICLR 2018, arXiv:1710.09412.
Yun, Han, Oh, Chun, Choe, Yoo. "CutMix". ICCV 2019, arXiv:1905.04899.

Both act on a batch after each picture was augmented: every picture gets another one of the batch as its partner, and
one share, drawn from Beta(alpha, alpha), holds for the whole batch, as in the authors' code. So the result depends on
how pictures were gathered into batches, on each rank, though on nothing else.
"""

import math

import numpy as np
import torch
from torch import Tensor

from foveate.data.policy import Augmentation


def mix(batch: Tensor, targets: Tensor, augmentation: Augmentation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """What the augmentation says: mixup, CutMix, one of the two by a coin where both are on, or nothing.

    Args:
        batch: (N, C, H, W), uint8 or floating point. It is not changed.
        targets: (N, classes), floating point, each row sums to 1.
        augmentation: its `mixup` and `cutmix` are looked at.
        rng: `augment.batch_generator(seed, epoch, batch)`.

    Returns:
        A batch and targets of the same shapes and types.
    """
    heads = rng.random() < 0.5
    if augmentation.mixup and (heads or not augmentation.cutmix):
        return mixup(batch, targets, augmentation.mixup, rng)
    if augmentation.cutmix:
        return cutmix(batch, targets, augmentation.cutmix, rng)
    return batch, targets


def mixup(batch: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """share * picture + (1 - share) * partner, and the targets likewise. Arguments as for `mix`."""
    partner, share = partners(batch, rng), float(rng.beta(alpha, alpha))
    return blend(batch, partner, share), blend(targets, partner, share)


def cutmix(batch: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of the partner is pasted in; the targets follow the area that it takes. Arguments as for `mix`."""
    partner, share = partners(batch, rng), float(rng.beta(alpha, alpha))
    height, width = batch.shape[-2:]
    top, bottom = span(height, share, rng)
    left, right = span(width, share, rng)
    mixed = batch.clone()
    mixed[..., top:bottom, left:right] = batch[partner, :, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)  # what the edge cut off counts for the picture
    return mixed, blend(targets, partner, kept)


def partners(batch: Tensor, rng: np.random.Generator) -> Tensor:
    """(N,), a random order of the batch; a picture may meet itself, and then stays as it is."""
    return torch.from_numpy(rng.permutation(len(batch))).to(batch.device)


def blend(x: Tensor, partner: Tensor, share: float) -> Tensor:
    """share * x + (1 - share) * its partner, in the type of x."""
    if x.is_floating_point():
        return x[partner].lerp_(x, share)
    return x[partner].float().lerp_(x.float(), share).round_().to(x.dtype)


def span(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of sqrt(1 - share) of the side around a random pixel, as far as it is inside: its begin and end."""
    half, middle = int(side * math.sqrt(1 - share) / 2), int(rng.integers(side))
    return max(middle - half, 0), min(middle + half, side)
