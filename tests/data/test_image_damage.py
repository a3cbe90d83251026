"""A file that is not an image, a bomb, truncated, damaged or unreadable is an ImageError."""

import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image, ImageFile, PngImagePlugin
from rare_pngs import chunk
from refusals import absent, refused

from foveate.data import image as module
from foveate.data.image import load_image, load_pixels
from foveate.errors import ImageError

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def png_header(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data,names",
    [
        (SVG, ["SVG", "remove it"]),
        (b"\n\t " + SVG, ["SVG"]),
        (b"\xef\xbb\xbf" + SVG, ["SVG"]),
        (b"<!DOCTYPE html><title>404</title>", ["HTML"]),
        (b"%PDF-1.7\n1 0 obj", ["document", "remove it"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9", ["document"]),
        (b"PK\x03\x04" + bytes(40), ["archive"]),
        (b"\x1f\x8b\x08" + bytes(40), ["archive"]),
        (b"\0\0\0\x18ftypqt  " + bytes(40), ["video", "convert it"]),
        (b"\0\0\0\x18ftypcrx " + bytes(40), ["camera raw", "convert it"]),
        (b"\0\0\0\x0cjP  \r\n" + bytes(40), ["JPEG 2000", "convert it"]),
        (b"\xff\x0a" + bytes(40), ["JPEG XL", "convert it"]),
        (bytes(128) + b"DICM" + bytes(40), ["DICOM", "convert it"]),
        (b"\0\0\0\x1cftypavif" + bytes(40), ["damaged", "remove it"]),
        (b"MZ\x90\0" + bytes(40), ["known format", "JPEG, PNG"]),
        (b"hello", ["known format"]),
        (bytes(1), ["known format"]),
    ],
)
def test_the_kind_of_a_file_that_is_no_image_is_named(
    tmp_path: Path, data: bytes, names: list[str]
) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(data)
    with refused(ImageError, "fake.jpg'", *names):
        load_image(path)


def test_postscript_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def popen(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with refused(ImageError, "document"):
        load_image(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF"
        )


@pytest.mark.parametrize(
    "width,height", [(50_000, 50_000), (1, 2_000_000_000), (16_385, 16_385), (300_000, 1_000)]
)
def test_bombs_are_refused_before_allocation(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_prepare(_: ImageFile.ImageFile) -> None:
        raise AssertionError("memory was taken")

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", load_prepare)
    with refused(ImageError, "'b.png'", "pixels"):
        load_image(png_header(width, height), "b.png")
    with refused(ImageError, "memory was taken"):
        load_image(png_header(10, 10), "b.png")


def test_a_small_bomb_is_refused_by_us() -> None:
    with refused(ImageError, "16385x16385", "268,435,456"):
        load_image(png_header(16_385, 16_385))
    with refused(ImageError, "60000x60000"):
        data = bytearray(encode(scene(), "JPEG"))
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
        load_image(bytes(data), short_side=224)


def test_a_photo_of_108_megapixels_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns from 89 million pixels on; a phone's JPEG is decoded at an eighth."""
    data = bytearray(encode(Image.new("L", (12_000, 9_000)), "JPEG"))
    assert load_image(bytes(data), short_side=224).size == (1_500, 1_125)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000))),  # a bomb of text
        chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(1_600_000))),
        chunk(b"tEXt", b"k\0" + bytes(3_000_000)) * 30,
        chunk(b"tEXt", b"k\0text")[:-1] + b"?",  # a wrong checksum
        chunk(b"pHYs", b"\0"),
    ],
)
def test_what_the_pixels_of_a_png_do_not_need_is_passed_over(extra: bytes) -> None:
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(), "PNG", exif=exif)
    assert np.array_equal(load_image(data[:33] + extra + data[33:]), load_image(data))
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    with refused(ImageError, "'x'", "truncated"):
        load_image((data[:33] + extra + data[33:])[:-400], "x")


def tiff(bands: int, bits: int = 8, compression: int = 1) -> bytes:
    """A whole TIFF of so many bands, without ExtraSamples."""
    w, h = 40, 30
    data, place = bytes(w * h * bands * bits // 8), 8 + 2 + 9 * 12 + 4
    entries = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, bands, place), (259, 3, 1, compression)]
    entries += [(262, 3, 1, 2), (273, 4, 1, place + 2 * bands), (277, 3, 1, bands)]
    entries += [(278, 4, 1, h), (279, 4, 1, len(data))]
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    return head + struct.pack(f"<{bands}H", *[bits] * bands) + data


@pytest.mark.parametrize(
    "data,names",
    [
        (tiff(5), ["TIFF", "5 bands", "convert it"]),
        (tiff(3, 24), ["TIFF", "24 bits", "convert it"]),
        (tiff(3, 32), ["TIFF", "32 bits", "convert it"]),
        (tiff(3, 8, 34712), ["JPEG 2000", "convert it"]),
        (tiff(3, 8, 9999), ["TIFF", "9999", "convert it"]),
    ],
)
def test_a_whole_file_that_is_not_read_is_not_to_be_removed(
    data: bytes, names: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(data, "x.tif")
    assert not absent(str(caught.value), "'x.tif'", *names), str(caught.value)
    assert "remove it" not in str(caught.value)
    assert capfd.readouterr().err == ""  # Pillow logs an error of its own


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_images_are_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with refused(ImageError, "'t'", "remove it"):
        load_image(data[: int(len(data) * share)], "t")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_ordinary_truncation_is_reported_as_one(kind: str) -> None:
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    )
    data = encode(noise, kind)
    with refused(ImageError, "truncated"):
        load_image(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_damage_anywhere_gives_an_image_or_an_image_error(kind: str, tagged: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encode(scene(24, 24), kind, **({"exif": exif} if tagged and kind == "JPEG" else {}))
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(150):
        broken = bytearray(data)
        for position in rng.integers(0, min(len(data), 400), 3):
            broken[position] = rng.integers(256)
        try:
            load_pixels(bytes(broken), "", 24)
            assert load_image(bytes(broken)).mode == "RGB"
        except ImageError:
            errors += 1
    assert errors > 0


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "e.jpg").touch()
    with refused(ImageError, "e.jpg'", "0 bytes"):
        load_image(tmp_path / "e.jpg")
    with refused(ImageError, "(bytes)", "0 bytes"):
        load_image(b"")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(ImageError, "gone.jpg'", "No such file"):
        load_image(tmp_path / "gone.jpg")
    with refused(ImageError, str(tmp_path), "regular file"):
        load_image(tmp_path)
    with refused(ImageError, "nnn", "File name too long"):
        load_image(str(tmp_path / ("n" * 300)))
    with refused(ImageError, "a\\x00b", "null"):
        load_image("a\0b")
    os.mkfifo(tmp_path / "pipe.jpg")
    with refused(ImageError, "pipe.jpg'", "regular file"):
        load_image(tmp_path / "pipe.jpg")
    for device in ("/dev/null", "/dev/zero"):
        with refused(ImageError, device, "regular file"):
            load_image(device)
    with socket.socket(socket.AF_UNIX) as server, monkeypatch.context() as patch:
        patch.chdir(tmp_path)  # a socket's path is short
        server.bind("socket.jpg")
        with refused(ImageError, "socket.jpg'", "regular file"):
            load_image("socket.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with refused(ImageError, "loop.jpg'", "Too many levels"):
        load_image(tmp_path / "loop.jpg")

    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room on the disk
    with refused(ImageError, "huge.tif'", "3,221,225,472 bytes"):
        load_image(tmp_path / "huge.tif")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "shut.jpg").write_bytes(encode(scene(), "JPEG"))
    monkeypatch.setattr(Path, "read_bytes", denied)
    with refused(ImageError, "shut.jpg'", "Permission denied"):
        load_image(tmp_path / "shut.jpg")


def test_a_fault_of_the_decoder_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(module, "to_rgb", broken)
    with refused(ImageError, "'x'", "damaged", "list index out of range"):
        load_image(encode(scene(), "PNG"), "x")


def test_a_lack_of_memory_is_not_reported_as_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Image.Image) -> None:
        raise MemoryError

    data = encode(Image.new("RGB", (8, 8)), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", greedy)
    with pytest.raises(MemoryError):
        load_image(data)
