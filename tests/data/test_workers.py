import io
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from foveate.data import workers as module
from foveate.data.image import load_image
from foveate.data.preprocess import Preprocess, decode
from foveate.data.workers import decode_ahead
from foveate.errors import ImageError

SMALL = Preprocess(4, 4)


def tile(row: int) -> np.ndarray:
    return np.full((4, 4, 3), row, np.uint8)


def decode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_decode_is_load_then_preprocess() -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((300, 200)).convert("RGB").save(buffer, "JPEG")
    preprocess = Preprocess(64, 48, stretch=1.1)
    found = decode(buffer.getvalue(), "x", preprocess)
    assert found.shape == (48, 48, 3)
    assert np.array_equal(found, preprocess.pixels(load_image(buffer.getvalue(), short_side=64)))
    with refused(ImageError, "'x'", "empty"):
        decode(b"", "x", preprocess)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_order_is_kept_whoever_finishes_first(threads: int) -> None:
    turn = threading.Event()

    def decode_row(row: int) -> np.ndarray:
        if threads > 1 and row == 5:
            assert turn.wait(10)  # the first row comes out last
        if row == 3:
            turn.set()
        return tile(row)

    rows = [5, 3, 8, 0, 5, 1]
    found = list(decode_ahead(rows, decode_row, str, SMALL, threads))
    assert [row for row, _ in found] == rows
    assert all(np.array_equal(pixels, tile(row)) for row, pixels in found)


def test_nothing_to_do() -> None:
    assert list(decode_ahead([], tile, str, SMALL, 2)) == []


def test_errors_come_in_their_place() -> None:
    def decode_row(row: int) -> np.ndarray:
        if row % 3 == 0:
            raise ImageError(f"image '{row}' is empty")
        return tile(row)

    for row, outcome in decode_ahead(range(20), decode_row, str, SMALL, 3):
        if row % 3 == 0:
            assert isinstance(outcome, ImageError) and str(outcome) == f"image '{row}' is empty"
        else:
            assert np.array_equal(outcome, tile(row))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bounded_number_is_in_flight(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_BYTES", 10 * 4 * 4 * 3)
    taken = given = 0

    def rows() -> Iterator[int]:
        nonlocal taken
        for row in range(100):
            taken += 1
            yield row

    most = 0
    for _ in decode_ahead(rows(), tile, str, SMALL, threads):
        given += 1
        most = max(most, taken - given)
    assert given == 100
    assert most <= max(10, 2 * threads)


def test_at_least_two_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_BYTES", 0)
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(50):
            taken.append(row)
            yield row

    stream = decode_ahead(rows(), tile, str, SMALL, 3)
    next(stream)
    assert len(taken) == 6
    stream.close()


def test_threads_end_with_the_rows() -> None:
    list(decode_ahead(range(30), tile, str, SMALL, 4))
    assert decode_threads() == []


def test_abandoning_closes_the_threads_and_cancels_the_rest() -> None:
    decoded: list[int] = []
    hold = threading.Event()

    def decode_row(row: int) -> np.ndarray:
        if row > 0:
            assert hold.wait(10)
        decoded.append(row)
        return tile(row)

    stream = decode_ahead(range(1000), decode_row, str, SMALL, 2)
    assert next(stream)[0] == 0
    threading.Timer(0.3, hold.set).start()
    stream.close()
    assert decode_threads() == []
    assert set(decoded) <= {0, 1, 2}  # the one given and the two in hand


def test_other_errors_reach_the_reader_and_close_the_threads() -> None:
    def decode_row(row: int) -> np.ndarray:
        if row == 7:
            raise ZeroDivisionError("a mistake of ours")
        return tile(row)

    given = []
    with refused(ImageError, "'7'", "ZeroDivisionError", "a mistake of ours"):
        given.extend(row for row, _ in decode_ahead(range(50), decode_row, str, SMALL, 2))
    assert decode_threads() == []


def test_an_error_of_the_rows_closes_the_threads() -> None:
    def rows() -> Iterator[int]:
        yield 0
        raise RuntimeError("no more rows")

    with refused(RuntimeError, "no more rows"):
        list(decode_ahead(rows(), tile, str, SMALL, 2))
    assert decode_threads() == []
