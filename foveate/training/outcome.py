"""What all recipes leave in a run's folder, and how they measure the time they take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import BETWEEN, Dataset, duplicates, listed
from foveate.decision import Decision
from foveate.storage import fingerprint

BRIEF = ("n", "accuracy", "accuracy_ci95", "macro_f1", "ece")  # of a split's metrics, for the card


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
    quarrels = [names for names in sets if len({dataset.label(place[n]) for n in names}) > 1]
    leaks = [names for names in sets if len({dataset.splits[place[n]] == "test" for n in names}) > 1]
    notes = []
    if quarrels:
        what = "have different labels" if dataset.task == "multilabel" else "are in two classes"
        notes.append(f"{len(quarrels)} pictures {what}, byte for byte: {listed(quarrels[0])}")
    if leaks:
        notes.append(f"{len(leaks)} test pictures are also outside the test split, byte for byte: {listed(leaks[0])}")
    return notes


def describe(
    dataset: Dataset,
    bad: dict[str, str],
    notes: list[str],
    learn: NDArray[np.int64] | None = None,
    folds: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """What data.json holds: every file's split, label or labels and, where pictures were dealt into folds, its fold."""
    several = dataset.task == "multilabel"
    labels = [np.flatnonzero(row).tolist() for row in dataset.labels] if several else dataset.labels.tolist()
    fold = {} if learn is None or folds is None else dict(zip(learn.tolist(), folds.tolist(), strict=True))
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "counts": dataset.counts(),
        "bad": bad,
        "ignored": list(dataset.ignored),
        "notes": notes,
        "files": {
            name: {"split": split, "label": label, **({"fold": fold[i]} if i in fold else {})}
            for i, (name, split, label) in enumerate(zip(dataset.files, dataset.splits, labels, strict=True))
        },
    }


def judgements(
    dataset: Dataset, judged: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]], decision: Decision
) -> Iterator[dict[str, Any]]:
    """Every judged picture: its true class, the best guess, and how probable both are; or its true and given labels,
    and how probable each of these is."""
    for split, (rows, probabilities) in judged.items():
        for row, p, given in zip(rows, probabilities, decision.answers(probabilities), strict=True):
            names = [dataset.classes[c] for c in np.flatnonzero(given)]
            told = {"split": split, "file": dataset.files[row], "label": dataset.label(row)}
            told["predicted"] = BETWEEN.join(names)
            if dataset.task == "multilabel":
                which = np.flatnonzero(given | (dataset.labels[row] == 1))
                yield told | {"probabilities": {dataset.classes[c]: round(float(p[c]), 6) for c in which}}
            else:
                best, true = float(p.max()), float(p[dataset.labels[row]])
                yield told | {"probability": round(best, 6), "probability_of_label": round(true, 6)}
