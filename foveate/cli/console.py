"""Shared by the verbs: output to stdout and stderr, escaping of names, tables, progress bars."""

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from foveate.progress import Bars

JSON_HELP = "Print one JSON object on stdout instead of a table."
TTA_HELP = "Test-time augmentation: average with the mirror image, or over ten crops."

BETWEEN = 3  # characters between two columns of a table
UNSAFE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # control, format, surrogate, private, separators


def complain(sentence: str) -> None:
    """Print an error on stderr."""
    typer.echo("foveate: " + clean(sentence, keep="\n"), err=True)


def clean(text: str, keep: str = "") -> str:
    """Text from a disk or a file, safe to print.

    Control characters, escape sequences and lone surrogates become \\x.. codes; `keep` is exempt.

    >>> clean("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in UNSAFE
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def print_json(value: Any) -> None:
    """One JSON value on stdout, in a line; where stdout cannot show a letter, as \\u codes."""
    from foveate.storage import encode

    text = encode(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
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

    console = Console(highlight=False)
    asked = spare and "COLUMNS" in os.environ  # a table that cannot be narrower stays whole
    if not console.is_terminal and not asked:
        console.width = 120
    cells = [[Text(clean(cell)) for cell in row] for row in rows]
    widths = [
        max(len(name), *(row[i].cell_len for row in cells), 0) for i, name in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    for name in spare:
        if sum(widths[i] + BETWEEN for i in shown) + 2 - BETWEEN > console.width:  # 2: the edges
            shown.remove(columns.index(name))
    table = Table(
        title=title or None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for i in shown:
        justify: Literal["left", "right"] = "left" if i < left else "right"
        whole = bool(spare) and i == 0
        table.add_column(columns[i], justify=justify, overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*(row[i] for i in shown))
    console.print(table)


def say(text: str = "") -> None:
    """A line on stdout."""
    typer.echo(clean(text))


def log_to_stderr() -> None:
    """Print the library's warnings on stderr; but its notes only once, with a verb's answer."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            typer.echo(
                f"foveate: {record.levelname.lower()}: {clean(record.getMessage())}", err=True
            )

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
            typer.echo(f"{phase}: {total}", err=True)

    def say(self, sentence: str) -> None:
        super().say(clean(sentence, keep="\n"))
