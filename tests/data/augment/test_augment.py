"""Each part of an augmentation does its own thing and nothing else, and the same in any order and
number of threads."""

import io
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from photos import drawn, photo
from PIL import Image

from foveate.data.augment import PARTS, POLICIES, Augment, options_of, render
from foveate.data.augment.auto import Auto
from foveate.data.augment.colour import Hue, Jitter
from foveate.data.augment.erasing import Erasing
from foveate.data.augment.geometry import Affine, Crop, Flip
from foveate.data.augment.pca import PcaColour
from foveate.data.augment.streams import batch_generator, generator
from foveate.data.decoding import for_training
from foveate.data.preprocess import Preprocess

# For each option a value that is on, and what else must be on for it to matter
ON: dict[str, tuple[Any, dict[str, Any]]] = {
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
    "pca_colour": (0.5, {"pca_from": "imagenet"}),
    "auto": ("rand", {}),
    "magnitude": (30, {"auto": "rand"}),
    "erasing": (1.0, {}),
}
OF_BATCHES = {"mixup", "cutmix"}
KINDS = {name: kind for kind in PARTS for name in kind.options()}


def options(**given: Any) -> Augment:
    """With details of parts that are off, which only saved ones have."""
    return Augment.from_dict({**Augment(size=40).to_dict(), **given})


def test_every_option_has_a_test() -> None:
    assert set(ON) | OF_BATCHES | {"pca_from"} == set(options_of(PARTS))


@pytest.mark.parametrize("option", ON)
def test_each_option_changes_pixels_when_on(option: str) -> None:
    value, needed = ON[option]
    off, on = options(**needed), options(**needed, **{option: value})
    changed = [not torch.equal(off.at(0, 0, i)(photo()), on.at(0, 0, i)(photo())) for i in range(8)]
    assert any(changed)


@pytest.mark.parametrize("option", sorted(set(ON) - set(Crop.options())))
def test_switching_one_part_leaves_the_others_as_they_were(option: str) -> None:
    base = Augment(
        "strong", rotation=10, brightness=0.2, hue=0.1, pca_colour=0.1, pca_from="imagenet"
    )
    changed = base.replace(**{"auto": "rand"} if option == "magnitude" else {})
    changed = changed.replace(**{option: ON[option][0]})
    own = {"magnitude": Auto}.get(option, KINDS[option])
    for i in range(5):
        for kind in (Crop, Flip, Affine, Jitter, Hue, PcaColour, Auto, Erasing):
            if kind is not own:
                before, after = (drawn(a, kind, i, (50, 70, 3)) for a in (base, changed))
                assert str(before) == str(after)


def test_within_a_part_one_option_leaves_the_others_as_they_were() -> None:
    for i in range(5):
        alone = drawn(Augment(shear=20), Affine, i)
        both = drawn(Augment(shear=20, rotation=30, scale=0.2), Affine, i)
        assert alone.shear == both.shear and alone.angle == 0 != both.angle
        assert drawn(Augment(contrast=0.2), Jitter, i).contrast == (
            drawn(Augment(contrast=0.2, brightness=0.3), Jitter, i).contrast
        )


def test_a_detail_of_a_part_that_is_off_does_nothing() -> None:
    details = options(
        padding=0.4, crop_area=(0.1, 0.2), crop_ratio=(2, 3), magnitude=30, pca_from="imagenet"
    )
    assert torch.equal(details(photo()), Augment(size=40)(photo()))


@pytest.mark.parametrize("rng", range(5))
def test_none_is_the_centre_whatever_the_random_numbers(rng: int) -> None:
    found = Augment("none", size=40).at(rng, rng, rng)(photo(50, 70))
    assert torch.equal(found, torch.from_numpy(photo(50, 70)[5:45, 15:55].copy()).permute(2, 0, 1))


EVERYTHING = Augment(
    crop="resized", hflip=0.5, vflip=0.5, rotation=180, translate=0.3, scale=0.5, shear=30,
    brightness=0.9, contrast=0.9, auto="rand", magnitude=30, erasing=0.5,
)  # fmt: skip
COLOURS = {"saturation": 0.9, "hue": 0.5, "pca_colour": 1.0, "pca_from": "imagenet"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 8, 33, 224])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 2), (33, 33), (40, 300)])
def test_type_shape_and_memory(shape: tuple[int, int], size: int, channels: int) -> None:
    pixels = photo(*shape, channels)
    before = pixels.copy()
    everything = EVERYTHING.replace(**COLOURS) if channels == 3 else EVERYTHING
    random_crop = everything.replace(crop="random", padding=0.1)
    for augment in (*map(Augment, POLICIES), everything, random_crop):
        for i in range(2):
            found = augment.replace(size=size).at(0, 0, i)(pixels)
            assert (found.dtype, found.shape) == (torch.uint8, (channels, size, size))
            assert found.is_contiguous()
            found.fill_(7)  # it is ours: the image must not notice
            assert np.array_equal(pixels, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_reproducible_in_any_order_and_number_of_threads(policy: str) -> None:
    augment = Augment(policy, size=48, rotation=10, contrast=0.3, hue=0.1)
    kept = [photo(60, 80, seed=i) for i in range(12)]

    def make(i: int) -> torch.Tensor:
        return augment.at(5, 3, i)(kept[i])

    expected = [make(i) for i in range(12)]
    torch.manual_seed(9)
    for threads in (1, 4):
        order = np.random.default_rng(threads).permutation(12).tolist()
        with ThreadPoolExecutor(threads) as pool:
            for i, found in zip(order, pool.map(make, order), strict=True):
                assert torch.equal(found, expected[i])


def test_the_same_whatever_the_threads_inside_torch() -> None:
    """Sums over an image, as for contrast, may not depend on how torch shares them out."""
    threads, made = torch.get_num_threads(), []
    augment = Augment(rotation=20, contrast=0.9, saturation=0.9, hue=0.2, auto="rand", magnitude=20)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            made.append([augment.at(0, 0, i)(photo(240, 240)) for i in range(20)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in made[1:] for a, b in zip(made[0], other, strict=True))


def test_at_touches_no_global_random_state() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for i in range(5):
        EVERYTHING.replace(**COLOURS).at(0, 0, i)(photo())
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
    augment = Augment(
        rotation=30,
        translate=0.1,
        scale=0.2,
        shear=10,
        brightness=0.4,
        contrast=0.3,
        saturation=0.2,
        hue=0.1,
    )
    made = [
        (drawn(augment, Affine, i), drawn(augment, Jitter, i), drawn(augment, Hue, i))
        for i in range(1000)
    ]
    values = [
        (-30, 30, [warp.angle for warp, _, _ in made]),
        (-0.1, 0.1, [warp.move[0] for warp, _, _ in made]),
        (-0.1, 0.1, [warp.move[1] for warp, _, _ in made]),
        (0.8, 1.2, [warp.zoom for warp, _, _ in made]),
        (-10, 10, [warp.shear for warp, _, _ in made]),
        (0.6, 1.4, [factors.brightness for _, factors, _ in made]),
        (0.7, 1.3, [factors.contrast for _, factors, _ in made]),
        (0.8, 1.2, [factors.saturation for _, factors, _ in made]),
        (-0.1, 0.1, [turns for _, _, turns in made]),
    ]
    for low, high, found in values:
        span = high - low
        assert low <= min(found) < low + span / 50
        assert high - span / 50 < max(found) <= high
        assert np.mean(found) == pytest.approx((low + high) / 2, abs=span / 25)


@pytest.mark.parametrize("size", [(512, 384), (384, 512), (96, 96)])
def test_none_is_what_evaluation_sees(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(photo(size[1], size[0]))
    image.save(buffer, "PNG")
    preprocess = Preprocess(96, 84)
    kept = for_training(preprocess, 96).make(buffer.getvalue(), "x")
    centre = Augment(size=84)(kept).permute(1, 2, 0).numpy()
    assert np.abs(centre.astype(int) - preprocess.pixels(image)).max() <= 2


def test_what_is_drawn_is_all_there_is() -> None:
    """Two renderings of the same steps are the same image."""
    steps = EVERYTHING.replace(**COLOURS).draw(1, 2, 3, (50, 70, 3), 40)
    assert torch.equal(render(photo(), steps), render(photo(), steps))


def test_floating_point_parts_stand_beside_each_other() -> None:
    """So that pixels are rounded once."""
    planes = [kind.planes for kind in PARTS[:-1]]
    assert planes == sorted(planes[:2]) + [True] * 4 + [False] * 2


def test_parts_have_places_of_their_own() -> None:
    taken = [i for kind in PARTS[:-1] for i in range(62)[kind.uniforms]]
    assert sorted(taken) == list(range(62))
