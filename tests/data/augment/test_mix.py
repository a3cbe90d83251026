"""mixup and CutMix beside the textbook, the papers' formulas and torchvision."""

import numpy as np
import pytest
import textbook
import torch
from torch import Tensor
from torchvision.transforms import v2

from foveate.data.augment import Augment
from foveate.data.augment.mix import Mix, Mixture, mixed, mixed_targets, mixed_tensors, span
from foveate.data.augment.streams import batch_generator
from foveate.data.image import Pixels

N, SIDE = 6, 20
VALUES = torch.arange(N) * 50.0
AUGMENTATIONS = {
    "mixup": Augment(mixup=1.0),
    "cutmix": Augment(cutmix=1.0),
    "both": Augment(mixup=0.4, cutmix=1.0),
}
BEFORE = np.roll(np.arange(N), 1)  # torchvision's partner is the one before in the batch


def flat_batch() -> tuple[Pixels, Tensor]:
    """Image i is 50 i everywhere, and a class of its own: a share of its label is a share of its
    pixels."""
    return VALUES[:, None, None, None].expand(N, SIDE, SIDE, 3).to(
        torch.uint8
    ).numpy().copy(), torch.eye(N)


def noise(channels: int = 3) -> tuple[Pixels, Tensor]:
    """Any pixels and any targets that sum to 1."""
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (N, SIDE, SIDE, channels), np.uint8)
    return pixels, torch.from_numpy(rng.dirichlet(np.ones(4), N)).float()


def draw(name: str, n: int, size: int, rng: np.random.Generator) -> Mixture:
    return AUGMENTATIONS[name].part(Mix).draw(n, size, size, rng)


def planes(pixels: Pixels) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_equals_the_textbook(name: str, channels: int) -> None:
    pixels, targets = noise(channels)
    for b in range(50):
        mixture = draw(name, N, SIDE, batch_generator(0, 0, b))
        found = mixed(pixels, mixture)
        batch, soft = textbook.mix(
            planes(pixels), targets, AUGMENTATIONS[name], batch_generator(0, 0, b)
        )
        assert torch.equal(planes(found), batch)
        assert torch.equal(mixed_tensors(planes(pixels), mixture), batch)
        assert torch.equal(mixed_targets(targets, mixture), soft)
        assert found.flags.c_contiguous  # channels_last for who reads it


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_label_mass_is_pixel_mass(name: str) -> None:
    changed = 0
    for seed in range(30):
        pixels, targets = flat_batch()
        mixture = draw(name, N, SIDE, np.random.default_rng(seed))
        found, soft = mixed(pixels, mixture), mixed_targets(targets, mixture)
        assert (found.shape, found.dtype, soft.shape, soft.dtype) == (
            pixels.shape,
            np.uint8,
            (N, N),
            torch.float32,
        )
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(N))
        tolerance = 0.501 if name == "mixup" else 1e-3  # a blend is rounded
        assert (planes(found).float().mean(dim=(1, 2, 3)) - soft @ VALUES).abs().max() <= tolerance
        assert np.array_equal(pixels, flat_batch()[0]) and torch.equal(targets, torch.eye(N))
        changed += not np.array_equal(found, pixels)
    assert changed > 20


@pytest.mark.parametrize(("name", "kept"), [("mixup", 0.5), ("cutmix", 0.68)])
def test_expectation(name: str, kept: float) -> None:
    """What is kept of an image that met another: half in mixup. CutMix's box, of half the area, may
    lie half outside: with s its side, uniform in s^2, and (s - s^2/4)^2 the area inside, 0.32 of
        the image on average."""
    mixtures = [draw(name, N, 100, np.random.default_rng(seed)) for seed in range(1500)]
    shares = [mixture.share for mixture in mixtures]
    assert min(shares) >= 0 and max(shares) <= 1
    assert np.mean(shares) == pytest.approx(kept, abs=0.03)
    assert all(sorted(mixture.partner) == list(range(N)) for mixture in mixtures)
    alone = [np.mean(mixture.partner == np.arange(N)) for mixture in mixtures]
    assert np.mean(alone) == pytest.approx(1 / N, abs=0.02)  # one in N meets itself


def test_mixup_is_the_papers_formula() -> None:
    pixels, targets = noise()
    rng = np.random.default_rng(3)
    rng.random()  # the coin
    partner, share = rng.permutation(N), rng.beta(0.4, 0.4)
    mixture = Mix(mixup=0.4).draw(N, SIDE, SIDE, np.random.default_rng(3))
    expected = share * pixels + (1 - share) * pixels[partner]
    np.testing.assert_allclose(mixed(pixels, mixture), expected, rtol=0, atol=0.501)
    torch.testing.assert_close(
        mixed_targets(targets, mixture), share * targets + (1 - share) * targets[partner]
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_equals_torchvisions(share: float) -> None:
    pixels, targets = noise()
    mixture, peer = Mixture(BEFORE, share, None), v2.MixUp(num_classes=4)
    parts = {"labels": targets, "lam": share, "batch_size": N}
    found = planes(mixed(pixels, mixture)).float()
    torch.testing.assert_close(
        found, peer.transform(planes(pixels).float(), parts), rtol=0, atol=0.501
    )
    torch.testing.assert_close(mixed_targets(targets, mixture), peer.transform(targets, parts))


def test_cutmix_equals_torchvisions() -> None:
    pixels, targets = noise()
    for seed in range(20):
        drawn = draw("cutmix", N, SIDE, np.random.default_rng(seed))
        assert drawn.box is not None
        rows, columns = drawn.box
        mixture, peer = drawn._replace(partner=BEFORE), v2.CutMix(num_classes=4)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        parts = {"labels": targets, "box": box, "lam_adjusted": drawn.share, "batch_size": N}
        assert torch.equal(planes(mixed(pixels, mixture)), peer.transform(planes(pixels), parts))
        torch.testing.assert_close(mixed_targets(targets, mixture), peer.transform(targets, parts))


def test_cutmix_pastes_the_partners_own_pixels() -> None:
    pixels, _ = noise()
    for seed in range(20):
        mixture = draw("cutmix", N, SIDE, np.random.default_rng(seed))
        own = np.ones((SIDE, SIDE, 1), bool)
        own[mixture.box] = False
        assert np.array_equal(
            mixed(pixels, mixture), np.where(own, pixels, pixels[mixture.partner])
        )
        assert own.mean() == pytest.approx(mixture.share)


def test_cutmix_box_is_torchvisions() -> None:
    """The same stretch for the same share and middle: half of sqrt(1 - share) of the side, to both
    sides."""
    for seed in range(50):
        share = np.random.default_rng(100 + seed).random()
        middle = int(np.random.default_rng(seed).integers(SIDE))
        half = int(0.5 * (1.0 - share) ** 0.5 * SIDE)
        assert span(SIDE, share, np.random.default_rng(seed)) == (
            max(middle - half, 0),
            min(middle + half, SIDE),
        )


def test_a_blend_stays_between_its_two() -> None:
    pixels, _ = noise()
    pixels[0], pixels[1] = 0, 255
    for share in np.linspace(0, 1, 11):
        found, partners = mixed(pixels, Mixture(BEFORE, share, None)), pixels[BEFORE]
        assert (np.minimum(pixels, partners) <= found).all() and (
            found <= np.maximum(pixels, partners)
        ).all()


@pytest.mark.parametrize("box", [None, (slice(3, 9), slice(0, 20))], ids=["mixup", "cutmix"])
def test_partners_may_lie_behind_the_images_that_are_made(box: tuple[slice, slice] | None) -> None:
    pixels, targets = noise()
    whole, part = (
        Mixture(np.array([4, 0, 2, 3, 5, 1]), 0.3, box),
        Mixture(np.array([2, 0]), 0.3, box),
    )
    made = [0, 1, 4]
    assert np.array_equal(mixed(pixels[made], part), mixed(pixels, whole)[:2])
    assert torch.equal(mixed_targets(targets[made], part), mixed_targets(targets, whole)[:2])


def test_the_mixture_is_what_the_augmentation_says() -> None:
    def boxes(name: str) -> list[bool]:
        mixtures = [draw(name, 8, 12, batch_generator(0, 0, b)) for b in range(200)]
        return [mixture.box is not None for mixture in mixtures]

    assert not any(boxes("mixup")) and all(boxes("cutmix"))
    assert 70 < sum(boxes("both")) < 130
    pixels, _ = noise()
    assert mixed(pixels, None) is pixels


def test_mixing_is_reproducible_and_touches_no_global_state() -> None:
    pixels, targets = noise()

    def make(b: int) -> tuple[bytes, bytes]:
        mixture = Mix(mixup=0.2, cutmix=1.0).draw(N, SIDE, SIDE, batch_generator(1, 2, b))
        return mixed(pixels, mixture).tobytes(), mixed_targets(targets, mixture).numpy().tobytes()

    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = [make(b) for b in range(8)]
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and np.random.get_state()[1].tolist() == before[1]
    )
    assert [make(b) for b in reversed(range(8))] == first[::-1]
    assert len(set(first)) > 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_batch_of_one_stays(name: str) -> None:
    pixels, targets = noise()[0][:1], torch.ones(1, 1)
    for b in range(8):
        mixture = draw(name, 1, SIDE, batch_generator(0, 0, b))
        assert np.array_equal(mixed(pixels, mixture), pixels)
        torch.testing.assert_close(mixed_targets(targets, mixture), targets)
