"""Features: computed once, keyed by all they depend on; unreadable images are named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_backbone import PREPROCESS, FakeBackbone, by_hand, extracted, parts
from refusals import refused

from foveate import features
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess
from foveate.errors import FoveateError
from foveate.features import extract
from foveate.progress import Silent
from foveate.weights.starting_point import find_start


class Steps(Silent):
    def __init__(self) -> None:
        self.phases: dict[str, list[int]] = {}

    def begin(self, phase: str, total: int) -> None:
        self.phases[phase] = [total, 0]

    def advance(self, n: int = 1) -> None:
        self.phases["images"][1] += n


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize("mirror", [True, False], ids=["mirror", "plain"])
def test_features_are_the_engines_in_the_datasets_order(root: Path, mirror: bool) -> None:
    found = extracted(root, mirror)
    np.testing.assert_allclose(found.features, by_hand(root, mirror), rtol=1e-5)
    assert found.features.dtype == np.float32 and found.bad == {} and found.computed == 12
    again = extracted(root, mirror)
    assert np.array_equal(again.features, found.features) and again.computed == 0


def test_mirror_shows_each_image_twice(root: Path, backbone: FakeBackbone) -> None:
    extracted(root, mirror=True)
    assert backbone.made[0].seen == 24


def test_the_second_call_computes_and_decodes_nothing(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extracted(root)
    monkeypatch.setattr(features, "decode_squares", lambda *_: pytest.fail("decoded again"))
    steps = Steps()
    second = extracted(root, progress=steps)
    assert np.array_equal(first.features, second.features)
    assert (second.computed, len(backbone.made), backbone.started) == (0, 1, 1)
    assert steps.phases["images"] == [12, 12]


def test_three_more_images_cost_three(
    root: Path, backbone: FakeBackbone, draw_folder: Callable[..., Path]
) -> None:
    extracted(root)
    draw_folder(root, 3, first=50, kinds=("blob",))
    steps = Steps()
    found = extracted(root, progress=steps)
    assert found.computed == backbone.made[1].seen == 3
    assert steps.phases["images"] == [15, 15]
    np.testing.assert_allclose(found.features, by_hand(root), rtol=1e-5)


def test_renamed_and_copied_images_are_known(
    root: Path, backbone: FakeBackbone, tmp_path: Path
) -> None:
    extracted(root)
    shutil.copytree(root, tmp_path / "other" / "folder")
    (tmp_path / "other" / "folder" / "blob" / "000.png").rename(
        tmp_path / "other" / "folder" / "stripes" / "x.jpg"
    )
    found = extracted(tmp_path / "other" / "folder")
    assert found.computed == 0 and len(backbone.made) == 1
    np.testing.assert_allclose(found.features, by_hand(tmp_path / "other" / "folder"), rtol=1e-5)


def test_copies_within_a_set_are_computed_once(root: Path, backbone: FakeBackbone) -> None:
    shutil.copy(root / "blob" / "000.png", root / "stripes" / "copy.png")
    found = extracted(root)
    assert found.computed == backbone.made[0].seen == 12 and len(found.features) == 13
    np.testing.assert_allclose(found.features, by_hand(root), rtol=1e-5)


def test_a_changed_image_is_computed_anew(root: Path, backbone: FakeBackbone) -> None:
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
    [
        PREPROCESS.at(48),
        PREPROCESS.at(32, 1.12),
        Preprocess(40, 32),
        Preprocess(32, 32, interpolation="bilinear"),
    ],
)
def test_another_preprocess_shares_nothing(other: Preprocess, root: Path) -> None:
    extracted(root)
    assert extracted(root, preprocess=other).computed == 12
    assert extracted(root).computed == 0


@pytest.mark.usefixtures("backbone")
def test_another_network_shares_nothing(root: Path) -> None:
    extracted(root)
    other = extract(
        load_dataset(root),
        find_start("efficientnet_lite1"),
        PREPROCESS,
        False,
        "openvino",
        2,
        Silent(),
    )
    assert other.computed == 12


@pytest.mark.usefixtures("backbone")
def test_the_mirror_view_does_not_take_the_plain_one_for_both(root: Path) -> None:
    extracted(root)
    assert extracted(root, mirror=True).computed == 12
    assert extracted(root).computed == extracted(root, mirror=True).computed == 0
    np.testing.assert_allclose(
        extracted(root, mirror=True).features, by_hand(root, mirror=True), rtol=1e-5
    )


def test_an_engine_that_fails_stops_what_was_begun(
    root: Path, backbone: FakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FoveateError("no engine today")

    monkeypatch.setattr(backbone, "engine", fail)
    with refused(FoveateError, "no engine today"):
        extracted(root)
    assert backbone.cancelled == 1 and parts() == []


@pytest.mark.usefixtures("backbone")
def test_bad_images_are_named_and_the_others_kept(root: Path) -> None:
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
def test_copies_of_a_bad_image_are_each_named(root: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (root / "blob" / name).write_bytes(b"not an image")
    bad = extracted(root).bad
    assert set(bad) == {"blob/a.jpg", "blob/b.jpg"}
    assert all(name in reason for name, reason in bad.items())


@pytest.mark.usefixtures("backbone")
def test_images_that_vanish_are_named(root: Path) -> None:
    dataset = load_dataset(root)
    for name in ("blob/000.png", "stripes/004.jpg"):
        (root / name).unlink()
    found = extracted(dataset)
    assert set(found.bad) == {"blob/000.png", "stripes/004.jpg"}
    assert all(name in reason and "cannot be read" in reason for name, reason in found.bad.items())
    assert found.features.any(axis=1).sum() == 10


@pytest.mark.usefixtures("backbone")
def test_an_image_that_changes_while_it_is_read_is_named(root: Path) -> None:
    dataset = load_dataset(root)
    assert len(dataset.digests) == 12
    shutil.copy(root / "stripes" / "001.jpg", root / "blob" / "001.jpg")
    found = extracted(dataset)
    assert list(found.bad) == ["blob/001.jpg"]
    assert "changed while it was read; run again" in found.bad["blob/001.jpg"]


@pytest.mark.usefixtures("backbone")
def test_only_bad_images(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.jpg").write_bytes(name.encode())
    found = extracted(tmp_path / "set")
    assert len(found.bad) == 2 and found.features.shape == (2, 0)
