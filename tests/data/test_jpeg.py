"""JPEGs of rare kinds, without an end marker, or damaged: one verdict for all who decode them."""

import io

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image
from rare_jpegs import lossless_jpeg, segment, with_sampling
from refusals import refused

from foveate.data.decoding import for_evaluation, for_training
from foveate.data.image import jpeg_frame, load_image, load_pixels
from foveate.data.preprocess import Preprocess
from foveate.errors import ImageError

PHOTO = encode(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize(
        (400, 320), Image.Resampling.BICUBIC
    ),
    "JPEG",
    subsampling=2,
)


def by_all(data: bytes) -> list[np.ndarray | str]:
    """What everyone who decodes gets: pixels, or the refusal."""

    def attempt(decode) -> np.ndarray | str:
        try:
            return np.asarray(decode())
        except ImageError as error:
            return str(error)

    preprocess = Preprocess(30, 30)
    found = [attempt(lambda: load_image(data, "x")), attempt(lambda: load_pixels(data, "x", 1000))]
    found += [
        attempt(lambda: load_image(data, "x", 30)),
        attempt(lambda: load_pixels(data, "x", 30)),
    ]
    found += [attempt(lambda: for_evaluation(preprocess).make(data, "x"))]
    found += [attempt(lambda: for_training(preprocess, 30).make(data, "x"))]
    found += [attempt(lambda: for_training(preprocess.with_channels(1), 30).make(data, "x"))]
    return found


@pytest.mark.parametrize("sampling", [0x14, 0x41, 0x24, 0x42, 0x13, 0x31])
def test_subsamplings_that_the_fast_decoder_has_no_name_for(sampling: int) -> None:
    """4:4:1 (0x14) and others: simplejpeg ends with KeyError or ValueError, and Pillow decodes."""
    data = with_sampling(PHOTO, sampling)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    full, pixels, scaled, scaled_pixels, *used = by_all(data)
    assert np.array_equal(full, expected) and np.array_equal(pixels, expected)
    assert scaled.shape == (80, 100, 3) and np.array_equal(scaled, scaled_pixels)
    assert all(isinstance(outcome, np.ndarray) for outcome in used)


@pytest.mark.parametrize("size", [(3, 5), (80, 90), (300, 240)])
def test_a_lossless_jpeg_is_decoded_at_its_full_size_by_all(size: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    full, pixels, scaled, scaled_pixels, *used = by_all(lossless_jpeg(grey))
    for found in (full, pixels, scaled, scaled_pixels):
        assert np.array_equal(found, np.repeat(grey[..., None], 3, axis=-1))
    assert all(isinstance(outcome, np.ndarray) for outcome in used)


def patched(offset: int, value: int) -> bytes:
    """PHOTO with another byte in its frame's header."""
    at = PHOTO.index(b"\xff\xc0") + offset
    return PHOTO[:at] + bytes([value]) + PHOTO[at + 1 :]


@pytest.mark.parametrize(
    "data,names",
    [
        (patched(4, 12), ["12 bits", "convert it"]),
        (patched(1, 0xC3), ["lossless", "convert it"]),  # of YCbCr, which no decoder here reads
        (patched(1, 0xC6), ["hierarchical", "convert it"]),
    ],
)
def test_kinds_that_are_not_read_are_refused_by_all_and_named(
    data: bytes, names: list[str]
) -> None:
    found = by_all(data)
    assert len({str(outcome) for outcome in found}) == 1
    with refused(ImageError, "'x'", *names):
        load_image(data, "x")


@pytest.mark.parametrize("marker", range(0xC0, 0xD0))
def test_one_verdict_whatever_the_frame_says(marker: int) -> None:
    """Also of arithmetic coding (0xC9, 0xCA), which libjpeg-turbo reads: here the data are not."""
    found = by_all(patched(1, marker))
    assert len({type(outcome) for outcome in found}) == 1
    if isinstance(found[0], np.ndarray):
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[2], found[3])
    else:
        assert len(set(found)) == 1


def test_the_frame_is_found_behind_other_segments() -> None:
    assert jpeg_frame(PHOTO) == (0xC0, 8)
    assert jpeg_frame(PHOTO[:2] + segment(0xE1, bytes(100)) + b"\xff" + PHOTO[2:]) == (0xC0, 8)
    assert jpeg_frame(lossless_jpeg(np.zeros((2, 2), np.uint8))) == (0xC3, 8)
    assert jpeg_frame(encode(scene(), "JPEG", progressive=True)) == (0xC2, 8)
    for broken in (b"", b"\xff\xd8", PHOTO[:30], b"\xff\xd8" + b"\xff\xe0\0\0" * 9):
        assert jpeg_frame(broken)[0] in (0, 0xC0)


# Without an end


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("missing", [1, 2])
def test_the_end_marker_alone_may_be_missing(
    mode: str, options: dict[str, bool], missing: int
) -> None:
    data = encode(Image.open(io.BytesIO(PHOTO)).convert(mode), "JPEG", **options)
    for found, expected in zip(by_all(data[:-missing]), by_all(data), strict=True):
        assert np.array_equal(found, expected)
    for cut in (10, 300):
        with refused(ImageError, "'x'", "truncated"):
            load_image(data[:-cut], "x")


def test_what_follows_the_end_is_of_no_account() -> None:
    for more in (b"hello" * 100, bytes(1000)):
        damage: list[str] = []
        found = load_image(PHOTO + more, on_damage=damage.append)
        assert np.array_equal(found, load_image(PHOTO)) and not damage


# Damaged


def holed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(300) + data[middle + 300 :]


OTHER = encode(scene(400, 320), "JPEG", subsampling=2)
DAMAGED = {
    "a hole of zeros": holed(PHOTO),
    "two halves": PHOTO[: len(PHOTO) // 2] + OTHER[len(OTHER) // 2 :],
    "a grey one": holed(encode(Image.open(io.BytesIO(PHOTO)).convert("L"), "JPEG")),
    "an end too early": PHOTO[: len(PHOTO) // 2] + b"\xff\xd9",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_jpeg_is_decoded_and_said_to_be_damaged(kind: str) -> None:
    data = DAMAGED[kind]
    for decode in (
        lambda f: load_image(data, "x", on_damage=f),
        lambda f: load_pixels(data, "x", 30, on_damage=f),
        lambda f: for_training(Preprocess(30, 30), 30).make(data, "x", f),
        lambda f: for_evaluation(Preprocess(30, 30)).make(data, "x", f),
    ):
        damage: list[str] = []
        decode(damage.append)
        assert len(damage) == 1 and "'x'" in damage[0] and "damaged" in damage[0]
    assert all(isinstance(outcome, np.ndarray) for outcome in by_all(data))


@pytest.mark.parametrize("kind", ["PHOTO", "RGB", "L", "progressive", "padded", "restarts"])
def test_a_whole_jpeg_is_not(kind: str) -> None:
    image = Image.open(io.BytesIO(PHOTO))
    data = {
        "PHOTO": PHOTO,
        "RGB": encode(image, "JPEG", keep_rgb=True),
        "L": encode(image.convert("L"), "JPEG"),
        "progressive": encode(image, "JPEG", progressive=True),
        "padded": PHOTO[:-2] + bytes(500) + b"\xff\xd9",  # as some cameras do
        "restarts": encode(image, "JPEG", restart_marker_blocks=3),
    }[kind]
    damage: list[str] = []
    for short_side in (None, 30):
        load_image(data, "x", short_side, on_damage=damage.append)
    assert not damage
