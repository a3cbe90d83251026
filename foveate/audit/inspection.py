"""Copies in a data set: in two splits, with two labels, and how many photos there really are."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.copies import SCENE, SIDE, components, find_copies, grey
from foveate.data.dataset import Dataset
from foveate.data.image import Levels, load_image
from foveate.data.levels import find_levels
from foveate.data.preprocess import Preprocess
from foveate.data.workers import decode_ahead
from foveate.errors import ImageError
from foveate.features import extract, shown
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars
from foveate.weights.starting_point import StartingPoint

SAME_BYTES = "same bytes"
ORDER = ("train", "validation", "test")  # a copy is called one of the first of these


@dataclass(frozen=True)
class Pair:
    """Two files that show the same photo; `kind` says how they differ."""

    first: int
    second: int
    kind: str


@dataclass(frozen=True)
class Audit:
    """What `inspect` found; rows are the dataset's.

    Args:
        dataset: what was looked at.
        pairs: of copies.
        groups: (N,), the smallest row among the images that pairs connect.
        bad: name and reason of each unreadable image.
    """

    dataset: Dataset
    pairs: tuple[Pair, ...]
    groups: NDArray[np.int64]
    bad: dict[str, str]

    def sets(self) -> list[list[int]]:
        """The groups of two or more images, the largest first."""
        order = np.argsort(self.groups, kind="stable")
        starts = np.flatnonzero(np.diff(self.groups[order], prepend=-1))
        parts = [part.tolist() for part in np.split(order, starts[1:]) if len(part) > 1]
        return sorted(parts, key=lambda rows: (-len(rows), rows))

    def leaks(self) -> list[tuple[int, int, str]]:
        """(row, row of another split, kind) of each image that has a copy in a split before its
        own: a test image that was learnt from is no test."""
        rank = [ORDER.index(split) for split in self.dataset.splits]
        found: dict[int, tuple[int, int, str]] = {}
        for pair in self.pairs:
            first, second = sorted((pair.first, pair.second), key=lambda row: rank[row])
            if rank[first] < rank[second]:
                held = found.get(second)
                if held is None or rank[first] < rank[held[1]]:
                    found[second] = (second, first, pair.kind)
        return [found[row] for row in sorted(found)]

    def contradictions(self) -> list[Pair]:
        """The pairs of copies whose labels differ."""
        label = self.dataset.label
        return [pair for pair in self.pairs if label(pair.first) != label(pair.second)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        files, splits = self.dataset.files, self.dataset.splits
        kinds: dict[int, Counter[str]] = {}
        for pair in self.pairs:
            kinds.setdefault(int(self.groups[pair.first]), Counter())[pair.kind] += 1
        return {
            "groups": [
                {
                    "kind": "copies",
                    "reason": ", ".join(kind for kind, _ in kinds[rows[0]].most_common()),
                    "files": [files[row] for row in rows],
                }
                for rows in self.sets()
            ],
            "leaks": [
                {
                    "file": files[row],
                    "split": splits[row],
                    "of": files[of],
                    "of_split": splits[of],
                    "kind": kind,
                }
                for row, of, kind in self.leaks()
            ],
            "contradictions": [
                {
                    "files": [files[pair.first], files[pair.second]],
                    "labels": [
                        self.dataset.label(pair.first),
                        self.dataset.label(pair.second),
                    ],
                    "kind": pair.kind,
                }
                for pair in self.contradictions()
            ],
            "bad": self.bad,
        }


def inspect(
    dataset: Dataset,
    start: StartingPoint,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Find the copies in a data set, within and across its classes and splits.

    Args:
        dataset: any.
        start: the network whose features say which images may be copies.
        threads: cores to use; all by default.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.

    Raises:
        ImageError: a file does not come within `workers.LIMIT`, or is changed meanwhile.
        FoveateError: the network's weights cannot be had; the cache cannot be written.
    """
    n = cores_to_use(threads)
    with bars(progress) as shown_to:
        if not start.is_here:
            start.fetch(shown_to)
        levels = find_levels(dataset, np.arange(len(dataset)), n).levels
        preprocess = replace(shown(start.preprocess), levels=levels)
        found = extract(dataset, start, preprocess, False, "auto", n, shown_to)
        rows = np.array(
            [row for row, name in enumerate(dataset.files) if name not in found.bad], np.int64
        )
        # one of each image: find_copies is for what bytes do not tell
        _, first = np.unique([dataset.digests[row] for row in rows], return_index=True)
        rows = rows[np.sort(first)]
        greys, sizes = small_versions(dataset, rows, levels, n, shown_to)
        copies = find_copies(greys, found.features[rows], sizes, n, shown_to)
    pairs = [
        Pair(int(rows[a]), int(rows[b]), kind)
        for (a, b), kind in zip(copies.pairs, copies.kinds, strict=True)
        if kind != SCENE
    ]
    pairs += same_bytes(dataset)
    joined = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
    return Audit(dataset, tuple(pairs), components(len(dataset), joined), dict(found.bad))


def small_versions(
    dataset: Dataset,
    rows: NDArray[np.int64],
    levels: Levels | None,
    threads: int,
    progress: Progress,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What `find_copies` compares, (rows, SIDE, SIDE), and each image's width and height."""
    sizes: dict[int, tuple[int, int]] = {}

    def decode(row: int) -> NDArray[np.uint8]:
        image = load_image(dataset.read(row), dataset.files[row], levels=levels)
        sizes[row] = image.size
        return grey(image)

    progress.begin("small versions", len(rows))
    greys = []
    name = dataset.files.__getitem__
    for _, pixels in decode_ahead(rows.tolist(), decode, name, Preprocess(SIDE, SIDE), threads):
        progress.advance()
        if isinstance(pixels, ImageError):  # read before, and gone since
            raise pixels
        greys.append(pixels)
    shapes = np.array([sizes[row] for row in rows.tolist()], np.int64).reshape(-1, 2)
    return np.stack(greys) if greys else np.zeros((0, SIDE, SIDE), np.uint8), shapes


def same_bytes(dataset: Dataset) -> list[Pair]:
    """Each later file of an image with the first one."""
    first: dict[str, int] = {}
    return [
        Pair(first[digest], row, SAME_BYTES)
        for row, digest in enumerate(dataset.digests)
        if digest and first.setdefault(digest, row) != row
    ]
