"""Colours beside torchvision's, AlexNet's PCA colour beside plain numpy, and erasing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photos import drawn, photo, planes
from refusals import refused
from torchvision.transforms.v2 import functional as F

from foveate.data.augment import Augment, render
from foveate.data.augment.colour import UNCHANGED, Factors, Hue, Jitter
from foveate.data.augment.erasing import Erasing
from foveate.data.augment.geometry import Crop, Cut
from foveate.data.augment.pca import PAPER_PCA, PCA_IMAGES, PcaColour, fit_pca
from foveate.data.augment.streams import generator
from foveate.data.decoding import for_training
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess
from foveate.errors import DataError, UsageError


def close(found: torch.Tensor, expected: torch.Tensor, levels: int = 1) -> bool:
    return int((found.round().int() - expected.int()).abs().max()) <= levels


# Colour


@pytest.mark.parametrize("factor", [0.0, 0.4, 0.9, 1.5, 2.0])
@pytest.mark.parametrize(
    ("part", "peer"),
    [
        ("brightness", F.adjust_brightness),
        ("contrast", F.adjust_contrast),
        ("saturation", F.adjust_saturation),
    ],
)
def test_colour_equals_torchvision(
    part: str, peer: Callable[..., torch.Tensor], factor: float
) -> None:
    for seed in range(3):
        x = planes(seed=seed)
        found = Jitter().render(x.clone(), UNCHANGED._replace(**{part: factor}))
        assert close(found, peer(x.to(torch.uint8), factor))


@pytest.mark.parametrize("part", ["brightness", "contrast"])
def test_grey_colour_equals_torchvision(part: str) -> None:
    x = planes(channels=1)
    found = Jitter().render(x.clone(), UNCHANGED._replace(**{part: 1.4}))
    assert close(found, getattr(F, f"adjust_{part}")(x.to(torch.uint8), 1.4))


@pytest.mark.parametrize("turns", [-0.5, -0.2, -0.01, 0.1, 0.3, 0.5])
def test_hue_equals_torchvision(turns: float) -> None:
    x = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    ).permute(2, 0, 1)
    x[:, :4] = x[:1, :4]  # some greys, which have no hue
    assert close(Hue().render(x.float(), turns), F.adjust_hue(x, turns))


def test_hue_goes_round() -> None:
    third = Hue().render(planes(), 1 / 3)
    torch.testing.assert_close(third, planes()[[2, 0, 1]], atol=0.01, rtol=0)  # red becomes green


def test_range_is_used_and_never_left() -> None:
    """Nothing wraps round: white made brighter stays white, black made darker black."""
    for level, factor in ((255, 2.0), (0, 0.0)):
        flat = np.full((20, 20, 3), level, np.uint8)
        whole = (Crop(), Cut((0, 0, 20, 20), None, 20))
        shift = (0.5, 0.5, 0.5) if level else (-0.5, -0.5, -0.5)
        for step in ((Jitter(), UNCHANGED._replace(brightness=factor)), (PcaColour(), shift)):
            assert (render(flat, [whole, step]) == level).all()


def test_colours_together_are_one_step_after_the_other() -> None:
    """Against plain numpy in floating point, away from black and white, where the order of clamping
    would matter."""
    x = planes().mul(0.3).add(80)
    b, c, s = 1.1, 0.8, 1.3
    grey = np.array([0.2989, 0.587, 0.114])
    y = x.numpy().astype(np.float64) * b
    y = c * y + (1 - c) * np.einsum("c,chw->hw", grey, y).mean()
    y = s * y + (1 - s) * np.einsum("c,chw->hw", grey, y)
    found = Jitter().render(x, Factors(brightness=b, contrast=c, saturation=s))
    np.testing.assert_allclose(found.numpy(), y, atol=0.05)


# PCA colour


def test_pca_colour_equals_plain_numpy() -> None:
    """AlexNet, section 4.1: to each pixel add [p1 p2 p3] [a1 l1, a2 l2, a3 l3]', with a ~ N(0,
    sigma)."""
    pca = fit_pca([photo(seed=i) for i in range(4)])
    augment = Augment(pca_colour=0.8, size=40).with_components(pca)
    for i in range(10):
        rng = generator(3, 1, i)
        rng.random(62)
        alphas = rng.normal(0, 0.8, 3)
        shift = np.array(pca.eigenvectors) @ (alphas * np.array(pca.eigenvalues))
        expected = np.clip(np.round(photo(40, 40) + 255 * shift), 0, 255)
        found = augment.at(3, 1, i)(photo(40, 40)).permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() <= (0 if i == 0 else 1)  # a half may round either way
        assert np.mean(found != expected) < 0.02


def test_pca_colour_has_the_covariance_of_the_images_colours_squared() -> None:
    augment = Augment(pca_colour=0.1, pca_from="imagenet")
    shifts = np.array([drawn(augment, PcaColour, i) for i in range(4000)])
    vectors, values = np.array(PAPER_PCA.eigenvectors), np.array(PAPER_PCA.eigenvalues)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.1 * expected.max())


def test_pca_colour_without_components_names_what_to_call() -> None:
    with refused(UsageError, "pca_colour", ".fit(dataset)", "pca_from='imagenet'"):
        Augment(pca_colour=0.1)(photo())
    with refused(UsageError, "pca", "PrincipalComponents"):
        PcaColour(pca=3)


def test_fit(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    data = load_dataset(draw_folder(tmp_path / "set", 6))
    (tmp_path / "set/blob/001.jpg").write_bytes(b"broken")
    preprocess, rows = Preprocess(32, 32), np.arange(3, 18)
    wanted = Augment(pca_colour=0.1)
    found = wanted.fit(data, rows=rows, preprocess=preprocess, threads=2)
    rule = for_training(preprocess, 32)
    readable = [rule.make(data.read(i), data.files[i]) for i in rows if i != 1]
    components = found.part(PcaColour).pca
    assert components is not None and found == wanted.with_components(components) != wanted
    assert components.eigenvalues == pytest.approx(fit_pca(readable).eigenvalues, rel=0.02)
    assert wanted.fit(data, rows=rows, preprocess=preprocess, threads=1) == found
    published = wanted.replace(pca_from="imagenet").fit(data)
    assert published.part(PcaColour).pca == PAPER_PCA
    assert found.fit(data, rows=rows[:1]) is found
    standard = Augment("standard")
    assert standard.fit(data) is standard
    assert found(photo()).shape == (3, 224, 224)
    broken = np.array([data.files.index("blob/001.jpg")])
    with refused(DataError, "no image"):
        wanted.fit(data, rows=broken, preprocess=preprocess)
    assert wanted.fit(data, rows=[0, 2, 4]) == wanted.fit(data, rows=np.array([0, 2, 4]))
    for given in ({"rows": [99]}, {"rows": [-1]}, {"rows": "train"}, {"threads": -1}):
        ((name, value),) = given.items()
        with refused(UsageError, name, repr(value)):
            wanted.fit(data, **given)


def test_fit_takes_the_training_images_of_a_dataset(
    tmp_path: Path, draw_folder: Callable[..., Path]
) -> None:
    data = load_dataset(draw_folder(tmp_path / "set", 6))
    data = replace(data, splits=("train", "test") * 9)
    wanted = Augment(pca_colour=0.1)
    assert (
        wanted.fit(data)
        == wanted.fit(data, rows=np.arange(0, 18, 2))
        != wanted.fit(data, rows=np.arange(18))
    )
    for value in (tmp_path / "set", [photo()], None):
        with refused(UsageError, "Dataset", "load_dataset"):
            wanted.fit(value)


def test_fit_reads_no_more_than_it_needs(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    data = load_dataset(draw_folder(tmp_path / "set", 2))
    seen: list[int] = []
    many = replace(data, read=lambda i: seen.append(i) or data.read(0), files=("x",) * 5000)
    augment = Augment(pca_colour=0.1)
    augment.fit(many, rows=np.arange(4000), preprocess=Preprocess(8, 8), threads=1)
    assert len(seen) == len(set(seen)) == PCA_IMAGES
    assert (min(seen), max(seen)) == (0, 3999)


# Erasing


def test_erasing_turns_one_rectangle_to_noise() -> None:
    augment = Augment(erasing=1.0, size=40)
    shares = []
    for i in range(200):
        (top, left, h, w), noise = drawn(augment, Erasing, i)
        found = augment.at(0, 0, i)(photo(40, 40)).permute(1, 2, 0).numpy()
        rest = np.ones((40, 40), bool)
        rest[top : top + h, left : left + w] = False
        assert np.array_equal(found[rest], photo(40, 40)[rest])
        assert np.array_equal(found[top : top + h, left : left + w], noise)
        shares.append(h * w / 1600)
    assert min(shares) > 0.01 and max(shares) < 0.36
    assert np.mean(shares) == pytest.approx((0.02 + 0.33) / 2, abs=0.02)
    some = [drawn(Augment(erasing=0.3), Erasing, i) is not None for i in range(1000)]
    assert np.mean(some) == pytest.approx(0.3, abs=0.05)
