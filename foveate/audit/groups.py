"""Groups of images that belong together, found by themselves: copies, bursts, occasions; and those
that a table gives. Folds and splits keep them whole, so that what is judged is new.

    same bytes, versions of one file by their names, copies    one photo: it counts once
    the same scene, seconds apart, bursts, occasions           one group: on one side of a fold

Groups of any kind that share an image are one group. Those that a table gives are never split.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.audit.copies import SCENE
from foveate.audit.known_copies import known_copies
from foveate.audit.names import version_of
from foveate.audit.neighbours import Rows, components
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
OTHER_NAME = "another copy"  # of a leak whose copies are only connected by others
REASONS = {  # of the links of a group, for people
    GIVEN: "named by the table",
    SERIES: "seconds apart by EXIF",
    BURST: "more alike than independent images",
    OCCASION: "light, place or thing as on one occasion",
}
ORDER = ("train", "validation", "test")  # a copy is called one of the first of these


@dataclass(frozen=True)
class Pair:
    """Two images that belong together; `kind` says why, or how two copies differ."""

    first: int
    second: int
    kind: str

    def to_dict(self, dataset: Dataset) -> dict[str, Any]:
        """For JSON."""
        rows = self.first, self.second
        return {
            "files": [dataset.files[row] for row in rows],
            "labels": [dataset.label(row) for row in rows],
            "kind": self.kind,
        }


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
        pairs: of copies.
        links: the other pairs, which make bursts and groups.
        looked_for: the kinds that were looked for.
    """

    photos: Rows
    copies: Rows
    bursts: Rows
    groups: Rows
    pairs: tuple[Pair, ...]
    links: tuple[Pair, ...]
    looked_for: tuple[str, ...]

    def among(self, rows: Rows, n: int) -> "Grouping":
        """The same in a dataset of `n` images, of which those looked at are these rows."""

        def there(groups: Rows) -> Rows:
            wider = np.arange(n)
            wider[rows] = rows[groups]
            return wider

        def moved(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
            return tuple(Pair(int(rows[p.first]), int(rows[p.second]), p.kind) for p in pairs)

        return Grouping(
            photos=there(self.photos),
            copies=there(self.copies),
            bursts=there(self.bursts),
            groups=there(self.groups),
            pairs=moved(self.pairs),
            links=moved(self.links),
            looked_for=self.looked_for,
        )

    def select(self, dataset: Dataset, rows: Rows) -> "Grouping":
        """The same among some of its images: `dataset` has these rows, in this order."""
        place = {row: i for i, row in enumerate(rows.tolist())}

        def there(pairs: tuple[Pair, ...]) -> list[Pair]:
            return [
                Pair(place[pair.first], place[pair.second], pair.kind)
                for pair in pairs
                if pair.first in place and pair.second in place
            ]

        return grouping_of(dataset, there(self.pairs), there(self.links), self.looked_for)

    def applied(self, dataset: Dataset) -> Dataset:
        """The dataset with these groups, by number, in place of its own."""
        several = np.bincount(self.groups, minlength=len(dataset))[self.groups] > 1
        names = [
            str(group) if there else ""
            for group, there in zip(self.groups.tolist(), several.tolist(), strict=True)
        ]
        return dataset.regroup(tuple(names))

    def listed(self, dataset: Dataset) -> list[dict[str, Any]]:
        """The groups of two or more images with their kind and reason, the largest first, for
        JSON."""
        kinds: dict[int, Counter[str]] = {}
        for pair in (*self.pairs, *self.links):
            kinds.setdefault(int(self.groups[pair.first]), Counter())[pair.kind] += 1
        found = []
        for rows in sets(self.groups):
            here = kinds[rows[0]]
            if GIVEN in here:
                kind = GIVEN
            elif len({*self.copies[rows].tolist()}) == 1:
                kind = COPIES
            else:
                kind = BURST if len({*self.bursts[rows].tolist()}) == 1 else OCCASION
            reason = ", ".join(REASONS.get(name, name) for name, _ in here.most_common())
            files = [dataset.files[row] for row in rows]
            found.append({"kind": kind, "reason": reason, "files": files})
        return found

    def linked(self) -> dict[str, list[list[Any]]]:
        """All that makes the groups, for JSON; `from_links` reads it."""
        return {
            name: [[pair.first, pair.second, pair.kind] for pair in pairs]
            for name, pairs in (("copies", self.pairs), ("others", self.links))
        }

    def contradictions(self, dataset: Dataset) -> list[Pair]:
        """The pairs of copies whose labels differ."""
        label = dataset.label
        return [pair for pair in self.pairs if label(pair.first) != label(pair.second)]

    def leaks(self, dataset: Dataset) -> list[tuple[int, int, str]]:
        """(row, row of another split, kind) of each image that has a copy, another image of its
        burst, or one of the group that a table gives it, in a split before its own: a test image
        that was learnt from is no test."""
        rank = np.array([ORDER.index(split) for split in dataset.splits], np.int64)
        direct = {frozenset((pair.first, pair.second)): pair.kind for pair in self.pairs}
        given = connected(len(dataset), [link for link in self.links if link.kind == GIVEN])
        found: dict[int, tuple[int, int, str]] = {}
        for groups, kind in ((self.copies, OTHER_NAME), (self.bursts, BURST), (given, GIVEN)):
            for rows in sets(groups):
                first = int(rank[rows].min())
                learnt = [row for row in rows if rank[row] == first]
                for row in rows:
                    if rank[row] == first or row in found:
                        continue
                    partner = next((r for r in learnt if frozenset((r, row)) in direct), learnt[0])
                    how = direct.get(frozenset((partner, row)), kind)
                    found[row] = (row, partner, how)
        return [found[row] for row in sorted(found)]


def find_groups(
    dataset: Dataset,
    found: Extracted | None,
    how: Groups,
    threads: int,
    progress: Progress,
) -> Grouping:
    """The groups of a dataset whose images can all be read. Bursts and occasions are looked for in
    what is learnt from: a test must not decide what is learnt.

    Args:
        dataset: any.
        found: its features and small versions; None where there are none to be looked at.
        how: "auto", all kinds; "given", those of the table and files with the same bytes; "none",
            only the latter.
        threads: cores to use.
        progress: is advanced while copies are looked for.
    """
    n = len(dataset)
    pairs = with_first(dataset.digests, SAME_BYTES)
    given = [] if how == "none" else table(dataset)
    looked_for = (SAME_BYTES,) if how == "none" else (SAME_BYTES, GIVEN)
    if how != "auto" or found is None:
        return grouping_of(dataset, pairs, given, looked_for)

    pairs += versions(dataset)
    learn = np.array([split != "test" for split in dataset.splits], bool)
    rows = one_of_each(dataset, learn)
    alike = known_copies(
        found.greys[rows],
        found.features[rows],
        [dataset.digests[row] for row in rows.tolist()],
        size_of(dataset, rows),
        threads,
        progress,
    )
    links: list[Pair] = []
    for a, b, kind in alike:
        pair = Pair(int(rows[a]), int(rows[b]), kind)
        (links if kind == SCENE else pairs).append(pair)
    copies = connected(n, pairs)
    photos = one_label(dataset, copies)
    links += linked(np.arange(n), series(times(dataset, rows, threads), dataset.labels), SERIES)
    looked_for = (*looked_for, COPIES, SERIES)
    taken: list[Pair] = []
    if dataset.task == "multiclass":
        chosen = one_a_photo(photos, rows[learn[rows]])
        again = np.isin(photos[chosen], photos[shot_again(pairs)])
        together = first_of_each(connected(n, [*pairs, *links])[chosen])
        labels = dataset.labels[chosen]
        occasions = find_occasions(found.features[chosen], labels, again, together, threads)
        links += linked(chosen, occasions.bursts, BURST)
        if occasions.structured:
            taken = linked(chosen, occasions.groups, OCCASION)
        looked_for = (*looked_for, BURST, OCCASION)
    return grouping_of(dataset, pairs, [*links, *taken, *given], looked_for)


def grouping_of(
    dataset: Dataset, pairs: list[Pair], links: list[Pair], looked_for: tuple[str, ...]
) -> Grouping:
    """The groups that pairs of copies and other links make."""
    n, copies = len(dataset), connected(len(dataset), pairs)
    of_bursts = [link for link in links if link.kind not in (OCCASION, GIVEN)]
    return Grouping(
        photos=one_label(dataset, copies),
        copies=copies,
        bursts=connected(n, [*pairs, *of_bursts]),
        groups=connected(n, [*pairs, *links]),
        pairs=tuple(pairs),
        links=tuple(links),
        looked_for=looked_for,
    )


def from_links(
    dataset: Dataset, links: dict[str, list[list[Any]]], looked_for: tuple[str, ...]
) -> Grouping:
    """The groups of a run, from what `Grouping.linked` left."""
    copies, others = (
        [Pair(int(first), int(second), str(kind)) for first, second, kind in links[name]]
        for name in ("copies", "others")
    )
    return grouping_of(dataset, copies, others, looked_for)


def check_groups(how: object) -> Groups:
    """UsageError unless it is a way to find groups."""
    if how not in GROUPS:
        raise UsageError(f"groups must be {', '.join(GROUPS)}, not {how!r}")
    return how  # type: ignore[return-value]  # `in` does not narrow object to a Literal


def shot_again(pairs: list[Pair]) -> Rows:
    """The rows of those copies that a camera may have made, and no program: a part of another
    image, not mirrored."""
    versions = {row for pair in pairs if pair.kind == VERSIONS for row in (pair.first, pair.second)}
    rows = {
        row
        for pair in pairs
        if "cropped" in pair.kind and "mirrored" not in pair.kind
        for row in (pair.first, pair.second)
    }
    return np.array(sorted(rows - versions), np.int64)


def versions(dataset: Dataset) -> list[Pair]:
    """Each later version of a file that an annotation service made, with the first one; known by
    their names, of one class, since each class may have an image 1."""
    keys = []
    for row, name in enumerate(dataset.files):
        original = version_of(name)
        keys.append(f"{dataset.label(row)}/{original}" if original else "")
    return with_first(keys, VERSIONS)


def table(dataset: Dataset) -> list[Pair]:
    """Each later image of a group that a table gives, with the first one."""
    return with_first(dataset.groups, GIVEN)


def with_first(keys: Sequence[str], kind: str) -> list[Pair]:
    """Each row with the first one that has the same key; "" is none."""
    first: dict[str, int] = {}
    return [
        Pair(first[key], row, kind)
        for row, key in enumerate(keys)
        if key and first.setdefault(key, row) != row
    ]


def one_label(dataset: Dataset, copies: Rows) -> Rows:
    """(N,), the smallest row of the images that show one photo and have one label. Those with
    different labels contradict one another, and stay two."""
    keys = [f"{group} {dataset.label(row)}" for row, group in enumerate(copies.tolist())]
    return connected(len(dataset), with_first(keys, COPIES))


def first_of_each(groups: Rows) -> Rows:
    """(n,), where the first image of each one's group is, by numbers that are not rows."""
    _, first, which = np.unique(groups, return_index=True, return_inverse=True)
    return first[which]


def connected(n: int, pairs: list[Pair]) -> Rows:
    """(n,), the smallest row that each is connected to."""
    ends = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
    return components(n, ends)


def linked(rows: Rows, groups: Rows, kind: str) -> list[Pair]:
    """Pairs of each of the rows with the first one of its group, by number among them."""
    there = np.flatnonzero(groups != np.arange(len(rows)))
    return [Pair(int(rows[groups[i]]), int(rows[i]), kind) for i in there.tolist()]


def one_of_each(dataset: Dataset, learn: NDArray[np.bool_]) -> Rows:
    """One row of each image, by its bytes, in the order of the bytes' hashes: what is found does
    not depend on names. Of several, one that is learnt from."""
    rows = np.argsort(~learn, kind="stable")
    _, first = np.unique([dataset.digests[row] for row in rows.tolist()], return_index=True)
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
