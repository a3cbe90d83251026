"""mixup and CutMix as in the papers' code: on the tensors of a whole batch, in one process."""

import numpy as np
import torch
from torch import Tensor

from foveate.data.augment import Augment


def mix(
    batch: Tensor, targets: Tensor, augmentation: Augment, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """mixup, CutMix, one of the two by a coin where both are on, or nothing.

    (N, C, H, W), uint8 or floating point, and (N, classes), floating point -> the same shapes and
    types.
    """
    heads = rng.random() < 0.5
    if augmentation.mixup and (heads or not augmentation.cutmix):
        return mixup(batch, targets, augmentation.mixup, rng)
    if augmentation.cutmix:
        return cutmix(batch, targets, augmentation.cutmix, rng)
    return batch, targets


def mixup(
    batch: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    partner, share = torch.from_numpy(rng.permutation(len(batch))), rng.beta(alpha, alpha)
    return blend(batch, partner, share), blend(targets, partner, share)


def cutmix(
    batch: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    partner, share = torch.from_numpy(rng.permutation(len(batch))), rng.beta(alpha, alpha)
    height, width = batch.shape[-2:]
    (top, bottom), (left, right) = cut(height, share, rng), cut(width, share, rng)
    pasted = batch.clone()
    pasted[:, :, top:bottom, left:right] = batch[partner, :, top:bottom, left:right]
    return pasted, blend(targets, partner, 1 - (bottom - top) * (right - left) / (height * width))


def cut(side: int, share: float, rng: np.random.Generator) -> list[int]:
    """Begin and end, as CutMix's `rand_bbox` has them."""
    length, middle = int(side * np.sqrt(1 - share)), rng.integers(side)
    return np.clip([middle - length // 2, middle + length // 2], 0, side).tolist()


def blend(x: Tensor, partner: Tensor, share: float) -> Tensor:
    """share * x + (1 - share) * its partner, in the type of x."""
    blended = torch.lerp(x[partner].float(), x.float(), share)
    return blended if x.is_floating_point() else blended.round().to(x.dtype)
