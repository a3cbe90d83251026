"""What may be given to be classified: a path, bytes, an open file, an array, a PIL image; or many
of these."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.classifier.tta import Squares
from foveate.data.dataset import Dataset
from foveate.data.image import read_file, upright_rgb
from foveate.data.listing import images_below
from foveate.data.preprocess import Preprocess, View, decode_squares
from foveate.errors import DataError, ImageError, UsageError

Decoded = Squares | ImageError


@dataclass(frozen=True)
class Given:
    """An image that was given: its name, and a path, bytes, what reads them, an array or a PIL
    image."""

    name: str
    content: Any

    def squares(
        self,
        preprocess: Preprocess,
        on_image: Callable[[View, Image.Image], object] | None = None,
    ) -> Squares:
        """(side, side, channels), uint8, of each view; ImageError if it cannot be read. `on_image`
        is as for `decode_squares`."""
        content = self.content
        if isinstance(content, np.ndarray):
            content = Image.fromarray(content)
        if isinstance(content, Image.Image):
            image = upright_rgb(content, self.name, preprocess.levels)
            if on_image is not None:
                on_image(preprocess.views[0], image)
            return preprocess.squares(image)
        if callable(content):
            content = content()
        data = content if isinstance(content, bytes) else read_file(content)
        return decode_squares(data, self.name, preprocess, on_image=on_image)


TAKEN = "a path, bytes, an open file, a PIL image or an array (H, W, 3) of uint8"


def is_many(source: Any) -> bool:
    """Whether a source stands for several images: a folder, an array of four dimensions, or an
    iterable that is no image itself."""
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    if isinstance(source, Dataset):
        return True
    if isinstance(source, (str, os.PathLike)):
        return bool(os.fspath(source)) and is_folder(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview, Image.Image)) or hasattr(source, "read"):
        return False
    return isinstance(source, Iterable) and not hasattr(source, "detach")  # a torch tensor


def expand(sources: Any) -> Iterator[Given]:
    """Each image among what was given, one after the other."""
    if isinstance(sources, (str, os.PathLike, Dataset)):
        sources = [sources]
    for source in sources:
        yield from expand_one(source)


def expand_one(source: Any) -> Iterator[Given]:
    if isinstance(source, Image.Image):
        yield Given(getattr(source, "filename", "") or "(image)", source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield Given("(bytes)", bytes(source))
    elif isinstance(source, Dataset):
        yield from (Given(name, partial(source.read, i)) for i, name in enumerate(source.files))
    elif isinstance(source, np.ndarray):
        yield Given("(array)", checked_array(source))
    elif hasattr(source, "read"):
        try:
            content = source.read()
        except ValueError as error:
            raise UsageError(f"an image is {TAKEN}, not a file that is closed") from error
        if not isinstance(content, bytes):
            raise UsageError("an open file must be opened in binary mode: open(path, 'rb')")
        yield Given(str(getattr(source, "name", "(file)")), content)
    elif isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):  # Path("") is the working folder
            raise DataError("no such image: the name '' is empty")
        path = Path(source)
        if not is_folder(path):
            yield Given(str(path), path)
            return
        images, _ = images_below(path)
        yield from (Given(str(p), p) for p in images)
    elif hasattr(source, "detach"):
        raise UsageError(
            f"an image is {TAKEN}, not a tensor: give tensor.permute(1, 2, 0).numpy() of the uint8 "
            "image, before it is normalised"
        )
    else:
        raise UsageError(f"an image is {TAKEN}, not {kind_of(source)}")


def checked_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1) or (H, W, 3), uint8; UsageError for anything else."""
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    if array.dtype != np.uint8 or not fits or 0 in array.shape:
        raise UsageError(
            f"an array is (H, W, 3) RGB or (H, W) grey, uint8, not {array.shape} {array.dtype}"
        )
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def kind_of(value: Any) -> str:
    """A value's type, for a message."""
    return f"{type(value).__name__}"


def is_folder(path: Path) -> bool:
    """Whether it is one; an impossible name is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
