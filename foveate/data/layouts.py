"""Layouts of data sets: a folder, a table or a built-in name becomes a Dataset.

    photos/cat/1.jpg           one folder per class
    photos/train/cat/1.jpg     split folders: train; optionally val, valid, validation or dev;
                               optionally test
    table.csv                  path,label[,split][,group], paths relative to the table

Classes are sorted by name, in natural order ("2" before "10"), so their numbers do not depend on
the file system. Hidden files and folders are skipped. Files without an image's suffix are listed as
ignored, never silently dropped. In a table of several labels an image, `a|b` is two labels and an
empty cell is none.
"""

import csv
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.dataset import BETWEEN, TASKS, Dataset, Task, listed
from foveate.data.image import SUFFIXES, read_file
from foveate.errors import DataError, UsageError

ENDINGS = tuple(SUFFIXES)
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ["val", "valid", "validation", "dev"], "validation"
)


def load_dataset(source: str | os.PathLike[str], task: Task = "multiclass") -> Dataset:
    """Detect the layout of `source` and index it.

    Args:
        source: a folder, a CSV file, or a built-in name (digits, fashion-mnist, mnist, cifar10). A
            path of this name takes precedence.
        task: "multiclass", an image has one class; or "multilabel", it has any number of labels,
            from a CSV: `cat|outdoors`.

    Raises:
        DataError: nothing is there; no images; no classes; a table lacks columns, or files that it
            lists; the task is multilabel and the source is not a CSV.
        UsageError: no such task.
    """
    from foveate.data.builtin import BUILTIN, load_builtin

    if task not in TASKS:
        raise UsageError(f"no task is called {task!r}; expected {' or '.join(TASKS)}")
    path = Path(source)
    is_table = present(path) and path.is_file()
    if task == "multilabel" and not is_table and (present(path) or str(source) in BUILTIN):
        raise DataError(
            f"in '{source}' each image has one class; for several labels an image, list them in a "
            "CSV with columns path,label, separated by |"
        )
    if present(path) and path.is_dir():
        return from_folder(path)
    if is_table:
        if path.suffix.lower() != ".csv":
            raise DataError(
                f"'{path}' is a file; expected a folder of images, or a .csv with columns "
                "path,label"
            )
        return from_csv(path, task)
    if str(source) in BUILTIN:
        return load_builtin(str(source))
    raise DataError(f"no such folder or file: '{path}' (built-in sets: {', '.join(BUILTIN)})")


def as_dataset(data: Any, task: Task = "multiclass") -> Dataset:
    """What `data` stands for."""
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, (str, os.PathLike)):
        raise UsageError(
            f"data is a folder, a CSV, a built-in name or a Dataset, not {type(data).__name__}; "
            "from lists of paths and labels: foveate.Dataset.of(paths, labels)"
        )
    return load_dataset(data, task)


def from_folder(root: Path) -> Dataset:
    """Index a folder, in either of the two layouts."""
    folders = visible_folders(root)
    split_folders = [f for f in folders if f.name.lower() in SPLITS]
    if any(f.name.lower() == "train" for f in split_folders):
        others = [f.name for f in folders if f not in split_folders]
        found = [(SPLITS[f.name.lower()], c) for f in split_folders for c in visible_folders(f)]
        layout = "split folders: " + ", ".join(f.name for f in split_folders)
        unused = f"beside the splits there are other folders, not used: {listed(others)}"
        notes = [unused] if others else []
        parents = split_folders
    else:
        found = [("train", c) for c in folders]
        layout, notes, parents = "one folder per class", [], [root]
    if not found:
        raise DataError(
            f"'{root}' has no class folders; expected {root.name}/CLASS/image.jpg, one folder per "
            f"class, or {root.name}/train/CLASS/image.jpg{loose_images(root)}"
        )

    rows: list[tuple[str, str, str, str]] = []
    ignored: list[str] = []
    for split, folder in found:
        images, rest = walk(folder, root)
        rows += [(name, folder.name, split, "") for name in images]
        ignored += rest
        if not images:
            notes.append(f"the folder '{folder.relative_to(root)}' has no images and is no class")
    ignored += [p.relative_to(root).as_posix() for f in parents for p in visible_files(f)]
    return index(root.resolve().name, layout, rows, partial(read_below, root), ignored, notes)


def from_csv(table: Path, task: Task = "multiclass") -> Dataset:
    """Index a CSV: columns path and label, optionally split and group.

    Paths are relative to the table's folder.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{table}' cannot be read as a UTF-8 CSV: {error}") from error
    columns = [str(c) for c in lines[0]] if lines else []
    missing = [c for c in ("path", "label") if c not in columns]
    if missing:
        raise DataError(
            f"'{table}' lacks the column {' and '.join(missing)}; expected "
            f"path,label[,split][,group], found {', '.join(columns) or 'no rows'}"
        )
    rows = []
    for number, line in enumerate(lines, start=2):  # line 1 has the columns' names
        name, label = line["path"] or "", (line["label"] or "").strip()
        split = (line.get("split") or "train").strip().lower()
        if not name or not (label or task == "multilabel"):
            hint = "" if label else "; images without a label are for --task multilabel"
            raise DataError(f"'{table}', line {number}: the path or the label is empty{hint}")
        if split not in SPLITS:
            raise DataError(
                f"'{table}', line {number}: split '{split}' is none of {', '.join(SPLITS)}"
            )
        rows.append((name, label, SPLITS[split], (line.get("group") or "").strip()))
    absent = [name for name, *_ in rows if not present(table.parent / name)]
    if absent:
        raise DataError(f"'{table}' names {len(absent)} files that do not exist: {listed(absent)}")
    notes = []
    if task == "multiclass" and (
        several := sorted({label for _, label, *_ in rows if BETWEEN in label})
    ):
        notes.append(
            f"a label such as {several[0]!r} is read as one; add --task multilabel to split it"
        )
    layout = "table of paths and labels"
    return index(table.stem, layout, rows, partial(read_below, table.parent), (), notes, task)


def from_lists(
    paths: Iterable[Any],
    labels: Iterable[Any],
    splits: Iterable[Any] | None,
    groups: Iterable[Any] | None,
    name: str,
) -> Dataset:
    """Index image files and labels that are given in lists; `Dataset.of` explains them."""
    for what, given in (("paths", paths), ("labels", labels), ("splits", splits)):
        if isinstance(given, (str, bytes)) or not (given is None or isinstance(given, Iterable)):
            raise UsageError(f"{what} is a list, an array or a column, not {type(given).__name__}")
    files, marks = list(paths), list(labels)
    parts = ["train"] * len(files) if splits is None else list(splits)
    together = [""] * len(files) if groups is None else list(groups)
    lengths = {"paths": files, "labels": marks, "splits": parts, "groups": together}
    if len({len(given) for given in lengths.values()}) > 1:
        counts = ", ".join(f"{len(given)} {what}" for what, given in lengths.items())
        raise UsageError(f"paths, labels, splits and groups must be as many: got {counts}")
    several = any(isinstance(mark, (list, tuple, set, frozenset)) for mark in marks)
    rows = []
    for file, mark, part, group in zip(files, marks, parts, together, strict=True):
        if not isinstance(file, (str, os.PathLike)):
            raise UsageError(f"a path is text or a Path, not {file!r}")
        if str(part).lower() not in SPLITS:
            raise UsageError(f"no split is called {part!r}; expected {', '.join(SPLITS)}")
        text = BETWEEN.join(text_of(one) for one in mark) if several else text_of(mark)
        split = SPLITS[str(part).lower()]
        rows.append((os.fspath(file), text, split, "" if group is None else str(group)))
    repeated = [file for file, n in Counter(row[0] for row in rows).items() if n > 1]
    if repeated:
        raise DataError(f"{len(repeated)} paths are given more than once: {listed(repeated)}")
    absent = [row[0] for row in rows if not present(Path(row[0]))]
    if absent:
        raise DataError(f"{len(absent)} files do not exist: {listed(absent)}")
    task: Task = "multilabel" if several else "multiclass"
    return index(name, "lists of paths and labels", rows, read_named, (), (), task)


def text_of(label: Any) -> str:
    """A label's name: text as it is, a whole number in digits."""
    if isinstance(label, str) and label:
        return label
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return str(int(label))
    raise UsageError(f"a label is text or a whole number, not {label!r}")


def read_named(name: str) -> bytes:
    return read_file(Path(name))


def read_below(root: Path, name: str) -> bytes:
    return read_file(root / name)


def read_numbered(read: Callable[[str], bytes], files: tuple[str, ...], i: int) -> bytes:
    return read(files[i])


def index(
    name: str,
    layout: str,
    rows: list[tuple[str, str, str, str]],
    read: Callable[[str], bytes],
    ignored: Iterable[str] = (),
    notes: Iterable[str] = (),
    task: Task = "multiclass",
) -> Dataset:
    """(file, label, split, group) rows -> Dataset, with notes on unusual classes."""
    if not rows:
        raise DataError(f"'{name}' has no images (looked for {' '.join(sorted(SUFFIXES))})")
    order = cache(natural)  # there are few classes, and this runs once a row
    rows = sorted(rows, key=lambda row: (row[2], order(row[1]), natural(row[0])))
    parts = cache(separate if task == "multilabel" else lambda label: (label,))
    known = {part for _, label, split, _ in rows if split != "test" for part in parts(label)}
    classes = tuple(sorted(known, key=natural))
    number = {label: i for i, label in enumerate(classes)}
    unknown = Counter(
        part for _, label, _, _ in rows for part in parts(label) if part not in number
    )
    if task == "multilabel":
        note = (
            "label '{}' is only in the test split: it cannot be learnt, and its {} images count as "
            "images without it"
        )
        labels = np.zeros((len(rows), len(classes)), dtype=np.int64)
        for i, row in enumerate(rows):
            labels[i, [number[part] for part in parts(row[1]) if part in number]] = 1
    else:
        note = (
            "class '{}' is only in the test split: it cannot be learnt; its {} images are left out"
        )
        rows = [row for row in rows if row[1] in number]
        labels = np.array([number[row[1]] for row in rows], dtype=np.int64)
    files = tuple(row[0] for row in rows)
    dataset = Dataset(
        name=name,
        layout=layout,
        files=files,
        labels=labels,
        classes=classes,
        splits=tuple(row[2] for row in rows),
        groups=tuple(row[3] for row in rows),
        read=partial(read_numbered, read, files),
        ignored=tuple(ignored),
    )
    notes = [*notes, *(note.format(c, n) for c, n in unknown.items())]
    return replace(dataset, notes=(*notes, *remarks(dataset)))


def separate(label: str) -> tuple[str, ...]:
    """The labels in a cell of a table.

    >>> separate("cat | outdoors"), separate("")
    (('cat', 'outdoors'), ())
    """
    return tuple(dict.fromkeys(part.strip() for part in label.split(BETWEEN) if part.strip()))


def remarks(dataset: Dataset) -> list[str]:
    """Notes: classes missing from a split, similar names, imbalance, groups across splits."""
    notes = []
    counts = dataset.counts()
    for split, table in counts.items():
        gone = [c for c, n in table.items() if n == 0]
        if gone:
            notes.append(f"the {split} split has no image of {listed(gone)}")
    spellings = defaultdict(list)
    for c in dataset.classes:
        spellings[unicodedata.normalize("NFKC", c).casefold().strip()].append(c)
    alike = (" and ".join(map(ascii, s)) for s in spellings.values() if len(s) > 1)
    notes += [f"classes {names} differ only in case, spaces or Unicode form" for names in alike]
    sizes = [
        sum(table[c] for split, table in counts.items() if split != "test") for c in dataset.classes
    ]
    if len(sizes) > 1 and max(sizes) > 10 * min(sizes):
        most, least = dataset.classes[int(np.argmax(sizes))], dataset.classes[int(np.argmin(sizes))]
        if dataset.task == "multilabel":
            read, weigh = "macro-F1", ""
        else:
            read = "the balanced accuracy and macro-F1"
            weigh = "; with finetune and scratch, --balance weights gives all classes equal weight"
        notes.append(
            f"the classes are imbalanced: '{most}' has {max(sizes)} images, '{least}' "
            f"{min(sizes)}; read {read}, not the accuracy alone{weigh}"
        )
    sides = defaultdict(set)
    for group, split in zip(dataset.groups, dataset.splits, strict=True):
        sides[group].add("test" if split == "test" else "train")
    split_up = [group for group, where in sides.items() if group and len(where) > 1]
    if split_up:
        notes.append(
            f"{len(split_up)} groups are both in the test split and outside it: {listed(split_up)}"
        )
    return notes


def walk(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Everything visible below a class folder, as paths from the root with slashes.

    Links to folders are not followed. Strings, because Path objects took most of the time
    (docs/LOG.md).

    Returns:
        (images by suffix, other files).
    """
    images: list[str] = []
    rest: list[str] = []

    def refuse(error: OSError) -> None:
        raise DataError(
            f"the folder '{error.filename}' cannot be read: {error.strerror}"
        ) from error

    for here, folders, names in os.walk(folder, onerror=refuse):
        place = Path(here).relative_to(root)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        above = "" if place == Path() else f"{place.as_posix()}/"
        rest += [above + f for f in folders if Path(here, f).is_symlink()]
        for name in names:
            if not name.startswith("."):
                (images if name.lower().endswith(ENDINGS) else rest).append(above + name)
    return images, rest


def visible_folders(root: Path) -> list[Path]:
    try:
        folders = [
            p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and not loops(p)
        ]
        return sorted(folders, key=lambda p: p.name)
    except OSError as error:
        raise DataError(f"the folder '{root}' cannot be read: {error.strerror}") from error


def visible_files(root: Path) -> list[Path]:
    return sorted(
        p for p in root.iterdir() if not p.name.startswith(".") and (not p.is_dir() or loops(p))
    )


def loops(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def present(path: Path) -> bool:
    """Whether a path exists; False if it is too long or in a folder that may not be read."""
    try:
        return path.exists()
    except OSError:
        return False


def loose_images(root: Path) -> str:
    """A hint if images lie directly in the folder; "" if there are none."""
    n = sum(p.suffix.lower() in SUFFIXES for p in visible_files(root))
    hint = f" ({n} images lie directly in it: sort them into folders named after their class)"
    return hint if n else ""


def natural(text: str) -> tuple[tuple[int | str, ...], str]:
    """Sort key: digits compare as numbers.

    >>> sorted(["10", "9", "a2", "a10"], key=natural)
    ['9', '10', 'a2', 'a10']
    """
    # every second part is of digits; int() refuses more than 4300 of them
    parts = re.split(r"(\d{1,4000})", text)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), text
