"""A budget of seconds for each training."""

import time

from foveate.progress import Progress

AFTER = ("thumbnails",)  # phases of a training that is finished


class OverBudgetError(Exception):
    """A training took longer than it was given: its row says so."""


class Deadline:
    """Hands progress on until the time is over, then raises OverBudgetError.

    A probe has no epochs of which it could do fewer: it is done in time, or it is not.

    Args:
        progress: is informed.
        seconds: from now on; None is no limit.
    """

    def __init__(self, progress: Progress, seconds: float | None):
        self.progress, self.seconds = progress, seconds
        self.begun, self.phase, self.total, self.done = time.monotonic(), "", 0, 0

    def check(self) -> None:
        late = self.seconds is not None and time.monotonic() - self.begun > self.seconds
        if late and self.phase not in AFTER:
            raise OverBudgetError(
                f"it was not finished within {self.seconds:g} s: {self.phase}, {self.done} of "
                f"{self.total}"
            )

    def begin(self, phase: str, total: int) -> None:
        self.phase, self.total, self.done = phase, total, 0
        self.check()
        self.progress.begin(phase, total)

    def advance(self, n: int = 1) -> None:
        self.done += n
        self.check()
        self.progress.advance(n)

    def say(self, sentence: str) -> None:
        self.progress.say(sentence)
