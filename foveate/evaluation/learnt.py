"""Which of the images that a classifier is judged on its run learnt from, or are copies of such;
and which of them belong together."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate import metrics
from foveate.audit.groups import SAME_BYTES, Groups, find_groups
from foveate.audit.inspection import copies_of_learnt, look_at
from foveate.classifier import Classifier
from foveate.data.dataset import Dataset
from foveate.data.levels import find_levels
from foveate.errors import ImageError
from foveate.progress import Progress, bars
from foveate.runs import HEX, read_seen, settings_of
from foveate.weights.starting_point import EMBEDDED, find_start

T = TypeVar("T")

GONE = (
    "copies of {} of the images that it learnt from are known byte for byte only: the cache has "
    "nothing of them"
)


def collected(
    each: Iterable[tuple[int, T | ImageError]], dataset: Dataset, progress: Progress | None
) -> tuple[list[int], list[T], dict[str, str]]:
    """The rows of a dataset whose images could be read, what came of each, and name and reason of
    the others."""
    rows: list[int] = []
    found: list[T] = []
    bad: dict[str, str] = {}
    with bars(progress) as shown:
        shown.begin("images", len(dataset))
        for row, outcome in each:
            shown.advance()
            if isinstance(outcome, ImageError):
                bad[dataset.files[row]] = str(outcome)
            else:
                rows.append(row)
                found.append(outcome)
    return rows, found, bad


def groups_among(
    classifier: Classifier, dataset: Dataset, how: Groups, progress: Progress
) -> NDArray[np.int64]:
    """(N,), the group of each image: the table's, copies, bursts and occasions, where the images of
    a class are those that its labels say.

    Args:
        dataset: of readable images.
        how: as for `find_groups`.
    """
    found = None
    if how == "auto" and dataset.pixels is None:  # images of built-in sets are single ones
        start, levels = find_start(EMBEDDED), classifier.preprocess.levels
        found = look_at(dataset, start, levels, classifier.threads, progress)
    return find_groups(dataset, found, how, classifier.threads, progress).groups


def listed_copies(copies: dict[str, tuple[str, str]]) -> list[dict[str, str]]:
    """Those that differ in their bytes from what was learnt from, for JSON."""
    return [
        {"file": file, "of": of, "kind": kind}
        for file, (of, kind) in copies.items()
        if kind != SAME_BYTES
    ]


def find_learnt(
    classifier: Classifier, dataset: Dataset, progress: Progress
) -> tuple[dict[str, tuple[str, str]], int]:
    """The images that the classifier's run learnt from, or copies of them: of which image, and how
    it differs; and how many of those that it learnt from are compared byte for byte only."""
    seen = read_seen(classifier.run)
    found = {
        dataset.files[row]: (seen.learnt[digest[:HEX]], SAME_BYTES)
        for row, digest in enumerate(dataset.digests)
        if digest[:HEX] in seen.learnt
    }
    new = np.array(
        [
            row
            for row, digest in enumerate(dataset.digests)
            if digest[:HEX] not in seen.learnt and digest[:HEX] not in seen.judged
        ],
        np.int64,
    )
    looked = settings_of(classifier.run).get("groups") == "auto" if seen.learnt else False
    if not looked or not len(new) or dataset.pixels is not None:
        return found, 0
    start, levels = find_start(EMBEDDED), classifier.preprocess.levels
    copies, gone = copies_of_learnt(
        dataset.select(new), seen.learnt, start, levels, classifier.threads, progress
    )
    for row, of, kind in copies:
        found[dataset.files[new[row]]] = (of, kind)
    return found, gone


def no_test(classifier: Classifier, learnt: NDArray[np.bool_]) -> str:
    """Why the accuracy on images that were learnt from is none, and which one there is."""
    n, of = int(learnt.sum()), len(learnt)
    if n < of:
        return f"{n} of {of} images, or their copies, are among those it learnt from: no test of it"
    why = "it learnt from all of these images, or copies of them, so they are no test of it"
    for split in ("test", "out_of_fold", "validation"):
        figures = classifier.metrics.get(split)
        if figures is not None and (found := metrics.believed(figures)) is not None:
            honest = f"{found['accuracy']:.1%} on {found['n']} that it had not seen"
            return f"{why}; its run measured {honest} ({split.replace('_', ' ')})"
    return why


def depth_notes(classifier: Classifier, dataset: Dataset) -> list[str]:
    """A sentence if images use few of their 16 bits, and the training images were not like that."""
    if classifier.preprocess.levels is not None:
        return []
    found = find_levels(dataset, np.arange(len(dataset)), classifier.threads).levels
    if found is None:
        return []
    return [
        f"images with more than 8 bits a channel have values from {found[0]:g} to {found[1]:g}; "
        "the run's training images gave no levels for such: of 16 bits the high byte is read, as "
        "if 65535 were white"
    ]
