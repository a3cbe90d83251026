"""Where the pixels come from: crop, flip, and affine transforms in one resampling.

What lies outside an image is its mirror image.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from foveate.data.augment.part import ImagePart, choice, number, pair
from foveate.data.augment.streams import symmetric

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.data.augment.streams import Numbers
    from foveate.data.image import Pixels

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

TRIES = 10  # random rectangles, until one fits
RECTANGLE = 2 * TRIES + 2  # random numbers that `draw_rectangle` takes


class Cut(NamedTuple):
    """The box that is cut out of an image and resized to a square."""

    box: Box  # of the image after `scaled`; it may reach outside
    scaled: tuple[int, int] | None  # height and width that a small image is enlarged to first
    size: int  # side of the square


@dataclass(frozen=True)
class Crop(ImagePart):
    """The square that the network reads: it is always on, and comes first.

    Args:
        crop: "none" the centre; "random" a square at the image's own scale from anywhere
            (Krizhevsky et al., NIPS 2012, section 4.1; with padding as in He et al.,
            arXiv:1512.03385, section 4.2); "resized" a rectangle of any size from anywhere, resized
            (Szegedy et al., arXiv:1409.4842, section 6).
        padding: with crop "random", how far the square may reach outside, as a fraction of its
            side.
        crop_area: with crop "resized", the rectangle's share of the image's area, from and to.
        crop_ratio: with crop "resized", width divided by height, from and to; uniform in its
            logarithm.
    """

    recorded = True
    uniforms = slice(0, RECTANGLE)

    crop: Literal["none", "random", "resized"] = choice(
        "none",
        ("none", "random", "resized"),
        "The centre; a square from anywhere; a rectangle of any size from anywhere, resized.",
    )
    padding: float = number(
        0.125,
        0,
        1,
        "fraction of the side",
        "How far a random square reaches outside, as a fraction of its side.",
        needs=("crop", "random"),
    )
    crop_area: tuple[float, float] = pair(
        (0.08, 1.0), 1, "Resized crop: share of the image's area.", needs=("crop", "resized")
    )
    crop_ratio: tuple[float, float] = pair(
        (3 / 4, 4 / 3), 100, "Resized crop: width divided by height.", needs=("crop", "resized")
    )

    @property
    def on(self) -> bool:
        return True

    def describe(self) -> list[str]:
        low, high = (100 * share for share in self.crop_area)
        ratios = " to ".join(proportion(ratio) for ratio in self.crop_ratio)
        return {
            "none": ["the centre"],
            "random": [f"a random square, up to {100 * self.padding:.3g} % of its side outside"],
            "resized": [f"a random {low:.3g} to {high:.3g} % of the area, {ratios}, resized"],
        }[self.crop]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Cut:
        height, width = shape[:2]
        u = numbers.uniforms[self.uniforms]
        if self.crop == "resized":
            box = draw_rectangle(height, width, self.crop_area, self.crop_ratio, u)
            return Cut(box or centre(height, width, self.crop_ratio), None, size)
        scaled = None
        if min(height, width) < size:
            scaled = height, width = enlarged(height, width, size)
        if self.crop == "none":
            return Cut(((height - size) // 2, (width - size) // 2, size, size), scaled, size)
        beyond = round(self.padding * size)
        top, left = (
            int(u_ * (side - size + 2 * beyond + 1)) - beyond
            for u_, side in zip(u, (height, width), strict=False)
        )
        return Cut((top, left, size, size), scaled, size)

    def render(self, x: Any, drawn: Cut) -> "Tensor":
        """(H, W, C), uint8, an array -> (C, size, size), uint8, a tensor of its own memory, whose
        strides are whatever was fastest."""
        pixels: Pixels = x
        if drawn.scaled:
            pixels = enlarge(pixels, drawn.scaled)
        return cut(pixels, drawn.box, drawn.size)


def draw_rectangle(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], u: list[float]
) -> Box | None:
    """A rectangle somewhere inside: area uniform, ratio uniform in its logarithm; None if none of
    the tries fits."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, form in zip(u[:TRIES], u[TRIES : 2 * TRIES], strict=True):
        target = height * width * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * form)
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(u[-2] * (height - h + 1)), int(u[-1] * (width - w + 1)), h, w
    return None


def centre(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest rectangle in the centre whose ratio is allowed: for images so long that no random
    one fits."""
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def enlarged(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with the shorter side brought to `size`.

    >>> enlarged(20, 30, 40)
    (40, 60)
    """
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def enlarge(pixels: "Pixels", shape: tuple[int, int]) -> "Pixels":
    """(H, W, C) -> (*shape, C)."""
    import torch
    from torchvision.transforms.v2.functional import resize

    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return resize(x, list(shape)).permute(1, 2, 0).numpy()


def cut(pixels: "Pixels", box: Box, size: int) -> "Tensor":
    """The box, resized: (C, size, size), uint8, in memory of its own."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    (top, left, h, w), (height, width) = box, pixels.shape[:2]
    bottom, right = top + h, left + w
    part = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if part.shape[:2] != (h, w):
        outside = [
            (max(-top, 0), max(bottom - height, 0)),
            (max(-left, 0), max(right - width, 0)),
            (0, 0),
        ]
        part = np.pad(part, outside, mode="symmetric")
    # packed, in channels_last: twice as fast
    x = torch.from_numpy(part.copy())[None].permute(0, 3, 1, 2)
    if (h, w) != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x[0]


def proportion(ratio: float) -> str:
    return {3 / 4: "3:4", 4 / 3: "4:3", 1.0: "1:1"}.get(ratio, f"{ratio:.2f}:1")


class Flips(NamedTuple):
    """Which way an image is flipped."""

    horizontal: bool
    vertical: bool


@dataclass(frozen=True)
class Flip(ImagePart):
    """Mirror an image.

    Args:
        hflip, vflip: probability of a horizontal flip (left to right) and of a vertical one (top to
            bottom).
    """

    recorded = True
    uniforms = slice(22, 24)

    hflip: float = number(
        0.0, 0, 1, "probability", "Flip every other image left to right.", flag=0.5
    )
    vflip: float = number(
        0.0, 0, 1, "probability", "Flip every other image top to bottom.", flag=0.5
    )

    @property
    def on(self) -> bool:
        return bool(self.hflip or self.vflip)

    def describe(self) -> list[str]:
        ways = {"horizontal": self.hflip, "vertical": self.vflip}
        return [f"{way} flip with probability {p:g}" for way, p in ways.items() if p]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Flips | None:
        horizontal, vertical = numbers.uniforms[self.uniforms]
        flips = Flips(horizontal < self.hflip, vertical < self.vflip)
        return flips if any(flips) else None

    def render(self, x: "Tensor", drawn: Flips) -> "Tensor":
        return x.flip([dim for dim, flip in ((-1, drawn.horizontal), (-2, drawn.vertical)) if flip])


class Warp(NamedTuple):
    """An affine transform about the centre."""

    angle: float  # degrees, clockwise
    move: tuple[float, float]  # right and down, as fractions of the side
    zoom: float  # 1 keeps the size
    shear: float  # degrees, along x


UNMOVED = Warp(0, (0, 0), 1, 0)


@dataclass(frozen=True)
class Affine(ImagePart):
    """Rotate, translate, scale and shear in one resampling, so that nothing is blurred twice.

    Args:
        rotation: degrees at most, clockwise or counter-clockwise.
        translate: at most, either way and along each axis, as a fraction of the side.
        scale: at most, larger or smaller: 0.1 is from 0.9 to 1.1.
        shear: degrees at most, either way, along x.
    """

    recorded = True
    uniforms = slice(24, 29)
    planes = True

    rotation: float = number(0.0, 0, 180, "degrees", "Degrees at most, either way.")
    translate: float = number(
        0.0, 0, 1, "fraction of the side", "At most, either way, as a fraction of the side."
    )
    scale: float = number(
        0.0, 0, 0.9, "fraction of the size", "At most, larger or smaller: 0.1 is 0.9 to 1.1 times."
    )
    shear: float = number(0.0, 0, 60, "degrees", "Degrees at most, either way.")

    @property
    def on(self) -> bool:
        return bool(self.rotation or self.translate or self.scale or self.shear)

    def describe(self) -> list[str]:
        phrases = [
            (self.rotation, f"rotation by up to {self.rotation:g}°"),
            (self.translate, f"translation by up to {self.translate:.3g} of the side"),
            (self.scale, f"scaling by {1 - self.scale:.3g} to {1 + self.scale:.3g}"),
            (self.shear, f"shear by up to {self.shear:g}°"),
        ]
        return [phrase for on, phrase in phrases if on]

    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Warp | None:
        most = self.rotation, self.translate, self.translate, self.scale, self.shear
        angle, right, down, zoom, shear = map(symmetric, numbers.uniforms[self.uniforms], most)
        warp = Warp(angle, (right, down), 1 + zoom, shear)
        return None if warp == UNMOVED else warp

    def render(self, x: "Tensor", drawn: Warp) -> "Tensor":
        import torch
        from torch.nn import functional as F

        size = x.shape[-1]
        cos, sin = math.cos(math.radians(drawn.angle)), math.sin(math.radians(drawn.angle))
        slant = math.tan(math.radians(drawn.shear))
        # A point goes to R(angle) * zoom * [[1, -slant], [0, 1]] * point + move; the grid says
        # where each pixel comes from.
        xx, xy = (cos - sin * slant) / drawn.zoom, (sin + cos * slant) / drawn.zoom
        yx, yy = -sin / drawn.zoom, cos / drawn.zoom
        right, down = 2 * drawn.move[0], 2 * drawn.move[1]  # the side is 2 long: from -1 to 1
        columns = torch.linspace(1 / size - 1, 1 - 1 / size, size)
        rows = columns[:, None]
        grid = torch.empty(1, size, size, 2)
        torch.add(columns * xx - (xx * right + xy * down), rows * xy, out=grid[0, :, :, 0])
        torch.add(columns * yx - (yx * right + yy * down), rows * yy, out=grid[0, :, :, 1])
        return F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]
