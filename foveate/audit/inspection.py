"""What is wrong with a data set before anything learns from it: copies, leaks, contradictions, bad
images, and how many photos there really are."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.groups import Grouping, Pair, find_groups, sets
from foveate.audit.known_copies import known_copies
from foveate.audit.quality import Faults, find_faults, measure_images
from foveate.data.dataset import Dataset
from foveate.data.image import Levels
from foveate.data.levels import find_levels
from foveate.features import Extracted, Known, extract, shown, still_known
from foveate.machine import cores_to_use
from foveate.progress import Progress, bars
from foveate.weights.starting_point import EMBEDDED, StartingPoint, find_start


@dataclass(frozen=True)
class Audit:
    """What `inspect` found; rows are the dataset's.

    Args:
        dataset: the images that could be read.
        grouping: its copies, bursts and occasions.
        features: (N, width), by which images were compared.
        bad: name and reason of each unreadable image.
        faults: the images that are blurred, dark and so on, by kind.
    """

    dataset: Dataset
    grouping: Grouping
    features: NDArray[np.float32]
    bad: dict[str, str]
    faults: tuple[Faults, ...] = ()

    def copied(self) -> list[list[int]]:
        """The sets of images that show one photo, the largest first."""
        return sets(self.grouping.copies)

    def leaks(self) -> list[tuple[int, int, str]]:
        """As `Grouping.leaks`."""
        return self.grouping.leaks(self.dataset)

    def contradictions(self) -> list[Pair]:
        """The pairs of copies whose labels differ."""
        return self.grouping.contradictions(self.dataset)

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
            "contradictions": [pair.to_dict(self.dataset) for pair in self.contradictions()],
            "classes": self.classes(),
            "images": [one for kind in self.faults for one in kind.to_dict(self.dataset)],
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
    what there is to learn from, the same groups that a probe has; and the images that are likely
    faults.

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
        learnt = np.flatnonzero([split != "test" for split in dataset.splits])
        levels = find_levels(dataset, learnt, n).levels
        found = look_at(dataset, start, levels, n, shown_to)
        good = np.flatnonzero([name not in found.bad for name in dataset.files])
        dataset, seen = dataset.select(good), found.select(good)
        grouping = find_groups(dataset, seen, "auto", n, shown_to)
        faults = find_faults(measure_images(dataset, levels, n, shown_to))
    return Audit(dataset, grouping, seen.features, dict(found.bad), tuple(faults))


def find_groups_alike(dataset: Dataset, threads: int, progress: Progress) -> Grouping:
    """The groups of a dataset, by the features of the embedded network, whichever is to be trained:
    where they decide splits, or folds that several networks share, they must not depend on the
    network. An image that cannot be read has none."""
    if dataset.pixels is not None:  # built-in sets have no groups
        return find_groups(dataset, None, "auto", threads, progress)
    found = look(dataset, find_start(EMBEDDED), threads, progress)
    good = np.flatnonzero([name not in found.bad for name in dataset.files])
    read = dataset.select(good)
    grouping = find_groups(read, found.select(good), "auto", threads, progress)
    return grouping.among(good, len(dataset))


def look(dataset: Dataset, start: StartingPoint, threads: int, progress: Progress) -> Extracted:
    """The features and small versions of all images, as a probe of this network would have them."""
    learnt = np.flatnonzero([split != "test" for split in dataset.splits])
    return look_at(dataset, start, find_levels(dataset, learnt, threads).levels, threads, progress)


def look_at(
    dataset: Dataset, start: StartingPoint, levels: Levels | None, threads: int, progress: Progress
) -> Extracted:
    """The same with the levels of images of more than 8 bits."""
    if not start.is_here:
        start.fetch(progress)
    preprocess = replace(shown(start.preprocess), levels=levels)
    return extract(dataset, start, preprocess, False, "auto", threads, progress)


def copies_of_learnt(
    dataset: Dataset,
    learnt: dict[str, str],
    start: StartingPoint,
    levels: Levels | None,
    threads: int,
    progress: Progress,
) -> tuple[list[tuple[int, str, str]], int]:
    """The images that are copies or other shots of those that a run learnt from, of which only
    digests are left: they are compared with what the cache still has of them.

    Args:
        dataset: readable images that the run did not learn from.
        learnt: the name of each image that it learnt from, by the first digits of its digest.
        start: the network whose features say which images are alike.
        levels: of the run, for images of more than 8 bits.

    Returns:
        (row, name of what it is a copy of, kind) of each; and how many of those that were learnt
        from are no longer known.
    """
    preprocess = replace(shown(start.preprocess), levels=levels)
    digits = len(next(iter(learnt), ""))
    known = still_known(set(learnt), digits, start, preprocess, threads)
    gone = len(learnt) - len(known)
    if not known:
        return [], gone
    own = look_at(dataset, start, levels, threads, progress)
    names = sorted(known)
    pairs = known_copies(
        np.concatenate([np.stack([grey_of(known[name]) for name in names]), own.greys]),
        np.concatenate([np.stack([known[name].features for name in names]), own.features]),
        [*names, *dataset.digests],
        None,
        threads,
        progress,
    )
    there = len(names)
    found: dict[int, tuple[int, str, str]] = {}
    for a, b, kind in pairs:
        if a < there <= b:
            found.setdefault(b, (b - there, learnt[names[a]], kind))
    return [found[row] for row in sorted(found)], gone


def grey_of(known: Known) -> NDArray[np.uint8]:
    assert known.grey is not None  # of the first view
    return known.grey
