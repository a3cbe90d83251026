"""Kept pixels: bounded, shared, and never other than what was kept."""

import errno
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from foveate.data.batches import pixel_cache as module
from foveate.data.batches.pixel_cache import (
    DiskCache,
    PixelCache,
    RamCache,
    open_cache,
    pack,
    unpack,
)
from foveate.errors import UsageError
from foveate.storage import cache_size, clear_cache

RULE = {"rule": 1}
ROOMY = 1 << 20


def image(number: int, height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, channels), np.uint8)


def digest(number: int) -> str:
    return f"{number:064x}"


def files(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "pixels").rglob("*") if path.is_file())


@pytest.fixture(params=["ram", "disk"])
def some_cache(request: pytest.FixtureRequest) -> PixelCache:
    return open_cache(request.param, RULE, ROOMY)


def test_what_is_kept_is_found(some_cache: PixelCache) -> None:
    assert some_cache.find(digest(0)) is None
    for number, channels in ((0, 3), (1, 1)):
        some_cache.keep(digest(number), image(number, channels=channels))
    for _ in range(2):
        for number, channels in ((0, 3), (1, 1)):
            found = some_cache.find(digest(number))
            assert found is not None and found.dtype == np.uint8
            assert np.array_equal(found, image(number, channels=channels))
    assert some_cache.find(digest(2)) is None
    assert some_cache.notes() == []


def test_off_keeps_nothing_and_has_no_notes(cache: Path) -> None:
    off = open_cache("off", RULE)
    off.keep(digest(0), image(0))
    assert off.find(digest(0)) is None
    assert off.notes() == [] and not cache.exists()


def test_a_cache_that_does_not_exist() -> None:
    with refused(UsageError, "cache", "'tape'", "off", "ram", "disk"):
        open_cache("tape", RULE)  # type: ignore[arg-type]
    with refused(UsageError, "cache", "-1"):
        open_cache("ram", RULE, -1)


def test_default_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 1000)
    ram, disk = open_cache("ram", RULE), open_cache("disk", RULE)
    assert isinstance(ram, RamCache) and ram.limit == 400
    assert isinstance(disk, DiskCache) and disk.limit == 16 << 30


def test_memory_is_bounded_and_the_first_ones_stay() -> None:
    ram = RamCache(250)  # two of 105 bytes
    for _ in range(2):
        for number in range(4):
            ram.keep(digest(number), image(number))
    assert [ram.find(digest(n)) is not None for n in range(4)] == [True, True, False, False]
    assert ram.used == 210
    ram.keep(digest(9), image(9, 2, 2))  # a smaller one still fits
    assert ram.used == 222
    assert ram.notes() == ["0.0 GB of memory are full of pixels: 2 images did not fit"]


def test_the_disk_is_shared_by_runs_and_keeps_rules_apart(cache: Path) -> None:
    DiskCache(RULE, ROOMY).keep(digest(0), image(0))
    found = DiskCache(RULE, ROOMY).find(digest(0))
    assert found is not None and np.array_equal(found, image(0))
    assert DiskCache({"rule": 2}, ROOMY).find(digest(0)) is None
    assert cache_size() == {"pixels": len(pack(image(0)))}
    assert clear_cache() > 0 and files(cache) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"X" + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:50] + bytes([data[50] ^ 128]) + data[51:],
        lambda data: data[:8] + bytes(12) + data[20:24],
    ],
    ids="empty cut short long magic last-bit a-bit no-size".split(),
)
def test_damage_is_noticed_and_made_good(cache: Path, damage) -> None:
    DiskCache(RULE, ROOMY).keep(digest(0), image(0))
    (file,) = files(cache)
    file.write_bytes(damage(file.read_bytes()))
    later = DiskCache(RULE, ROOMY)
    assert later.find(digest(0)) is None
    assert not file.exists()
    later.keep(digest(0), image(0))
    found = later.find(digest(0))
    assert found is not None and np.array_equal(found, image(0))
    assert later.notes() == ["1 damaged files in the disk cache of pixels were made again"]


def test_nothing_but_what_was_packed_is_unpacked() -> None:
    rng = np.random.default_rng(0)
    whole = pack(image(0))
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        data = data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data
        assert bytes(data) == whole or unpack(bytes(data)) is None


def test_a_folder_in_the_place_of_a_file(cache: Path) -> None:
    disk = DiskCache(RULE, ROOMY)
    disk.place(digest(0)).mkdir(parents=True)
    assert disk.find(digest(0)) is None
    disk.keep(digest(0), image(0))
    assert "cannot be written" in disk.notes()[0]
    assert files(cache) == []


def test_the_disk_is_bounded_and_the_unused_go_first(cache: Path) -> None:
    size = len(pack(image(0)))
    limit = 10 * size
    first = DiskCache(RULE, limit)
    for number in range(10):
        first.keep(digest(number), image(number))
        os.utime(first.place(digest(number)), (1000 + number, 1000 + number))
    second = DiskCache({"rule": 2}, limit)
    first.checked.clear()
    assert first.find(digest(0)) is not None  # and so used now
    for number in range(20, 26):
        second.keep(digest(number), image(number))
    assert sum(file.stat().st_size for file in files(cache)) <= limit
    assert [DiskCache(RULE, limit).find(digest(n)) is not None for n in range(10)] == [
        True,
        *[False] * 6,
        *[True] * 3,
    ]
    assert all(second.find(digest(number)) is not None for number in range(20, 26))
    assert second.notes() == []


def test_a_full_disk_cache_keeps_what_this_run_uses_and_says_so(cache: Path) -> None:
    size = len(pack(image(0)))
    disk = DiskCache(RULE, 5 * size)
    for _ in range(2):
        for number in range(8):
            disk.keep(digest(number), image(number))
    assert [disk.find(digest(n)) is not None for n in range(8)] == [True] * 5 + [False] * 3
    assert len(files(cache)) == 5
    assert (
        "disk cache of pixels is full" in disk.notes()[0]
        and "3 images did not fit" in disk.notes()[0]
    )


def test_half_of_a_small_disk_stays_free(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(pack(image(0)))
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        module.shutil,
        "disk_usage",
        lambda _: usage._replace(free=7 * size - cache_size()["pixels"]),
    )
    disk = DiskCache(RULE, ROOMY)
    for number in range(5):
        disk.keep(digest(number), image(number))
    assert [disk.find(digest(n)) is not None for n in range(5)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_cannot_be_written_ends_the_cache_not_the_training(
    cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:9])
        raise OSError(code, os.strerror(code))

    disk = DiskCache(RULE, ROOMY)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        disk.keep(digest(0), image(0))
    assert files(cache) == []
    disk.keep(digest(1), image(1))
    assert files(cache) == []
    assert os.strerror(code) in disk.notes()[0] and "2 images did not fit" in disk.notes()[0]


def test_a_cache_that_is_cleared_meanwhile(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DiskCache(RULE, ROOMY)
    disk.keep(digest(0), image(0))
    shutil.rmtree(cache)
    assert disk.find(digest(0)) is None
    replace = Path.replace

    def cleared(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        shutil.rmtree(cache)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", cleared)
    disk.keep(digest(0), image(0))
    assert disk.find(digest(0)) is None
    disk.keep(digest(0), image(0))
    assert disk.find(digest(0)) is not None
    assert disk.notes() == []


def test_first_use_counts_as_use(cache: Path) -> None:
    disk = DiskCache(RULE, ROOMY)
    disk.keep(digest(0), image(0))
    os.utime(disk.place(digest(0)), (1000, 1000))
    DiskCache(RULE, ROOMY).find(digest(0))
    assert disk.place(digest(0)).stat().st_mtime > time.time() - 60


WRITER = """
import sys
import numpy as np
from foveate.data.batches.pixel_cache import DiskCache

limit = int(sys.argv[1])
wrong = 0
for _ in range(4):
    disk = DiskCache({"rule": 1}, limit)
    for number in range(60):
        rng = np.random.default_rng(number)
        name, pixels = f"{number:064x}", rng.integers(0, 256, (5, 7, 3), np.uint8)
        found = disk.find(name)
        wrong += found is not None and not np.array_equal(found, pixels)
        disk.keep(name, pixels)
    wrong += disk.damaged
print(wrong)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [ROOMY, 2000], ids=["roomy", "tight"])
def test_two_processes_at_once(cache: Path, python, limit: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        assert [out.strip() for out in pool.map(lambda _: python(WRITER, limit), range(2))] == [
            "0",
            "0",
        ]
    assert not [file for file in files(cache) if file.name.startswith(".")]
    if limit == ROOMY:
        assert len(files(cache)) == 60
    else:
        assert sum(file.stat().st_size for file in files(cache)) <= 2 * limit
