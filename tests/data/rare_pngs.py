"""PNGs that Pillow does not write."""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(values: np.ndarray, alpha: bool = False) -> bytes:
    """A PNG of (H, W, 3) with 16 bits a channel; with alpha it is opaque."""
    height, width, _ = values.shape
    if alpha:
        values = np.concatenate([values, np.full((height, width, 1), 65535)], axis=2)
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    return (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(filtered.tobytes()))
        + chunk(b"IEND", b"")
    )
