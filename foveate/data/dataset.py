"""Dataset: an index of images, their labels and their splits. `layouts.py` makes it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import option, shown
from foveate.data.image import load_image
from foveate.data.workers import LIMIT, work_ahead
from foveate.errors import DataError, ImageError, UsageError, quoted

if TYPE_CHECKING:
    from foveate.data.torch_dataset import TorchDataset

Task = Literal["multiclass", "multilabel"]
TASKS = get_args(Task)
OnBad = Literal["skip", "error"]  # what to do with unreadable images
BETWEEN = "|"  # separates the labels of an image that has several
MAX_BAD = 0.05  # more unreadable images than this is a broken data set, not a few bad files


@dataclass
class Chunk:
    """Rows that a thread processes together: handing over one row takes longer than reading it."""

    rows: range
    at: int = 0  # the row being read, whose file a time-out names


@dataclass(frozen=True, repr=False)
class Dataset:
    """An index of images.

    Args:
        name: short name of the set, for messages and for the run's folder.
        layout: how the files are arranged, for people.
        files: the images' names, relative to the root.
        labels: (N,), index into `classes`; (N, classes), 0 or 1, where an image may have several
            labels or none.
        classes: names, in natural order.
        splits: "train", "validation" or "test" for each image.
        groups: images of one group (the same object or patient) stay on one side of every split;
            "" is no group.
        read: returns the bytes of image i; raises ImageError if it cannot.
        ignored: files and folders that are left out; `notes` has the causes.
        notes: sentences for people, on what is unusual about this set.
        pixels: (N, H, W, C), uint8, of a built-in set, whose images are one array; `read` returns
            the same images as files.
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

    @classmethod
    def of(
        cls,
        paths: Iterable[str | os.PathLike[str]],
        labels: Iterable[Any],
        splits: Iterable[str] | None = None,
        groups: Iterable[Any] | None = None,
        name: str = "dataset",
    ) -> "Dataset":
        """A Dataset of image files and labels in lists, arrays, or columns of a DataFrame.

        Images are sorted by split, class and path, as those of a folder are.

        Args:
            paths: of the N image files.
            labels: a class for each, text or a number; or a list, tuple or set of labels for each,
                which may be empty: then the task is multilabel.
            splits: "train", "validation" or "test" for each; all are to be learnt from by default.
            groups: images of one group (the same object, patient or burst) stay on one side of
                every split; "" or None is no group.
            name: for messages and for the run's folder.

        Raises:
            UsageError: lengths differ; a path, label or split of a wrong kind.
            DataError: a file does not exist; a path is there twice; there is no image.
        """
        from foveate.data.layouts import from_lists

        return from_lists(paths, labels, splits, groups, name)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Image.Image, Any]:
        """Image i, upright and in RGB, and its label: a number, the index into `classes`; or, of
        the task multilabel, (classes,), 0 or 1. ImageError if it cannot be read."""
        if isinstance(i, slice) or not hasattr(i, "__index__"):
            raise UsageError(f"a dataset takes the number of an image, not {i!r}; see select(rows)")
        row = range(len(self))[i]
        label = self.labels[row]
        image = load_image(self.read(row), self.files[row])
        return image, int(label) if label.ndim == 0 else label

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {split}" for split, n in Counter(self.splits).items())
        return f"Dataset({self.name!r}, {len(self.classes)} classes, {counts or 'no images'})"

    def torch(self, transform: Callable[[Image.Image], Any] | None = None) -> "TorchDataset":
        """The same as a torch Dataset, for a DataLoader: item i is `transform(image), label`.

        Args:
            transform: of a PIL image; an Augment, a Preprocess, torchvision's or your own. None
                leaves the image as it is.

        Returns:
            A torch.utils.data.Dataset; labels are int, or float32 (classes,) of the task
            multilabel, as torch's losses take them.
        """
        from foveate.data.torch_dataset import TorchDataset

        return TorchDataset(self, transform)

    def split(self, name: str) -> "Dataset":
        """The images of one split: "train", "validation" or "test"; UsageError if it has none."""
        rows = np.flatnonzero([split == name for split in self.splits])
        if not len(rows):
            have = ", ".join(dict.fromkeys(self.splits))
            raise UsageError(f"{quoted(self.name)} has no split {name!r}; it has {have}")
        return self.select(rows)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's bytes; "" where they cannot be read.

        Raises:
            ImageError: a file cannot be read within `workers.LIMIT`.
        """

        def digest(i: int) -> str:
            try:
                return hashlib.sha256(self.read(i)).hexdigest()
            except ImageError:
                return ""

        def digest_chunk(chunk: Chunk) -> list[str]:
            found = []
            for row in chunk.rows:
                chunk.at = row
                found.append(digest(row))
            return found

        threads = min(8, os.cpu_count() or 1)
        digests = work_ahead(
            tasks=(Chunk(range(i, min(i + 64, len(self)))) for i in range(0, len(self), 64)),
            work=digest_chunk,
            name=lambda chunk: self.files[chunk.at],
            threads=threads,
            ahead=4 * threads,
            limit=LIMIT,
        )
        return tuple(chain.from_iterable(digests))

    def select(self, rows: Any) -> "Dataset":
        """The dataset of these rows only: their numbers in any sequence, or (N,) of bool.

        Raises:
            UsageError: it has no such rows.
        """
        rows, read = known_rows(rows, len(self)), self.read
        chosen = replace(
            self,
            files=tuple(self.files[i] for i in rows),
            labels=self.labels[rows],
            splits=tuple(self.splits[i] for i in rows),
            groups=tuple(self.groups[i] for i in rows),
            read=partial(read_row, read, rows),
            pixels=None if self.pixels is None else self.pixels[rows],
        )
        if "digests" in self.__dict__:  # computed before: no file is read again
            chosen.__dict__["digests"] = tuple(self.digests[i] for i in rows)
        return chosen

    def regroup(self, groups: tuple[str, ...]) -> "Dataset":
        """The same images in other groups."""
        changed = replace(self, groups=groups)
        if "digests" in self.__dict__:
            changed.__dict__["digests"] = self.digests
        return changed

    def resplit(self, splits: tuple[str, ...]) -> "Dataset":
        """The same images in other splits."""
        changed = replace(self, splits=splits)
        if "digests" in self.__dict__:
            changed.__dict__["digests"] = self.digests
        return changed

    def array(self, channels: int, short_side: int) -> NDArray[np.uint8] | None:
        """`pixels` with so many channels; None if they have to be decoded, scaled or made grey."""
        pixels = self.pixels
        if pixels is None or min(pixels.shape[1:3]) != short_side:
            return None
        if pixels.shape[3] == 3 and channels == 1:
            return None
        return pixels if pixels.shape[3] == channels else pixels.repeat(channels, axis=3)

    @property
    def task(self) -> Task:
        """Whether an image has one class, or any number of labels."""
        return "multilabel" if self.labels.ndim == 2 else "multiclass"

    def label(self, i: int) -> str:
        """The class of image i, or its labels: "cat", or "cat|outdoors"."""
        here = self.labels[i]
        numbers = np.flatnonzero(here) if here.ndim else [here]
        return BETWEEN.join(self.classes[c] for c in numbers)

    def having(self, c: int) -> NDArray[np.bool_]:
        """(N,), whether an image is of class c."""
        return self.labels[:, c] == 1 if self.labels.ndim == 2 else self.labels == c

    def sizes(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> NDArray[np.int64]:
        """(classes,), how many of these rows are of each class."""
        labels = self.labels[rows]
        if labels.ndim == 2:
            return labels.sum(axis=0)
        return np.bincount(labels, minlength=len(self.classes))

    def counts(self) -> dict[str, dict[str, int]]:
        """Images of each class in each split: {split: {class: n}}."""
        splits = np.array(self.splits)
        return {
            split: dict(zip(self.classes, self.sizes(splits == split).tolist(), strict=True))
            for split in dict.fromkeys(self.splits)
        }

    def grouping(self) -> NDArray[np.int64]:
        """(N,), the number of each image's group; duplicates join the groups that contain them.

        A union-find: images that share a group's name or their bytes get the same root.
        """
        parent = list(range(len(self)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]  # path halving
                i = parent[i]
            return i

        first: dict[tuple[str, str], int] = {}
        for i, (group, digest) in enumerate(zip(self.groups, self.digests, strict=True)):
            for key in (("group", group), ("bytes", digest)):
                if key[1]:
                    parent[root(i)] = root(first.setdefault(key, i))
        return np.array([root(i) for i in range(len(self))], dtype=np.int64)


def known_rows(rows: Any, n: int) -> NDArray[np.int64]:
    """Numbers of images, in any sequence, or which they are, (n,) of bool, as an array.

    Raises:
        UsageError: not all are 0 to n - 1.
    """
    try:
        found = np.asarray(rows if len(rows) else np.zeros(0, np.int64))
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.dtype == bool and found.shape == (n,):
        return np.flatnonzero(found)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not ((found >= 0) & (found < n)).all():
        raise UsageError(f"rows are whole numbers from 0 to {n - 1}, not {shown(rows)}")
    return found.astype(np.int64)


def read_row(read: Callable[[int], bytes], rows: NDArray[np.int64], i: int) -> bytes:
    """Image i of those selected."""
    return read(int(rows[i]))


def learnable(dataset: Dataset) -> Dataset:
    """The dataset without the classes that only its test split has, and a note on each.

    Of several labels an image, the images stay without that label.

    Raises:
        DataError: all images are of the test split.
    """
    test = np.array([split == "test" for split in dataset.splits], dtype=bool)
    if test.all():
        raise DataError(
            f"{quoted(dataset.name)} has no image to learn from, all are of the test split; "
            "expected a "
            "split train"
        )
    known = np.flatnonzero(dataset.sizes(~test))
    unknown = np.flatnonzero(dataset.sizes(~test) == 0)
    if not len(unknown):
        return dataset
    note = "class '{}' is only in the test split: it cannot be learnt; its {} images are left out"
    if dataset.task == "multilabel":
        note = (
            "label '{}' is only in the test split: it cannot be learnt, and its {} images count as "
            "images without it"
        )
    sizes = dataset.sizes(test)
    notes = [
        note.format(dataset.classes[c], sizes[c])
        if sizes[c]
        else f"class '{dataset.classes[c]}' has no image left: it is left out"
        for c in unknown
    ]
    rest = replace(
        dataset,
        classes=tuple(dataset.classes[c] for c in known),
        notes=(*dataset.notes, *notes),
    )
    if dataset.task == "multilabel":
        return replace(rest, labels=dataset.labels[:, known])
    rows = np.flatnonzero(np.isin(dataset.labels, known))
    number = np.full(len(dataset.classes), -1)
    number[known] = np.arange(len(known))
    chosen = rest.select(rows)
    return replace(chosen, labels=number[chosen.labels])


def check_trainable(dataset: Dataset) -> None:
    """Raise DataError unless the images outside the test split suffice to train and validate.

    That is two classes with two images each; or, for several labels an image, labels that two
    images have and two do not.
    """
    learn = np.array([split != "test" for split in dataset.splits], dtype=bool)
    sizes = dataset.sizes(learn)
    if dataset.task == "multilabel":
        check_labels(dataset.classes, sizes, int(learn.sum()))
        return
    if len(dataset.classes) < 2:
        only = f"only one class, '{dataset.classes[0]}'" if dataset.classes else "no class"
        raise DataError(f"{quoted(dataset.name)} has {only}; a classifier needs at least two")
    few = [f"'{c}' ({n})" for c, n in zip(dataset.classes, sizes, strict=True) if n < 2]
    if few:
        raise DataError(
            f"too few readable images to learn from in class {', '.join(few)}; each class needs "
            "two, one to learn and one to check: add images, or remove the class's folder"
        )


def check_labels(classes: tuple[str, ...], sizes: NDArray[np.int64], n: int) -> None:
    """Raise DataError unless each label is on two of the `n` images and absent from two."""
    if not classes:
        raise DataError("no image has a label")
    rare = [f"'{c}' ({k})" for c, k in zip(classes, sizes, strict=True) if k < 2]
    common = [f"'{c}' ({n - k})" for c, k in zip(classes, sizes, strict=True) if n - k < 2]
    if rare or common:
        few = f"too few have {', '.join(rare)}"
        which = few if rare else f"too few are without {', '.join(common)}"
        raise DataError(
            "each label needs two readable images with it and two without, one to learn and one to "
            f"check: {which}"
        )


def apply_policy(
    n: int, bad: dict[str, str], policy: OnBad | None, damaged: dict[str, str] | None = None
) -> None:
    """Raise DataError if there are more unreadable images, {name: reason}, than the policy allows.

    Args:
        n: images in all, the unreadable ones included.
        bad: the unreadable images.
        policy: "error" allows none, "skip" all but all; None, where nobody chose one, allows
            MAX_BAD of `n`, and always one: in a set of twelve one bad file is a bad file, two are
            a sign of something else.
        damaged: images that were decoded though they are damaged; "error" allows none.
    """
    bad = bad | (damaged or {}) if policy == "error" else bad
    if not bad:
        return
    few = len(bad) <= max(1, MAX_BAD * n)
    reasons = "\n  ".join(list(bad.values())[:5])
    what = f"{len(bad)} of {n} images are unreadable"
    if policy == "error":
        what = f"{len(bad)} of {n} images are unreadable or damaged"
        hint = (
            f"leave out {option('on_bad', 'error')}" if few else f"give {option('on_bad', 'skip')}"
        )
        raise DataError(f"{what} ({hint} to skip the unreadable ones):\n  {reasons}")
    if policy is None and not few:
        raise DataError(
            f"{what}, more than {MAX_BAD:.0%} (give {option('on_bad', 'skip')} to leave them out "
            "all the same):"
            f"\n  {reasons}"
        )
    if len(bad) == n:
        raise DataError(f"{what}:\n  {reasons}")


def check_policy(policy: object) -> None:
    """UsageError unless it is a policy for unreadable images, or None."""
    if policy is not None and policy not in get_args(OnBad):
        raise UsageError(f"no policy is called '{policy}'; expected skip or error")


def damage_notes(damaged: dict[str, str]) -> list[str]:
    """A sentence on images that were decoded though they are damaged."""
    if not damaged:
        return []
    return [
        f"damaged, and used as far as they could be decoded: {listed(damaged)}; "
        f"{option('on_bad', 'error')} "
        "refuses them"
    ]


def duplicates(dataset: Dataset) -> list[tuple[str, ...]]:
    """Sets of files with the same bytes."""
    same = defaultdict(list)
    for name, digest in zip(dataset.files, dataset.digests, strict=True):
        if digest:
            same[digest].append(name)
    return [tuple(names) for names in same.values() if len(names) > 1]


def evenly_spaced(rows: NDArray[np.int64], at_most: int) -> NDArray[np.int64]:
    """At most so many of the rows, at equal distances, the first and the last included.

    >>> evenly_spaced(np.arange(10), 4).tolist(), evenly_spaced(np.array([3, 5]), 4).tolist()
    ([0, 3, 6, 9], [3, 5])
    """
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), at_most)).round().astype(int)]


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more.

    >>> listed("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
