"""Progress of long jobs, reported without printing: the command line draws it."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a long job."""

    def begin(self, phase: str, total: int) -> None:
        """A phase begins; it has `total` steps."""

    def advance(self, n: int = 1) -> None:
        """`n` steps of it are done."""

    def say(self, sentence: str) -> None:
        """A message for the user, to be shown now."""


class Silent:
    """Ignores all progress and messages."""

    def begin(self, phase: str, total: int) -> None:
        pass

    def advance(self, n: int = 1) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass
