"""The probe: a frozen backbone sees each image once, its pooled stages are cached, a linear head is
solved on them. Nothing is trained step by step, so it takes seconds; what it knows of its own
quality comes from images that the judging head did not see.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.estimate import estimate_accuracy
from foveate.classifier import Classifier
from foveate.classifier.decision import decide
from foveate.classifier.saving import save_probe
from foveate.data.dataset import (
    Dataset,
    OnBad,
    Task,
    apply_policy,
    check_trainable,
    damage_notes,
)
from foveate.data.levels import find_levels
from foveate.data.splits import check_spread, stratified_folds
from foveate.features import extract, shown
from foveate.heads import PENALTIES, Head, fit_head
from foveate.machine import environment
from foveate.progress import Progress, log_notes
from foveate.runs import Run
from foveate.training.previous import compare_with_last
from foveate.training.report import (
    ALONE,
    Clock,
    brief,
    data_json,
    duplicate_notes,
    predictions,
    write_metrics,
)
from foveate.weights.starting_point import OWN, Loaded, StartingPoint

FOLDS = 5


@dataclass(frozen=True)
class Effort:
    """What the one setting decides: the input's size, as a multiple of the weights' own, and
    whether the mirror image is seen."""

    size: float
    mirror: bool


EFFORTS = {
    "fast": Effort(1, mirror=False),
    "best": Effort(9 / 7, mirror=True),  # 288 pixels for 224
}


@dataclass(frozen=True)
class ProbeConfig:
    """What a probe's run was asked; saved in its config.json."""

    data: str  # the set's name
    fingerprint: str  # of its files, labels, splits and groups
    model: str
    effort: str
    seed: int
    on_bad: OnBad
    engine: str
    task: Task
    recipe: str = "probe"
    weights: str = ""  # identity of weights that are not published ones

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "weights" or value}


def solve_probe(
    run: Run,
    dataset: Dataset,
    config: ProbeConfig,
    on_bad: OnBad | None,
    start: StartingPoint,
    threads: int,
    progress: Progress,
    clock: Clock,
    command: str,
) -> Classifier:
    """Extract features, solve the head, measure it, and write the run's files."""
    run.log(f"foveate {command or 'train'}")
    if not start.is_here:
        with clock.phase("weights"):
            start.fetch(progress)
    effort = EFFORTS[config.effort]
    with clock.phase("features"):
        learnt = np.flatnonzero([split != "test" for split in dataset.splits])
        levels = find_levels(dataset, learnt, threads)
        # also in place of those of a run that it goes on from: they were of other images
        preprocess = replace(shown(start.preprocess, effort.size), levels=levels.levels)
        found = extract(dataset, start, preprocess, effort.mirror, config.engine, threads, progress)
    apply_policy(len(dataset), found.bad, on_bad, found.damaged)
    readable = [i for i, name in enumerate(dataset.files) if name not in found.bad]
    good = np.array(readable, dtype=np.int64)
    dataset, features = dataset.select(good), found.features[good]
    check_trainable(dataset)

    is_test = np.array([split == "test" for split in dataset.splits])
    (learn, image_of), test = without_copies(dataset, ~is_test), np.flatnonzero(is_test)
    labels, classes = dataset.labels[learn], dataset.classes
    progress.begin("head", len(PENALTIES))
    with clock.phase("head"):
        groups = dataset.grouping()[learn]
        check_spread(labels, groups, classes)
        folds = stratified_folds(labels, groups, FOLDS, config.seed)
        head = fit_head(features[learn], labels, folds, len(classes), threads, progress.advance)
        decision = decide(head.out_of_fold, labels)
        probabilities = decision.probabilities(head.out_of_fold)
        estimate = honest(head, decision.answers(probabilities), labels, groups, config.seed)

    evaluated = {"out_of_fold": (learn, probabilities)}
    if len(test):
        evaluated["test"] = (
            test,
            decision.probabilities(features[test] @ head.weight.T + head.bias),
        )
    splits = {
        split: decision.summarise(probabilities, dataset.labels[rows], classes)
        for split, (rows, probabilities) in evaluated.items()
    }
    splits["out_of_fold"] |= estimate

    notes = [*dataset.notes, *duplicate_notes(dataset), *damage_notes(found.damaged)]
    notes += [levels.note] if levels.note else []
    with clock.phase("saving"):
        provenance = {"command": command, "environment": environment(), **config.to_dict()}
        classifier = save_probe(
            run.folder / "classifier",
            start,
            head,
            decision,
            classes,
            preprocess,
            effort.mirror,
            config.engine,
            {"metrics": brief(splits), "provenance": provenance},
        )
        if isinstance(start, Loaded) and start.name.startswith(OWN):
            classifier.module = start.module
            if not classifier.has_graph:
                notes.append(ALONE)
        run.write(
            "data.json",
            data_json(dataset, found.bad, notes, np.flatnonzero(~is_test), folds[image_of]),
        )
        path = [{"penalty": penalty, "log_loss": loss} for penalty, loss in head.path]
        run.write_lines("history.jsonl", path)
        rows = list(predictions(dataset, evaluated, decision))
        run.write_lines("predictions.jsonl", rows)
        compared = compare_with_last(run, dataset, rows)
        for sentence in [*notes, *found.damaged.values(), *found.bad.values()]:
            run.log(sentence)
    write_metrics(
        run,
        model=config.model,
        recipe=config.recipe,
        engine=config.engine,
        seed=config.seed,
        seconds=clock.seconds(),
        bad=found.bad,
        notes=notes,
        details={
            "effort": config.effort,
            "computed": found.computed,
            "penalty": head.penalty,
            "temperature": head.temperature,
            **compared,
        },
        splits=splits,
    )
    log_notes(notes, found.bad)
    classifier.threads = threads
    return classifier


def without_copies(
    dataset: Dataset, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One row of each image that is chosen, in an order that the images' bytes decide; and of all
    rows that are chosen, which of these images each is.

    So an image counts once, in the head as in the figures, and what is solved does not depend on
    names. A copy with another label is no copy: it contradicts.
    """
    rows = np.flatnonzero(chosen)
    keys = np.array([f"{dataset.digests[row]} {dataset.label(row)}" for row in rows.tolist()])
    _, first, image_of = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], image_of


def honest(
    head: Head,
    answers: NDArray[np.bool_],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    """What metrics.json has of the accuracy on new groups, in place of the plain figures."""
    right, losses = head.right, head.losses
    if labels.ndim == 2:  # right by the thresholds, for which no label was looked at
        right = (answers == labels).all(axis=1)[None]
        losses = losses.min(axis=0, keepdims=True)
    found = estimate_accuracy(right, losses, groups, seed)
    return {
        "accuracy": found.accuracy,
        "accuracy_ci95": None if found.interval is None else list(found.interval),
        "groups": found.groups,
        "selection": {"candidates": len(head.losses), "correction": found.correction},
    }
