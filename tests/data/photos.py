"""A smooth image, as Pillow and as torch have it, and a view of it that changes nothing."""

import numpy as np
import torch
from PIL import Image

from foveate.data.augment.policies import Augmentation
from foveate.data.augment.view import draw, generator


def photo(height: int = 50, width: int = 70, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Soft blobs of colour, in an array that may not be written to, as those of Pillow."""
    coarse = (
        np.random.default_rng(seed).integers(0, 256, (5, 6, channels), dtype=np.uint8).squeeze()
    )
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def planes(size: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(photo(size, size, channels, seed).copy()).permute(2, 0, 1).float()


PLAIN = draw(Augmentation(), (40, 40, 3), 40, generator(0, 0, 0))  # a look at which nothing happens
