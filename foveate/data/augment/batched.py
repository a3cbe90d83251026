"""Whole batches at once, from a dataset whose images are one array.

An image of 28 x 28 pixels is cropped and flipped in a few microseconds; to ask for images one by
one takes fifty times as long. So where nothing but cropping and flipping is to be done, it is done
with whole batches, by the very numbers that `Augment.draw` would draw one by one: both ways give
the same bytes, which tests/data/augment/test_batched.py asserts.
"""

import numpy as np
from numpy.typing import NDArray

from foveate.data.augment import Augment
from foveate.data.augment.geometry import Crop, Flip
from foveate.data.augment.streams import SAMPLES

Rows = NDArray[np.int64]
Words = NDArray[np.uint64]

# Philox4x64-10 (Salmon et al., SC 2011), numpy's: multipliers, key increments, rounds
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
INCREMENTS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)


class Table:
    """The images of a dataset, ready to be cropped.

    Args:
        pixels: (N, H, W, C), uint8.
        augment: whose only parts are those that `applies` allows.
        size: side of the crop, at most H and W.
    """

    def __init__(self, pixels: NDArray[np.uint8], augment: Augment, size: int):
        self.crop, self.flip, self.size = augment.part(Crop), augment.part(Flip), size
        self.height, self.width = pixels.shape[1:3]
        self.beyond = round(self.crop.padding * size) if self.crop.crop == "random" else 0
        around = (self.beyond, self.beyond)
        self.padded = (
            np.pad(pixels, ((0, 0), around, around, (0, 0)), mode="symmetric")
            if self.beyond
            else pixels
        )

    def augmented(self, rows: Rows, samples: Rows, seed: int, epoch: int) -> NDArray[np.uint8]:
        """(B, size, size, C): each row as `Augment.at(seed, epoch, sample)` would give it."""
        flip, side = self.flip, np.arange(self.size)
        if self.crop.crop == "random":
            u = uniform(seed, epoch, samples, Crop.uniforms.start // 4)
            top, left = (
                (u[:, i] * (length - self.size + 2 * self.beyond + 1)).astype(np.int64)
                for i, length in enumerate((self.height, self.width))
            )
        else:
            middle = np.array([(self.height - self.size) // 2, (self.width - self.size) // 2])
            if not (middle.any() or flip.on):
                return self.padded[rows]
            top, left = np.broadcast_to(middle[:, None], (2, len(rows)))
        first = Flip.uniforms.start
        u = uniform(seed, epoch, samples, first // 4)[:, first % 4 :]
        y = np.where((u[:, 1] < flip.vflip)[:, None], side[::-1], side) + top[:, None]
        x = np.where((u[:, 0] < flip.hflip)[:, None], side[::-1], side) + left[:, None]
        return self.padded[rows[:, None, None], y[:, :, None], x[:, None, :]]


def applies(augment: Augment) -> bool:
    """Whether an image is only cropped at its own scale and flipped; mixing comes later, with whole
    batches."""
    only = all(isinstance(part, (Crop, Flip)) for part in augment.active)
    return only and augment.part(Crop).crop != "resized"


def uniform(seed: int, epoch: int, samples: Rows, block: int) -> NDArray[np.float64]:
    """(B, 4): numbers 4 * block to 4 * block + 3 of `streams.generator(seed, epoch, sample)`, for
    each sample.

    >>> from foveate.data.augment.streams import generator
    >>> bool((uniform(3, 1, np.array([7]), 5)[0] == generator(3, 1, 7).random(24)[20:]).all())
    True
    """
    counter = [np.full(len(samples), word, np.uint64) for word in (block + 1, 0, SAMPLES)] + [
        samples.astype(np.uint64)
    ]
    key = [seed, epoch]
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = (
            product(counter[i], multiplier)
            for i, multiplier in zip((0, 2), MULTIPLIERS, strict=True)
        )
        counter = [
            high1 ^ counter[1] ^ np.uint64(key[0]),
            low1,
            high0 ^ counter[3] ^ np.uint64(key[1]),
            low0,
        ]
        key = [
            (k + increment) & 0xFFFFFFFFFFFFFFFF
            for k, increment in zip(key, INCREMENTS, strict=True)
        ]
    return (np.stack(counter, axis=1) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def product(x: Words, multiplier: int) -> tuple[Words, Words]:
    """The upper and the lower 64 bits of x times a number of 64 bits."""
    half = np.uint64(32)
    a, b = x >> half, x & LOW
    c, d = np.uint64(multiplier >> 32), np.uint64(multiplier & 0xFFFFFFFF)
    middle = a * d + ((b * d) >> half)  # cannot overflow: (2^32 - 1)^2 + 2^32 - 1 < 2^64
    upper = a * c + (middle >> half) + ((b * c + (middle & LOW)) >> half)
    return upper, x * np.uint64(multiplier)
