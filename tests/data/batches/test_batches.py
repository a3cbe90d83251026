"""The same images whatever the number of threads and ranks, the cache, and where an epoch
begins."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import absent, refused
from textbook import mix

from foveate.data.augment import Augment, render
from foveate.data.augment.streams import batch_generator
from foveate.data.batches import Batch, EvaluationBatches, TrainingBatches, assembly, normalise
from foveate.data.dataset import Dataset
from foveate.data.decoding import for_training
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess, decode
from foveate.errors import ImageError, UsageError

PREPROCESS = Preprocess(48, 48)
STANDARD, STRONG, LIGHT, NONE = (Augment(name) for name in ("standard", "strong", "light", "none"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> Path:
    return draw_folder(tmp_path_factory.mktemp("drawn") / "photos", 13)


@pytest.fixture
def dataset(photos: Path) -> Dataset:
    return load_dataset(photos)


@pytest.fixture
def counted(dataset: Dataset) -> tuple[Dataset, list[int]]:
    """And the rows that are read, in order."""
    reads: list[int] = []
    read = dataset.read

    def count(row: int) -> bytes:
        reads.append(row)
        return read(row)

    return replace(dataset, read=count), reads


def make(dataset: Dataset, augmentation: Augment = STANDARD, **options) -> TrainingBatches:
    rows = np.arange(len(dataset))
    return TrainingBatches(
        dataset, rows, PREPROCESS, augmentation, **{"batch_size": 16, "threads": 2} | options
    )


def content(batches: Iterable[Batch]) -> list[tuple[int, list[int], bytes, bytes]]:
    return [
        (b.number, b.rows.tolist(), b.pixels.numpy().tobytes(), b.targets.numpy().tobytes())
        for b in batches
    ]


def test_a_batch(dataset: Dataset) -> None:
    batches = make(dataset)
    found = list(batches.epoch(0))
    assert len(batches) == len(found) == 3
    for batch in found:
        assert batch.pixels.dtype == torch.uint8 and batch.pixels.shape == (13, 3, 48, 48)
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.tolist() == dataset.labels[batch.rows].tolist()
        assert batch.names == tuple(dataset.files[row] for row in batch.rows)
        assert batch.total == 13
    assert sorted(np.concatenate([batch.rows for batch in found])) == list(range(39))


def test_an_image_is_what_augment_makes_of_it(dataset: Dataset) -> None:
    make_pixels = for_training(PREPROCESS, 86).make  # 48 * 25 / 14
    for batch in make(dataset, seed=3).epoch(5):
        for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True):
            kept = make_pixels(dataset.read(row), "x")
            assert torch.equal(pixels, STANDARD.replace(size=48).at(3, 5, row)(kept))


@pytest.mark.parametrize(
    "augmentation", [STANDARD, STRONG, LIGHT], ids=["standard", "strong", "light"]
)
def test_the_number_of_threads_changes_nothing(dataset: Dataset, augmentation: Augment) -> None:
    found = [
        [content(make(dataset, augmentation, threads=n).epoch(e)) for e in (0, 1)]
        for n in (1, 2, 4)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][0] != found[0][1]


@pytest.mark.parametrize("augmentation", [STANDARD, STRONG], ids=["standard", "strong"])
@pytest.mark.parametrize("sampling", ["all", "balanced"])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_see_together_what_one_process_sees(
    dataset: Dataset, augmentation, sampling, world: int
) -> None:
    options = {"sampling": sampling, "batch_size": 8}
    alone = make(dataset, augmentation, **options).epoch(1)
    ranks = [
        make(dataset, augmentation, rank=rank, world=world, **options).epoch(1)
        for rank in range(world)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))
        assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
        assert whole.names == sum((part.names for part in parts), ())
        assert {part.total for part in parts} == {len(whole.rows)}


def test_mixed_batches_are_what_mix_makes_of_plain_ones(dataset: Dataset) -> None:
    plain = STRONG.replace(mixup=0.0, cutmix=0.0)
    for batch, unmixed in zip(
        make(dataset, STRONG).epoch(2), make(dataset, plain).epoch(2), strict=True
    ):
        one_hot = torch.nn.functional.one_hot(unmixed.targets, 3).float()
        pixels, targets = mix(unmixed.pixels, one_hot, STRONG, batch_generator(0, 2, batch.number))
        assert torch.equal(batch.pixels, pixels) and torch.equal(batch.targets, targets)
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.shape == (13, 3) and torch.allclose(
            batch.targets.sum(1), torch.ones(13)
        )


@pytest.mark.parametrize("augmentation", [STANDARD, STRONG], ids=["standard", "strong"])
def test_an_epoch_begins_anywhere(
    counted: tuple[Dataset, list[int]], augmentation: Augment
) -> None:
    dataset, reads = counted
    options = {"batch_size": 6, "cache": "off"}
    whole = content(make(dataset, augmentation, **options).epoch(4))
    assert [number for number, *_ in whole] == list(range(7))
    reads.clear()
    assert content(make(dataset, augmentation, **options).epoch(4, start=4)) == whole[4:]
    assert sorted(reads) == sorted(row for _, rows, *_ in whole[4:] for row in rows)
    assert content(make(dataset, augmentation, **options).epoch(4, start=7)) == []


def test_each_seed_and_epoch_is_another(dataset: Dataset) -> None:
    found = [content(make(dataset, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(batches) for batches in found}) == 4
    assert content(make(dataset, seed=1).epoch(0)) == found[2]


@pytest.mark.parametrize("augmentation", [STANDARD, LIGHT], ids=["standard", "light"])
def test_caches_change_nothing_but_the_reading(
    counted: tuple[Dataset, list[int]], augmentation: Augment
) -> None:
    dataset, reads = counted
    expected = [
        content(make(dataset, augmentation, cache="off").epoch(epoch)) for epoch in range(3)
    ]
    assert len(reads) == 3 * 39
    for cache, limit, later in (
        ("ram", None, 0),
        ("ram", 100_000, 1),
        ("disk", None, 0),
        ("disk", None, 0),
    ):
        reads.clear()
        batches = make(dataset, augmentation, cache=cache, cache_bytes=limit)
        assert [content(batches.epoch(epoch)) for epoch in range(3)] == expected
        first = 39
        assert len(reads) == first if not later else first < len(reads) < 3 * first
        assert bool(batches.cache.notes()) == bool(later)


def test_a_second_run_decodes_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(make(dataset, cache="disk").epoch(0))
    monkeypatch.delattr("foveate.data.decoding.load_pixels")
    assert content(make(dataset, cache="disk").epoch(0)) == expected
    with refused(ImageError, "image '", "NameError"):
        content(make(dataset, cache="ram").epoch(0))


def test_a_damaged_disk_cache_changes_nothing(dataset: Dataset, cache: Path) -> None:
    expected = content(make(dataset, cache="disk").epoch(0))
    files = [path for path in (cache / "pixels").rglob("*") if path.is_file()]
    for i, file in enumerate(files):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2] if i % 2 else data[:-9] + bytes(9))
    batches = make(dataset, cache="disk")
    assert content(batches.epoch(0)) == expected
    (note,) = batches.cache.notes()
    assert not absent(note, "39", "damaged", "disk"), note


def test_sizes_may_follow_the_epoch(dataset: Dataset) -> None:
    for augmentation in (STANDARD, LIGHT, NONE):
        batches = make(dataset, augmentation, size=lambda epoch: 16 * (epoch + 1))
        for epoch in range(3):
            (shape,) = {batch.pixels.shape[1:] for batch in batches.epoch(epoch)}
            assert shape == (3, 16 * (epoch + 1), 16 * (epoch + 1))
        with refused(UsageError, "epoch 3", "64", "1 to 48"):
            batches.epoch(3)
    assert next(make(dataset, size=64).epoch(0)).pixels.shape == (13, 3, 64, 64)


@pytest.mark.parametrize("size", [48, 32])
def test_without_augmentation_training_sees_about_what_evaluation_sees(
    dataset: Dataset, size: int
) -> None:
    for batch in make(dataset, NONE, size=size).epoch(0):
        for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True):
            shown = decode(dataset.read(row), "x", PREPROCESS.at(size))
            shown, seen = (
                x.reshape(8, size // 8, 8, size // 8, 3).mean((1, 3))
                for x in (shown, pixels.numpy().transpose(1, 2, 0))
            )
            # the middle of a pixel may be the edge of another
            assert np.abs(seen - shown).mean() < 3


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(
    "augmentation", [STANDARD, STRONG, LIGHT, NONE], ids=["standard", "strong", "light", "none"]
)
def test_images_of_any_size(tmp_path: Path, augmentation: Augment, channels: int) -> None:
    sizes = [(1, 1), (5, 5), (300, 3), (3, 300), (47, 49), (800, 600), (48, 48), (20, 10)]
    for i, size in enumerate(sizes):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize(size).convert("RGB").save(folder / f"{i}.png")
    preprocess = (
        Preprocess(48, 40)
        if channels == 3
        else Preprocess(48, 40, channels=1, mean=(0.5,), std=(0.5,))
    )
    dataset = load_dataset(tmp_path / "photos")
    batches = TrainingBatches(dataset, np.arange(8), preprocess, augmentation, 8)
    for epoch in range(2):
        (batch,) = batches.epoch(epoch)
        assert batch.pixels.shape == (8, channels, 40, 40)
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_sees_what_prediction_sees(dataset: Dataset) -> None:
    rows = np.arange(len(dataset))[::-2]
    preprocess = replace(PREPROCESS, resize=56, stretch=1.12)
    for cache in ("off", "ram", "disk", "disk"):
        batches = EvaluationBatches(dataset, rows, preprocess, 8, threads=3, cache=cache)
        for _ in range(2):
            found = list(batches)
            assert [len(batch.rows) for batch in found] == [8, 8, 4] and len(batches) == 3
            assert np.concatenate([batch.rows for batch in found]).tolist() == rows.tolist()
            for batch in found:
                assert batch.targets.tolist() == dataset.labels[batch.rows].tolist()
                assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
                for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True):
                    shown = decode(dataset.read(row), "x", preprocess)
                    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), shown)


def test_evaluation_is_shared_by_ranks(dataset: Dataset) -> None:
    rows = np.arange(5)
    parts = [
        [
            batch.rows.tolist()
            for batch in EvaluationBatches(dataset, rows, PREPROCESS, 2, rank=rank, world=7)
        ]
        for rank in range(7)
    ]
    assert [row for part in parts for batch in part for row in batch] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_normalise_is_preprocess_normalise(channels: int, layout: torch.memory_format) -> None:
    preprocess = (
        Preprocess(20, 20)
        if channels == 3
        else Preprocess(20, 20, channels=1, mean=(0.4,), std=(0.3,))
    )
    pixels = torch.arange(256, dtype=torch.uint8).repeat(5 * channels * 4)[: 5 * channels * 20 * 20]
    pixels = pixels.view(5, channels, 20, 20).contiguous(memory_format=layout)
    found = normalise(pixels, preprocess)
    assert np.array_equal(found.numpy(), preprocess.normalise(pixels.permute(0, 2, 3, 1).numpy()))
    assert found.is_contiguous(memory_format=torch.channels_last)
    address = found.data_ptr()
    again = normalise(255 - pixels, preprocess, found)
    assert again.data_ptr() == address
    assert np.array_equal(
        again.numpy(), preprocess.normalise(255 - pixels.permute(0, 2, 3, 1).numpy())
    )


def test_arithmetic_stays_in_its_thread_and_only_there(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside = []

    def watch(*arguments):
        inside.append(torch.get_num_threads())
        return render(*arguments)

    monkeypatch.setattr("foveate.data.batches.render", watch)
    try:
        for batch in make(dataset).epoch(0):
            assert torch.get_num_threads() == 3
            normalise(batch.pixels, PREPROCESS)
        assert torch.get_num_threads() == 3
        assert set(inside) == {1}
    finally:
        torch.set_num_threads(before)


def test_threads_are_a_bounded_number_of_images_ahead(
    counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, reads = counted
    for limit, most in ((1 << 30, 8), (5 * 48 * 48 * 3, 5), (0, 4)):
        monkeypatch.setattr(assembly, "AHEAD_BYTES", limit)
        reads.clear()
        batches = make(dataset, batch_size=4, cache="off").epoch(0)
        for number in range(1, 9):
            taken = sum(len(next(batches).rows) for _ in range(1)) + 4 * (number - 1)
            time.sleep(0.05)
            assert len(reads) <= taken + most
        batches.close()


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_threads_end_with_the_epoch_or_with_the_reader(dataset: Dataset) -> None:
    list(make(dataset).epoch(0))
    assert loader_threads() == []
    batches = make(dataset, batch_size=4).epoch(0)
    next(batches)
    assert len(loader_threads()) == 2
    batches.close()
    assert loader_threads() == []
    batches = make(dataset, batch_size=4).epoch(0)
    next(batches)
    del batches
    gc.collect()
    assert loader_threads() == []


def break_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "harm, reasons",
    [
        (break_off, ["truncated", "damaged"]),  # either
        (lambda path: path.write_bytes(b""), ["0 bytes"]),
        (Path.unlink, ["No such file"]),
        (make_fifo, ["regular file"]),
        (lambda path: (path.unlink(), path.mkdir()), ["regular file"]),
    ],
    ids="truncated empty vanished fifo folder".split(),
)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_bad_file_ends_it_by_name(
    tmp_path: Path, draw_folder, harm, reasons: list[str], threads: int
) -> None:
    folder = draw_folder(tmp_path / "photos", 4)
    dataset = load_dataset(folder)
    harm(folder / "noise" / "001.jpg")
    for batches in (
        make(dataset, batch_size=3, threads=threads).epoch(0),
        iter(EvaluationBatches(dataset, np.arange(12), PREPROCESS, 3, threads)),
    ):
        with refused(ImageError, "noise/001.jpg'") as raised:
            list(batches)
        assert any(reason in str(raised.value) for reason in reasons)
        assert loader_threads() == []


def test_a_file_that_changes_in_mid_run(tmp_path: Path, draw_folder) -> None:
    folder = draw_folder(tmp_path / "photos", 4)
    dataset = load_dataset(folder)
    assert dataset.digests
    (folder / "noise" / "001.jpg").write_bytes((folder / "noise" / "002.jpg").read_bytes())
    with refused(ImageError, "'noise/001.jpg'", "changed"):
        list(make(dataset).epoch(0))


def test_an_augmentation_that_does_not_fit_is_refused(dataset: Dataset) -> None:
    with refused(UsageError, "pca_colour", "fit"):
        make(dataset, Augment(pca_colour=0.1))
    grey = Preprocess(48, 48, channels=1, mean=(0.5,), std=(0.5,))
    with refused(UsageError, "hue", "one channel"):
        TrainingBatches(dataset, np.arange(9), grey, Augment(hue=0.1), 3)


@pytest.mark.parametrize(
    "options, names",
    [
        ({"rows": np.arange(0)}, ["images"]),
        ({"batch_size": 0}, ["batch", "at least 1", "0"]),
        ({"threads": 0}, "a number of threads is at least 1, got 0"),
        ({"world": 0}, ["world", "at least 1", "0"]),
        ({"rank": 2, "world": 2}, ["rank 2", "2 processes"]),
        ({"rank": -1}, ["rank -1", "1 processes"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"sampling": "fair"}, ["sampling", "'fair'", "all", "balanced"]),
        ({"cache": "tape"}, ["cache", "'tape'", "off", "ram", "disk"]),
        ({"size": 0}, ["1 pixel", "not 0"]),
        ({"batch_size": 2, "world": 3}, ["batch of 1", "3 processes"]),
    ],
)
def test_what_does_not_fit_is_refused(dataset: Dataset, options, names: list[str]) -> None:
    given = {"rows": np.arange(3), "batch_size": 2} | options
    with refused(UsageError, *names):
        TrainingBatches(dataset, preprocess=PREPROCESS, augmentation=STANDARD, **given)
    if not {"seed", "sampling", "size"} & set(options) and options.get("world") != 3:
        with refused(UsageError, *names):
            EvaluationBatches(dataset, preprocess=PREPROCESS, **given)
