"""What happens to a training image, drawn from random numbers that belong to (seed, epoch, image)
alone.

`draw` takes all the numbers at once and writes down what they mean, a `View`. Every part takes its
own numbers whether
it is on or off: switching one leaves the others as they were. No global random state is read or
touched, so the number of threads and ranks cannot change what is seen.
"""

import math
from itertools import islice
from typing import NamedTuple

import numpy as np

from foveate.data.augment import auto
from foveate.data.augment.pca import Vector
from foveate.data.augment.policies import Augmentation
from foveate.data.image import Pixels

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

ERASED_AREA, ERASED_RATIO = (
    (0.02, 0.33),
    (0.3, 3.3),
)  # Zhong et al.; of the image's area, and width by height
TRIES = 10  # random rectangles, until one fits
DRAWS = 62  # random numbers of an image, in all its parts together
SAMPLES, BATCHES = 0, 1  # streams of random numbers that never meet


class View(NamedTuple):
    """All that is random in one look at one image."""

    box: Box  # of the image; it may reach outside
    mirror: bool
    upside_down: bool
    angle: float  # degrees, clockwise
    move: tuple[float, float]  # right and down, in parts of the side
    zoom: float  # 1 keeps the size
    shear: float  # degrees
    brightness: float  # these three: factors, 1 changes nothing
    contrast: float
    saturation: float
    hue: float  # turns of the colour circle
    shift: Vector  # added to red, green and blue, which run from 0 to 1
    operations: tuple[auto.Operation, ...]
    erased: Box | None
    noise: Pixels | None  # (height, width, C), what the erased rectangle becomes

    @property
    def bends(self) -> bool:
        return (self.angle, self.move, self.zoom, self.shear) != (0, (0, 0), 1, 0)

    @property
    def tints(self) -> bool:
        colour = (self.brightness, self.contrast, self.saturation, self.hue, self.shift)
        return colour != (1, 1, 1, 0, (0, 0, 0))


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Random numbers of one image in one epoch. `sample` is its row in the whole data set, not in a
    part of it."""
    return stream(seed, epoch, SAMPLES, sample)


def batch_generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Random numbers of one batch in one epoch, for `mix`; they have nothing in common with those
    of the images."""
    return stream(seed, epoch, BATCHES, batch)


def stream(seed: int, epoch: int, kind: int, number: int) -> np.random.Generator:
    """Philox computes its numbers from a key and a counter, so that a start anywhere costs
    microseconds."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(
        np.random.Philox(key=key, counter=np.array([0, 0, kind, number], np.uint64))
    )


def draw(
    augmentation: Augmentation, shape: tuple[int, ...], size: int, rng: np.random.Generator
) -> View:
    """What happens to an image of this shape, (H, W, C)."""
    a = augmentation
    assert a.pca is not None or not a.pca_colour, "with_pca comes first"
    numbers = iter(rng.random(DRAWS).tolist())
    alphas = rng.standard_normal(3).tolist()

    def take(n: int) -> list[float]:
        return list(islice(numbers, n))

    def up_to(*most: float) -> list[float]:
        """Uniform, from minus to plus each."""
        return [m * (2 * u - 1) for m, u in zip(most, take(len(most)), strict=True)]

    box = draw_box(a, shape[0], shape[1], size, take(2 * TRIES + 2))
    mirror, upside_down = take(2)
    angle, right, down, zoom, shear = up_to(a.rotation, a.translate, a.translate, a.scale, a.shear)
    brightness, contrast, saturation, hue = up_to(a.brightness, a.contrast, a.saturation, a.hue)
    operations = auto.draw_operations(a.auto, a.magnitude, size, take(auto.DRAWS))
    erase, *where = take(1 + 2 * TRIES + 2)
    erased = (
        draw_rectangle(size, size, ERASED_AREA, ERASED_RATIO, where) if erase < a.erasing else None
    )
    return View(
        box=box,
        mirror=mirror < a.hflip,
        upside_down=upside_down < a.vflip,
        angle=angle,
        move=(right, down),
        zoom=1 + zoom,
        shear=shear,
        brightness=1 + brightness,
        contrast=1 + contrast,
        saturation=1 + saturation,
        hue=hue,
        shift=a.pca.shift([a.pca_colour * alpha for alpha in alphas])
        if a.pca and a.pca_colour
        else (0.0, 0.0, 0.0),
        operations=operations,
        erased=erased,
        noise=rng.integers(0, 256, (*erased[2:], shape[2]), np.uint8) if erased else None,
    )


def draw_box(a: Augmentation, height: int, width: int, size: int, u: list[float]) -> Box:
    """Which part of the image is shown."""
    if a.crop == "resized":
        return draw_rectangle(height, width, a.crop_area, a.crop_ratio, u) or middle(
            height, width, a.crop_ratio
        )
    if a.crop == "none":
        return (height - size) // 2, (width - size) // 2, size, size
    beyond = round(a.padding * size)
    top, left = (
        int(u_ * (side - size + 2 * beyond + 1)) - beyond
        for u_, side in zip(u, (height, width), strict=False)
    )
    return top, left, size, size


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


def middle(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest rectangle in the middle whose ratio is allowed: for images so long that no random
    one fits."""
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w
