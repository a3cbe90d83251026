"""Layouts of data sets: a folder, a table or a built-in name becomes a Dataset.

    photos/cat/1.jpg           one folder per class
    photos/train/cat/1.jpg     split folders: train; optionally validation; optionally test
    photos/cat/train/1.jpg     class folders, split folders in each
    table.csv                  path,label[,split][,group], paths relative to the table
    shards/shard-000000.tar    images and labels in tars (`shards.py`)

Splits go by many names (`SPLITS`), alone or with the same words around (seg_train, seg_test); one
folder around it all is looked through. What nearly is such a layout is refused, with what to do:
a split is never learnt as a class.

Classes are sorted by name, in natural order ("2" before "10"), so their numbers do not depend on
the file system, and are written in Unicode's form NFC. What is left out is listed as ignored, and
notes give the causes. In a table of several labels an image, `a|b` is two labels and an empty cell
is none.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from foveate.arguments import checked_path, option, shown
from foveate.data.dataset import BETWEEN, TASKS, Dataset, Task, listed
from foveate.data.image import SUFFIXES
from foveate.data.listing import LOOSE, MACHINE_MADE, RUNS, Folder, Listing, notes_on, present
from foveate.data.shards import images_of, is_sharded, open_shards
from foveate.data.tables import (
    SPLITS,
    find,
    from_table,
    named,
    read_below,
    read_table,
    separate,
    whole,
)
from foveate.errors import DataError, UsageError, quoted

# words around a split's name that say nothing: test_images, TrainingSet
FILLERS = frozenset("set data images image imgs img folder dataset split photos".split())
ANNOTATIONS = frozenset("labels annotations masks mask bboxes labelmasks".split())
SPLIT_WORD = re.compile(
    rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})({'|'.join(FILLERS)})?"
)
SOURCES = (
    "data is a folder, a CSV, a built-in name, or a Dataset, such as foveate.Dataset.of(paths, "
    "labels)"
)
UNLABELLED = "images of a split without class folders (foveate predict classifies them)"


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
        UsageError: no such task; the source is something else, or the empty text.
    """
    from foveate.data.builtin import BUILTIN, load_builtin

    if task not in TASKS:
        raise UsageError(f"no task is called {task!r}; expected {' or '.join(TASKS)}")
    path = checked_path(SOURCES, source)
    is_table = present(path) and path.is_file()
    top = Folder.of(path) if present(path) and path.is_dir() else None
    if top is not None and is_sharded(top):
        return from_shards(path, task)
    if task == "multilabel" and not is_table and (present(path) or str(source) in BUILTIN):
        raise DataError(
            f"in {quoted(source)} each image has one class; for several labels an image, list "
            "them in a "
            "CSV with columns path,label, separated by |"
        )
    if top is not None:
        return from_folder(path, top)
    if is_table:
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise DataError(
                f"{quoted(path)} is a file; expected a folder of images, or a .csv with columns "
                "path,label"
            )
        rows, read, notes = from_table(path, task)
        return index(path.stem, "table of paths and labels", rows, read, (), notes, task)
    if str(source) in BUILTIN:
        return load_builtin(str(source))
    if present(path):
        raise DataError(
            f"{quoted(path)} is a pipe or a device; expected a folder of images, or a .csv file"
        )
    raise DataError(f"no such folder or file: {quoted(path)} (built-in sets: {', '.join(BUILTIN)})")


def from_shards(root: Path, task: Task) -> Dataset:
    """Index a folder of tars."""
    shards = open_shards(root)
    if shards.task != task:
        one = "has any number of labels" if shards.task == "multilabel" else "has one class"
        raise DataError(
            f"in {quoted(root)} each image {one}: {option('task', shards.task)} reads it"
        )
    found = index(
        shards.name, "tars of images", images_of(shards), shards.read, (), shards.notes, task
    )
    digests = tuple(shards.entries[file].sha256 for file in found.files)
    found.__dict__["digests"] = digests  # a cached property, which would read all images
    return found


def as_dataset(data: Any, task: Task | None = None) -> Dataset:
    """What `data` stands for; of the task multiclass, if it is no Dataset and none is asked for.

    Raises:
        UsageError: it stands for nothing; a Dataset is of another task than is asked for.
    """
    if not isinstance(data, Dataset):
        return load_dataset(data, "multiclass" if task is None else task)
    if task is not None and task != data.task:
        raise UsageError(
            f"task is {task!r}, and '{data.name}' is a Dataset of the task {data.task!r}: leave "
            "task out"
        )
    return data


# Folders


@dataclass
class Layout:
    """How the folders of a data set are arranged.

    `classes` are (split, class, folder); `beside` are folders whose own images have no class, and
    why these are left out.
    """

    name: str
    classes: list[tuple[str, str, Folder]]
    beside: list[tuple[Folder, str]]
    notes: list[str] = field(default_factory=list)


def from_folder(root: Path, top: Folder) -> Dataset:
    """Index a folder, whose listing is given, too."""
    layout = layout_of(top, root)
    listing, notes = Listing(), layout.notes
    marks = {place[:2]: mark for mark, place in enumerate(layout.classes)}
    for split, label, folder in layout.classes:
        if not listing.add(folder, marks[split, label]):
            notes.append(f"the folder {quoted(folder.name)} has no images and is no class")
    rows = [
        (name, layout.classes[mark][1], layout.classes[mark][0], "")
        for name, mark in listing.images()
    ]
    left = listing.left
    for folder, cause in layout.beside:
        left += [*folder.left, *((folder.inside(name), cause) for name in folder.images)]
    notes += notes_on(left)
    name, ignored = root.resolve().name, sorted(name for name, _ in left)
    return index(name, layout.name, rows, partial(read_below, root), ignored, notes)


def layout_of(top: Folder, root: Path) -> Layout:
    """The layout of a folder: of its own, or of the only folder in it.

    Raises:
        DataError: there are no class folders; it is not sure which are classes, and which splits.
    """
    notes: list[str] = []
    beside = [top]
    while True:
        folders = top.folders
        only = folders[0] if len(folders) == 1 and not top.images else None
        if only is None or not wraps(only) or split_of(only.base):
            break
        if any(only.real == folder.real for folder in beside):  # links in a circle
            break
        top = only
        beside.append(top)
    if not folders:
        raise no_classes(root, top)
    if len(beside) > 1:
        notes.append(f"the classes are looked for in {quoted(top.name)}, the only folder here")
    refuse_other_tasks(folders, top)
    splits = split_folders(folders)
    layout = by_split(splits) if splits else by_class(folders)
    others = [f for f in folders if f not in splits] if splits else []
    if others:
        n = sum(map(images_in, others))
        names = listed(f.base for f in others)
        notes.append(f"beside the splits there are other folders, not used: {names}; images: {n}")
    around = [(folder, LOOSE) for folder in beside]
    return replace(layout, beside=around + layout.beside, notes=notes + layout.notes)


def refuse_other_tasks(folders: list[Folder], top: Folder) -> None:
    """DataError if folders are known not to be classes: their labels are in a table, or pixels."""
    names = {folder.base.lower() for folder in folders}
    if len(names) > 1 and names <= FILLERS | ANNOTATIONS and names & ANNOTATIONS:
        raise DataError(
            f"{listed(f.base for f in folders)} are images and annotations, not classes: sort "
            "the images into a folder per class, or list them in a CSV with columns path,label"
        )
    if len(names) == 1 and names <= FILLERS and folders[0].images:
        advice = tables_in([Path(top.path)])
        if advice:
            raise DataError(f"'{folders[0].name}' holds all images, and is no class{advice}")


def wraps(folder: Folder) -> bool:
    """Whether it holds folders, and no images of its own."""
    return bool(folder.folders) and not folder.images


def split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """(split, the other words) of a folder's name; None if it names none, or several.

    >>> split_of("Training"), split_of("seg_test"), split_of("trainer")
    (('train', ()), ('test', ('seg',)), None)
    """
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    words = [w for w in re.findall(r"[^\W\d_]+|\d+", spaced) if w not in FILLERS]
    found = [(i, match[1]) for i, w in enumerate(words) if (match := SPLIT_WORD.fullmatch(w))]
    if len(found) != 1:
        return None
    (i, word) = found[0]
    return SPLITS[word], (*words[:i], *words[i + 1 :])


def split_folders(folders: list[Folder]) -> dict[Folder, str]:
    """{folder: split} if these are splits; {} if they are classes.

    Raises:
        DataError: several sets of splits; splits without class folders; a split among classes.
    """
    sets: dict[tuple[str, ...], dict[Folder, str]] = defaultdict(dict)
    for folder in folders:
        if found := split_of(folder.base):
            sets[found[1]][folder] = found[0]
    sets = {rest: split for rest, split in sets.items() if len({*split.values()}) > 1 or not rest}
    whole = {rest: split for rest, split in sets.items() if any(f.folders for f in split)}
    if len(whole) > 1:
        several = (f.base for split in whole.values() for f in split)
        raise DataError(f"there are several sets of splits: {listed(several)}; leave one of them")
    for splits in whole.values():
        others = [f for f in folders if f not in splits]
        learnt = [f for f, split in splits.items() if split == "train" and f.folders]
        if not others and (learnt or all(f.folders or not f.images for f in splits)):
            return splits
        if learnt and not (len({*splits.values()}) == 1 and like_classes(learnt, others)):
            return splits
    for splits in sets.values():
        if all(split == "train" for split in splits.values()) and len(splits) < len(folders):
            continue  # a class of this name
        suspects = [f for f, split in splits.items() if split == "test"]
        if len({*splits.values()}) > 1 or len(splits) == len(folders) or suspects:
            paths = [Path(f.path) for f in folders]
            advice = tables_in([*(path.parent for path in paths), *paths])
            raise DataError(
                f"'{(suspects or [*splits])[0].base}' is the name of a split, but there are no "
                f"class folders in it, or no train beside it ({listed(f.base for f in folders)}): "
                "sort the images into train/CLASS and test/CLASS, or list them in a CSV with "
                "columns path,label,split; move away what has no labels; if it is a class, give "
                f"its folder another name{advice}"
            )
    return {}


def like_classes(learnt: list[Folder], others: list[Folder]) -> bool:
    """Whether folders called train lie among others of the same kind: a class, not a split.

    Raises:
        DataError: it could be either.
    """
    if any(f.images for f in learnt) and any(f.images for f in others):
        return True
    inner = {f.base for train in learnt for f in train.folders}
    alike = [other.base for other in others if inner & {f.base for f in other.folders}]
    if alike:
        raise DataError(
            f"'{learnt[0].base}' may be the training split or a class like {listed(alike)}, with "
            "the same folders in it; move the others away, give the class another name, or list "
            "the images in a CSV with columns path,label,split"
        )
    return False


def by_split(splits: dict[Folder, str]) -> Layout:
    """The layout train/CLASS/image.jpg."""
    names = (f.base if f.base == split else f"{f.base} ({split})" for f, split in splits.items())
    name = "split folders: " + ", ".join(names)
    layout = Layout(name, [], [])
    known: set[str] = set()
    for folder in sorted(splits, key=lambda folder: splits[folder] != "train"):
        inner, cause = folder, LOOSE
        while only := inside_wrapper(inner, splits[folder], known):
            layout.beside.append((inner, cause))
            inner = only
        if not inner.folders:
            cause = UNLABELLED
        layout.beside.append((inner, cause))
        layout.classes += [(splits[folder], f.base, f) for f in inner.folders]
        if splits[folder] == "train":
            known |= {f.base for f in inner.folders}
    return layout


def inside_wrapper(folder: Folder, split: str, known: set[str]) -> Folder | None:
    """The only folder in a split's, if it holds the classes and is none: seg_train/seg_train."""
    if len(folder.folders) != 1 or folder.images:
        return None
    (only,) = folder.folders
    if only.base in known:
        return None
    holds_classes = split == "train" or any(f.base in known for f in only.folders)
    return only if split_of(only.base) or (wraps(only) and holds_classes) else None


def by_class(folders: list[Folder]) -> Layout:
    """The layout CLASS/image.jpg, or CLASS/train/image.jpg."""
    below = {f: [split_of(inner.base) for inner in f.folders] for f in folders}
    splits = {f: {found[0] for found in names if found} for f, names in below.items()}
    if not any({"train"} < found for found in splits.values()):
        classes = [("train", f.base, f) for f in folders]
        return Layout("one folder per class", classes, [], notes_on_repeated(folders))
    odd = [f.base for f, names in below.items() if f.images or not names or None in names]
    if odd:
        raise DataError(
            f"some class folders hold train and test folders, and {listed(odd)} images or other "
            "folders beside them; sort all into CLASS/train and CLASS/test, or train/CLASS and "
            "test/CLASS, or list the images in a CSV with columns path,label,split"
        )
    classes = [
        (found[0], f.base, inner)
        for f in folders
        for inner in f.folders
        if (found := split_of(inner.base))
    ]
    beside = [(folder, LOOSE) for folder in folders]
    return Layout("class folders, split folders in each", classes, beside)


def notes_on_repeated(folders: list[Folder]) -> list[str]:
    """A note where each of these classes holds folders of the same names: may be, those are it."""
    first, *others = ({f.base for f in folder.folders if f.images} for folder in folders)
    if len(first) < 2 or not others or any(names != first for names in others):
        return []
    inner = listed(sorted(first), 3)
    return [
        f"all classes have the same folders in them, {inner}: if those are the classes, list the "
        "images in a CSV with columns path,label,group"
    ]


def images_in(folder: Folder) -> int:
    """How many images lie in a folder that is not used; 0 if it is closed."""
    try:
        return sum(len(here.images) for here in folder.all_below([]))
    except DataError:
        return 0


def no_classes(root: Path, top: Folder) -> DataError:
    """The error of a folder without class folders, with what its files suggest."""
    loose = len(top.images)
    hint = f" ({loose} images lie directly in it)" if loose else ""
    name = root.name or root.resolve().name
    left = notes_on(found for found in top.left if found[1] in (MACHINE_MADE, RUNS))
    why = "".join(f"; {note}" for note in left)
    return DataError(
        f"{quoted(root)} has no class folders{hint}; expected {name}/CLASS/image.jpg, one folder "
        f"per class, or {name}/train/CLASS/image.jpg{why}{tables_in([Path(top.path)])}"
    )


def tables_in(places: list[Path]) -> str:
    """What to do with the tables in these folders, for a message; "" without any."""
    advice = ""
    for table in [t for p in dict.fromkeys(places) for t in sorted(p.glob("*.[ct]sv"))][:3]:
        try:
            read_table(table)
            advice += f"; the labels may be in a table: give {quoted(table)} instead of the folder"
        except DataError as error:
            advice += f"; if the labels are in a table, mend it and give it instead: {error}"
    return advice


# Lists


def from_lists(
    paths: Iterable[Any],
    labels: Iterable[Any],
    splits: Iterable[Any] | None,
    groups: Iterable[Any] | None,
    name: str,
) -> Dataset:
    """Index image files and labels that are given in lists; `Dataset.of` explains them."""
    if not isinstance(name, str):
        raise UsageError(f"name is text, not {type(name).__name__}")
    files, marks = listing_of("paths", paths), listing_of("labels", labels)
    parts = ["train"] * len(files) if splits is None else listing_of("splits", splits)
    together = [""] * len(files) if groups is None else listing_of("groups", groups)
    lengths = {"paths": files, "labels": marks, "splits": parts, "groups": together}
    if len({len(given) for given in lengths.values()}) > 1:
        counts = ", ".join(f"{len(given)} {what}" for what, given in lengths.items())
        raise UsageError(f"paths, labels, splits and groups must be as many: got {counts}")
    several = any(is_listing(mark) for mark in marks)
    if several and not all(is_listing(mark) for mark in marks):
        one = next(mark for mark in marks if not is_listing(mark))
        raise UsageError(f"labels are lists for some images and not for others: {shown(one)}")
    rows = []
    for file, mark, part, group in zip(files, marks, parts, together, strict=True):
        if not isinstance(file, (str, os.PathLike)):
            raise UsageError(f"a path is text or a Path, not {file!r}")
        if str(part).lower() not in SPLITS:
            raise UsageError(f"no split is called {part!r}; expected {', '.join(SPLITS)}")
        text = BETWEEN.join(text_of(one) for one in mark) if several else text_of(mark)
        split = SPLITS[str(part).lower()]
        rows.append((os.fspath(file), text, split, "" if group is None else str(group)))
    real_folder = cache(os.path.realpath)
    places = [find("", row[0], real_folder) for row in rows]
    absent = [row[0] for row, place in zip(rows, places, strict=True) if place is None]
    if absent:
        raise DataError(f"{len(absent)} files do not exist: {listed(absent)}")
    real = Counter(place[1] for place in places if place)
    repeated = [row[0] for row, p in zip(rows, places, strict=True) if p and real[p[1]] > 1]
    if repeated:
        raise DataError(f"{len(repeated)} paths are of an image given before: {listed(repeated)}")
    task: Task = "multilabel" if several else "multiclass"
    names, read = named([row[0] for row in rows], Path())
    rows = [(file, *row[1:]) for file, row in zip(names, rows, strict=True)]
    return index(name, "lists of paths and labels", rows, read, (), (), task)


def listing_of(what: str, given: Any) -> list[Any]:
    """A list, an array, a column or another iterable, as a list; UsageError if it is none."""
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        with suppress(TypeError):  # an array of no dimension
            return list(given)
    raise UsageError(f"{what} is a list, an array or a column, not {type(given).__name__}")


def is_listing(mark: Any) -> bool:
    """Whether it is several labels."""
    return isinstance(mark, (list, tuple, set, frozenset))


def text_of(label: Any) -> str:
    """A label's name: text as it is, a whole number in digits."""
    if isinstance(label, str) and label:
        return label
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return str(int(label))
    raise UsageError(f"a label is text or a whole number, not {label!r}")


def read_numbered(read: Callable[[str], bytes], files: tuple[str, ...], i: int) -> bytes:
    return read(files[i])


def index(
    name: str,
    layout: str,
    rows: Iterable[tuple[str, str, str, str]],
    read: Callable[[str], bytes],
    ignored: Iterable[str] = (),
    notes: Iterable[str] = (),
    task: Task = "multiclass",
) -> Dataset:
    """(file, label, split, group) rows -> Dataset, with notes on unusual classes.

    The classes are those of all splits; `dataset.learnable` leaves out those of the test split
    alone.

    Raises:
        DataError: there is no row; two splits write one class in upper and lower case.
    """
    rows, notes = list(rows), list(notes)
    if not rows:
        why = "".join(f"; {note}" for note in notes)
        raise DataError(
            f"{quoted(name)} has no images (looked for {' '.join(sorted(SUFFIXES))}){why}"
        )
    order = cache(natural)  # there are few classes, and this runs once a row
    rows.sort(key=lambda row: (row[2], order(row[1]), natural(row[0])))
    written = cache(separate if task == "multilabel" else whole)
    parts = cache(lambda label: tuple(dict.fromkeys(map(composed, written(label)))))
    seen = dict.fromkeys((row[1], row[2]) for row in rows)
    spelt = {part for label, _ in seen for part in written(label)}
    classes = tuple(sorted(set(map(composed, spelt)), key=natural))
    if len(spelt) > len(classes):
        twice = (c for c, n in Counter(map(composed, spelt)).items() if n > 1)
        notes.append(f"two Unicode forms of a class are one: {listed(twice)}")
    number = {label: i for i, label in enumerate(classes)}
    if task == "multilabel":
        labels = np.zeros((len(rows), len(classes)), dtype=np.int64)
        for i, row in enumerate(rows):
            labels[i, [number[part] for part in parts(row[1])]] = 1
    else:
        labels = np.array([number[parts(row[1])[0]] for row in rows], dtype=np.int64)
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
    return replace(dataset, notes=(*notes, *remarks(dataset)))


def composed(label: str) -> str:
    """A class's name in Unicode's form NFC: macOS writes accents as two characters."""
    return unicodedata.normalize("NFC", label)


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
    for names in spellings.values():
        check_spellings(names, counts)
    alike = (" and ".join(map(ascii, s)) for s in spellings.values() if len(s) > 1)
    notes += [f"classes {names} differ only in case, spaces or Unicode form" for names in alike]
    sizes = {
        c: n
        for c in dataset.classes
        if (n := sum(table[c] for split, table in counts.items() if split != "test"))
    }
    most = max(sizes, key=sizes.__getitem__, default="")
    least = min(sizes, key=sizes.__getitem__, default="")
    if sizes and sizes[most] > 10 * sizes[least]:
        if dataset.task == "multilabel":
            read, weigh = "macro-F1", ""
        else:
            read = "the balanced accuracy and macro-F1"
            remedy = option("balance", "weights")
            weigh = f"; with finetune and scratch, {remedy} gives all classes equal weight"
        notes.append(
            f"the classes are imbalanced: '{most}' has {sizes[most]} images, '{least}' "
            f"{sizes[least]}; read {read}, not the accuracy alone{weigh}"
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


def check_spellings(names: list[str], counts: dict[str, dict[str, int]]) -> None:
    """DataError if one of these spellings of a class is in no split that has another.

    They would be one folder where case does not count, and the figure of a split whose images are
    all of "other" classes says nothing.
    """
    where = {name: {split for split, table in counts.items() if table[name]} for name in names}
    for one, other in combinations(names, 2):
        if where[one].isdisjoint(where[other]):
            raise DataError(
                f"the class {one!a} is in {listed(sorted(where[one]))}, and {other!a} in "
                f"{listed(sorted(where[other]))}: write them alike, they differ only in case "
                "or spaces"
            )


def natural(text: str) -> tuple[tuple[int | str, ...], str]:
    """Sort key: digits compare as numbers.

    >>> sorted(["10", "9", "a2", "a10"], key=natural)
    ['9', '10', 'a2', 'a10']
    """
    # every second part is of digits; int() refuses more than 4300 of them
    parts = re.split(r"(\d{1,4000})", text)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), text
