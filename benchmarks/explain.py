"""How well the maps of `foveate explain` rank the regions of an image as really hiding them does.

    python benchmarks/explain.py clothing=RUN,PHOTOS produce=RUN,PHOTOS

Of each probe and folder of photos, every photo in a fixed random order, up to --images: each region
is hidden in the pixels, behind the mean colour and behind a blur, and the logit of the predicted
class that is lost is compared with the exact values, with Grad-CAM at the same resolution, and with
a map of the centre, by Spearman's rank correlation. The mean over the photos and its 95 % interval
over them are written, the difference of exact and Grad-CAM photo by photo too; how many maps pass
their checks; and seconds, cold in a process of its own, and warm.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from foveate.classifier import Classifier
from foveate.classifier.given import expand
from foveate.classifier.tta import Squares
from foveate.explanation import Explainer
from foveate.explanation.checks import centre_map, rank_correlation
from foveate.explanation.masking import cells, enlarged, hide, logits_of

BLUR = 16  # pixels, its standard deviation
REPEATS = 3


def shuffled(folder: Path, most: int) -> list[Path]:
    photos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [photos[i] for i in np.random.default_rng(0).permutation(len(photos))[:most]]


def blurred(squares: Squares) -> Squares:
    soft = ImageFilter.GaussianBlur(BLUR)
    return tuple(np.asarray(Image.fromarray(view).filter(soft)) for view in squares)


def really_lost(
    classifier: Classifier, squares: Squares, index: int, grids: list[tuple[int, int]]
) -> dict[str, NDArray[np.float32]]:
    """What the logit loses when each region of each view is hidden in its pixels."""
    images = {"mean colour": [squares], "blur": [squares]}
    soft = blurred(squares)
    nothing = [np.zeros(view.shape[:2], bool) for view in squares]
    for number, (view, grid) in enumerate(zip(squares, grids, strict=True)):
        place = cells(len(view), grid)
        for cell in range(grid[0] * grid[1]):
            masks = [*nothing[:number], place == cell, *nothing[number + 1 :]]
            images["mean colour"].append(hide(squares, masks, classifier.preprocess))
            images["blur"].append(
                tuple(
                    np.where(mask[:, :, None], other, own)
                    for mask, other, own in zip(masks, soft, squares, strict=True)
                )
            )
    logits = {how: logits_of(classifier, each)[:, index] for how, each in images.items()}
    return {how: found[0] - found[1:] for how, found in logits.items()}


def measure(run: Path, photos: list[Path]) -> dict[str, Any]:
    classifier = Classifier.load(run)
    exact, cam = Explainer(classifier), Explainer(classifier, "gradcam")
    rows: dict[str, dict[str, list[float]]] = {}
    trusted = {"exact": 0, "gradcam": 0}
    warm = []
    for photo in photos:
        begin = time.perf_counter()
        own = exact.explain(photo)
        warm.append(time.perf_counter() - begin)
        other = cam.explain(photo, own.label)
        trusted["exact"] += own.trusted
        trusted["gradcam"] += other.trusted
        grids = [view.shape for view in own.views]
        rivals = {
            "exact": own.views,
            "gradcam": [enlarged(m, *g) for m, g in zip(other.views, grids, strict=True)],
            "centre": [enlarged(centre_map(max(g)), *g) for g in grids],
        }
        squares = next(expand([photo])).squares(classifier.preprocess)
        index = classifier.classes.index(own.label)
        for how, truth in really_lost(classifier, squares, index, grids).items():
            for name, maps in rivals.items():
                flat = np.concatenate([m.ravel() for m in maps])
                rows.setdefault(how, {}).setdefault(name, []).append(rank_correlation(flat, truth))
    found: dict[str, Any] = {"images": len(photos), "grids": [list(g) for g in grids]}
    for how, each in rows.items():
        figures = {name: mean_of(values) for name, values in each.items()}
        figures["exact - gradcam"] = mean_of(np.subtract(each["exact"], each["gradcam"]))
        found[how] = figures
    found["passes its checks"] = {n: round(count / len(photos), 3) for n, count in trusted.items()}
    found["warm seconds"] = round(float(np.median(warm[1:])), 3)
    return found


def mean_of(values: Any) -> dict[str, Any]:
    """The mean, and its 95 % interval by resampling the photos."""
    rng, values = np.random.default_rng(0), np.asarray(values)
    drawn = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "mean": round(float(values.mean()), 3),
        "ci95": [round(float(low), 3), round(float(high), 3)],
    }


def cold(run: Path, photo: Path) -> float:
    """Seconds of `foveate explain` in a process of its own; the median of REPEATS."""
    command = [sys.executable, "-m", "foveate", "explain", str(run), str(photo), "--json", "-q"]
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    return round(float(np.median(seconds)), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=RUN,PHOTOS")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS / "explain.json")
    asked = parser.parse_args()
    report = described("explain", "foveate numpy openvino torch")
    report |= {"date": time.strftime("%Y-%m-%d"), "results": {}}
    for entry in asked.sets:
        name, places = entry.split("=", 1)
        run, folder = map(Path, places.split(",", 1))
        photos = shuffled(folder, asked.images)
        report["results"][name] = measure(run, photos)
        report["results"][name]["cold seconds"] = cold(run, photos[0])
        print(name, report["results"][name], flush=True)
    save(report, asked.out)
