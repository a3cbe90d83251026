"""Shared by the verbs: output to stdout and stderr, escaping of names, tables, progress bars."""

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.errors import FoveateError, printable
from foveate.progress import Bars

JSON_HELP = "Print one JSON object on stdout instead of a table."
TTA_HELP = "Test-time augmentation: average with the mirror image, or over ten crops."

BETWEEN = 3  # characters between two columns of a table


def any_console() -> None:
    """Make standard output and error take every text, whatever their encoding: what that cannot
    carry is escaped.

    Raises:
        FoveateError: standard output is closed.
    """
    if sys.stderr is None:  # 2>&-: nobody reads the messages
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # >&-
        raise FoveateError("standard output is closed; redirect it: > /dev/null")


def flush() -> None:
    """Write what is left for standard output, so that a failure is known before the exit code.

    Raises:
        FoveateError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        forget_output()
        if isinstance(error, BrokenPipeError):  # `| head` has read enough
            raise SystemExit(1) from None
        raise unwritten(error) from error


def unwritten(error: Exception) -> FoveateError:
    reason = getattr(error, "strerror", None) or error
    return FoveateError(f"standard output cannot be written: {reason}")


def is_of_output(error: OSError) -> bool:
    """Whether it comes of writing to a stream: errors of files have their names, and those of full
    disks are ours."""
    return error.filename is None and error.errno in (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF),
    )


def forget_output() -> None:
    """Let standard output end in nothing: the interpreter would try to write its rest again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(sentence: str) -> None:
    """Print an error on stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        typer.echo("foveate: " + clean(sentence, keep="\n"), file=sys.stderr)
        sys.stderr.flush()


def clean(text: str, keep: str = "") -> str:
    """Text from a disk or a file, safe to print; `keep` is exempt."""
    return printable(text, keep)


def print_json(value: Any) -> None:
    """One JSON value on stdout, in a line: letters as they are, but for those that stdout cannot
    carry, as \\u codes."""
    from foveate.storage import encode

    text = encode(value)
    if encodable(text) != text:
        text = "".join(c if encodable(c) == c else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(text + "\n")


def print_table(
    title: str,
    columns: list[str],
    rows: list[list[str]],
    left: int = 1,
    spare: Sequence[str] = (),
) -> None:
    """A table on stdout.

    Args:
        title: above it; "" for none.
        columns: their names.
        rows: a cell for each column.
        left: so many columns from the left are text, the others numbers.
        spare: columns that are left out, the first of these first, until the table fits the width.
            The first column is then never wrapped.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def shown(text: str) -> Text:
        return Text(encodable(clean(text)))

    console = Console(highlight=False)
    asked = spare and "COLUMNS" in os.environ  # a table that cannot be narrower stays whole
    if not console.is_terminal and not asked:
        console.width = 120
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [
        max(len(name), *(row[i].cell_len for row in cells), 0) for i, name in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    for name in spare:
        if sum(widths[i] + BETWEEN for i in kept) + 2 - BETWEEN > console.width:  # 2: the edges
            kept.remove(columns.index(name))
    table = Table(
        title=shown(title) if title else None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for i in kept:
        justify: Literal["left", "right"] = "left" if i < left else "right"
        whole = bool(spare) and i == 0
        table.add_column(shown(columns[i]), justify=justify, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*(row[i] for i in kept))
    console.print(table)


def encodable(text: str) -> str:
    """What standard output will show of a text: columns are as wide as that."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str = "") -> None:
    """A line on stdout."""
    typer.echo(clean(text), file=sys.stdout)


def log_to_stderr() -> None:
    """Print the library's warnings on stderr; but its notes only once, with a verb's answer."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = clean(record.getMessage())
            typer.echo(f"foveate: {record.levelname.lower()}: {message}", file=sys.stderr)

    logger = logging.getLogger("foveate")
    logger.addHandler(Lines(logging.WARNING))
    logger.propagate = False
    logging.getLogger("foveate.notes").disabled = True


def hush(quiet: bool) -> bool:
    """`--quiet`: no warnings, neither of Foveate's nor of Python's."""
    if quiet:
        import logging
        import warnings

        logging.getLogger("foveate").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
    return quiet


Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=hush, help="Only errors on stderr.")]


class TerminalProgress(Bars):
    """Progress on stderr: a bar in a terminal, a line for each phase elsewhere.

    Args:
        quiet: show only that it was stopped.
        silent: show nothing, as all but the first of many processes do.
        stopped: what to say when it is stopped.
    """

    def __init__(self, quiet: bool = False, silent: bool = False, stopped: str = "stopped") -> None:
        self.stopped = stopped
        self.silent, self.mute = silent, quiet or silent
        super().__init__(shown=sys.stderr.isatty() and not self.mute, quiet=self.mute)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        kind = error[0] if error else None
        if kind in (KeyboardInterrupt, SystemExit) and not self.silent:
            complain(self.stopped)

    def begin(self, phase: str, total: int) -> None:
        super().begin(phase, total)
        if self.bars.disable and not self.mute:
            typer.echo(f"{phase}: {total}", file=sys.stderr)

    def say(self, sentence: str) -> None:
        super().say(clean(sentence, keep="\n"))
