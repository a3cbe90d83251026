"""From a file's bytes to pixels of one size: as prediction sees an image, and as training keeps
it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from foveate.data.image import DECODER, JPEGS, Pixels, load_image, load_pixels
from foveate.data.preprocess import Preprocess, decode

RULES = 2  # part of every kept image's key: raise it when `for_training` or `scaled` changes


class Rule(NamedTuple):
    """How pixels are made of an image's bytes, and everything that decides what they are."""

    make: Callable[[bytes, str], Pixels]
    identity: dict[str, object]


def for_evaluation(preprocess: Preprocess) -> Rule:
    """The image as prediction sees it."""
    return Rule(
        lambda data, name: decode(data, name, preprocess),
        {"view": "evaluation", "preprocess": preprocess.to_dict(), "decoder": DECODER},
    )


def for_training(preprocess: Preprocess, short_side: int) -> Rule:
    """The whole image, its shorter side brought down to `short_side` if it is more."""

    def make(data: bytes, name: str) -> Pixels:
        if preprocess.channels == 1:
            pixels = np.asarray(load_image(data, name, short_side).convert("L"))[:, :, None]
        else:
            pixels = load_pixels(data, name, short_side)
        return (
            scaled(pixels, short_side, preprocess.interpolation)
            if min(pixels.shape[:2]) > short_side
            else pixels
        )

    identity = {
        "view": "training",
        "rules": RULES,
        "short_side": short_side,
        "channels": preprocess.channels,
        "interpolation": preprocess.interpolation,
        "decoder": f"{DECODER}, {JPEGS}",
        "resize": f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return Rule(make, identity)


def scaled(pixels: Pixels, short_side: int, interpolation: str) -> Pixels:
    """The image, its shorter side of `short_side` pixels: Pillow's resize but for rounding, five
    times as fast."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    size = [max(short_side, round(side * scale)) for side in (height, width)]
    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    small = resize(x, size, InterpolationMode(interpolation), antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
