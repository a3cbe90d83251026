"""The cache of features: nothing is computed twice, nothing is confused, nothing damaged is believed.

A small engine of numpy stands in for the backbone, so that every number can be told by hand.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foveate import features
from foveate.data.dataset import Dataset
from foveate.data.index import load_dataset
from foveate.data.loader import decode
from foveate.data.preprocess import Preprocess
from foveate.errors import FoveateError
from foveate.features import Extracted, FeatureStore, extract, in_batches, trim_cache
from foveate.progress import Silent
from foveate.storage import cache_root

PREPROCESS = Preprocess(32, 32)


def features_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) -> (N, 6): the mean colours of the left half and of the whole."""
    x = pixels.astype(np.float32)
    return np.concatenate([x[:, :, : x.shape[2] // 2].mean(axis=(1, 2)), x.mean(axis=(1, 2))], axis=1)


class FakeEngine:
    batch = 3

    def __init__(self) -> None:
        self.seen = 0

    def run(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        waiting: list[NDArray[np.uint8]] = []  # three in flight, as a real engine has
        for pixels in batches:
            assert 1 <= len(pixels) <= self.batch
            self.seen += len(pixels)
            waiting.append(pixels)
            if len(waiting) == 3:
                yield features_of(waiting.pop(0))
        yield from map(features_of, waiting)


class FakeBackbone:
    identity = "fake 1 f32"

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.started = self.cancelled = 0

    def start(self) -> None:
        self.started += 1

    def engine(self) -> FakeEngine:
        self.made.append(FakeEngine())
        return self.made[-1]

    def cancel(self) -> None:
        self.cancelled += 1


class Interrupted(Silent):
    """Ctrl-C after some pictures."""

    def __init__(self, after: int):
        self.left, self.phase = after, ""

    def begin(self, phase: str, total: int) -> None:
        self.phase = phase

    def advance(self, n: int = 1) -> None:
        if self.phase == "pictures" and n == 1:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


class Steps(Silent):
    def __init__(self) -> None:
        self.phases: dict[str, list[int]] = {}

    def begin(self, phase: str, total: int) -> None:
        self.phases[phase] = [total, 0]

    def advance(self, n: int = 1) -> None:
        self.phases["pictures"][1] += n


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch) -> FakeBackbone:
    fake = FakeBackbone()
    monkeypatch.setattr(features, "prepare_backbone", lambda *_: fake)
    return fake


@pytest.fixture
def root(tmp_path: Path, draw_folder: Callable[..., Path]) -> Path:
    """Twelve pictures in two classes."""
    return draw_folder(tmp_path / "photos", 6, kinds=("blob", "stripes"))


def extracted(
    root: Path | Dataset, mirror: bool = False, preprocess: Preprocess = PREPROCESS, **more: object
) -> Extracted:
    dataset = load_dataset(root) if isinstance(root, Path) else root
    progress = more.pop("progress", Silent())
    return extract(dataset, "efficientnet_lite0", preprocess, mirror, "openvino", 2, progress)  # type: ignore[arg-type]


def by_hand(root: Path, mirror: bool = False) -> NDArray[np.float32]:
    """Decoded one by one, without cache or engine."""
    dataset = load_dataset(root)
    pixels = np.stack([decode(dataset.read(i), "", PREPROCESS) for i in range(len(dataset))])
    plain = features_of(pixels)
    return (plain + features_of(pixels[:, :, ::-1])) / 2 if mirror else plain


def parts() -> list[Path]:
    return sorted((cache_root() / "features").glob("*/*.safetensors"))


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize("mirror", [True, False], ids=["mirror", "plain"])
def test_features_are_the_engines_in_the_datasets_order(root: Path, mirror: bool) -> None:
    found = extracted(root, mirror)
    np.testing.assert_allclose(found.features, by_hand(root, mirror), rtol=1e-5)
    assert found.features.dtype == np.float32 and found.bad == {} and found.computed == 12
    again = extracted(root, mirror)
    assert np.array_equal(again.features, found.features) and again.computed == 0


def test_mirror_shows_each_picture_twice(root: Path, backbone: FakeBackbone) -> None:
    extracted(root, mirror=True)
    assert backbone.made[0].seen == 24


def test_the_second_call_computes_and_decodes_nothing(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extracted(root)
    monkeypatch.setattr(features, "decode", lambda *_: pytest.fail("decoded again"))
    steps = Steps()
    second = extracted(root, progress=steps)
    assert np.array_equal(first.features, second.features)
    assert (second.computed, len(backbone.made), backbone.started) == (0, 1, 1)
    assert steps.phases["pictures"] == [12, 12]


def test_three_more_pictures_cost_three(root: Path, backbone: FakeBackbone, draw_folder: Callable[..., Path]) -> None:
    extracted(root)
    draw_folder(root, 3, first=50, kinds=("blob",))
    steps = Steps()
    found = extracted(root, progress=steps)
    assert found.computed == backbone.made[1].seen == 3
    assert steps.phases["pictures"] == [15, 15]
    np.testing.assert_allclose(found.features, by_hand(root), rtol=1e-5)


def test_renamed_and_copied_pictures_are_known(root: Path, backbone: FakeBackbone, tmp_path: Path) -> None:
    extracted(root)
    shutil.copytree(root, tmp_path / "other" / "folder")
    (tmp_path / "other" / "folder" / "blob" / "000.png").rename(tmp_path / "other" / "folder" / "stripes" / "x.jpg")
    found = extracted(tmp_path / "other" / "folder")
    assert found.computed == 0 and len(backbone.made) == 1
    np.testing.assert_allclose(found.features, by_hand(tmp_path / "other" / "folder"), rtol=1e-5)


def test_copies_within_a_set_are_computed_once(root: Path, backbone: FakeBackbone) -> None:
    shutil.copy(root / "blob" / "000.png", root / "stripes" / "copy.png")
    found = extracted(root)
    assert found.computed == backbone.made[0].seen == 12 and len(found.features) == 13
    np.testing.assert_allclose(found.features, by_hand(root), rtol=1e-5)


def test_a_changed_picture_is_computed_anew(root: Path, backbone: FakeBackbone) -> None:
    extracted(root)
    shutil.copy(root / "blob" / "001.jpg", root / "blob" / "new.jpg")
    with (root / "blob" / "001.jpg").open("ab") as file:
        file.write(b"\0")  # same pixels, other bytes
    assert extracted(root).computed == 1
    assert backbone.made[1].seen == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda patch, _: patch.setattr(features, "DECODER", "Pillow 99"),
        lambda patch, _: patch.setattr(features, "RULES", 99),
        lambda _, backbone: setattr(backbone, "identity", "fake 2 f32"),
        lambda _, backbone: setattr(backbone, "identity", "fake 1 bf16"),
    ],
    ids=["decoder", "rules", "engine version", "precision"],
)
def test_what_made_a_feature_is_part_of_its_key(
    change: Callable[..., None], root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(root)
    change(monkeypatch, backbone)
    assert extracted(root).computed == 12


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize(
    "other",
    [PREPROCESS.at(48), PREPROCESS.at(32, 1.12), Preprocess(40, 32), Preprocess(32, 32, interpolation="bilinear")],
)
def test_another_preprocess_shares_nothing(other: Preprocess, root: Path) -> None:
    extracted(root)
    assert extracted(root, preprocess=other).computed == 12
    assert extracted(root).computed == 0


@pytest.mark.usefixtures("backbone")
def test_another_network_shares_nothing(root: Path) -> None:
    extracted(root)
    other = extract(load_dataset(root), "efficientnet_lite1", PREPROCESS, False, "openvino", 2, Silent())
    assert other.computed == 12


@pytest.mark.usefixtures("backbone")
def test_the_mirror_view_does_not_take_the_plain_one_for_both(root: Path) -> None:
    extracted(root)
    assert extracted(root, mirror=True).computed == 12
    assert extracted(root).computed == extracted(root, mirror=True).computed == 0
    np.testing.assert_allclose(extracted(root, mirror=True).features, by_hand(root, mirror=True), rtol=1e-5)


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if at >= 0 else flip(len(data) + at)(data)


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize(
    "damage",
    [flip(-1), flip(0), flip(20), lambda d: d[: len(d) // 2], lambda d: d[:5], lambda _: b"", lambda d: d + b"x"],
    ids=["flip end", "flip start", "flip header", "half", "five bytes", "empty", "longer"],
)
def test_a_damaged_part_is_dropped_and_computed_anew(
    damage: Callable[[bytes], bytes], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 5)
    first = extracted(root)
    assert len(parts()) == 2  # 6 and 6: a part ends with a batch
    victim = max(parts(), key=lambda p: p.stat().st_size)
    held = len(FeatureStoreView(victim).names)
    victim.write_bytes(damage(victim.read_bytes()))
    found = extracted(root)
    assert np.array_equal(found.features, first.features)
    assert found.computed == held
    assert extracted(root).computed == 0


class FeatureStoreView:
    """A part as it lies on disk, read without the store."""

    def __init__(self, path: Path):
        from safetensors.numpy import load_file

        tensors = load_file(path)
        self.names = [row.tobytes().hex() for row in tensors["digests"]]


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
    assert not [p for p in cache_root().rglob("*") if p.name.startswith(".")]  # nothing half-written


def test_an_engine_that_fails_stops_what_was_begun(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FoveateError("no engine today")

    monkeypatch.setattr(backbone, "engine", fail)
    with pytest.raises(FoveateError, match="no engine today"):
        extracted(root)
    assert backbone.cancelled == 1 and parts() == []


@pytest.mark.usefixtures("backbone")
def test_bad_pictures_are_named_and_the_others_kept(root: Path) -> None:
    (root / "blob" / "000.png").write_bytes(b"")
    (root / "blob" / "001.jpg").write_bytes((root / "blob" / "002.jpg").read_bytes()[:300])
    (root / "stripes" / "page.jpg").write_text("<html>")
    found = extracted(root)
    assert set(found.bad) == {"blob/000.png", "blob/001.jpg", "stripes/page.jpg"}
    assert all(name in reason for name, reason in found.bad.items())
    names = load_dataset(root).files
    good = [i for i, name in enumerate(names) if name not in found.bad]
    assert not found.features[[i for i in range(len(names)) if i not in good]].any()
    assert found.features[good].any(axis=1).all()
    assert extracted(root).bad == found.bad  # they are tried again, in vain


@pytest.mark.usefixtures("backbone")
def test_copies_of_a_bad_picture_are_each_named(root: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (root / "blob" / name).write_bytes(b"not a picture")
    bad = extracted(root).bad
    assert set(bad) == {"blob/a.jpg", "blob/b.jpg"}
    assert all(name in reason for name, reason in bad.items())


@pytest.mark.usefixtures("backbone")
def test_pictures_that_vanish_are_named(root: Path) -> None:
    dataset = load_dataset(root)
    for name in ("blob/000.png", "stripes/004.jpg"):
        (root / name).unlink()
    found = extracted(dataset)
    assert set(found.bad) == {"blob/000.png", "stripes/004.jpg"}
    assert all(name in reason and "cannot be read" in reason for name, reason in found.bad.items())
    assert found.features.any(axis=1).sum() == 10


@pytest.mark.usefixtures("backbone")
def test_a_picture_that_changes_while_it_is_read_is_named(root: Path) -> None:
    dataset = load_dataset(root)
    assert len(dataset.digests) == 12
    shutil.copy(root / "stripes" / "001.jpg", root / "blob" / "001.jpg")
    found = extracted(dataset)
    assert list(found.bad) == ["blob/001.jpg"]
    assert "changed while it was read; run again" in found.bad["blob/001.jpg"]


@pytest.mark.usefixtures("backbone")
def test_only_bad_pictures(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.jpg").write_bytes(name.encode())
    found = extracted(tmp_path / "set")
    assert len(found.bad) == 2 and found.features.shape == (2, 0)


@pytest.mark.usefixtures("backbone")
def test_the_part_unused_for_longest_goes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_part_that_vanishes_while_parts_are_listed_is_no_harm(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extracted(root)
    (parts()[0].parent / "0.safetensors").symlink_to("nowhere")  # listed, and not there: as when another run removed it
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
    store.add(digests, np.ones((1, 2), np.float32))

    def vanish(part: Path, _: str) -> None:
        part.unlink()
        raise FileNotFoundError(part)

    monkeypatch.setattr(features, "safe_open", vanish)
    assert store.find(set(digests)) == {}


def test_two_processes_write_find_and_trim_at_once(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from foveate import features
features.LIMIT = 20_000
store, rng = features.FeatureStore({"space": 1}), np.random.default_rng(int(sys.argv[1]))
digests = [f"{i:064x}" for i in range(40)]
for _ in range(150):
    some = [digests[i] for i in rng.permutation(40)[:7]]
    store.add(some, np.array([[int(d, 16)] * 100 for d in some], np.float32))
    for digest, row in store.find(set(digests)).items():
        assert (row == int(digest, 16)).all()
    features.trim_cache()
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in range(2)
    ]
    assert [run.communicate()[1] for run in runs] == ["", ""]
    assert parts() and sum(p.stat().st_size for p in parts()) <= 20_000
    assert not [p for p in cache_root().rglob("*") if p.name.startswith(".")]


@pytest.mark.usefixtures("warm_cache")
def test_two_extractions_at_once_agree(pictures: Path) -> None:
    """The real backbone, twice at the same time, on the same pictures."""
    program = """
import sys
from foveate.data.index import load_dataset
from foveate.features import extract
from foveate.progress import Silent
from foveate.weights import find_weights
preprocess = find_weights("efficientnet_lite0").preprocess.at(224)
found = extract(load_dataset(sys.argv[1]), "efficientnet_lite0", preprocess, False, "openvino", 1, Silent())
assert not found.bad and "torch" not in sys.modules
print(found.features.shape, found.features.sum(dtype=float))
"""
    command = [sys.executable, "-c", program, str(pictures)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(said) == 1 and said.pop().startswith("(96, 2064)")


@pytest.mark.parametrize(
    ("items", "size", "batches"), [("", 2, []), ("abc", 2, ["ab", "c"]), ("abcd", 2, ["ab", "cd"])]
)
def test_in_batches(items: str, size: int, batches: list[str]) -> None:
    assert ["".join(batch) for batch in in_batches(items, size)] == batches
