"""What is wrong with a data set before anything learns from it: copies, leaks, contradictions, and
how many photos there really are."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.groups import Grouping, Pair, find_groups, sets
from foveate.data.dataset import Dataset
from foveate.data.levels import find_levels
from foveate.features import Extracted, extract, shown
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars
from foveate.weights.starting_point import StartingPoint


@dataclass(frozen=True)
class Audit:
    """What `inspect` found; rows are the dataset's.

    Args:
        dataset: the images that could be read.
        grouping: its copies, bursts and occasions.
        features: (N, width), by which images were compared.
        bad: name and reason of each unreadable image.
    """

    dataset: Dataset
    grouping: Grouping
    features: NDArray[np.float32]
    bad: dict[str, str]

    def copied(self) -> list[list[int]]:
        """The sets of images that show one photo, the largest first."""
        return sets(self.grouping.copies)

    def leaks(self) -> list[tuple[int, int, str]]:
        """As `Grouping.leaks`."""
        return self.grouping.leaks(self.dataset)

    def contradictions(self) -> list[Pair]:
        """The pairs of copies whose labels differ."""
        label = self.dataset.label
        return [pair for pair in self.grouping.pairs if label(pair.first) != label(pair.second)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        files, splits = self.dataset.files, self.dataset.splits
        return {
            "groups": self.grouping.listed(self.dataset),
            "looked_for": list(self.grouping.looked_for),
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
            "classes": self.classes(),
            "bad": self.bad,
        }

    def classes(self) -> dict[str, dict[str, int]]:
        """Of each class, what there is to learn from: images, photos and groups. One of a single
        group cannot be judged."""
        learn = np.array([split != "test" for split in self.dataset.splits], bool)
        found = {}
        for c, name in enumerate(self.dataset.classes):
            rows = np.flatnonzero(self.dataset.having(c) & learn)
            found[name] = {
                "images": len(rows),
                "photos": len(np.unique(self.grouping.photos[rows])),
                "groups": len(np.unique(self.grouping.groups[rows])),
            }
        return found


def inspect(
    dataset: Dataset,
    start: StartingPoint,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Find the copies in a data set, within and across its splits, and the bursts and occasions in
    what there is to learn from: the same groups that a probe has.

    Args:
        dataset: any.
        start: the network whose features say which images are alike.
        threads: cores to use; all by default.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.

    Raises:
        ImageError: a file does not come within `workers.LIMIT`.
        FoveateError: the network's weights cannot be had; the cache cannot be written.
    """
    n = cores_to_use(threads)
    with bars(progress) as shown_to:
        found = look(dataset, start, n, shown_to)
        good = np.flatnonzero([name not in found.bad for name in dataset.files])
        dataset, seen = dataset.select(good), found.select(good)
        grouping = find_groups(dataset, seen, "auto", n, shown_to)
    return Audit(dataset, grouping, seen.features, dict(found.bad))


def look(dataset: Dataset, start: StartingPoint, threads: int, progress: Progress) -> Extracted:
    """The features and small versions of all images, as a probe of this network would have them."""
    if not start.is_here:
        start.fetch(progress)
    learnt = np.flatnonzero([split != "test" for split in dataset.splits])
    levels = find_levels(dataset, learnt, threads).levels
    preprocess = replace(shown(start.preprocess), levels=levels)
    return extract(dataset, start, preprocess, False, "auto", threads, progress)
