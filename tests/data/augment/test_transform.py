"""`Augment` as a transform in somebody else's training: torch's DataLoader, torchvision's v2."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image
from refusals import refused
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from foveate.data.augment import Augment
from foveate.data.augment.mix import Mix, mixed_tensors
from foveate.data.augment.streams import batch_generator
from foveate.data.image import load_image
from foveate.errors import ImageError, UsageError

BUSY = Augment("standard", size=32, rotation=15, brightness=0.3, hue=0.1, auto="trivial")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> Path:
    return draw_folder(tmp_path_factory.mktemp("drawn") / "photos", 4)


def test_a_pil_image_an_array_and_a_tensor_are_the_same() -> None:
    array = photo()
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds: list[Any] = [
        array,
        Image.fromarray(array),
        tensor,
        tensor.contiguous(),
        tv_tensors.Image(tensor),
        np.asfortranarray(array),
    ]
    found = [BUSY.at(1, 2, 3)(image) for image in kinds]
    assert all(torch.equal(found[0], other) and type(other) is torch.Tensor for other in found)
    assert torch.equal(tensor, torch.from_numpy(array.copy()).permute(2, 0, 1))
    grey = photo(channels=1)
    augment = Augment("light", size=32)
    found = [
        augment.at(1, 2, 3)(x) for x in (grey, grey[:, :, 0], torch.tensor(grey[None, ..., 0]))
    ]
    assert all(torch.equal(found[0], other) and other.shape == (1, 32, 32) for other in found)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_any_mode_become_what_load_image_makes(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    if mode == "I;16":
        image = Image.fromarray(photo(channels=1)[..., 0].astype(np.uint16) * 257)
    elif mode == "RGBA":
        image.putalpha(100)
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    image.save(path)
    with Image.open(path) as opened:
        expected = BUSY.at(0, 0, 1)(np.asarray(load_image(path)))
        assert torch.equal(BUSY.at(0, 0, 1)(opened), expected)


def test_a_pil_image_is_turned_upright_as_load_image_does(tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        found = Augment(size=40)(opened)
    upright = np.asarray(load_image(tmp_path / "a.png"))
    assert torch.equal(found, Augment(size=40)(upright))
    assert not torch.equal(found, Augment(size=40)(photo()))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "a.jpg") as opened, refused(ImageError, "a.jpg"):
        Augment()(opened)


@pytest.mark.parametrize(
    "image",
    [
        None,
        "x.jpg",
        b"...",
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(3, 4, 4),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 0, 4, dtype=torch.uint8),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(image: Any) -> None:
    with refused(UsageError, "PIL image", "(H, W, 3)", "(3, H, W)"):
        Augment()(image)


def test_colours_of_one_channel_are_refused() -> None:
    with refused(UsageError, "hue", "one channel"):
        Augment(hue=0.1)(photo(channels=1))


def test_the_size_is_224_by_default() -> None:
    assert Augment()(photo(300, 300)).shape == (3, 224, 224)


def test_torchs_seed_decides() -> None:
    torch.manual_seed(4)
    first = [BUSY(photo()) for _ in range(5)]
    torch.manual_seed(4)
    again = [BUSY(photo()) for _ in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 5
    torch.manual_seed(5)
    assert not torch.equal(BUSY(photo()), first[0])


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ((-1, 0, 0), "seed"),
        ((0, -1, 0), "epoch"),
        ((0, 0, -1), "index"),
        ((2**64, 0, 0), "seed"),
        ((0, 0.5, 0), "epoch"),
    ],
)
def test_numbers_out_of_range(numbers: tuple[int, int, int], name: str) -> None:
    with refused(UsageError, name):
        Augment().at(*numbers)


def test_in_a_compose() -> None:
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    torch.manual_seed(0)
    found = v2.Compose([v2.Resize(64), BUSY, *normalise])(Image.fromarray(photo()))
    torch.manual_seed(0)
    expected = BUSY(v2.Resize(64)(Image.fromarray(photo())))
    torch.testing.assert_close(found, (expected.float() / 255 - 0.5) / 0.25)


def epochs(folder: Path, workers: int, seed: int = 0) -> list[bytes]:
    """Two epochs of an ordinary ImageFolder, in batches of 4."""
    torch.manual_seed(seed)
    loader = DataLoader(ImageFolder(str(folder), BUSY), batch_size=4, num_workers=workers)
    return [images.numpy().tobytes() for _ in range(2) for images, _ in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_dataloader(folder: Path, workers: int) -> None:
    first = epochs(folder, workers)
    assert len(first) == len(set(first)) == 6  # workers, batches and epochs differ
    assert epochs(folder, workers) == first
    assert epochs(folder, workers, seed=1)[0] != first[0]


@pytest.mark.slow
@pytest.mark.slow
def test_spawned_workers_make_what_forked_ones_make(folder: Path) -> None:
    found = []
    for context in ("fork", "spawn"):
        augment = Augment("strong", size=32)
        loader = DataLoader(
            ImageFolder(str(folder), augment),
            batch_size=12,
            num_workers=1,
            collate_fn=augment.collate(3),
            multiprocessing_context=context,
        )
        torch.manual_seed(0)
        found += [(images, targets) for images, targets in loader]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_workers_draw_other_numbers(folder: Path) -> None:
    torch.manual_seed(0)
    same = [photo()] * 8
    loader = DataLoader(Mapped(same), batch_size=1, num_workers=2)
    assert len({images.numpy().tobytes() for images in loader}) == 8


class Mapped(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, images: list[np.ndarray]):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return BUSY(self.images[i])


def test_collate(folder: Path) -> None:
    augment = Augment("strong", size=32)
    loader = DataLoader(
        ImageFolder(str(folder), augment),
        batch_size=6,
        collate_fn=augment.collate(3),
    )
    torch.manual_seed(0)
    for images, targets in loader:
        assert images.dtype == torch.uint8 and images.shape == (6, 3, 32, 32)
        assert targets.dtype == torch.float32 and targets.shape == (6, 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        loss = torch.nn.functional.cross_entropy(torch.zeros(6, 3), targets)
        assert loss == pytest.approx(np.log(3))


# Batches


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_batch_is_mixed_as_in_training(name: str, dtype: torch.dtype) -> None:
    images = torch.from_numpy(np.stack([photo(20, 30, seed=i) for i in range(6)]))
    images = images.permute(0, 3, 1, 2).to(dtype)
    before, labels = images.clone(), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.manual_seed(3)
    found, targets = Augment(**{name: 1.0}).batch(images, labels, 4)
    torch.manual_seed(3)
    rng = batch_generator(*torch.randint(2**63 - 1, (2,)).tolist(), 0)
    mixture = Mix(**{name: 1.0}).draw(6, 20, 30, rng)
    assert found.dtype == dtype and torch.equal(images, before)
    assert torch.equal(found, mixed_tensors(images, mixture))
    own = torch.eye(4)[labels]
    expected = mixture.share * own + (1 - mixture.share) * own[mixture.partner]
    torch.testing.assert_close(targets, expected)


def test_targets_have_one_form_whatever_is_on() -> None:
    images, labels = torch.zeros(3, 3, 8, 8), torch.tensor([2, 0, 1])
    same, targets = Augment("standard").batch(images, labels, 4)
    assert same is images and torch.equal(targets, torch.eye(4)[labels])
    several = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0]])
    assert torch.equal(Augment().batch(images, several, 3)[1], several.float())
    soft = torch.full((3, 4), 0.25)
    assert torch.equal(Augment("strong").batch(images, soft, 4)[1], soft)


def test_batches_come_again_with_torchs_seed() -> None:
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    augment, made = Augment("strong"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append([augment.batch(images, labels, 8)[0].numpy().tobytes() for _ in range(4)])
    assert made[0] == made[1] != made[2] and len(set(made[0])) == 4


GOOD = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("images", "targets", "classes", "named"),
    [
        (GOOD[0], torch.tensor([0, 1]), 2, "(N, C, H, W)"),
        (GOOD.int(), torch.tensor([0, 1]), 2, "int32"),
        (GOOD[:0], torch.tensor([0, 1]), 2, "(N, C, H, W)"),
        ([1, 2], torch.tensor([0, 1]), 2, "list"),
        (GOOD, [0, 1], 2, "list"),
        (GOOD, torch.tensor(0), 2, "targets"),
        (GOOD, torch.tensor([0, 1, 2]), 3, "targets"),
        (GOOD, torch.tensor([0, 2]), 2, "0 to 1"),
        (GOOD, torch.tensor([-1, 0]), 2, "0 to 1"),
        (GOOD, torch.tensor([0.0, 1.0]), 2, "(N, 2)"),
        (GOOD, torch.zeros(2, 3), 2, "(N, 2)"),
        (GOOD, torch.tensor([0, 1]), 0, "num_classes"),
        (GOOD, torch.tensor([0, 1]), "2", "num_classes"),
    ],
)
def test_batches_that_do_not_fit(images: Any, targets: Any, classes: Any, named: str) -> None:
    with refused(UsageError, named):
        Augment("strong").batch(images, targets, classes)


# An Augment is a value


def test_equality_and_copies() -> None:
    a = Augment("light", size=32, hue=0.1)
    assert a == Augment("none", size=32, crop="random", hflip=0.5, hue=0.1)
    assert len({a, Augment("light", hue=0.1), Augment("light", size=32), "light"}) == 4
    assert a != "light"
    for other in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert other == a and torch.equal(other.at(0, 0, 0)(photo()), a.at(0, 0, 0)(photo()))
    image = pickle.loads(pickle.dumps(a.at(0, 0, 0)))(photo())
    assert torch.equal(image, a.at(0, 0, 0)(photo()))


def test_repr() -> None:
    assert repr(Augment()) == "Augment('none')"
    assert repr(Augment("strong", size=160)) == "Augment('strong', size=160)"
    assert repr(Augment("light", padding=0.2)) == "Augment('light', padding=0.2)"
    a = Augment("standard", size=64, rotation=15, crop_area=(0.08, 1))
    assert eval(repr(a)) == a
    fitted = Augment(pca_colour=0.1, pca_from="imagenet")
    assert "fit" not in repr(fitted) and "fit" in repr(
        fitted.with_components(fitted.parts[5].components)
    )


def test_it_never_changes() -> None:
    a = Augment("light")
    with pytest.raises(AttributeError, match="replace"):
        a.hflip = 1.0
    with pytest.raises(AttributeError, match="'flip'"):
        a.flip
    assert a.replace(hflip=1.0, size=9) == Augment("light", hflip=1.0, size=9) != a
    assert a.replace(hflip=1.0, size=9).unsized() == Augment("light", hflip=1.0)


def test_default_collate_takes_what_it_gives() -> None:
    assert default_collate([BUSY(photo()), BUSY(photo(90, 80))]).shape == (2, 3, 32, 32)
