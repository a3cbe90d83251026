"""Crops, flips and affine transforms beside torchvision's."""

import numpy as np
import pytest
import torch
from photos import drawn, photo, planes
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from foveate.data.augment import Augment
from foveate.data.augment.geometry import UNMOVED, Affine, Crop, Flip, Flips, Warp, cut

# Crops


@pytest.mark.parametrize("box", [(3, 5, 40, 40), (0, 0, 50, 70), (10, 20, 7, 31), (49, 69, 1, 1)])
def test_resized_crop_equals_torchvision(box: tuple[int, int, int, int]) -> None:
    image = torch.from_numpy(photo().copy()).permute(2, 0, 1)
    expected = F.resized_crop(
        image, *box, [40, 40], interpolation=InterpolationMode.BILINEAR, antialias=True
    )
    assert torch.equal(cut(photo(), box, 40), expected)


def test_resized_crops_are_distributed_as_torchvisions() -> None:
    peer, image = (
        v2.RandomResizedCrop(32, scale=(0.35, 1.0)),
        torch.empty(3, 90, 120, dtype=torch.uint8),
    )
    theirs = np.array(
        [
            [p[k] for k in ("top", "left", "height", "width")]
            for p in (peer.make_params([image]) for _ in range(3000))
        ]
    )
    standard = Augment("standard")
    ours = np.array([drawn(standard, Crop, i, (90, 120, 3), 32).box for i in range(3000)])
    for mine, other in ((ours, theirs),):
        assert (
            (mine >= 0).all()
            and (mine[:, 0] + mine[:, 2] <= 90).all()
            and (mine[:, 1] + mine[:, 3] <= 120).all()
        )
        for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert (
                np.abs(
                    np.quantile(mine, quantile, axis=0) - np.quantile(other, quantile, axis=0)
                ).max()
                <= 6
            )
        ratio = [np.log(boxes[:, 3] / boxes[:, 2]) for boxes in (mine, other)]
        assert (
            abs(ratio[0].mean() - ratio[1].mean()) < 0.02
            and abs(ratio[0].std() - ratio[1].std()) < 0.02
        )


@pytest.mark.parametrize("shape", [(5, 500), (500, 5)])
def test_a_long_image_falls_back_to_its_middle_as_torchvision_does(shape: tuple[int, int]) -> None:
    image = torch.empty(3, *shape, dtype=torch.uint8)
    whole = Augment("standard", crop_area=(1.0, 1.0))
    params = v2.RandomResizedCrop(32, scale=(1.0, 1.0)).make_params([image])
    expected = tuple(params[k] for k in ("top", "left", "height", "width"))
    assert drawn(whole, Crop, 0, (*shape, 3), 32).box == expected


def test_random_crop_reaches_every_place_and_no_other() -> None:
    augment = Augment(crop="random", padding=0.25)  # 2 of 8 pixels
    boxes = [drawn(augment, Crop, i, (10, 9, 3), 8).box for i in range(600)]
    assert {box[0] for box in boxes} == set(range(-2, 5))
    assert {box[1] for box in boxes} == set(range(-2, 4))
    assert {box[2:] for box in boxes} == {(8, 8)}


@pytest.mark.parametrize(
    "box", [(-3, -2, 20, 20), (35, 55, 20, 20), (-5, 55, 20, 20), (10, 10, 20, 20)]
)
def test_outside_is_the_mirror_image(box: tuple[int, int, int, int]) -> None:
    whole = np.pad(photo(), ((10, 10), (10, 10), (0, 0)), mode="symmetric")
    top, left = box[0] + 10, box[1] + 10
    assert np.array_equal(
        cut(photo(), box, 20).permute(1, 2, 0).numpy(), whole[top : top + 20, left : left + 20]
    )


def test_small_images_are_enlarged_where_the_crop_keeps_the_scale() -> None:
    found = Augment(size=40)(photo(20, 30))
    expected = F.resize(
        torch.from_numpy(photo(20, 30).copy()).permute(2, 0, 1), [40, 60], antialias=True
    )
    assert torch.equal(found, expected[..., 10:50])


def test_flips() -> None:
    image = torch.from_numpy(photo(40, 40).copy()).permute(2, 0, 1)
    flip = Flip(0.3, 0.3)
    assert torch.equal(flip.render(image, Flips(True, False)), F.horizontal_flip(image))
    assert torch.equal(flip.render(image, Flips(False, True)), F.vertical_flip(image))
    assert torch.equal(flip.render(image, Flips(True, True)), image.flip(-1, -2))
    flipped = [drawn(Augment(hflip=0.3), Flip, i) == (True, False) for i in range(2000)]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.04)


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
def test_affine_equals_torchvision(
    size: int, angle: float, move: tuple[int, int], zoom: float, shear: float
) -> None:
    x = planes(size)
    arguments = (angle, list(move), zoom, [shear, 0.0], InterpolationMode.BILINEAR)
    warp = Warp(angle, (move[0] / size, move[1] / size), zoom, shear)
    found, expected = Affine().render(x, warp), F.affine(x, *arguments)
    # outside, they have black and we the mirror image
    inside = F.affine(torch.ones_like(x), *arguments) > 0.999
    assert inside.float().mean() > 0.3
    assert (found - expected)[inside].abs().max() < 0.05


def test_quarter_turns_are_exact() -> None:
    for quarters in range(4):
        turned = Affine().render(planes(), UNMOVED._replace(angle=-90 * quarters))
        torch.testing.assert_close(
            turned, torch.rot90(planes(), quarters, (1, 2)), atol=0.01, rtol=0
        )


def test_affine_outside_is_the_mirror_image() -> None:
    moved = Affine().render(planes(), UNMOVED._replace(move=(0.25, 0)))
    torch.testing.assert_close(moved[..., 10:], planes()[..., :30], atol=0.01, rtol=0)
    torch.testing.assert_close(moved[..., :10], planes()[..., :10].flip(-1), atol=0.01, rtol=0)
