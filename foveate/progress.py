"""How far long jobs are: what they report to, and bars in a terminal or a notebook."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from foveate.errors import UsageError

FEW = 3  # unreadable images that are named
INTERVAL = 0.2  # seconds between two updates of a notebook's bar


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


class Logged:
    """Logs messages at the level INFO, to the logger `foveate`."""

    def begin(self, phase: str, total: int) -> None:
        pass

    def advance(self, n: int = 1) -> None:
        pass

    def say(self, sentence: str) -> None:
        import logging  # seldom needed: predicting goes without

        logging.getLogger("foveate").info("%s", sentence)


class Bars:
    """A bar for each phase, on standard error or in a notebook.

    Args:
        shown: whether bars are drawn; sentences are printed in any case.
        quiet: whether nothing is printed at all.
    """

    def __init__(self, shown: bool = True, quiet: bool = False):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.0f}/s" if task.speed else "")

        self.bars = RichProgress(
            TextColumn("{task.description:<9}"),
            BarColumn(40),
            MofNCompleteColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=quiet),
            transient=True,
            disable=not shown,
        )
        self.task: Any = None

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def begin(self, phase: str, total: int) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(phase, total=total)

    def advance(self, n: int = 1) -> None:
        if not self.bars.disable:
            self.bars.advance(self.task, n)

    def say(self, sentence: str) -> None:
        self.bars.console.print(sentence, highlight=False, markup=False, soft_wrap=True)


class NotebookBars:
    """A bar for the phase at hand, in a cell's output."""

    def __init__(self) -> None:
        from html import escape

        display: Any = sys.modules["IPython"].display
        self.html, self.escape = display.HTML, escape
        self.handle = display.display(self.html(""), display_id=True)
        self.phase, self.total, self.done, self.shown = "", 0, 0, 0.0

    def begin(self, phase: str, total: int) -> None:
        self.phase, self.total, self.done = phase, total, 0
        self.show()

    def advance(self, n: int = 1) -> None:
        self.done += n
        if self.done >= self.total or time.monotonic() - self.shown > INTERVAL:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        bar = f'<progress value="{self.done}" max="{max(1, self.total)}"></progress>'
        self.handle.update(self.html(f"{self.escape(self.phase)} {bar} {self.done}/{self.total}"))

    def say(self, sentence: str) -> None:
        sys.modules["IPython"].display.display(self.html(f"<pre>{self.escape(sentence)}</pre>"))


@contextmanager
def bars(progress: Progress | None) -> Iterator[Progress]:
    """The progress that was given; by default bars in a terminal or a notebook, and a log
    elsewhere.

    Raises:
        UsageError: what was given is no Progress.
    """
    if progress is not None:
        if not all(callable(getattr(progress, act, None)) for act in ("begin", "advance", "say")):
            raise UsageError(
                "progress is an object with begin, advance and say, or None, not "
                f"{progress!r}; foveate.progress.Silent() shows nothing"
            )
        yield progress
    elif in_notebook():
        yield NotebookBars()
    elif sys.stderr.isatty():
        with Bars() as shown:
            yield shown
    else:
        yield Logged()


@contextmanager
def unmonitored() -> Iterator[None]:
    """No thread that watches tqdm's bars, which torch.export and torch.compile make, hidden ones
    too: nothing would end it."""
    from torch import hub

    bar: Any = hub.tqdm  # type: ignore[attr-defined]  # torch's own stubs leave it out
    before = getattr(bar, "monitor_interval", 0)  # torch's own stand-in has none
    bar.monitor_interval = 0
    try:
        yield
    finally:
        bar.monitor_interval = before


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def log_notes(notes: Iterable[str], bad: Mapping[str, str]) -> None:
    """Log what a user should know of a result as warnings, to the logger `foveate.notes`.

    Args:
        notes: sentences; a result's "notes" has them too.
        bad: name and reason of each unreadable image; its "bad".
    """
    import logging

    logger = logging.getLogger("foveate.notes")
    for note in notes:
        logger.warning("%s", note)
    if bad:
        names = ", ".join([*map(repr, islice(bad, FEW)), *["..."][: max(0, len(bad) - FEW)]])
        logger.warning("%d unreadable images were skipped: %s", len(bad), names)
