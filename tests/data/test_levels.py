"""One scale for images with more than 8 bits a channel, found in the training images."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image
from rare_pngs import png16
from refusals import refused

from foveate.data.dataset import Dataset
from foveate.data.image import load_image, load_pixels, to_eight_bits
from foveate.data.levels import find_levels
from foveate.data.preprocess import Preprocess, decode
from foveate.errors import ArtefactError, ImageError

GREY = np.asarray(scene().convert("L")).astype(np.uint32)
COLOUR = np.asarray(scene()).astype(np.uint32)


def tiff16(values: np.ndarray, order: str = "<") -> bytes:
    """An uncompressed TIFF of (H, W, 3), 16 bits."""
    height, width, bands = values.shape
    data = values.astype(order + "u2").tobytes()
    place = 8 + 2 + 9 * 12 + 4
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, place)]
    entries += [(259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, place + 2 * bands)]
    entries += [(277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data))]

    def field(tag: int, kind: int, n: int, value: int) -> bytes:
        short = kind == 3 and n == 1
        return struct.pack(f"{order}HHI{'HH' if short else 'I'}", tag, kind, n, value, *[0] * short)

    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 9)
    bits = struct.pack(f"{order}{bands}H", *[16] * bands)
    return head + b"".join(field(*entry) for entry in entries) + bytes(4) + bits + data


def grey_of(values: np.ndarray) -> dict[str, bytes]:
    """One grey image of 16 bits in the ways to write it."""
    image = Image.fromarray(values.astype(np.uint16))
    big = Image.frombytes("I;16B", image.size, values.astype(">u2").tobytes())
    return {
        "PNG": encode(image, "PNG"),
        "TIFF": encode(image, "TIFF"),
        "TIFF big endian": encode(big, "TIFF"),
        "TIFF compressed": encode(image, "TIFF", compression="tiff_lzw"),
    }


def written(folder: Path, files: list[bytes]) -> Dataset:
    for i, data in enumerate(files):
        (folder / f"{i:03}").write_bytes(data)
    paths = sorted(folder.iterdir())
    return Dataset.of(paths, [i % 2 for i in range(len(paths))])


def levels_of(folder: Path, files: list[bytes]) -> tuple[float, float] | None:
    dataset = written(folder, files)
    return find_levels(dataset, np.arange(len(dataset)), 2).levels


@pytest.mark.parametrize("bits", [8, 10, 12, 15])
def test_the_bits_in_use_are_found_and_give_the_image_of_eight_bits(
    bits: int, tmp_path: Path
) -> None:
    white = 2**bits - 1
    files = grey_of(GREY * white // 255)
    levels = levels_of(tmp_path, list(files.values()))
    assert levels == (0, white)
    for kind, data in files.items():
        found = np.asarray(load_image(data, kind, levels=levels))
        assert np.abs(found[..., 0].astype(int) - GREY).max() <= 1, kind
        assert np.array_equal(load_pixels(data, kind, 8, levels), found)


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_twelve_bits_keep_their_low_bits(order: str, tmp_path: Path) -> None:
    values = COLOUR * 4095 // 255
    files = [png16(values), tiff16(values, order), png16(values, alpha=True)]
    levels = levels_of(tmp_path, files)
    assert levels == (0, 4095)
    for data in files:
        found = np.asarray(load_image(data, levels=levels)).astype(int)
        assert np.abs(found - COLOUR).max() <= 1
        assert np.asarray(load_image(data)).max() <= 15  # as if 65535 were white


def test_sixteen_bits_in_full_keep_their_rule(tmp_path: Path) -> None:
    files = [*grey_of(GREY * 257).values(), png16(COLOUR * 257)]
    dataset = written(tmp_path, files)
    assert find_levels(dataset, np.arange(len(dataset)), 2) == (None, "")


def test_eight_bits_have_no_levels_and_are_not_changed_by_any(tmp_path: Path) -> None:
    files = [encode(scene(), kind) for kind in ("JPEG", "PNG", "TIFF", "WEBP", "PPM")]
    dataset = written(tmp_path, files)
    assert find_levels(dataset, np.arange(len(dataset)), 2) == (None, "")
    for data in files:
        assert np.array_equal(load_image(data, levels=(0, 4095)), load_image(data))


def test_a_ppm_says_itself_what_white_is(tmp_path: Path) -> None:
    data = b"P5 48 64 4095\n" + (GREY * 4095 // 255).astype(">u2").tobytes()
    assert levels_of(tmp_path, [data] * 2) is None
    for levels in (None, (0, 255)):
        found = np.asarray(load_image(data, levels=levels))[..., 0].astype(int)
        assert np.abs(found - GREY).max() <= 1


def test_a_thermal_camera_uses_a_narrow_range(tmp_path: Path) -> None:
    full = (GREY - GREY.min()) / np.ptp(GREY)
    kelvin = 290 + full * 20
    hundredths = (kelvin * 100).astype(np.uint32)
    for n, files in enumerate(
        (
            [encode(Image.fromarray(kelvin.astype(np.float32)), "TIFF")] * 3,
            list(grey_of(hundredths).values()),
            [encode(Image.fromarray(hundredths.astype(np.int32)), "TIFF")] * 3,
        )
    ):
        folder = tmp_path / str(n)
        folder.mkdir()
        levels = levels_of(folder, files)
        scale = 1 if n == 0 else 100
        assert levels is not None
        assert abs(levels[0] - 290 * scale) < scale and abs(levels[1] - 310 * scale) < scale
        for data in files:
            found = np.asarray(load_image(data, levels=levels))[..., 0].astype(int)
            assert np.abs(found - 255 * full).max() <= 4


def test_floating_point_from_0_to_1_and_gaps(tmp_path: Path) -> None:
    values = (GREY / 255).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    data = encode(Image.fromarray(values), "TIFF")
    levels = levels_of(tmp_path, [data] * 2)
    assert levels == (0, 1)
    found = np.asarray(load_image(data, levels=levels))[..., 0].astype(int)
    assert found[0, :3].tolist() == [0, 255, 0]
    assert np.abs(found[1:] - GREY[1:]).max() <= 1
    with refused(ImageError, "floating-point"):
        load_image(data)


def test_hot_pixels_do_not_decide(tmp_path: Path) -> None:
    values = np.tile(GREY * 4095 // 255, (5, 5))
    values[7, 9] = 65535
    levels = levels_of(tmp_path, [encode(Image.fromarray(values.astype(np.uint16)), "PNG")] * 4)
    assert levels is not None and levels[1] < 4200


def test_unreadable_and_constant_images(tmp_path: Path) -> None:
    flat = encode(Image.fromarray(np.full((8, 8), 7, np.uint16)), "PNG")
    (tmp_path / "a").mkdir()
    assert levels_of(tmp_path / "a", [flat, flat[:40], b"", b"II*\0", flat[:30] + bytes(9)]) is None
    (tmp_path / "b").mkdir()
    zeros = encode(Image.fromarray(np.full((8, 8), 5, np.float32)), "TIFF")
    assert levels_of(tmp_path / "b", [zeros, zeros]) == (5, 6)


def test_the_note_says_the_range_and_how_many(tmp_path: Path) -> None:
    dataset = written(tmp_path, [encode(scene(), "PNG"), grey_of(GREY * 16)["PNG"]])
    found = find_levels(dataset, np.arange(2), 1)
    assert all(name in found.note for name in ("0 to 4095", "1 of 2"))


def test_levels_are_part_of_the_preprocess_only_where_there_are_any() -> None:
    plain = Preprocess(8, 8)
    assert "levels" not in plain.to_dict() and Preprocess.from_dict(plain.to_dict()) == plain
    deep = replace(plain, levels=(0.0, 4095.0))
    assert Preprocess.from_dict(deep.to_dict()) == deep
    assert deep.at(16).levels == deep.with_channels(1).levels == (0, 4095)
    for bad in ((1,), (5, 5), (0, "x"), "no", (0, float("inf")), {}):
        with pytest.raises(ArtefactError):
            Preprocess.from_dict(plain.to_dict() | {"levels": bad})


def test_a_file_and_its_pil_image_are_the_same_to_a_preprocess(tmp_path: Path) -> None:
    preprocess = Preprocess(32, 32, levels=(0.0, 4095.0))
    data = grey_of(GREY * 4095 // 255)["PNG"]
    (tmp_path / "x.png").write_bytes(data)
    expected = preprocess.normalise(decode(data, "x", preprocess))
    assert np.array_equal(preprocess(Image.open(tmp_path / "x.png")).numpy(), expected)


def test_values_are_rounded_and_cut_off() -> None:
    assert to_eight_bits(np.array([-9, 10, 20, 30, 99]), (10, 30)).tolist() == [0, 0, 128, 255, 255]
