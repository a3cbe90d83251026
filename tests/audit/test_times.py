"""When photos were taken, of real files with EXIF; and series, of times that are known."""

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveate.audit.times import GAP, MANY, series, taken_at

ORIGINAL, DIGITIZED, FRACTION = 0x9003, 0x9004, 0x9291
NOON = datetime(2024, 5, 31, 12, 0, 0, tzinfo=UTC).timestamp()
NAN = float("nan")


def photo(tags: dict[int, Any], kind: str = "JPEG") -> bytes:
    """A file of this format with these tags in its Exif directory."""
    exif = Image.Exif()
    exif[0x0132] = "2001:01:01 00:00:00"  # DateTime: when the file was changed
    exif.get_ifd(0x8769).update(tags)
    exif[0x8769] = 0  # a TIFF is saved with the directories that are listed here
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif)
    return file.getvalue()


# When it was taken


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_time_of_a_file(kind: str) -> None:
    assert taken_at(photo({ORIGINAL: "2024:05:31 12:00:00"}, kind)) == NOON


@pytest.mark.parametrize(
    "tags,expected",
    [
        ({ORIGINAL: "2024:05:31 12:00:00", FRACTION: "25"}, NOON + 0.25),
        ({ORIGINAL: "2024:05:31 12:00:00", FRACTION: "050  "}, NOON + 0.05),
        ({ORIGINAL: "2024:05:31 12:00:00", FRACTION: "   "}, NOON),
        ({ORIGINAL: "2024:05:31 12:00:01", DIGITIZED: "2024:05:31 12:00:00"}, NOON + 1),
        ({DIGITIZED: "2024:05:31 12:00:00"}, NOON),
        ({DIGITIZED: "2024:05:31 12:00:00", FRACTION: "25"}, NOON),  # that of the other tag
        ({ORIGINAL: "0000:00:00 00:00:00", DIGITIZED: "2024:05:31 12:00:00"}, NOON),
        ({ORIGINAL: "2024-05-31T12:00:00+02:00"}, NOON),  # local time
        ({ORIGINAL: b"2024:05:31 12:00:00\0"}, NOON),
    ],
)
def test_tags(tags: dict[int, Any], expected: float) -> None:
    assert taken_at(photo(tags)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "date",
    [
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "1970:01:01 00:00:00",
        "1989:12:31 23:59:59",
        "2999:01:01 00:00:00",
        "2024:06:31 12:00:00",
        "2024:05:31 24:00:00",
        "2024:05:31",
        "٢٠٢٤:05:31 12:00:00".encode(),
        "yesterday",
        "",
    ],
)
def test_what_is_no_time(date: str | bytes) -> None:
    assert taken_at(photo({ORIGINAL: date})) is None


def test_a_clock_may_be_a_zone_ahead_but_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = photo({ORIGINAL: "2024:05:31 12:00:00"})
    monkeypatch.setattr(time, "time", lambda: NOON - 14 * 3600)
    assert taken_at(data) == NOON
    monkeypatch.setattr(time, "time", lambda: NOON - 25 * 3600)
    assert taken_at(data) is None


def test_files_without_a_time() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    assert taken_at(file.getvalue()) is taken_at(photo({})) is None
    assert taken_at(b"") is taken_at(b"text") is taken_at(photo({}, "GIF")) is None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damage_is_never_an_exception(kind: str) -> None:
    """Every byte of a small file in turn, and every length; what is left of a date may be read"""
    data = photo({ORIGINAL: "2024:05:31 12:00:00", FRACTION: "25"}, kind)
    at = data.index(b"2024:05:31")
    for i in range(max(0, at - 150), at + 30):
        for byte in (0, 0x7F, 0xFF):
            assert isinstance(taken_at(data[:i] + bytes([byte]) + data[i + 1 :]), float | None)
        assert isinstance(taken_at(data[:i]), float | None)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_no_pixels_are_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo({ORIGINAL: "2024:05:31 12:00:00"}, kind)]
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    decoded: Callable[..., Any] = lambda *_: pytest.fail("pixels were decoded")  # noqa: E731
    monkeypatch.setattr(Image, "_getdecoder", decoded)
    assert [taken_at(data) for data in [*files, file.getvalue()]] == [NOON, None]


# Series


def found(times: list[float], labels: list[Any] | None = None) -> list[int]:
    marks = np.zeros(len(times), np.int64) if labels is None else np.array(labels, np.int64)
    return series(np.array(times, np.float64), marks).tolist()


def test_bursts_are_found() -> None:
    assert found([100, 0, 102, 50, 101, 9]) == [0, 1, 0, 3, 0, 1]


def test_the_gap_is_the_longest_pause() -> None:
    assert found([0, GAP, 2 * GAP + 0.01, 3 * GAP]) == [0, 0, 2, 2]


def test_a_time_lapse_is_one_series() -> None:
    assert found([GAP * i for i in range(500)]) == [0] * 500


def test_classes_are_apart() -> None:
    assert found([0, 1, 2, 3], [7, 2, 7, 2]) == [0, 1, 0, 1]


def test_images_with_several_labels_are_of_one_series_if_all_are_equal() -> None:
    assert found([0, 1, 2, 3, 4], [[1, 0], [1, 1], [1, 0], [0, 0], [0, 0]]) == [0, 1, 0, 3, 3]


def test_no_time_is_in_no_series() -> None:
    assert found([NAN, 0, NAN, 1, float("inf")]) == [0, 1, 2, 1, 4]
    assert found([NAN, NAN]) == [0, 1] and found([NAN, 5]) == [0, 1]


def test_a_second_that_far_too_many_images_share_is_no_time() -> None:
    """A conversion's: a burst of the same camera is found beside it"""
    conversion = [1000.0 + i / 10 for i in range(MANY + 1)]
    alone = list(range(MANY + 1))
    assert found([*conversion, 0, 5]) == [*alone, MANY + 1, MANY + 1]
    assert found([1001.0, *conversion, 0])[0] == 0  # it does not connect the others


def test_as_many_in_a_large_set_are_a_burst() -> None:
    """Six of 30 are a fifth, of 29 more than that; five are never too many"""
    assert found([0.0] * 6 + [100.0 * i for i in range(1, 25)]) == [0] * 6 + list(range(6, 30))
    assert found([0.0] * 6 + [100.0 * i for i in range(1, 24)]) == list(range(29))
    assert found([0.0] * MANY + [100.0]) == [0] * MANY + [MANY]


def test_one_time_alone_says_nothing() -> None:
    assert found([3.0, 3.0, 3.0, NAN]) == [0, 1, 2, 3]
    assert found([3.0] * 9 + [50.0]) == list(range(10))


def test_nothing_is_in_no_series() -> None:
    for labels in (np.zeros(0, np.int64), np.zeros((0, 3), np.int64)):
        result = series(np.zeros(0), labels)
        assert result.shape == (0,) and result.dtype == np.int64


def by_pairs(times: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same by spreading the smallest row over all near pairs, until nothing changes."""
    near = (labels[:, None] == labels) & (np.abs(times[:, None] - times) <= GAP)
    np.fill_diagonal(near, True)
    smallest = np.arange(len(times))
    while True:
        spread = np.where(near, smallest, len(times)).min(axis=1)
        if np.array_equal(spread, smallest):
            return smallest
        smallest = spread


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_pairs_one_by_one_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.uniform(0, 2000, 300).round(1)
    times[rng.permutation(300)[:30]] = NAN
    labels = rng.integers(0, 3, 300)
    expected = by_pairs(times, labels)
    assert np.array_equal(series(times, labels), expected)
    assert 1 < len(np.unique(expected)) < 290
    order = rng.permutation(300)
    again = series(times[order], labels[order])
    same = expected[order]
    assert np.array_equal(again[:, None] == again, same[:, None] == same)


@pytest.mark.parametrize(
    "times,labels",
    [
        (np.zeros(2), np.zeros(3, np.int64)),
        (np.zeros((2, 1)), np.zeros(2, np.int64)),
        (np.zeros(2), np.zeros((2, 1, 1), np.int64)),
    ],
)
def test_shapes_that_differ(times: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="expected"):
        series(times, labels)
