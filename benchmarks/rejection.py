"""Is what a run says of "none of these" true?

    python benchmarks/rejection.py NAME=DATA ... [--only kinds|foreign|cost] [--most N]

DATA is a folder, or a built-in set. Of each set:

  foreign   a probe learns as `foveate train` does. How many images of its test split does it
            refuse, and how many of noise, pages, flat colour and scrambled pieces that it did not
            make itself, and of the other sets?
  kinds     each class is left out of the data in turn, and a run learns the others. How many of the
            class's images does it refuse, and is that within what its certificate says of one kind?
            The AUROC of the measure of unknown kinds is of the class's images against test images
            of the other classes (where there is no test split: against those out of fold).
  cost      seconds of `train` again, with and without rejection, in turns, five of each; and of a
            prediction.

No image of these tests was looked at when measures and thresholds were chosen, but those of the
training images of clothing and produce, with the classes left out by `foveate.rejection`.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save

import foveate
from foveate.classifier import Classifier
from foveate.classifier.embedding import dataset_features, head_of
from foveate.data.dataset import Dataset
from foveate.errors import ImageError
from foveate.progress import Silent
from foveate.rejection import area_under_roc
from foveate.training.foreign import foreign_images

MOST = 400  # images of another set, or of a class
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", help="NAME=DATA")
    parser.add_argument("--only", choices=("kinds", "foreign", "cost"))
    parser.add_argument("--most", type=int, default=20, help="classes that are left out, at most")
    parser.add_argument("--out", type=Path, default=RESULTS / "rejection.json")
    arguments = parser.parse_args()
    sets = {}
    for given in arguments.data:
        name, _, data = given.partition("=")
        sets[name] = usable(foveate.load_dataset(data))
    report = described("rejection", "foveate numpy openvino")
    before: dict[str, Any] = {}
    if arguments.out.exists():
        before = json.loads(arguments.out.read_text()).get("sets", {})
    report["sets"] = before
    for name, dataset in sets.items():
        found = report["sets"].setdefault(name, {})
        others = {other: sets[other] for other in sets if other != name}
        if arguments.only in (None, "foreign"):
            found["foreign"] = foreign(dataset, others)
        if arguments.only in (None, "kinds"):
            found["kinds"] = kinds(dataset, arguments.most)
        if arguments.only in (None, "cost"):
            found["cost"] = cost(dataset)
        print(name, found, flush=True)
        save(report, arguments.out)


def usable(dataset: Dataset) -> Dataset:
    """At most 5,000 images to learn from and 1,000 to test, evenly over classes."""
    rng = np.random.default_rng(0)
    chosen = []
    for split, most in (("train", 5000), ("validation", 5000), ("test", 1000)):
        rows = np.flatnonzero([s == split for s in dataset.splits])
        chosen.append(rng.permutation(rows)[:most])
    return dataset.select(np.sort(np.concatenate(chosen)))


def trained(dataset: Dataset, folder: str, **settings: Any) -> Classifier:
    return foveate.train(dataset, out=Path(folder) / "run", progress=Silent(), **settings)


def refused(classifier: Classifier, dataset: Dataset) -> np.ndarray:
    found = [outcome for _, outcome in classifier.dataset_outcomes(dataset)]
    return np.array([o.rejected is not None for o in found if not isinstance(o, ImageError)])


def some(dataset: Dataset, rows: np.ndarray) -> Dataset:
    return dataset.select(np.sort(np.random.default_rng(1).permutation(rows)[:MOST]))


def part(dataset: Dataset, *splits: str) -> np.ndarray:
    return np.flatnonzero([split in splits for split in dataset.splits])


def foreign(dataset: Dataset, others: dict[str, Dataset]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        classifier = trained(dataset, folder)
        said = classifier.metrics["rejection"]
        found: dict[str, Any] = {"said": said}
        test = part(dataset, "test")
        if len(test):
            found["test"] = float(refused(classifier, dataset.select(test)).mean())
        made = foreign_images(dataset, test if len(test) else part(dataset, "train"))
        of_made = refused(classifier, made)
        found |= {k: float(of_made[made.labels == c].mean()) for c, k in enumerate(made.classes)}
        for name, other in others.items():
            rows = part(other, "train", "validation")
            found[name] = float(refused(classifier, some(other, rows)).mean())
    return found


def kinds(dataset: Dataset, most: int) -> dict[str, Any]:
    drawn = np.random.default_rng(0).permutation(len(dataset.classes))[:most]
    found = {}
    for c in np.sort(drawn).tolist():
        left = dataset.labels != c
        rest = dataset.select(np.flatnonzero(left))
        classes = tuple(name for i, name in enumerate(dataset.classes) if i != c)
        rest = replace(rest, classes=classes, labels=rest.labels - (rest.labels > c))
        strange = some(dataset, np.flatnonzero(~left))
        with tempfile.TemporaryDirectory() as folder:
            classifier = trained(rest, folder)
            said = classifier.metrics["rejection"]["unknown_kinds"]
            share = float(refused(classifier, strange).mean())
            low, high = said["a_kind_ci95"]
            tested = part(rest, "test")
            known = rest.select(tested) if len(tested) else some(rest, part(rest, "train"))
            area = area_under_roc(unknown(classifier, strange), unknown(classifier, known))
        found[dataset.classes[c]] = {
            "refused": share,
            "said": said["share"],
            "said_of_one_kind": [low, high],
            "within": bool(low - 1e-9 <= share <= high + 1e-9),
            "auroc": area,
            "auroc_said": said["auroc"],
        }
        print(dataset.classes[c], found[dataset.classes[c]], flush=True)
    return {
        "auroc": float(np.mean([k["auroc"] for k in found.values()])),
        "auroc_worst": min(k["auroc"] for k in found.values()),
        "auroc_said": float(np.mean([k["auroc_said"] for k in found.values()])),
        "refused": float(np.mean([k["refused"] for k in found.values()])),
        "said": float(np.mean([k["said"] for k in found.values()])),
        "within": float(np.mean([k["within"] for k in found.values()])),
        "classes": found,
    }


def unknown(classifier: Classifier, dataset: Dataset) -> np.ndarray:
    """(N,), the measure of unknown kinds of each image."""
    rows = [f for _, f in dataset_features(classifier, dataset) if not isinstance(f, ImageError)]
    features, rejection = np.stack(rows), classifier.rejection
    assert rejection is not None
    return rejection.strangeness(features, head_of(classifier).logits(features))[1]


def cost(dataset: Dataset) -> dict[str, Any]:
    """Seconds of training again and of predicting, with and without."""
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    predicting: dict[str, list[float]] = {"off": [], "on": []}
    test = part(dataset, "test")
    few = dataset.select(test if len(test) else part(dataset, "train")[:300])
    trained(dataset, tempfile.mkdtemp())  # features are known afterwards
    for _ in range(TURNS):
        for kind, reject in (("off", "off"), ("on", 0.05)):
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                classifier = trained(dataset, folder, reject=reject)
                seconds[kind].append(time.perf_counter() - begun)
                refused(classifier, few.select(np.arange(8)))  # compiled
                begun = time.perf_counter()
                refused(classifier, few)
                predicting[kind].append(time.perf_counter() - begun)
    medians = {k: float(np.median(v)) for k, v in seconds.items()}
    each = {k: float(np.median(v)) for k, v in predicting.items()}
    return {
        "train again": medians,
        "train adds": medians["on"] - medians["off"],
        "predict": each,
        "predict ratio": each["on"] / each["off"],
    }


if __name__ == "__main__":
    main()
