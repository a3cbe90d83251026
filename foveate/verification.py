"""Verify a published accuracy on labelled images, with the published resize and crop, in f32.

ImageNet's images are not free, so none come with Foveate. Any part of the validation set can be
used: the interval shows how precise the result is.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset, apply_policy, listed
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import decode
from foveate.data.workers import decode_ahead
from foveate.errors import ArtefactError, DataError, ImageError, UsageError, quoted
from foveate.machine import cores
from foveate.metrics import wilson_interval
from foveate.progress import Progress, Silent, log_notes
from foveate.weights import build, find_weights, pretrained

CLASSES = 1000
WNID = re.compile(r"n\d{8}")
# ImageNet's own list has two classes of each of these names; torchvision's renames the second.
DOUBLES = {"crane": "crane bird", "maillot": "maillot tank suit", "cardigan": "Cardigan"}
EXPECTED = (
    "expected all 1000 WordNet ids (n01440764 ...), numbers (0 to 999), or ImageNet's names as in "
    "torchvision"
)


@dataclass(frozen=True)
class Rate:
    """One accuracy, measured and published.

    Args:
        right, n: correct images, and all.
        accuracy, low, high: per cent, with the 95 % interval (Wilson).
        published: per cent, or None.
    """

    right: int
    n: int
    accuracy: float
    low: float
    high: float
    published: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether the published figure lies in the interval; None if none is published."""
        return None if self.published is None else self.low <= self.published <= self.high

    def __str__(self) -> str:
        measured = f"measured {self.accuracy:.2f} % ({self.low:.1f} to {self.high:.1f})"
        if self.published is None:
            return f"{measured}, none published"
        return (
            f"{'agrees' if self.agrees else 'does not agree'}: published {self.published:.2f} %, "
            f"{measured}"
        )


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Args:
        weights: key of WEIGHTS whose accuracy is compared.
        data, split: name of the data set, and the part of it that was used.
        top1, top5: accuracies; top-1 decides whether they agree.
        classes: how many of the 1000 classes have images.
        labels: how the classes were recognised: by number, WordNet id or name.
        bad: unreadable images, which are left out, and why.
        notes: limits of the comparison.
    """

    weights: str
    data: str
    split: str
    top1: Rate
    top5: Rate
    classes: int
    labels: str
    bad: dict[str, str]
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return self.top1.agrees is True


def verify(
    name: str,
    data: str | os.PathLike[str] | Dataset,
    weights: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Measure published weights on labelled images.

    The prediction is the largest of all 1000 logits, also if the data have fewer classes. The test
    split is used if there is one, else the validation split, else all images.

    Args:
        name: key of WEIGHTS.
        data: a folder, table or Dataset whose classes are ImageNet's.
        weights: a file to measure instead of the published one.
        threads: cores to use; all by default.
        progress: receives each image.

    Raises:
        UsageError: there are no published weights of this name; the file has other classes than
            ImageNet's.
        DataError: the data cannot be used, or its classes are not ImageNet's.
        ArtefactError: the weights are missing, damaged, of another network, or give logits that
            are not finite.
        MissingExtraError: the package that carries the weights is not installed.
        FoveateError: the weights cannot be downloaded.
    """
    from foveate.engine.torch import TorchEngine

    entry = find_weights(name)
    dataset, split = part_to_measure(data if isinstance(data, Dataset) else load_dataset(data))
    numbers, recognised = class_numbers(dataset.classes)
    network: Any = (
        pretrained(entry.key)
        if weights is None
        else build(entry.network, weights=os.fspath(weights))
    )
    outputs = len(network.head.weight)
    if outputs != CLASSES:
        raise UsageError(
            f"{quoted(weights)} has {outputs} classes; the published figure is of {CLASSES}"
        )
    threads = min(threads or cores(), cores())
    engine = TorchEngine(network, entry.preprocess, threads)

    progress = progress or Silent()
    progress.begin("images", len(dataset))
    rows: list[int] = []
    bad: dict[str, str] = {}

    def read(row: int) -> NDArray[np.uint8]:
        return decode(dataset.read(row), dataset.files[row], entry.preprocess)

    def batches() -> Iterator[NDArray[np.uint8]]:
        waiting: list[NDArray[np.uint8]] = []
        for row, outcome in decode_ahead(
            range(len(dataset)), read, dataset.files.__getitem__, entry.preprocess, threads
        ):
            progress.advance()
            if isinstance(outcome, ImageError):
                bad[dataset.files[row]] = str(outcome)
                continue
            rows.append(row)
            waiting.append(outcome)
            if len(waiting) == engine.batch:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)

    best = [five_best(logits, name) for logits in engine.run(batches())]
    apply_policy(len(dataset), bad, None)
    if not rows:
        raise DataError(f"{quoted(dataset.name)} has no image to measure on")
    ranked = np.concatenate(best)  # (N, 5)
    right = ranked == numbers[dataset.labels[rows]][:, None]
    there = len(np.unique(numbers[dataset.labels]))
    notes = (*dataset.notes, *caveats(there))
    log_notes(notes, bad)
    return Verification(
        weights=entry.key,
        data=dataset.name,
        split=split,
        top1=rate(int(right[:, 0].sum()), len(rows), entry.accuracy),
        top5=rate(int(right.any(axis=1).sum()), len(rows), entry.accuracy5),
        classes=there,
        labels=recognised,
        bad=bad,
        notes=notes,
    )


def part_to_measure(dataset: Dataset) -> tuple[Dataset, str]:
    """(dataset, split): the test split if there is one, else the validation split, else all."""
    for split in ("test", "validation"):
        if split in dataset.splits:
            return dataset.select(np.flatnonzero(np.array(dataset.splits) == split)), split
    return dataset, "all"


def class_numbers(names: tuple[str, ...]) -> tuple[NDArray[np.int64], str]:
    """ImageNet's number of each class, and how the classes were recognised.

    Raises:
        DataError: the names are not ImageNet's, or one is the name of two classes.

    >>> class_numbers(("7", "0"))
    (array([7, 0]), 'by number')
    """
    if all(re.fullmatch(r"\d{1,4}", name, re.ASCII) for name in names):
        numbers = [int(name) for name in names]
        if max(numbers) >= CLASSES or len(set(numbers)) < len(numbers):
            raise DataError(
                f"the classes {listed(names)} are not different numbers from 0 to {CLASSES - 1}"
            )
        return np.array(numbers), "by number"
    if all(map(WNID.fullmatch, names)):
        if len(names) != CLASSES:
            raise DataError(
                f"there are {len(names)} WordNet ids, and their order gives the classes' numbers "
                f"only when all {CLASSES} are there; name the folders by number (0 to "
                f"{CLASSES - 1}), or by class name"
            )
        order = {wnid: number for number, wnid in enumerate(sorted(names))}
        return np.array([order[name] for name in names]), "by WordNet id, in alphabetical order"
    return np.array([by_name(name, set(names)) for name in names]), "by ImageNet's names"


def by_name(name: str, all_names: set[str]) -> int:
    """The number of one of ImageNet's classes; DataError if no class has this name, or two have."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES as CATEGORIES

    searched = plain(name)
    if searched in DOUBLES:
        # both folders must be there under torchvision's names; else "crane" may be either class
        both = [searched, DOUBLES[searched]]
        if name not in both or not {n.replace("_", " ") for n in all_names}.issuperset(both):
            numbers = " and ".join(str(CATEGORIES.index(category)) for category in both)
            raise DataError(
                f"ImageNet has two classes called {quoted(name)}, {numbers}: name the folders by "
                "number"
            )
        return CATEGORIES.index(name)
    found = [number for number, category in enumerate(CATEGORIES) if plain(category) == searched]
    if not found:
        raise DataError(f"ImageNet has no class {quoted(name)}; {EXPECTED}")
    return found[0]


def plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def five_best(logits: NDArray[np.float32], name: str) -> NDArray[np.int64]:
    """(n, 1000) -> (n, 5), the classes with the largest logits, the largest first."""
    if not np.isfinite(logits).all():
        raise ArtefactError(
            f"the weights of {name} give numbers that are not finite; see: foveate weights check"
        )
    return np.argsort(-logits, axis=1, kind="stable")[:, :5]


def rate(right: int, n: int, published: float | None) -> Rate:
    low, high = wilson_interval(right, n)
    return Rate(right, n, 100 * right / n, 100 * low, 100 * high, published)


def caveats(classes: int) -> Iterator[str]:
    """Limits of the comparison, as sentences."""
    yield (
        "the published accuracy is of ImageNet's 50,000 validation images: the interval is valid "
        "for a random sample of these, and other images may be easier or harder"
    )
    if classes < CLASSES:
        yield (
            f"only {classes} of the {CLASSES} classes have images; some classes are easier than "
            "others"
        )
