"""What a network that starts at random reads: the pictures' size, channels and scale, chosen by looking at them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.catalogue import CATALOGUE
from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.data.loader import decode_ahead
from foveate.data.preprocess import Preprocess
from foveate.errors import DataError, ImageError

LOOKED_AT = 500  # pictures, evenly spaced
SMALL = 64  # networks for pictures up to this side are shown smaller ones as they are


class Seen(NamedTuple):
    """What pictures are like.

    Args:
        grey: all of them.
        short_side: the median's, pixels.
        mean, std: of red, green and blue, from 0 to 1, over all pixels.
    """

    grey: bool
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def look_at(dataset: Dataset, rows: NDArray[np.int64], threads: int) -> Seen:
    """Look at LOOKED_AT of the pictures; those that cannot be read are passed over.

    Raises:
        DataError: none can be read.
    """
    sides: list[int] = []
    sums: list[NDArray[np.float64]] = []
    grey = True

    def small(row: int) -> NDArray[np.uint8]:
        image = load_image(dataset.read(row), dataset.files[row])
        sides.append(min(image.size))
        image.thumbnail((SMALL, SMALL))
        return np.asarray(image)

    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).round().astype(int)]
    as_read = Preprocess(SMALL, SMALL)
    reasons: list[str] = []
    for _, pixels in decode_ahead([int(row) for row in chosen], small, dataset.files.__getitem__, as_read, threads):
        if isinstance(pixels, ImageError):
            reasons.append(str(pixels))
            continue
        grey = grey and bool((pixels == pixels[:, :, :1]).all())
        values = pixels.reshape(-1, 3) / 255
        sums.append(np.stack([values.mean(axis=0), (values**2).mean(axis=0)]))
    if not sums:
        told = "\n  ".join(reasons[:5])
        raise DataError(f"none of the training pictures of '{dataset.name}' can be read:\n  {told}")
    mean, square = np.mean(sums, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    return Seen(grey, int(np.median(sides)), tuple(mean.round(4).tolist()), tuple(std.round(4).tolist()))


def choose_inputs(model: str, smallest: int, seen: Seen, size: int | None, channels: int | None) -> Preprocess:
    """The Preprocess of a random start.

    Args:
        model: a network's name.
        smallest: the side that it can read at least.
        seen: what the training pictures are like.
        size: what was asked; by default the network's own, and for networks of small pictures that of the pictures
            where they are smaller still.
        channels: what was asked; by default 1 where all pictures are grey.
    """
    own = CATALOGUE[model].input_size
    if size is None:
        size = max(smallest, min(own, seen.short_side)) if own <= SMALL else own
    channels = channels or (1 if seen.grey else 3)
    mean = seen.mean if channels == 3 else (round(float(np.mean(seen.mean)), 4),)
    std = seen.std if channels == 3 else (round(float(np.mean(seen.std)), 4),)
    return Preprocess(size, size, channels=channels, mean=mean, std=std)
