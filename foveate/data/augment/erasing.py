"""Random erasing: a rectangle becomes noise.

Zhong, Zheng, Kang, Li, Yang. "Random Erasing Data Augmentation". AAAI 2020, arXiv:1708.04896.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from foveate.data.augment.geometry import RECTANGLE, Box, draw_rectangle
from foveate.data.augment.part import ImagePart, number

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.data.augment.streams import Numbers
    from foveate.data.image import Pixels

AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # of the image's area; width divided by height


class Erased(NamedTuple):
    """A rectangle, and what it becomes."""

    box: Box
    noise: "Pixels"  # (height, width, C)


@dataclass(frozen=True)
class Erasing(ImagePart):
    """A rectangle of 2 to 33 % of the area becomes noise.

    Args:
        erasing: probability.
    """

    recorded = True
    uniforms = slice(39, 39 + 1 + RECTANGLE)

    erasing: float = number(0.0, 0, 1, "probability", "Probability that a rectangle becomes noise.")

    @property
    def on(self) -> bool:
        return bool(self.erasing)

    def describe(self) -> list[str]:
        return [f"a rectangle erased with probability {self.erasing:g}"]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Erased | None:
        import numpy as np

        erase, *u = numbers.uniforms[self.uniforms]
        box = draw_rectangle(size, size, AREA, RATIO, u) if erase < self.erasing else None
        if box is None:
            return None
        return Erased(box, numbers.rest.integers(0, 256, (*box[2:], shape[2]), np.uint8))

    def render(self, x: "Tensor", drawn: Erased) -> "Tensor":
        import torch

        top, left, h, w = drawn.box
        x[:, top : top + h, left : left + w] = torch.from_numpy(drawn.noise).permute(2, 0, 1)
        return x
