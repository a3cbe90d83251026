"""Groups of images that belong together, found by themselves: copies, bursts, occasions; and those
that a table gives. Folds and splits keep them whole, so that what is judged is new.

    same bytes, versions of one file by their names, copies    one photo: it counts once
    the same scene, seconds apart, bursts, occasions           one group: on one side of a fold

Groups of any kind that share an image are one group. Those that a table gives are never split.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.audit.copies import SCENE, components, find_copies
from foveate.audit.names import version_of
from foveate.audit.neighbours import Rows
from foveate.audit.occasions import find_occasions
from foveate.audit.times import series, taken_at
from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.errors import ImageError, UsageError
from foveate.features import Extracted
from foveate.progress import Progress

Groups = Literal["auto", "given", "none"]
GROUPS = get_args(Groups)

GIVEN, COPIES, BURST, OCCASION = "given", "copies", "burst", "occasion"  # kinds of groups
SAME_BYTES = "same bytes"
VERSIONS = "versions of one file"
SERIES = "seconds apart"
REASONS = {  # beside those of the copies in a group
    GIVEN: ("named by the table",),
    COPIES: (),
    BURST: ("seconds apart, or more alike than independent images are",),
    OCCASION: ("light, place or thing as on one occasion",),
}
ORDER = ("train", "validation", "test")  # a copy is called one of the first of these


@dataclass(frozen=True)
class Pair:
    """Two files that show the same photo; `kind` says how they differ."""

    first: int
    second: int
    kind: str


@dataclass(frozen=True)
class Grouping:
    """What `find_groups` found; rows are the dataset's.

    Each of the arrays, (N,), has the smallest row of an image's group, and an image without one its
    own; each group of one is within a group of the next.

    Args:
        photos: of those that show the same photo and have the same label.
        copies: of those that show the same photo.
        bursts: of those that were taken in a burst.
        groups: of those that stay together.
        named: (N,), whether the table gives the image a group.
        pairs: of copies.
        looked_for: the kinds that were looked for.
        structured: whether the images were taken on occasions.
    """

    photos: Rows
    copies: Rows
    bursts: Rows
    groups: Rows
    named: NDArray[np.bool_]
    pairs: tuple[Pair, ...]
    looked_for: tuple[str, ...]
    structured: bool = False

    def applied(self, dataset: Dataset) -> Dataset:
        """The dataset with these groups, by number, in place of its own."""
        several = np.bincount(self.groups, minlength=len(dataset))[self.groups] > 1
        names = [
            str(group) if there else ""
            for group, there in zip(self.groups.tolist(), several.tolist(), strict=True)
        ]
        return dataset.regroup(tuple(names))

    def select(self, rows: Rows) -> "Grouping":
        """The same of these rows only."""
        number = np.full(len(self.groups), -1)
        number[rows] = np.arange(len(rows))

        def renumbered(groups: Rows) -> Rows:
            _, first, which = np.unique(groups[rows], return_index=True, return_inverse=True)
            return first[which]

        return replace(
            self,
            photos=renumbered(self.photos),
            copies=renumbered(self.copies),
            bursts=renumbered(self.bursts),
            groups=renumbered(self.groups),
            named=self.named[rows],
            pairs=tuple(
                Pair(int(number[pair.first]), int(number[pair.second]), pair.kind)
                for pair in self.pairs
                if number[pair.first] >= 0 and number[pair.second] >= 0
            ),
        )

    def listed(self, dataset: Dataset) -> list[dict[str, Any]]:
        """The groups of two or more images with their kind and reason, the largest first, for
        JSON."""
        differences: dict[int, Counter[str]] = {}
        for pair in self.pairs:
            differences.setdefault(int(self.groups[pair.first]), Counter())[pair.kind] += 1
        found = []
        for rows in sets(self.groups):
            if self.named[rows].any():
                kind = GIVEN
            elif len({*self.copies[rows].tolist()}) == 1:
                kind = COPIES
            else:
                kind = BURST if len({*self.bursts[rows].tolist()}) == 1 else OCCASION
            how = [name for name, _ in differences.get(rows[0], Counter()).most_common()]
            files = [dataset.files[row] for row in rows]
            reason = ", ".join([*REASONS[kind], *how])
            found.append({"kind": kind, "reason": reason, "files": files})
        return found

    def leaks(self, dataset: Dataset) -> list[tuple[int, int, str]]:
        """(row, row of another split, kind) of each image that has a copy, or another image of its
        burst, in a split before its own: a test image that was learnt from is no test."""
        rank = np.array([ORDER.index(split) for split in dataset.splits], np.int64)
        found: dict[int, tuple[int, int, str]] = {}
        for pair in self.pairs:
            first, second = sorted((pair.first, pair.second), key=lambda row: int(rank[row]))
            if rank[first] < rank[second]:
                held = found.get(second)
                if held is None or rank[first] < rank[held[1]]:
                    found[second] = (second, first, pair.kind)
        for first, second, kind in self.across(rank):
            found.setdefault(second, (second, first, kind))
        return [found[row] for row in sorted(found)]

    def across(self, rank: Rows) -> list[tuple[int, int, str]]:
        """Images of one burst, but not copies, in two splits: each with one of the first of
        them."""
        pairs = []
        for rows in sets(self.bursts):
            first = min(rows, key=lambda row: (int(rank[row]), row))
            pairs += [
                (first, row, BURST)
                for row in rows
                if rank[row] > rank[first] and self.copies[row] != self.copies[first]
            ]
        return pairs


def find_groups(
    dataset: Dataset,
    found: Extracted | None,
    how: Groups,
    threads: int,
    progress: Progress,
    among: NDArray[np.bool_] | None = None,
) -> Grouping:
    """The groups of a dataset.

    Args:
        dataset: any; rows that could not be read have no small version, and only their bytes count.
        found: its features and small versions; None where there are none to be looked at.
        how: "auto", all kinds; "given", those of the table and files with the same bytes; "none",
            only the latter.
        threads: cores to use.
        progress: is advanced while copies are looked for.
        among: (N,), the images among which bursts and occasions are looked for; by default all.
    """
    n = len(dataset)
    pairs = same_bytes(dataset)
    if how == "none" or how == "given" or found is None:
        copies = connected(n, pairs)
        given = [] if how == "none" else table(dataset)
        looked_for = (SAME_BYTES, *([GIVEN] if how != "none" else []))
        photos = connected(n, alike(dataset, pairs))
        groups = connected(n, [*pairs, *given])
        named = np.array([bool(group) and how != "none" for group in dataset.groups], bool)
        return Grouping(photos, copies, copies, groups, named, tuple(pairs), looked_for)

    pairs += versions(dataset)
    rows = one_of_each(dataset, np.array([name not in found.bad for name in dataset.files]))
    copies_of = find_copies(
        found.greys[rows], found.features[rows], size_of(dataset, rows), threads, progress
    )
    together: list[Pair] = []
    for (a, b), kind in zip(copies_of.pairs.tolist(), copies_of.kinds, strict=True):
        pair = Pair(int(rows[a]), int(rows[b]), kind)
        (together if kind == SCENE else pairs).append(pair)
    photos = connected(n, alike(dataset, pairs))
    together += linked(np.arange(n), series(times(dataset, rows, threads), dataset.labels), SERIES)
    taken: list[Pair] = []
    looked_for, structured = (SAME_BYTES, GIVEN, COPIES, SERIES), False
    if dataset.task == "multiclass":
        chosen = one_a_photo(photos, rows if among is None else rows[among[rows]])
        again = np.isin(photos[chosen], photos[shot_again([*pairs, *together])])
        occasions = find_occasions(found.features[chosen], dataset.labels[chosen], again, threads)
        together += linked(chosen, occasions.bursts, BURST)
        taken = linked(chosen, occasions.groups, OCCASION)
        looked_for, structured = (*looked_for, BURST, OCCASION), occasions.structured
    bursts = [*pairs, *together]
    return Grouping(
        photos=photos,
        copies=connected(n, pairs),
        bursts=connected(n, bursts),
        groups=connected(n, [*bursts, *taken, *table(dataset)]),
        named=np.array([bool(group) for group in dataset.groups], bool),
        pairs=tuple(pairs),
        looked_for=looked_for,
        structured=structured,
    )


def check_groups(how: object) -> Groups:
    """UsageError unless it is a way to find groups."""
    if how not in GROUPS:
        raise UsageError(f"groups must be {', '.join(GROUPS)}, not {how!r}")
    return how  # type: ignore[return-value]  # `in` does not narrow object to a Literal


def shot_again(pairs: list[Pair]) -> Rows:
    """The rows of the pairs that a camera may have made, and no program: two parts of one scene."""
    versions = {row for pair in pairs if pair.kind == VERSIONS for row in (pair.first, pair.second)}
    rows = {
        row
        for pair in pairs
        if pair.kind in (SCENE, SERIES) or ("cropped" in pair.kind and "mirror" not in pair.kind)
        for row in (pair.first, pair.second)
    }
    return np.array(sorted(rows - versions), np.int64)


def same_bytes(dataset: Dataset) -> list[Pair]:
    """Each later file of an image with the first one."""
    return with_first(dataset.digests, SAME_BYTES)


def versions(dataset: Dataset) -> list[Pair]:
    """The same of the versions of a file that an annotation service makes, known by their names:
    of one class, since each class may have an image 1."""
    keys = []
    for row, name in enumerate(dataset.files):
        original = version_of(name)
        keys.append(f"{dataset.label(row)}/{original}" if original else "")
    return with_first(keys, VERSIONS)


def table(dataset: Dataset) -> list[Pair]:
    """The same of the groups that a table gives."""
    return with_first(dataset.groups, GIVEN)


def with_first(keys: Sequence[str], kind: str) -> list[Pair]:
    """Each row with the first one that has the same key; "" is none."""
    first: dict[str, int] = {}
    return [
        Pair(first[key], row, kind)
        for row, key in enumerate(keys)
        if key and first.setdefault(key, row) != row
    ]


def alike(dataset: Dataset, pairs: list[Pair]) -> list[Pair]:
    """The pairs with one label; of the others each image stays one of its own: they contradict."""
    label = dataset.label
    return [pair for pair in pairs if label(pair.first) == label(pair.second)]


def connected(n: int, pairs: list[Pair]) -> Rows:
    """(n,), the smallest row that each is connected to."""
    ends = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
    return components(n, ends)


def linked(rows: Rows, groups: Rows, kind: str) -> list[Pair]:
    """Pairs of each of the rows with the first one of its group, by number among them."""
    there = np.flatnonzero(groups != np.arange(len(rows)))
    return [Pair(int(rows[groups[i]]), int(rows[i]), kind) for i in there.tolist()]


def one_of_each(dataset: Dataset, readable: NDArray[np.bool_]) -> Rows:
    """One readable row of each image, by its bytes, in the order of the bytes' hashes: what is
    found does not depend on names."""
    rows = np.flatnonzero(readable)
    _, first = np.unique([dataset.digests[row] for row in rows], return_index=True)
    return rows[first]


def by_content(dataset: Dataset, chosen: NDArray[np.bool_]) -> Rows:
    """The rows that are chosen, in the order of their bytes' hashes and then of their labels."""
    rows = np.flatnonzero(chosen).tolist()
    return np.array(sorted(rows, key=lambda row: (dataset.digests[row], dataset.label(row))))


def one_a_photo(photos: Rows, rows: Rows) -> Rows:
    """The first of the rows of each photo."""
    _, first = np.unique(photos[rows], return_index=True)
    return rows[np.sort(first)]


def times(dataset: Dataset, rows: Rows, threads: int) -> NDArray[np.float64]:
    """(N,), when the images of these rows were taken, in seconds; nan where nothing says so."""
    found = np.full(len(dataset), np.nan)

    def read(row: int) -> float | None:
        try:
            return taken_at(dataset.read(row))
        except ImageError:  # gone since; its pixels are known
            return None

    with ThreadPoolExecutor(threads) as pool:
        found[rows] = [np.nan if t is None else t for t in pool.map(read, rows.tolist())]
    return found


def size_of(dataset: Dataset, rows: Rows) -> Callable[[int], tuple[int, int]]:
    """Width and height of an image, by its number among the rows; it is decoded."""

    def size(i: int) -> tuple[int, int]:
        row = int(rows[i])
        return load_image(dataset.read(row), dataset.files[row]).size

    return size


def sets(groups: Rows) -> list[list[int]]:
    """The rows of each group of two or more, the largest first."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    parts = [part.tolist() for part in np.split(order, starts[1:]) if len(part) > 1]
    return sorted(parts, key=lambda rows: (-len(rows), rows))
