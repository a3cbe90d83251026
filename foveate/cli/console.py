"""Shared by the verbs: output to stdout and stderr, escaping of names, tables, progress bars."""

import json
import sys
import unicodedata
from typing import Any

import typer

JSON_HELP = "Print one JSON object on stdout instead of a table."
TTA_HELP = "Test-time augmentation: average with the mirror image, or over ten crops."

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
    """One JSON value on stdout, in a line."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> None:
    """A table on stdout; the first `left` columns are text, the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None,
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def say(text: str = "") -> None:
    """A line on stdout."""
    typer.echo(clean(text))


class TerminalProgress:
    """Progress on stderr: a bar in a terminal, one line a phase elsewhere."""

    def __init__(self, silent: bool = False) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.0f}/s" if task.speed else "")

        console = Console(stderr=True, quiet=silent)
        self.bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(40),
            MofNCompleteColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or silent,
        )
        self.silent = silent
        self.task: Any = None

    def __enter__(self) -> "TerminalProgress":
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bars.stop()
        if kind in (KeyboardInterrupt, SystemExit) and not self.silent:
            complain(
                "stopped; finished work is kept: repeat the command to continue, with --resume "
                "for a run"
            )

    def begin(self, phase: str, total: int) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(phase, total=total)
        if self.bars.disable and not self.silent:
            typer.echo(f"{phase}: {total}", err=True)

    def advance(self, n: int = 1) -> None:
        if not self.bars.disable:
            self.bars.advance(self.task, n)

    def say(self, sentence: str) -> None:
        self.bars.console.print(
            clean(sentence, keep="\n"), highlight=False, markup=False, soft_wrap=True
        )
