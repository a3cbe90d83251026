"""From a file's bytes to pixels, for prediction and evaluation, and for training."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from foveate.data.image import DECODER, JPEG_DECODER, Pixels, load_image, load_pixels
from foveate.data.preprocess import Preprocess, decode

RULES = 2  # part of every cached image's key: raise it when `for_training` or `scaled` changes


class Decode(Protocol):
    """An image's bytes and name to pixels; `on_damage` as for `load_image`."""

    def __call__(
        self, data: bytes, name: str, on_damage: Callable[[str], object] | None = None
    ) -> Pixels: ...


class Rule(NamedTuple):
    """A function from an image's bytes and name to pixels, and all that its result depends on.

    `identity` is part of the key under which the pixels are cached.
    """

    make: Decode
    identity: dict[str, object]


def for_evaluation(preprocess: Preprocess) -> Rule:
    """The image as prediction sees it."""

    def make(data: bytes, name: str, on_damage: Callable[[str], object] | None = None) -> Pixels:
        return decode(data, name, preprocess, on_damage)

    return Rule(
        make,
        {"view": "evaluation", "preprocess": preprocess.to_dict(), "decoder": DECODER},
    )


def for_training(preprocess: Preprocess, short_side: int) -> Rule:
    """The part of an image from which training crops are taken, its shorter side reduced to
    `short_side` if it is longer: the whole image, or as much around the centre as the framing says
    (`View.trained_on`); of an image that is squashed or padded, the square."""
    view = preprocess.views[0]
    part = view.trained_on
    needed = round(short_side / part)  # of the whole shorter side

    def make(data: bytes, name: str, on_damage: Callable[[str], object] | None = None) -> Pixels:
        levels = preprocess.levels
        if view.fit != "crop":
            square = replace(preprocess, resize=short_side, crop=short_side)
            return decode(data, name, square, on_damage)
        if preprocess.channels == 1:
            image = load_image(data, name, needed, levels, on_damage)
            pixels = np.asarray(image.convert("L"))[:, :, None]
        else:
            pixels = load_pixels(data, name, needed, levels, on_damage)
        pixels = centre(pixels, part)
        if min(pixels.shape[:2]) <= short_side:
            return pixels
        return scaled(pixels, short_side, preprocess.interpolation)

    identity: dict[str, object] = {
        "view": "training",
        "rules": RULES,
        "short_side": short_side,
        "channels": preprocess.channels,
        "interpolation": preprocess.interpolation,
        **({} if preprocess.levels is None else {"levels": preprocess.levels}),
        **({} if part == 1 else {"part": part}),
        **({} if view.fit == "crop" else {"fit": view.fit, "mean": preprocess.mean}),
        "decoder": f"{DECODER}, {JPEG_DECODER}",
        "resize": f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return Rule(make, identity)


def centre(pixels: Pixels, share: float) -> Pixels:
    """The centre of an image, this share of both sides.

    >>> centre(np.zeros((6, 9, 3), np.uint8), 2 / 3).shape
    (4, 6, 3)
    """
    if share == 1:
        return pixels
    height, width = (max(1, round(share * side)) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def scaled(pixels: Pixels, short_side: int, interpolation: str) -> Pixels:
    """The image resized to a shorter side of `short_side` pixels.

    The result is that of Pillow's resize, except for rounding, in a fifth of the time.
    """
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    size = [max(short_side, round(side * scale)) for side in (height, width)]
    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    small = resize(x, size, InterpolationMode(interpolation), antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
