"""Other framings and other backbones, tried on a sample of the photos beside what the run sees.

The sample's heads learn from few images, so what is compared is by how much the log-loss falls, as
a part of it: that part of the run's errors is what they are expected to fall by.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foveate.advice.gain import Gain
from foveate.data.dataset import Dataset, evenly_spaced
from foveate.data.preprocess import Preprocess
from foveate.data.splits import judging_folds
from foveate.errors import DataError, quoted
from foveate.features import shown
from foveate.heads import fit_head
from foveate.progress import Progress, Silent
from foveate.recomputation.features import Again
from foveate.training.framing import ViewExtractor, least_losses, seen_as
from foveate.weights import WEIGHTS
from foveate.weights.starting_point import StartingPoint, find_start

SAMPLE = 600  # photos
SEEN = {
    "whole": "the whole of each image",
    "2/3": "the middle 2/3 of each image",
    "whole+2/3": "each image whole, and its middle 2/3",
}
RESAMPLES = 400

Rows = NDArray[np.int64]
# a part of the log-loss is not the same part of the errors, and that of a sample not that of all:
# by how much of the part they differ (benchmarks/advice.py)
OTHER = 0.5


@dataclass(frozen=True)
class Trial:
    """One other way.

    Args:
        name: of it.
        what: in words.
        options: of `foveate train`.
        gain: expected, of accuracy.
        seconds_an_image: that it takes here; None where the cache had the features.
        photos: on which it was tried.
    """

    name: str
    what: str
    options: str
    gain: Gain
    seconds_an_image: float | None
    photos: int


def try_others(again: Again, dataset: Dataset, threads: int, progress: Progress) -> Iterator[Trial]:
    """Framings that are not the run's, and backbones whose weights are here.

    Args:
        again: the run, whose first backbone and framing are compared with.
        dataset: its images.

    Raises:
        DataError: the images are not those of the run.
    """
    branch = again.learnt.choice.branches[0]
    places, photos = sampled(again), matched(again, dataset)
    sample = dataset.select(photos[again.judging.rows[places]])
    labels, groups = again.dataset.labels[again.judging.rows[places]], again.judging.groups[places]
    folds = judging_folds(labels, groups, 0)
    if (folds < 0).all():
        return
    accuracy = again.learnt.splits["out_of_fold"]["accuracy"]

    def losses(
        start: StartingPoint, preprocess: Preprocess
    ) -> tuple[NDArray[np.float64], float | None]:
        mirror, engine = branch.mirror, again.config.engine
        extractor = ViewExtractor(sample, start, preprocess, mirror, engine, threads, Silent())
        begun = time.perf_counter()
        found = extractor.extract(sample, preprocess)
        seconds = (time.perf_counter() - begun) / len(sample)
        if found.bad:
            raise DataError(next(iter(found.bad.values())))
        head = fit_head(found.features, labels, folds, len(sample.classes), threads)
        return least_losses(head), seconds if found.computed == len(sample) else None

    ways = list(other_ways(again, branch.start, branch.preprocess))
    progress.begin("other ways", len(ways) + 1)
    before, _ = losses(branch.start, branch.preprocess)
    progress.advance()
    for name, what, options, start, preprocess in ways:
        found, seconds = losses(start, preprocess)
        progress.advance()
        gain = gain_of(before, found, groups[folds >= 0], 1 - accuracy)
        yield Trial(name, what, options, gain, seconds, len(sample))


Way = tuple[str, str, str, StartingPoint, Preprocess]


def other_ways(again: Again, start: StartingPoint, seen: Preprocess) -> Iterator[Way]:
    """Each one's name, words and options, the backbone, and how it sees an image."""
    if len(again.learnt.choice.branches) > 1:
        return
    for name in SEEN if seen.fit == "crop" else ():
        if name != seen.framing:
            preprocess = again.wholes[0].framed(name)
            options = f"--framing {name}"
            yield f"framing {name}", f"see {SEEN[name]}", options, start, preprocess
    for name in sorted(WEIGHTS):
        other = find_start(name)
        if name == start.name or not other.is_here or not larger(name, start.name):
            continue
        whole = replace(shown(other.preprocess), levels=seen.levels)
        preprocess = seen_as(whole, seen.framing if seen.fit == "crop" else seen.fit)
        what = f"{name} as the backbone, at {whole.crop} pixels"
        yield f"backbone {name}", what, f"--model {name}", other, preprocess


def larger(name: str, than: str) -> bool:
    """Whether its weights are better at what they were trained for."""
    ours, theirs = (WEIGHTS.get(one) for one in (name, than))
    return ours is None or theirs is None or ours.accuracy > theirs.accuracy


def sampled(again: Again) -> Rows:
    """Places, among the photos that are judged, of a few of each class."""
    judged = np.flatnonzero(again.judging.folds >= 0)
    labels = again.dataset.labels[again.judging.rows[judged]]
    return np.sort(evenly_spaced(judged[np.argsort(labels, kind="stable")], SAMPLE))


def matched(again: Again, dataset: Dataset) -> Rows:
    """The row of `dataset` of each image of the run, by its name."""
    place = {file: row for row, file in enumerate(dataset.files)}
    lacking = [file for file in again.dataset.files if file not in place]
    if lacking:
        raise DataError(
            f"{len(lacking)} images of the run are not among these, such as {quoted(lacking[0])}: "
            "name the images that it was trained on"
        )
    return np.array([place[file] for file in again.dataset.files])


def gain_of(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: Rows, errors: float
) -> Gain:
    """What is expected of the errors, by the log-losses of the same photos."""
    _, group = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(group, losses) for losses in (before, after)])
    rng = np.random.default_rng(0)
    drawn = sums[:, rng.integers(sums.shape[1], size=(RESAMPLES, sums.shape[1]))].sum(axis=2)
    part = 1 - after.mean() / before.mean()
    error = float((1 - drawn[1] / drawn[0]).std())
    return Gain(errors * part, max(errors * float(np.hypot(error, OTHER * part)), 1e-6))
