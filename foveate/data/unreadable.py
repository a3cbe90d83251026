"""Why a file could not be decoded, in words, and what to do with it. "Remove it" is said only of
what no program can show."""

import io
from typing import Any

import PIL

from foveate.data.image import END_OF_JPEG, JPEG, TIFF, is_heic, jpeg_frame

KNOWN = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, HEIC"
CONVERT = "convert it to JPEG or PNG"
ELSEWHERE = (  # formats that other programs show, by their first bytes
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"DDS ", "DDS"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"SIMPLE  =", "FITS"),
)
DOCUMENTS = (b"%PDF", b"PK\x03\x04", b"\x1f\x8b", b"%!", b"7z\xbc\xaf", b"Rar!")
PROCESSES = {  # of a JPEG, by the marker of its frame; the others are read
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"),
}
# in the decoders' messages about kinds that they have no code for
UNSUPPORTED = ("unsupported", "not supported", "unknown pixel mode", "not yet available")
COMPRESSIONS = {34712: "JPEG 2000", 33005: "Aperio's JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}


def why_unreadable(data: bytes, error: BaseException) -> str:
    """The end of a sentence that begins with the image's name.

    Args:
        data: the file's bytes.
        error: Pillow's.
    """
    kind = rare_kind(data)
    if kind:
        return f"is {kind}, which is not read here; {CONVERT}"
    if isinstance(error, PIL.UnidentifiedImageError):
        if error.__cause__ is None:
            return unidentified(data)
        error = error.__cause__  # what the decoder of its format said
    text = repr(error) if isinstance(error, KeyError) else str(error)
    reason = " ".join(text.split())
    if "limit exceeded" in reason:
        return f"is too large ({reason}); make it smaller"
    if any(word in reason.lower() for word in UNSUPPORTED):
        return f"is of a kind that is not read here ({reason}); {CONVERT}"
    if "truncated" in reason.lower():
        return "is truncated (its data ends early); remove it"
    return f"is damaged ({reason}); remove it"


def unidentified(data: bytes) -> str:
    """What a file seems to be that is in none of the known formats."""
    head = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(DOCUMENTS):
        return "is a document or an archive, not an image; remove it"
    if head[:1] == b"<":
        if b"<svg" in data[:1024].lower():
            return f"is SVG, a drawing and not an image of pixels; {CONVERT}, or remove it"
        return "is HTML or XML text, not an image of pixels; remove it"
    return f"is not an image in a known format ({KNOWN}), or its first bytes are damaged; remove it"


def rare_kind(data: bytes) -> str:
    """A kind of image that is whole as far as can be seen, and not read here; or ""."""
    for prefix, kind in ELSEWHERE:
        if data.startswith(prefix):
            return kind
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[4:8] == b"ftyp" and not is_heic(data):
        brand = data[8:12].decode("latin-1").strip()
        known = {"crx": "camera raw (CR3)", "avif": "", "avis": "", "mif1": "", "msf1": ""}
        return known.get(brand, f"a video or another container (ftyp {brand})")
    if data.startswith(JPEG):
        marker, bits = jpeg_frame(data)
        if data.rstrip(b"\0").endswith(END_OF_JPEG) and (marker in PROCESSES or bits != 8):
            process = PROCESSES.get(marker)
            return f"a {process} JPEG" if process else f"a JPEG of {bits} bits a channel"
    return rare_tiff(data) if data.startswith(TIFF) else ""


def rare_tiff(data: bytes) -> str:
    """The kind of a TIFF whose header Pillow reads and whose pixels it has no place for; or ""."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

    try:
        stream = io.BytesIO(data)
        tags: Any = ImageFileDirectory_v2(stream.read(16 if data[2] == 43 else 8))
        stream.seek(tags.next)
        tags.load(stream)
        bands, compression = int(tags.get(277, 1)), int(tags.get(259, 1))
        bits = sorted(set(tags.get(258, (1,))))
    except Exception:  # a damaged header, of which Pillow raises many kinds
        return ""
    if compression not in COMPRESSION_INFO:
        method = COMPRESSIONS.get(compression, f"method {compression}")
        return f"a TIFF compressed with {method}"
    if bands > 4:
        return f"a TIFF of {bands} bands (keep red, green and blue, or one of them)"
    if bits not in ([1], [2], [4], [8], [16], [32]) or (bits == [32] and bands > 1):
        return f"a TIFF of {' and '.join(map(str, bits))} bits a band"
    return ""
