"""The probe: a frozen backbone sees each image once, its pooled stages are cached, a linear head is
solved on them. Nothing is trained step by step, so it takes seconds; what it knows of its own
quality comes from images that the judging head did not see.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from foveate.classifier import Classifier
from foveate.classifier.decision import decide
from foveate.classifier.saving import save_probe
from foveate.data.dataset import Dataset, Task, apply_policy, check_trainable
from foveate.data.preprocess import Preprocess
from foveate.data.splits import check_spread, stratified_folds
from foveate.features import extract
from foveate.heads import PENALTIES, fit_head
from foveate.machine import environment
from foveate.progress import Progress
from foveate.runs import Run
from foveate.training.report import BRIEF, Clock, describe, judgements, twins
from foveate.weights import Weights, is_here, source_file

FOLDS = 5
STRETCH = 1.12  # of a longer side that is squeezed into the square; measured in docs/LOG.md


@dataclass(frozen=True)
class Effort:
    """What the one dial sets: the input's size, in parts of the weights' own, and whether the
    mirror image is seen."""

    size: float
    mirror: bool


EFFORTS = {
    "fast": Effort(1, mirror=False),
    "best": Effort(9 / 7, mirror=True),
}  # 224 px; 288 px and mirrored


@dataclass(frozen=True)
class ProbeConfig:
    """What a probe's run was asked; saved in its config.json."""

    data: str  # the set's name
    fingerprint: str  # of its files, labels, splits and groups
    model: str
    effort: str
    seed: int
    on_bad: Literal["skip", "error"]
    engine: str
    task: Task
    recipe: str = "probe"


def shown(weights: Weights, scale: float = 1.0) -> Preprocess:
    """How a probe shows images to a backbone: at its weights' own size, or at so many parts of
    it."""
    published = weights.preprocess
    size = published.crop if scale == 1 else 32 * round(published.crop * scale / 32)
    return published.at(size, STRETCH)


def solve_probe(
    run: Run,
    dataset: Dataset,
    config: ProbeConfig,
    weights: Weights,
    threads: int,
    progress: Progress,
    clock: Clock,
    command: str,
) -> Classifier:
    """Features, head, judgement, and the run's files."""
    run.log(f"foveate {command or 'train'}")
    if not is_here(weights):
        with clock.phase("weights"):
            source_file(weights, progress=progress)
    dial = EFFORTS[config.effort]
    preprocess = shown(weights, dial.size)
    with clock.phase("features"):
        found = extract(
            dataset, config.model, preprocess, dial.mirror, config.engine, threads, progress
        )
    apply_policy(len(dataset), found.bad, config.on_bad)
    good = np.array(
        [i for i, name in enumerate(dataset.files) if name not in found.bad], dtype=np.int64
    )
    dataset, features = dataset.select(good), found.features[good]
    check_trainable(dataset)

    is_test = np.array([split == "test" for split in dataset.splits])
    learn, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    progress.begin("head", len(PENALTIES))
    with clock.phase("head"):
        groups = dataset.grouping()[learn]
        check_spread(dataset.labels[learn], groups, dataset.classes)
        folds = stratified_folds(dataset.labels[learn], groups, FOLDS, config.seed)
        head = fit_head(
            features[learn],
            dataset.labels[learn],
            folds,
            len(dataset.classes),
            threads,
            progress.advance,
        )

    decision = decide(head.out_of_fold, dataset.labels[learn])
    judged = {"out_of_fold": (learn, decision.probabilities(head.out_of_fold))}
    if len(test):
        judged["test"] = (test, decision.probabilities(features[test] @ head.weight.T + head.bias))
    results = {
        split: decision.summarise(probabilities, dataset.labels[rows], dataset.classes)
        for split, (rows, probabilities) in judged.items()
    }

    notes = [*dataset.notes, *twins(dataset)]
    with clock.phase("saving"):
        about = {
            "metrics": {
                split: {key: result[key] for key in BRIEF} for split, result in results.items()
            },
            "provenance": {"command": command, "environment": environment(), **asdict(config)},
        }
        classifier = save_probe(
            run.folder / "classifier",
            config.model,
            head,
            decision,
            dataset.classes,
            preprocess,
            dial.mirror,
            config.engine,
            about,
        )
        run.write("data.json", describe(dataset, found.bad, notes, learn, folds))
        run.write_lines(
            "history.jsonl", [{"penalty": p, "log_loss": loss} for p, loss in head.path]
        )
        run.write_lines("predictions.jsonl", list(judgements(dataset, judged, decision)))
        for sentence in [*notes, *found.bad.values()]:
            run.log(sentence)
    run.write(
        "metrics.json",
        {
            "model": config.model,
            "recipe": config.recipe,
            "effort": config.effort,
            "engine": config.engine,
            "seed": config.seed,
            "seconds": clock.seconds(),
            "computed": found.computed,
            "penalty": head.penalty,
            "temperature": head.temperature,
            "bad": found.bad,
            "notes": notes,
            **results,
        },
    )
    return classifier
