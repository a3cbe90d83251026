"""How long jobs say how far they are, without printing: the command line listens and draws."""

from typing import Protocol


class Progress(Protocol):
    """Hears how far a long job is."""

    def begin(self, phase: str, total: int) -> None:
        """A phase begins; it has `total` steps."""

    def advance(self, n: int = 1) -> None:
        """`n` steps of it are done."""

    def say(self, sentence: str) -> None:
        """Something that a person should read now."""


class Silent:
    """Hears and says nothing."""

    def begin(self, phase: str, total: int) -> None:
        pass

    def advance(self, n: int = 1) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass
