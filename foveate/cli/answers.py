"""Where predictions go: standard output, a CSV, folders by class."""

import csv
import os
import re
import shutil
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from foveate.cli.console import clean, complain, print_json, say
from foveate.errors import DataError, FoveateError, UsageError, quoted
from foveate.storage import disk_errors

BETWEEN = "|"  # separates the labels of an image that has several
NONE = "(none)"  # the folder of images without a label
REFUSED = "(none of these)"
UNREADABLE = "(unreadable)"
ODD = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # what some system takes in no name


class Taker(Protocol):
    """Takes predictions, one after the other, in the order of the images."""

    def take(self, prediction: Any) -> None: ...

    def close(self) -> None: ...


class Printed:
    """Standard output: a line an image, for people or as JSON.

    Args:
        top: how many classes to name.
        several: whether an image has any number of labels.
        as_json: JSON.
        at_once: write each line as it comes, for whoever waits for it.
    """

    def __init__(self, top: int, several: bool, as_json: bool, at_once: bool):
        self.top, self.several, self.as_json, self.at_once = top, several, as_json, at_once

    def take(self, prediction: Any) -> None:
        if self.as_json:
            found = prediction.to_dict()
            if "top" in found:
                found["top"] = found["top"][: self.top]
            print_json(found)
        elif prediction.error:
            complain(prediction.error)
        else:
            top = prediction.top[: self.top]
            top_labels = "  ".join(f"{label} {100 * p:.1f} %" for label, p in top)
            say(f"{prediction.file}{self.given(prediction)}  {top_labels}")
        if self.at_once:
            sys.stdout.flush()

    def given(self, prediction: Any) -> str:
        """What is said before the most probable classes, where they are not the answer."""
        if prediction.rejected is not None:
            return f"  {prediction.label} ({prediction.rejected}); of these: "
        if self.several:
            return f"  {BETWEEN.join(prediction.labels) or NONE} "
        if prediction.label != prediction.top[0][0]:  # a threshold, or costs, say otherwise
            return f"  {prediction.label}; most probable: "
        return "  unsure: " if prediction.unsure else ""

    def close(self) -> None:
        pass


def inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: what would be one gets an apostrophe.

    >>> inert("=cmd().jpg"), inert("x.jpg")
    ("'=cmd().jpg", 'x.jpg')
    """
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


class CsvTable:
    """A CSV that spreadsheets open with the right letters: UTF-8 with a byte order mark, a row an
    image and a column a class.

        file, label, probability, CLASS ..., rejected, error

    What was written stays if the process is stopped: each row is whole.

    Args:
        path: of a file that does not exist.
        classes: names, as the classifier has them.

    Raises:
        UsageError: the file exists.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]):
        self.path, self.classes = path, classes
        with disk_errors(path):
            try:
                # closed by `close`; the mark is utf-8-sig's
                self.file: IO[str] = path.open("x", newline="", encoding="utf-8-sig")
            except FileExistsError as error:
                raise UsageError(f"{quoted(path)} exists; choose another --csv") from error
        self.rows = csv.writer(self.file)
        self.write(["file", "label", "probability", *map(clean, classes), "rejected", "error"])

    def take(self, prediction: Any) -> None:
        found = dict(prediction.top)
        numbers = [f"{found[label]:.6f}" if label in found else "" for label in self.classes]
        best = "" if prediction.error else f"{prediction.probability:.6f}"
        label = BETWEEN.join(map(clean, prediction.labels))
        rejected = prediction.rejected or ""
        label = prediction.label if rejected else label
        error = clean(prediction.error)
        self.write([clean(prediction.file), label, best, *numbers, rejected, error])

    def write(self, row: list[str]) -> None:
        with disk_errors(self.path):
            self.rows.writerow(map(inert, row))
            self.file.flush()

    def close(self) -> None:
        with disk_errors(self.path):
            self.file.close()


class SortedFolders:
    """A folder a class, with a link to each image, or a copy of it; an image of several labels is
    in each, one without any in `(none)`, one that is refused in `(none of these)`, one that cannot
    be read in `(unreadable)`.

    Nothing is ever replaced: of two images of one name the second gets a number.

    Args:
        root: of the folders; made if need be.
        classes: names.
        copy: whether to copy.
        sources: folders of the images, none of which may hold `root`: what is sorted would be
            sorted again.

    Raises:
        UsageError: the root lies in one of them, or is a file.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], copy: bool, sources: list[Path]):
        self.root, self.copy = root, copy
        for source in sources:
            if root.resolve().is_relative_to(source.resolve()) and source.is_dir():
                raise UsageError(
                    f"{quoted(root)} lies in {quoted(source)}, whose images are sorted: choose a "
                    "folder beside it"
                )
        self.folders = folder_names(classes)
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)

    def take(self, prediction: Any) -> None:
        nowhere = NONE if prediction.rejected is None else REFUSED
        names = [self.folders[label] for label in prediction.labels] or [nowhere]
        source = Path(prediction.file).absolute()
        for name in [UNREADABLE] if prediction.error else names:
            folder = self.root / name
            with disk_errors(folder):
                folder.mkdir(exist_ok=True)
                self.place(source, folder)

    def place(self, source: Path, folder: Path) -> None:
        """Put an image into a folder under its name, or its name with a number."""
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            target = folder / f"{source.stem}{suffix}{source.suffix}"
            if not os.path.lexists(target):
                break
            if target.is_symlink() and target.readlink() == source:
                return  # it is there from an earlier call
            number += 1
        if not os.path.lexists(source):
            return  # it has an error, and is not there
        if self.copy:
            if source.is_file():
                shutil.copy2(source, target)
            return
        try:
            target.symlink_to(source)
        except OSError as error:
            if os.path.lexists(target) or getattr(error, "winerror", None) is None:
                raise
            raise FoveateError(
                f"this system makes no links ({error.strerror}); sort with --copy"
            ) from error

    def close(self) -> None:
        pass


def folder_names(classes: tuple[str, ...]) -> dict[str, str]:
    """A folder's name for each class, which every system takes; no two are equal.

    >>> folder_names(("cat", "a/b", "a:b", ".."))
    {'cat': 'cat', 'a/b': 'a-b', 'a:b': 'a-b-2', '..': '-'}
    """
    found: dict[str, str] = {}
    taken = {NONE, REFUSED, UNREADABLE}
    for label in classes:
        plain = ODD.sub("-", label).strip(" ").rstrip(".")[:100] or "-"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        found[label] = name
    return found


class Counted:
    """How many images were read, and how many were not."""

    def __init__(self) -> None:
        self.read = self.failed = 0

    def take(self, prediction: Any) -> None:
        self.read += not prediction.error
        self.failed += bool(prediction.error)

    def close(self) -> None:
        if self.failed and not self.read:
            raise DataError(f"none of the {self.failed} images could be read")
