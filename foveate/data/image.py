"""Bytes to RGB pixels, in this file alone: training, prediction and export see the same image.

It applies the EXIF orientation; composites transparency on white; scales 16 bits to 8; converts
grey, palette, CMYK and 1-bit images to RGB; takes the first frame of animations. It does not apply
ICC profiles, since the published weights were trained without. A format is recognised by its
content, never by its name.
"""

import io
import os
import stat
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from foveate.errors import ImageError, quoted

Pixels = NDArray[np.uint8]  # (H, W, C), not to be written to

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm "
        ".heic .heif .avif"
    ).split()
)
MAX_PIXELS = 89_478_485  # Pillow's own limit against bombs: a quarter of a gigabyte of RGB
# part of every cached training image's key
JPEG_DECODER = f"simplejpeg {version('simplejpeg')}"
# part of every cached feature's key: raise it when the pixels change
DECODER = f"Pillow {PIL.__version__}, rules 1"

TAGGED = b"\xff\xe1"  # begins the segment that holds EXIF or XMP
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: bytes | str | os.PathLike[str], name: str = "", short_side: int | None = None
) -> Image.Image:
    """Decode an image.

    Args:
        source: the file's bytes, or its path.
        name: what to call it in messages; the path by default.
        short_side: how many pixels the caller needs on the shorter side. A JPEG four times as large
            or more is decoded at 1/2, 1/4 or 1/8 of its size, never below twice this: it is
            faster, and the caller's antialiased resize hides the difference.

    Returns:
        An image in mode RGB, upright. `np.asarray` of it is (H, W, 3), uint8.

    Raises:
        ImageError: the file cannot be read, is empty, truncated or damaged, is of another format,
            has more than MAX_PIXELS pixels, or holds numbers without a defined white (floating
            point, 32-bit integers).
    """
    if not isinstance(source, bytes):
        name = name or os.fspath(source)
        source = read_file(Path(source))
    name = name or "(bytes)"
    if not source:
        raise ImageError(f"image {name!r} is empty (0 bytes); remove it")
    try:
        image: Image.Image = Image.open(io.BytesIO(source), formats=FORMATS)
        refuse_bomb(name, image.size)
        if short_side is not None:
            image.draft(image.mode, draft_size(image.size, short_side))
        image.load()
        upright = UPRIGHT.get(orientation(image))
        image = to_rgb(image, name)
    except (ImageError, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"image {name!r} is {guess(source)}; {remedy(source)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image {name!r} is too large: {error}") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, IndexError ...
        cut = "truncated" in str(error)
        fault = "truncated (its data ends early)" if cut else f"damaged ({error})"
        raise ImageError(f"image {name!r} is {fault}; remove it") from error
    return turned(image, upright)


def load_pixels(data: bytes, name: str, short_side: int) -> NDArray[np.uint8]:
    """The pixels of `load_image`, (H, W, 3), uint8.

    A plain JPEG takes little more than half the time when many threads decode.
    """
    pixels = plain_jpeg(data, short_side)
    return np.asarray(load_image(data, name, short_side)) if pixels is None else pixels


def plain_jpeg(data: bytes, short_side: int) -> NDArray[np.uint8] | None:
    """The pixels of an upright JPEG in colour, at its full size; None for every other file.

    They equal Pillow's to the bit, but are not copied while Python's lock is held. A damaged file
    also gives None, so that every error comes from Pillow.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        reduced = min(height, width) >= 4 * short_side  # load_image decodes it at a smaller scale
        if colours not in ("YCbCr", "RGB") or reduced or height * width > MAX_PIXELS:
            return None
        if TAGGED in data and orientation(Image.open(io.BytesIO(data), formats=["JPEG"])) != 1:
            return None
        return simplejpeg.decode_jpeg(data)
    # simplejpeg raises ValueError for a damaged file, Pillow OSError for a damaged header
    except (ValueError, OSError):
        return None


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; ImageError with the reason if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{quoted(path)} is not a regular file; remove it")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"image {quoted(path)} cannot be read: {reason}") from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError(f"image {quoted(path)} cannot be read: {error}") from error


def refuse_bomb(name: str, size: tuple[int, int]) -> None:
    """ImageError if there are too many pixels; called before any is allocated."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"image {name!r} has {width}x{height} pixels, more than {MAX_PIXELS:,}; make it smaller"
        )


def draft_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The least size at which a JPEG may be decoded: its shorter side twice the one needed."""
    scale = 2 * short_side / min(size)
    return (round(size[0] * scale), round(size[1] * scale)) if scale < 1 else size


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) when there is none or the EXIF block is damaged."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except (
        Exception
    ):  # Pillow raises many kinds for a damaged block, which leaves the pixels intact
        return 1


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert any mode of FORMATS to RGB."""
    # Pillow scales PPM of more than 8 bits to 16, in mode I
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError(
            f"image {name!r} holds {kind} numbers, whose white is not defined; save it with 8 or "
            "16 bits"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image, as `load_image` gives its file."""
    try:
        image.load()
    except Exception as error:  # as in load_image: Pillow decodes when pixels are first wanted
        raise ImageError(f"image {name!r} is damaged ({error})") from error
    turn = UPRIGHT.get(orientation(image))
    image = to_rgb(image, name)
    return turned(image, turn)


def turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """The image turned upright, without what said that it was not: it might be turned again."""
    if turn is None:
        return image
    image = image.transpose(turn)
    for name in ("exif", "xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    return image


def guess(data: bytes) -> str:
    """What a file that cannot be decoded seems to be, for the message."""
    head = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data[4:8] == b"ftyp":
        return "HEIC or AVIF"
    if head[:4] in (b"%PDF", b"PK\x03\x04") or head[:2] in (b"\x1f\x8b", b"%!"):
        return "a document or an archive, not an image"
    if head[:1] == b"<":
        return "SVG, HTML or XML text, not an image of pixels"
    return (
        "not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM), or its first bytes "
        "are damaged"
    )


def remedy(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return (
            "convert it to JPEG or PNG (on a Mac: `sips -s format jpeg`, elsewhere `heif-convert`)"
        )
    return "remove it"
