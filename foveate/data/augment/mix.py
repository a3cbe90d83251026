"""mixup and CutMix: two training images become one, and its label is shared between their classes.

Zhang, Cisse, Dauphin, Lopez-Paz. "mixup: Beyond Empirical Risk Minimization". ICLR 2018,
arXiv:1710.09412. Yun, Han, Oh, Chun, Choe, Yoo. "CutMix". ICCV 2019, arXiv:1905.04899.

Both act on a batch after each image was augmented: every image gets another one of the batch as its
partner, and one share, drawn from Beta(alpha, alpha), holds for the whole batch, as in the authors'
code. In Foveate's training partners come from the whole batch, over all ranks, and a rank makes
those of another's part beside its own images (batches/order.py). So the result depends on how
images were gathered into batches, though not on how ranks share them.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from foveate.data.augment.part import Part, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from foveate.data.image import Pixels


class Mixture(NamedTuple):
    """How images are mixed, those of a batch or of a rank's part."""

    partner: "NDArray[np.int64]"  # for each image, its partner's place among those that are given
    share: float  # of an image's own label
    box: tuple[slice, slice] | None  # CutMix: what becomes the partner's; None is mixup


@dataclass(frozen=True)
class Mix(Part):
    """mixup or CutMix; where both are on, each batch takes one of them, by a coin.

    Args:
        mixup, cutmix: alpha of the Beta distribution of the shares; 0 is off.
    """

    recorded = True

    mixup: float = number(0.0, 0, 10, "alpha", "alpha of mixup; 0 is off.")
    cutmix: float = number(0.0, 0, 10, "alpha", "alpha of CutMix; 0 is off.")

    @property
    def on(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def describe(self) -> list[str]:
        names = {"mixup": self.mixup, "CutMix": self.cutmix}
        return [f"{name} {alpha:g}" for name, alpha in names.items() if alpha]

    def draw(self, n: int, height: int, width: int, rng: "np.random.Generator") -> Mixture:
        """How a batch is mixed. An image may meet itself, and then stays as it is.

        Args:
            n: images of the batch, on all ranks together.
            height, width: of an image, in pixels.
            rng: `streams.batch_generator(seed, epoch, batch)`.
        """
        assert self.on, "neither mixup nor CutMix is on"
        heads = rng.random() < 0.5
        blends = bool(self.mixup) and (heads or not self.cutmix)
        alpha = self.mixup if blends else self.cutmix
        partner, share = rng.permutation(n), float(rng.beta(alpha, alpha))
        if blends:
            return Mixture(partner, share, None)
        (top, bottom), (left, right) = span(height, share, rng), span(width, share, rng)
        # what the edge cut off counts for the image
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return Mixture(partner, kept, (slice(top, bottom), slice(left, right)))


def span(side: int, share: float, rng: "np.random.Generator") -> tuple[int, int]:
    """A stretch of sqrt(1 - share) of the side around a random pixel, as far as it is inside: its
    begin and end."""
    half, middle = int(side * math.sqrt(1 - share) / 2), int(rng.integers(side))
    return max(middle - half, 0), min(middle + half, side)


def mixed(pixels: "Pixels", mixture: Mixture | None) -> "Pixels":
    """share * image + (1 - share) * partner, or the image with the partner's box pasted in.

    Args:
        pixels: (own + partners, H, W, C), uint8. They are not changed.
        mixture: its `partner` is (own,): the images behind those are partners only. None leaves all
            as they are.

    Returns:
        (own, H, W, C), uint8.
    """
    import numpy as np
    import torch

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


def mixed_tensors(images: "Tensor", mixture: Mixture) -> "Tensor":
    """`mixed` for (N, C, H, W), uint8 or floating point, on any device; what floats is not
    rounded."""
    import torch

    partner = torch.from_numpy(mixture.partner).to(images.device)
    if mixture.box is not None:
        pasted = images.clone()
        rows, columns = mixture.box
        pasted[:, :, rows, columns] = images[partner][:, :, rows, columns]
        return pasted
    own = images if images.is_floating_point() else images.float()
    blended = own[partner].lerp_(own, mixture.share)
    return blended if images.is_floating_point() else blended.round_().to(images.dtype)


def mixed_targets(targets: "Tensor", mixture: Mixture) -> "Tensor":
    """(own + partners, classes), floating point -> (own, classes): share * target + (1 - share) *
    the partner's."""
    import torch

    partner = torch.from_numpy(mixture.partner).to(targets.device)
    return targets[partner].lerp_(targets[: len(mixture.partner)], mixture.share)
