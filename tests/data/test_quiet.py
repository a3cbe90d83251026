"""Decoders write nothing to stderr, and the host's logging and libtiff are as before."""

import logging
import os
import threading

import numpy as np
import pytest
from encoded import encode, scene
from PIL import Image

from foveate.data import quiet
from foveate.data.image import load_image
from foveate.errors import ImageError


def broken_tiffs() -> list[bytes]:
    """Files of which libtiff has something to say."""
    rng = np.random.default_rng(0)
    found = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "group4"):
        image = scene().convert("1") if compression == "group4" else scene()
        data = encode(image, "TIFF", compression=compression)
        for _ in range(20):
            broken = bytearray(data)
            for position in rng.integers(200, len(data), 3):
                broken[position] = rng.integers(256)
            found.append(bytes(broken))
    return found


def decode_all(files: list[bytes]) -> None:
    for data in files:
        try:
            load_image(data)
        except ImageError:
            continue


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_libtiff_is_silent_and_itself_again_afterwards(
    capfd: pytest.CaptureFixture[str],
) -> None:
    if quiet.error_handler() is None:
        pytest.skip("this Pillow has libtiff inside")
    handler = quiet.error_handler()(None)
    quiet.error_handler()(handler)
    files = broken_tiffs()
    threads = [threading.Thread(target=decode_all, args=(files,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == ""
    assert quiet.error_handler()(handler) == handler
    assert quiet.DECODING not in quiet.LOGGER.filters and not quiet.DECODING.threads


def test_pillows_records_of_other_threads_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    def host() -> None:
        quiet.LOGGER.error("the host's")

    with caplog.at_level(logging.ERROR, "PIL.TiffImagePlugin"), quiet.quiet_libtiff():
        quiet.LOGGER.error("ours")
        thread = threading.Thread(target=host)
        thread.start()
        thread.join()
    assert [record.message for record in caplog.records] == ["the host's"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_decodes() -> None:
    entered, leave = threading.Event(), threading.Event()

    def decode() -> None:
        with quiet.quiet_libtiff():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=decode)
    thread.start()
    entered.wait(30)
    child = os.fork()
    if child == 0:
        load_image(encode(Image.new("L", (4, 4)), "TIFF"))
        os._exit(len(quiet.DECODING.threads))
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    thread.join()
    assert not quiet.DECODING.threads
