"""How good a classifier is on images with labels."""

import os
from typing import Any

import numpy as np

from foveate.classifier import Classifier
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, OnBad, apply_policy, check_policy, damage_notes, listed
from foveate.data.layouts import as_dataset, composed
from foveate.data.levels import find_levels
from foveate.errors import DataError, ImageError, UsageError, quoted
from foveate.progress import Progress, bars, log_notes


def evaluate(
    classifier: Classifier,
    data: str | os.PathLike[str] | Dataset,
    on_bad: OnBad | None = None,
    progress: Progress | None = None,
    tta: Tta = "none",
) -> dict[str, Any]:
    """Measure a classifier on a labelled folder, table or built-in set: on its test split if it has
    one, else on all.

    Classes go by name: the folder's order and numbering play no part, nor do classes that its other
    splits lack.

    Args:
        classifier: to be measured.
        data: as for `train`.
        on_bad: unreadable images: "skip" them, or make them, and damaged ones, an "error". By
            default they are skipped unless there are several and more than 5 %.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.
        tta: test-time augmentation, as for `Classifier.predict`.

    Returns:
        What `metrics.summarise` or `metrics.summarise_labels` returns, and: split, data, bad
        (unreadable images and why) and notes.

    Raises:
        DataError: the data cannot be used; an image has one class, and the classifier gives labels,
            or the other way round; it has a class the classifier does not know, or none that it
            knows.
        UsageError: no such policy for unreadable images; no such test-time augmentation, or one
            that changes nothing.
    """
    check_policy(on_bad)
    if not isinstance(classifier, Classifier):
        raise UsageError(
            f"evaluate takes a Classifier, not {type(classifier).__name__}: Classifier.load(RUN)"
        )
    dataset = data if isinstance(data, Dataset) else as_dataset(data, classifier.task)
    split = "test" if "test" in dataset.splits else "all"
    if split == "test":
        dataset = dataset.select(np.array([i for i, s in enumerate(dataset.splits) if s == "test"]))
    if dataset.task != classifier.task:
        raise DataError(
            f"{quoted(dataset.name)} is {dataset.task}, and the classifier is {classifier.task}"
        )
    labels = known_labels(dataset, classifier.classes)
    notes = list(dataset.notes)
    parts = sorted({*dataset.splits})
    if split == "all" and (len(parts) > 1 or "split folders" in dataset.layout):
        notes.append(f"there is no test split with labels: measured are all of {listed(parts)}")

    rows, probabilities, bad = [], [], {}
    damaged: dict[str, str] = {}
    with bars(progress) as shown:
        shown.begin("images", len(dataset))
        for row, outcome in classifier.dataset_probabilities(dataset, tta, damaged):
            shown.advance()
            if isinstance(outcome, ImageError):
                bad[dataset.files[row]] = str(outcome)
            else:
                rows.append(row)
                probabilities.append(outcome)
    apply_policy(len(dataset), bad, on_bad, damaged)
    log_notes(notes, bad)
    summary = classifier.decision.summarise(
        np.stack(probabilities), labels[rows], classifier.classes
    )
    return summary | {
        "split": split,
        "data": dataset.name,
        "bad": bad,
        "notes": [*notes, *damage_notes(damaged), *depth_notes(classifier, dataset)],
    }


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


def known_labels(
    dataset: Dataset, classes: tuple[str, ...]
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The dataset's labels in the classifier's numbering, by name."""
    # macOS writes accents as two characters; a data set's classes have one form
    number = {composed(name): i for i, name in enumerate(classes)}
    names = [composed(name) for name in dataset.classes]
    present = [c for c in range(len(names)) if dataset.having(c).any()]
    strange = [names[c] for c in present if names[c] not in number]
    if strange:
        raise DataError(
            f"{quoted(dataset.name)} has classes that the classifier does not know: "
            f"{listed(strange)}; it knows {listed(classes, 20)}: rename or remove these classes"
        )
    if dataset.task == "multilabel":
        labels = np.zeros((len(dataset), len(classes)), dtype=np.int64)
        labels[:, [number[names[c]] for c in present]] = dataset.labels[:, present]
        return labels
    return np.array([number[names[label]] for label in dataset.labels], dtype=np.int64)
