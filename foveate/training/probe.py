"""From pictures to a classifier.

The probe: a frozen backbone sees each picture once, its pooled stages are cached, a linear head is solved on them.
Nothing is trained step by step, so it takes seconds; what it knows of its own quality comes from pictures that the
judging head did not see.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foveate.classifier import Classifier, save_classifier
from foveate.data.dataset import Dataset, apply_policy, check_trainable, duplicates, listed, load_dataset
from foveate.data.folds import stratified_folds
from foveate.data.loader import cores
from foveate.engine import choose_engine
from foveate.errors import UsageError
from foveate.features import extract
from foveate.heads import PENALTIES, fit_head
from foveate.metrics import softmax, summarise
from foveate.progress import Progress, Silent
from foveate.runs import Run, environment
from foveate.storage import fingerprint
from foveate.weights import Weights, find_weights, is_here, source_file

FOLDS = 5
BRIEF = ("n", "accuracy", "accuracy_ci95", "ece")  # of a split's metrics, for the card
STRETCH = 1.12  # of a longer side that is squeezed into the square; measured in docs/LOG.md


@dataclass(frozen=True)
class Effort:
    """What the one dial sets: the input's size, in parts of the weights' own, and whether the mirror image is seen."""

    size: float
    mirror: bool


EFFORTS = {"fast": Effort(1, mirror=False), "best": Effort(9 / 7, mirror=True)}  # 224 px; 288 px and mirrored


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
    recipe: str = "probe"


def train(
    data: str | os.PathLike[str] | Dataset,
    model: str = "efficientnet_lite0",
    effort: Literal["fast", "best"] = "fast",
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    on_bad: Literal["skip", "error"] = "skip",
    engine: Literal["auto", "openvino", "torch"] = "auto",
    threads: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Classifier:
    """Turn labelled pictures into a classifier.

    Args:
        data: a folder (one folder per class, or train / val / test), a CSV, a built-in name, or a Dataset.
        model: a network with published weights, which are downloaded if they are not here; `foveate models` lists them.
        effort: "fast" sees each picture once at the weights' own size; "best" sees it larger, and its mirror image,
            for about four times the cost.
        out: the run's folder; by default runs/NAME, never one that exists.
        seed: of the folds.
        on_bad: unreadable pictures: "skip" them, naming each, unless they are more than 5 %; or make it an "error".
        engine: what runs the backbone; "auto" takes the fastest that is there.
        threads: cores to use; all by default.
        resume: go on with the interrupted run in `out`; a finished one is left as it is.
        progress: hears how far it is.
        command: what was typed, for the card.

    Returns:
        The saved Classifier. Its `run` is the folder with the metrics, which come from pictures that the judged head
        did not see: `out_of_fold` from cross-validation over all but the test split, `test` from that split.

    Raises:
        DataError: the data cannot be learnt from.
        UsageError: an argument that does not exist or does not fit; a run that exists.
        FoveateError: the model's weights cannot be had.
    """
    if effort not in EFFORTS:
        raise UsageError(f"no effort is called '{effort}'; expected {' or '.join(EFFORTS)}")
    if on_bad not in ("skip", "error"):
        raise UsageError(f"no policy is called '{on_bad}'; expected skip or error")
    if threads is not None and not threads >= 1:
        raise UsageError(f"expected at least 1 thread, got {threads}")
    threads = min(threads or cores(), cores())
    kind = choose_engine(engine)
    weights = find_weights(model)
    progress = progress or Silent()
    clock = Clock()

    dataset = data if isinstance(data, Dataset) else load_dataset(data)
    check_trainable(dataset)
    with clock.phase("reading"):
        config = ProbeConfig(dataset.name, dataset_fingerprint(dataset), model, effort, seed, on_bad, kind)
    run = Run.open(Path(out) if out is not None else None, dataset.name, asdict(config), resume)
    if resume and run.finished:
        return Classifier.load(run.folder)
    with run.kept_if_whole():
        return solve_probe(run, dataset, config, weights, threads, progress, clock, command)


def solve_probe(
    run: Run,
    dataset: Dataset,
    config: ProbeConfig,
    weights: Weights,
    threads: int,
    progress: Progress,
    clock: "Clock",
    command: str,
) -> Classifier:
    """Features, head, judgement, and the run's files."""
    run.log(f"foveate {command or 'train'}")
    if not is_here(weights):
        with clock.phase("weights"):
            source_file(weights, progress=progress)
    dial, published = EFFORTS[config.effort], weights.preprocess
    size = published.crop if dial.size == 1 else 32 * round(published.crop * dial.size / 32)
    preprocess = published.at(size, STRETCH)
    with clock.phase("features"):
        found = extract(dataset, config.model, preprocess, dial.mirror, config.engine, threads, progress)
    apply_policy(len(dataset), found.bad, config.on_bad)
    good = np.array([i for i, name in enumerate(dataset.files) if name not in found.bad], dtype=np.int64)
    dataset, features = dataset.select(good), found.features[good]
    check_trainable(dataset)

    is_test = np.array([split == "test" for split in dataset.splits])
    learn, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    progress.begin("head", len(PENALTIES))
    with clock.phase("head"):
        folds = stratified_folds(dataset.labels[learn], dataset.grouping()[learn], FOLDS, config.seed)
        head = fit_head(features[learn], dataset.labels[learn], folds, len(dataset.classes), threads, progress.advance)

    judged = {"out_of_fold": (learn, softmax(head.out_of_fold))}
    if len(test):
        judged["test"] = (test, softmax(features[test] @ head.weight.T + head.bias))
    results = {
        split: summarise(probabilities, dataset.labels[rows], dataset.classes)
        for split, (rows, probabilities) in judged.items()
    }

    notes = [*dataset.notes, *twins(dataset)]
    with clock.phase("saving"):
        about = {
            "metrics": {split: {key: result[key] for key in BRIEF} for split, result in results.items()},
            "provenance": {"command": command, "environment": environment(), **asdict(config)},
        }
        classifier = save_classifier(
            run.folder / "classifier",
            config.model,
            head,
            dataset.classes,
            preprocess,
            dial.mirror,
            config.engine,
            about,
        )
        run.write("data.json", describe(dataset, found.bad, notes, learn, folds))
        run.write_lines("history.jsonl", [{"penalty": p, "log_loss": loss} for p, loss in head.path])
        run.write_lines("predictions.jsonl", list(judgements(dataset, judged)))
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


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.phases[name] = round(time.perf_counter() - begun, 3)

    def seconds(self) -> dict[str, float]:
        return {"total": round(time.perf_counter() - self.start, 3), **self.phases}


def dataset_fingerprint(dataset: Dataset) -> str:
    """Of everything that a training sees of a dataset: bytes, labels, splits, groups. Where it lies plays no part."""
    rows = zip(dataset.digests, dataset.labels.tolist(), dataset.splits, dataset.groups, strict=True)
    return fingerprint([list(dataset.classes), sorted(rows)])


def twins(dataset: Dataset) -> list[str]:
    """Notes on files with the same bytes: with two labels, or on both sides of the test split."""
    place = {name: i for i, name in enumerate(dataset.files)}
    sets = duplicates(dataset)
    quarrels = [names for names in sets if len({int(dataset.labels[place[n]]) for n in names}) > 1]
    leaks = [names for names in sets if len({dataset.splits[place[n]] == "test" for n in names}) > 1]
    notes = []
    if quarrels:
        notes.append(f"{len(quarrels)} pictures are in two classes, byte for byte: {listed(quarrels[0])}")
    if leaks:
        notes.append(f"{len(leaks)} test pictures are also outside the test split, byte for byte: {listed(leaks[0])}")
    return notes


def describe(
    dataset: Dataset, bad: dict[str, str], notes: list[str], learn: NDArray[np.int64], folds: NDArray[np.int64]
) -> dict[str, Any]:
    """What data.json holds: every file's split, label and fold."""
    fold = dict(zip(learn.tolist(), folds.tolist(), strict=True))
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "counts": dataset.counts(),
        "bad": bad,
        "ignored": list(dataset.ignored),
        "notes": notes,
        "files": {
            name: {"split": split, "label": int(label), **({"fold": fold[i]} if i in fold else {})}
            for i, (name, split, label) in enumerate(zip(dataset.files, dataset.splits, dataset.labels, strict=True))
        },
    }


def judgements(
    dataset: Dataset, judged: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> Iterator[dict[str, Any]]:
    """Every judged picture: its true class, the best guess, and how probable both are."""
    for split, (rows, probabilities) in judged.items():
        for row, p in zip(rows, probabilities, strict=True):
            best, true = int(p.argmax()), int(dataset.labels[row])
            yield {
                "split": split,
                "file": dataset.files[row],
                "label": dataset.classes[true],
                "predicted": dataset.classes[best],
                "probability": round(float(p[best]), 6),
                "probability_of_label": round(float(p[true]), 6),
            }
