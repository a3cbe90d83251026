"""Is the accuracy that a run says of itself true?

    python benchmarks/truth.py CLOTHING [--produce PRODUCE [--final]] [--draws 30] [--coverage 200]

  occasions   clothing photos dealt to 4 to 8 made occasions a class, each with its own light,
              colour cast, blur, margin and pasted background, and bursts in them; the truth is the
              accuracy of the run's head on other occasions. Beside Foveate's estimate: plain folds,
              and folds by the occasions that were made (what nobody could know better)
  coverage    1,200 clothing photos, of which a third comes in bursts of 2 to 12 shifted, re-lit and
              re-cropped copies; the truth is the accuracy of the run's head on all photos that were
              not drawn; how often the interval holds it. The same with one class of two groups, and
              with three classes that are told apart without error
  alone       clothing, digits and fashion-mnist as they are: hardly any groups
  produce     shelf photos whose test comes from other visits: what the run says, and, with --final
              only, its test. Each opening of the test is appended to the log beside the results

The thresholds of foveate/audit/occasions.py were chosen on made occasions of seeds from 0 to 127,
on clothing, digits and fashion-mnist; the draws here have seeds from 1,000 on.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import foveate
from foveate.data.dataset import Dataset
from foveate.data.splits import judging_folds
from foveate.heads import fit_head
from foveate.progress import Silent

SIDE = 256
Paths = dict[str, list[Path]]


@dataclass(frozen=True)
class Drawn:
    """Images as bytes, and what is known of them.

    Args:
        data: JPEGs.
        labels, things: (N,), the class, and what may not be on two sides of a fold.
        test: (N,), whether an image is for the truth.
    """

    data: list[bytes]
    labels: NDArray[np.int64]
    things: NDArray[np.int64]
    test: NDArray[np.bool_]
    classes: tuple[str, ...]

    def dataset(self) -> Dataset:
        n = len(self.data)
        splits = tuple("test" if test else "train" for test in self.test)
        names = tuple(f"{i:05}.jpg" for i in range(n))
        return Dataset(
            *("made", "", names, self.labels, self.classes, splits, ("",) * n),
            read=self.data.__getitem__,
        )


def photos(folder: Path) -> Paths:
    found: Paths = {}
    for split in ("train", "validation", "test"):
        for path in sorted(folder.glob(f"{split}/*/*.jpg")):
            found.setdefault(path.parent.name, []).append(path)
    return found


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Occasion:
    """One light, colour cast, blur, margin and background."""

    def __init__(self, every: list[Path], rng: np.random.Generator):
        self.gain, self.gamma = np.exp(rng.normal(0, 0.15)), np.exp(rng.normal(0, 0.12))
        self.cast = np.exp(rng.normal(0, 0.05, 3))
        self.blur, self.margin = max(0, rng.normal(0.1, 0.4)), rng.uniform(0, 0.2)
        background = Image.open(every[rng.integers(len(every))]).convert("RGB")
        width, height = background.size
        share = rng.uniform(0.1, 0.4)
        x, y = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
        box = (x, y, x + width * share, y + height * share)
        self.background = background.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)

    def shot(self, photo: Image.Image, first: bool, rng: np.random.Generator) -> Image.Image:
        """A photo as taken on this occasion; the later ones of a burst a little aside."""
        width, height = photo.size
        share = 1.0 if first else rng.uniform(0.75, 1)
        x, y = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
        m = int(SIDE * self.margin / 2)
        inner = (SIDE - 2 * m, SIDE - 2 * m)
        box = (x, y, x + width * share, y + height * share)
        shown = self.background.copy()
        dx, dy = (0, 0) if first or m == 0 else rng.integers(-m // 2, m // 2 + 1, 2).tolist()
        shown.paste(photo.resize(inner, Image.Resampling.BICUBIC, box), (m + dx, m + dy))
        light = self.gain * (1 if first else np.exp(rng.normal(0, 0.05)))
        pixels = np.clip(np.asarray(shown, np.float32) / 255 * light, 0, 1) ** self.gamma
        pixels = np.clip(pixels * self.cast, 0, 1)
        image = Image.fromarray((255 * pixels).astype(np.uint8))
        return image.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur > 0.1 else image


def draw_occasions(found: Paths, seed: int) -> Drawn:
    """4 to 8 occasions a class, on each up to 3 to 12 things with bursts of up to 2 to 6; and 12
    other occasions for the truth, of up to 6 things, each photographed once."""
    rng = np.random.default_rng(seed)
    every = [path for paths in found.values() for path in paths]
    most_things, longest = int(rng.integers(3, 13)), int(rng.integers(2, 7))
    data: list[bytes] = []
    labels, occasions, test = [], [], []
    number = 0
    for c, paths in enumerate(found.values()):
        left = [paths[i] for i in rng.permutation(len(paths))]
        occasions_here = int(rng.integers(4, 9))
        for nth in range(occasions_here + 12):
            new = nth >= occasions_here
            n = min(6, len(left) // 2) if new else int(rng.integers(1, most_things + 1))
            things, left = left[:n], left[n:]
            if not things:
                break
            occasion, number = Occasion(every, rng), number + 1
            for path in things:
                photo = Image.open(path).convert("RGB")
                for shot in range(1 if new else int(rng.integers(1, longest + 1))):
                    data.append(jpeg(occasion.shot(photo, shot == 0, rng)))
                    labels.append(c)
                    occasions.append(number)
                    test.append(new)
    arrays = np.array(labels), np.array(occasions), np.array(test)
    return Drawn(data, *arrays, tuple(found))


def draw_bursts(found: Paths, seed: int, kind: str) -> Drawn:
    """1,200 photos, a third with a burst, and all others for the truth; `kind` is "all", "two
    groups" (all training images of one class are two bursts), or "no error" (three classes that
    are never confused)."""
    rng = np.random.default_rng(seed)
    names = ["pants", "shoes", "hat"] if kind == "no error" else list(found)
    each = [(path, c) for c, name in enumerate(names) for path in found[name]]
    order = [each[i] for i in rng.permutation(len(each))]
    n = min(1200, len(order) // 2)
    rare = 0 if kind == "two groups" else -1
    kept, seen = [], 0
    for path, c in order[:n]:
        seen += c == rare
        if c != rare or seen <= 2:
            kept.append((path, c))
    data: list[bytes] = []
    labels, things = [], []
    for thing, (path, c) in enumerate(kept):
        photo = Image.open(path).convert("RGB")
        burst = c == rare or rng.random() < 1 / 3
        for shot in range(int(rng.integers(2, 13)) if burst else 1):
            data.append(path.read_bytes() if shot == 0 else jpeg(shifted(photo, rng)))
            labels.append(c)
            things.append(thing)
    rest = order[n:]
    if kind == "two groups":  # as rare in what is judged by
        few = [photo for photo in rest if photo[1] == rare][: round(2 * len(rest) / n)]
        rest = [photo for photo in rest if photo[1] != rare] + few
    data += [path.read_bytes() for path, _ in rest]
    labels += [c for _, c in rest]
    things += range(len(kept), len(kept) + len(rest))
    test = np.arange(len(data)) >= len(data) - len(rest)
    return Drawn(data, np.array(labels), np.array(things), test, tuple(names))


def shifted(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = photo.size
    share = rng.uniform(0.85, 1)
    x, y = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
    box = tuple(map(int, (x, y, x + width * share, y + height * share)))
    pixels = np.asarray(photo.crop(box), np.float32) * np.exp(rng.normal(0, 0.08))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def measured(drawn: Drawn, folder: Path) -> dict[str, Any]:
    """What a run says of a draw, and the truth."""
    classifier = foveate.train(drawn.dataset(), out=folder / "run", progress=Silent())
    said, truth = classifier.metrics["out_of_fold"], classifier.metrics["test"]
    low, high = said["accuracy_ci95"] or (None, None)
    return {
        "images": int((~drawn.test).sum()),
        "things": len(np.unique(drawn.things[~drawn.test])),
        "groups": said["groups"],
        "said": said["accuracy"],
        "low": low,
        "high": high,
        "among_copies": said.get("among_copies", {}).get("accuracy"),
        "truth": truth["accuracy"],
        "ece_said": said["ece"],
        "ece_true": truth["ece"],
    }


def by_true_groups(drawn: Drawn) -> dict[str, float]:
    """The accuracy out of fold of plain folds, and of folds by what is known of the draw."""
    learn = drawn.dataset().select(~drawn.test)
    features, labels = foveate.extract_features(learn, progress=Silent()), learn.labels
    known = {"plain": np.arange(len(labels)), "occasions_known": drawn.things[~drawn.test]}
    accuracies = {}
    for name, groups in known.items():
        folds = judging_folds(labels, groups, 0)
        head = fit_head(features, labels, folds, len(drawn.classes), threads=2)
        accuracies[name] = float(head.right[head.losses.mean(axis=1).argmin()].mean())
    return accuracies


def occasions(found: Paths, draws: int) -> dict[str, Any]:
    rows = []
    for seed in range(1000, 1000 + draws):
        drawn = draw_occasions(found, seed)
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"seed": seed} | measured(drawn, Path(folder)) | by_true_groups(drawn))
        print(f"occasions {rows[-1]}", flush=True)
    truth = np.array([row["truth"] for row in rows])
    summary = {}
    for name in ("said", "plain", "occasions_known"):
        error = np.array([row[name] for row in rows]) - truth
        summary[name] = {
            "mean_error": round(float(error.mean()), 4),
            "worst": round(float(np.abs(error).max()), 4),
            "median_absolute": round(float(np.median(np.abs(error))), 4),
        }
    summary["held"] = held(rows)
    return {"summary": summary, "draws": rows}


def coverage(found: Paths, draws: int, kind: str) -> dict[str, Any]:
    rows = []
    for seed in range(1000, 1000 + draws):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(draw_bursts(found, seed, kind), Path(folder)))
        if len(rows) % 5 == 0:
            print(f"coverage, {kind}: {summed(rows)}", flush=True)
    return summed(rows)


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    error = np.array([row["said"] - row["truth"] for row in rows])
    return {
        "draws": len(rows),
        "held": held(rows),
        "mean_error": round(float(error.mean()), 4),
        "worst": round(float(np.abs(error).max()), 4),
        "mean_width": round(float(np.mean([row["high"] - row["low"] for row in rows])), 4),
        "among_copies": round(float(np.mean([row["among_copies"] for row in rows])), 4),
        "truth": round(float(np.mean([row["truth"] for row in rows])), 4),
    }


def held(rows: list[dict[str, Any]]) -> float:
    """The share of the draws whose interval holds the truth."""
    inside = [row["low"] <= row["truth"] <= row["high"] for row in rows if row["low"] is not None]
    return round(float(np.mean(inside)), 4)


def alone(source: Any) -> dict[str, Any]:
    """Built-in sets as if they were files, since in those no groups are looked for."""
    dataset = replace(foveate.load_dataset(source), pixels=None)
    if len(dataset) > 12_000:
        dataset = dataset.select(np.random.default_rng(0).permutation(len(dataset))[:12_000])
    with tempfile.TemporaryDirectory() as folder:
        metrics = foveate.train(dataset, out=Path(folder) / "run", progress=Silent()).metrics
    said, test = metrics["out_of_fold"], metrics.get("test", {}).get("accuracy")
    keys = ("n", "groups", "accuracy", "accuracy_ci95")
    return {key: said[key] for key in keys} | {"test": test, "seconds": metrics["seconds"]}


def produce(folder: Path, final: bool, log: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        metrics = foveate.train(folder, out=Path(place) / "run", progress=Silent()).metrics
    said = metrics["out_of_fold"]
    keys = ("n", "groups", "accuracy", "accuracy_ci95", "ece", "among_copies")
    result = {key: said[key] for key in keys}
    if final:
        test = metrics["test"]
        figures = {"test": test["accuracy"], "test_ece": test["ece"]}
        result |= figures
        line = (
            f"{time.strftime('%Y-%m-%d')}  said {said['accuracy']:.4f}  test {test['accuracy']:.4f}"
        )
        with log.open("a") as file:
            file.write(f"{line}  ECE {said['ece']:.4f} and {test['ece']:.4f}\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clothing", type=Path)
    parser.add_argument("--produce", type=Path)
    parser.add_argument("--final", action="store_true", help="open produce's test, and log it")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--coverage", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "truth.json")
    arguments = parser.parse_args()
    found = photos(arguments.clothing)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FOVEATE_CACHE"] = cache
        parts: dict[str, Callable[[], dict[str, Any]]] = {}
        for name in (arguments.clothing, "digits", "fashion-mnist"):
            parts[f"alone, {Path(name).name}"] = lambda name=name: alone(name)
        if arguments.produce:
            log = arguments.out.with_name("produce-test.log")
            parts["produce"] = lambda: produce(arguments.produce, arguments.final, log)
        if arguments.draws:
            parts["occasions"] = lambda: occasions(found, arguments.draws)
        for kind in ("all", "two groups", "no error") if arguments.coverage else ():
            draws = arguments.coverage if kind == "all" else max(1, arguments.coverage // 4)
            parts[f"coverage, {kind}"] = lambda kind=kind, n=draws: coverage(found, n, kind)
        report = described("truth", "foveate numpy scikit-learn scipy")
        report |= {"date": time.strftime("%Y-%m-%d"), "results": {}}
        for name, part in parts.items():
            begun = time.perf_counter()
            report["results"][name] = part()
            report["results"][name]["minutes"] = round((time.perf_counter() - begun) / 60, 1)
            result = report["results"][name].items()
            print(name, {key: v for key, v in result if not isinstance(v, list)}, flush=True)
            save(report, arguments.out)


if __name__ == "__main__":
    main()
