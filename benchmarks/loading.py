"""Photos to batches of 224 x 224 pixels: Foveate's loader beside torchvision's, epoch by epoch.

    python benchmarks/loading.py DATA [--contenders torchvision,ram,disk,off]
        [--repeats 5] [--epochs 4] [--workers 2]
    python benchmarks/loading.py DATA --side 3000 --images 200 --epochs 2
        --contenders torchvision,ram,off

  torchvision  ImageFolder, RandomResizedCrop + flip + ToTensor + Normalize, DataLoader with
               persistent worker processes
  ram          TrainingBatches with policy "standard" (the same crop and flip), pixels kept in
               memory
  disk         the same, pixels kept in the cache folder
  off          the same, nothing kept

All give shuffled batches of normalised float32, normalising included. DATA has a train folder.
Every contender is a process of its own; contenders take turns within a repeat. The first epoch
begins when the loader is made, from files that the system has read before; `later` is the median of
the others. Images a second; ratios are to torchvision's epoch of the same kind. CPU seconds are
those of the process and its workers, over all epochs.

With --side some of the photos are enlarged first, to so many pixels on the shorter side, which is a
camera's size; their JPEGs are smoother than a camera's.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import RESULTS, described, save
from PIL import Image

CONTENDERS = ("torchvision", "ram", "disk", "off")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def enlarged(data: Path, side: int, images: int, folder: Path) -> Path:
    """Evenly chosen training photos, larger and as JPEG of quality 90, in a folder like DATA."""
    files = sorted(file for file in (data / "train").glob("*/*") if file.is_file())
    for i in np.linspace(0, len(files) - 1, min(len(files), images)).round().astype(int):
        file = files[i]
        with Image.open(file) as photo:
            scale = side / min(photo.size)
            large = photo.convert("RGB").resize(
                (round(photo.width * scale), round(photo.height * scale))
            )
        place = folder / "train" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        large.save(place / f"{file.name}.jpg", quality=90)
    return folder


def torchvision_epochs(data: Path, arguments: argparse.Namespace) -> list[float]:
    """Seconds of each epoch."""
    import torch
    from torchvision import datasets, transforms

    torch.empty(1).normal_()  # what a first use costs is not the loader's
    begun = time.perf_counter()
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = datasets.ImageFolder(data / "train", transform)
    loader = torch.utils.data.DataLoader(
        images,
        arguments.batch,
        shuffle=True,
        num_workers=arguments.workers,
        persistent_workers=True,
    )
    seconds = []
    for _ in range(arguments.epochs):
        n = sum(len(labels) for _, labels in loader)
        assert n == len(images)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return seconds


def foveate_epochs(data: Path, arguments: argparse.Namespace, cache: str) -> list[float]:
    """Seconds of each epoch."""
    import torch

    from foveate.data.augment import Augment
    from foveate.data.batches import TrainingBatches, normalise
    from foveate.data.layouts import load_dataset
    from foveate.data.preprocess import Preprocess

    torch.empty(1).normal_()
    begun = time.perf_counter()
    dataset = load_dataset(data)
    rows = np.flatnonzero([split == "train" for split in dataset.splits])
    preprocess = Preprocess(224, 224, interpolation="bilinear", mean=MEAN, std=STD)
    batches = TrainingBatches(
        dataset,
        rows,
        preprocess,
        Augment("standard", crop_area=(0.08, 1.0)),
        arguments.batch,
        threads=arguments.workers,
        cache=cache,
    )
    seconds = []
    used: dict[int, torch.Tensor] = {}
    for epoch in range(arguments.epochs):
        n = 0
        for batch in batches.epoch(epoch):
            n += len(batch.targets)
            used[len(batch.targets)] = normalise(
                batch.pixels, preprocess, used.get(len(batch.targets))
            )
        assert n == len(rows)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return seconds


def cpu_seconds() -> float:
    own, children = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def run_one(contender: str, arguments: argparse.Namespace) -> dict[str, object]:
    """In a process of its own."""
    import gc

    before = cpu_seconds()
    if contender == "torchvision":
        seconds = torchvision_epochs(arguments.data, arguments)
        gc.collect()  # ends the workers, whose seconds count from then on
    else:
        seconds = foveate_epochs(arguments.data, arguments, contender)
    return {"epochs": seconds, "cpu": cpu_seconds() - before}


def measure(contender: str, arguments: argparse.Namespace, n: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        command = [
            sys.executable,
            __file__,
            str(arguments.data),
            "--only",
            contender,
            "--batch",
            str(arguments.batch),
        ]
        command += ["--epochs", str(arguments.epochs), "--workers", str(arguments.workers)]
        environment = os.environ | {"FOVEATE_CACHE": cache}
        done = json.loads(
            subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
        )
        shutil.rmtree(cache, ignore_errors=True)
        Path(cache).mkdir()
    first, *later = (n / s for s in done["epochs"])
    return {
        "first": round(first, 1),
        "later": round(statistics.median(later), 1),
        "cpu_ms": round(1000 * done["cpu"] / n / len(done["epochs"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, help="loading.json, or loading-large.json, in results")
    parser.add_argument("--side", type=int, help="enlarge photos to this shorter side")
    parser.add_argument("--images", type=int, default=200, help="how many photos are enlarged")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("a later epoch needs --epochs of at least 2")
    if arguments.only:
        print(json.dumps(run_one(arguments.only, arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.side:
            arguments.data = enlarged(
                arguments.data, arguments.side, arguments.images, Path(folder)
            )
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """All contenders in turns, and the report."""
    files = [file for file in (arguments.data / "train").glob("*/*") if file.is_file()]
    for file in files:
        file.read_bytes()  # into the system's memory
    chosen = arguments.contenders.split(",")
    seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in chosen}
    for repeat in range(arguments.repeats):
        for contender in chosen:
            seen[contender].append(measure(contender, arguments, len(files)))
            print(
                f"{repeat + 1}/{arguments.repeats}  {contender:12}",
                seen[contender][-1],
                file=sys.stderr,
                flush=True,
            )

    medians = {
        c: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for c, results in seen.items()
    }
    report = {
        **described("loading", "foveate torch torchvision pillow"),
        "images": len(files),
        "batch": arguments.batch,
        "workers": arguments.workers,
        "enlarged_to": arguments.side,
        "results": {
            c: {
                "median_images_per_second": medians[c],
                "images_per_second": seen[c],
                "ratio_to_torchvision": {
                    key: round(medians[c][key] / medians["torchvision"][key], 2)
                    for key in ("first", "later")
                }
                if "torchvision" in medians
                else None,
            }
            for c in chosen
        },
    }
    save(
        report,
        arguments.out or RESULTS / ("loading-large.json" if arguments.side else "loading.json"),
    )
    for c, result in report["results"].items():
        rates, ratios = result["median_images_per_second"], result["ratio_to_torchvision"] or {}
        print(
            f"{c:12} first {rates['first']:7.0f}/s  x{ratios.get('first')}   later "
            f"{rates['later']:7.0f}/s ",
            f"x{ratios.get('later')}   {rates['cpu_ms']:.2f} ms of CPU an image",
        )


if __name__ == "__main__":
    main()
