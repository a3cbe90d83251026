"""Is the accuracy that `evaluate` predicts for images without labels true?

    python benchmarks/novelty.py [--clothing CLOTHING] [--produce PRODUCE --final]

Each folder has train, perhaps validation, and test. A probe learns as `foveate train` does. Its
test split, and 20 made sets of the test's images of clothing, lose their labels, and
`foveate.evaluate` predicts the accuracy there. Produce's test is of other visits; it is opened with
--final only, and each opening is appended to the log beside the results. What was measured before,
and is not now, stays in the file. Beside it, from the same classifier:

  average confidence   the mean probability of the most probable class, calibrated out of fold
  ATC                  the share of images whose probability is above the threshold that, out of
                       fold, as many images exceed as are right (Garg et al., arXiv:2201.04234, with
                       the probability as score)

A set of which nothing is predicted counts in `refused`, with what the rivals say of it, and not in
the errors. The made sets:

  blur 0.5, 1, 2 %     Gaussian, standard deviation as a share of the shorter side
  dark 50, 20 %        of the light is left; bright: gamma 0.5
  noise 15, 40         Gaussian, standard deviation of 255
  small 96, 48         pixels of the shorter side
  crop 70, 50 %        of each side, somewhere
  half, other half     of the classes, by number; the same with blur 1 % and dark 20 %
  occasion 1 to 4      made light, colour cast, blur, margin and background, as in truth.py

The method was chosen on training images of clothing, fashion-mnist and digits.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from truth import Occasion, jpeg

import foveate
from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.progress import Silent

MOST = 200  # images of a made set
Shift = Callable[[Image.Image, np.random.Generator], Image.Image]


def blur(share: float) -> Shift:
    return lambda image, rng: image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def light(gain: float, gamma: float = 1.0) -> Shift:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = np.clip(gain * (np.asarray(image, np.float32) / 255) ** gamma, 0, 1)
        return Image.fromarray((255 * pixels).astype(np.uint8))

    return change


def noise(deviation: float) -> Shift:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = np.asarray(image, np.float32)
        pixels = pixels + rng.normal(0, deviation, pixels.shape)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    return change


def small(side: int) -> Shift:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        scale = side / min(image.size)
        width, height = (max(1, round(scale * n)) for n in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    return change


def crop(share: float) -> Shift:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = image.size
        x, y = rng.uniform(0, width * (1 - share)), rng.uniform(0, height * (1 - share))
        box = (int(x), int(y), int(x + width * share), int(y + height * share))
        return image.crop(box)

    return change


def same(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


def occasions(paths: list[Path]) -> dict[str, Shift]:
    found: dict[str, Shift] = {}
    for number in range(1, 5):
        occasion = Occasion(paths, np.random.default_rng(number))
        found[f"occasion {number}"] = lambda image, rng, o=occasion: o.shot(image, True, rng)
    return found


def made_sets(dataset: Dataset, paths: list[Path]) -> dict[str, tuple[Shift, NDArray[np.int64]]]:
    """Each made set's change, and the rows that it is of."""
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset))[:MOST])
    changes: dict[str, Shift] = {
        "blur 0.5 %": blur(0.005),
        "blur 1 %": blur(0.01),
        "blur 2 %": blur(0.02),
        "dark 50 %": light(0.5),
        "dark 20 %": light(0.2),
        "bright": light(1, 0.5),
        "noise 15": noise(15),
        "noise 40": noise(40),
        "small 96": small(96),
        "small 48": small(48),
        "crop 70 %": crop(0.7),
        "crop 50 %": crop(0.5),
        **occasions(paths),
    }
    sets = {name: (change, rows) for name, change in changes.items()}
    even = dataset.labels[rows] % 2 == 0
    sets["half"] = same, rows[even]
    sets["other half"] = same, rows[~even]
    sets["half, blur 1 %"] = blur(0.01), rows[even]
    sets["other half, dark 20 %"] = light(0.2), rows[~even]
    return sets


def written(dataset: Dataset, rows: NDArray[np.int64], change: Shift | None, to: Path) -> None:
    """The images of these rows in a folder, named by row; unchanged ones byte for byte."""
    to.mkdir()
    for row in rows.tolist():
        data = dataset.read(row)
        if change is not None and change is not same:
            image = load_image(data, dataset.files[row]).convert("RGB")
            changed = change(image, np.random.default_rng((7, row)))
            if min(changed.size) < 100:  # JPEG's blocks would be a second change
                buffer = io.BytesIO()
                changed.save(buffer, "PNG")
                data = buffer.getvalue()
            else:
                data = jpeg(changed)
        (to / f"{row:05}.jpg").write_bytes(data)


def threshold(run: Path) -> tuple[float, float]:
    """ATC's threshold, and the accuracy out of fold, from a run's predictions."""
    lines = (run / "predictions.jsonl").read_text().splitlines()
    rows = [row for line in lines if (row := json.loads(line))["split"] == "out_of_fold"]
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    confidence = np.sort([row["probability"] for row in rows])
    return float(np.quantile(confidence, 1 - right)), float(right)


def judged(
    classifier: foveate.Classifier,
    dataset: Dataset,
    rows: NDArray[np.int64],
    folder: Path,
    least: float,
) -> dict[str, Any]:
    """What is predicted of a folder of images named by row, what the rivals say, and the truth."""
    result = foveate.evaluate(classifier, folder, progress=Silent())
    left_out = {Path(name).stem for name in result["learnt_from"]["files"]}
    kept = [row for row in rows.tolist() if f"{row:05}" not in left_out]
    paths = [folder / f"{row:05}.jpg" for row in kept]
    probabilities = classifier.predict_proba(paths)
    confidence = probabilities.max(axis=1)
    names = np.array(classifier.classes)[probabilities.argmax(axis=1)]
    truth = float(np.mean(names == np.array(dataset.classes)[dataset.labels[kept]]))
    said = result["predicted"]
    assert said["n"] == len(kept)
    low, high = said["accuracy_ci95"] or (None, None)
    return {
        "n": said["n"],
        "groups": said["groups"],
        "truth": truth,
        "predicted": said["accuracy"],
        "low": low,
        "high": high,
        "unlike": said["unlike"],
        "farther": said["farther"],
        "average confidence": float(confidence.mean()),
        "ATC": float((confidence >= least).mean()),
    }


def summed(sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    there = [one for one in sets.values() if one["predicted"] is not None]
    refused = [name for name, one in sets.items() if one["predicted"] is None]
    summary: dict[str, Any] = {"sets": len(sets), "refused": refused}
    for name in ("predicted", "average confidence", "ATC"):
        error = np.array([one[name] - one["truth"] for one in there])
        summary[name] = {
            "median_absolute": round(float(np.median(np.abs(error))), 4),
            "mean_absolute": round(float(np.abs(error).mean()), 4),
            "worst": round(float(np.abs(error).max()), 4),
            "mean_error": round(float(error.mean()), 4),
        }
    summary["held"] = round(float(np.mean([o["low"] <= o["truth"] <= o["high"] for o in there])), 4)
    summary["mean_width"] = round(float(np.mean([o["high"] - o["low"] for o in there])), 4)
    return summary


def measured(folder: Path, made: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        classifier = foveate.train(folder, out=Path(place) / "run", progress=Silent())
        least, accuracy = threshold(classifier.run)
        dataset = foveate.load_dataset(folder).split("test")
        paths = sorted((folder / "test").rglob("*.jpg"))
        sets = {"test": (same, np.arange(len(dataset)))}
        if made:
            sets |= made_sets(dataset, paths)
        found: dict[str, dict[str, Any]] = {}
        for number, (name, (change, rows)) in enumerate(sets.items()):
            images = Path(place) / f"set-{number}"
            written(dataset, rows, change, images)
            found[name] = judged(classifier, dataset, rows, images, least)
            print(f"{folder.name}, {name}: {rounded(found[name])}", flush=True)
    result = {"date": time.strftime("%Y-%m-%d"), "out_of_fold": accuracy, "test": found.pop("test")}
    return result | ({"summary": summed(found), "sets": found} if made else {})


def rounded(one: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clothing", type=Path)
    parser.add_argument("--produce", type=Path)
    parser.add_argument("--final", action="store_true", help="open produce's test, and log it")
    parser.add_argument("--out", type=Path, default=RESULTS / "novelty.json")
    arguments = parser.parse_args()
    if bool(arguments.produce) != arguments.final:
        parser.error("--produce and --final belong together: all that is measured is its test")
    report = described("novelty", "foveate numpy openvino")
    before = json.loads(arguments.out.read_text())["results"] if arguments.out.exists() else {}
    report["results"] = before
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("FOVEATE_CACHE", cache)
        if arguments.clothing:
            report["results"]["clothing"] = result = measured(arguments.clothing, made=True)
            print(json.dumps(result["summary"], indent=1), flush=True)
            save(report, arguments.out)
        if arguments.produce:
            report["results"]["produce"] = result = measured(arguments.produce, made=False)
            save(report, arguments.out)
            said, truth = result["test"]["predicted"], result["test"]["truth"]
            said = "nothing" if said is None else f"{said:.4f}"
            line = f"{result['date']}  predicted without labels {said}  test {truth:.4f}\n"
            with arguments.out.with_name("produce-test.log").open("a") as file:
                file.write(line)


if __name__ == "__main__":
    main()
