"""A row of the table: what the runs of one candidate say of themselves, and what each judged."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from foveate.classifier import Classifier
from foveate.comparison.candidates import DONE, Candidate
from foveate.comparison.cost import costs_of
from foveate.comparison.judgement import Judged
from foveate.data.dataset import BETWEEN
from foveate.errors import ArtefactError, quoted
from foveate.evaluation.answers import DATA, judged_by_run
from foveate.metrics import believed
from foveate.runs import read_json

SPLIT = {"probe": "out_of_fold", "finetune": "test"}  # by which candidates are compared
FIGURES = ("accuracy", "macro_f1", "log_loss", "ece")


def row_of(candidate: Candidate, recipe: str, runs: Sequence[Path]) -> dict[str, Any]:
    """The figures of a candidate, the mean over its runs, which differ by their seed; an interval
    is the mean of theirs, since seeds make no new images.

    Raises:
        ArtefactError: a run is damaged.
    """
    classifiers = [Classifier.load(run) for run in runs]
    metrics = [classifier.metrics for classifier in classifiers]
    split = SPLIT[recipe]
    figures = [believed(m[split]) or {} for m in metrics]
    found = about(candidate) | {
        "status": DONE,
        "reason": "",
        "runs": [run.name for run in runs],
        "split": split,
        "n": figures[0].get("n", 0),
        "groups": figures[0].get("groups", figures[0].get("n", 0)),
        **{key: mean_of([m.get(key) for m in figures]) for key in FIGURES},
        "accuracy_ci95": mean_interval([m.get("accuracy_ci95") for m in figures]),
        "accuracy_by_seed": [m.get("accuracy") for m in figures],
        **refusals([m.get("rejection") for m in metrics]),
        "seconds": metrics[0]["seconds"]["total"],  # later seeds find the features in the cache
        "cached": cached_of(classifiers[0].run, metrics[0]),
        "epochs": metrics[0].get("epochs"),
        "passes": metrics[0].get("seen", {}).get("passes", 1),
        **costs_of(classifiers[0]),
    }
    if split != "test" and all(believed(m.get("test", {"accuracy": None})) for m in metrics):
        tests = [believed(m["test"]) or {} for m in metrics]
        found["test"] = {
            "n": tests[0]["n"],
            "accuracy": mean_of([m["accuracy"] for m in tests]),
            "accuracy_ci95": mean_interval([m["accuracy_ci95"] for m in tests]),
        }
    return found


def cached_of(run: Path, metrics: dict[str, Any]) -> int:
    """Of how many images the features were in the cache when a probe was solved."""
    if "computed" not in metrics:
        return 0
    return max(0, len(read_json(run / "data.json", DATA)["files"]) - int(metrics["computed"]))


def without_figures(candidate: Candidate, status: str, reason: str) -> dict[str, Any]:
    """The row of a candidate that was not trained, and why."""
    return about(candidate) | {"status": status, "reason": reason, "runs": []}


def about(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "model": candidate.model,
        "effort": candidate.effort,
        "framing": candidate.framing,
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def mean_interval(intervals: Sequence[Sequence[float] | None]) -> list[float] | None:
    low, high = (mean_of([None if ci is None else ci[end] for ci in intervals]) for end in (0, 1))
    return None if low is None or high is None else [low, high]


def refusals(certificates: Sequence[dict[str, Any] | None]) -> dict[str, float | None]:
    """The shares that are refused: of its own classes, which is wrong, and of kinds that were never
    taught."""

    def share(certificate: dict[str, Any] | None, ours: bool) -> float | None:
        if not certificate:
            return None
        if ours:
            return next((own["share"] for own in certificate["false_refusals"].values()), None)
        return certificate["unknown_kinds"]["share"]

    return {
        "refused_own": mean_of([share(one, True) for one in certificates]),
        "refused_unknown": mean_of([share(one, False) for one in certificates]),
    }


def judged_of(run: Path, splits: Sequence[str], seed: int = 0) -> Judged:
    """What a run judged in some splits, but for copies of what it had learnt from.

    Args:
        run: its folder.
        splits: each of which is taken if the run has it.
        seed: tells the runs of one candidate from one another.

    Raises:
        ArtefactError: its files are gone or damaged.
    """
    classifier = Classifier.load(run)
    data = read_json(run / "data.json", DATA)
    group = {f: f"group {i}" for i, one in enumerate(data.get("groups", ())) for f in one["files"]}
    parts = []
    for split in splits:
        found = judged_by_run(classifier, (split,))
        if found is None:
            continue
        _, answers = found
        copied = {*classifier.metrics.get(split, {}).get("copies", {}).get("files", ())}
        answers = answers.select(np.array([file not in copied for file in answers.files], bool))
        names = classifier.classes
        given = classifier.decision.answers(answers.probabilities)
        there = (
            answers.labels == 1
            if answers.labels.ndim == 2
            else answers.labels[:, None] == np.arange(len(names))
        )
        labels, said = (
            tuple(BETWEEN.join(names[c] for c in np.flatnonzero(row)) for row in rows)
            for rows in (there, given)
        )
        digests = [str(data["files"][file].get("sha256", "")) for file in answers.files]
        if "" in digests:
            raise ArtefactError(
                f"{quoted(run)} is of an older version that did not record its images: train again"
            )
        keys = tuple((seed, digest, label) for digest, label in zip(digests, labels, strict=True))
        right, losses = answers.right(classifier.decision), answers.losses()
        groups = tuple(group.get(f, d) for f, d in zip(answers.files, digests, strict=True))
        parts.append(Judged(keys, answers.files, labels, said, right, losses, groups))
    return joined(parts)


def joined(parts: Sequence[Judged]) -> Judged:
    """Several as one."""
    return Judged(
        keys=tuple(key for part in parts for key in part.keys),
        files=tuple(file for part in parts for file in part.files),
        labels=tuple(label for part in parts for label in part.labels),
        answers=tuple(answer for part in parts for answer in part.answers),
        right=np.concatenate([np.zeros(0, bool), *(part.right for part in parts)]),
        losses=np.concatenate([np.zeros(0), *(part.losses for part in parts)]),
        groups=tuple(group for part in parts for group in part.groups),
    )
