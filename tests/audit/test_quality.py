"""Bad images are named, and what is usual in a folder is not; classes that look alike."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from refusals import absent, refused
from sklearn.datasets import load_digits, load_sample_images

from foveate.audit.classes import find_alike
from foveate.audit.quality import (
    BLURRED,
    DARK,
    GREY,
    KINDS,
    LONG,
    OVEREXPOSED,
    PLAIN,
    SCREEN,
    TINY,
    Measures,
    find_faults,
    measure,
    measure_images,
)
from foveate.data.dataset import Dataset
from foveate.errors import ImageError
from foveate.progress import Silent

pytestmark = pytest.mark.usefixtures("warm_cache")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Twenty parts of scikit-learn's two photos."""
    return [
        Image.fromarray(whole[y : y + 300, x : x + 400])
        for whole in load_sample_images().images
        for y in (0, 120)
        for x in (0, 60, 120, 180, 240)
    ]


def dark(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.2)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(4))


def shaken(image: Image.Image) -> Image.Image:
    """Moved by 20 pixels to the side while it was taken: upright edges alone are blurred."""
    values = np.asarray(image).astype(np.float32)
    return Image.fromarray(np.mean([np.roll(values, i, 1) for i in range(20)], 0).astype(np.uint8))


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def pale(image: Image.Image) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, "white"), 0.8)


def burnt(image: Image.Image) -> Image.Image:
    return image.point(lambda level: min(255, 100 + 4 * level))


def small(image: Image.Image) -> Image.Image:
    return image.resize((80, 60))


def strip(image: Image.Image) -> Image.Image:
    return image.crop((0, 100, 400, 220)).resize((400, 120))


def plain(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, (90, 120, 60))


def page(image: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (720, 1000), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(26)
    for y in range(20, 960, 40):
        pen.text((20, y), "This is a page and no photo, line by line", "black", font=font)
    return sheet


FAULTS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "dark": (DARK, dark),
    "blurred": (BLURRED, blurred),
    "shaken": (BLURRED, shaken),
    "grey": (GREY, grey),
    "pale": (OVEREXPOSED, pale),
    "burnt": (OVEREXPOSED, burnt),
    "small": (TINY, small),
    "strip": (LONG, strip),
    "plain": (PLAIN, plain),
    "page": (SCREEN, page),
}


def measured(images: list[Image.Image]) -> Measures:
    return Measures(*np.stack([measure(image) for image in images]).T)


def saved(images: list[Image.Image], folder: Path) -> Dataset:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i:03d}.png" for i in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    return Dataset.of(files, ["any"] * len(files))


def test_good_photos_have_no_fault(photos: list[Image.Image]) -> None:
    assert find_faults(measured(photos)) == []
    assert find_faults(Measures(*np.empty((len(Measures._fields), 0), np.float32))) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_among_photos(name: str, photos: list[Image.Image]) -> None:
    kind, change = FAULTS[name]
    (faults,) = find_faults(measured([*photos, change(photos[3])]))
    assert (faults.kind, faults.rows) == (kind, (len(photos),))


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_usual_is_no_fault(name: str, photos: list[Image.Image]) -> None:
    _, change = FAULTS[name]
    assert find_faults(measured([change(photo) for photo in photos])) == []


def test_the_worst_come_first(photos: list[Image.Image]) -> None:
    worse = [ImageEnhance.Brightness(photos[0]).enhance(x) for x in (0.25, 0.1, 0.15)]
    (faults,) = find_faults(measured([*photos, *worse]))
    first = len(photos)
    assert faults.rows == (first + 1, first + 2, first)
    assert list(faults.values) == sorted(faults.values) and faults.typical > 200
    assert not absent(faults.said(), DARK, f"{faults.values[0]:.0f}")


def test_one_colour_has_no_other_fault(photos: list[Image.Image]) -> None:
    black = Image.new("RGB", (400, 300))
    white = Image.new("RGB", (400, 300), "white")
    (faults,) = find_faults(measured([*photos, black, white]))
    assert faults.kind == PLAIN and len(faults.rows) == 2


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_sharpness_is_that_of_a_blurred_step(sigma: float) -> None:
    board = (np.indices((256, 256)) // 64).sum(axis=0) % 2 * 200.0 + 20
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / sigma) ** 2)
    for axis in (0, 1):
        board = np.apply_along_axis(
            lambda line: np.convolve(np.pad(line, 20, "edge"), kernel / kernel.sum(), "valid"),
            axis,
            board,
        )
    image = Image.fromarray(board.round().astype(np.uint8)).convert("RGB")
    one, eight = (math.erf(side / 2 / sigma / math.sqrt(2)) for side in (1, 8))
    assert measured([image]).sharpness[0] == pytest.approx(one / eight, rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2), (17, 16), (3000, 20), (28, 28)])
def test_of_any_size(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    found = measured([Image.fromarray(values)])
    assert all(np.isfinite(column).all() for column in found)
    assert (found.width[0], found.height[0]) == size
    if min(size) < 64:
        assert found.sharpness[0] == 1


@pytest.mark.parametrize("side", [8, 28])
def test_small_images_are_neither_blurred_nor_text(side: int) -> None:
    digits = [
        Image.fromarray((255 / 16 * digit).astype(np.uint8)).resize((side, side)).convert("RGB")
        for digit in load_digits().images
    ]
    assert find_faults(measured(digits)) == []


def test_a_large_jpeg_is_measured_at_its_own_size(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(values).resize((2400, 1800)).save(tmp_path / "x.jpg")
    found = measure_images(Dataset.of([tmp_path / "x.jpg"], ["a"]), None, 1, Silent())
    assert found.width[0] == pytest.approx(2400, abs=7)
    assert found.height[0] == pytest.approx(1800, abs=7)


def test_an_image_is_measured_once(photos: list[Image.Image], tmp_path: Path) -> None:
    dataset = saved([*photos[:5], photos[0]], tmp_path / "a")
    first = measure_images(dataset, None, 2, Silent())
    read: list[int] = []

    def refuse(row: int) -> bytes:
        read.append(row)
        raise AssertionError

    again = replace(dataset, read=refuse)
    again.__dict__["digests"] = dataset.digests
    second = measure_images(again, None, 1, Silent())
    assert read == [] and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.contrast[0] == first.contrast[5]


def test_levels_have_measures_of_their_own(tmp_path: Path) -> None:
    deep = np.linspace(0, 4095, 300 * 300).reshape(300, 300).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    dataset = Dataset.of([tmp_path / "x.png"], ["a"])
    plain = measure_images(dataset, None, 1, Silent())
    scaled = measure_images(dataset, (0.0, 4095.0), 1, Silent())
    assert plain.bright[0] < 20 and scaled.bright[0] > 240


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff nothing")
    dataset = Dataset.of([tmp_path / "x.jpg"], ["a"])
    with refused(ImageError, "x.jpg"):
        measure_images(dataset, None, 1, Silent())


def test_jpeg_pages_are_pages(photos: list[Image.Image]) -> None:
    data = io.BytesIO()
    page(photos[0]).save(data, "JPEG", quality=75)
    with Image.open(data) as image:
        (faults,) = find_faults(measured([*photos, image.convert("RGB")]))
    assert faults.kind == SCREEN


# classes that look alike


def judged(
    rng: np.random.Generator, alike: float, back: float, n: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of four classes; a share `alike` of class 0 is taken for class 1,
    and `back` the other way round; two of each class for the next."""
    labels = np.repeat(np.arange(4), n)
    answers = labels.copy()
    for c in range(4):
        answers[c * n + np.arange(2)] = (c + 1) % 4
    answers[2 : 2 + round(alike * n)] = 1
    answers[n + 2 : n + 2 + round(back * n)] = 0
    probabilities = rng.uniform(0.01, 0.05, (4 * n, 4))
    probabilities[np.arange(4 * n), answers] = 0.9
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_two_classes_that_are_taken_for_each_other() -> None:
    probabilities, labels = judged(np.random.default_rng(0), 0.3, 0.2)
    (pair,) = find_alike(probabilities, labels, np.arange(400))
    assert pair.classes == (0, 1) and pair.images == (100, 100)
    assert pair.taken == pytest.approx((0.32, 0.2))
    assert pair.accuracy == pytest.approx(1 - 58 / 400)
    assert pair.merged == pytest.approx(1 - 6 / 400)
    named = pair.to_dict(("ant", "bee", "cat", "dog"))
    assert named["classes"] == ["ant", "bee"] and named["accuracy_if_merged"] == pair.merged


@pytest.mark.parametrize(("alike", "back"), [(0.3, 0.0), (0.02, 0.02), (0.0, 0.0)])
def test_classes_that_are_told_apart(alike: float, back: float) -> None:
    probabilities, labels = judged(np.random.default_rng(0), alike, back)
    assert find_alike(probabilities, labels, np.arange(400)) == []


def test_a_burst_counts_once() -> None:
    probabilities, labels = judged(np.random.default_rng(0), 0.3, 0.2)
    groups = np.arange(400)
    groups[2:32] = 2  # the thirty of class 0
    groups[102:122] = 102  # the twenty of class 1
    assert find_alike(probabilities, labels, groups) == []


def test_nothing_was_learnt() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 500)
    assert find_alike(rng.dirichlet(np.ones(5), 500), labels, np.arange(500)) == []


def test_of_two_classes_none_are_alike() -> None:
    rng = np.random.default_rng(0)
    assert find_alike(rng.dirichlet(np.ones(2), 50), rng.integers(0, 2, 50), np.arange(50)) == []
    assert find_alike(np.empty((0, 3)), np.empty(0, int), np.empty(0, int)) == []


# on the command line


def test_bad_images_on_the_command_line(photos: list[Image.Image], tmp_path: Path) -> None:
    for i, photo in enumerate([*photos[:10], dark(photos[0]), page(photos[0])]):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        photo.save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    done = foveate("data", "audit", tmp_path / "data", "--out", tmp_path / "audit")
    assert done.returncode == 0, done.stderr
    names = [f"1 image: {DARK}", "a/10.png", f"1 image: {SCREEN}", "b/11.png", KINDS[DARK].remedy]
    assert not absent(done.stdout, *names), done.stdout
    report = json.loads((tmp_path / "audit" / "audit.json").read_text())
    found = {image["file"]: image for image in report["images"]}
    assert set(found) == {"a/10.png", "b/11.png"} and report["alike"] == []
    assert found["a/10.png"]["kind"] == DARK and found["a/10.png"]["label"] == "a"
    assert found["a/10.png"]["value"] < 80 < found["a/10.png"]["typical"]
    with Image.open(tmp_path / "audit" / "faults.jpg") as sheet:
        assert sheet.height > 2 * 112
    for place in ("a/10.png", "b/11.png"):
        (tmp_path / "data" / place).unlink()
    assert foveate("data", "audit", tmp_path / "data", "--out", tmp_path / "audit").returncode == 0
    assert not (tmp_path / "audit" / "faults.jpg").exists()


def test_classes_that_look_alike_on_the_command_line(tmp_path: Path) -> None:
    digits = load_digits()
    places = {0: ["zero"], 1: ["one", "uno"], 4: ["four"]}
    for digit, names in places.items():
        for i, row in enumerate(np.flatnonzero(digits.target == digit)[:60]):
            folder = tmp_path / "data" / names[i % len(names)]
            folder.mkdir(parents=True, exist_ok=True)
            values = (255 / 16 * digits.images[row]).astype(np.uint8)
            Image.fromarray(values).resize((64, 64)).save(folder / f"{i}.png")
    done = foveate("data", "audit", tmp_path / "data", "--json")
    (pair,) = json.loads(done.stdout)["alike"]
    assert pair["classes"] == ["one", "uno"] and min(pair["taken_for_the_other"]) > 0.1
    assert pair["accuracy_if_merged"] > pair["accuracy"] + 0.05
    done = foveate("data", "audit", tmp_path / "data")
    assert not absent(done.stdout, "one and uno", "merge")
