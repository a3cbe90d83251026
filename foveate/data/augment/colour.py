"""Colour jitter: brightness, contrast and saturation as one linear map, then hue."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from foveate.data.augment.part import ImagePart, number
from foveate.data.augment.streams import symmetric

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.data.augment.streams import Numbers

LUMA = (0.2989, 0.587, 0.114)  # the grey of red, green and blue (ITU-R BT.601)

FACTOR = "At most, more or less: 0.4 is 0.6 to 1.4 times."


class Factors(NamedTuple):
    """1 changes nothing."""

    brightness: float
    contrast: float
    saturation: float


UNCHANGED = Factors(1, 1, 1)


@dataclass(frozen=True)
class Jitter(ImagePart):
    """Multiply the brightness, the contrast about the mean grey, and the saturation about each
    pixel's own grey.

    Args:
        brightness, contrast, saturation: at most, more or less: 0.4 is from 0.6 to 1.4 times.
    """

    recorded = True
    uniforms = slice(29, 32)
    planes = True

    brightness: float = number(0.0, 0, 1, "fraction of it", FACTOR)
    contrast: float = number(0.0, 0, 1, "fraction of it", FACTOR)
    saturation: float = number(0.0, 0, 1, "fraction of it", FACTOR, coloured=True)

    @property
    def on(self) -> bool:
        return bool(self.brightness or self.contrast or self.saturation)

    def describe(self) -> list[str]:
        amounts = (self.brightness, self.contrast, self.saturation)
        return [f"{n} ±{a:g}" for n, a in zip(Factors._fields, amounts, strict=True) if a]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Factors | None:
        most = self.brightness, self.contrast, self.saturation
        changes = map(symmetric, numbers.uniforms[self.uniforms], most)
        factors = Factors._make(1 + change for change in changes)
        return None if factors == UNCHANGED else factors

    def render(self, x: "Tensor", drawn: Factors) -> "Tensor":
        import numpy as np
        import torch

        channels = x.shape[0]
        grey = np.array(LUMA) if channels == 3 else np.ones(1)
        saturate = drawn.saturation * np.eye(channels) + (1 - drawn.saturation) * grey
        colours = torch.from_numpy(drawn.contrast * drawn.brightness * saturate).float()
        offset = torch.zeros(channels, 1)
        # in double precision, so that the order of adding does not show
        if drawn.contrast != 1:
            mean = grey @ x.mean(dim=(1, 2), dtype=torch.float64).numpy()
            offset += float((1 - drawn.contrast) * drawn.brightness * mean)
        return torch.addmm(offset, colours, x.flatten(1)).view_as(x).clamp_(0, 255)


@dataclass(frozen=True)
class Hue(ImagePart):
    """Turn the colour circle: the angle of HSV changes, value and saturation stay.

    Args:
        hue: at most, either way, in turns of the colour circle.
    """

    recorded = True
    uniforms = slice(32, 33)
    planes = True

    hue: float = number(
        0.0,
        0,
        0.5,
        "turns of the colour circle",
        "At most, either way, in turns of the colour circle: up to 0.5.",
        coloured=True,
    )

    @property
    def on(self) -> bool:
        return bool(self.hue)

    def describe(self) -> list[str]:
        return [f"hue ±{self.hue:g} turns"]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> float | None:
        return symmetric(numbers.uniforms[self.uniforms.start], self.hue) or None

    def render(self, x: "Tensor", drawn: float) -> "Tensor":
        import torch

        red, green, blue = x
        value = torch.maximum(torch.maximum(red, green), blue)
        least = torch.minimum(torch.minimum(red, green), blue)
        chroma = value - least
        # in sixths of a turn, from red
        from_green = (blue - red).add_(chroma, alpha=2)
        from_blue = (red - green).add_(chroma, alpha=4)
        angle = torch.where(
            value == red, green - blue, torch.where(value == green, from_green, from_blue)
        )
        angle = angle.div_(chroma.clamp(min=1e-6)).add_(6 * drawn)
        angle.sub_((angle / 6).floor_(), alpha=6)
        shares = ((angle - 3).abs_().sub_(1), 2 - (angle - 2).abs_(), 2 - (angle - 4).abs_())
        return torch.stack([torch.addcmul(least, chroma, share.clamp_(0, 1)) for share in shares])
