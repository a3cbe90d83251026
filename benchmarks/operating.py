"""Is what is asked of a class kept on new images?

    python benchmarks/operating.py DATA [--times 100]

Of each resampling, one class of DATA is the positive one and all others together are the negative
one: a task of two classes. Half of the groups of images, drawn at random, are learnt from as
`foveate train` does it: a head with its folds, a threshold fixed on what it says out of fold. The
other half are the new images, on which recall and precision are measured. Beside it the usual way:
the threshold at which what is asked holds on the very images by which it is chosen.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray

import foveate
from foveate.audit.groups import find_groups
from foveate.audit.inspection import look
from foveate.data.splits import judging_folds
from foveate.evaluation.operating import Target, fix_threshold, judge
from foveate.heads import fit_head
from foveate.machine import cores_to_use
from foveate.metrics import ranked_counts, softmax
from foveate.progress import Silent
from foveate.weights.starting_point import EMBEDDED, find_start

ASKED = (("recall", 0.9), ("recall", 0.95), ("precision", 0.8), ("precision", 0.9))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS / "operating.json")
    arguments = parser.parse_args()
    dataset, threads = foveate.load_dataset(arguments.data), cores_to_use(None, shared=False)
    found = look(dataset, find_start(EMBEDDED), threads, Silent())
    readable = np.flatnonzero([name not in found.bad for name in dataset.files])
    dataset, found = dataset.select(readable), found.select(readable)
    groups = find_groups(dataset, found, "auto", threads, Silent()).groups
    rows: list[dict[str, Any]] = []
    for time in range(arguments.times):
        rows += resampled(found.features, dataset.labels, groups, dataset.classes, time, threads)
        print(rows[-len(ASKED) :], flush=True)
    report = described("operating", "foveate numpy") | {"data": dataset.name}
    report["times"] = arguments.times
    report["asked"] = [summary(rows, kind, asked) for kind, asked in ASKED]
    print(json.dumps(report["asked"], indent=1))
    save(report, arguments.out)


def resampled(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: tuple[str, ...],
    seed: int,
    threads: int,
) -> list[dict[str, Any]]:
    rng, positive = np.random.default_rng(seed), seed % len(classes)
    _, member = np.unique(groups, return_inverse=True)
    known = (rng.permutation(member.max() + 1) % 2 == 0)[member]
    there = labels == positive
    two = there.astype(np.int64)
    folds = judging_folds(two[known], member[known], seed)
    head = fit_head(features[known], two[known], folds, 2, threads)
    judged = folds >= 0
    scores = softmax(head.out_of_fold)[: int(judged.sum()), 1]
    own, of = there[known][judged], member[known][judged]
    new = softmax(features[~known] @ head.weight.T + head.bias)[:, 1]
    rows = []
    for kind, asked in ASKED:
        point = fix_threshold(Target(classes[positive], kind, asked), scores, own, of)
        measured = judge(point["threshold"], new, there[~known], member[~known])
        plain = judge(usual(kind, asked, scores, own), new, there[~known], member[~known])
        rows.append(
            {
                "class": classes[positive],
                "kind": kind,
                "asked": asked,
                "promised": point["kept"],
                "measured": measured[kind],
                "usual": plain[kind],
                "given": measured["given"] / measured["n"],
                "low": point["expected"]["low"],
                "high": point["expected"]["high"],
            }
        )
    return rows


def usual(kind: str, asked: float, scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """The highest threshold with the recall, or the lowest with the precision, on these images."""
    steps, found, others = ranked_counts(scores, there.astype(np.int64))
    if kind == "recall":
        return float(steps[np.flatnonzero(found / found[-1] >= asked)[0]])
    enough = np.flatnonzero(found / (found + others) >= asked)
    return float(steps[enough[-1]] if len(enough) else steps[0])


def summary(rows: list[dict[str, Any]], kind: str, asked: float) -> dict[str, Any]:
    some = [row for row in rows if (row["kind"], row["asked"]) == (kind, asked)]
    promised = [row for row in some if row["promised"] and row["measured"] is not None]
    values = [row["measured"] for row in promised]
    return {
        "kind": kind,
        "asked": asked,
        "promised": len(promised),
        "kept": sum(value >= asked for value in values),
        "median": float(np.median(values)) if values else None,
        "within": sum(row["low"] <= row["measured"] <= row["high"] for row in promised),
        "usual_kept": sum((row["usual"] or 0) >= asked for row in promised),
        "given": float(np.mean([row["given"] for row in promised])) if promised else None,
    }


if __name__ == "__main__":
    main()
