"""The probe: a frozen backbone sees each image once, its pooled stages are cached, a linear head is
solved on them. Nothing is trained step by step, so it takes seconds; what it knows of its own
quality comes from images that the judging head did not see.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from foveate.audit.groups import Groups, find_groups
from foveate.classifier import Classifier
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
from foveate.features import extract, shown
from foveate.heads import PENALTIES
from foveate.machine import environment
from foveate.progress import Progress, log_notes
from foveate.runs import Run
from foveate.training.honest import (
    contradictions,
    group_notes,
    held_out,
    plan_judging,
    solve,
    without_leaks,
)
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
    groups: Groups = "auto"
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
    dataset, features, bad = dataset.select(good), found.features[good], found.bad
    check_trainable(dataset)

    is_test = np.array([split == "test" for split in dataset.splits])
    learnt, test, classes = np.flatnonzero(~is_test), np.flatnonzero(is_test), dataset.classes
    with clock.phase("groups"):
        # built-in sets have no groups
        seen = found.select(good) if dataset.pixels is None else None
        grouping = find_groups(dataset, seen, config.groups, threads, progress)
        judging = plan_judging(dataset, grouping, ~is_test, config.seed)
    progress.begin("head", len(PENALTIES))
    with clock.phase("head"):
        solved = solve(dataset, features, grouping, judging, config.seed, threads, progress.advance)
    head, decision = solved.head, solved.decision
    evaluated = {"out_of_fold": (judging.judged, solved.probabilities)}
    splits = {"out_of_fold": solved.figures}
    if len(test):
        probabilities = decision.probabilities(features[test] @ head.weight.T + head.bias)
        evaluated["test"] = test, probabilities
        splits["test"] = held_out(dataset, grouping, test, probabilities, decision)

    notes = [*dataset.notes, *duplicate_notes(dataset), *damage_notes(found.damaged)]
    notes += [levels.note] if levels.note else []
    notes += group_notes(dataset, grouping, judging)
    notes += contradictions(splits)
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
            data_json(
                dataset,
                bad,
                notes,
                learnt,
                judging.folds_of(grouping.photos, learnt),
                groups=grouping.listed(dataset),
                looked_for=grouping.looked_for,
            ),
        )
        path = [{"penalty": penalty, "log_loss": loss} for penalty, loss in head.path]
        run.write_lines("history.jsonl", path)
        rows = list(predictions(dataset, evaluated, decision))
        run.write_lines("predictions.jsonl", rows)
        compared = compare_with_last(run, grouping.applied(dataset), without_leaks(rows, splits))
        for sentence in [*notes, *found.damaged.values(), *bad.values()]:
            run.log(sentence)
    write_metrics(
        run,
        model=config.model,
        recipe=config.recipe,
        engine=config.engine,
        seed=config.seed,
        seconds=clock.seconds(),
        bad=bad,
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
    log_notes(notes, bad)
    classifier.threads = threads
    return classifier
