import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.data.mix import blend, cutmix, mix, mixup, span
from foveate.data.policy import Augmentation
from foveate.data.view import batch_generator

N, SIDE = 6, 20
VALUES = torch.arange(N) * 50.0


def flat_batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Picture i is 50 i everywhere, and a class of its own: a share of its label is a share of its pixels."""
    return VALUES[:, None, None, None].expand(N, 3, SIDE, SIDE + 4).to(dtype).clone(), torch.eye(N)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("how", [mixup, cutmix])
def test_label_mass_is_pixel_mass(how, dtype: torch.dtype) -> None:
    changed = 0
    for seed in range(30):
        batch, targets = flat_batch(dtype)
        mixed, soft = how(batch, targets, 1.0, np.random.default_rng(seed))
        assert (mixed.shape, mixed.dtype, soft.shape, soft.dtype) == (batch.shape, dtype, targets.shape, torch.float32)
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(N))
        tolerance = 0.5 if dtype == torch.uint8 else 1e-3
        assert (mixed.float().mean(dim=(1, 2, 3)) - soft @ VALUES).abs().max() <= tolerance
        assert torch.equal(batch, flat_batch(dtype)[0]) and torch.equal(targets, torch.eye(N))
        changed += not torch.equal(mixed, batch)
    assert changed > 20


@pytest.mark.parametrize(("how", "kept"), [(mixup, 0.5), (cutmix, 0.68)])
def test_expectation(how, kept: float) -> None:
    """What is kept of a picture that met another: half in mixup. CutMix's box, of half the area, may lie half outside:
    with s its side, uniform in s^2, and (s - s^2/4)^2 the area inside, 0.32 of the picture on average."""
    batch, targets = torch.zeros(N, 1, 100, 100), torch.eye(N)
    shares = [how(batch, targets, 1.0, np.random.default_rng(seed))[1].diagonal().mean() for seed in range(1500)]
    assert (np.mean(shares) - 1 / N) / (1 - 1 / N) == pytest.approx(kept, abs=0.03)  # one in N meets itself


def test_mixup_is_the_papers_formula() -> None:
    batch, targets = torch.randn(N, 3, 8, 8), torch.softmax(torch.randn(N, 4), dim=1)
    rng = np.random.default_rng(3)
    partner, share = torch.from_numpy(rng.permutation(N)), rng.beta(0.4, 0.4)
    mixed, soft = mixup(batch, targets, 0.4, np.random.default_rng(3))
    torch.testing.assert_close(mixed, share * batch + (1 - share) * batch[partner])
    torch.testing.assert_close(soft, share * targets + (1 - share) * targets[partner])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_blend_equals_torchvision(share: float) -> None:
    """Their partner is the one before in the batch."""
    from torchvision.transforms import v2

    peer = v2.MixUp(num_classes=N)
    batch = torch.rand(N, 3, 8, 8)
    before = torch.arange(N).roll(1)
    expected = peer.transform(batch, {"labels": None, "lam": share, "batch_size": N})
    torch.testing.assert_close(blend(batch, before, share), expected)


def test_cutmix_pastes_the_partners_own_pixels() -> None:
    batch = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8)
    mixed, soft = cutmix(batch, torch.eye(N), 1.0, np.random.default_rng(5))
    for i in range(N):
        j = int(soft[i].argsort()[-2]) if soft[i].max() < 1 else i
        j = j if soft[i].argmax() == i else int(soft[i].argmax())
        from_partner = (mixed[i] == batch[j]).all(dim=0)
        assert ((mixed[i] == batch[i]).all(dim=0) | from_partner).all()


def test_cutmix_box_is_torchvisions() -> None:
    """The same stretch for the same share and middle: half of sqrt(1 - share) of the side, to both sides."""
    for seed in range(50):
        share = np.random.default_rng(100 + seed).random()
        middle = int(np.random.default_rng(seed).integers(SIDE))
        half = int(0.5 * (1.0 - share) ** 0.5 * SIDE)
        assert span(SIDE, share, np.random.default_rng(seed)) == (max(middle - half, 0), min(middle + half, SIDE))


def test_mix_does_what_the_augmentation_says() -> None:
    batch, targets = flat_batch()

    def kinds(**parts: float) -> set[str]:
        found = set()
        for b in range(40):
            mixed, soft = mix(batch, targets, Augmentation(**parts), batch_generator(0, 0, b))
            if torch.equal(mixed, batch):
                assert torch.equal(soft, targets) or not parts or soft.diagonal().min() > 0.99
                found.add("nothing")
            else:
                edges = (mixed.amax(dim=(1, 2, 3)) - mixed.amin(dim=(1, 2, 3))).max()
                found.add("cutmix" if edges > 1 else "mixup")
        return found - {"nothing"} if parts else found

    assert kinds() == {"nothing"}
    assert kinds(mixup=1.0) == {"mixup"}
    assert kinds(cutmix=1.0) == {"cutmix"}
    assert kinds(mixup=1.0, cutmix=1.0) == {"mixup", "cutmix"}


def test_mix_is_reproducible_and_touches_no_global_state() -> None:
    batch, targets = torch.rand(N, 3, 8, 8), torch.eye(N)
    strong = Augmentation(mixup=0.2, cutmix=1.0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = [mix(batch, targets, strong, batch_generator(1, 2, b)) for b in range(8)]
    torch.manual_seed(5)
    again = [mix(batch, targets, strong, batch_generator(1, 2, b)) for b in reversed(range(8))]
    torch.set_rng_state(before[0])
    assert all(torch.equal(a, b) for x, y in zip(first, again[::-1], strict=True) for a, b in zip(x, y, strict=True))
    assert np.random.get_state()[1].tolist() == before[1]
    assert len({float(soft.diagonal().sum()) for _, soft in first}) > 4


def test_a_batch_of_one_stays() -> None:
    batch, targets = torch.rand(1, 3, 8, 8), torch.ones(1, 1)
    for how in (mixup, cutmix):
        mixed, soft = how(batch, targets, 1.0, np.random.default_rng(0))
        torch.testing.assert_close(mixed, batch)
        torch.testing.assert_close(soft, targets)


def test_channels_last_stays_channels_last() -> None:
    batch = torch.rand(N, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for how in (mixup, cutmix):
        mixed, _ = how(batch, torch.eye(N), 1.0, np.random.default_rng(0))
        assert mixed.is_contiguous(memory_format=torch.channels_last)
