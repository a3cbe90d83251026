"""libtiff writes its complaints to the process's stderr, and Pillow logs some of its own; both are
errors here that name the file. They are silent while this process decodes a TIFF, and as they were
afterwards."""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock, get_ident
from typing import Any

from PIL import _imaging

LOGGER = logging.getLogger("PIL.TiffImagePlugin")


class Decoding(logging.Filter):
    """The threads that decode a TIFF now, whose records are not passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()
        self.threads: list[int] = []
        self.handler: Any = None  # libtiff's before the first of them

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self.threads


DECODING = Decoding()


def forget_threads() -> None:
    """In the child of a fork no other thread goes on: none holds the lock or decodes."""
    DECODING.lock = Lock()
    if DECODING.threads:
        DECODING.threads = [get_ident()] if get_ident() in DECODING.threads else []
        if not DECODING.threads:
            restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_threads)


@contextmanager
def quiet_libtiff() -> Iterator[None]:
    """No text on stderr from a TIFF that is decoded in this block."""
    with DECODING.lock:
        if not DECODING.threads:
            LOGGER.addFilter(DECODING)
            if (set_handler := error_handler()) is not None:
                DECODING.handler = set_handler(None)
        DECODING.threads.append(get_ident())
    try:
        yield
    finally:
        with DECODING.lock:
            DECODING.threads.remove(get_ident())
            if not DECODING.threads:
                restore()


def restore() -> None:
    LOGGER.removeFilter(DECODING)
    if (set_handler := error_handler()) is not None:
        set_handler(DECODING.handler)


@cache
def error_handler() -> Any:
    """libtiff's TIFFSetErrorHandler, of the copy that Pillow uses; None where it cannot be reached
    (Pillow for Windows has it inside)."""
    try:
        function = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return None
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return function
