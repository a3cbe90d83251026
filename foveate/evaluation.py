"""How good a classifier is on images with labels, and how good it probably is on images without."""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate import metrics
from foveate.arguments import option
from foveate.audit.groups import SAME_BYTES, find_groups
from foveate.audit.inspection import copies_of_learnt, look_at
from foveate.classifier import Classifier
from foveate.classifier.embedding import dataset_features, head_of, relation_of
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, OnBad, apply_policy, check_policy, damage_notes, listed
from foveate.data.layouts import as_dataset, composed
from foveate.data.levels import find_levels
from foveate.data.unlabelled import load_unlabelled
from foveate.errors import DataError, ImageError, UsageError, quoted
from foveate.progress import Progress, bars, log_notes
from foveate.runs import HEX, read_seen, settings_of
from foveate.weights.starting_point import EMBEDDED, find_start

T = TypeVar("T")

GONE = (
    "copies of {} of the images that it learnt from are known byte for byte only: the cache has "
    "nothing of them"
)
UNSEEN = (
    "predicted, not measured: whether classes are more or less frequent here than where it was "
    "trained, whether there are other classes, and whether labels mean the same, cannot be seen; "
    "label some of these images to know"
)


def evaluate(
    classifier: Classifier,
    data: str | os.PathLike[str] | Dataset,
    on_bad: OnBad | None = None,
    progress: Progress | None = None,
    tta: Tta = "none",
) -> dict[str, Any]:
    """Measure a classifier on a labelled folder, table or built-in set: on its test split if it has
    one, else on all. Of images without labels, predict the accuracy.

    Classes go by name: the folder's order and numbering play no part, nor do classes that its other
    splits lack.

    Args:
        classifier: to be measured.
        data: as for `train`; or images without labels: a folder in which they lie directly, or a
            CSV with columns path[,split][,group].
        on_bad: unreadable images: "skip" them, or make them, and damaged ones, an "error". By
            default they are skipped unless there are several and more than 5 %.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.
        tta: test-time augmentation, as for `Classifier.predict`.

    Returns:
        What `metrics.summarise` or `metrics.summarise_labels` returns of all images, and: `new`,
        the same of those that the classifier's run did not learn from, or None; each with
        `accepted`, the share of the images that it does not refuse, and the accuracy on those,
        where it refuses any (other figures are of all images); `learnt_from`, how
        many the others are, their files, and of which files some are copies; `trusted: false` and
        `why` where there are any; split, data, bad (unreadable images and why) and notes. A run is
        looked for where the classifier was left. Of images without labels, as `expected`.

    Raises:
        DataError: the data cannot be used; an image has one class, and the classifier gives labels,
            or the other way round; it has a class the classifier does not know, or none that it
            knows.
        UsageError: no such policy for unreadable images; no such test-time augmentation, or one
            that changes nothing; of images without labels, any, or a classifier that is no probe
            or gives several labels an image.
        ArtefactError: the run saved nothing by which images without labels could be judged.
    """
    check_policy(on_bad)
    if not isinstance(classifier, Classifier):
        raise UsageError(
            f"evaluate takes a Classifier, not {type(classifier).__name__}: Classifier.load(RUN)"
        )
    unlabelled = load_unlabelled(data)
    if unlabelled is not None:
        return expected(classifier, unlabelled, on_bad, progress, tta)
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

    damaged: dict[str, str] = {}
    each = classifier.dataset_outcomes(dataset, tta, damaged)
    rows, outcomes, bad = collected(each, dataset, progress)
    apply_policy(len(dataset), bad, on_bad, damaged)
    given = np.stack([outcome.probabilities for outcome in outcomes])
    refused = None
    if classifier.rejection is not None:
        refused = np.array([outcome.rejected is not None for outcome in outcomes])

    def measured(which: NDArray[np.bool_]) -> dict[str, Any]:
        p, true = given[which], labels[rows][which]
        found = classifier.decision.summarise(p, true, classifier.classes)
        if refused is not None:
            found["accepted"] = metrics.accepted(refused[which], p, true)
        return found

    with bars(progress) as shown:
        copies, gone = find_learnt(classifier, dataset.select(np.array(rows)), shown)
    learnt = np.array([dataset.files[row] in copies for row in rows])
    summary = measured(np.ones(len(rows), bool)) | {
        "new": None if learnt.all() else measured(~learnt),
        "learnt_from": {
            "n": len(copies),
            "files": list(copies),
            "copies": listed_copies(copies),
        },
    }
    if gone:
        notes.append(GONE.format(gone))
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


def expected(
    classifier: Classifier,
    dataset: Dataset,
    on_bad: OnBad | None = None,
    progress: Progress | None = None,
    tta: Tta = "none",
) -> dict[str, Any]:
    """The accuracy to be expected on images without labels, of those that the classifier's run did
    not learn from.

    Args:
        classifier: of the recipe probe, and of one class an image.
        dataset: from `load_unlabelled`.
        on_bad, progress: as for `evaluate`.
        tta: none.

    Returns:
        predicted: accuracy, accuracy_ci95, n, groups, supported, why (None where it is); unlike,
        the share of the images that are farther from the training images than nearly all that were
        held out; farther, by how much they are farther on the average than is usual, a fraction;
        answers, how many images are taken for each class. And learnt_from, split, data, bad and
        notes, as `evaluate`.

    Raises:
        UsageError, ArtefactError, DataError: as for `evaluate`.
    """
    if tta != "none":
        raise UsageError(
            f"{option('tta', tta)} does not apply to images without labels: what to expect of them "
            "was learnt of single images"
        )
    relation, head = relation_of(classifier), head_of(classifier)
    split = "test" if "test" in dataset.splits else "all"
    if split == "test":
        dataset = dataset.split("test")
    dataset = dataset.resplit(("train",) * len(dataset))  # groups are looked for in all
    damaged: dict[str, str] = {}
    each = dataset_features(classifier, dataset, damaged)
    rows, features, bad = collected(each, dataset, progress)
    apply_policy(len(dataset), bad, on_bad, damaged)
    dataset, seen = dataset.select(np.array(rows)), np.stack(features)
    logits = head.logits(seen)
    dataset = replace(dataset, classes=classifier.classes, labels=logits.argmax(axis=1))
    notes = [*dataset.notes, *damage_notes(damaged), *depth_notes(classifier, dataset)]
    with bars(progress) as shown:
        copies, gone = find_learnt(classifier, dataset, shown)
        groups = groups_among(classifier, dataset, shown)
    new = np.array([file not in copies for file in dataset.files])
    n, of = int(new.sum()), len(new)
    predicted: dict[str, Any] = {"accuracy": None, "accuracy_ci95": None, "n": n, "groups": 0}
    predicted |= {"supported": False, "why": None, "unlike": None, "farther": None, "answers": {}}
    if n:
        found = relation.expect(seen[new], logits[new], groups[new])
        answers = np.bincount(dataset.labels[new], minlength=len(classifier.classes)).tolist()
        predicted |= {
            "accuracy": found.accuracy,
            "accuracy_ci95": None if found.interval is None else list(found.interval),
            "groups": found.groups,
            "supported": found.accuracy is not None,
            "why": found.why or None,
            "unlike": found.unlike,
            "farther": float(np.expm1(found.excess)),
            "answers": dict(zip(classifier.classes, answers, strict=True)),
        }
    else:
        predicted["why"] = "it learnt from all of these images, or copies of them"
    if 0 < n < of:
        notes.append(f"{of - n} of {of} images, or their copies, it learnt from: they are left out")
    if gone:
        notes.append(GONE.format(gone))
    if predicted["supported"]:
        notes.append(UNSEEN)
    log_notes(notes, bad)
    return {
        "predicted": predicted,
        "learnt_from": {"n": len(copies), "files": list(copies), "copies": listed_copies(copies)},
        "split": split,
        "data": dataset.name,
        "bad": bad,
        "notes": notes,
    }


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


def groups_among(classifier: Classifier, dataset: Dataset, progress: Progress) -> NDArray[np.int64]:
    """(N,), the group of each image: the table's, copies, bursts and occasions, where the images of
    a class are those that are taken for it."""
    start, levels = find_start(EMBEDDED), classifier.preprocess.levels
    found = look_at(dataset, start, levels, classifier.threads, progress)
    return find_groups(dataset, found, "auto", classifier.threads, progress).groups


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
            f"{listed(strange)}; it knows {listed(classes, 20)}: rename or remove these "
            "classes; images without labels lie directly in the folder, or are listed in a CSV "
            "with the column path alone"
        )
    if dataset.task == "multilabel":
        labels = np.zeros((len(dataset), len(classes)), dtype=np.int64)
        labels[:, [number[names[c]] for c in present]] = dataset.labels[:, present]
        return labels
    return np.array([number[names[label]] for label in dataset.labels], dtype=np.int64)
