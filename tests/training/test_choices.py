"""Choices that are made from the data or the machine: precision, inputs, progressive sizes, lines
of the plan."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.data.layouts import load_dataset
from foveate.data.splits import hold_out
from foveate.errors import DataError
from foveate.models import build
from foveate.training import memory, setup
from foveate.training.config import SCRATCH
from foveate.training.freezing import make_plan
from foveate.training.memory import bytes_per_image, give_back, memory_kept, pieces_that_fit
from foveate.training.setup import Seen, choose_inputs, look_at, progressive
from foveate.training.telling import clock_time


@pytest.mark.parametrize(
    ("wish", "device", "flags", "chosen"),
    [
        ("f32", "cpu", {"amx_bf16"}, "f32"),
        ("bf16", "cpu", set(), "bf16"),
        ("auto", "cpu", {"avx512f"}, "f32"),
        ("auto", "cpu", {"avx512f", "avx512_bf16"}, "bf16"),
        ("auto", "cpu", {"amx_bf16"}, "bf16"),
        ("auto", "mps", {"amx_bf16"}, "f32"),
    ],
)
def test_precision(wish, device, flags, chosen, monkeypatch):
    monkeypatch.setattr(setup, "instructions", lambda: flags)
    assert setup.choose_precision(wish, device) == chosen


def test_precision_of_a_gpu(monkeypatch):
    for able, chosen in ((True, "bf16"), (False, "f32")):
        monkeypatch.setattr(
            "torch.cuda.is_bf16_supported", lambda including_emulation, able=able: able
        )
        assert setup.choose_precision("auto", "cuda") == chosen


SEEN = Seen(grey=True, short_side=28, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("model", "smallest", "seen", "asked", "expected"),
    [
        ("lenet5", 28, SEEN, (None, None), (28, 1)),
        ("resnet20", 1, SEEN, (None, None), (28, 1)),  # small images stay as they are
        ("resnet20", 1, SEEN._replace(short_side=200), (None, None), (32, 1)),
        ("resnet18", 1, SEEN, (None, None), (224, 1)),  # a network for large images sees them large
        ("resnet20", 1, SEEN._replace(grey=False), (None, None), (28, 3)),
        ("resnet20", 1, SEEN, (48, 3), (48, 3)),
        ("nin_cifar", 4, SEEN._replace(short_side=2), (None, None), (4, 1)),
    ],
)
def test_inputs(model, smallest, seen, asked, expected):
    preprocess = choose_inputs(model, smallest, seen, *asked)
    assert (
        preprocess.crop,
        preprocess.channels,
    ) == expected and preprocess.resize == preprocess.crop
    assert preprocess.mean == ((0.2, 0.3, 0.4) if expected[1] == 3 else (0.3,))


def test_what_images_are_like(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    arrays = []
    for i in range(8):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        pixels[..., 2] = 60
        arrays.append(pixels)
        Image.fromarray(pixels).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    dataset = load_dataset(tmp_path)
    seen = look_at(dataset, np.arange(8), 2)
    values = np.stack(arrays).reshape(-1, 3) / 255
    assert not seen.grey and seen.short_side == 20
    np.testing.assert_allclose(seen.mean, values.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(seen.std[:2], values.std(axis=0)[:2], atol=1e-3)
    # a colour that never changes is not divided by nothing
    assert seen.std[2] == pytest.approx(0.01)
    assert look_at(load_dataset("digits"), np.arange(100), 2).grey
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of the training images of .* can be read"):
        look_at(dataset, np.arange(8), 2)


@pytest.mark.parametrize(
    ("crop", "first", "epochs", "sizes"),
    [
        (224, 0.57, 4, [128, 160, 192, 224]),
        (32, 0.5, 3, [16, 24, 32]),
        (224, 1.0, 1, [224]),  # off, as it has to be with one epoch
        (30, 0.9, 2, [28, 30]),
    ],
)
def test_progressive_sizes(crop, first, epochs, sizes):
    size = progressive(crop, replace(SCRATCH, progressive=first, epochs=epochs))
    assert [size(epoch) for epoch in range(epochs)] == sizes


def test_clock_time():
    assert [clock_time(s) for s in (0.4, 59.6, 90, 3_725)] == ["0:00", "1:00", "1:30", "1:02:05"]


def test_holding_out_keeps_groups_and_small_classes():
    labels = np.array([0] * 60 + [1] * 38 + [2] * 2)
    groups = np.arange(100)
    groups[:6] = 500  # six images of one thing
    part = hold_out(labels, groups, (0.15, 0.15), seed=3)
    assert len(set(part[:6])) == 1
    assert set(part[labels == 2]) >= {0}
    counts = np.bincount(part)
    assert counts[1] == pytest.approx(15, abs=3) and counts[2] == pytest.approx(15, abs=3)
    for seed in range(30):
        part = hold_out(np.array([0, 0, 1, 1, 1, 1]), np.arange(6), (0.15, 0.15), seed)
        assert {0, 1} == set(np.array([0, 0, 1, 1, 1, 1])[part == 0])


def test_memory_of_an_image():
    """By hand: a linear network keeps its input, the convolution's output for the ReLU's sign, and
    the pooled map."""
    network = build("lenet5")
    plan = make_plan(network, (1, 28, 28), "none", 0.1, 0.1)
    each = bytes_per_image(network, plan, (1, 28, 28), 0, "f32")
    least = 4 * (28 * 28 + 6 * 28 * 28 + 6 * 14 * 14 + 16 * 10 * 10 + 400 + 120 + 84)
    assert least <= each <= 1.5 * least
    thawing = make_plan(network, (1, 28, 28), "backbone", 0.1, 0.1, unfreeze_at=2)
    frozen, thawed = (
        bytes_per_image(network, thawing, (1, 28, 28), epoch, "f32") for epoch in (1, 2)
    )
    assert frozen <= 4 * 84 * 2 and thawed == each  # what is frozen keeps nothing
    assert bytes_per_image(network, plan, (1, 28, 28), 0, "bf16") < each


@pytest.mark.parametrize(
    ("images", "each", "pieces", "least", "free", "expected"),
    [
        (128, 1, 1, 1, 10**9, 1),
        (128, 10**9, 1, 1, 10**9, 128),
        (128, 10**9, 1, 2, 10**9, 64),
        (128, 10**7, 1, 1, 10**9, 3),
        (128, 1, 4, 1, 10**9, 4),
        (2, 9, 9, 1, 99, 2),
        (3, 9, 9, 2, -5, 1),
    ],
)
def test_pieces_that_fit(images, each, pieces, least, free, expected):
    assert pieces_that_fit(images, each, pieces, least, free) == expected


# memory_kept does nothing with another C library, so there is nothing to see; the test after this
# one needs none
@pytest.mark.skipif(memory.glibc() is None, reason="other C libraries are left as they are")
def test_freed_memory_is_kept_meanwhile_and_given_back() -> None:
    import resource  # of Linux, as glibc is

    def new_pages(turns: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(turns):
            torch.ones(16 << 20)  # 64 MB, more than glibc keeps by itself
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    give_back()  # what tests before this one left
    with memory_kept():
        once = new_pages(1)
        # not always the same place, but far from 20 new ones
        assert once > 0 and new_pages(20) < 5 * once
        within = resident()
        give_back()
        assert resident() < within - (60 << 20)


def test_the_c_librarys_own_ways_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []
    fake = SimpleNamespace(
        mallopt=lambda *numbers: told.append(numbers),
        malloc_trim=lambda *numbers: told.append(numbers),
    )
    monkeypatch.setattr(memory, "glibc", lambda: fake)
    with pytest.raises(KeyError), memory_kept():
        assert told == [(-4, 0), (-1, -1)]
        raise KeyError
    assert told[2:] == [(-4, 65_536), (-3, 32 << 20), (-1, 64 << 20), (0,)]
    monkeypatch.setattr(memory, "glibc", lambda: None)
    with memory_kept():
        give_back()
    assert len(told) == 6
