"""An image that makes every flip and rotation visible, and its bytes in a format."""

import io

import numpy as np
from PIL import Image


def scene(width: int = 48, height: int = 64) -> Image.Image:
    """Smooth, and different in each corner: rotations are visible and JPEG changes little."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x * y / 400)], -1).astype(
            np.uint8
        )
    )


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
