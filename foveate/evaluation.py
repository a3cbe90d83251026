"""How good a classifier is on images with labels."""

import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate import metrics
from foveate.classifier import Classifier
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, OnBad, apply_policy, check_policy, damage_notes, listed
from foveate.data.layouts import as_dataset, composed
from foveate.data.levels import find_levels
from foveate.errors import DataError, ImageError, UsageError, quoted
from foveate.progress import Progress, bars, log_notes
from foveate.runs import HEX, read_learnt_from


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
        What `metrics.summarise` or `metrics.summarise_labels` returns of all images, and: `new`,
        the same of those that the classifier's run did not learn from, or None; `learnt_from`, how
        many the others are and their files; `trusted: false` and `why` where there are any; split,
        data, bad (unreadable images and why) and notes. A run is looked for where the classifier
        was left; copies are known byte for byte.

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
    given = np.stack(probabilities)
    measured = partial(classifier.decision.summarise, classes=classifier.classes)
    known = read_learnt_from(classifier.run)
    learnt = np.array([dataset.digests[row][:HEX] in known for row in rows])
    truth = labels[rows]
    summary = measured(given, truth) | {
        "new": None if learnt.all() else measured(given[~learnt], truth[~learnt]),
        "learnt_from": {
            "n": int(learnt.sum()),
            "files": [dataset.files[row] for row in np.array(rows)[learnt]],
        },
    }
    if learnt.any():
        summary |= {"trusted": False, "why": no_test(classifier, learnt)}
        notes.append(summary["why"])
    log_notes(notes, bad)
    return summary | {
        "split": split,
        "data": dataset.name,
        "bad": bad,
        "notes": [*notes, *damage_notes(damaged), *depth_notes(classifier, dataset)],
    }


def no_test(classifier: Classifier, learnt: NDArray[np.bool_]) -> str:
    """Why the accuracy on images that were learnt from is none, and which one there is."""
    n, of = int(learnt.sum()), len(learnt)
    if n < of:
        return f"{n} of {of} images are among those that it learnt from, and are no test of it"
    why = "it learnt from all of these images, so they are no test of it"
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
