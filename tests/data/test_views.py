"""Views of an image: what of it each shows, and that every reader is shown the same."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from refusals import refused

from foveate.data.decoding import for_training
from foveate.data.preprocess import (
    FRAMINGS,
    MOST,
    Preprocess,
    View,
    decode,
    decode_squares,
)
from foveate.errors import ArtefactError, UsageError

WHOLE = Preprocess(48, 48, mean=(0.5, 0.25, 0.75), std=(0.5,) * 3)


def ramp(width: int, height: int) -> Image.Image:
    """Red says how far right a pixel is, green how far down."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).round().astype(np.uint8))


def range_of(channel: NDArray[np.uint8]) -> float:
    """Which part of a ramp is seen."""
    return (int(channel.max()) - int(channel.min())) / 255


@pytest.mark.parametrize(("name", "shares"), FRAMINGS.items())
def test_a_framing_shows_its_share_of_the_shorter_side(
    name: str, shares: tuple[float, ...]
) -> None:
    seen = WHOLE.framed(name)
    assert seen.framing == name
    for square, share in zip(seen.squares(ramp(300, 200)), shares, strict=True):
        assert square.shape == (48, 48, 3)
        assert range_of(square[:, :, 1]) == pytest.approx(share, abs=0.04)
        assert range_of(square[:, :, 0]) == pytest.approx(share * 200 / 300, abs=0.04)
    assert seen.seen(300, 200) == pytest.approx(max(shares) ** 2 * 200 / 300, abs=0.01)


@pytest.mark.parametrize(
    ("width", "height"), [(640, 120), (120, 640), (1, 500), (500, 1), (90, 90)]
)
def test_squash_and_pad_show_all(width: int, height: int) -> None:
    image = ramp(width, height)
    squashed = WHOLE.framed(fit="squash").pixels(image)
    padded = WHOLE.framed(fit="pad").pixels(image)
    for square in (squashed, padded):
        assert square.shape == (48, 48, 3)
    for fit in ("squash", "pad"):
        assert WHOLE.framed(fit=fit).seen(width, height) == 1
    if width > 1 and height > 1:
        assert range_of(squashed[:, :, 0]) > 0.9 and range_of(squashed[:, :, 1]) > 0.9
    border = np.array([128, 64, 191])
    inside = (padded != border).any(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    long = (len(columns), len(rows)) if width >= height else (len(rows), len(columns))
    assert long[0] == 48 and long[1] == max(1, round(48 * min(width, height) / max(width, height)))
    assert rows[0] + rows[-1] in (46, 47, 48) and columns[0] + columns[-1] in (46, 47, 48)


def test_padding_of_grey_images() -> None:
    seen = Preprocess(20, 20, channels=1, mean=(0.5,), std=(0.5,)).framed(fit="pad")
    square = seen.pixels(ramp(80, 20))
    assert square.shape == (20, 20, 1) and set(np.unique(square[:5])) == {128}


def test_a_call_gives_a_tensor_a_view() -> None:
    image = ramp(100, 80)
    both = WHOLE.framed("whole+2/3")
    first, second = both(image)
    assert (first == WHOLE(image)).all() and (second == WHOLE.framed("2/3")(image)).all()
    with refused(UsageError, "2 views"):
        both.pixels(image)


@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [(1000, 700, "JPEG"), (300, 200, "JPEG"), (90, 60, "JPEG"), (400, 300, "PNG")],
)
def test_a_views_pixels_do_not_depend_on_the_others(width: int, height: int, kind: str) -> None:
    """A large JPEG is decoded smaller for the whole than for a part of it."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    buffer = io.BytesIO()
    noise.resize((width, height)).save(buffer, kind)
    data = buffer.getvalue()
    both = replace(WHOLE.framed("whole+2/3"), more=(View(300, 48), *WHOLE.framed("2/3").views))
    squares = decode_squares(data, "x", both)
    for view, square in zip(both.views, squares, strict=True):
        assert (square == decode(data, "x", both.alone(view))).all()


def test_to_and_from_json() -> None:
    assert set(WHOLE.to_dict()) == {
        *("resize", "crop", "stretch", "interpolation", "channels", "mean", "std")
    }
    for seen in (
        WHOLE.framed("whole+2/3"),
        WHOLE.framed(fit="pad"),
        replace(WHOLE, more=(View(40, 30, fit="crop", stretch=1.1, interpolation="bilinear"),)),
    ):
        assert Preprocess.from_dict(seen.to_dict()) == seen
    for spoilt in (
        {"more": [{"resize": 1}]},
        {"more": 3},
        {"fit": "wide"},
        {"fit": "pad", "crop": 40},
        {"more": [WHOLE.framed("2/3").to_dict()] * 20},
        {"views": []},
    ):
        with refused(ArtefactError, "Preprocess"):
            Preprocess.from_dict(WHOLE.to_dict() | spoilt)


def test_what_contradicts_is_refused() -> None:
    for framing, fit, names in (
        ("3", "crop", ["'3'", "whole+2/3"]),
        ("2/3", "pad", ["pad", "2/3"]),
        ("whole+2/3", "squash", ["squash", "whole+2/3"]),
        ("whole", "stretch", ["'stretch'", "squash"]),
    ):
        with refused(UsageError, *names):
            WHOLE.framed(framing, fit)
    with refused(UsageError, "resize", "4096"):
        Preprocess(4000, 4000).framed("1/2")
    with refused(UsageError, "whole image"):
        View(64, 48, fit="squash")
    with refused(UsageError, "whole image"):
        View(48, 48, stretch=1.2, fit="pad")
    with refused(UsageError, str(MOST)):
        replace(WHOLE, more=(View(48, 48),) * MOST)
    with refused(UsageError, "View"):
        replace(WHOLE, more=(48,))


# Training crops


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("framing", "part"), [("whole", 1), ("7/8", 1), ("2/3", 16 / 21)])
def test_training_sees_the_framed_part_with_a_margin(framing: str, part: float) -> None:
    rule = for_training(WHOLE.framed(framing), 60)
    pixels = rule.make(jpeg(ramp(300, 200)), "x")
    assert pixels.shape == (60, 90, 3)
    assert range_of(pixels[:, :, 0]) == pytest.approx(part, abs=0.03)
    assert range_of(pixels[:, :, 1]) == pytest.approx(part, abs=0.03)


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_training_sees_the_square_that_prediction_sees(fit: str) -> None:
    seen = WHOLE.framed(fit=fit)
    data = jpeg(ramp(300, 100))
    assert (for_training(seen, 48).make(data, "x") == decode(data, "x", seen)).all()
    assert for_training(seen, 60).make(data, "x").shape == (60, 60, 3)


def test_what_is_kept_for_training_is_known_by_what_is_seen() -> None:
    identities = [
        for_training(seen, 60).identity
        for seen in (
            *(WHOLE.framed(framing) for framing in ("whole", "2/3", "1/2")),
            *(WHOLE.framed(fit=fit) for fit in ("squash", "pad")),
        )
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    assert for_training(WHOLE.framed("7/8"), 60).identity == identities[0]
