"""Pixels of rows: by which rule, from which file, and when not."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from foveate.data.batches.pixel_cache import Pixels, RamCache
from foveate.data.batches.source import Source
from foveate.data.dataset import Dataset
from foveate.data.decoding import Rule, for_evaluation, for_training, scaled
from foveate.data.image import load_image
from foveate.data.preprocess import INTERPOLATIONS, Preprocess, decode
from foveate.errors import ImageError


def photo(width: int, height: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(width).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(
        buffer, kind
    )
    return buffer.getvalue()


def test_evaluation_is_decode() -> None:
    preprocess = Preprocess(64, 48, stretch=1.1)
    data = photo(200, 150, "JPEG")
    assert np.array_equal(for_evaluation(preprocess).make(data, "x"), decode(data, "x", preprocess))


@pytest.mark.parametrize(
    "size, kept",
    [
        ((200, 150), (133, 100)),
        ((150, 200), (100, 133)),
        ((100, 100), (100, 100)),
        ((101, 101), (100, 100)),
        ((151, 160), (100, 106)),
        ((40, 30), (40, 30)),
        ((5, 400), (5, 400)),
        ((1000, 1000), (100, 100)),
    ],
)
def test_training_brings_large_images_down_and_small_ones_never_up(size, kept) -> None:
    for kind in ("PNG", "JPEG"):
        pixels = for_training(Preprocess(224, 224), 100).make(photo(*size, kind), "x")
        assert pixels.shape == (kept[1], kept[0], 3) and pixels.dtype == np.uint8


def test_grey() -> None:
    preprocess = Preprocess(24, 24, channels=1, mean=(0.5,), std=(0.5,))
    data = photo(40, 30)
    pixels = for_training(preprocess, 30).make(data, "x")
    assert np.array_equal(pixels[:, :, 0], np.asarray(load_image(data).convert("L")))
    assert for_training(preprocess, 20).make(data, "x").shape == (20, 27, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "width, height, side", [(533, 400, 288), (333, 500, 224), (40, 30, 64), (7, 9, 3)]
)
def test_scaled_is_pillows_resize_but_for_rounding(
    interpolation: str, width: int, height: int, side: int
) -> None:
    image = load_image(photo(width, height))
    found = scaled(np.asarray(image), side, interpolation)
    expected = np.asarray(image.resize(found.shape[1::-1], INTERPOLATIONS[interpolation]))
    assert min(found.shape[:2]) == side
    assert found.flags.c_contiguous
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.01


def test_every_setting_that_changes_pixels_is_in_the_identity() -> None:
    plain = Preprocess(64, 64)
    others = [
        for_evaluation(plain),
        for_evaluation(replace(plain, stretch=1.1)),
        for_training(plain, 64),
        for_training(plain, 65),
        for_training(replace(plain, interpolation="bilinear"), 64),
        for_training(replace(plain, channels=1, mean=(0.5,), std=(0.5,)), 64),
    ]
    assert len({str(rule.identity) for rule in others}) == len(others)
    assert (
        for_training(replace(plain, mean=(0.0, 0.0, 0.0)), 64).identity
        == for_training(plain, 64).identity
    )


class Files:
    """Files that can change, and how often they are read."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = dict(enumerate(contents))
        self.reads = 0

    def read(self, row: int) -> bytes:
        self.reads += 1
        return self.contents[row]

    def dataset(self) -> Dataset:
        n = len(self.contents)
        names = tuple(f"{i}.png" for i in range(n))
        return Dataset(
            "toy",
            "made",
            names,
            np.zeros(n, np.int64),
            ("a",),
            ("train",) * n,
            ("",) * n,
            self.read,
        )


def length(data: bytes, name: str, on_damage: object = None) -> Pixels:
    return np.full((1, 1, 3), len(data), np.uint8)


RULE = Rule(length, {})


def test_what_is_kept_is_not_read_again() -> None:
    files = Files(b"1", b"22", b"22")
    source = Source(files.dataset(), RULE, RamCache(100))
    for _ in range(3):
        assert [int(source.pixels(row).max()) for row in range(3)] == [1, 2, 2]
    assert files.reads == 3
    assert source.cache.find(hashlib.sha256(b"22").hexdigest()) is not None


def test_what_is_not_kept_is_read_again() -> None:
    files = Files(b"1", b"22")
    source = Source(files.dataset(), RULE, RamCache(0))
    assert [int(source.pixels(row).max()) for row in (0, 1, 0)] == [1, 2, 1]
    assert files.reads == 3


def test_pixels_cannot_be_written_to() -> None:
    source = Source(
        Files(photo(40, 30)).dataset(), for_training(Preprocess(24, 24), 24), RamCache(100_000)
    )
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            source.pixels(0)[0] = 0


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changes_is_refused(known: bool) -> None:
    files = Files(b"1", b"22")
    dataset = files.dataset()
    source = Source(dataset, RULE, RamCache(0))
    if known:
        assert dataset.digests
        source = Source(dataset, RULE, RamCache(0))
    else:
        source.pixels(1)
    files.contents[1] = b"333"
    with refused(ImageError, "'1.png'", "changed"):
        source.pixels(1)


def test_digests_are_not_asked_for() -> None:
    files = Files(b"1", b"22")
    dataset = files.dataset()
    Source(dataset, RULE, RamCache(0))
    assert files.reads == 0 and "digests" not in vars(dataset)
