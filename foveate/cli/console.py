"""What the verbs share: where text goes, how names are made harmless, how progress is drawn."""

import json
import sys
import unicodedata
from typing import Any

import typer

JSON_HELP = "Print one JSON object on stdout instead of a table."


def complain(sentence: str) -> None:
    """One line for people, on stderr."""
    typer.echo("foveate: " + clean(sentence, keep="\n"), err=True)


def clean(text: str, keep: str = "") -> str:
    """A name from a disk or a file, safe to show: control characters, escapes and lone surrogates become \\x.. codes.

    >>> clean("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    shown = []
    for character in text:
        harmless = character in keep or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        shown.append(character if harmless else character.encode("unicode_escape", "surrogatepass").decode())
    return "".join(shown)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> None:
    """A table on stdout; the first `left` columns are text, the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
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
    """Progress on stderr: a bar in a terminal, a line a phase elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: Any = None

    def __enter__(self) -> "TerminalProgress":
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bars.stop()
        if kind in (KeyboardInterrupt, SystemExit):
            complain("stopped; what was computed is kept: the same command goes on from there")

    def begin(self, phase: str, total: int) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(phase, total=total)
        if self.bars.disable:
            typer.echo(f"{phase}: {total}", err=True)

    def advance(self, n: int = 1) -> None:
        if not self.bars.disable:
            self.bars.advance(self.task, n)
