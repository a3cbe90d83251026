"""What an audit found as CSV tables, which Excel opens right: UTF-8 with its mark."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from foveate.audit.suspects import Gain, Suspect
from foveate.data.corrections import COLUMNS, Correction, read_corrections
from foveate.data.dataset import BETWEEN, Dataset
from foveate.errors import UsageError, quoted
from foveate.storage import disk_errors, replacing

SUSPECTS = (COLUMNS[0], "label", "suggested", "probability", "gain_of_first_n", COLUMNS[1])


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table in place of the file of this name."""
    with (
        disk_errors(path),
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def check_no_corrections(path: Path) -> None:
    """UsageError if a table cannot go there: a file is there that holds corrections, or is no such
    table, and would be lost."""
    check_ours(path, SUSPECTS)
    filled = len(read_corrections(path)) if path.exists() else 0
    if filled:
        raise UsageError(
            f"{quoted(path)} exists and holds {filled} corrections; choose another file"
        )


def check_ours(path: Path, columns: Sequence[str]) -> None:
    """UsageError unless a table of these columns may take the place of this file."""
    if not path.parent.is_dir():
        raise UsageError(f"{quoted(path)} would lie in a folder that is not there")
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            there = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        there = []
    if there != [*columns]:
        raise UsageError(f"{quoted(path)} exists and is no table of an audit; choose another place")


def write_suspects(
    path: Path,
    dataset: Dataset,
    suspects: Sequence[Suspect],
    gains: Sequence[Gain],
    earlier: Sequence[Correction] = (),
) -> None:
    """The labels that look wrong, the worst first, a row a file, with a column to fill in: a class,
    `ok` or `remove`. `gain_of_first_n` is in points of accuracy. The corrections that were applied
    stand at the end, so that the table can take the place of theirs. A file whose name is no text
    is left out."""
    check_no_corrections(path)
    rows = []
    for number, suspect in enumerate(suspects, 1):
        gain = next((gain for gain in gains if number <= gain.first), None)
        for row in suspect.rows:
            file, p = dataset.files[row], f"{suspect.probability:.4f}"
            suggested = suspect.suggested or BETWEEN
            rows.append([file, suspect.label, suggested, p, spoken(gain), ""])
    rows += [[correction.file, "", "", "", "", correction.says] for correction in earlier]
    write_table(path, SUSPECTS, [row for row in rows if row[0].isprintable()])


def spoken(gain: Gain | None) -> str:
    """A gain for a cell: "10: +0.52", or that there is none to be measured."""
    if gain is None:
        return ""
    points = f"{100 * gain.accuracy:+.2f}" if gain.measurable else "not measurable"
    return f"{gain.first}: {points}"


FINDINGS: dict[str, Sequence[str]] = {
    "groups": ("group", "kind", "reason", "file"),
    "leaks": ("file", "split", "of", "of_split", "kind"),
    "contradictions": ("file", "label", "of", "of_label", "kind"),
    "classes": ("class", "images", "photos", "groups"),
    "images": ("file", "split", "label", "kind", "measure", "value", "typical"),
    "alike": ("class", "other", "taken_for_the_other", "and_back", "accuracy", "if_merged"),
    "unreadable": ("file", "reason"),
}


def check_findings(folder: Path) -> None:
    """Make the folder of `write_findings`; UsageError if files of others have its tables' names."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, columns in FINDINGS.items():
        check_ours(folder / f"{name}.csv", columns)


def write_findings(folder: Path, report: dict[str, Any]) -> None:
    """All else that an audit found, as it stands in its JSON: a table a kind, for those kinds of
    which there is something; what an audit before has left is removed."""
    check_findings(folder)
    tables: dict[str, list[Sequence[Any]]] = {
        "groups": [
            (number, group["kind"], group["reason"], file)
            for number, group in enumerate(report["groups"], 1)
            for file in group["files"]
        ],
        "contradictions": [
            (p["files"][0], p["labels"][0], p["files"][1], p["labels"][1], p["kind"])
            for p in report["contradictions"]
        ],
        "classes": [
            (name, found["images"], found["photos"], found["groups"])
            for name, found in report["classes"].items()
        ],
        "alike": [
            (*p["classes"], *p["taken_for_the_other"], p["accuracy"], p["accuracy_if_merged"])
            for p in report["alike"]
        ],
        "unreadable": list(report["bad"].items()),
    }
    for name in ("leaks", "images"):
        tables[name] = [[one[column] for column in FINDINGS[name]] for one in report[name]]
    for name, columns in FINDINGS.items():
        path = folder / f"{name}.csv"
        if tables[name]:
            write_table(path, columns, tables[name])
        else:
            with disk_errors(path):
                path.unlink(missing_ok=True)
