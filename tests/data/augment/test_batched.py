"""Whole batches at once give the bytes that image by image would."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foveate.data.augment import Augment
from foveate.data.augment.batched import Table, applies, product, uniform
from foveate.data.augment.streams import generator
from foveate.data.batches import EvaluationBatches, TrainingBatches
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess

GREY = Preprocess(8, 8, channels=1, mean=(0.3,), std=(0.3,))
COLOUR = Preprocess(8, 8, mean=(0.3,) * 3, std=(0.3,) * 3)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def image_by_image(dataset: Dataset) -> Dataset:
    """The same set as if it were files."""
    return replace(dataset, pixels=None)


SIMPLE = [
    Augment(),
    Augment(hflip=0.5),
    Augment(vflip=0.3, hflip=1.0),
    Augment(crop="random"),
    Augment(crop="random", padding=0.4, hflip=0.5, vflip=0.5),
    Augment(crop="random", padding=0.0),
    Augment(crop="random", mixup=0.4),
    Augment(crop="random", hflip=0.5, cutmix=1.0),
]


@pytest.mark.parametrize("augmentation", SIMPLE)
@pytest.mark.parametrize("preprocess", [GREY, COLOUR], ids=["grey", "colour"])
def test_training_batches(digits: Dataset, augmentation: Augment, preprocess: Preprocess) -> None:
    rows = np.random.default_rng(0).permutation(len(digits))[:150]
    fast = TrainingBatches(digits, rows, preprocess, augmentation, 32, seed=9)
    slow = TrainingBatches(image_by_image(digits), rows, preprocess, augmentation, 32, seed=9)
    assert fast.table is not None and slow.table is None
    for epoch in (0, 3):
        for a, b in zip(fast.epoch(epoch, 1), slow.epoch(epoch, 1), strict=True):
            assert torch.equal(a.pixels, b.pixels) and torch.equal(a.targets, b.targets)
            assert a.names == b.names and (a.number, a.total) == (b.number, b.total)
            assert a.pixels.is_contiguous(memory_format=torch.channels_last)


def test_balanced_and_on_two_ranks(digits: Dataset) -> None:
    rows = np.flatnonzero(digits.labels < 3)[:90]
    for rank in (0, 1):
        fast, slow = (
            TrainingBatches(
                d, rows, GREY, Augment("light"), 30, rank=rank, world=2, sampling="balanced"
            )
            for d in (digits, image_by_image(digits))
        )
        for a, b in zip(fast.epoch(2), slow.epoch(2), strict=True):
            assert torch.equal(a.pixels, b.pixels)


@pytest.mark.parametrize("preprocess", [GREY, COLOUR], ids=["grey", "colour"])
def test_evaluation_batches(digits: Dataset, preprocess: Preprocess) -> None:
    rows = np.arange(5, 105)
    fast, slow = (
        EvaluationBatches(d, rows, preprocess, 32) for d in (digits, image_by_image(digits))
    )
    assert fast.array is not None and slow.array is None
    for a, b in zip(fast, slow, strict=True):
        assert torch.equal(a.pixels, b.pixels) and a.names == b.names


@pytest.mark.parametrize(
    "augmentation",
    [
        Augment("standard"),
        Augment("strong"),
        *(
            Augment(**{part: 0.1})
            for part in ("translate", "scale", "brightness", "contrast", "erasing", "hue")
        ),
        Augment(rotation=5),
        Augment(shear=5),
        Augment(auto="trivial"),
        Augment(pca_colour=0.1),
        Augment(saturation=0.1),
    ],
)
def test_everything_else_is_done_one_by_one(augmentation: Augment) -> None:
    assert not applies(augmentation)


def test_images_that_need_more(digits: Dataset) -> None:
    rows = np.arange(50)
    assert digits.array(1, 9) is None  # would have to be enlarged
    assert image_by_image(digits).array(1, 8) is None
    # colour to grey
    assert replace(digits, pixels=np.zeros((4, 8, 8, 3), np.uint8)).array(1, 8) is None
    growing = TrainingBatches(digits, rows, GREY, Augment("light"), 10, size=lambda epoch: 8)
    assert growing.table is None
    assert (
        EvaluationBatches(
            digits, rows, Preprocess(9, 8, channels=1, mean=(0.0,), std=(1.0,)), 8
        ).array
        is None
    )


def test_images_that_are_not_square() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 11, 3), np.uint8)
    for augmentation in SIMPLE[:6]:
        table = Table(pixels, augmentation, 8)
        augment = augmentation.replace(size=8)
        rows, samples = np.array([5, 0, 3]), np.array([17, 0, 2**40])
        expected = [
            augment.at(4, 2, s)(pixels[r]) for r, s in zip(rows, samples.tolist(), strict=True)
        ]
        found = table.augmented(rows, samples, 4, 2)
        assert all(
            torch.equal(torch.from_numpy(f).permute(2, 0, 1), e)
            for f, e in zip(found, expected, strict=True)
        )


def test_selected_images_stay_with_their_names(digits: Dataset) -> None:
    from foveate.data.image import load_image

    some = digits.select(np.array([1000, 3, 40]))
    assert some.pixels is not None
    for i in range(3):
        assert np.array_equal(
            some.pixels[i, :, :, 0], np.asarray(load_image(some.read(i)))[:, :, 0]
        )


@pytest.mark.parametrize("preprocess", [GREY, COLOUR], ids=["grey", "colour"])
def test_prediction_sees_the_same_either_way(digits: Dataset, preprocess: Preprocess) -> None:
    from foveate.data.preprocess import as_prediction_sees, decode

    array = as_prediction_sees(digits, preprocess)
    assert array is not None
    for i in (0, 7, 1796):
        assert np.array_equal(array[i], decode(digits.read(i), digits.files[i], preprocess))
    assert as_prediction_sees(digits, preprocess.at(9)) is None
    assert as_prediction_sees(image_by_image(digits), preprocess) is None


@pytest.mark.parametrize("block", [0, 1, 5, 15])
def test_numbers_are_numpys(block: int) -> None:
    samples = np.array([0, 1, 59_999, 2**33, 2**62])
    for seed, epoch in ((0, 0), (2**63, 7), (12345, 10**6)):
        found = uniform(seed, epoch, samples, block)
        for sample, row in zip(samples.tolist(), found, strict=True):
            assert np.array_equal(
                generator(seed, epoch, sample).random(64)[4 * block : 4 * block + 4], row
            )


def test_products_of_64_bits() -> None:
    x = np.array([0, 1, 2**32 - 1, 2**32, 2**64 - 1, 0x123456789ABCDEF], np.uint64)
    for multiplier in (0, 1, 2**64 - 1, 0xD2E7470EE14C6C93):
        upper, lower = product(x, multiplier)
        exact = [int(a) * multiplier for a in x]
        assert [int(u) for u in upper] == [e >> 64 for e in exact]
        assert [int(w) for w in lower] == [e & (2**64 - 1) for e in exact]
