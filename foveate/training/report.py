"""What a run says of itself: seconds, notes, the files that describe data and predictions, curves.
It needs no torch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import option
from foveate.classifier.decision import Decision
from foveate.data.dataset import BETWEEN, Dataset, duplicates, listed
from foveate.errors import MissingExtraError
from foveate.metrics import believed
from foveate.runs import HEX, PROBABILITIES, Run
from foveate.storage import fingerprint, replacing

ALONE = (
    "the network's code was not saved: only a process that has it can predict, by "
    "Classifier.load(RUN).network(CLASS)"
)
# of a split's metrics, for the card
BRIEF = ("n", "accuracy", "accuracy_ci95", "macro_f1", "ece", "groups")


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


@dataclass(frozen=True)
class Record:
    """One epoch, as history.jsonl has it.

    Args:
        epoch: from 1; 0 is the state before the first.
        lr: rate of the last step, in parts of the highest.
        loss, accuracy: mean over the epoch's training images, as augmented, while the network was
            learning.
        validation_loss: log-loss in nats after calibration: what chooses the epoch that is kept.
        validation_accuracy: a fraction.
        gradient: mean norm of the gradient before clipping.
        seconds: training and validation.
        images_per_second: of the training.
        best: whether it was the best so far.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    gradient: float
    seconds: float
    images_per_second: float
    best: bool


def write_metrics(
    run: Run,
    *,
    model: str,
    recipe: str,
    engine: str,
    seed: int,
    seconds: dict[str, float],
    bad: dict[str, str],
    notes: list[str],
    details: dict[str, Any],
    splits: dict[str, dict[str, Any]],
) -> None:
    """Write metrics.json, the last file of a run: with it the run is finished.

    Args:
        run: its folder.
        model, recipe, engine, seed: what was trained.
        seconds: in all, and by phase.
        bad: name and reason of each unreadable image.
        notes: what a person should know.
        details: of the recipe: its penalty, or its epochs.
        splits: the metrics of each evaluated split, under its name.
    """
    about = {"model": model, "recipe": recipe, "engine": engine, "seed": seed, "seconds": seconds}
    run.write("metrics.json", about | details | {"bad": bad, "notes": notes} | splits)


def brief(splits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The few figures of each split that a card has: those that may be shown as a result."""
    nothing = {"n": 0, "accuracy": None, "accuracy_ci95": None, "macro_f1": None, "ece": None}
    found = {}
    for split, result in splits.items():
        figures = believed(result) or nothing
        found[split] = {key: figures[key] for key in BRIEF if key in figures}
    return found


def dataset_fingerprint(dataset: Dataset) -> str:
    """Of everything that a training sees of a dataset: bytes, labels, splits, groups. Where it lies
    plays no part."""
    rows = zip(
        dataset.digests, dataset.labels.tolist(), dataset.splits, dataset.groups, strict=True
    )
    return fingerprint([list(dataset.classes), sorted(rows)])


def duplicate_notes(dataset: Dataset) -> list[str]:
    """Notes on files with the same bytes: with two labels, or on both sides of the test split."""
    place = {name: i for i, name in enumerate(dataset.files)}
    sets = duplicates(dataset)
    contradictions = [names for names in sets if len({dataset.label(place[n]) for n in names}) > 1]
    tests = [[n for n in names if dataset.splits[place[n]] == "test"] for names in sets]
    leaks = [(n, names) for n, names in zip(tests, sets, strict=True) if 0 < len(n) < len(names)]
    notes = []
    if contradictions:
        what = "have different labels" if dataset.task == "multilabel" else "are in two classes"
        first = listed(contradictions[0])
        images = "1 image" if len(contradictions) == 1 else f"{len(contradictions)} images"
        if len(contradictions) == 1:
            what = what.replace("have", "has").replace("are", "is")
        notes.append(f"{images} {what}, byte for byte: {first}")
    if leaks:
        n = sum(len(tests) for tests, _ in leaks)
        images = "1 test image is" if n == 1 else f"{n} test images are"
        notes.append(f"{images} also outside the test split, byte for byte: {listed(leaks[0][1])}")
    return notes


def data_json(
    dataset: Dataset,
    bad: dict[str, str],
    notes: list[str],
    learn: NDArray[np.int64] | None = None,
    folds: NDArray[np.int64] | None = None,
    *,
    groups: list[dict[str, Any]],
    looked_for: tuple[str, ...],
    links: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What data.json holds: every file's split, label or labels, hash and, where images are in
    folds, its fold; the groups, each with its kind and reason; and where they are given, the links
    that make them."""
    several = dataset.task == "multilabel"
    labels = (
        [np.flatnonzero(row).tolist() for row in dataset.labels]
        if several
        else dataset.labels.tolist()
    )
    fold = (
        {}
        if learn is None or folds is None
        else dict(zip(learn.tolist(), folds.tolist(), strict=True))
    )
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "counts": dataset.counts(),
        "bad": bad,
        "ignored": list(dataset.ignored),
        "notes": notes,
        "groups": groups,
        "looked_for": list(looked_for),
        **({} if links is None else {"links": links}),
        "files": {
            name: {
                "split": split,
                "label": label,
                **({"fold": fold[i]} if i in fold else {}),
                "sha256": digest[:HEX],
            }
            for i, (name, split, label, digest) in enumerate(
                zip(dataset.files, dataset.splits, labels, dataset.digests, strict=True)
            )
        },
    }


def predictions(
    dataset: Dataset,
    evaluated: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]],
    decision: Decision,
) -> Iterator[dict[str, Any]]:
    """Every evaluated image: its true class, the best guess, and how probable both are; or its true
    and given labels, and how probable each of these is."""
    for split, (rows, probabilities) in evaluated.items():
        for row, p, given in zip(rows, probabilities, decision.answers(probabilities), strict=True):
            names = [dataset.classes[c] for c in np.flatnonzero(given)]
            row_of = {"split": split, "file": dataset.files[row], "label": dataset.label(row)}
            row_of["predicted"] = BETWEEN.join(names)
            row_of["sha256"] = dataset.digests[row][:HEX]
            if dataset.task == "multilabel":
                which = np.flatnonzero(given | (dataset.labels[row] == 1))
                yield row_of | {
                    "probabilities": {dataset.classes[c]: round(float(p[c]), 6) for c in which}
                }
            else:
                best, true = float(p.max()), float(p[dataset.labels[row]])
                yield row_of | {
                    "probability": round(best, 6),
                    "probability_of_label": round(true, 6),
                }


def write_predictions(
    run: Run,
    dataset: Dataset,
    evaluated: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]],
    decision: Decision,
) -> list[dict[str, Any]]:
    """Write predictions.jsonl, and the probabilities of all classes beside it.

    Returns:
        The lines of predictions.jsonl.
    """
    rows = list(predictions(dataset, evaluated, decision))
    run.write_lines("predictions.jsonl", rows)
    whole = {split: p.astype(np.float32) for split, (_, p) in evaluated.items()}
    run.write_arrays(PROBABILITIES, whole)
    return rows


GAP = 0.15  # between training and validation accuracy: more is knowing by heart


FEW = 3  # epochs, at least, for a trend
RARE = 0.5  # of the mean number of images of a class: as many or fewer are rare


def remarks(
    history: tuple[Record, ...],
    given: NDArray[np.bool_],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    stopped_early: bool,
    *,
    sizes: NDArray[np.int64],
    policy: str,
    balance: str,
) -> list[str]:
    """What is wrong with a training that has ended, each with what to do about it.

    Args:
        history: its records; one of epoch 0 is the state before it.
        given: (N, classes), what the network that is kept makes of the validation images.
        labels: (N,), theirs; or (N, classes), 0 or 1.
        classes: names.
        stopped_early: by its patience.
        sizes: (classes,), training images of each.
        policy, balance: of the training: what it has is not advised.
    """
    notes = []
    epochs = [r for r in history if r.epoch > 0]
    first, last = epochs[0], epochs[-1]
    best = max((r for r in history if r.best), key=lambda r: r.epoch)
    enough = len(epochs) >= FEW
    nothing = enough and is_guessing(epochs, labels)
    if enough and last.loss > 1.05 * first.loss:
        notes.append(
            f"the training loss rose, from {first.loss:.3f} to {last.loss:.3f}: lower "
            f"{option('lr')}"
        )
    elif nothing:
        chance = commonest(labels)
        notes.append(
            f"nothing was learnt: validation accuracy never passed {chance:.0%}, the share of the "
            f"commonest answer; try another {option('lr')}: {option('find_lr')} suggests one"
        )
    if best.epoch == 0:
        notes.append(
            "no epoch was better than the probe that fine-tuning began with, so the probe is what "
            "is kept"
        )
    elif len(epochs) - best.epoch >= FEW and last.accuracy - last.validation_accuracy > GAP:
        remedy = (
            "More images"
            if policy == "strong"
            else f"A stronger {option('augment')} or more images"
        )
        notes.append(
            f"it overfits: after epoch {best.epoch} validation got worse while training accuracy "
            f"rose to {last.accuracy:.0%}; epoch {best.epoch} is kept. {remedy} help"
        )
    elif best is last and not stopped_early and enough and last.validation_accuracy < 1:
        notes.append(f"the last epoch was the best: more {option('epochs')} may bring more")
    there = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    never = np.flatnonzero(there.any(axis=0) & ~given.any(axis=0))
    if len(never):
        rare = labels.ndim == 1 and bool((sizes[never] <= RARE * sizes.mean()).all())
        several = "they are" if len(never) > 1 else "it is"
        remedy = (
            f"; {several} rare: try {option('balance', 'sampling')}"
            if rare and balance == "none"
            else ""
        )
        names = listed([classes[c] for c in never])
        notes.append(f"never predicted on validation: {names}{remedy}")
    return notes


def commonest(labels: NDArray[np.int64]) -> float:
    """The share of the commonest answer: the accuracy of giving it always."""
    return float(np.unique(labels, axis=0, return_counts=True)[1].max() / len(labels))


def is_guessing(epochs: list[Record], labels: NDArray[np.int64]) -> bool:
    """Whether no epoch did better on validation than a guess that knows how often each class
    occurs. Both are asked: where one class is nearly all there is, accuracy has no room above it.
    """
    chance = commonest(labels)
    shares = labels.mean(axis=0) if labels.ndim == 2 else np.bincount(labels) / len(labels)
    p = shares[(shares > 0) & (shares < 1)]
    blind = float(-(p * np.log(p)).sum())  # log-loss of that guess
    if labels.ndim == 2:
        blind -= float(((1 - p) * np.log(1 - p)).sum())
    return (
        max(r.validation_accuracy for r in epochs) <= chance + 0.02
        and min(r.validation_loss for r in epochs) > 0.9 * blind
    )


class EpochLog:
    """Each epoch's figures for TensorBoard, if it is asked for, in the run's folder `tensorboard`.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Path, tensorboard: bool):
        self.writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError(
                    "TensorBoard is not installed: pip install 'foveate[track]'"
                ) from error
            self.writer = SummaryWriter(str(run / "tensorboard"))

    def add(self, record: Record) -> None:
        if self.writer is None:
            return
        validated = {
            "loss/validation": record.validation_loss,
            "accuracy/validation": record.validation_accuracy,
        }
        learnt = {
            "loss/training": record.loss,
            "accuracy/training": record.accuracy,
            "rate": record.lr,
            "gradient": record.gradient,
            "images_per_second": record.images_per_second,
        }
        for name, value in {
            **validated,
            **(learnt if record.epoch else {}),
        }.items():  # nothing is learnt before epoch 1
            self.writer.add_scalar(name, value, record.epoch)
        self.writer.flush()

    def close(self) -> None:
        """End the writer's thread."""
        if self.writer is not None:
            self.writer.close()


TRAINING, VALIDATION, MARK = "#4878a8", "#c8643c", "#909090"


def draw_curves(path: Path, history: tuple[Record, ...]) -> None:
    """Loss and accuracy by epoch, training beside validation, and the epoch that is kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    learnt = [r for r in history if r.epoch > 0]
    best = max((r for r in history if r.best), key=lambda r: r.epoch)
    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, mine, its in (
        (left, "log-loss", "loss", "validation_loss"),
        (right, "accuracy", "accuracy", "validation_accuracy"),
    ):
        draw(
            axes,
            [r.epoch for r in learnt],
            [getattr(r, mine) for r in learnt],
            TRAINING,
            "training, augmented",
        )
        draw(
            axes,
            [r.epoch for r in history],
            [getattr(r, its) for r in history],
            VALIDATION,
            "validation",
        )
        axes.axvline(best.epoch, color=MARK, linewidth=1, linestyle=":")
        axes.annotate(
            f"kept: {getattr(best, its):.3f}",
            (best.epoch, getattr(best, its)),
            fontsize=8,
            xytext=(4, 6),
            textcoords="offset points",
            color=VALIDATION,
        )
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]


def draw(axes: Any, x: list[int], y: list[float], colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label, linewidth=1.5, marker="o", markersize=3)
