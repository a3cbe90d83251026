"""Augmentation: another look at a training image each epoch, the same for the same (seed, epoch,
image).

    kept image (H, W, C), uint8 ── draw ──> View ── render ──> (C, size, size), uint8

Order: crop and resize, mirror, affine (one resampling), colour, PCA colour, automatic operations,
erasing. What lies outside an image is its mirror image; the automatic operations alone have black
there, as published.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from foveate.data.augment import auto
from foveate.data.augment.pca import PAPER_PCA, fit_pca
from foveate.data.augment.policies import Augmentation
from foveate.data.augment.view import Box, View, draw
from foveate.data.dataset import Dataset
from foveate.data.decoding import for_training
from foveate.data.image import Pixels
from foveate.data.preprocess import Preprocess
from foveate.data.workers import decode_ahead
from foveate.errors import ImageError

GREY = np.array([0.2989, 0.587, 0.114])  # luma of red, green and blue
PCA_IMAGES = 500  # are enough to know the colours of any set


def augment(
    pixels: Pixels, augmentation: Augmentation, size: int, rng: np.random.Generator
) -> Tensor:
    """One look at one image.

    Args:
        pixels: (H, W, C), uint8, C of 3 or 1; `source.for_training` gives it. It is not changed.
        augmentation: what may happen; with `pca_colour`, after `with_pca`.
        size: side of what the network reads.
        rng: `generator(seed, epoch, sample)`.

    Returns:
        (C, size, size), uint8, a tensor of its own memory, whose strides are whatever was fastest.
    """
    return drawn(pixels, augmentation, size, rng)()


def drawn(
    pixels: Pixels, augmentation: Augmentation, size: int, rng: np.random.Generator
) -> Callable[[], Tensor]:
    """`augment`, its numbers drawn and its pixels still to be made."""
    assert pixels.dtype == np.uint8 and pixels.ndim == 3, (pixels.dtype, pixels.shape)
    if augmentation.crop != "resized" and min(pixels.shape[:2]) < size:
        pixels = enlarge(pixels, size)
    return partial(render, pixels, draw(augmentation, pixels.shape, size, rng), size)


def with_pca(
    augmentation: Augmentation,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocess: Preprocess,
    threads: int,
) -> Augmentation:
    """The augmentation with its principal components filled in, if PCA colour is on.

    They are fitted to at most PCA_IMAGES images, evenly spaced among `rows`, without those that
    cannot be read.

    Args:
        augmentation: as `policy.resolve` gives it.
        dataset: where the images are.
        rows: of the training images.
        preprocess: at whose scale the colours are looked at; three channels.
        threads: to decode in.

    Raises:
        DataError: none of the images can be read.
    """
    if not augmentation.pca_colour or augmentation.pca is not None:
        return augmentation
    if augmentation.pca_from == "imagenet":
        return replace(augmentation, pca=PAPER_PCA)

    rule = for_training(preprocess, preprocess.resize)

    def decode_row(row: int) -> Pixels:
        return rule.make(dataset.read(row), dataset.files[row])

    def images() -> Iterator[Pixels]:
        spaced = np.linspace(0, len(rows) - 1, min(len(rows), PCA_IMAGES)).round().astype(int)
        chosen = [int(row) for row in rows[spaced]]
        for _, outcome in decode_ahead(
            chosen, decode_row, dataset.files.__getitem__, preprocess, threads
        ):
            if not isinstance(outcome, ImageError):
                yield outcome

    return replace(augmentation, pca=fit_pca(images()))


def render(pixels: Pixels, view: View, size: int) -> Tensor:
    """An image as the view says: (C, size, size), uint8."""
    x = cut(pixels, view.box, size)
    turned = [dim for dim, turn in ((-1, view.mirror), (-2, view.upside_down)) if turn]
    if turned:
        x = x.flip(turned)
    if view.bends or view.tints:
        # rounded once, at the end
        planes = x.to(torch.float32, memory_format=torch.contiguous_format)
        if view.bends:
            planes = bend(planes, view)
        if view.tints:
            planes = tint(planes, view)
        # six times as fast as torch's
        x = torch.from_numpy(planes.clamp_(0, 255).round_().numpy().astype(np.uint8))
    if view.operations:
        # most of them are faster plane by plane
        x = torch.from_numpy(np.ascontiguousarray(x.numpy()))
        for operation in view.operations:
            x = auto.apply(operation, x)
    if view.erased and view.noise is not None:
        top, left, h, w = view.erased
        x[:, top : top + h, left : left + w] = torch.from_numpy(view.noise).permute(2, 0, 1)
    return x


def cut(pixels: Pixels, box: Box, size: int) -> Tensor:
    """The box, resized: (C, size, size), uint8, in memory of its own."""
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
    return (
        x
        if (h, w) == (size, size)
        else F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    )[0]


def enlarge(pixels: Pixels, size: int) -> Pixels:
    """An image whose shorter side is less than `size`, brought to it."""
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    target = [max(size, round(height * scale)), max(size, round(width * scale))]
    return resize(torch.from_numpy(pixels.copy()).permute(2, 0, 1), target).permute(1, 2, 0).numpy()


def bend(planes: Tensor, view: View) -> Tensor:
    """Rotate, move, scale and shear in one resampling: (C, S, S), float32."""
    size = planes.shape[-1]
    cos, sin = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    slant = math.tan(math.radians(view.shear))
    # a point goes to R(angle) * zoom * [[1, -slant], [0, 1]] * point + move; the grid says where
    # each pixel comes from
    xx, xy = (cos - sin * slant) / view.zoom, (sin + cos * slant) / view.zoom
    yx, yy = -sin / view.zoom, cos / view.zoom
    right, down = 2 * view.move[0], 2 * view.move[1]  # the side is 2 long: from -1 to 1
    x = torch.linspace(1 / size - 1, 1 - 1 / size, size)
    y = x[:, None]
    grid = torch.empty(1, size, size, 2)
    torch.add(x * xx - (xx * right + xy * down), y * xy, out=grid[0, :, :, 0])
    torch.add(x * yx - (yx * right + yy * down), y * yy, out=grid[0, :, :, 1])
    return F.grid_sample(planes[None], grid, padding_mode="reflection", align_corners=False)[0]


def tint(planes: Tensor, view: View) -> Tensor:
    """Brightness, contrast and saturation as one linear map of the colours, then hue, then the
    shift of PCA colour."""
    channels = planes.shape[0]
    if (view.brightness, view.contrast, view.saturation) != (1, 1, 1):
        grey = GREY if channels == 3 else np.ones(1)
        saturate = view.saturation * np.eye(channels) + (1 - view.saturation) * grey
        colours = torch.from_numpy(view.contrast * view.brightness * saturate).float()
        offset = torch.zeros(channels, 1)
        # about the mean grey; in double precision, so that the order of adding does not show
        if view.contrast != 1:
            mean = grey @ planes.mean(dim=(1, 2), dtype=torch.float64).numpy()
            offset += float((1 - view.contrast) * view.brightness * mean)
        planes = torch.addmm(offset, colours, planes.flatten(1)).view_as(planes).clamp_(0, 255)
    if view.hue:
        planes = turn_hue(planes, view.hue)
    if any(view.shift):
        planes = planes.add_(255 * torch.tensor(view.shift)[:, None, None])
    return planes


def turn_hue(planes: Tensor, turns: float) -> Tensor:
    """Hue, as the angle in HSV, further by some turns: (3, H, W). Value and saturation stay."""
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    hue = torch.where(  # in sixths of a turn, from red
        value == red,
        green - blue,
        torch.where(
            value == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4)
        ),
    )
    hue = hue.div_(chroma.clamp(min=1e-6)).add_(6 * turns)
    hue.sub_((hue / 6).floor_(), alpha=6)
    shares = ((hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_())
    return torch.stack([torch.addcmul(least, chroma, share.clamp_(0, 1)) for share in shares])
