"""What an experiment is given, and what it gives back."""

import copy
import csv
import hashlib
import inspect
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from foveate.errors import ArtefactError
from foveate.lab.drawing import save, style
from foveate.lab.images import Images, load
from foveate.progress import Progress, Silent
from foveate.storage import read_object, replacing, write_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Args:
        figure: a matplotlib Figure, of `drawing.figure`.
        rows: of the table, each a number or a word by the column's name.
        seen: three sentences that say what is seen, computed from the numbers; where the effect did
            not appear, they say so.
        shown: whether the effect that the experiment is about did appear; None where the quick form
            does not try.
        change: the one thing to change next.
    """

    figure: Any
    rows: list[Row]
    seen: tuple[str, str, str]
    shown: bool | None
    change: str


@dataclass
class Bench:
    """What an experiment is given.

    Args:
        folder: where its figure and table go, and what is measured on the way.
        quick: whether it has two minutes at most.
        data: "digits", "fashion-mnist", or a folder of photos; "" for what the experiment is best
            shown on.
        seed: of whatever it draws.
        progress: is informed of how far it is.
    """

    folder: Path
    quick: bool = True
    data: str = ""
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    notes: list[str] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)  # what is measured so far
    of: Row = field(default_factory=dict)  # what the measurements are of

    def images(self, data: str = "digits", side: int = 28, most: int = 0) -> Images:
        """The images of `--data`, else of `data`, as tensors.

        Args:
            data: "digits" or "fashion-mnist", on which the experiment is best shown. Where the
                latter is not on this machine, digits take its place, and a note says so.
            side: pixels.
            most: images to learn from; 0 for all.
        """
        return load(self.data or data, side, most, self.seed, self.note, bool(self.data))

    def note(self, sentence: str) -> None:
        """A sentence for the reader, such as that other images were taken."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            self.progress.say(f"note  {sentence}")

    def steps(self, total: int, what: str = "steps") -> None:
        """So many measurements follow."""
        self.progress.begin(what, total)

    def measure(self, key: str, function: Callable[..., Any], *given: Any) -> Any:
        """What the function returns, or returned when the experiment was interrupted after it.

        Args:
            key: says what is measured; the same for the same measurement only.
            function: is called with what is given, returns what JSON can hold, and begins with the
                random numbers of the seed.
        """
        if key not in self.known:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.known[key] = function(*given)
            write_json(self.folder / "measured.json", {"of": self.of, "measured": self.known})
        self.progress.advance()
        return copy.deepcopy(self.known[key])  # theirs to change; this is what is written

    def recall(self, code: str) -> None:
        """Read what was measured before an interruption, by the same code with the same options."""
        self.of = {"quick": self.quick, "data": self.data, "seed": self.seed, "code": code}
        try:
            form = {"of": dict, "measured": dict}
            found = read_object(self.folder / "measured.json", form)
        except ArtefactError:
            return
        if found["of"] == self.of:
            self.known = found["measured"]


def run(module: Any, bench: Bench) -> Row:
    """Run an experiment: `figure.png`, `figure.svg`, `table.csv` and `findings.json` in its folder.

    Args:
        module: the experiment's, as of `Slide.module`.
        bench: what it is given.

    Returns:
        What findings.json holds: question, seen, shown, change, notes, rows, seconds, seed, quick.

    Raises:
        DataError: there are too few images or classes, or they cannot be read.
    """
    begun = time.perf_counter()
    bench.folder.mkdir(parents=True, exist_ok=True)
    bench.recall(hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:16])
    with style():
        found: Findings = module.run(bench)
        save(found.figure, bench.folder / "figure")
    write_table(bench.folder / "table.csv", found.rows)
    result = {
        "lab": module.__name__.rpartition(".")[2].replace("_", "-"),
        "question": module.QUESTION,
        "seen": list(found.seen),
        "shown": found.shown,
        "change": found.change,
        "notes": bench.notes,
        "seed": bench.seed,
        "quick": bench.quick,
        "seconds": round(time.perf_counter() - begun, 1),
        "rows": found.rows,
    }
    write_json(bench.folder / "findings.json", result)
    (bench.folder / "measured.json").unlink(missing_ok=True)
    return result


def write_table(path: Path, rows: list[Row]) -> None:
    """Write the rows as CSV, a column for each name that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
