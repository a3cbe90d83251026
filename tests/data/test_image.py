"""Pixels of every format: upright, on white, three channels of eight bits; and scaled decoding."""

import io
from pathlib import Path

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image, ImageOps
from refusals import refused

from foveate.data.image import by_pillow, draft_size, jpeg_pixels, load_image, load_pixels
from foveate.errors import ImageError


def pixels(data: bytes, **options: int) -> np.ndarray:
    image = load_image(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey16() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 16, (16, 24)).astype(np.uint16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif, **options)

    # the standard's own words: where the stored row 0 and column 0 are to be shown
    a = np.asarray(stored).astype(int)
    expected = {
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.swapaxes(0, 1),
        6: a[::-1].swapaxes(0, 1),
        7: a[::-1, ::-1].swapaxes(0, 1),
        8: a[:, ::-1].swapaxes(0, 1),
    }[orientation]
    shown = pixels(data)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= (12 if kind == "JPEG" else 0)
    assert np.array_equal(shown, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(pixels(encode(scene(), "PNG", exif=exif)), np.asarray(scene()))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 20,
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\4abc\0\0\0\0\0",  # the orientation as text
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
    ],
)
def test_damaged_exif_leaves_the_image_upright(block: bytes) -> None:
    plain = encode(scene(), "JPEG")
    assert np.array_equal(pixels(encode(scene(), "JPEG", exif=block)), pixels(plain))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_any_byte_of_the_exif_block_may_be_wrong() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(), "JPEG", exif=exif)
    start, length = data.index(b"Exif\0\0") + 6, len(exif.tobytes()) - 6
    assert length > 10
    for position in range(start, start + length):
        for value in (0, 127, 255):
            assert load_image(data[:position] + bytes([value]) + data[position + 1 :]).size in [
                (48, 64),
                (64, 48),
            ]


def over_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return colour * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_put_on_white(mode: str, kind: str) -> None:
    rgba = scene().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    image = rgba.convert(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = pixels(encode(image, kind, **options))
    assert np.abs(found - over_white(np.asarray(image.convert("RGBA")))).max() <= 1


@pytest.mark.parametrize("mode,transparent", [("1", 1), ("L", 77), ("RGB", (77, 77, 77))])
def test_a_transparent_colour_is_white(mode: str, transparent: object) -> None:
    image = Image.new(mode, (4, 4), 0)
    image.putpixel((1, 2), transparent)
    expected = np.zeros((4, 4, 3), np.uint8)
    expected[2, 1] = 255
    assert np.array_equal(pixels(encode(image, "PNG", transparency=transparent)), expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255, 255])])
def test_palettes(kind: str, transparency: int | bytes | None) -> None:
    if kind == "GIF" and isinstance(transparency, bytes):
        transparency = 0
    table = np.array([[250, 10, 20], [0, 200, 40], [30, 60, 220], [9, 9, 9]], np.uint8)
    numbers = (np.arange(12).reshape(3, 4) % 4).astype(np.uint8)
    image = Image.fromarray(numbers).convert("P")
    image.putpalette(table.tobytes())
    alpha = np.full(4, 255)
    alpha[: len(transparency) if isinstance(transparency, bytes) else 1] = (
        255
        if transparency is None
        else list(transparency)
        if isinstance(transparency, bytes)
        else 0
    )
    options = {} if transparency is None else {"transparency": transparency}
    expected = over_white(np.concatenate([table, alpha[:, None]], axis=1))[numbers]
    assert np.abs(pixels(encode(image, kind, **options)) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit(kind: str) -> None:
    bits = np.random.default_rng(0).random((9, 13)) < 0.5
    expected = np.repeat(bits[..., None], 3, axis=-1) * 255
    assert np.array_equal(pixels(encode(Image.fromarray(bits), kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF big endian", "PPM"])
def test_sixteen_bits_keep_their_high_byte(kind: str) -> None:
    values = grey16()
    height, width = values.shape
    big = values.astype(">u2").tobytes()
    data = {
        "PNG": lambda: encode(Image.fromarray(values), "PNG"),
        "TIFF": lambda: encode(Image.fromarray(values), "TIFF"),
        "TIFF big endian": lambda: encode(Image.frombytes("I;16B", (width, height), big), "TIFF"),
        "PPM": lambda: f"P5 {width} {height} 65535\n".encode() + big,
    }[kind]()
    assert np.array_equal(pixels(data), np.repeat(values[..., None] // 256, 3, axis=-1))


def test_sixteen_bit_colour() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (8, 6, 3))
    data = b"P6 6 8 65535\n" + values.astype(">u2").tobytes()
    assert np.abs(pixels(data) - values / 257).max() <= 1


def test_grey_becomes_three_equal_channels() -> None:
    grey = scene().convert("L")
    assert np.array_equal(
        pixels(encode(grey, "PNG")), np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    )


def cmyk_formula(image: Image.Image) -> np.ndarray:
    cmyk = np.asarray(image).astype(float)
    return (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255


def test_cmyk_jpeg_as_adobe_writes_it() -> None:
    image = scene().convert("CMYK")
    data = encode(image, "JPEG", quality=100)
    assert b"Adobe" in data
    stored = np.asarray(Image.open(io.BytesIO(data)))  # Pillow turns Adobe's inverted values back
    assert np.abs(stored.astype(int) - np.asarray(image)).mean() < 2
    assert np.abs(pixels(data) - cmyk_formula(image)).mean() < 3


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_of_tiff(mode: str) -> None:
    if mode == "CMYK":
        image = scene().convert("CMYK")
        expected = cmyk_formula(image)
    elif mode == "YCbCr":
        image = scene().convert("YCbCr")
        expected = np.asarray(scene()).astype(float)
    else:
        image = Image.merge("LAB", [Image.new("L", (5, 4), level) for level in (128, 128, 128)])
        expected = np.full((4, 5, 3), 119.0)  # L* = 50.2 in sRGB
    assert np.abs(pixels(encode(image, "TIFF")) - expected).max() <= 4


@pytest.mark.parametrize(
    "data,kind",
    [
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encode(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "32-bit"),
    ],
)
def test_numbers_without_a_white_are_refused(data: bytes, kind: str) -> None:
    with refused(ImageError, "'x.tif'", kind):
        load_image(data, "x.tif")


@pytest.mark.parametrize(
    "kind,options", [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_first_frame_of_animations_and_pages(kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(pixels(data), np.asarray(frames[0]))


def test_first_image_of_a_phones_double_jpeg() -> None:
    data = encode(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 64))])
    assert np.abs(pixels(data).astype(int) - np.asarray(scene())).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x", "x.pdf"])
def test_the_name_does_not_tell_the_format(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(encode(scene(), kind))
    from_path = load_image(tmp_path / name)
    assert from_path.size == (48, 64)
    assert np.array_equal(np.asarray(from_path), pixels(encode(scene(), kind)))


@pytest.mark.parametrize(
    "size", [(640, 480), (481, 1007), (2000, 300), (449, 449), (447, 900), (100, 100), (3, 900)]
)
@pytest.mark.parametrize("short", [224, 32])
def test_a_scaled_jpeg_is_never_below_twice_the_short_side(
    size: tuple[int, int], short: int
) -> None:
    data = encode(scene(*size), "JPEG")
    found = load_image(data, short_side=short).size
    assert min(found) >= min(2 * short, min(size))
    assert found in [tuple(-(-side // scale) for side in size) for scale in (1, 2, 4, 8)]
    if min(size) >= 16 * short:
        assert min(found) < min(size)


def test_scaled_decoding_saves_and_looks_the_same() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    photo = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encode(photo, "JPEG", quality=95)
    scaled, full = load_image(data, short_side=224), load_image(data)
    assert (scaled.size, full.size) == ((800, 600), (1600, 1200))
    small = [
        np.asarray(i.resize((299, 224), Image.Resampling.BICUBIC)).astype(int)
        for i in (scaled, full)
    ]
    assert np.abs(small[0] - small[1]).mean() < 1
    assert np.abs(small[0] - small[1]).max() <= 12


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scaled_decoding_in_every_mode(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(scene(400, 800).convert(mode), "JPEG", exif=exif)
    found = load_image(data, short_side=50)
    assert (found.mode, found.size) == ("RGB", (100, 200) if orientation == 1 else (200, 100))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_only_jpeg_is_scaled(kind: str) -> None:
    assert load_image(encode(scene(300, 300), kind), short_side=16).size == (300, 300)


@pytest.mark.parametrize(
    "size,short,expected",
    [
        ((1000, 500), 100, (400, 200)),
        ((500, 1000), 100, (200, 400)),
        ((150, 90), 100, (150, 90)),
        ((1, 9), 4, (1, 9)),
    ],
)
def test_draft_size(size: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    assert draft_size(size, short) == expected


def test_decoding_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encode(scene(), "PNG"))
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    load_image(str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def jpegs() -> dict[str, bytes]:
    """Many ways to write one scene."""
    image = scene(67, 49)
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    return {
        **{
            f"quality {q}, chroma {s}": encode(image, "JPEG", quality=q, subsampling=s)
            for q in (5, 75)
            for s in range(3)
        },
        "progressive": encode(image, "JPEG", progressive=True),
        "restarts": encode(image, "JPEG", restart_marker_blocks=2),
        "as RGB": encode(image, "JPEG", keep_rgb=True),
        "one pixel": encode(image.resize((1, 1)), "JPEG"),
        "upright by EXIF": encode(image, "JPEG", exif=upright),
        "turned by EXIF": encode(image, "JPEG", exif=turned),
        "turned by XMP": encode(
            image, "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
        ),
        "grey": encode(image.convert("L"), "JPEG"),
        "CMYK": encode(image.convert("CMYK"), "JPEG"),
        "scaled": encode(scene(400, 300), "JPEG"),
        "PNG": encode(image, "PNG"),
    }


@pytest.mark.parametrize("short_side", [None, 60, 7])
@pytest.mark.parametrize("kind", jpegs())
def test_every_way_to_decode_gives_the_pixels_of_pillow(kind: str, short_side: int | None) -> None:
    data = jpegs()[kind]
    expected = np.asarray(by_pillow(data, kind, short_side))
    assert np.array_equal(load_image(data, short_side=short_side), expected)
    assert np.array_equal(
        load_pixels(data, kind, short_side or 1000), pixels(data, short_side=short_side or 1000)
    )
    assert isinstance(jpeg_pixels(data, short_side), np.ndarray) == (
        kind not in ("CMYK", "PNG") and (short_side != 7 or kind in ("scaled", "one pixel"))
    )
    assert ("turned" in kind) == (expected.shape[0] > expected.shape[1])


@pytest.mark.parametrize("short_side", [20, 40, 55, 110, 300])
@pytest.mark.parametrize("size", [(640, 481), (997, 643)])
@pytest.mark.parametrize("chroma", [0, 1, 2])
def test_both_decoders_scale_to_the_same_pixels(
    size: tuple[int, int], short_side: int, chroma: int
) -> None:
    data = encode(scene(*size), "JPEG", subsampling=chroma)
    found = jpeg_pixels(data, short_side)
    assert np.array_equal(found, np.asarray(by_pillow(data, "", short_side)))
    assert np.array_equal(load_pixels(data, "", short_side), found)


@pytest.mark.parametrize("width", [239, 240, 241, 479, 480])
def test_a_jpeg_is_scaled_by_both_or_by_none(width: int) -> None:
    data = encode(scene(width, 300), "JPEG")
    assert np.array_equal(load_pixels(data, "", 60), pixels(data, short_side=60))


def test_errors_of_a_jpeg_are_pillows() -> None:
    data = encode(scene(200, 200), "JPEG")
    with refused(ImageError, "'a'", "truncated"):
        load_pixels(data[: len(data) // 2], "a", 60)
    for broken in (b"\xff\xd8\xff", data[:20], data[:160] + bytes(40) + data[200:]):
        with pytest.raises(ImageError) as expected:
            load_image(broken, "a")
        with pytest.raises(ImageError) as found:
            load_pixels(broken, "a", 60)
        assert str(found.value) == str(expected.value)
