"""Augmentation of standardised images, and intervals over runs."""

from pathlib import Path

import numpy as np
import torch

from foveate import Augment
from foveate.lab.augmentation import SIDE, augmentations, interval
from foveate.lab.bench import Bench
from foveate.lab.learning import variants


def test_a_variant_is_what_augment_makes_of_the_pixels(tmp_path: Path) -> None:
    images = Bench(tmp_path).images("digits", SIDE, 50)
    assert torch.allclose(images.standardised(images.unit(images.x)), images.x, atol=1e-5)
    same = variants(Augment(size=SIDE), images)(images.x)
    assert torch.allclose(same, images.x, atol=1e-4)
    flipped = variants(Augment(size=SIDE, vflip=1.0), images)(images.x)
    assert torch.allclose(flipped, images.x.flip(2), atol=1e-4)


def test_colour_is_for_colour_images_only(tmp_path: Path) -> None:
    grey = augmentations(Bench(tmp_path).images("digits", SIDE, 50))
    assert "PCA colour, σ = 0.1" not in grey and "mixup, α = 0.2" in grey


def test_an_interval_is_that_of_student() -> None:
    middle, half = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert middle == 3 and abs(half - 2.776 * np.sqrt(2.5 / 5)) < 1e-12
