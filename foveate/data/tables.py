"""Tables of paths and labels: a CSV becomes rows of an index, one for each image.

    path,label[,split][,group]       comma, semicolon or tab; UTF-8, or UTF-16 with its mark
    path,cat,dog[,split][,group]     a column a label, 0 or 1
    path[,split][,group]             images without labels, where those are asked for

Rows of one path are one image: their labels are united, or, of the task multiclass, must agree.
How the labels in a cell are separated is decided for the whole column, and only where it is sure.
"""

import csv
import io
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from foveate.arguments import option
from foveate.data.dataset import BETWEEN, Task, listed
from foveate.data.image import read_file
from foveate.data.listing import holds
from foveate.errors import DataError, ImageError, quoted

SPLITS = (
    dict.fromkeys(["train", "training", "trn"], "train")
    | dict.fromkeys(["test", "testing", "tst"], "test")
    | dict.fromkeys(["val", "valid", "validation", "dev"], "validation")
)
MOST_BYTES = 1_000_000_000  # of a table: more is another file, and would not fit into memory
DELIMITERS = ",;\t"
COLUMNS = ("path", "label", "split", "group")
BITS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
LIST = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


class Image(NamedTuple):
    """An image of a table, or a row of it: its name, and the line that names it first."""

    file: str
    labels: tuple[str, ...]
    split: str
    group: str
    line: int


class Line(NamedTuple):
    """A line of a table as it is written."""

    number: int  # 1 is the first of the file
    path: str
    label: str
    split: str
    group: str


class Content(NamedTuple):
    """All lines of a table; `columns`: labels that were columns, joined by BETWEEN in a line."""

    lines: list[Line]
    columns: tuple[str, ...]


def from_table(
    table: Path, task: Task
) -> tuple[list[tuple[str, str, str, str]], Callable[[str], bytes], list[str]]:
    """(rows of an index, what reads a row's file, notes) of a table.

    A row is an image: file, label (labels with BETWEEN between them), split, group.

    Raises:
        DataError: it cannot be read, or lacks columns, paths, labels or files; a column is there
            twice; rows of one path contradict each other; it is not sure what separates labels.
    """
    lines, columns = read_table(table)
    several = task == "multilabel"
    empty = next((line for line in lines if not (line.label or several or columns)), None)
    if empty:
        raise DataError(
            f"{quoted(table)}, line {empty.number}: the label is empty; images without a label "
            "are for " + option("task", "multilabel")
        )
    there = located(table, lines)
    repeated = len({real for _, real in there}) < len(there)
    labels_of: Callable[[str], tuple[str, ...]]
    if columns:
        labels_of, notes = separate, notes_on_columns(columns, lines)
        check_one_hot(table, task, lines)
    elif several:
        labels_of, notes = separator([line.label for line in lines], table, repeated)
    else:
        labels_of, notes = whole, unseparated(line.label for line in lines)
    names, read = named([name for name, _ in there], table.parent)
    cells = cache(labels_of)
    images = [
        Image(name, cells(line.label), line.split, line.group, line.number)
        for name, line in zip(names, lines, strict=True)
    ]
    if repeated:
        images = merged(images, [real for _, real in there], table, task)
        n = len(lines) - len(images)
        notes.append(
            f"rows that name an image of an earlier row: {n}; rows of one path are one image"
        )
    rows = [(i.file, BETWEEN.join(i.labels), i.split, i.group) for i in images]
    return rows, read, notes


def lacks_labels(table: Path) -> bool:
    """Whether its columns are path, and perhaps split and group, and no other; DataError if it
    cannot be read."""
    _, header = next(records(table), (1, []))
    columns = {column.strip().lower() for column in header}
    return "path" in columns <= {*COLUMNS, ""} - {"label"}


def unlabelled_rows(
    table: Path,
) -> tuple[list[tuple[str, str, str]], Callable[[str], bytes]]:
    """(file, split, group) of each image of a table without labels, and what reads a file.

    Raises:
        DataError: as `from_table`; an image is named twice.
    """
    lines, _ = read_table(table, labelled=False)
    there = located(table, lines)
    names, read = named([name for name, _ in there], table.parent)
    again = [n for n, c in Counter(real for _, real in there).items() if c > 1]
    if again:
        twice = [name for name, (_, real) in zip(names, there, strict=True) if real == again[0]]
        raise DataError(
            f"{quoted(table)} names {len(again)} images more than once, such as "
            f"{quoted(twice[0])}; leave one line of each"
        )
    rows = [(name, line.split, line.group) for name, line in zip(names, lines, strict=True)]
    return rows, read


def other_columns(table: Path) -> dict[str, dict[str, str]]:
    """Of each column beside path, label, split and group that holds no labels, the cell of each
    file, "" where it is empty; of several lines of one file, the first.

    Raises:
        DataError: as `from_table`.
    """
    lines, columns = read_table(table, labelled=False)
    taken = {*COLUMNS, "", *(column.strip().lower() for column in columns)}
    cells_of = dict(records(table))
    _, header = next(records(table))
    names, _ = named([name for name, _ in located(table, lines)], table.parent)
    found: dict[str, dict[str, str]] = {}
    for place, column in enumerate(header):
        if column.strip().lower() in taken:
            continue
        cells = found.setdefault(column.strip(), {})
        for name, line in zip(names, lines, strict=True):
            row = cells_of[line.number]
            cells.setdefault(name, row[place].strip() if place < len(row) else "")
    return found


def located(table: Path, lines: list[Line]) -> list[tuple[str, str]]:
    """(name to open it by, real path) of each line's file; DataError if some do not exist."""
    real_folder = cache(os.path.realpath)
    folder = os.fspath(table.parent)
    places = [find(folder, line.path, real_folder) for line in lines]
    absent = [line.path for line, place in zip(lines, places, strict=True) if place is None]
    if absent:
        raise DataError(
            f"{quoted(table)} names {len(absent)} files that do not exist: {listed(absent)}"
        )
    return [place for place in places if place is not None]


def merged(images: list[Image], reals: list[str], table: Path, task: Task) -> list[Image]:
    """Rows of one real path as one image, in the order of the first rows."""
    found: dict[str, Image] = {}
    for image, real in zip(images, reals, strict=True):
        first = found.get(real)
        found[real] = image if first is None else united(first, image, table, task)
    return list(found.values())


def notes_on_columns(columns: tuple[str, ...], lines: list[Line]) -> list[str]:
    used = {label for line in lines for label in separate(line.label)}
    unused = [column for column in columns if column not in used]
    notes = [f"the labels are columns of 0 and 1: {listed(columns)}"]
    return notes + ([f"no image has the label {listed(unused)}"] if unused else [])


def united(first: Image, second: Image, table: Path, task: Task) -> Image:
    """Two rows of one path as one; DataError if they contradict each other."""
    where = f"{quoted(table)}, lines {first.line} and {second.line}: {quoted(first.file)}"
    if first.split != second.split:
        raise DataError(
            f"{where} is in two splits, {first.split} and {second.split}; leave one of the lines"
        )
    if task == "multiclass" and first.labels != second.labels:
        raise DataError(
            f"{where} has two labels, '{first.labels[0]}' and '{second.labels[0]}'; leave one of "
            f"the lines, or add {option('task', 'multilabel')} for both labels"
        )
    if first.group and second.group and first.group != second.group:
        raise DataError(
            f"{where} is in two groups, '{first.group}' and '{second.group}'; leave one of them"
        )
    labels = tuple(dict.fromkeys((*first.labels, *second.labels)))
    return first._replace(labels=labels, group=first.group or second.group)


def check_one_hot(table: Path, task: Task, lines: list[Line]) -> None:
    """DataError unless each line has one label, of the task multiclass."""
    for line in lines if task == "multiclass" else ():
        n = len(separate(line.label))
        if n != 1:
            raise DataError(
                f"{quoted(table)}, line {line.number}: {n} columns are 1, and of the task "
                "multiclass one is; for any number of labels add " + option("task", "multilabel")
            )


# From a file to lines


def read_table(table: Path, labelled: bool = True) -> Content:
    """The lines of a table, with their numbers; DataError as `from_table`. One that is not
    `labelled` needs no column of labels."""
    lines = records(table)
    number, header = next(lines, (1, []))
    columns = [column.strip().lower() for column in header]
    twice = [column for column, n in Counter(filter(None, columns)).items() if n > 1]
    if twice:
        raise DataError(
            f"{quoted(table)} has the column {listed(twice)} more than once; leave one of them"
        )
    rows = [(number, cells) for number, cells in lines if any(cell.strip() for cell in cells)]
    bits = [c for c in columns if c and c not in COLUMNS]
    one_hot = "path" in columns and "label" not in columns and bool(bits and rows)
    if one_hot:
        odd = not_binary(columns, bits, rows)
        one_hot = not odd
    missing = [
        c
        for c in ("path", "label")
        if c not in columns and not (c == "label" and (one_hot or not labelled))
    ]
    if missing or not rows:
        columns_of = "column" if len(missing) == 1 else "columns"
        what = f"lacks the {columns_of} {' and '.join(missing)}"
        seen = ", ".join(c.strip() for c in header) or "no rows"
        hint = ""
        if missing == ["label"] and bits and rows:
            hint = f"; in a table with a column a label, all others hold 0 or 1: {odd}"
        what = what if missing else "has no rows of images"
        raise DataError(
            f"{quoted(table)} {what}; expected path,label[,split][,group], found {seen}{hint}"
        )
    place = {column: i for i, column in enumerate(columns)}
    names = {c: header[place[c]].strip() for c in bits}

    found = []
    width = max(place.values()) + 1
    for number, cells in rows:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{quoted(table)}, line {number} has {len(cells)} cells, and the header "
                f"{len(header)}: put a cell that holds the delimiter between double quotes, and "
                "write | between several labels"
            )
        cells += [""] * (width - len(cells))
        path, label, split, group = (cells[place[c]] if c in place else "" for c in COLUMNS)
        if one_hot:
            label = BETWEEN.join(names[c] for c in bits if BITS[cells[place[c]].strip().lower()])
        if not path:
            raise DataError(f"{quoted(table)}, line {number}: the path is empty")
        split = split.strip().lower() or "train"
        if split not in SPLITS:
            raise DataError(
                f"{quoted(table)}, line {number}: split '{split}' is none of {', '.join(SPLITS)}"
            )
        found.append(Line(number, path, label.strip(), SPLITS[split], group.strip()))
    return Content(found, tuple(names.values()) if one_hot else ())


def not_binary(columns: list[str], bits: list[str], rows: list[tuple[int, list[str]]]) -> str:
    """The first cell of a label's column that is not 0 or 1, for a message; "" if there is none."""
    place = {column: i for i, column in enumerate(columns)}
    for number, cells in rows:
        for column in bits:
            value = cells[place[column]] if place[column] < len(cells) else ""
            if value.strip().lower() not in BITS:
                return f"column '{column}' has '{value}' in line {number}"
    return ""


def records(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) of each record, the header first; blank lines are none."""
    text = table_text(table)
    first, _, rest = text.partition("\n")
    skipped = 0
    declared = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own way to name the delimiter
    if declared:
        text, skipped, delimiter = rest, 1, declared[1]
    else:
        delimiter = delimiter_of(first)
    spaced = f"{delimiter} " in first  # else a space may begin a file's name
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced)
    before = 0
    try:
        for cells in reader:
            if cells:
                yield before + 1 + skipped, cells
            before = reader.line_num
    except csv.Error as error:
        raise DataError(f"{quoted(table)} cannot be read as a CSV: {error}") from error


def table_text(table: Path) -> str:
    """The text of a table, from UTF-8 or UTF-16."""
    try:
        found = table.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{quoted(table)} is not a regular file; expected a CSV")
        if found.st_size > MOST_BYTES:
            raise DataError(
                f"{quoted(table)} has {found.st_size:,} bytes, and a table at most "
                f"{MOST_BYTES:,}; give "
                "it in parts"
            )
        data = table.read_bytes()
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        return data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{quoted(table)} cannot be read as a UTF-8 CSV: {error}; save it as UTF-8"
        ) from error


def delimiter_of(header: str) -> str:
    """What separates the columns: what gives a column path, else what gives most columns.

    >>> delimiter_of("Path;label"), delimiter_of("path, label"), delimiter_of("a")
    (';', ',', ',')
    """

    def columns(delimiter: str) -> list[str]:
        return [c.strip().strip('"').lower() for c in header.split(delimiter)]

    return max(DELIMITERS, key=lambda d: ("path" in columns(d), len(columns(d))))


# Files


def find(folder: str, path: str, real_folder: Callable[[str], str]) -> tuple[str, str] | None:
    """(name to open it by, real path) of a file that a table names; None if there is none.

    As it is written; else without spaces around it, with slashes for Windows' backslashes, or in
    another Unicode form (macOS and Linux write accents differently).
    """
    for form in spellings(path):
        place = os.path.join(folder, form)
        try:
            is_link = stat.S_ISLNK(os.lstat(place).st_mode)
            if is_link:
                os.stat(place)
        except (OSError, ValueError):
            continue
        # "link/../x" is not "x"
        name = form if ".." in form.split("/") else os.path.normpath(form)
        head, base = os.path.split(place)
        if is_link or base in ("", ".", ".."):
            return name, os.path.realpath(place)
        return name, f"{real_folder(head)}{os.sep}{base}"
    return None


def spellings(path: str) -> Iterator[str]:
    """A path as it may be meant, what is written first."""
    yield path
    plain = dict.fromkeys([path, path.strip(), path.strip().replace("\\", "/")])
    yield from plain
    for form in plain:
        yield unicodedata.normalize("NFC", form)
        yield unicodedata.normalize("NFD", form)


def named(files: list[str], folder: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """What files are called in messages and in a run's files, and what reads them by these names.

    Relative paths are kept. If one is absolute, or leads up, all are named from the folder that
    they have in common, so that what travels with a run names no home folder.
    """
    if not any(os.path.isabs(file) or file.startswith("..") for file in files):
        return files, partial(read_below, folder)
    paths = [absolute(os.path.join(folder, file)) for file in files]
    home, common = os.path.expanduser("~"), os.path.abspath(folder)
    if not all(holds(common, path) for path in paths):
        try:
            common = os.path.commonpath([os.path.dirname(path) for path in paths])
        except ValueError:  # several drives
            common = ""
    if common and not holds(common, os.path.dirname(home)):
        return [os.path.relpath(path, common) for path in paths], partial(read_below, Path(common))
    names = ["~" + p.removeprefix(home) if p.startswith(home + os.sep) else p for p in paths]
    names = [name.lstrip(os.sep) for name in names]
    return names, partial(read_mapped, dict(zip(names, paths, strict=True)))


def absolute(path: str) -> str:
    """An absolute path without "..", which may lead up from where a link leads to."""
    if ".." not in path.split(os.sep):
        return os.path.abspath(path)
    head, base = os.path.split(path)
    return os.path.join(os.path.realpath(head), base)


def read_below(root: Path, name: str) -> bytes:
    """The bytes of a file below a root; ImageError names it from there."""
    return read_as(root / name, name)


def read_mapped(paths: dict[str, str], name: str) -> bytes:
    return read_as(Path(paths[name]), name)


def read_as(path: Path, name: str) -> bytes:
    """`read_file`, whose errors go into a run's files: they name no folder of this machine."""
    try:
        return read_file(path)
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), name)) from error


# Labels


def whole(cell: str) -> tuple[str, ...]:
    """A cell as one label."""
    return (cell,)


def separate(cell: str, between: str | None = BETWEEN) -> tuple[str, ...]:
    """The labels in a cell of a table; None separates at spaces.

    >>> separate("cat | outdoors"), separate("")
    (('cat', 'outdoors'), ())
    """
    return tuple(dict.fromkeys(part.strip() for part in cell.split(between) if part.strip()))


def in_list(cell: str) -> tuple[str, ...]:
    """The labels in a list as Python, JSON or numpy write it.

    >>> in_list("['a', 'b']"), in_list("['a' 'b']"), in_list("[a, b]"), in_list("[]")
    (('a', 'b'), ('a', 'b'), ('a', 'b'), ())
    """
    inner = cell.strip()[1:-1]
    quoted = [a or b for a, b in QUOTED.findall(inner)]
    return separate(BETWEEN.join(quoted)) if quoted else separate(inner, ",")


def separator(
    cells: list[str], table: Path, repeated: bool
) -> tuple[Callable[[str], tuple[str, ...]], list[str]]:
    """(what separates the labels of every cell, notes on it), where that is sure.

    `|` always is. A comma or a semicolon is where each cell that has one shares a label with
    another cell; spaces are where all that they separate are also labels alone. Where rows repeat
    a path (`repeated`), each has one label, and spaces belong to its name.

    Raises:
        DataError: it is not sure.
    """
    distinct = list(dict.fromkeys(filter(None, cells)))
    if any(BETWEEN in cell for cell in distinct):
        return separate, unseparated(part for cell in distinct for part in separate(cell))
    lists = [cell for cell in distinct if LIST.fullmatch(cell)]
    if lists and len(lists) == len(distinct):
        return in_list, [f"labels are read from lists such as {lists[0]}"]
    used = [mark for mark in ",;" if any(mark in cell for cell in distinct)]
    if lists or len(used) > 1:
        raise unsure(table, lists[0] if lists else first_with(used[1], distinct))
    if used:
        several = first_with(used[0], distinct)
        parts = {cell: separate(cell, used[0]) for cell in distinct}
        where = Counter(part for found in parts.values() for part in found)
        for cell, found in parts.items():
            if len(found) > 1 and all(where[part] == 1 for part in found):
                raise unsure(table, cell)
        note = f"labels are separated by '{used[0]}': '{several}' is {len(parts[several])} labels"
        return partial(separate, between=used[0]), [note]
    spaced = {cell: separate(cell, None) for cell in distinct if len(cell.split()) > 1}
    if not spaced or repeated:
        return whole_or_none, []
    words = Counter(part for cell in distinct for part in separate(cell, None))
    if all(words[part] == 1 for found in spaced.values() for part in found):
        return whole_or_none, [f"a label such as '{next(iter(spaced))}' is read as one"]
    alone = set(distinct) - set(spaced)
    for cell, found in spaced.items():
        if not alone.issuperset(found):
            raise unsure(table, cell)
    first = next(iter(spaced))
    note = f"labels are separated by spaces: '{first}' is {len(spaced[first])} labels"
    return partial(separate, between=None), [note]


def whole_or_none(cell: str) -> tuple[str, ...]:
    return (cell,) if cell else ()


def first_with(mark: str, cells: list[str]) -> str:
    return next(cell for cell in cells if mark in cell)


def unsure(table: Path, cell: str) -> DataError:
    parts = BETWEEN.join(re.findall(r"[^\s,;\[\]{}'\"]+", cell))
    return DataError(
        f"{quoted(table)}: '{cell}' may be one label or several; separate labels by {BETWEEN}: "
        "write "
        f"{parts} if they are several, and {cell}{BETWEEN} if it is one"
    )


def unseparated(labels: Iterable[str]) -> list[str]:
    """A note if a label that is read as one looks like several."""
    marks = (BETWEEN, ",", ";")
    several = sorted({x for x in set(labels) if any(m in x for m in marks) or LIST.fullmatch(x)})
    if not several:
        return []
    remedy = (
        f"add {option('task', 'multilabel')} to split it"
        if BETWEEN in several[0]
        else (
            f"for several labels write them with {BETWEEN} between, and add "
            f"{option('task', 'multilabel')}"
        )
    )
    return [f"a label such as {several[0]!r} is read as one; {remedy}"]
