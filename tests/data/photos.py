"""An image of soft colours, as Pillow gives it and as torch has it; what is drawn for it."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from foveate.data.augment import Augment
from foveate.data.augment.part import ImagePart


def photo(height: int = 50, width: int = 70, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Soft blobs of colour, in an array that may not be written to, as those of Pillow."""
    coarse = (
        np.random.default_rng(seed).integers(0, 256, (5, 6, channels), dtype=np.uint8).squeeze()
    )
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def planes(size: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(photo(size, size, channels, seed).copy()).permute(2, 0, 1).float()


def drawn(
    augment: Augment, kind: type[ImagePart], index: int, shape=(40, 40, 3), size: int = 40
) -> Any:
    """What a part draws for image `index`; None if nothing happens."""
    steps = augment.draw(0, 0, index, shape, size)
    return {type(part): what for part, what in steps}.get(kind)
