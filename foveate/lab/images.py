"""Data sets as tensors, small enough that an experiment learns from them in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveate.data.builtin import fashion_is_here
from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.data.layouts import load_dataset
from foveate.errors import DataError, ImageError

TEST = 0.2  # of the images, where a data set has no test split
FEWEST = 20  # images of a class, of which there have to be two


@dataclass(frozen=True)
class Images:
    """Images and their classes; each channel has mean 0 and variance 1 over `x`.

    Args:
        name: of the data set.
        x, y: to learn from: (N, C, side, side), float32; (N,), int64.
        test_x, test_y: to be judged by.
        classes: their names, by number.
        mean, spread: (C,), by which channels were standardised: pixel = x * spread + mean, in
            [0, 1].
    """

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    mean: Tensor
    spread: Tensor

    @property
    def channels(self) -> int:
        return int(self.x.shape[1])

    def unit(self, x: Tensor) -> Tensor:
        """Standardised images as pixels again, in [0, 1]."""
        return (x * self.spread[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def standardised(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] as the images of `x` are."""
        return (pixels - self.mean[:, None, None]) / self.spread[:, None, None]

    def few(self, each: int) -> "Images":
        """The same with the first so many images of each class to learn from."""
        rows = torch.cat([torch.nonzero(self.y == c)[:each, 0] for c in range(len(self.classes))])
        return Images(
            self.name,
            self.x[rows],
            self.y[rows],
            self.test_x,
            self.test_y,
            self.classes,
            self.mean,
            self.spread,
        )


def load(
    data: str, side: int, most: int, seed: int, note: Callable[[str], None], asked: bool
) -> Images:
    """A data set's images as tensors, in an order that the seed decides.

    Args:
        data: "digits", "fashion-mnist", or whatever `load_dataset` takes.
        side: pixels; a photo's middle square is scaled to them.
        most: images to learn from, and a quarter of that to be judged by; 0 for all.
        note: receives a sentence if digits take the place of Fashion-MNIST.
        asked: whether the user named the data: then nothing takes their place.

    Raises:
        DataError: fewer than two classes with 20 images each; an image cannot be read.
    """
    if data == "fashion-mnist" and not asked and not fashion_is_here():
        note("Fashion-MNIST is not on this machine: digits take its place, and are easier")
        data = "digits"
    dataset = load_dataset(data)
    if dataset.task == "multilabel":
        raise DataError(f"'{dataset.name}' has several labels an image; experiments take one")
    sizes = np.bincount(dataset.labels, minlength=len(dataset.classes))
    enough = np.flatnonzero(sizes >= FEWEST)
    if len(enough) < 2:
        raise DataError(
            f"'{dataset.name}' has {len(enough)} classes with {FEWEST} images or more; an "
            "experiment needs two: add images, or leave --data out"
        )
    kept = np.flatnonzero(np.isin(dataset.labels, enough))
    if len(enough) < len(sizes):
        left_out = len(sizes) - len(enough)
        note(f"{left_out} classes have fewer than {FEWEST} images and are left out")
    order = np.random.default_rng(seed).permutation(kept)
    learn, judge = parts(dataset, order)
    if most:
        learn, judge = learn[:most], judge[: max(most // 4, 200)]
    grey = dataset.pixels is not None and dataset.pixels.shape[-1] == 1
    x, test_x = (pixels(dataset, rows, side, grey) for rows in (learn, judge))
    number = np.full(len(sizes), -1)
    number[enough] = np.arange(len(enough))
    y, test_y = (torch.from_numpy(number[dataset.labels[rows]]) for rows in (learn, judge))
    mean, spread = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3)) + 1e-6

    def standardised(images: Tensor) -> Tensor:
        return (images - mean[:, None, None]) / spread[:, None, None]

    classes = tuple(dataset.classes[c] for c in enough)
    x, test_x = standardised(x), standardised(test_x)
    return Images(dataset.name, x, y, test_x, test_y, classes, mean, spread)


def parts(
    dataset: Dataset, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows to learn from and to be judged by, in this order."""
    test = np.array([split == "test" for split in dataset.splits])[order]
    if not test.any():  # the same share of each class
        for c in np.unique(dataset.labels):
            rows = np.flatnonzero(dataset.labels[order] == c)
            test[rows[: max(1, round(TEST * len(rows)))]] = True
    return order[~test], order[test]


def pixels(dataset: Dataset, rows: NDArray[np.int64], side: int, grey: bool) -> Tensor:
    """(N, C, side, side), in [0, 1], of which C is 1 or 3."""
    found = np.empty((len(rows), side, side, 1 if grey else 3), np.uint8)
    for i, row in enumerate(rows.tolist()):
        try:
            image = load_image(dataset.read(row), dataset.files[row])
        except ImageError as error:
            raise DataError(f"{error}: remove it, or use other images") from error
        image = image.convert("L" if grey else "RGB")
        short = min(image.size)
        left, top = ((size - short) / 2 for size in image.size)
        box = (left, top, left + short, top + short)
        image = image.resize((side, side), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
        found[i] = np.asarray(image).reshape(side, side, -1)
    return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255
