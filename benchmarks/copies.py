"""Near copies planted in photos are found, and images that only look alike are not.

    python benchmarks/copies.py CLOTHING [PRODUCE] [--large 60000]

Of a random half of the photos of CLOTHING, and of all that PRODUCE has to learn from, each gets one
copy of a random kind (PLANTED), saved as JPEG; originals and copies are one set. The thresholds of
foveate/audit/copies.py were chosen on the other half (--half 0). Then the photos as they are, and
scikit-learn's digits and 5,000 images of fashion-mnist (Debian's package dataset-fashion-mnist), of
which hardly any is a copy.

  recall      planted pairs that are found, of any kind
  false       pairs of different photos that are called copies; those of SEEN were looked at: they
              are one photo, or photos of one thing seconds apart
  same scene  pairs of different photos that are reported as that

Seconds are processor time of `find_copies` with two threads, since a shared machine gives no other.
"""

import argparse
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image

import foveate
from foveate.audit.copies import SCENE, Copies, find_copies
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.small import grey

# Pairs of different files that were looked at as images. Of clothing: the same photo, as shorts and
# as skirt; the same sandals, skirt and dress, photographed again. Of produce: the same fruits in
# another photo.
SEEN = {
    frozenset(pair.split())
    for pair in (
        "6075b4a5-5b1a-4ce0-aea0-9dbfbca7c35c 637a56e4-7fa6-4f75-8859-0f8902461554",
        "51e600b8-da42-434b-8953-c6fb890121a0 c8582c70-17af-4f48-a866-eac7e0572560",
        "02341619-2fa3-42d4-bb5e-689518228e67 78b7da73-ca6c-4e99-b88d-a9f358e7f0f2",
        "b59e4d4a-a283-4868-8a81-2f24d8b9c8d8 e6a8b33f-279c-4072-8dba-229d94205e55",
        "Brown-Cap-Mushroom_011 Brown-Cap-Mushroom_024",
        "Cabbage_011 Cabbage_015",
        "Granny-Smith_030 Granny-Smith_056",
        "Honeydew-Melon_007 Honeydew-Melon_018",
        "Kaiser_014 Kaiser_019",
        "Kiwi_014 Kiwi_039",
        "Mango_022 Mango_032",
        "Mango_023 Mango_027",
        "Orange_001 Orange_029",
        "Orange_022 Orange_040",
        "Peach_010 Peach_018",
        "Royal-Gala_003 Royal-Gala_009",
        "Royal-Gala_014 Royal-Gala_060",
        "Royal-Gala_016 Royal-Gala_063",
        "Royal-Gala_021 Royal-Gala_050",
        "Royal-Gala_031 Royal-Gala_037",
        "Vine-Tomato_008 Vine-Tomato_009",
        "Vine-Tomato_010 Vine-Tomato_013",
        "Granny-Smith_008 Granny-Smith_052",
        "Honeydew-Melon_018 Honeydew-Melon_031",
        "Honeydew-Melon_023 Honeydew-Melon_030",
        "Orange_001 Orange_030",
        "Orange_007 Orange_009",
        "Peach_006 Peach_009",
        "Peach_025 Peach_037",
        "Pomegranate_005 Pomegranate_025",
        "Vine-Tomato_015 Vine-Tomato_028",
    )
}
PLANTED = (
    "turned by 12 degrees",
    "turned by quarters",
    "mirrored",
    "cropped to 70 %",
    "quality 60",
    "half size",
    "thumbnail of 96 pixels",
)


def plant(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    if kind == "turned by 12 degrees":
        return image.rotate(12 * int(rng.choice([-1, 1])), Image.Resampling.BICUBIC)
    if kind == "turned by quarters":
        return image.rotate(90 * int(rng.integers(1, 4)), expand=True)
    if kind == "mirrored":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "cropped to 70 %":
        w, h = round(0.7 * width), round(0.7 * height)
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return image.crop((x, y, x + w, y + h))
    if kind == "half size":
        return image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    if kind == "thumbnail of 96 pixels":
        image = image.copy()
        image.thumbnail((96, 96))
    return image


def measured(greys: NDArray[np.uint8], features: NDArray[np.float32]) -> tuple[Copies, Any]:
    before = time.process_time()
    found = find_copies(greys, features, threads=2)
    return found, {"images": len(greys), "cpu_seconds": round(time.process_time() - before, 2)}


def greys_of(dataset: Dataset) -> NDArray[np.uint8]:
    return np.stack([grey(dataset[i][0]) for i in range(len(dataset))])


def planted(folder: Path, share: float, half: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Photos with copies of `share` of them, the first of a random order or the last (`half`)."""
    photos = load_dataset(folder)
    if folder.name == "produce":  # its test images are for judging classifiers alone
        photos = photos.split("train")
    rng = np.random.default_rng(seed)
    order = np.argsort(photos.files)[rng.permutation(len(photos))]
    few = int(share * len(photos))
    chosen = np.sort(order[:few] if half or share == 1 else order[few:])
    kinds = rng.integers(len(PLANTED), size=len(photos))
    files = []
    for i in chosen:
        kind = PLANTED[kinds[i]]
        files.append(scratch / f"{i:06d}.jpg")
        copy = plant(photos[i][0], kind, rng)
        copy.save(files[-1], quality=60 if kind == "quality 60" else 90)
    copies = Dataset.of(files, ["copy"] * len(files))
    greys = np.concatenate([greys_of(photos), greys_of(copies)])
    parts = [foveate.extract_features(dataset, threads=2) for dataset in (photos, copies)]
    found, report = measured(greys, np.concatenate(parts))

    source = np.concatenate([np.arange(len(photos)), chosen])
    a, b = found.pairs.T
    same = source[a] == source[b]
    hits = set(b[same].tolist())
    total, right = Counter(), Counter()
    for row, i in enumerate(chosen, len(photos)):
        total[PLANTED[kinds[i]]] += 1
        right[PLANTED[kinds[i]]] += row in hits
    called = np.array([kind != SCENE for kind in found.kinds])
    names = [Path(photos.files[i]).stem for i in range(len(photos))]
    wrong = [(names[source[x]], names[source[y]]) for x, y in found.pairs[called & ~same]]
    unseen = [pair for pair in wrong if frozenset(pair) not in SEEN]
    plain, plain_report = measured(greys[: len(photos)], parts[0])
    return report | {
        "planted": len(chosen),
        "recall": {kind: round(right[kind] / total[kind], 4) for kind in PLANTED},
        "recall_of_all": round(len(hits) / len(chosen), 4),
        "pairs_called_copies": int(called.sum()),
        "of_different_photos": len(wrong),
        "of_these_not_seen_to_be_real": unseen,
        "precision": round(1 - len(unseen) / max(1, int(called.sum())), 4),
        "same_scene": int((~called & ~same).sum()),
        "as_it_is": plain_report
        | {"copies": listed(plain, names, True), "same_scene": listed(plain, names, False)},
    }


def listed(found: Copies, names: list[str], copies: bool) -> list[list[Any]]:
    """Pairs as [name, name, kind, evidence, correlation]."""
    return [
        [names[a], names[b], kind, round(float(z), 1), round(float(r), 2)]
        for (a, b), kind, z, r in zip(
            found.pairs, found.kinds, found.evidence, found.correlation, strict=True
        )
        if (kind != SCENE) == copies
    ]


def alike(name: str, few: int | None) -> dict[str, Any]:
    """A built-in set of small images that look alike."""
    dataset = load_dataset(name)
    if few is not None:
        dataset = dataset.select(np.sort(np.random.default_rng(0).permutation(len(dataset))[:few]))
    found, report = measured(greys_of(dataset), foveate.extract_features(dataset, threads=2))
    names = list(dataset.files)
    return report | {
        "copies": listed(found, names, True),
        "same_scene": listed(found, names, False),
    }


def large(folder: Path, images: int) -> dict[str, Any]:
    """Time and memory of so many images: crops of photos, at random places and of random sizes,
    with random features that are alike for crops of one photo."""
    photos = load_dataset(folder)
    rng = np.random.default_rng(0)
    greys = np.empty((images, 64, 64), np.uint8)
    features = np.empty((images, 1024), np.float32)
    centres = rng.standard_normal((len(photos), 1024), dtype=np.float32)
    for i in range(images):
        if i % (1 + images // len(photos)) == 0:
            row = int(rng.integers(len(photos)))
            image = photos[row][0]
        side = int(rng.integers(100, 300))
        x, y = (int(rng.integers(max(1, s - side))) for s in image.size)
        greys[i] = grey(image.crop((x, y, x + side, y + side)))
        features[i] = centres[row] + rng.standard_normal(1024, dtype=np.float32)
    begun = time.perf_counter()
    found, report = measured(greys, features)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    wall = round(time.perf_counter() - begun, 1)
    return report | {"seconds": wall, "peak_mb": peak, "pairs": len(found.pairs)}


def print_table(name: str, result: dict[str, Any], indent: str = "") -> None:
    """Lists as their lengths."""
    print(f"{indent}{name}")
    for key, value in result.items():
        if isinstance(value, dict):
            print_table(key, value, indent + "  ")
        else:
            print(f"{indent}  {key:32}{len(value) if isinstance(value, list) else value}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clothing", type=Path)
    parser.add_argument("produce", type=Path, nargs="?")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1)
    parser.add_argument("--large", type=int, default=0, help="time of so many images too")
    parser.add_argument("--out", type=Path, default=RESULTS / "copies.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sets = {"clothing": arguments.clothing, "produce": arguments.produce}
        for name, folder in sets.items():
            if folder is not None:
                place = Path(scratch) / name
                place.mkdir()
                share = 0.5 if name == "clothing" else 1.0
                results[name] = planted(folder, share, arguments.half, 0, place)
        for name, few in (("digits", None), ("fashion-mnist", 5000)):
            results[name] = alike(name, few)
        if arguments.large:
            results["large"] = large(arguments.clothing, arguments.large)
    for name, result in results.items():
        print_table(name, result)
    report = described("copies", "foveate numpy pillow") | {
        "date": time.strftime("%Y-%m-%d"),
        "seen": sorted(sorted(pair) for pair in SEEN),
        "results": results,
    }
    save(report, arguments.out)


if __name__ == "__main__":
    main()
