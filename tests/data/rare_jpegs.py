"""JPEGs that no common program writes."""

import struct

import numpy as np


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A lossless JPEG (ITU-T T.81, annex H) of (H, W), uint8: each pixel as its difference from
    the one before it, with a Huffman table whose codes all have four bits."""
    height, width = grey.shape
    rows = grey.astype(int)
    before = np.empty_like(rows)
    before[:, 1:], before[1:, 0], before[0, 0] = rows[:, :-1], rows[:-1, 0], 128
    bits = []
    for difference in (rows - before).ravel().tolist():
        size = abs(difference).bit_length()
        low = difference if difference >= 0 else difference + (1 << size) - 1
        bits.append(f"{size:04b}" + (f"{low:0{size}b}" if size else ""))
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    coded = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
        + segment(0xC4, bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)]))
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + coded
        + b"\xff\xd9"
    )


def with_sampling(jpeg: bytes, first: int) -> bytes:
    """A JPEG whose frame says other sampling factors of its first component."""
    at = jpeg.index(b"\xff\xc0") + 11
    return jpeg[:at] + bytes([first]) + jpeg[at + 1 :]
