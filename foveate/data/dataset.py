"""Dataset: an index of pictures, their labels and their splits. It holds no pixels.

A folder of pictures is read as one of two layouts; a CSV and a built-in name give the same index:

    photos/cat/1.jpg                 one folder per class
    photos/train/cat/1.jpg           `train`, and any of `val | valid | validation | dev` and `test`
    table.csv                        path,label[,split][,group], paths relative to the table

Classes go by name, in natural order ("2" before "10"), whatever order a disk lists them in. Hidden files and folders
are passed over. What is not a picture by its suffix is listed as ignored, never silently dropped.
"""

import csv
import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foveate.data.image import SUFFIXES, read_file
from foveate.errors import DataError, ImageError

SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(["val", "valid", "validation", "dev"], "validation")
MAX_BAD = 0.05  # more unreadable pictures than this is a broken data set, not a few bad files


@dataclass(frozen=True)
class Dataset:
    """An index of pictures.

    Args:
        name: short name of the set, for messages and for the run's folder.
        layout: how it was found, in words.
        files: the pictures' names, relative to the root.
        labels: (N,), index into `classes`.
        classes: names, in natural order.
        splits: "train", "validation" or "test" for each picture.
        groups: pictures of one group (the same object or patient) stay on one side of every split; "" is no group.
        read: gives the bytes of picture i; ImageError if it cannot.
        ignored: files that are no pictures by their suffix.
        notes: what a person should know about this set, in sentences.
        pixels: (N, H, W, C), uint8, of a built-in set, whose pictures are one array; `read` gives the same as files.
    """

    name: str
    layout: str
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    read: Callable[[int], bytes] = field(repr=False, compare=False)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each picture's bytes; "" where they cannot be read."""

        def digest(i: int) -> str:
            try:
                return hashlib.sha256(self.read(i)).hexdigest()
            except ImageError:
                return ""

        def digest_some(first: int) -> list[str]:
            return [digest(i) for i in range(first, min(first + 64, len(self)))]

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return tuple(chain.from_iterable(pool.map(digest_some, range(0, len(self), 64))))

    def select(self, rows: NDArray[np.int64]) -> "Dataset":
        """The same index with some of its pictures."""
        read = self.read
        chosen = replace(
            self,
            files=tuple(self.files[i] for i in rows),
            labels=self.labels[rows],
            splits=tuple(self.splits[i] for i in rows),
            groups=tuple(self.groups[i] for i in rows),
            read=lambda i: read(int(rows[i])),
            pixels=None if self.pixels is None else self.pixels[rows],
        )
        if "digests" in self.__dict__:
            chosen.__dict__["digests"] = tuple(self.digests[i] for i in rows)
        return chosen

    def array(self, channels: int, short_side: int) -> NDArray[np.uint8] | None:
        """The pictures as one array, if they are one and need neither scaling nor to lose their colour."""
        pixels = self.pixels
        if pixels is None or min(pixels.shape[1:3]) != short_side or (pixels.shape[3], channels) == (3, 1):
            return None
        return pixels if pixels.shape[3] == channels else pixels.repeat(channels, axis=3)

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures of each class in each split: {split: {class: n}}."""
        table: dict[str, dict[str, int]] = {s: dict.fromkeys(self.classes, 0) for s in dict.fromkeys(self.splits)}
        for split, label in zip(self.splits, self.labels, strict=True):
            table[split][self.classes[label]] += 1
        return table

    def grouping(self) -> NDArray[np.int64]:
        """(N,), a number for each group. Pictures with the same bytes are a group, and join the groups they are in."""
        parent = list(range(len(self)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        first: dict[tuple[str, str], int] = {}
        for i, (group, digest) in enumerate(zip(self.groups, self.digests, strict=True)):
            for key in (("group", group), ("bytes", digest)):
                if key[1]:
                    parent[root(i)] = root(first.setdefault(key, i))
        return np.array([root(i) for i in range(len(self))], dtype=np.int64)


def load_dataset(source: str | os.PathLike[str]) -> Dataset:
    """Find out what `source` is and index it.

    Args:
        source: a folder, a CSV file, or a built-in name (digits, fashion-mnist, mnist, cifar10). A path wins.

    Raises:
        DataError: nothing is there; no pictures; no classes; a table without its columns or its files.
    """
    from foveate.data.builtin import BUILTIN, load_builtin

    path = Path(source)
    if present(path) and path.is_dir():
        return from_folder(path)
    if present(path) and path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"'{path}' is a file; expected a folder of pictures, or a .csv with columns path,label")
        return from_csv(path)
    if str(source) in BUILTIN:
        return load_builtin(str(source))
    raise DataError(f"no such folder or file: '{path}' (built-in sets: {', '.join(BUILTIN)})")


def from_folder(root: Path) -> Dataset:
    """Index a folder, in either of the two layouts."""
    folders = visible_folders(root)
    split_folders = [f for f in folders if f.name.lower() in SPLITS]
    if any(f.name.lower() == "train" for f in split_folders):
        others = [f.name for f in folders if f not in split_folders]
        found = [(SPLITS[f.name.lower()], c) for f in split_folders for c in visible_folders(f)]
        layout = "split folders: " + ", ".join(f.name for f in split_folders)
        notes = [f"beside the splits there are other folders, not used: {listed(others)}"] if others else []
        loose = split_folders
    else:
        found, layout, notes, loose = [("train", c) for c in folders], "one folder per class", [], [root]
    if not found:
        raise DataError(
            f"'{root}' has no class folders; expected {root.name}/CLASS/picture.jpg, one folder per class, "
            f"or {root.name}/train/CLASS/picture.jpg{loose_pictures(root)}"
        )

    rows: list[tuple[str, str, str, str]] = []
    ignored: list[str] = []
    for split, folder in found:
        pictures, rest = walk(folder)
        rows += [(p.relative_to(root).as_posix(), folder.name, split, "") for p in pictures]
        ignored += [p.relative_to(root).as_posix() for p in rest]
        if not pictures:
            notes.append(f"the folder '{folder.relative_to(root)}' has no pictures and is no class")
    ignored += [p.relative_to(root).as_posix() for f in loose for p in visible_files(f)]
    return index(root.resolve().name, layout, rows, lambda name: read_file(root / name), ignored, notes)


def from_csv(table: Path) -> Dataset:
    """Index a CSV: columns path, label, and perhaps split and group. Paths are relative to the table's folder."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{table}' cannot be read as a UTF-8 CSV: {error}") from error
    columns = [str(c) for c in lines[0]] if lines else []
    missing = [c for c in ("path", "label") if c not in columns]
    if missing:
        raise DataError(
            f"'{table}' lacks the column {' and '.join(missing)}; expected path,label[,split][,group], "
            f"found {', '.join(columns) or 'no rows'}"
        )
    rows = []
    for number, line in enumerate(lines, start=2):
        name, label = line["path"] or "", (line["label"] or "").strip()
        split = (line.get("split") or "train").strip().lower()
        if not name or not label:
            raise DataError(f"'{table}', line {number}: the path or the label is empty")
        if split not in SPLITS:
            raise DataError(f"'{table}', line {number}: split '{split}' is none of {', '.join(SPLITS)}")
        rows.append((name, label, SPLITS[split], (line.get("group") or "").strip()))
    absent = [name for name, *_ in rows if not present(table.parent / name)]
    if absent:
        raise DataError(f"'{table}' names {len(absent)} files that do not exist: {listed(absent)}")
    return index(table.stem, "table of paths and labels", rows, lambda name: read_file(table.parent / name))


def index(
    name: str,
    layout: str,
    rows: list[tuple[str, str, str, str]],
    read: Callable[[str], bytes],
    ignored: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Dataset:
    """(file, label, split, group) rows -> Dataset, with notes on what is odd about the classes."""
    if not rows:
        raise DataError(f"'{name}' has no pictures (looked for {' '.join(sorted(SUFFIXES))})")
    order = cache(natural)  # of few classes
    rows = sorted(rows, key=lambda row: (row[2], order(row[1]), natural(row[0])))
    learnt = {label for _, label, split, _ in rows if split != "test"}
    classes = tuple(sorted(learnt, key=natural))
    number = {label: i for i, label in enumerate(classes)}
    strangers = Counter(label for _, label, _, _ in rows if label not in number)
    rows = [row for row in rows if row[1] in number]
    notes = [
        *notes,
        *(
            f"class '{c}' is only in the test split: its {n} pictures cannot be learnt, left out"
            for c, n in strangers.items()
        ),
    ]
    files = tuple(row[0] for row in rows)
    dataset = Dataset(
        name=name,
        layout=layout,
        files=files,
        labels=np.array([number[row[1]] for row in rows], dtype=np.int64),
        classes=classes,
        splits=tuple(row[2] for row in rows),
        groups=tuple(row[3] for row in rows),
        read=lambda i: read(files[i]),
        ignored=tuple(ignored),
    )
    return replace(dataset, notes=(*notes, *remarks(dataset)))


def remarks(dataset: Dataset) -> list[str]:
    """Classes that are missing from a split, near namesakes, imbalance, groups on both sides."""
    notes = []
    counts = dataset.counts()
    for split, table in counts.items():
        gone = [c for c, n in table.items() if n == 0]
        if gone:
            notes.append(f"the {split} split has no picture of {listed(gone)}")
    spellings = defaultdict(list)
    for c in dataset.classes:
        spellings[unicodedata.normalize("NFKC", c).casefold().strip()].append(c)
    alike = (" and ".join(map(ascii, s)) for s in spellings.values() if len(s) > 1)
    notes += [f"classes {names} differ only in case, spaces or Unicode form" for names in alike]
    sizes = [sum(table[c] for split, table in counts.items() if split != "test") for c in dataset.classes]
    if len(sizes) > 1 and max(sizes) > 10 * min(sizes):
        most, least = dataset.classes[int(np.argmax(sizes))], dataset.classes[int(np.argmin(sizes))]
        notes.append(
            f"the classes are imbalanced: '{most}' has {max(sizes)} pictures, '{least}' {min(sizes)}; "
            "read the balanced accuracy and macro-F1, not the accuracy alone"
        )
    sides = defaultdict(set)
    for group, split in zip(dataset.groups, dataset.splits, strict=True):
        sides[group].add("test" if split == "test" else "train")
    torn = [group for group, where in sides.items() if group and len(where) > 1]
    if torn:
        notes.append(f"{len(torn)} groups are both in the test split and outside it: {listed(torn)}")
    return notes


def check_trainable(dataset: Dataset) -> None:
    """Raise DataError unless there are two classes, each with two pictures to learn from."""
    learn = np.array([split != "test" for split in dataset.splits])
    sizes = np.bincount(dataset.labels[learn], minlength=len(dataset.classes)) if learn.any() else np.zeros(0, int)
    if len(dataset.classes) < 2:
        only = f"only one class, '{dataset.classes[0]}'" if dataset.classes else "no class"
        raise DataError(f"'{dataset.name}' has {only}; a classifier needs at least two")
    few = [f"'{c}' ({n})" for c, n in zip(dataset.classes, sizes, strict=True) if n < 2]
    if few:
        raise DataError(
            f"too few readable pictures to learn from in class {', '.join(few)}; "
            "each class needs two, one to learn and one to check: add pictures, or remove the class's folder"
        )


def apply_policy(n: int, bad: dict[str, str], policy: Literal["skip", "error"]) -> None:
    """Raise DataError if the unreadable pictures (name: reason) among `n` are more than the policy allows."""
    if bad and policy == "error":
        raise DataError(f"{next(iter(bad.values()))} ({len(bad)} of {n} pictures are unreadable)")
    if len(bad) > MAX_BAD * n:
        reasons = "\n  ".join(list(bad.values())[:5])
        raise DataError(f"{len(bad)} of {n} pictures are unreadable, more than {MAX_BAD:.0%}:\n  {reasons}")


def duplicates(dataset: Dataset) -> list[tuple[str, ...]]:
    """Sets of files with the same bytes."""
    same = defaultdict(list)
    for name, digest in zip(dataset.files, dataset.digests, strict=True):
        if digest:
            same[digest].append(name)
    return [tuple(names) for names in same.values() if len(names) > 1]


def walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Everything visible below a class folder: pictures by suffix, and the rest. Links to folders are not followed."""
    pictures: list[Path] = []
    rest: list[Path] = []

    def refuse(error: OSError) -> None:
        raise DataError(f"the folder '{error.filename}' cannot be read: {error.strerror}") from error

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        rest += [link for f in folders if (link := Path(here, f)).is_symlink()]
        for name in names:
            if not name.startswith("."):
                (pictures if Path(name).suffix.lower() in SUFFIXES else rest).append(Path(here, name))
    return pictures, rest


def visible_folders(root: Path) -> list[Path]:
    try:
        folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and not loops(p)]
        return sorted(folders, key=lambda p: p.name)
    except OSError as error:
        raise DataError(f"the folder '{root}' cannot be read: {error.strerror}") from error


def visible_files(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if not p.name.startswith(".") and (not p.is_dir() or loops(p)))


def loops(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def present(path: Path) -> bool:
    """Whether a path leads somewhere; one that is too long or behind a closed folder does not."""
    try:
        return path.exists()
    except OSError:
        return False


def loose_pictures(root: Path) -> str:
    n = sum(p.suffix.lower() in SUFFIXES for p in visible_files(root))
    return f" ({n} pictures lie directly in it: sort them into folders named after their class)" if n else ""


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key: digits compare as numbers.

    >>> sorted(["10", "9", "a2", "a10"], key=natural)
    ['9', '10', 'a2', 'a10']
    """
    parts = [part for part in re.split(r"(\d{1,4000})", text) if part]  # Python refuses to read longer numbers
    return (*((0, int(part)) if part.isdecimal() else (1, part) for part in parts), (-1, text))


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more.

    >>> listed("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
