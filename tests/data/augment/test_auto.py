import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from torchvision.transforms import v2

from foveate.data.augment import auto
from foveate.data.augment.auto import MAGNITUDES, NAMES, RAND, TRIVIAL, Operation, draw_operations

PEERS = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}
SIZE = 37


def photo(channels: int = 3) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 7, channels), dtype=np.uint8).squeeze()
    pixels = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.reshape(SIZE, SIZE, channels).copy()).permute(2, 0, 1)


def middle_of(name: str) -> float:
    """A random number that picks this operation."""
    return (NAMES.index(name) + 0.5) / len(NAMES)


@pytest.mark.parametrize("kind", PEERS)
def test_the_same_operations_as_torchvision(kind: str) -> None:
    assert set(NAMES) == set(PEERS[kind]._AUGMENTATION_SPACE)
    assert set(TRIVIAL) == set(RAND) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [0, 1, 9, 15, 16, 30])
@pytest.mark.parametrize("kind", PEERS)
def test_the_same_strengths_as_torchvision(kind: str, step: int, name: str) -> None:
    strengths, signed = PEERS[kind]._AUGMENTATION_SPACE[name]
    values = strengths(MAGNITUDES, SIZE, SIZE)
    expected = 0.0 if values is None else float(values[step])
    for sign, factor in ((0.9, 1), (0.1, -1 if signed else 1)):
        u = [middle_of(name), (step + 0.5) / MAGNITUDES, sign] * 2
        found = draw_operations(kind, step, SIZE, u)
        assert found == (Operation(name, factor * expected),) * (1 if kind == "trivial" else 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PEERS)
def test_the_same_pixels_as_torchvision(kind: str, name: str, channels: int) -> None:
    peer = PEERS[kind](interpolation="bilinear")
    image = photo(channels)
    for step in (0, 7, 30):
        for sign in (0.1, 0.9):
            u = [middle_of(name), (step + 0.5) / MAGNITUDES, sign] * 2
            operation = draw_operations(kind, step, SIZE, u)[0]
            before = image.clone()
            found = auto.apply(operation, image)
            expected = peer._apply_image_or_video_transform(
                image, name, operation.strength, peer.interpolation, peer._fill
            )
            assert torch.equal(found, expected)
            assert torch.equal(image, before)


def test_every_operation_is_as_likely() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        op.name
        for _ in range(2000)
        for op in draw_operations("rand", 9, SIZE, rng.random(6).tolist())
    ]
    counts = np.array([drawn.count(name) for name in NAMES])
    assert abs(counts - 4000 / len(NAMES)).max() < 5 * (4000 / len(NAMES)) ** 0.5


def test_none_is_nothing() -> None:
    assert draw_operations("none", 9, SIZE, [0.5] * 6) == ()


def test_an_unknown_operation_is_our_mistake() -> None:
    with refused(AssertionError, "Swirl"):
        auto.apply(Operation("Swirl", 1), photo())
