"""Each part of a policy does its own thing and nothing else, and the same in any order and number
of threads."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image

from foveate.data.augment.pca import PAPER_PCA, fit_pca
from foveate.data.augment.policies import POLICIES, Augmentation
from foveate.data.augment.render import augment, render
from foveate.data.augment.view import View, batch_generator, draw, generator
from foveate.data.decoding import for_training
from foveate.data.preprocess import Preprocess

# One value for each part that is on, and what else must be on for it to matter
PARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "crop": ("resized", {}),
    "padding": (0.3, {"crop": "random"}),
    "crop_area": ((0.3, 0.4), {"crop": "resized"}),
    "crop_ratio": ((1.0, 1.0), {"crop": "resized"}),
    "hflip": (1.0, {}),
    "vflip": (1.0, {}),
    "rotation": (30.0, {}),
    "translate": (0.3, {}),
    "scale": (0.3, {}),
    "shear": (20.0, {}),
    "brightness": (0.5, {}),
    "contrast": (0.5, {}),
    "saturation": (0.5, {}),
    "hue": (0.3, {}),
    "pca_colour": (0.5, {}),
    "pca": (fit_pca([photo(seed=3)]), {"pca_colour": 0.5}),
    "auto": ("rand", {}),
    "magnitude": (30, {"auto": "rand"}),
    "erasing": (1.0, {}),
}
NOT_HERE = {"pca_from", "mixup", "cutmix"}  # with_pca and mix.py read these


def test_every_part_has_a_test() -> None:
    assert set(PARTS) | NOT_HERE == set(Augmentation.__dataclass_fields__)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_changes_pixels_when_on_and_nothing_else(part: str) -> None:
    value, needed = PARTS[part]
    off = Augmentation(**{"pca": PAPER_PCA, **needed})
    on = replace(off, **{part: value})
    changed = [
        not torch.equal(
            augment(photo(), off, 40, generator(0, 0, i)),
            augment(photo(), on, 40, generator(0, 0, i)),
        )
        for i in range(8)
    ]
    assert any(changed)


@pytest.mark.parametrize(
    "part", sorted(set(PARTS) - {"crop", "padding", "crop_area", "crop_ratio"})
)
def test_switching_one_part_leaves_the_others_as_they_were(part: str) -> None:
    value, _ = PARTS[part]
    base = replace(
        POLICIES["strong"], rotation=10, brightness=0.2, hue=0.1, pca_colour=0.1, pca=PAPER_PCA
    )
    own = {
        "hflip": {"mirror"},
        "vflip": {"upside_down"},
        "rotation": {"angle"},
        "translate": {"move"},
        "scale": {"zoom"},
        "pca_colour": {"shift"},
        "pca": {"shift"},
        "auto": {"operations"},
        "magnitude": {"operations"},
        "erasing": {"erased", "noise"},
    }.get(part, {part})
    for i in range(5):
        before = draw(base, (50, 70, 3), 40, generator(0, 0, i))._asdict()
        after = draw(replace(base, **{part: value}), (50, 70, 3), 40, generator(0, 0, i))._asdict()
        assert {key for key in before if not np.array_equal(before[key], after[key])} <= own


def test_a_detail_of_a_part_that_is_off_does_nothing() -> None:
    plain = augment(photo(), Augmentation(), 40, generator(0, 0, 0))
    details = Augmentation(
        padding=0.4,
        crop_area=(0.1, 0.2),
        crop_ratio=(2, 3),
        magnitude=30,
        pca=PAPER_PCA,
        pca_from="imagenet",
    )
    assert torch.equal(augment(photo(), details, 40, generator(0, 0, 0)), plain)


@pytest.mark.parametrize("rng", range(5))
def test_none_is_the_middle_whatever_the_random_numbers(rng: int) -> None:
    found = augment(photo(50, 70), POLICIES["none"], 40, generator(rng, rng, rng))
    assert torch.equal(found, torch.from_numpy(photo(50, 70)[5:45, 15:55].copy()).permute(2, 0, 1))


EVERYTHING = Augmentation(
    "resized", 0.1, hflip=0.5, vflip=0.5, rotation=180, translate=0.3, scale=0.5, shear=30, brightness=0.9,
    contrast=0.9, auto="rand", magnitude=30, erasing=0.5,
)  # fmt: skip
COLOURS = {"saturation": 0.9, "hue": 0.5, "pca_colour": 1.0, "pca": PAPER_PCA}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 8, 33, 224])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 2), (33, 33), (40, 300)])
def test_type_shape_and_memory(shape: tuple[int, int], size: int, channels: int) -> None:
    pixels = photo(*shape, channels)
    before = pixels.copy()
    everything = replace(EVERYTHING, **COLOURS) if channels == 3 else EVERYTHING
    for augmentation in (*POLICIES.values(), everything, replace(everything, crop="random")):
        for i in range(2):
            found = augment(pixels, augmentation, size, generator(0, 0, i))
            assert (found.dtype, found.shape) == (torch.uint8, (channels, size, size))
            found.fill_(7)  # it is ours: the kept image must not notice
            assert np.array_equal(pixels, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_reproducible_in_any_order_and_number_of_threads(policy: str) -> None:
    augmentation = replace(POLICIES[policy], rotation=10, contrast=0.3, hue=0.1)
    kept = [photo(60, 80, seed=i) for i in range(12)]

    def look(i: int) -> torch.Tensor:
        return augment(kept[i], augmentation, 48, generator(5, 3, i))

    expected = [look(i) for i in range(12)]
    torch.manual_seed(9)
    for threads in (1, 4):
        order = np.random.default_rng(threads).permutation(12).tolist()
        with ThreadPoolExecutor(threads) as pool:
            for i, found in zip(order, pool.map(look, order), strict=True):
                assert torch.equal(found, expected[i])


def test_the_same_whatever_the_threads_inside_torch() -> None:
    """Sums over an image, as for contrast, may not depend on how torch shares them out."""
    threads, looks = torch.get_num_threads(), []
    augmentation = Augmentation(
        rotation=20, contrast=0.9, saturation=0.9, hue=0.2, auto="rand", magnitude=20
    )
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            looks.append(
                [augment(photo(240, 240), augmentation, 224, generator(0, 0, i)) for i in range(20)]
            )
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in looks[1:] for a, b in zip(looks[0], other, strict=True)
    )


def test_no_global_random_state_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for i in range(5):
        augment(photo(), replace(EVERYTHING, **COLOURS), 40, generator(0, 0, i))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_generators_differ_in_each_of_their_numbers() -> None:
    makers = (generator, batch_generator)
    firsts = {
        make(s, e, i).random()
        for make in makers
        for s in range(4)
        for e in range(4)
        for i in range(4)
    }
    assert len(firsts) == 2 * 4**3
    assert generator(2**63, 1, 2).random() == generator(2**63, 1, 2).random()


def test_samples_are_independent() -> None:
    u = np.array([generator(0, 0, i).random(5) for i in range(4000)])
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.06
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.06
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.02


def test_what_is_drawn_fills_its_range() -> None:
    a = Augmentation(
        rotation=30,
        translate=0.1,
        scale=0.2,
        shear=10,
        brightness=0.4,
        contrast=0.3,
        saturation=0.2,
        hue=0.1,
    )
    views = [draw(a, (40, 40, 3), 40, generator(0, 0, i)) for i in range(1000)]
    ranges = {
        "angle": (-30, 30),
        "zoom": (0.8, 1.2),
        "shear": (-10, 10),
        "brightness": (0.6, 1.4),
        "contrast": (0.7, 1.3),
        "saturation": (0.8, 1.2),
        "hue": (-0.1, 0.1),
    }
    values = {name: [getattr(view, name) for view in views] for name in ranges}
    values |= {"right": [v.move[0] for v in views], "down": [v.move[1] for v in views]}
    for name, (low, high) in {**ranges, "right": (-0.1, 0.1), "down": (-0.1, 0.1)}.items():
        span = high - low
        assert (
            low <= min(values[name]) < low + span / 50
            and high - span / 50 < max(values[name]) <= high
        )
        assert np.mean(values[name]) == pytest.approx((low + high) / 2, abs=span / 25)


@pytest.mark.parametrize("size", [(512, 384), (384, 512), (96, 96)])
def test_none_is_what_evaluation_sees(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(photo(size[1], size[0]))
    image.save(buffer, "PNG")
    preprocess = Preprocess(96, 84)
    kept = for_training(preprocess, 96).make(buffer.getvalue(), "x")
    middle = augment(kept, POLICIES["none"], 84, generator(0, 0, 0)).permute(1, 2, 0).numpy()
    assert np.abs(middle.astype(int) - preprocess.pixels(image)).max() <= 2


def test_a_view_is_all_there_is() -> None:
    """Two renderings of one view are the same image."""
    view: View = draw(replace(EVERYTHING, **COLOURS), (50, 70, 3), 40, generator(1, 2, 3))
    assert torch.equal(render(photo(), view, 40), render(photo(), view, 40))
