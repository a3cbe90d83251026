"""The probe: a frozen backbone sees each image once, its pooled stages are cached, a linear head is
solved on them. Nothing is trained step by step, so it takes seconds; what it knows of its own
quality comes from images that the judging head did not see.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.audit.groups import Grouping, Groups, find_groups
from foveate.audit.suspects import Answers, Doubts, doubt_labels
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
from foveate.data.preprocess import Fit, Preprocess
from foveate.features import shown
from foveate.heads import PENALTIES
from foveate.machine import environment
from foveate.novelty import Relation, fit_relation
from foveate.progress import Progress, Silent, log_notes
from foveate.runs import Run
from foveate.training.framing import (
    AUTO,
    LONG,
    Choice,
    HonestFolds,
    ViewExtractor,
    area_note,
    area_seen,
    choose_branches,
    choose_framing,
    choose_size_beside,
    parts_of,
)
from foveate.training.honest import (
    Judging,
    Solved,
    contradictions,
    group_notes,
    held_out,
    plan_judging,
    solve,
    without_leaks,
)
from foveate.training.previous import compare_with_last
from foveate.training.refusal import Refusal, fit_refusal, note_of
from foveate.training.report import (
    ALONE,
    Clock,
    brief,
    data_json,
    duplicate_notes,
    write_metrics,
    write_predictions,
)
from foveate.weights.starting_point import OWN, Loaded, StartingPoint, find_start


@dataclass(frozen=True)
class Effort:
    """What the one setting decides.

    Args:
        size: of the input, as a multiple of the weights' own.
        mirror: whether the mirror image is seen.
        beside: the backbones that are tried beside the model.
        too: the size at which whole images are tried beside what was chosen, in the same measure.
    """

    size: float
    mirror: bool
    beside: tuple[str, ...] = ()
    too: float | None = None


EFFORTS = {
    "fast": Effort(1, mirror=False),
    "best": Effort(9 / 7, mirror=True, too=1),  # 288 pixels for 224
    "most": Effort(1, mirror=False, beside=("efficientnet_lite1", "efficientnet_lite2")),
}
SIDE_BY_SIDE = ("whole", "2/3")  # framings of each backbone of "most"


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
    framing: str = "auto"
    fit: Fit | None = None
    reject: float | None = None
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
    confirmed: frozenset[str] = frozenset(),
    shared: Grouping | None = None,
) -> Classifier:
    """Extract features, choose what is seen, solve the head, measure it, and write the run's
    files. `confirmed` are files whose label a person has found right; `shared` are groups of the
    dataset that were found before."""

    def say(sentence: str) -> None:
        progress.say(sentence)
        run.log(sentence)

    run.log(f"foveate {command or 'train'}")
    effort = EFFORTS[config.effort]
    starts = [start, *map(find_start, effort.beside)]
    if any(not one.is_here for one in starts):
        with clock.phase("weights"):
            for one in starts:
                one.fetch(progress)
    with clock.phase("features"):
        learnt = np.flatnonzero([split != "test" for split in dataset.splits])
        levels = find_levels(dataset, learnt, threads)
        wholes = [  # levels also in place of those of a run that it goes on from
            replace(shown(one.preprocess, effort.size), levels=levels.levels) for one in starts
        ]
        extractors = [
            ViewExtractor(dataset, one, whole, effort.mirror, config.engine, threads, progress)
            for one, whole in zip(starts, wholes, strict=True)
        ]
        first = "whole" if config.framing == AUTO else config.framing
        asked = wholes[0].framed(first, config.fit or "crop")
        # groups are found in whole images, whatever the head will see; built-in sets have none
        look = config.groups == "auto" and dataset.pixels is None and shared is None
        views = list(dict.fromkeys([*(wholes[0].views if look else ()), *asked.views]))
        everything = replace(asked.alone(views[0]), more=tuple(views[1:]))
        found = extractors[0].extract(dataset, everything)
    apply_policy(len(dataset), found.bad, on_bad, found.damaged)
    readable = [i for i, name in enumerate(dataset.files) if name not in found.bad]
    good = np.array(readable, dtype=np.int64)
    dataset, bad, seen = dataset.select(good), found.bad, found.select(good)
    known = dict(zip(views, np.split(seen.features, len(views), axis=1), strict=True))
    for each in extractors:
        each.keep(dataset, known if each is extractors[0] else {})
    check_trainable(dataset)

    is_test = np.array([split == "test" for split in dataset.splits])
    learnt, classes = np.flatnonzero(~is_test), dataset.classes
    with clock.phase("groups"):
        whole = replace(seen, features=known[views[0]]) if look else None
        if shared is not None:
            grouping = shared.select(dataset, good)
        else:
            grouping = find_groups(dataset, whole, config.groups, threads, progress)
        judging = plan_judging(dataset, grouping, ~is_test, config.seed)
    with clock.phase("head"):
        area = area_seen(dataset, learnt, wholes[0]) if config.fit is None else 1.0
        result = learn(
            dataset,
            grouping,
            judging,
            extractors,
            asked,
            area,
            config,
            threads,
            progress,
            confirmed,
            say,
        )
    choice, solved, doubts, refusal = (
        result.choice,
        result.solved,
        result.doubts,
        result.refusal,
    )
    head, decision = solved.head, solved.decision
    splits, evaluated = result.splits, result.evaluated
    area = area_seen(dataset, learnt, choice.branches[0].preprocess)

    notes = [*dataset.notes, *duplicate_notes(dataset), *damage_notes(found.damaged)]
    notes += [start.remark] if start.remark else []
    notes += [levels.note] if levels.note else []
    notes += (
        [note]
        if (note := area_note(area, config.framing, choice.branches[0].preprocess.fit))
        else []
    )
    notes += group_notes(dataset, grouping, judging)
    notes += contradictions(splits)
    notes += doubts.notes(dataset)
    notes += note_of(refusal, config.reject)
    with clock.phase("saving"):
        provenance = {"command": command, "environment": environment(), **config.to_dict()}
        classifier = save_probe(
            run.folder / "classifier",
            choice.branches,
            head,
            decision,
            classes,
            config.engine,
            {"metrics": brief(splits), "provenance": provenance}
            | ({} if refusal is None else {"rejection": refusal.certificate}),
            result.relation,
            None if refusal is None else refusal.rejection,
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
                links=grouping.linked(),
            ),
        )
        path = [{"penalty": penalty, "log_loss": loss} for penalty, loss in head.path]
        run.write_lines("history.jsonl", path)
        run.write("review.json", doubts.to_dict(dataset) | {"confirmed": sorted(confirmed)})
        rows = write_predictions(run, dataset, evaluated, decision)
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
            "seen": {"area": round(area, 4), **choice.to_dict()},
            "computed": found.computed,
            "penalty": head.penalty,
            "temperature": head.temperature,
            "suspects": len(doubts.suspects),
            "rejection": None if refusal is None else refusal.certificate,
            **compared,
        },
        splits=splits,
    )
    log_notes(notes, bad)
    classifier.threads = threads
    return classifier


@dataclass(frozen=True)
class Learnt:
    """What follows from features and labels alone: a second time, and without the images, it is
    the same.

    Args:
        choice: what is seen, and by which backbones.
        solved: the head, and its figures out of fold.
        doubts: of the labels.
        relation: of confidence and distance to being right, of one class an image.
        refusal: when to answer none of these, if that was asked for and can be had.
        splits: figures of each split.
        evaluated: its rows and probabilities.
    """

    choice: Choice
    solved: Solved
    doubts: Doubts
    relation: Relation | None
    refusal: Refusal | None
    splits: dict[str, dict[str, Any]]
    evaluated: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]


def learn(
    dataset: Dataset,
    grouping: Grouping,
    judging: Judging,
    extractors: list[ViewExtractor],
    asked: Preprocess,
    area: float,
    config: ProbeConfig,
    threads: int,
    progress: Progress,
    confirmed: frozenset[str],
    say: Callable[[str], None],
    foreign: bool = True,
) -> Learnt:
    """Choose what is seen, solve the head, and measure it.

    Args:
        dataset: whose images can all be read, or are known to the extractors.
        grouping, judging: of it.
        extractors: one of each backbone.
        asked: what is seen where there is no choice.
        area: share of an image's area that is seen of whole images.
        config: of the run.
        confirmed: files whose label a person has found right.
        say: is given a line on each branch that is tried.
        foreign: measure what is refused of images of nothing, some of which are made of the
            dataset's, which are read for it.
    """
    effort, classes = EFFORTS[config.effort], dataset.classes
    honest = HonestFolds(dataset.labels, judging, len(classes), threads, progress)
    beside: ViewExtractor | None = None
    if not (judging.folds >= 0).any():  # nothing to choose by
        choice = Choice((extractors[0].branch(asked),), extractors[0].features(asked))
    elif effort.beside:
        framings = SIDE_BY_SIDE if config.framing == AUTO else parts_of(config.framing)
        if config.fit not in (None, "crop"):
            framings = (config.fit,)
        elif config.framing == AUTO and area < LONG:
            framings = ("squash", *framings)
        choice = choose_branches(extractors, framings, honest, say)
    elif config.framing == AUTO and config.fit in (None, "crop"):
        choice = choose_framing(extractors[0], honest, effort.too is not None, area)
        if effort.too is not None:
            start, levels = extractors[0].start, extractors[0].whole.levels
            other = replace(shown(start.preprocess, effort.too), levels=levels)
            asked_of = (effort.mirror, config.engine, threads, progress)
            beside = ViewExtractor(dataset, start, other, *asked_of)
            choice = choose_size_beside(choice, beside, honest)
    else:
        progress.begin("head", len(PENALTIES))
        choice = Choice((extractors[0].branch(asked),), extractors[0].features(asked))
    solved = solve(
        dataset,
        choice.features,
        grouping,
        judging,
        config.seed,
        threads,
        progress.advance,
        choice.head,
        choice.rivals,
    )
    head, decision, features = solved.head, solved.decision, choice.features
    groups = judging.groups[judging.folds >= 0]
    answers = Answers(judging.judged, solved.probabilities, groups)
    doubts = doubt_labels(dataset, grouping, features, answers, solved.figures, confirmed)
    relation = None
    if dataset.task == "multiclass":
        relation = fit_relation(
            features,
            judging.rows,
            dataset.labels[judging.rows],
            judging.groups,
            judging.folds,
            head.out_of_fold,
            len(classes),
            threads,
        )
    refusal = None
    if config.reject is not None:
        everyone = [*extractors, *([beside] if beside is not None else [])]
        refusal = fit_refusal(
            dataset,
            judging,
            head,
            features,
            config.reject,
            config.seed,
            threads,
            (lambda images: seen_by(choice, everyone, images)) if foreign else None,
        )
    evaluated = {"out_of_fold": (judging.judged, solved.probabilities)}
    splits = {"out_of_fold": solved.figures}
    test = np.flatnonzero([split == "test" for split in dataset.splits])
    if len(test):
        probabilities = decision.probabilities(features[test] @ head.weight.T + head.bias)
        evaluated["test"] = test, probabilities
        splits["test"] = held_out(dataset, grouping, test, probabilities, decision)
    if refusal is not None:
        for split, (rows, probabilities) in evaluated.items():
            right = probabilities.argmax(axis=1) == dataset.labels[rows]
            reasons = None
            if split == "test":
                logits = features[test] @ head.weight.T + head.bias
                reasons = refusal.rejection.refused(features[test], logits)
            groups = grouping.groups[rows]
            refusal.judge(split, splits[split], right, reasons, groups, config.seed)
    return Learnt(choice, solved, doubts, relation, refusal, splits, evaluated)


def seen_by(
    choice: Choice, extractors: list[ViewExtractor], images: Dataset
) -> NDArray[np.float32]:
    """(N, width), what the chosen backbones make of other images."""
    parts = []
    for start, preprocess, *_ in choice.branches:
        extractor = next(
            e for e in extractors if e.start is start and e.whole.crop == preprocess.crop
        )
        parts.append(extractor.extracted(images, preprocess, Silent()))
    return np.concatenate(parts, axis=1)
