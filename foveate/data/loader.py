"""Decode pictures in threads, ahead of whoever reads them, in order and with bounded memory."""

import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.data.preprocess import Preprocess
from foveate.data.threads import LIMIT, work_ahead
from foveate.errors import ImageError

AHEAD_BYTES = 256 << 20  # decoded pixels that may wait


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(data: bytes, name: str, preprocess: Preprocess) -> NDArray[np.uint8]:
    """A picture's bytes -> (crop, crop, channels), uint8. Everything that shows pictures to a network calls this."""
    return preprocess.pixels(load_image(data, name, short_side=preprocess.resize))


def as_prediction_sees(dataset: Dataset, preprocess: Preprocess) -> NDArray[np.uint8] | None:
    """All pictures of a built-in set as `decode` would give them, if it would leave them as they are."""
    array = dataset.array(preprocess.channels, preprocess.crop)
    fits = array is not None and array.shape[1] == array.shape[2] and preprocess.crop == preprocess.resize
    return array if fits else None


def decode_ahead(
    rows: Iterable[int],
    decode_row: Callable[[int], NDArray[np.uint8]],
    name: Callable[[int], str],
    preprocess: Preprocess,
    threads: int,
) -> Iterator[tuple[int, NDArray[np.uint8] | ImageError]]:
    """Decode rows in threads and give them in order; a picture that cannot be decoded gives its error.

    Pillow releases the interpreter's lock while it decodes and resizes, so threads use the cores, and nothing has to
    be sent between processes.

    Raises:
        ImageError: a file, named by `name`, does not come in time.
    """

    def attempt(row: int) -> tuple[int, NDArray[np.uint8] | ImageError]:
        try:
            return row, decode_row(row)
        except ImageError as error:
            return row, error

    ahead = max(2 * threads, AHEAD_BYTES // (preprocess.crop**2 * preprocess.channels))
    return work_ahead(rows, attempt, name, threads, ahead, LIMIT)
