"""What accuracy is to be expected on images without labels."""

from dataclasses import replace
from typing import Any

import numpy as np

from foveate.arguments import option
from foveate.classifier import Classifier
from foveate.classifier.embedding import dataset_features, head_of, relation_of
from foveate.classifier.tta import Tta
from foveate.data.dataset import Dataset, OnBad, apply_policy, damage_notes
from foveate.errors import UsageError
from foveate.evaluation.learnt import (
    GONE,
    collected,
    depth_notes,
    find_learnt,
    groups_among,
    listed_copies,
)
from foveate.progress import Progress, bars, log_notes

UNSEEN = (
    "predicted, not measured: whether classes are more or less frequent here than where it was "
    "trained, whether there are other classes, and whether labels mean the same, cannot be seen; "
    "label some of these images to know"
)


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
        groups = groups_among(classifier, dataset, "auto", shown)
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
