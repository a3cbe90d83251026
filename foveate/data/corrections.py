"""Corrections: a table in which a person says which labels are right.

    file,...,correction     comma, semicolon or tab; other columns are not read

A correction is a class, or labels with | between them (| alone is no label); `ok`, the label is
right; `remove`, leave the image out; or nothing, which changes nothing. A class that is called `ok`
or `remove` is meant where there is one. `foveate data audit --csv` and `foveate review` write such
a table.
"""

import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foveate.arguments import checked_path
from foveate.data.dataset import BETWEEN, Dataset, listed
from foveate.data.layouts import composed
from foveate.data.tables import records
from foveate.errors import DataError, quoted

OK, REMOVE = "ok", "remove"
COLUMNS = ("file", "correction")


class Correction(NamedTuple):
    """A line of the table that says something."""

    line: int
    file: str
    says: str


@dataclass(frozen=True)
class Corrected:
    """A dataset after its corrections.

    Args:
        dataset: with the labels changed, without the images that were removed, and with a note.
        confirmed: files whose label, given or corrected, a person has found right.
        table: its bytes; None where there is none.
        said: the corrections that were applied.
    """

    dataset: Dataset
    confirmed: frozenset[str] = frozenset()
    table: bytes | None = None
    said: tuple[Correction, ...] = ()


def correct(dataset: Dataset, table: str | os.PathLike[str]) -> Corrected:
    """Apply a table of corrections. No file is touched.

    Raises:
        DataError: it cannot be read or lacks a column; it names images that the dataset does not
            have, labels that it does not know, or one image with two corrections.
        UsageError: `table` is no path.
    """
    path = checked_path("corrections is the path of a table", table)
    place = {composed(name): row for row, name in enumerate(dataset.files)}
    everything = read_corrections(path)
    said = [
        correction
        for correction in everything
        if composed(correction.file) in place or correction.says.lower() != REMOVE
    ]
    if everything and not said:
        said = everything  # none of its files is there: it is of other data
    check_files(path, dataset, said, place)
    labels, kept = dataset.labels.copy(), np.ones(len(dataset), bool)
    changed = 0
    for correction in said:
        row = place[composed(correction.file)]
        label = label_of(path, dataset, correction)
        if label is None:
            kept[row] = correction.says.lower() != REMOVE
        else:
            changed += int((labels[row] != label).any())
            labels[row] = label
    removed = int((~kept).sum())
    note = (
        f"corrections of {quoted(path.name)}: labels changed: {changed}, confirmed: "
        f"{len(said) - changed - removed}, images removed: {removed}"
    )
    if not said:
        note = f"{quoted(path.name)} has no correction: its column correction is empty"
    relabelled = replace(dataset, labels=labels, notes=(*dataset.notes, note))
    if "digests" in dataset.__dict__:  # computed before: no file is read again
        relabelled.__dict__["digests"] = dataset.digests
    rows = [place[composed(correction.file)] for correction in said]
    confirmed = frozenset(dataset.files[row] for row in rows if kept[row])
    if not kept.any():
        raise DataError(f"{quoted(path)} removes all images of {quoted(dataset.name)}")
    rest = relabelled.select(kept) if removed else relabelled
    return Corrected(rest, confirmed, path.read_bytes(), tuple(said))


def read_corrections(path: Path) -> list[Correction]:
    """The lines that say something, one for each file."""
    if not path.exists():
        raise DataError(f"there is no table {quoted(path)}")
    lines = records(path)
    _, header = next(lines, (1, []))
    columns = [column.strip().lower() for column in header]
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{quoted(path)} lacks the column {' and '.join(missing)}; expected file and "
            f"correction, found {', '.join(filter(None, columns)) or 'no rows'}"
        )
    at = [columns.index(name) for name in COLUMNS]
    found: dict[str, Correction] = {}
    for line, cells in lines:
        file, says = (cells[i] if i < len(cells) else "" for i in at)
        correction = Correction(line, file, says.strip())
        if not correction.says:
            continue
        before = found.setdefault(composed(file), correction)
        if before.says.lower() != correction.says.lower():
            raise DataError(
                f"{quoted(path)}, lines {before.line} and {line}: {quoted(file)} is corrected "
                f"twice, to '{before.says}' and '{correction.says}'; leave one of them"
            )
    return list(found.values())


def check_files(
    path: Path, dataset: Dataset, said: list[Correction], place: dict[str, int]
) -> None:
    """DataError if an image is named that the dataset does not have."""
    absent = [c.file for c in said if composed(c.file) not in place]
    if not absent:
        return
    if len(absent) == len(said):
        raise DataError(
            f"{quoted(path)} is of other data: {quoted(dataset.name)} has none of its files, such "
            f"as {quoted(absent[0])}; a file is named as here: {quoted(dataset.files[0])}"
        )
    files = "1 file" if len(absent) == 1 else f"{len(absent)} files"
    raise DataError(
        f"{quoted(path)} corrects {files} that {quoted(dataset.name)} does not have: "
        f"{listed(absent)}; leave these lines out"
    )


def label_of(
    path: Path, dataset: Dataset, correction: Correction
) -> "int | np.ndarray[tuple[int], np.dtype[np.int64]] | None":
    """The label that a correction gives, as the dataset has it; None of `ok` and `remove`."""
    number = {composed(name).strip(): c for c, name in enumerate(dataset.classes)}
    says = composed(correction.says)
    several = dataset.task == "multilabel"
    names = [part.strip() for part in says.split(BETWEEN)] if several else [says]
    names = [name for name in names if name or not several]
    unknown = [name for name in names if name not in number]
    if unknown and says.lower() in (OK, REMOVE):
        return None
    if unknown:
        near = get_close_matches(unknown[0], dataset.classes, 1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise DataError(
            f"{quoted(path)}, line {correction.line}: no class is called '{unknown[0]}'{hint} "
            f"Expected {OK}, {REMOVE}, or one of {listed(dataset.classes, 20)}"
        )
    if not several:
        return number[says]
    found = np.zeros(len(dataset.classes), np.int64)
    found[[number[name] for name in names]] = 1
    return found
