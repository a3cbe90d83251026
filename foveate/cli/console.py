"""Shared by the verbs: output to stdout and stderr, escaping of names, tables, progress bars."""

import contextlib
import errno
import functools
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import typer

from foveate.errors import FoveateError, printable
from foveate.progress import Bars

JSON_HELP = "Print one JSON object on stdout instead of a table."
TTA_HELP = "Test-time augmentation: average with the mirror image, or over ten crops."


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
    """One JSON value on stdout, in a line: characters as they are, but for those that the console
    cannot carry or that steer it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    if not (text.isascii() and text.isprintable()):
        text = "".join(json_character(encoding, c) for c in text)
    sys.stdout.write(text + "\n")


@functools.cache
def json_character(encoding: str, c: str) -> str:
    r"""A character of a JSON text, or its escape.

    >>> print(json_character("utf-8", "猫"), json_character("cp1252", "猫"))
    猫 \u732b
    """
    try:
        if printable(c) == c:
            c.encode(encoding)
            return c
    except UnicodeEncodeError:
        pass
    return json.dumps(c)[1:-1]


def print_table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> None:
    """A table on stdout; the first `left` columns are text, the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def shown(text: str) -> Text:
        return Text(encodable(clean(text)))

    table = Table(
        title=shown(title) if title else None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for i, name in enumerate(columns):
        table.add_column(shown(name), justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def encodable(text: str) -> str:
    """What standard output will show of a text: columns are as wide as that."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str = "") -> None:
    """A line on stdout."""
    typer.echo(clean(text), file=sys.stdout)


class TerminalProgress(Bars):
    """Progress on stderr: a bar in a terminal, a line for each phase elsewhere."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__(shown=sys.stderr.isatty() and not silent, quiet=silent)
        self.silent = silent

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        kind = error[0] if error else None
        if kind in (KeyboardInterrupt, SystemExit) and not self.silent:
            complain(
                "stopped; finished work is kept: repeat the command to continue, with --resume "
                "for a run"
            )

    def begin(self, phase: str, total: int) -> None:
        super().begin(phase, total)
        if self.bars.disable and not self.silent:
            typer.echo(f"{phase}: {total}", file=sys.stderr)

    def say(self, sentence: str) -> None:
        super().say(clean(sentence, keep="\n"))
