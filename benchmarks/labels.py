"""Are the labels that are suspected wrong, and is what their correction would gain true?

    python benchmarks/labels.py CLOTHING PRODUCE [--only ranking gains bursts cost] [--seeds 3]

  ranking  2, 5, 10 and 20 % of the labels of the training images changed at random: AUROC of the
           ratio by which they are ranked, and of the margin that cleanlab ranks by; how many of the
           first 20 are wrong; how many are listed, and how many of those, and of all, are wrong
  gains    the same on clothing: what correcting the first suspects, as suggested, is said to gain
           in accuracy and log-loss, and what it gains on the test split, whose labels are right;
           and what it gains where a person corrects them, who leaves right labels alone
  bursts   bursts of five shifted and re-cropped photos, each filed in another class: whether each
           is one line
  cost     seconds that suspects take of a training; and of an audit of fashion-mnist's 60,000

The thresholds of foveate/audit/suspects.py were chosen on the same images with labels changed by
other seeds; the test split was used by none of them.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from foveate.audit.groups import Grouping, find_groups
from foveate.audit.inspection import inspect, look
from foveate.audit.suspects import (
    Answers,
    Suspect,
    doubt_labels,
    find_suspects,
    measure_gains,
    suggestions,
)
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.machine import cores_to_use
from foveate.progress import Silent
from foveate.training.honest import Judging, Solved, plan_judging, solve
from foveate.weights.starting_point import EMBEDDED, find_start

RATES = (0.02, 0.05, 0.1, 0.2)
FIRST_SEED = 100
THREADS = cores_to_use(None)
Rows = NDArray[np.int64]


class Known(NamedTuple):
    """A set, its groups and features."""

    dataset: Dataset
    grouping: Grouping
    features: NDArray[np.float32]


class Judged(NamedTuple):
    """What a probe's honest folds say of it."""

    known: Known
    judging: Judging
    solved: Solved
    answers: Answers


def load(source: str) -> Known:
    dataset, start = load_dataset(source), find_start(EMBEDDED)
    if dataset.pixels is None:
        found = inspect(dataset, start, THREADS, Silent())
        return Known(found.dataset, found.grouping, found.features)
    features = look(dataset, start, THREADS, Silent()).features
    return Known(dataset, find_groups(dataset, None, "auto", THREADS, Silent()), features)


def learnt(dataset: Dataset) -> NDArray[np.bool_]:
    return np.array([split != "test" for split in dataset.splits])


def judge(known: Known) -> Judged:
    dataset, grouping, features = known
    judging = plan_judging(dataset, grouping, learnt(dataset), 0)
    solved = solve(dataset, features, grouping, judging, 0, THREADS)
    groups = judging.groups[judging.folds >= 0]
    return Judged(known, judging, solved, Answers(judging.judged, solved.probabilities, groups))


def changed(known: Known, rate: float, seed: int) -> tuple[Known, NDArray[np.bool_]]:
    """The set with labels of training images changed to others, and which they are."""
    rng, dataset = np.random.default_rng(seed), known.dataset
    n, classes = len(dataset), len(dataset.classes)
    wrong = (rng.random(n) < rate) & learnt(dataset)
    labels = np.where(wrong, (dataset.labels + rng.integers(1, classes, n)) % classes, 0)
    labels = np.where(wrong, labels, dataset.labels)
    return known._replace(dataset=relabelled(dataset, labels)), wrong


def relabelled(dataset: Dataset, labels: Rows) -> Dataset:
    other = replace(dataset, labels=labels)
    other.__dict__["digests"] = dataset.digests
    return other


def suspects_of(judged: Judged) -> list[Suspect]:
    return find_suspects(*judged.known, judged.answers)


def ranking(sets: dict[str, Known], seeds: int) -> Iterator[dict[str, Any]]:
    for name, known in sets.items():
        for rate in (0.0, *RATES):
            for seed in range(FIRST_SEED, FIRST_SEED + (seeds if rate else 1)):
                noisy, wrong = changed(known, rate, seed)
                judged = judge(noisy)
                suspects = suspects_of(judged)
                rows = np.array([row for s in suspects for row in s.rows], np.int64)
                there = wrong[judged.answers.rows]
                labels = noisy.dataset.labels[judged.answers.rows]
                p = judged.answers.probabilities
                _, other, ratio = suggestions(p, labels)
                margin = other - p[np.arange(len(p)), labels]
                first = [s.rows[0] for s in suspects[:20]]
                yield {
                    "set": name,
                    "rate": rate,
                    "seed": seed,
                    "judged": len(there),
                    "wrong": int(there.sum()),
                    "auroc": float(roc_auc_score(there, ratio)) if rate else None,
                    "auroc_of_margin": float(roc_auc_score(there, margin)) if rate else None,
                    "first_20": float(wrong[first].mean()) if rate and first else None,
                    "listed": len(rows),
                    "precision": float(wrong[rows].mean()) if rate and len(rows) else None,
                    "recall": float(wrong[rows].sum() / there.sum()) if rate else None,
                }


def on_test(known: Known) -> tuple[float, float]:
    """Accuracy and log-loss of the head of a probe on the test split."""
    judged = judge(known)
    dataset, _, features = known
    test = np.flatnonzero(~learnt(dataset))
    head = judged.solved.head
    logits = features[test] @ head.weight.T + head.bias
    p = judged.solved.decision.probabilities(logits)
    right = p[np.arange(len(test)), dataset.labels[test]]
    accuracy = (p.argmax(axis=1) == dataset.labels[test]).mean()
    return float(accuracy), float(-np.log(np.maximum(right, 1e-9)).mean())


def gains(known: Known, seeds: int) -> Iterator[dict[str, Any]]:
    for rate in (0.0, *RATES):
        for seed in range(FIRST_SEED, FIRST_SEED + (seeds if rate else 1)):
            noisy, _ = changed(known, rate, seed)
            judged = judge(noisy)
            suspects = suspects_of(judged)
            before = on_test(noisy)
            for gain in measure_gains(
                *(noisy.dataset, noisy.features, judged.judging.rows, judged.judging.folds),
                *(judged.judging.groups, judged.solved.head, suspects, THREADS),
            ):
                suggested, right = noisy.dataset.labels.copy(), noisy.dataset.labels.copy()
                for suspect in suspects[: gain.first]:
                    rows = list(suspect.rows)
                    suggested[rows] = noisy.dataset.classes.index(suspect.suggested)
                    right[rows] = known.dataset.labels[rows]
                after, by_hand = (
                    on_test(noisy._replace(dataset=relabelled(noisy.dataset, labels)))
                    for labels in (suggested, right)
                )
                yield {
                    "rate": rate,
                    "seed": seed,
                    "all": gain.first == len(suspects),
                    **gain.to_dict(),
                    "accuracy_on_test": after[0] - before[0],
                    "log_loss_on_test": after[1] - before[1],
                    "accuracy_by_hand_on_test": by_hand[0] - before[0],
                    "log_loss_by_hand_on_test": by_hand[1] - before[1],
                }


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def bursts(folder: Path, seed: int, photos: int = 1000, planted: int = 20) -> dict[str, Any]:
    """Photos of clothing as they are, and bursts of five of others, each in another's class."""
    rng = np.random.default_rng(seed)
    files = sorted(folder.glob("train/*/*.jpg"))
    chosen = [files[i] for i in rng.permutation(len(files))[: photos + planted]]
    classes = tuple(sorted({file.parent.name for file in files}))
    data = [file.read_bytes() for file in chosen[:photos]]
    labels = [classes.index(file.parent.name) for file in chosen[:photos]]
    of_burst = [-1] * photos
    for number, file in enumerate(chosen[photos:]):
        photo = Image.open(file).convert("RGB")
        wrong = (classes.index(file.parent.name) + int(rng.integers(1, len(classes)))) % len(
            classes
        )
        for _ in range(5):
            width, height = photo.size
            share = rng.uniform(0.85, 1)
            x, y = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
            box = (x, y, x + width * share, y + height * share)
            shot = photo.resize((400, 400), Image.Resampling.BICUBIC, box)
            light = np.exp(rng.normal(0, 0.05))
            shot = shot.point(lambda value, light=light: min(255, value * light))
            data.append(jpeg(shot))
            labels.append(wrong)
            of_burst.append(number)
    n = len(data)
    names = tuple(f"{i:05}.jpg" for i in range(n))
    dataset = Dataset(
        *("made", "", names, np.array(labels), classes, ("train",) * n, ("",) * n),
        read=data.__getitem__,
    )
    found = inspect(dataset, find_start(EMBEDDED), THREADS, Silent())
    suspects = suspects_of(judge(Known(found.dataset, found.grouping, found.features)))
    lines: dict[int, list[int]] = {}
    for suspect in suspects:
        for number in {of_burst[row] for row in suspect.rows} - {-1}:
            lines.setdefault(number, []).append(sum(of_burst[r] == number for r in suspect.rows))
    return {
        "seed": seed,
        "planted": planted,
        "found": len(lines),
        "in_one_line": sum(len(parts) == 1 for parts in lines.values()),
        "whole": sum(parts == [5] for parts in lines.values()),
        "other_lines": len(suspects) - sum(len(parts) for parts in lines.values()),
    }


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return round(time.perf_counter() - begun, 3)


def cost(sets: dict[str, Known]) -> dict[str, Any]:
    """Seconds of what a training and an audit add, the median of five; of 60,000 images once."""
    found: dict[str, Any] = {}
    for name, known in sets.items():
        judged = judge(known)
        arguments = (*known, judged.answers, judged.solved.figures)
        found[f"{name}: suspects"] = float(
            np.median([seconds(partial(doubt_labels, *arguments)) for _ in range(5)])
        )
    known = load("fashion-mnist")
    part = known.dataset.select(learnt(known.dataset))
    known = Known(part, *(known.grouping, known.features[learnt(known.dataset)]))
    known = known._replace(grouping=find_groups(part, None, "auto", THREADS, Silent()))
    found["60,000 images: head"] = seconds(lambda: judge(known))
    judged = judge(known)
    suspects: list[Suspect] = []
    found["60,000 images: suspects"] = seconds(lambda: suspects.extend(suspects_of(judged)))
    found["60,000 images: gains"] = seconds(
        lambda: measure_gains(
            *(part, known.features, judged.judging.rows, judged.judging.folds),
            *(judged.judging.groups, judged.solved.head, suspects, THREADS),
        )
    )
    found["60,000 images: listed"] = len(suspects)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clothing", type=Path)
    parser.add_argument("produce", type=Path)
    parser.add_argument("--only", nargs="*", default=["ranking", "gains", "bursts", "cost"])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    packages = "foveate numpy openvino pillow scikit-learn"
    out = RESULTS / "labels.json"
    result = json.loads(out.read_text()) if out.exists() else {}  # parts of it are run alone
    result |= described("labels", packages)
    sets = {name: load(str(getattr(asked, name))) for name in ("clothing", "produce")}
    sets["digits"] = load("digits")
    if "ranking" in asked.only:
        result["ranking"] = show(ranking(sets, asked.seeds))
    if "gains" in asked.only:
        result["gains"] = show(gains(sets["clothing"], asked.seeds))
    if "bursts" in asked.only:
        seeds = range(FIRST_SEED, FIRST_SEED + asked.seeds)
        result["bursts"] = show(bursts(asked.clothing, seed) for seed in seeds)
    if "cost" in asked.only:
        result["cost"] = cost(sets)
        print(result["cost"], flush=True)
    save(result, out)


def show(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        print(row, flush=True)
        found.append(row)
    return found


if __name__ == "__main__":
    main()
