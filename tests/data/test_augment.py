import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from foveate.data.augment import PCA_PICTURES, augment, bend, cut, render, tint, with_pca
from foveate.data.colour import PAPER_PCA, fit_pca
from foveate.data.index import load_dataset
from foveate.data.policy import POLICIES, Augmentation
from foveate.data.preprocess import Preprocess
from foveate.data.source import for_training
from foveate.data.view import View, batch_generator, draw, generator
from foveate.errors import DataError


def photo(height: int = 50, width: int = 70, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Soft blobs of colour, in an array that may not be written to, as those of Pillow."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, channels), dtype=np.uint8).squeeze()
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def planes(size: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(photo(size, size, channels, seed).copy()).permute(2, 0, 1).float()


PLAIN = draw(Augmentation(), (40, 40, 3), 40, generator(0, 0, 0))  # a look at which nothing happens


def close(found: torch.Tensor, expected: torch.Tensor, levels: int = 1) -> bool:
    return int((found.round().int() - expected.int()).abs().max()) <= levels


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
        not torch.equal(augment(photo(), off, 40, generator(0, 0, i)), augment(photo(), on, 40, generator(0, 0, i)))
        for i in range(8)
    ]
    assert any(changed)


@pytest.mark.parametrize("part", sorted(set(PARTS) - {"crop", "padding", "crop_area", "crop_ratio"}))
def test_switching_one_part_leaves_the_others_as_they_were(part: str) -> None:
    value, _ = PARTS[part]
    base = replace(POLICIES["strong"], rotation=10, brightness=0.2, hue=0.1, pca_colour=0.1, pca=PAPER_PCA)
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
        padding=0.4, crop_area=(0.1, 0.2), crop_ratio=(2, 3), magnitude=30, pca=PAPER_PCA, pca_from="imagenet"
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
            found.fill_(7)  # it is ours: the kept picture must not notice
            assert np.array_equal(pixels, before)


def test_range_is_used_and_never_left() -> None:
    """Nothing wraps round: white made brighter stays white, black made darker black."""
    for level, factor in ((255, 2.0), (0, 0.0)):
        flat = np.full((20, 20, 3), level, np.uint8)
        assert (render(flat, PLAIN._replace(box=(0, 0, 20, 20), brightness=factor), 20) == level).all()
        shift = (0.5, 0.5, 0.5) if level else (-0.5, -0.5, -0.5)
        assert (render(flat, PLAIN._replace(box=(0, 0, 20, 20), shift=shift), 20) == level).all()


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
    """Sums over a picture, as for contrast, may not depend on how torch shares them out."""
    threads, looks = torch.get_num_threads(), []
    augmentation = Augmentation(rotation=20, contrast=0.9, saturation=0.9, hue=0.2, auto="rand", magnitude=20)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            looks.append([augment(photo(240, 240), augmentation, 224, generator(0, 0, i)) for i in range(20)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in looks[1:] for a, b in zip(looks[0], other, strict=True))


def test_no_global_random_state_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for i in range(5):
        augment(photo(), replace(EVERYTHING, **COLOURS), 40, generator(0, 0, i))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_generators_differ_in_each_of_their_numbers() -> None:
    makers = (generator, batch_generator)
    firsts = {make(s, e, i).random() for make in makers for s in range(4) for e in range(4) for i in range(4)}
    assert len(firsts) == 2 * 4**3
    assert generator(2**63, 1, 2).random() == generator(2**63, 1, 2).random()


def test_samples_are_independent() -> None:
    u = np.array([generator(0, 0, i).random(5) for i in range(4000)])
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.06
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.06
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.02


# Crops


@pytest.mark.parametrize("box", [(3, 5, 40, 40), (0, 0, 50, 70), (10, 20, 7, 31), (49, 69, 1, 1)])
def test_resized_crop_equals_torchvision(box: tuple[int, int, int, int]) -> None:
    picture = torch.from_numpy(photo().copy()).permute(2, 0, 1)
    expected = F.resized_crop(picture, *box, [40, 40], interpolation=InterpolationMode.BILINEAR, antialias=True)
    assert torch.equal(cut(photo(), box, 40), expected)


def test_resized_crops_are_distributed_as_torchvisions() -> None:
    peer, image = v2.RandomResizedCrop(32, scale=(0.35, 1.0)), torch.empty(3, 90, 120, dtype=torch.uint8)
    theirs = np.array(
        [[p[k] for k in ("top", "left", "height", "width")] for p in (peer.make_params([image]) for _ in range(3000))]
    )
    standard = POLICIES["standard"]
    ours = np.array([draw(standard, (90, 120, 3), 32, generator(0, 0, i)).box for i in range(3000)])
    for mine, other in ((ours, theirs),):
        assert (mine >= 0).all() and (mine[:, 0] + mine[:, 2] <= 90).all() and (mine[:, 1] + mine[:, 3] <= 120).all()
        for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert np.abs(np.quantile(mine, quantile, axis=0) - np.quantile(other, quantile, axis=0)).max() <= 6
        ratio = [np.log(boxes[:, 3] / boxes[:, 2]) for boxes in (mine, other)]
        assert abs(ratio[0].mean() - ratio[1].mean()) < 0.02 and abs(ratio[0].std() - ratio[1].std()) < 0.02


@pytest.mark.parametrize("shape", [(5, 500), (500, 5)])
def test_a_long_picture_falls_back_to_its_middle_as_torchvision_does(shape: tuple[int, int]) -> None:
    image = torch.empty(3, *shape, dtype=torch.uint8)
    whole = replace(POLICIES["standard"], crop_area=(1.0, 1.0))
    params = v2.RandomResizedCrop(32, scale=(1.0, 1.0)).make_params([image])
    expected = tuple(params[k] for k in ("top", "left", "height", "width"))
    assert draw(whole, (*shape, 3), 32, generator(0, 0, 0)).box == expected


def test_random_crop_reaches_every_place_and_no_other() -> None:
    augmentation = Augmentation(crop="random", padding=0.25)  # 2 of 8 pixels
    boxes = [draw(augmentation, (10, 9, 3), 8, generator(0, 0, i)).box for i in range(600)]
    assert {box[0] for box in boxes} == set(range(-2, 5))
    assert {box[1] for box in boxes} == set(range(-2, 4))
    assert {box[2:] for box in boxes} == {(8, 8)}


@pytest.mark.parametrize("box", [(-3, -2, 20, 20), (35, 55, 20, 20), (-5, 55, 20, 20), (10, 10, 20, 20)])
def test_outside_is_the_mirror_image(box: tuple[int, int, int, int]) -> None:
    whole = np.pad(photo(), ((10, 10), (10, 10), (0, 0)), mode="symmetric")
    top, left = box[0] + 10, box[1] + 10
    assert np.array_equal(cut(photo(), box, 20).permute(1, 2, 0).numpy(), whole[top : top + 20, left : left + 20])


def test_small_pictures_are_enlarged_where_the_crop_keeps_the_scale() -> None:
    found = augment(photo(20, 30), Augmentation(), 40, generator(0, 0, 0))
    expected = F.resize(torch.from_numpy(photo(20, 30).copy()).permute(2, 0, 1), [40, 60], antialias=True)
    assert torch.equal(found, expected[..., 10:50])


def test_mirrors() -> None:
    picture = torch.from_numpy(photo(40, 40).copy()).permute(2, 0, 1)
    looks = {
        (m, u): render(photo(40, 40), PLAIN._replace(mirror=m, upside_down=u), 40)
        for m in (False, True)
        for u in (False, True)
    }
    assert torch.equal(looks[True, False], F.horizontal_flip(picture))
    assert torch.equal(looks[False, True], F.vertical_flip(picture))
    assert torch.equal(looks[True, True], picture.flip(-1, -2))
    drawn = [draw(Augmentation(hflip=0.3), (40, 40, 3), 40, generator(0, 0, i)).mirror for i in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.04)


# Affine


@pytest.mark.parametrize("size", [40, 33])
@pytest.mark.parametrize(
    ("angle", "move", "zoom", "shear"),
    [
        (20, (0, 0), 1, 0),
        (-75, (0, 0), 1, 0),
        (0, (3, -5), 1, 0),
        (0, (0, 0), 1.3, 0),
        (0, (0, 0), 0.7, 0),
        (0, (0, 0), 1, 15),
        (12, (2, 3), 1.1, -8),
    ],
)
def test_affine_equals_torchvision(size: int, angle: float, move: tuple[int, int], zoom: float, shear: float) -> None:
    x = planes(size)
    arguments = (angle, list(move), zoom, [shear, 0.0], InterpolationMode.BILINEAR)
    view = PLAIN._replace(angle=angle, move=(move[0] / size, move[1] / size), zoom=zoom, shear=shear)
    found, expected = bend(x, view), F.affine(x, *arguments)
    inside = F.affine(torch.ones_like(x), *arguments) > 0.999  # outside, they have black and we the mirror image
    assert inside.float().mean() > 0.3
    assert (found - expected)[inside].abs().max() < 0.05


def test_quarter_turns_are_exact() -> None:
    for quarters in range(4):
        turned = bend(planes(), PLAIN._replace(angle=-90 * quarters))
        torch.testing.assert_close(turned, torch.rot90(planes(), quarters, (1, 2)), atol=0.01, rtol=0)


def test_affine_outside_is_the_mirror_image() -> None:
    moved = bend(planes(), PLAIN._replace(move=(0.25, 0)))
    torch.testing.assert_close(moved[..., 10:], planes()[..., :30], atol=0.01, rtol=0)
    torch.testing.assert_close(moved[..., :10], planes()[..., :10].flip(-1), atol=0.01, rtol=0)


def test_what_is_drawn_fills_its_range() -> None:
    a = Augmentation(
        rotation=30, translate=0.1, scale=0.2, shear=10, brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1
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
        assert low <= min(values[name]) < low + span / 50 and high - span / 50 < max(values[name]) <= high
        assert np.mean(values[name]) == pytest.approx((low + high) / 2, abs=span / 25)


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
def test_colour_equals_torchvision(part: str, peer: Callable[..., torch.Tensor], factor: float) -> None:
    for seed in range(3):
        x = planes(seed=seed)
        found = tint(x.clone(), PLAIN._replace(**{part: factor})).clamp(0, 255)
        assert close(found, peer(x.to(torch.uint8), factor))


@pytest.mark.parametrize("part", ["brightness", "contrast"])
def test_grey_colour_equals_torchvision(part: str) -> None:
    x = planes(channels=1)
    found = tint(x.clone(), PLAIN._replace(**{part: 1.4}))
    assert close(found.clamp(0, 255), getattr(F, f"adjust_{part}")(x.to(torch.uint8), 1.4))


@pytest.mark.parametrize("turns", [-0.5, -0.2, -0.01, 0.1, 0.3, 0.5])
def test_hue_equals_torchvision(turns: float) -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).permute(2, 0, 1)
    x[:, :4] = x[:1, :4]  # some greys, which have no hue
    assert close(tint(x.float(), PLAIN._replace(hue=turns)), F.adjust_hue(x, turns))


def test_hue_goes_round() -> None:
    third = tint(planes(), PLAIN._replace(hue=1 / 3))
    torch.testing.assert_close(third, planes()[[2, 0, 1]], atol=0.01, rtol=0)  # red becomes green


def test_colours_together_are_one_step_after_the_other() -> None:
    """Against plain numpy in floating point, away from black and white, where the order of clamping would matter."""
    x = planes().mul(0.3).add(80)
    b, c, s = 1.1, 0.8, 1.3
    grey = np.array([0.2989, 0.587, 0.114])
    y = x.numpy().astype(np.float64) * b
    y = c * y + (1 - c) * np.einsum("c,chw->hw", grey, y).mean()
    y = s * y + (1 - s) * np.einsum("c,chw->hw", grey, y)
    found = tint(x, PLAIN._replace(brightness=b, contrast=c, saturation=s))
    np.testing.assert_allclose(found.numpy(), y, atol=0.05)


# PCA colour


def test_pca_colour_equals_plain_numpy() -> None:
    """AlexNet, section 4.1: to each pixel add [p1 p2 p3] [a1 l1, a2 l2, a3 l3]', with a ~ N(0, sigma)."""
    a = Augmentation(pca_colour=0.8, pca=fit_pca([photo(seed=i) for i in range(4)]))
    assert a.pca is not None
    for i in range(10):
        rng = generator(3, 1, i)
        rng.random(62)
        alphas = rng.normal(0, a.pca_colour, 3)
        shift = np.array(a.pca.eigenvectors) @ (alphas * np.array(a.pca.eigenvalues))
        expected = np.clip(np.round(photo(40, 40) + 255 * shift), 0, 255)
        found = augment(photo(40, 40), a, 40, generator(3, 1, i)).permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() <= (0 if i == 0 else 1)  # a half may round either way
        assert np.mean(found != expected) < 0.02


def test_pca_colour_has_the_covariance_of_the_pictures_colours_squared() -> None:
    a = Augmentation(pca_colour=0.1, pca=PAPER_PCA)
    shifts = np.array([draw(a, (40, 40, 3), 40, generator(0, 0, i)).shift for i in range(4000)])
    vectors, values = np.array(PAPER_PCA.eigenvectors), np.array(PAPER_PCA.eigenvalues)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.1 * expected.max())


def test_pca_colour_without_components_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="with_pca comes first"):
        augment(photo(), Augmentation(pca_colour=0.1), 40, generator(0, 0, 0))


def test_with_pca(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    data = load_dataset(draw_folder(tmp_path / "set", 6))
    (tmp_path / "set/blob/001.jpg").write_bytes(b"broken")
    preprocess, rows = Preprocess(32, 32), np.arange(3, 18)
    wanted = Augmentation(pca_colour=0.1)
    found = with_pca(wanted, data, rows, preprocess, threads=2)
    rule = for_training(preprocess, 32)
    readable = [rule.make(data.read(i), data.files[i]) for i in rows if i != 1]
    assert found == replace(wanted, pca=found.pca)
    assert found.pca is not None and found.pca.eigenvalues == pytest.approx(fit_pca(readable).eigenvalues, rel=0.02)
    assert with_pca(wanted, data, rows, preprocess, threads=1) == found
    assert with_pca(replace(wanted, pca_from="imagenet"), data, rows, preprocess, 1).pca == PAPER_PCA
    assert with_pca(found, data, rows[:1], preprocess, 1) is found
    assert with_pca(POLICIES["standard"], data, rows, preprocess, 1) is POLICIES["standard"]
    with pytest.raises(DataError, match="there is no picture"):
        with_pca(wanted, data, np.array([data.files.index("blob/001.jpg")]), preprocess, 1)


def test_with_pca_looks_at_no_more_than_it_needs(tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    data = load_dataset(draw_folder(tmp_path / "set", 2))
    seen: list[int] = []
    many = replace(data, read=lambda i: seen.append(i) or data.read(0), files=("x",) * 5000)
    with_pca(Augmentation(pca_colour=0.1), many, np.arange(4000), Preprocess(8, 8), 1)
    assert len(seen) == len(set(seen)) == PCA_PICTURES
    assert (min(seen), max(seen)) == (0, 3999)


# Erasing


def test_erasing_turns_one_rectangle_to_noise() -> None:
    a = Augmentation(erasing=1.0)
    shares = []
    for i in range(200):
        view = draw(a, (40, 40, 3), 40, generator(0, 0, i))
        assert view.erased is not None
        top, left, h, w = view.erased
        found = render(photo(40, 40), view, 40).permute(1, 2, 0).numpy()
        rest = np.ones((40, 40), bool)
        rest[top : top + h, left : left + w] = False
        assert np.array_equal(found[rest], photo(40, 40)[rest])
        assert np.array_equal(found[top : top + h, left : left + w], view.noise)
        shares.append(h * w / 1600)
    assert min(shares) > 0.01 and max(shares) < 0.36
    assert np.mean(shares) == pytest.approx((0.02 + 0.33) / 2, abs=0.02)
    assert np.mean(
        [draw(Augmentation(erasing=0.3), (40, 40, 3), 40, generator(0, 0, i)).erased is not None for i in range(1000)]
    ) == pytest.approx(0.3, abs=0.05)


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
    """Two renderings of one view are the same picture."""
    view: View = draw(replace(EVERYTHING, **COLOURS), (50, 70, 3), 40, generator(1, 2, 3))
    assert torch.equal(render(photo(), view, 40), render(photo(), view, 40))
