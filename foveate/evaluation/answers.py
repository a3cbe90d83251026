"""What a classifier made of labelled images, and all that is said of it; of images that are given
now, or of those that its run held back from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from foveate import metrics
from foveate.audit.estimate import by_groups
from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.errors import ArtefactError, quoted
from foveate.evaluation.intervals import of_classes, of_labels
from foveate.runs import PROBABILITIES, is_absent, read_json, read_lines
from foveate.storage import check_regular, unreadable

TOP = 5
SMALLEST = 1e-300  # of a probability, so that its logarithm is finite


@dataclass(frozen=True)
class Answers:
    """What a classifier made of N labelled images.

    Args:
        files: their names.
        labels: (N,), or (N, classes) of labels, in the classifier's numbering.
        probabilities: (N, classes)
        groups: (N,), images with the same number are of one group.
        refused: (N,), whether each was answered with none of these; None where nothing is refused.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.int64]
    refused: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def select(self, which: NDArray[np.bool_]) -> "Answers":
        """Those of some of the images: (N,)."""
        return Answers(
            tuple(file for file, kept in zip(self.files, which.tolist(), strict=True) if kept),
            self.labels[which],
            self.probabilities[which],
            self.groups[which],
            None if self.refused is None else self.refused[which],
        )

    def right(self, decision: Decision) -> NDArray[np.bool_]:
        """(N,), whether the class, or all labels, that each image is given are its own."""
        if self.labels.ndim == 2:
            return (decision.answers(self.probabilities) == self.labels).all(axis=1)
        return decision.chosen(self.probabilities) == self.labels

    def losses(self) -> NDArray[np.float64]:
        """(N,), the log-loss of each, in nats; of labels, their sum."""
        p = np.clip(self.probabilities, metrics.TINY, 1)
        if self.labels.ndim == 2:
            there = self.labels == 1
            wrong = np.clip(1 - self.probabilities, metrics.TINY, 1)
            return -np.where(there, np.log(p), np.log(wrong)).sum(axis=1)
        return -np.log(p[np.arange(len(p)), self.labels])

    def having(self, number: int) -> NDArray[np.bool_]:
        """(N,), whether each image is of a class, or has a label."""
        return self.labels[:, number] == 1 if self.labels.ndim == 2 else self.labels == number

    def figures(self, classifier: Classifier) -> dict[str, Any]:
        """All metrics, with intervals that count groups.

        Returns:
            What `metrics.summarise` or `metrics.summarise_labels` returns; groups, where they are
            fewer than the images; macro_f1_ci95 and ece_ci95; top5_accuracy where there are more
            than five classes; reliability, and before_calibration, the same and the ECE of
            probabilities that were not calibrated; risk_coverage; accepted where it refuses any.
        """
        decision, p = classifier.decision, self.probabilities
        found = decision.summarise(p, self.labels, classifier.classes)
        right = self.right(decision)
        found = by_groups(found, right, self.groups)
        if self.labels.ndim == 2:
            return found | of_labels(p, self.labels, decision.answers(p), self.groups)
        answers = decision.chosen(p)
        found |= of_classes(p, self.labels, answers, self.groups)
        if len(classifier.classes) > TOP:
            found["top5_accuracy"] = metrics.top_k_accuracy(p, self.labels, TOP)
        best = p.argmax(axis=1) == self.labels
        found["reliability"] = metrics.reliability(p.max(axis=1), best)
        if (temperature := classifier.card.get("temperature")) is not None:
            raw = metrics.softmax(np.log(np.maximum(p, SMALLEST)) * temperature)
            found["before_calibration"] = {
                "ece": metrics.expected_calibration_error(raw, self.labels),
                "log_loss": metrics.log_loss(raw, self.labels),
                "reliability": metrics.reliability(raw.max(axis=1), best),
            }
        found["risk_coverage"] = metrics.risk_coverage(p[np.arange(len(p)), answers], right)
        if self.refused is not None:
            found["accepted"] = metrics.accepted(self.refused, right)
        return found


DATA: dict[Any, Any] = {
    "classes": [str],
    "files": {str: {"split": str, "label": (int, [int])}},
    "groups?": [{"files": [str]}],
}
LINE = {"split": str, "file": str}
HONEST = ("out_of_fold", "validation")  # splits by which a threshold may be fixed
SPLITS = ("test", *HONEST)


def judged_by_run(classifier: Classifier, splits: tuple[str, ...]) -> tuple[str, Answers] | None:
    """What the classifier's run made of images that it did not learn from: the first of the splits
    that it judged; None if it judged none of them.

    Raises:
        ArtefactError: its files are gone, damaged, or of a version that kept only the best
            probability of each image.
    """
    run = classifier.run
    path = run / PROBABILITIES
    if is_absent(run / "data.json") or is_absent(path):
        raise ArtefactError(
            f"{quoted(run.resolve())} has no probabilities of the images that it held back (no "
            f"{PROBABILITIES} there): it is of an older version, or was moved without its files; "
            "train again, or give labelled images"
        )
    try:
        kept = load(check_regular(path).read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise unreadable(path, error) from error
    split = next((split for split in splits if split in kept and len(kept[split])), None)
    if split is None:
        return None
    data = read_json(run / "data.json", DATA)
    lines = [line for line in read_lines(run / "predictions.jsonl") if line.get("split") == split]
    files = tuple(str(line.get("file")) for line in lines)
    p, classes = kept[split].astype(np.float64), len(classifier.classes)
    whole = p.shape == (len(files), classes) and bool(np.isfinite(p).all())
    whole &= tuple(data["classes"]) == classifier.classes and {*files} <= data["files"].keys()
    if not whole:
        raise unreadable(path, ValueError("it does not fit predictions.jsonl and data.json"))
    labels = [data["files"][file]["label"] for file in files]
    group = {file: i for i, one in enumerate(data.get("groups", ())) for file in one["files"]}
    alone = len(group)
    groups = np.array([group.get(file, alone + i) for i, file in enumerate(files)])
    if classifier.task == "multilabel":
        there = np.zeros((len(files), classes), np.int64)
        for row, numbers in enumerate(labels):
            there[row, numbers] = 1
        return split, Answers(files, there, p, groups)
    return split, Answers(files, np.array(labels, np.int64), p, groups)


def learnt_of_each(classifier: Classifier) -> NDArray[np.int64] | None:
    """(classes,), how many images of each class its run learnt from; None where that is not known.

    Raises:
        ArtefactError: data.json is damaged.
    """
    path = classifier.run / "data.json"
    if is_absent(path) or classifier.task == "multilabel":
        return None
    data = read_json(path, DATA)
    if tuple(data["classes"]) != classifier.classes:
        return None
    labels = [file["label"] for file in data["files"].values() if file["split"] != "test"]
    return np.bincount(np.array(labels, np.int64), minlength=len(classifier.classes))
