"""data audit: copies in two splits, with two labels, and how many photos there are."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent
from sklearn.datasets import load_sample_images

from foveate.audit.groups import Grouping, Pair, connected
from foveate.audit.inspection import Audit, inspect
from foveate.data.layouts import load_dataset
from foveate.progress import Silent
from foveate.weights.starting_point import find_start

pytestmark = pytest.mark.usefixtures("warm_cache")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Twelve parts of scikit-learn's two photos, which do not overlap."""
    return [
        Image.fromarray(whole[y : y + 200, x : x + 200])
        for whole in load_sample_images().images
        for y in (0, 213)
        for x in (0, 213, 426)
    ]


@pytest.fixture
def leaky(photos: list[Image.Image], tmp_path: Path) -> Path:
    """cat and dog: one photo is in train and test, one in both classes, one there thrice."""

    def save(image: Image.Image, place: str, **options: int) -> None:
        path = tmp_path / "photos" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)

    for i, photo in enumerate(photos[:10]):
        kind, split = ("cat", "dog")[i % 2], "train" if i < 6 else "test"
        save(photo, f"{split}/{kind}/{i}.jpg", quality=95)
    mirrored = photos[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    save(mirrored, "test/cat/mirrored.png")
    save(photos[1].resize((100, 100)), "train/cat/half.jpg", quality=80)
    save(photos[2].rotate(90), "train/cat/turned.png")
    save(photos[2].rotate(90), "train/cat/same.png")
    return tmp_path / "photos"


def test_what_is_found(leaky: Path) -> None:
    dataset = load_dataset(leaky)
    found = inspect(dataset, find_start("efficientnet_lite0"), 2, Silent()).to_dict()
    assert [leak["file"] for leak in found["leaks"]] == ["test/cat/mirrored.png"]
    assert found["leaks"][0] == {
        "file": "test/cat/mirrored.png",
        "split": "test",
        "of": "train/cat/0.jpg",
        "of_split": "train",
        "kind": "mirrored",
    }
    (pair,) = found["contradictions"]
    assert sorted(pair["files"]) == ["train/cat/half.jpg", "train/dog/1.jpg"]
    assert sorted(pair["labels"]) == ["cat", "dog"]
    assert [len(group["files"]) for group in found["groups"]] == [3, 2, 2]
    assert not absent(found["groups"][0]["reason"], "same bytes", "turned")


def test_photos_without_copies(photos: list[Image.Image], leaky: Path, tmp_path: Path) -> None:
    for i, photo in enumerate(photos):
        (tmp_path / "plain" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        photo.save(tmp_path / "plain" / "ab"[i % 2] / f"{i}.png")
    found = inspect(load_dataset(tmp_path / "plain"), find_start("efficientnet_lite0"), 1, Silent())
    report = found.to_dict()
    assert report.pop("looked_for") == [
        "same bytes",
        "given",
        "copies",
        "seconds apart",
        "burst",
        "occasion",
    ]
    assert report.pop("classes")["a"] == {"images": 6, "photos": 6, "groups": 6}
    (image,) = report.pop("images")  # the ground behind the flower
    assert (image["file"], image["kind"]) == ("a/8.png", "blurred")
    assert report == {"groups": [], "leaks": [], "contradictions": [], "bad": {}}
    assert found.copied() == []


@pytest.mark.parametrize("pixels", [(0, 0, 0), (120, 40, 7)])
def test_plain_images_are_no_copies_of_one_another(pixels: tuple[int, ...], tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (50 + i, 50), pixels).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    found = inspect(load_dataset(tmp_path), find_start("efficientnet_lite0"), 1, Silent())
    assert found.copied() == []


def test_unreadable_images_are_passed_over(leaky: Path) -> None:
    (leaky / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    found = inspect(load_dataset(leaky), find_start("efficientnet_lite0"), 2, Silent())
    assert list(found.bad) == ["train/cat/broken.jpg"] and len(found.leaks()) == 1


def test_a_leak_is_of_the_split_that_was_learnt_from(leaky: Path) -> None:
    dataset = load_dataset(leaky).select(np.arange(6))
    dataset = dataset.resplit(("test", "validation", "train", "train", "test", "validation"))
    pairs = (Pair(0, 1, "x"), Pair(0, 2, "y"), Pair(1, 4, "z"), Pair(2, 3, "same side"))
    groups = connected(6, list(pairs))
    grouping = Grouping(groups, groups, groups, groups, pairs, (), ())
    audit = Audit(dataset, grouping, np.zeros((6, 1), np.float32), {})
    assert audit.leaks() == [
        (0, 2, "y"),
        (1, 2, "another copy"),
        (4, 2, "another copy"),
    ]


def test_on_the_command_line(leaky: Path) -> None:
    done = foveate("data", "audit", leaky)
    assert done.returncode == 0, done.stderr
    names = ["1 image ", "mirrored.png", "1 pair ", "half.jpg", "14 images of 10 photos"]
    assert not absent(done.stdout, *names), done.stdout
    strict = foveate("data", "audit", leaky, "--strict", "--json")
    assert strict.returncode == 1 and len(json.loads(strict.stdout)["leaks"]) == 1
    assert foveate("data", "audit", leaky / "train", "--strict").returncode == 0


def test_what_it_costs_and_an_image_of_it(leaky: Path, tmp_path: Path) -> None:
    done = foveate("data", "audit", leaky, "--json", "--out", tmp_path / "audit")
    report = json.loads(done.stdout)
    assert set(report["estimate"]) == {"honest", "among_copies"}
    assert 0 <= report["estimate"]["honest"]["accuracy"] <= 1
    assert report["classes"]["dog"]["images"] == 3
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == report
    with Image.open(tmp_path / "audit" / "groups.jpg") as sheet:
        assert sheet.width > 2 * 112 and sheet.height > 2 * 112


def test_of_what_cannot_be_learnt_no_accuracy_is_estimated(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    (tmp_path / "data" / "only").mkdir(parents=True)
    for i in range(3):
        photos[i].save(tmp_path / "data" / "only" / f"{i}.png")
    done = foveate("data", "audit", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    estimate = json.loads(done.stdout)["estimate"]
    assert estimate["honest"] is None and "'only'" in estimate["why"]
