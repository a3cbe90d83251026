"""Which values become black and white, of images with more than 8 bits a channel.

A camera's 12 bits in a file of 16 would be nearly black if 65535 were white, and of floating-point
numbers nobody knows what white is. The levels are found once, in the training images, and are then
part of the run's Preprocess: an image scaled by its own extremes would lose what its brightness
says.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset, evenly_spaced
from foveate.data.image import (
    Levels,
    deep_values,
    load_image,
    low_bytes,
    may_be_deep,
    opened,
    quiet,
    refuse_bomb,
)
from foveate.data.workers import LIMIT, work_ahead
from foveate.errors import ImageError

INSPECTED = 200  # training images that are looked at, evenly spaced
VALUES = 10_000  # of an image, evenly spaced
OUTSIDE = 0.01  # per cent of the values at either end that may be a sensor's dead or hot pixels


class Found(NamedTuple):
    """Levels, None where the rule for 16 bits holds, and a sentence for people; or ""."""

    levels: Levels | None
    note: str


class Sample(NamedTuple):
    """Of one image with more than 8 bits."""

    values: NDArray[Any]
    least: float
    greatest: float
    unsigned: bool  # of 16 bits, which have a rule without levels


def find_levels(dataset: Dataset, rows: NDArray[np.int64], threads: int) -> Found:
    """The levels of a dataset, from INSPECTED of the rows.

    Raises:
        ImageError: a file does not come within `workers.LIMIT`.
    """
    if dataset.pixels is not None:
        return Found(None, "")

    def inspect(row: int) -> Sample | None:
        try:
            return sample_of(dataset.read(row), dataset.files[row])
        except ImageError:  # whoever decodes it for use says why
            return None

    chosen = [int(row) for row in evenly_spaced(rows, INSPECTED)]
    name = dataset.files.__getitem__
    outcomes = list(work_ahead(chosen, inspect, name, threads, 4 * threads, LIMIT))
    samples = [sample for sample in outcomes if sample is not None]
    if not samples:
        return Found(None, "")
    levels = choose_levels(samples)
    if levels is None:
        return Found(None, "")
    few = "" if len(samples) == len(chosen) else f" ({len(samples)} of {len(chosen)} looked at)"
    return Found(
        levels,
        f"images with more than 8 bits a channel{few}: values from {levels[0]:g} to "
        f"{levels[1]:g}, as the training images have them, become 0 to 255, in prediction too",
    )


def sample_of(data: bytes, name: str) -> Sample | None:
    """Values of an image; None if it has 8 bits a channel, or no finite value."""
    if not may_be_deep(data):
        return None
    with quiet(data):
        try:
            image = opened(data, name)
            refuse_bomb(name, image.size)
            image.load()
            values = deep_values(image, low_bytes(data))
        except (ImageError, MemoryError):
            raise
        except Exception:  # damaged: the error, in full, is load_image's
            load_image(data, name)
            return None
    if values is None:
        return None
    unsigned = values.dtype.kind == "u"
    flat = values.reshape(-1)
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return None
    least, greatest = float(flat.min()), float(flat.max())
    return Sample(
        flat[:: max(1, len(flat) // VALUES)].astype(np.float64), least, greatest, unsigned
    )


def choose_levels(samples: list[Sample]) -> Levels | None:
    """The least number of bits that holds all values, or 0 to 1; where nearly all values lie in
    less than half of that, as a thermal camera's do, from the lowest to the highest of them.

    Args:
        samples: at least one.

    Returns:
        None for unsigned 16 bits that are used in full: their high byte is kept.
    """
    values = np.concatenate([sample.values for sample in samples])
    low, high = (float(p) for p in np.percentile(values, [OUTSIDE, 100 - OUTSIDE]))
    least = min(sample.least for sample in samples)
    greatest = max(sample.greatest for sample in samples)
    full: Levels | None = None
    if least >= 0 and greatest <= 1:
        full = (0.0, 1.0)
    elif least >= 0 and all((sample.values % 1 == 0).all() for sample in samples):
        full = (0.0, float(2 ** max(8, int(greatest).bit_length()) - 1))
    if full and high - low >= (full[1] - full[0]) / 2:
        in_full = full[1] == 65535 and all(sample.unsigned for sample in samples)
        return None if in_full else full
    if high > low:
        return low, high
    return None if all(sample.unsigned for sample in samples) else (least, least + 1)
