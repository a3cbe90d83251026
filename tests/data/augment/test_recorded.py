"""What a (seed, epoch, image) gives is recorded, so that a run begun with one version goes on with
the next: random numbers and pixels of every policy and part, for several shapes and channels.

`recorded.json` was written before the parts became classes. Numbers are equal everywhere; pixels to
the bit where nothing is computed with them, else on average: sums of floats differ in their last
bit among processors.
Write it again, knowingly, with `python tests/data/augment/test_recorded.py`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import photo

from foveate.data.augment import POLICIES, Augment, render
from foveate.data.augment.auto import Auto
from foveate.data.augment.colour import UNCHANGED, Hue, Jitter
from foveate.data.augment.erasing import Erasing
from foveate.data.augment.geometry import UNMOVED, Affine, Crop, Flip
from foveate.data.augment.mix import Mix
from foveate.data.augment.pca import PcaColour
from foveate.data.augment.streams import batch_generator
from foveate.data.batches import TrainingBatches
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess

RECORD = Path(__file__).with_name("recorded.json")
AFFINE = {"rotation": 30, "translate": 0.2, "scale": 0.3, "shear": 10}
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
PCA = {"pca_colour": 0.5, "pca_from": "imagenet"}
OPTIONS: dict[str, dict[str, Any]] = {
    **{f"policy {name}": {"policy": name} for name in POLICIES},
    "flips": {"hflip": 0.5, "vflip": 0.3},
    "padding": {"crop": "random", "padding": 0.4},
    "small crops": {"crop": "resized", "crop_area": (0.1, 0.3), "crop_ratio": (0.5, 3.0)},
    "rotation": {"rotation": 90},
    "shear": {"shear": 20},
    "affine": AFFINE,
    "light": {"brightness": 0.5, "contrast": 0.5},
    "trivial": {"auto": "trivial"},
    "rand": {"auto": "rand", "magnitude": 20},
    "erasing": {"erasing": 0.7},
    "saturation": {"saturation": 0.9},
    "hue": {"hue": 0.5},
    "pca": PCA,
    "everything": {"policy": "strong", "vflip": 0.5, **AFFINE, **COLOURS, **PCA},
}
COLOURED = {"saturation", "hue", "pca", "everything"}
SHAPES = [(1, 1), (3, 2), (20, 30), (50, 70), (300, 40)]
EXACT = {"policy none", "policy light", "flips", "padding", "erasing"}  # no arithmetic on pixels


def draws_and_pixels(
    options: dict[str, Any], pixels: np.ndarray, size: int, sample: int
) -> tuple[list[Any], np.ndarray]:
    """What is drawn, in the order in which it was first written down, and (size, size, C)."""
    steps = Augment(**options).draw(7, 3, sample, pixels.shape, size)
    drawn = {type(part): what for part, what in steps}
    erased = drawn.get(Erasing)
    written = [
        drawn[Crop].box,
        *drawn.get(Flip, (False, False)),
        *drawn.get(Affine, UNMOVED),
        *drawn.get(Jitter, UNCHANGED),
        drawn.get(Hue, 0.0),
        drawn.get(PcaColour, (0.0, 0.0, 0.0)),
        drawn.get(Auto, ()),
        erased and erased.box,
        erased and erased.noise.tobytes().hex(),
    ]
    return written, render(pixels, steps).permute(1, 2, 0).numpy()


def plain(value: Any) -> Any:
    """Without the last digits, which are the C library's."""
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, (str, bool)) else round(float(value), 4) + 0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def cases() -> Iterator[tuple[str, str, tuple[int, int], int, int]]:
    for name in OPTIONS:
        for channels in (1, 3):
            if channels == 3 or name not in COLOURED:
                for shape in SHAPES:
                    yield f"{name} {shape} {channels}", name, shape, channels, 33
                yield f"{name} at 224 {channels}", name, (256, 341), channels, 224


CASES = {case: rest for case, *rest in cases()}


def found(case: str) -> dict[str, Any]:
    name, shape, channels, size = CASES[case]
    drawn, made = [], []
    for sample in (0, 1, 5, 2**40) if size == 224 else (0, 1, 2, 3, 4, 5, 1000, 2**40):
        numbers, pixels = draws_and_pixels(OPTIONS[name], photo(*shape, channels), size, sample)
        drawn.append(plain(numbers))
        made.append(pixels)
    result: dict[str, Any] = {"draws": digest(json.dumps(drawn).encode())}
    if name in EXACT and min(shape) >= size:
        result["pixels"] = digest(b"".join(pixels.tobytes() for pixels in made))
    return result | {"means": [round(float(pixels.mean()), 1) for pixels in made]}


def batches() -> dict[str, str]:
    """Whole batches of a set that is one array, and what mixup and CutMix draw."""
    digits, preprocess = load_dataset("digits"), Preprocess(8, 8, mean=(0.5,) * 3, std=(0.5,) * 3)
    result = {}
    for name in ("flips", "padding", "policy light"):
        made = TrainingBatches(
            digits, np.arange(200), preprocess, Augment(**OPTIONS[name]), 32, seed=9
        )
        result[name] = digest(b"".join(b.pixels.numpy().tobytes() for b in made.epoch(4)))
    for name, alphas in {"mixup": (0.2, 0.0), "cutmix": (0.0, 1.0), "both": (0.4, 1.0)}.items():
        mix = Mix(*alphas)
        drawn = [mix.draw(13, 48, 48, batch_generator(7, 3, b)) for b in range(20)]
        plainly = [
            [m.partner.tolist(), plain(m.share), m.box and [(s.start, s.stop) for s in m.box]]
            for m in drawn
        ]
        result[name] = digest(json.dumps(plainly).encode())
    return result


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text())


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_pixels_are_those_of_the_record(case: str, record: dict[str, Any]) -> None:
    here, then = found(case), record["images"][case]
    assert here["draws"] == then["draws"]
    assert here.get("pixels") == then.get("pixels")
    assert here["means"] == pytest.approx(then["means"], abs=0.2)


def test_batches_are_those_of_the_record(record: dict[str, Any]) -> None:
    assert batches() == record["batches"]


if __name__ == "__main__":
    images = {case: found(case) for case in CASES}
    content = {"images": images, "batches": batches()}
    lines = json.dumps(content).replace('}, "', '},\n"')  # a line a case
    RECORD.write_text(lines + "\n")
