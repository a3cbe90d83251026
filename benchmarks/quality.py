"""Faults planted among photos are found, and good photos are hardly ever named.

    python benchmarks/quality.py CLOTHING [PRODUCE] [--screens FOLDER] [--peer PYTHON]

Of the training photos, FEW of each kind of fault (PLANTED) are made of random ones, saved as JPEG,
and put beside all of them. The limits of foveate/audit/quality.py were chosen on training photos
and on such faults with other random numbers.

  recall     planted images that are named with the right kind
  otherwise  planted images that are named with another kind alone
  named      original photos that are named, by kind, with what was seen when they were looked at:
             "real" is of that kind, "mild" can be argued about, "false" is a good photo
  usual      what is named where all images are dark, blurred, grey, on white, pages or tiny, and in
             the built-in sets: it should be nothing
  alike      classes that look alike: as they are, and where one class is split in two at random,
             groups whole, which should name the halves; of PRODUCE every third class is split

`validation` was never looked at for a choice. --screens takes a folder of real screenshots. --peer
takes the Python of an environment with cleanvision, which looks at the same folder.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from foveate.audit.classes import find_alike
from foveate.audit.groups import find_groups
from foveate.audit.inspection import look
from foveate.audit.quality import (
    BLURRED,
    DARK,
    GREY,
    LONG,
    OVEREXPOSED,
    PLAIN,
    SCREEN,
    TINY,
    find_faults,
    measure_images,
)
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.progress import Silent
from foveate.training.honest import plan_judging, solve
from foveate.weights.starting_point import EMBEDDED, find_start

FEW = 10  # planted images of each kind
THREADS = 2
Change = Callable[[Image.Image, np.random.Generator], Image.Image]

# Original photos that are named, looked at one by one.
SEEN = {
    "train/t-shirt/ff3f01d5-0524-4851-8bcc-a1eb4bc096e6.jpg": "real",
    "train/God-Morgon-Orange-Juice/God-Morgon-Orange-Juice_017.jpg": "real",
    "validation/Honeydew-Melon/Honeydew-Melon_003.jpg": "mild",
}
CLEANVISION = """
import json, sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
kinds = ["odd_size", "odd_aspect_ratio", "low_information", "light", "grayscale", "dark", "blurry"]
lab.find_issues({kind: {} for kind in kinds}, n_jobs=2, verbose=False)
found = {kind: lab.issues.index[lab.issues[f"is_{kind}_issue"]].tolist() for kind in kinds}
json.dump(found, open(sys.argv[2], "w"))
"""
PEERS_NAMES = {
    "low_information": PLAIN,
    "odd_size": TINY,
    "odd_aspect_ratio": LONG,
    "blurry": BLURRED,
    "dark": DARK,
    "light": OVEREXPOSED,
    "grayscale": GREY,
}


def brightness(factor: float) -> Change:
    return lambda image, rng: noisy(ImageEnhance.Brightness(image).enhance(factor), 1.5, rng)


def blur(radius: float) -> Change:
    return lambda image, rng: image.filter(ImageFilter.GaussianBlur(radius))


def noisy(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def shaken(pixels: int) -> Change:
    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        values = np.asarray(image).astype(np.float32)
        axis = int(rng.integers(2))
        moved = [np.roll(values, i - pixels // 2, axis) for i in range(pixels)]
        return Image.fromarray((sum(moved) / pixels).astype(np.uint8))

    return change


def plain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    colour = tuple(int(x) for x in rng.integers(0, 256, 3))
    return noisy(Image.new("RGB", image.size, colour), 3, rng)


def pale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, "white"), 0.75)


def thumbnail(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image = image.copy()
    image.thumbnail((96, 96))
    return image


def strip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The middle of it, four times as wide as high, or the other way round."""
    width, height = image.size
    if rng.integers(2):
        return image.crop((0, (height - width // 4) // 2, width, (height + width // 4) // 2))
    return image.crop(((width - height // 4) // 2, 0, (width + height // 4) // 2, height))


def grey(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.convert("L").convert("RGB")


def page(size: tuple[int, int], paper: str, ink: str) -> Change:
    """Lines of text below a bar of some colour."""

    def draw(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        sheet = Image.new("RGB", size, paper)
        pen = ImageDraw.Draw(sheet)
        letter = int(rng.integers(size[0] // 45, size[0] // 22))
        font = ImageFont.load_default(letter)
        bar = tuple(int(x) for x in rng.integers(0, 256, 3))
        pen.rectangle((0, 0, size[0], 2 * letter), fill=bar)
        for y in range(3 * letter, size[1] - letter, 3 * letter // 2):
            letters = rng.choice(
                list("abcdefghijklmnopqrstuvwxyz    .,ABC012"), int(rng.integers(5, 40))
            )
            pen.text((letter, y), "".join(letters), ink, font=font)
        return sheet

    return draw


def on_white(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The thing before a white ground, by how its colour differs from the border's."""
    values = np.asarray(image).copy()
    border = np.concatenate([values[:20].reshape(-1, 3), values[:, :20].reshape(-1, 3)])
    distance = np.abs(values.astype(np.int16) - np.median(border, axis=0)).max(axis=2)
    values[distance < 50] = 255
    return Image.fromarray(values)


PLANTED: dict[str, tuple[str, Change]] = {
    "one colour": (PLAIN, plain),
    "7 % of the light": (DARK, brightness(0.07)),
    "15 % of the light": (DARK, brightness(0.15)),
    "30 % of the light": (DARK, brightness(0.3)),
    "blur of 1.5 pixels": (BLURRED, blur(1.5)),
    "blur of 2.5 pixels": (BLURRED, blur(2.5)),
    "blur of 4 pixels": (BLURRED, blur(4)),
    "blur of 8 pixels": (BLURRED, blur(8)),
    "shaken by 12 pixels": (BLURRED, shaken(12)),
    "2.5 times the light": (OVEREXPOSED, brightness(2.5)),
    "4 times the light": (OVEREXPOSED, brightness(4)),
    "a quarter of the contrast, pale": (OVEREXPOSED, pale),
    "thumbnail of 96 pixels": (TINY, thumbnail),
    "a strip of 4 to 1": (LONG, strip),
    "grey": (GREY, grey),
    "page of a phone": (SCREEN, page((720, 1280), "white", "black")),
    "dark page of a phone": (SCREEN, page((1080, 1920), "#181a1e", "#dcdcdc")),
    "page of a computer": (SCREEN, page((1280, 800), "white", "black")),
}
USUAL: dict[str, Change] = {
    "all dark": brightness(0.2),
    "all blurred": blur(4),
    "all grey": grey,
    "all on white": on_white,
    "all thumbnails": thumbnail,
    "all pages": page((720, 1280), "white", "black"),
}


def faults_of(dataset: Dataset) -> dict[str, list[tuple[int, float]]]:
    found = find_faults(measure_images(dataset, None, THREADS, Silent()))
    return {one.kind: list(zip(one.rows, one.values, strict=True)) for one in found}


def named(dataset: Dataset) -> dict[str, Any]:
    """What is named among photos as they are, and what was seen there."""
    found = faults_of(dataset)
    by_kind = {
        kind: [[dataset.files[row], round(v, 3), SEEN.get(dataset.files[row], "")] for row, v in f]
        for kind, f in found.items()
    }
    return {"images": len(dataset), "named": by_kind}


def planted(photos: Dataset, screens: Path | None, peer: str | None, folder: Path) -> Any:
    """Recall, and what else is named, among all photos and the planted."""
    rng = np.random.default_rng(1)
    kinds: dict[str, tuple[str, str]] = {}  # by file
    for row in range(len(photos)):
        (folder / f"photo_{row:05d}.jpg").write_bytes(photos.read(row))
    for name, (kind, change) in PLANTED.items():
        for row in rng.choice(len(photos), FEW, replace=False):
            file = folder / f"fault_{len(kinds):05d}.jpg"
            change(photos[int(row)][0], rng).save(file, quality=88)
            kinds[file.name] = name, kind
    for path in sorted(screens.iterdir()) if screens is not None else ():
        file = folder / f"fault_{len(kinds):05d}.png"
        file.write_bytes(path.read_bytes())
        kinds[file.name] = "real screenshots", SCREEN
    files = sorted(folder.iterdir())
    dataset = Dataset.of(files, ["any"] * len(files))
    found = faults_of(dataset)
    ours = {k: [Path(dataset.files[row]).name for row, _ in f] for k, f in found.items()}
    report = {"planted": len(kinds), "photos": len(photos), "ours": judged(ours, kinds)}
    if peer is not None:
        out = folder.parent / f"{folder.name}.json"
        subprocess.run([peer, "-c", CLEANVISION, folder, out], check=True, capture_output=True)
        theirs = {
            PEERS_NAMES[kind]: [Path(name).name for name in names]
            for kind, names in json.loads(out.read_text()).items()
        }
        report["cleanvision"] = judged(theirs, kinds)
    return report


def judged(found: dict[str, list[str]], kinds: dict[str, tuple[str, str]]) -> dict[str, Any]:
    total = Counter(name for name, _ in kinds.values())
    right, other = Counter(), Counter()
    for file, (name, kind) in kinds.items():
        if file in found.get(kind, ()):
            right[name] += 1
        elif any(file in names for names in found.values()):
            other[name] += 1
    return {
        "recall": {name: f"{right[name]} of {n}" for name, n in total.items()},
        "recall_of_all": round(sum(right.values()) / len(kinds), 3),
        "otherwise": dict(other),
        "photos_named": {
            kind: n
            for kind, names in found.items()
            if (n := sum(file.startswith("photo") for file in names))
        },
    }


def usual(photos: Dataset, folder: Path) -> dict[str, Any]:
    """What is named where a fault is what is usual, of 200 photos each."""
    rng = np.random.default_rng(2)
    rows = rng.choice(len(photos), 200, replace=False)
    report = {}
    for name, change in USUAL.items():
        place = folder / name.replace(" ", "_")
        place.mkdir()
        for i, row in enumerate(rows):
            change(photos[int(row)][0], rng).save(place / f"{i}.jpg", quality=88)
        files = sorted(place.iterdir())
        found = faults_of(Dataset.of(files, ["any"] * len(files)))
        report[name] = {kind: len(rows) for kind, rows in found.items()}
    return report


def alike(photos: Dataset, step: int) -> dict[str, Any]:
    """The pairs that are named, of the classes as they are and of each `step`th split in two."""
    seen = look(photos, find_start(EMBEDDED), THREADS, Silent())
    grouping = find_groups(photos, seen, "auto", THREADS, Silent())

    def pairs(labels: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        dataset = replace(photos, labels=labels, classes=classes)
        judging = plan_judging(dataset, grouping, np.ones(len(dataset), bool), seed=0)
        solved = solve(dataset, seen.features, grouping, judging, 0, THREADS)
        groups = judging.groups[judging.folds >= 0]
        found = find_alike(solved.probabilities, labels[judging.judged], groups)
        return [pair.to_dict(classes) for pair in found]

    rng = np.random.default_rng(0)
    halves = {}
    for c in range(0, len(photos.classes), step):
        rows = np.flatnonzero(photos.labels == c)
        groups = np.unique(grouping.groups[rows])
        moved = rng.permutation(groups)[: len(groups) // 2]
        labels = photos.labels.copy()
        labels[rows[np.isin(grouping.groups[rows], moved)]] = len(photos.classes)
        named = [pair["classes"] for pair in pairs(labels, (*photos.classes, "half"))]
        found = [photos.classes[c], "half"] in named
        others = [pair for pair in named if pair != [photos.classes[c], "half"]]
        halves[photos.classes[c]] = {"groups": len(groups), "found": found, "others": others}
    recall = f"{sum(half['found'] for half in halves.values())} of {len(halves)}"
    return {"as_they_are": pairs(photos.labels, photos.classes), "recall": recall, "split": halves}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clothing", type=Path)
    parser.add_argument("produce", type=Path, nargs="?")
    parser.add_argument("--screens", type=Path)
    parser.add_argument("--peer", help="the Python of an environment with cleanvision")
    parser.add_argument("--out", type=Path, default=RESULTS / "quality.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("clothing", "produce"):
            folder = getattr(arguments, name)
            if folder is None:
                continue
            place = Path(scratch) / name
            (place / "planted").mkdir(parents=True)
            photos = load_dataset(folder)
            results[name] = {split: named(photos.split(split)) for split in ("train", "validation")}
            train = photos.split("train")
            results[name]["planted"] = planted(
                train, arguments.screens, arguments.peer, place / "planted"
            )
            results[name]["usual"] = usual(train, place)
            learnt = photos.select([split != "test" for split in photos.splits])
            results[name]["alike"] = alike(learnt, 1 if name == "clothing" else 3)
        for name in ("digits", "fashion-mnist"):
            images = load_dataset(name)
            rows = np.random.default_rng(0).permutation(len(images))[:5000]
            results[name] = named(images.select(np.sort(rows)))
    report = described("quality", "foveate numpy pillow") | {
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
    }
    print(json.dumps(results, indent=1))
    save(report, arguments.out)


if __name__ == "__main__":
    main()
