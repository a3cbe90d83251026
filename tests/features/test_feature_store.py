"""The feature cache: damage is detected, work kept, old parts deleted, processes share it."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backbone import FakeBackbone, by_hand, extracted, parts
from refusals import refused

from foveate import features
from foveate.errors import ArtefactError, FoveateError, UsageError
from foveate.features import FeatureStore, trim_cache
from foveate.progress import Silent
from foveate.storage import cache_root


class Interrupted(Silent):
    """Ctrl-C after some images."""

    def __init__(self, after: int):
        self.left, self.phase = after, ""

    def begin(self, phase: str, total: int) -> None:
        self.phase = phase

    def advance(self, n: int = 1) -> None:
        if self.phase == "images" and n == 1:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


class FeatureStoreView:
    """A part as it lies on disk, read without the store."""

    def __init__(self, path: Path):
        from safetensors.numpy import load_file

        tensors = load_file(path)
        self.names = [row.tobytes().hex() for row in tensors["digests"]]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: (
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if at >= 0
        else flip(len(data) + at)(data)
    )


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize(
    "damage",
    [
        flip(-1),
        flip(0),
        flip(20),
        lambda d: d[: len(d) // 2],
        lambda d: d[:5],
        lambda _: b"",
        lambda d: d + b"x",
    ],
    ids=["flip end", "flip start", "flip header", "half", "five bytes", "empty", "longer"],
)
def test_a_damaged_part_is_dropped_and_computed_anew(
    damage: Callable[[bytes], bytes], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 5)
    first = extracted(root)
    assert len(parts()) == 3  # 5, 5 and 2
    victim = max(parts(), key=lambda p: p.stat().st_size)
    held = len(FeatureStoreView(victim).names)
    victim.write_bytes(damage(victim.read_bytes()))
    found = extracted(root)
    assert np.array_equal(found.features, first.features)
    assert found.computed == held
    assert extracted(root).computed == 0


@pytest.mark.usefixtures("backbone")
def test_garbage_beside_the_parts_is_no_harm(root: Path) -> None:
    extracted(root)
    folder = parts()[0].parent
    (folder / "notes.txt").write_text("hello")
    (folder / "x.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n")
    (folder / "space.json").write_text("{")
    assert extracted(root).computed == 0
    assert not (folder / "x.safetensors").exists()


@pytest.mark.parametrize("mirror", [True, False], ids=["mirror", "plain"])
@pytest.mark.parametrize("after", [1, 4, 7, 12])
def test_an_interrupted_extraction_keeps_what_is_done(
    after: int, mirror: bool, root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 2)
    with pytest.raises(KeyboardInterrupt):
        extracted(root, mirror, progress=Interrupted(after))
    assert backbone.cancelled == 1
    kept = {name for part in parts() for name in FeatureStoreView(part).names}
    assert len(kept) >= after - 1
    found = extracted(root, mirror)
    assert found.computed == 12 - len(kept) <= 12 - after + 1
    np.testing.assert_allclose(found.features, by_hand(root, mirror), rtol=1e-5)
    temporary = [p for p in cache_root().rglob("*") if p.name.startswith(".")]
    assert temporary == []


@pytest.mark.usefixtures("backbone")
def test_the_part_unused_for_longest_goes_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 3)
    extracted(root)
    old, *rest = parts()
    for age, part in enumerate([old, *rest]):
        os.utime(part, (1_000_000_000 + age, 1_000_000_000 + age))
    monkeypatch.setattr(features, "LIMIT", sum(p.stat().st_size for p in rest))
    trim_cache()
    assert parts() == rest
    extracted(root)  # reads the rest, so it is used now; and computes what is gone
    monkeypatch.setattr(features, "LIMIT", 0)
    trim_cache()
    assert parts() == []


@pytest.mark.usefixtures("backbone")
def test_reading_a_part_makes_it_young(root: Path) -> None:
    extracted(root)
    (part,) = parts()
    os.utime(part, (1_000_000_000, 1_000_000_000))
    extracted(root)
    assert part.stat().st_mtime > time.time() - 3600


@pytest.mark.usefixtures("backbone")
def test_a_part_that_vanishes_while_parts_are_listed_is_no_harm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(root)
    # listed, and not there: as when another run removed it
    (parts()[0].parent / "0.safetensors").symlink_to("nowhere")
    assert extracted(root).computed == 0
    monkeypatch.setattr(features, "LIMIT", 0)
    trim_cache()
    assert [p for p in parts() if p.exists()] == []


def test_trimming_nothing() -> None:
    trim_cache()
    assert not cache_root().exists()


def test_a_part_that_another_run_removes_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore({"space": 1})
    digests = ["ab" * 32]
    store.add(digests, [features.Known(np.ones(2, np.float32), None)])

    def vanish(part: Path, _: str) -> None:
        part.unlink()
        raise FileNotFoundError(part)

    monkeypatch.setattr(features, "safe_open", vanish)
    assert store.find(set(digests)) == {}


def test_two_processes_write_find_and_trim_at_once(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from foveate import features
features.LIMIT = 200_000
store, rng = features.FeatureStore({"space": 1}), np.random.default_rng(int(sys.argv[1]))
digests = [f"{i:064x}" for i in range(40)]
for _ in range(150):
    some = [digests[i] for i in rng.permutation(40)[:7]]
    greys = np.zeros((64, 64), np.uint8)
    store.add(some, [features.Known(np.full(100, int(d, 16), np.float32), greys) for d in some])
    for digest, known in store.find(set(digests)).items():
        assert (known.features == int(digest, 16)).all() and known.grey.shape == (64, 64)
    features.trim_cache()
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(seed)], stderr=subprocess.PIPE, text=True
        )
        for seed in range(2)
    ]
    assert [run.communicate()[1] for run in runs] == ["", ""]
    assert parts() and sum(p.stat().st_size for p in parts()) <= 200_000
    assert not [p for p in cache_root().rglob("*") if p.name.startswith(".")]


@pytest.mark.usefixtures("warm_cache")
def test_two_extractions_at_once_agree(images: Path) -> None:
    """The real backbone, twice at the same time, on the same images."""
    program = """
import sys
from foveate.data.layouts import load_dataset
from foveate.features import extract
from foveate.progress import Silent
from foveate.weights.starting_point import find_start
start = find_start("efficientnet_lite0")
preprocess = start.preprocess.at(224)
dataset = load_dataset(sys.argv[1])
found = extract(dataset, start, preprocess, False, "openvino", 1, Silent())
assert not found.bad and "torch" not in sys.modules
print(found.features.shape, found.features.sum(dtype=float))
"""
    command = [sys.executable, "-c", program, str(images)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(printed) == 1 and printed.pop().startswith("(96, 3632)")


# What is no part of this store


def odd_parts(folder: Path) -> None:
    """A folder, a pipe, and a link to nothing, each by the name of a part."""
    (folder / f"{'0' * 32}.safetensors").mkdir()
    os.mkfifo(folder / f"{'1' * 32}.safetensors")  # to open it would wait for ever
    (folder / f"{'2' * 32}.safetensors").symlink_to("nothing")


def rewritten(part: Path, features: Any, space: str | None = None, digests: Any = None) -> None:
    """The part with other tensors, under the name that its hash gives it."""
    from safetensors.numpy import load_file, save

    held = load_file(part)
    tensors = {"features": features(held["features"]), "digests": held["digests"]}
    if digests is not None:
        tensors["digests"] = digests(held["digests"])
    data = save(tensors, {"space": part.parent.name if space is None else space})
    part.unlink()
    part.with_stem(hashlib.sha256(data).hexdigest()[:32]).write_bytes(data)


@pytest.mark.parametrize(
    "features",
    [
        lambda f: np.where(np.arange(f.size).reshape(f.shape) == 3, np.nan, f).astype(np.float32),
        lambda f: np.full_like(f, np.inf),
        lambda f: f[:-1].copy(),
        lambda f: f.ravel(),
        lambda f: f[:, :0].copy(),
        lambda f: f.astype(np.float64),
        lambda f: f.astype(np.int32),
        lambda f: np.array(f[0, 0]),
    ],
    ids=["nan", "inf", "short", "flat", "no width", "double", "whole numbers", "a scalar"],
)
def test_a_part_whose_hash_fits_is_checked_too(
    features: Any, root: Path, backbone: FakeBackbone
) -> None:
    first = extracted(root)
    rewritten(parts()[0], features)
    again = extracted(root)
    assert again.computed == 12 and np.array_equal(again.features, first.features)
    assert extracted(root).computed == 0  # and it was repaired


def test_a_part_of_another_space_is_passed_over(root: Path, backbone: FakeBackbone) -> None:
    first = extracted(root)
    rewritten(parts()[0], lambda f: f + 1, space="0" * 32)
    again = extracted(root)
    assert again.computed == 12 and np.array_equal(again.features, first.features)
    assert len(parts()) == 2  # it is somebody's
    odd_parts(parts()[0].parent)
    assert np.array_equal(extracted(root).features, first.features)
    trim_cache()


def test_a_folder_in_the_place_of_a_part(root: Path, backbone: FakeBackbone) -> None:
    first = extracted(root)
    [part] = parts()
    part.unlink()
    part.mkdir()
    again = extracted(root)
    assert again.computed == 12 and np.array_equal(again.features, first.features)
    assert part.is_dir()


def test_another_width_is_said(root: Path, backbone: FakeBackbone) -> None:
    extracted(root)
    [part] = parts()
    rewritten(part, lambda f: f[:6, :4].copy(), digests=lambda d: d[:6].copy())
    with refused(FoveateError, str(part.parent), "width", "--clear"):
        extracted(root)


def test_a_warm_cache_that_can_only_be_read(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extracted(root)

    def denied(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for owner, name in ((os, "utime"), (Path, "mkdir"), (Path, "unlink"), (Path, "write_bytes")):
        monkeypatch.setattr(owner, name, denied)
    assert np.array_equal(extracted(root).features, first.features)


@pytest.mark.parametrize("what", ["written", "read"])
def test_a_cache_that_is_shut_is_named(
    what: str, root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = "mkdir" if what == "written" else "exists"
    real = getattr(Path, operation)

    def shut(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.is_relative_to(cache_root()):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, operation, shut)
    with refused(FoveateError, "FOVEATE_CACHE", "features"):
        extracted(root)


def test_numbers_that_are_not_finite_are_no_features(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fake_backbone.features_of", lambda pixels: np.full((len(pixels), 6), np.nan, np.float32)
    )
    with refused(ArtefactError, "efficientnet_lite0", "finite"):
        extracted(root)
    assert parts() == []


def test_the_engine_auto_is_the_fastest_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveate import engine
    from foveate.weights.starting_point import find_start

    start = find_start("efficientnet_lite0")
    for gpu in (False, True):
        monkeypatch.setattr(engine, "has_gpu", lambda gpu=gpu: gpu)
        made = engine.prepare_backbone("auto", start, start.preprocess, 1)
        assert made.identity.split()[0] == engine.choose_engine("auto")
    with refused(UsageError, "fast", "openvino"):
        engine.prepare_backbone("fast", start, start.preprocess, 1)
