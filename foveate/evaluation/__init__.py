"""How good a classifier is on images with labels, and how good it probably is on images without.

answers.py      what it made of labelled images, and the figures
labels.py       labels in the classifier's numbering
learnt.py       what its run learnt from, and copies of that
intervals.py    how sure a figure is
slices.py       where it is better or worse
asked.py        what may be asked beside the figures:
operating.py    how well one class is told from others, and a threshold for it
costs.py        what mistakes cost
point.py        the threshold that is fixed and saved with a classifier
pairs.py        whether another classifier is better
unlabelled.py   what to expect on images without labels
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from foveate.arguments import option
from foveate.audit.groups import Groups, check_groups
from foveate.audit.quality import measure_images
from foveate.classifier import Classifier
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, OnBad, apply_policy, check_policy, damage_notes, listed
from foveate.data.layouts import as_dataset
from foveate.data.tables import other_columns
from foveate.data.unlabelled import load_unlabelled
from foveate.errors import DataError, UsageError, quoted
from foveate.evaluation.answers import SPLITS, Answers, judged_by_run, learnt_of_each
from foveate.evaluation.asked import Asked
from foveate.evaluation.labels import known_labels
from foveate.evaluation.learnt import (
    GONE,
    collected,
    depth_notes,
    find_learnt,
    groups_among,
    listed_copies,
    no_test,
)
from foveate.evaluation.point import decided, fix_point, forget_point
from foveate.evaluation.slices import (
    Values,
    accuracy_by_slice,
    by_column,
    by_distance,
    by_looks,
    thirds,
)
from foveate.evaluation.unlabelled import expected
from foveate.progress import Progress, bars, log_notes

__all__ = ["decided", "evaluate", "expected", "fix_point", "forget_point"]

PathLike = str | os.PathLike[str]


def evaluate(
    classifier: Classifier,
    data: PathLike | Dataset | None = None,
    on_bad: OnBad | None = None,
    progress: Progress | None = None,
    tta: Tta = "none",
    *,
    groups: Groups = "auto",
    positive: str | None = None,
    recall: float | None = None,
    precision: float | None = None,
    cost: PathLike | None = None,
    against: Classifier | None = None,
) -> dict[str, Any]:
    """Measure a classifier on a labelled folder, table or built-in set: on its test split if it has
    one, else on all. Of images without labels, predict the accuracy.

    Classes go by name: the folder's order and numbering play no part, nor do classes that its other
    splits lack.

    Args:
        classifier: to be measured.
        data: as for `train`; or images without labels: a folder in which they lie directly, or a
            CSV with columns `path[,split][,group]`. None: what its run made of the images that it
            held back, of which no image is read again.
        on_bad: unreadable images: "skip" them, or make them, and damaged ones, an "error". By
            default they are skipped unless there are several and more than 5 %.
        progress: is informed of how far it is; by default bars in a terminal or a notebook.
        tta: test-time augmentation, as for `Classifier.predict`.
        groups: which images count as one where it is said how sure a figure is: as for `train`.
        positive: a class; how well it is told from all others is then measured.
        recall, precision: what is to be kept of that class on new images, above 0 and below 1: the
            threshold from which on an image is given it is fixed on the images that the run held
            back, and all figures are those of answers by it. It is not saved: `fix_point` does.
        cost: a CSV of what each mistake costs (`evaluation.costs`).
        against: another classifier, measured on the same images.

    Returns:
        What `Answers.figures` returns of all images, and: `new`, the same of those that the
        classifier's run did not learn from, or None; `learnt_from`, how many the others are, their
        files, and of which files some are copies; `trusted: false` and `why` where there are any;
        `slices`, from `accuracy_by_slice`, of the new ones; split, data, bad (unreadable images and
        why) and notes. Where asked: `ranking`, from `operating.rank`; `operating_point`, from
        `operating.fix_threshold`, with `on_these`, from `judge`; `costs`, from `costs.weigh`;
        `against`, from `pairs.compare`; each of the new images. A run is looked for where the
        classifier was left. Of images without labels, as `expected`.

    Raises:
        DataError: the data cannot be used; an image has one class, and the classifier gives labels,
            or the other way round; it has a class the classifier does not know, or none that it
            knows; a table of costs that cannot be used.
        UsageError: no such policy for unreadable images; no such test-time augmentation, or one
            that changes nothing; of images without labels, any, or a classifier that is no probe
            or gives several labels an image; a class, recall or precision that is none.
        ArtefactError: the run saved nothing by which images without labels could be judged, or a
            threshold fixed.
    """
    check_policy(on_bad)
    groups = check_groups(groups)
    for what, one in (("evaluate", classifier), ("against", against)):
        if one is not None and not isinstance(one, Classifier):
            raise UsageError(
                f"{what} takes a Classifier, not {type(one).__name__}: Classifier.load(RUN)"
            )
    if data is None and groups != "auto":
        raise UsageError(f"{option('groups', groups)} is of images that are given: name the data")
    asked = Asked.of(classifier, positive, recall, precision, cost, against)
    if asked.point is not None:
        classifier = decided(classifier, asked.point)
    unlabelled = None if data is None else load_unlabelled(data)
    if unlabelled is not None:
        if asked.named:
            raise UsageError(f"{asked.named} takes labels, and {quoted(str(data))} has none")
        return expected(classifier, unlabelled, on_bad, progress, tta)
    if data is None:
        return of_run(classifier, asked, tta)
    dataset = data if isinstance(data, Dataset) else as_dataset(data, classifier.task)
    split = "test" if "test" in dataset.splits else "all"
    if split == "test":
        dataset = dataset.select(np.array([i for i, s in enumerate(dataset.splits) if s == "test"]))
    if dataset.task != classifier.task:
        raise DataError(
            f"{quoted(dataset.name)} is {dataset.task}, and the classifier is {classifier.task}"
        )
    labels = known_labels(dataset, classifier.classes)
    if against is not None:
        known_labels(dataset, against.classes, f"the classifier in {quoted(against.folder)}")
    notes = list(dataset.notes)
    parts = sorted({*dataset.splits})
    if split == "all" and (len(parts) > 1 or "split folders" in dataset.layout):
        notes.append(f"there is no test split with labels: measured are all of {listed(parts)}")

    damaged: dict[str, str] = {}
    each = classifier.dataset_outcomes(dataset, tta, damaged)
    rows, outcomes, bad = collected(each, dataset, progress)
    apply_policy(len(dataset), bad, on_bad, damaged)
    depth = depth_notes(classifier, dataset)
    dataset = dataset.select(np.array(rows))
    refused = None
    if classifier.rejection is not None:
        refused = np.array([outcome.rejected is not None for outcome in outcomes])
    with bars(progress) as shown_to:
        copies, gone = find_learnt(classifier, dataset, shown_to)
        given = np.stack([outcome.probabilities for outcome in outcomes])
        belong = groups_among(classifier, dataset, groups, shown_to)
        answers = Answers(dataset.files, labels[rows], given, belong, refused)
        new = np.array([file not in copies for file in dataset.files])
        values = sliced_by(classifier, dataset, data, answers, shown_to)
        if classifier.rejection is not None:
            values["distance"] = by_distance([outcome.foreign for outcome in outcomes])
        summary = answers.figures(classifier)
        fresh = answers.select(new)
        found = summary if new.all() else fresh.figures(classifier) if new.any() else None
        summary = summary | {
            "new": found,
            "learnt_from": {
                "n": len(copies),
                "files": list(copies),
                "copies": listed_copies(copies),
            },
            "slices": [],
        }
        if asked.point is not None:
            summary["operating_point"] = asked.point
        if new.any():
            cut = {by: np.array(one)[new].tolist() for by, one in values.items()}
            right = fresh.right(classifier.decision)
            summary["slices"] = accuracy_by_slice(right, fresh.groups, cut)
            summary |= asked.answered(classifier, fresh)
        if against is not None:
            summary["against"] = asked.compared(classifier, dataset, fresh, tta, shown_to)
    if gone:
        notes.append(GONE.format(gone))
    if not new.all():
        summary |= {"trusted": False, "why": no_test(classifier, ~new)}
        notes.append(summary["why"])
    log_notes(notes, bad)
    return summary | {
        "split": split,
        "data": dataset.name,
        "bad": bad,
        "notes": [*notes, *damage_notes(damaged), *depth],
    }


def of_run(classifier: Classifier, asked: Asked, tta: Tta) -> dict[str, Any]:
    """The same of what a classifier's run held back from it, without reading an image: of its test
    split, else of what it judged out of fold, or validated by.

    Raises:
        UsageError: test-time augmentation, or a second classifier, which both take images.
        ArtefactError: the run has nothing of them.
        DataError: it judged none.
    """
    taken = "against" if asked.against is not None else "tta" if tta != "none" else None
    if taken is not None:
        raise UsageError(f"{option(taken)} takes images: name the data")
    found = judged_by_run(classifier, SPLITS)
    if found is None:
        raise DataError(
            f"the run of {quoted(classifier.folder)} judged no image: give labelled images"
        )
    split, answers = found
    copied = classifier.metrics.get(split, {}).get("copies", {}).get("files", ())
    new = np.array([file not in copied for file in answers.files])
    figures = answers.figures(classifier)
    written = classifier.metrics.get(split, {})
    if "accepted" in written and classifier.decision.point is None:
        figures["accepted"] = written["accepted"]
    fresh = answers.select(new)
    summary = figures | {
        "new": figures if new.all() else fresh.figures(classifier) if new.any() else None,
        "learnt_from": {"n": int((~new).sum()), "files": list(copied), "copies": []},
        "slices": [],
    }
    if asked.point is not None:
        summary["operating_point"] = asked.point
    if new.any():
        values = {"training images of the class": by_class(classifier, fresh)}
        summary["slices"] = accuracy_by_slice(
            fresh.right(classifier.decision), fresh.groups, values
        )
        summary |= asked.answered(classifier, fresh)
    notes = []
    if not new.all():
        summary |= {"trusted": False, "why": no_test(classifier, ~new)}
        notes.append(summary["why"])
    log_notes(notes, {})
    return summary | {"split": split, "data": None, "bad": {}, "notes": notes}


def sliced_by(
    classifier: Classifier,
    dataset: Dataset,
    source: PathLike | Dataset,
    answers: Answers,
    progress: Progress,
) -> dict[str, Values]:
    """By what the figures are sliced, and the slice of each image.

    Args:
        dataset: of readable images.
        source: of the data, as it was given.
    """
    found: dict[str, Values] = {}
    if not isinstance(source, Dataset) and Path(source).suffix.lower() in (".csv", ".tsv"):
        for column, cells in other_columns(Path(source)).items():
            values = by_column([cells.get(file, "") for file in dataset.files])
            if values is not None:
                found[column] = values
    if dataset.pixels is None:
        levels, threads = classifier.preprocess.levels, classifier.threads
        found |= by_looks(measure_images(dataset, levels, threads, progress))
    return found | {"training images of the class": by_class(classifier, answers)}


def by_class(classifier: Classifier, answers: Answers) -> Values:
    """The third of the classes, by how many images they had to learn from, in which the class of
    each image is; "" where its run is not known, or an image may have several labels."""
    counts = learnt_of_each(classifier)
    if counts is None or answers.labels.ndim == 2:
        return [""] * len(answers)
    return thirds(counts[answers.labels].astype(np.float64))
