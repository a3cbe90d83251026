"""Choices that are made from the data or the machine: precision, inputs, progressive sizes, lines
of the plan."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from foveate.data.layouts import load_dataset
from foveate.data.splits import hold_out
from foveate.errors import DataError
from foveate.models import build
from foveate.training import memory, network_input, setup
from foveate.training.config import SCRATCH
from foveate.training.cost import clock_time
from foveate.training.freezing import make_plan
from foveate.training.loader import progressive
from foveate.training.memory import (
    bytes_per_image,
    give_back,
    keep_freed_memory,
    micro_batches_that_fit,
)
from foveate.training.network_input import Seen, choose_size, inspect_images


@pytest.mark.parametrize(
    ("requested", "device", "flags", "chosen"),
    [
        ("f32", "cpu", {"amx_bf16"}, "f32"),
        ("bf16", "cpu", set(), "bf16"),
        ("auto", "cpu", {"avx512f"}, "f32"),
        ("auto", "cpu", {"avx512f", "avx512_bf16"}, "bf16"),
        ("auto", "cpu", {"amx_bf16"}, "bf16"),
        ("auto", "mps", {"amx_bf16"}, "f32"),
    ],
)
def test_precision(requested, device, flags, chosen, monkeypatch):
    monkeypatch.setattr(setup, "instructions", lambda: flags)
    assert setup.choose_precision(requested, device) == chosen


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
def test_inputs(model, smallest, seen, asked, expected, monkeypatch):
    monkeypatch.setattr(network_input, "inspect_images", lambda *_: seen)
    size, channels = asked
    request = SimpleNamespace(model=model, start=None, module=None, size=size, channels=channels)
    preprocess, _ = choose_size(None, None, request, None, 1)
    assert (preprocess.crop, preprocess.channels) == expected
    assert preprocess.resize == preprocess.crop
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
    seen = inspect_images(dataset, np.arange(8), None, 2)
    values = np.stack(arrays).reshape(-1, 3) / 255
    assert not seen.grey and seen.short_side == 20
    np.testing.assert_allclose(seen.mean, values.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(seen.std[:2], values.std(axis=0)[:2], atol=1e-3)
    # a colour that never changes is not divided by nothing
    assert seen.std[2] == pytest.approx(0.01)
    assert inspect_images(load_dataset("digits"), np.arange(100), None, 2).grey
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"no image")
    with refused(DataError, "training", repr(dataset.name)):
        inspect_images(dataset, np.arange(8), None, 2)


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
    ("images", "each", "wanted", "least", "free", "expected"),
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
def test_micro_batches_that_fit(images, each, wanted, least, free, expected):
    assert micro_batches_that_fit(images, each, wanted, least, free) == expected


def test_the_c_library_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    fake = SimpleNamespace(
        mallopt=lambda *numbers: calls.append(numbers),
        malloc_trim=lambda *numbers: calls.append(numbers),
    )
    monkeypatch.setattr(memory, "glibc", lambda: fake)
    keep_freed_memory()
    give_back()
    assert calls == [(-4, 0), (-1, -1), (0,)]
    monkeypatch.setattr(memory, "glibc", lambda: None)
    keep_freed_memory()
    give_back()
    assert len(calls) == 3


# With another C library keep_freed_memory does nothing; the test before this one needs none.
@pytest.mark.skipif(memory.glibc() is None, reason="other C libraries are left as they are")
def test_freed_memory_is_taken_again(python) -> None:
    program = """
import resource, torch
from foveate.training.memory import give_back, keep_freed_memory

def faults(turns):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(turns):
        torch.ones(16 << 20)  # 64 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

keep_freed_memory()
first = faults(1)
print(first > 0, faults(40) < 20 * first)  # not always the same place, but far from 40 new ones
kept = resident()
give_back()
print(resident() < kept - (60 << 20))
"""
    assert python(program).split() == ["True"] * 3
