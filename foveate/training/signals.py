"""Signals: the first asks training to save and stop, the second ends it at once.

Ctrl-C    saves, exit code 130         SIGUSR1   saves, exit code 75: a scheduler may queue the job again
SIGTERM   saves, exit code 143
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    CODES[signal.SIGUSR1] = 75


class Wish:
    """What a signal asked for: `code` is the exit code, 0 as long as none has come."""

    def __init__(self) -> None:
        self.code = 0

    def hear(self, signum: int, frame: FrameType | None) -> None:
        self.code = CODES[signal.Signals(signum)]
        for each in CODES:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def heard() -> Iterator[Wish]:
    """Signals become a wish that the loop looks at after each step; in threads, which cannot have any, none comes."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before: dict[signal.Signals, Any] = {each: signal.signal(each, wish.hear) for each in CODES}
    try:
        yield wish
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def stop(code: int) -> BaseException:
    """What to raise when a wish has been granted."""
    return KeyboardInterrupt() if code == 130 else SystemExit(code)
