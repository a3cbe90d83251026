"""mixup and CutMix: two training images become one, and its label says how much of each.

Zhang, Cisse, Dauphin, Lopez-Paz. "mixup: Beyond Empirical Risk Minimization". ICLR 2018,
arXiv:1710.09412. Yun, Han, Oh, Chun, Choe, Yoo. "CutMix". ICCV 2019, arXiv:1905.04899.

Both act on a batch after each image was augmented: every image gets another one of the batch as its
partner, and one share, drawn from Beta(alpha, alpha), holds for the whole batch, as in the authors'
code. Partners come from the whole batch, over all ranks, and a rank makes those of another's part
beside its own images (plan.py). So the result depends on how images were gathered into batches,
though not on how ranks share them.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.augment.policies import Augmentation
from foveate.data.image import Pixels


class Mixture(NamedTuple):
    """How images are mixed, those of a batch or of a rank's part."""

    partner: NDArray[np.int64]  # for each image, its partner's place among those that are given
    share: float  # of an image's own label
    box: tuple[slice, slice] | None  # CutMix: what becomes the partner's; None is mixup


def draw_mixture(
    augmentation: Augmentation, n: int, size: int, rng: np.random.Generator
) -> Mixture:
    """mixup or CutMix, one of the two by a coin where both are on. An image may meet itself, and
    then stays as it is.

    Args:
        augmentation: its `mixup` or `cutmix` is on.
        n: images of the batch, on all ranks together.
        size: their side in pixels.
        rng: `view.batch_generator(seed, epoch, batch)`.
    """
    heads = rng.random() < 0.5
    blends = bool(augmentation.mixup) and (heads or not augmentation.cutmix)
    alpha = augmentation.mixup if blends else augmentation.cutmix
    partner, share = rng.permutation(n), float(rng.beta(alpha, alpha))
    if blends:
        return Mixture(partner, share, None)
    (top, bottom), (left, right) = span(size, share, rng), span(size, share, rng)
    # what the edge cut off counts for the image
    kept = 1 - (bottom - top) * (right - left) / (size * size)
    return Mixture(partner, kept, (slice(top, bottom), slice(left, right)))


def span(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of sqrt(1 - share) of the side around a random pixel, as far as it is inside: its
    begin and end."""
    half, middle = int(side * math.sqrt(1 - share) / 2), int(rng.integers(side))
    return max(middle - half, 0), min(middle + half, side)


def mixed(pixels: Pixels, mixture: Mixture | None) -> Pixels:
    """share * image + (1 - share) * partner, or the image with the partner's box pasted in.

    Args:
        pixels: (own + partners, H, W, C), uint8. They are not changed.
        mixture: its `partner` is (own,): the images behind those are partners only. None leaves all
            as they are.

    Returns:
        (own, H, W, C), uint8.
    """
    if mixture is None:
        return pixels
    result = np.empty((len(mixture.partner), *pixels.shape[1:]), np.uint8)
    for i, partner in enumerate(mixture.partner):
        if mixture.box is not None:
            result[i] = pixels[i]
            result[i][mixture.box] = pixels[partner][mixture.box]
        else:
            own, other = (torch.from_numpy(pixels[place]).float() for place in (i, partner))
            result[i] = other.lerp_(own, mixture.share).round_().to(torch.uint8).numpy()
    return result


def mixed_targets(targets: Tensor, mixture: Mixture) -> Tensor:
    """(own + partners, classes), floating point -> (own, classes): share * target + (1 - share) *
    the partner's."""
    return targets[torch.from_numpy(mixture.partner)].lerp_(
        targets[: len(mixture.partner)], mixture.share
    )
