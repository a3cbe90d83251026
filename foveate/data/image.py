"""Bytes to RGB pixels, in this file alone: training, prediction and export see the same image.

It applies the EXIF orientation; composites transparency on white; scales more than 8 bits to 8;
converts grey, palette, CMYK and 1-bit images to RGB; takes the first frame of animations. It does
not apply ICC profiles, since the published weights were trained without. A format is recognised by
its content, never by its name.

    JPEG ── libjpeg's own interface ── pixels          no complaint: the file is whole
              └─ a complaint ── Pillow ── pixels, and what was wrong with the file
    all else ── Pillow ── pixels
                  └─ a failure ── once more without what pixels do not need ── pixels, or ImageError
"""

import io
import os
import re
import stat
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import checked_path, whole_number
from foveate.errors import ImageError, quoted

Pixels = NDArray[np.uint8]  # (H, W, C), not to be written to
Levels = tuple[float, float]  # values that become 0 and 255, of images with more than 8 bits

PLUGINS = {  # Pillow's, by format; one that is not needed is not loaded
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "PPM": "PpmImagePlugin",
    "WEBP": "WebPImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
}
SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm "
        ".heic .heif .avif"
    ).split()
)
MAX_PIXELS = 1 << 28  # a gigabyte in Pillow's memory; phones make photos of 200 million pixels
SCRATCH_BYTES = 4 << 20  # a million pixels: after its scaling hardly a JPEG has more
MAX_BYTES = 2 << 30  # of a file: the largest image of 16 bits and three colours fits
# part of every cached training image's key
JPEG_DECODER = f"simplejpeg {version('simplejpeg')}"
# part of every cached feature's key: raise it when the pixels change
DECODER = f"Pillow {PIL.__version__}, rules 1"

JPEG, PNG, END_OF_JPEG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd9"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)  # frames that cannot be decoded at a smaller scale
EXACT = 64  # pixels of the shorter side from which libjpeg's scales have sizes of their own
TAGGED = b"\xff\xe1"  # begins the segment that holds EXIF or XMP
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")  # of a PNG
# what an unpacker of Pillow's that keeps the high bytes becomes to keep the low ones
NATIVE_LOW = "16B" if sys.byteorder == "little" else "16L"
LOW_BYTES = {
    f"{mode};{order}": f"{mode};{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("16B", "16L"), ("16L", "16B"), ("16N", NATIVE_LOW))
}
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


class Scratch(threading.local):
    """Memory for the pixels of one image, of each thread: fresh memory would cost a tenth of what
    decoding costs."""

    memory = np.empty(0, np.uint8)

    def of(self, size: int) -> Pixels:
        if size > SCRATCH_BYTES:
            return np.empty(size, np.uint8)
        if len(self.memory) < size:
            self.memory = np.empty(size, np.uint8)
        return self.memory[:size]


SCRATCH = Scratch()


def load_image(
    source: bytes | str | os.PathLike[str],
    name: str = "",
    short_side: int | None = None,
    levels: Levels | None = None,
    on_damage: Callable[[str], object] | None = None,
) -> Image.Image:
    """Decode an image.

    Args:
        source: the file's bytes, or its path.
        name: what to call it in messages; the path by default.
        short_side: how many pixels the caller needs on the shorter side. A JPEG four times as large
            or more is decoded at 1/2, 1/4 or 1/8 of its size, never below twice this: it is
            faster, and the caller's antialiased resize hides the difference.
        levels: of an image with more than 8 bits a channel, the values that become 0 and 255; what
            lies outside is cut off. By default 16 bits keep their high byte.
        on_damage: called with a sentence if the file is damaged and was decoded all the same: a
            JPEG of whose coded data libjpeg complains.

    Returns:
        An image in mode RGB, upright. `np.asarray` of it is (H, W, 3), uint8.

    Raises:
        ImageError: the file cannot be read, is empty, truncated or damaged, is of another format,
            has more than MAX_PIXELS pixels, or, without `levels`, holds numbers without a defined
            white (floating point, 32-bit integers).
        UsageError: the source is neither bytes nor a path; a short side below 1.
    """
    if short_side is not None:
        short_side = whole_number("short_side", short_side, 1)
    data, name = named_bytes(source, name)
    if data.startswith(JPEG):
        pixels = jpeg_pixels(data, short_side, to_copy=True)
        if isinstance(pixels, str):
            return jpeg_by_pillow(data, name, short_side, pixels, on_damage)
        height, width, _ = pixels.shape
        image = Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")
        return turned(image, UPRIGHT.get(jpeg_orientation(data)))
    try:
        return by_pillow(data, name, short_side, levels)
    except ImageError:
        needed = png_pixels_alone(data) if data.startswith(PNG) else data
        if needed == data:
            raise
    return by_pillow(needed, name, short_side, levels)


def load_pixels(
    data: bytes,
    name: str,
    short_side: int,
    levels: Levels | None = None,
    on_damage: Callable[[str], object] | None = None,
) -> NDArray[np.uint8]:
    """The pixels of `load_image`, (H, W, 3), uint8.

    An upright JPEG takes little more than half the time when many threads decode: it is not copied
    into an image, which is done under Python's lock.
    """
    if data.startswith(JPEG) and jpeg_orientation(data) not in UPRIGHT:
        pixels = jpeg_pixels(data, short_side)
        if not isinstance(pixels, str):
            return pixels
    return np.asarray(load_image(data, name, short_side, levels, on_damage))


def named_bytes(source: bytes | str | os.PathLike[str], name: str) -> tuple[bytes, str]:
    """A file's bytes, and what to call it in messages."""
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
    if not isinstance(source, bytes):
        path = checked_path("an image is a file's bytes or its path", source)
        name = name or os.fspath(source)
        source = read_file(path)
    name = name or "(bytes)"
    if not source:
        raise ImageError(f"image {name!r} is empty (0 bytes); remove it")
    return source, name


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; ImageError with the reason if it cannot be read."""
    try:
        found = path.stat()  # before it is opened: to open a FIFO waits for who writes to it
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{quoted(path)} is not a regular file; remove it")
        if found.st_size > MAX_BYTES:
            raise ImageError(
                f"image {quoted(path)} has {found.st_size:,} bytes, more than {MAX_BYTES:,}; make "
                "it smaller"
            )
        return path.read_bytes()
    except ImageError:  # a ValueError too
        raise
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"image {quoted(path)} cannot be read: {reason}") from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError(f"image {quoted(path)} cannot be read: {error}") from error


# JPEG


def jpeg_pixels(
    data: bytes, short_side: int | None, to_copy: bool = False
) -> NDArray[np.uint8] | str:
    """The pixels of a JPEG as they are stored, or why they are left to Pillow.

    They equal Pillow's to the bit, at every scale. libjpeg's warnings are errors here, which Pillow
    does not pass on: a file whose pixels are given is whole.

    Args:
        data: the file.
        short_side: as for `load_image`.
        to_copy: give (H, W, 4), as Pillow keeps pixels, and in memory that the next call of this
            thread may write to: an image is then made as fast as Pillow makes it.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray") or height * width > MAX_PIXELS:
            return ""
        scale = jpeg_scale((width, height), short_side)
        if scale > 1 and jpeg_frame(data)[0] in LOSSLESS:
            scale = 1
        if scale > 1 and min(height, width) < EXACT:
            return ""
        height, width = -(-height // scale), -(-width // scale)
        options: dict[str, Any] = {"min_height": height, "min_width": width}
        if to_copy:
            options |= {"colorspace": "RGBX", "buffer": SCRATCH.of(4 * height * width)}
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, **options)
        return pixels
    except Exception as error:  # ValueError, and KeyError of a subsampling that it has no name for
        return str(error)


def jpeg_by_pillow(
    data: bytes,
    name: str,
    short_side: int | None,
    complaint: str,
    on_damage: Callable[[str], object] | None,
) -> Image.Image:
    """A JPEG that simplejpeg does not decode: damaged, without its end, or of a rare kind."""
    try:
        image = by_pillow(data, name, short_side)
    except ImageError as error:
        whole = data + END_OF_JPEG
        if "truncated" not in str(error) or not is_whole_jpeg(whole):
            raise
        return by_pillow(whole, name, short_side)
    if on_damage is not None and is_damage(complaint, data):
        fault = complaint.removeprefix("Corrupt JPEG data: ")
        on_damage(f"image {name!r} is damaged ({fault}); the rest of it is used")
    return image


def is_whole_jpeg(data: bytes) -> bool:
    """Whether libjpeg decodes it without a complaint."""
    try:
        cmyk = simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK")
        simplejpeg.decode_jpeg(data, colorspace="CMYK" if cmyk else "RGB")
    except Exception:
        return False
    return True


def is_damage(complaint: str, data: bytes) -> bool:
    """Whether libjpeg's warning is of coded data that are lost or wrong, not of headers or of
    padding, with which some cameras fill their files.

    >>> is_damage("Corrupt JPEG data: bad Huffman code", b"")
    True
    >>> padded = bytes(3) + END_OF_JPEG
    >>> is_damage("Corrupt JPEG data: 3 extraneous bytes before marker 0xd9", padded)
    False
    """
    if not complaint.startswith("Corrupt JPEG data") or "ICC" in complaint:
        return False
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", complaint)
    if not extra:
        return True
    # a file may have several images, and thumbnails
    ends = (found.start() for found in re.finditer(re.escape(END_OF_JPEG), data))
    return all(set(data[max(0, end - int(extra[1])) : end]) - {0, 0xFF} for end in ends)


def jpeg_scale(size: tuple[int, int], short_side: int | None) -> int:
    """By how much a JPEG is decoded smaller: 1, 2, 4 or 8, as Pillow's `draft` does."""
    if short_side is None:
        return 1
    wanted = draft_size(size, short_side)
    most = min(size[0] // wanted[0], size[1] // wanted[1])
    return next(scale for scale in (8, 4, 2, 1) if most >= scale)


def reduction(data: bytes, short_side: int) -> int:
    """By how much `load_image` decodes a file smaller for this short side: 1, 2, 4 or 8. 0 where
    only decoding it says."""
    if not data.startswith(JPEG):
        return 1
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return 0
    return jpeg_scale((width, height), short_side)


def jpeg_frame(data: bytes) -> tuple[int, int]:
    """The marker of a JPEG's frame, such as 0xC0 (baseline), and its bits a channel; (0, 8) if it
    has none."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker, data[at + 4]
        at += 1 if marker == 0xFF else 2 + max(length, 2)  # 0xFF is a fill byte
    return 0, 8


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG; 1 if Pillow cannot read its header."""
    if TAGGED not in data:
        return 1
    try:
        return orientation(opened(data))
    except Exception:  # damaged: whoever decodes it says so
        return 1


# All formats, by Pillow


def by_pillow(
    data: bytes, name: str, short_side: int | None, levels: Levels | None = None
) -> Image.Image:
    """`load_image` by Pillow's decoders, and of HEIC by pi-heif's."""
    with quiet(data):
        try:
            image: Image.Image = opened(data, name)
            refuse_bomb(name, image.size)
            if short_side is not None and not (
                data.startswith(JPEG) and jpeg_frame(data)[0] in LOSSLESS
            ):
                image.draft(image.mode, draft_size(image.size, short_side))
            image.load()
            refuse_bomb(name, image.size)  # that of HEIC is known when it is decoded
            upright = UPRIGHT.get(orientation(image))
            low = low_bytes(data) if levels is not None else None
            image = to_rgb(image, name, levels, low)
        except (ImageError, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(f"image {name!r} is too large: {error}") from error
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, IndexError
            from foveate.data.unreadable import why_unreadable

            raise ImageError(f"image {name!r} {why_unreadable(data, error)}") from error
    return turned(image, upright)


def quiet(data: bytes) -> AbstractContextManager[None]:
    """What decodes a TIFF writes to stderr otherwise."""
    if not data.startswith(TIFF):
        return nullcontext()
    from foveate.data.quiet import quiet_libtiff

    return quiet_libtiff()


def opened(data: bytes, name: str = "(bytes)") -> Any:
    """As `Image.open` with our formats, but its warnings and its limit of pixels, which belong to
    the whole process, play no part: `refuse_bomb` is ours.

    Raises:
        PIL.UnidentifiedImageError: it is none of them.
        ImageError: HEIC, and the extra is not installed.
    """
    reason: Exception | None = None
    for kind, plugin in PLUGINS.items():
        if kind not in Image.OPEN:
            import_module(f"PIL.{plugin}")
        factory, accept = Image.OPEN[kind]
        if accept is None or accept(data[:16]) is not True:
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            reason = error
    if is_heic(data):
        return opened_heic(data, name)
    raise PIL.UnidentifiedImageError(str(reason or "no known format")) from reason


def is_heic(data: bytes) -> bool:
    """Whether its header names HEVC among what a reader has to know."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return any(brands[i : i + 4] in HEIC_BRANDS for i in range(0, len(brands), 4))


def opened_heic(data: bytes, name: str) -> Any:
    """An image that pi-heif will decode. Its turns (irot) are part of decoding: the plugin resets
    the EXIF orientation, so nothing is turned twice."""
    try:
        # not registered with Pillow: that would change what the host's Image.open reads
        from pi_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ImageError(
            f"image {name!r} is HEIC, whose decoder is not installed: pip install 'foveate[heic]'; "
            "or convert it to JPEG (on a Mac: `sips -s format jpeg`, elsewhere `heif-convert`)"
        ) from error
    return HeifImageFile(io.BytesIO(data), "")


def png_pixels_alone(data: bytes) -> bytes:
    """A PNG without what its pixels do not need: text, profiles and times may be damaged, or larger
    than Pillow reads."""
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind in PIXEL_CHUNKS or not kind[:1].islower():  # all critical ones: Pillow judges them
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


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


def to_rgb(
    image: Image.Image,
    name: str,
    levels: Levels | None = None,
    low: NDArray[np.uint8] | None = None,
) -> Image.Image:
    """Convert any mode to RGB.

    Args:
        image: loaded.
        name: for messages.
        levels: as for `load_image`.
        low: (H, W, C), the low bytes of colours of 16 bits, of which Pillow keeps the high ones.
    """
    if levels is not None and (values := deep_values(image, low)) is not None:
        scaled = Image.fromarray(to_eight_bits(values, levels))
        if image.mode == "RGBA" and image.has_transparency_data:
            scaled.putalpha(image.getchannel("A"))
            return on_white(scaled)
        return scaled.convert("RGB")
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
        return on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """A transparent image on white, in RGB."""
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def deep_values(image: Image.Image, low: NDArray[np.uint8] | None) -> NDArray[Any] | None:
    """(H, W) or (H, W, 3), the values of an image with more than 8 bits a channel; None of 8 bits,
    and of a PPM, which says itself what its white is."""
    if image.format == "PPM":
        return None
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return np.asarray(image)
    if low is None:
        return None
    high = np.asarray(image.convert("RGB") if image.mode == "RGBX" else image)
    return (high[..., :3].astype(np.uint16) << 8) | low[..., :3]


def to_eight_bits(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Values from the lower to the upper level as 0 to 255, rounded; those outside are cut off.

    >>> to_eight_bits(np.array([0, 2048, 4095, 5000]), (0, 4095)).tolist()
    [0, 128, 255, 255]
    """
    black, white = levels
    scaled = (values.astype(np.float64) - black) * (255 / (white - black)) + 0.5
    # a sensor's gap is black: no number has no shade of grey
    return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def low_bytes(data: bytes) -> NDArray[np.uint8] | None:
    """(H, W, 3 or 4), the low bytes of a colour image of 16 bits a channel; None of any other.

    Pillow has no mode for it and keeps the high bytes. Decoded as if its numbers had the other
    order, the same file gives the low ones.
    """
    if not may_be_deep(data):
        return None
    image = opened(data)
    tiles = []
    for tile in image.tile:
        raw, *others = (tile.args,) if isinstance(tile.args, str) else tile.args
        if raw not in LOW_BYTES:
            return None
        low = LOW_BYTES[raw]
        tiles.append(tile._replace(args=(low, *others) if others else low))
    if not tiles:
        return None
    image.tile = tiles
    image.load()
    return np.asarray(image.convert("RGB") if image.mode == "RGBX" else image)


def may_be_deep(data: bytes) -> bool:
    """Whether a file may hold more than 8 bits a channel, as far as its first bytes say.

    PPM states its white, and the decoders of AVIF and HEIC know theirs.
    """
    return (data.startswith(PNG) and data[24:25] == b"\x10") or data.startswith(TIFF)


def upright_rgb(image: Image.Image, name: str, levels: Levels | None = None) -> Image.Image:
    """A PIL image, as `load_image` gives its file."""
    try:
        image.load()
    except Exception as error:  # as in load_image: Pillow decodes when pixels are first wanted
        raise ImageError(f"image {name!r} is damaged ({error})") from error
    turn = UPRIGHT.get(orientation(image))
    return turned(to_rgb(image, name, levels), turn)


def turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """The image turned upright, without what said that it was not: it might be turned again."""
    if turn is None:
        return image
    image = image.transpose(turn)
    for name in ("exif", "xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    return image
