"""foveate weights verify, on images labelled by the network, so the accuracy is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from commands import foveate
from numpy.typing import NDArray
from PIL import Image
from refusals import absent, refused
from safetensors.torch import load_file, save_file
from torchvision.models._meta import _IMAGENET_CATEGORIES as CATEGORIES

from foveate.data.layouts import load_dataset
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.metrics import wilson_interval
from foveate.verification import Rate, class_numbers, part_to_measure, verify
from foveate.weights import WEIGHTS, find_weights, pretrained, weights_file

NAME = "efficientnet_lite0"
N = 24


class Drawn(NamedTuple):
    images: list[Image.Image]
    ranked: NDArray[np.int64]  # (N, 1000), the network's classes for each, the likeliest first


@pytest.fixture(scope="session")
def drawn(backbone_cache: Path, draw_image: Callable[[str, int], Image.Image]) -> Drawn:
    """Ranked by another way than verify's: torch alone, one image at a time."""
    images = [draw_image(("blob", "noise", "stripes")[i % 3], i) for i in range(N)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        network = pretrained(NAME).eval()
    preprocess = find_weights(NAME).preprocess
    assert (preprocess.resize, preprocess.crop, preprocess.interpolation) == (256, 224, "bicubic")
    with torch.no_grad():
        rows = [
            network(torch.from_numpy(preprocess.normalise(preprocess.pixels(p)))[None])[0]
            for p in images
        ]
    return Drawn(images, torch.stack(rows).argsort(descending=True).numpy())


@pytest.fixture
def write(drawn: Drawn, tmp_path: Path, warm_cache: Path):
    """(rank of the true class of each image, class names) -> a folder with one folder per class."""

    def write(ranks: list[int], names: Callable[[int], str] = str) -> Path:
        folder = tmp_path / "val"
        for i, rank in enumerate(ranks):
            place = folder / names(int(drawn.ranked[i, rank]))
            place.mkdir(parents=True, exist_ok=True)
            drawn.images[i].save(place / f"{i}.png")
        return folder

    return write


def test_an_accuracy_that_is_known(write) -> None:
    """15 right, 5 among the five best, 4 far off."""
    found = verify(NAME, write(15 * [0] + [1, 2, 3, 4, 4] + 4 * [900]), threads=2)
    assert (found.top1.right, found.top5.right, found.top1.n, found.top5.n) == (15, 20, 24, 24)
    low, high = wilson_interval(15, 24)
    assert (found.top1.accuracy, found.top1.low, found.top1.high) == (62.5, 100 * low, 100 * high)
    assert found.top1.published == WEIGHTS[NAME].accuracy == 75.1
    assert found.agrees and found.top5.agrees is None
    assert not absent(str(found.top1), "agrees", "75.10 %", "62.50 %", "42.7 to 78.8")
    assert not absent(str(found.top5), "83.33 %", "64.1 to 93.3", "none published")
    assert (found.labels, found.split, found.data, found.bad) == ("by number", "all", "val", {})
    assert any("of the 1000 classes" in note for note in found.notes)


def test_an_accuracy_that_is_not_reached(write) -> None:
    found = verify(NAME, write(10 * [0] + 14 * [999]))
    assert not found.agrees
    assert not absent(str(found.top1), "not agree", "75.10 %", "41.67 %", "24.5 to 61.2")


def test_too_good_does_not_agree_either(write) -> None:
    found = verify(NAME, write(24 * [0]))
    assert (found.top1.accuracy, found.agrees) == (100.0, False)


def test_the_top_five_are_judged_too(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, NAME, replace(WEIGHTS[NAME], accuracy=50.0, accuracy5=99.9))
    found = verify(NAME, write(12 * [0] + 12 * [500]))
    assert (found.top1.agrees, found.top5.agrees, found.agrees) == (True, False, True)


@pytest.mark.parametrize(
    ("published", "agrees"),
    [(None, None), (30.0, True), (40.0, True), (40.1, False), (29.9, False)],
)
def test_the_interval_has_its_ends(published: float | None, agrees: bool | None) -> None:
    assert Rate(35, 100, 35.0, 30.0, 40.0, published).agrees is agrees


def test_classes_by_name(write) -> None:
    """The same figures, whatever the folders are called."""
    found = verify(
        NAME,
        write(
            6 * [0] + 2 * [700], names=lambda number: CATEGORIES[number].replace(" ", "_").upper()
        ),
    )
    assert (found.top1.right, found.top1.n, found.labels) == (6, 8, "by ImageNet's names")


def test_a_file_in_place_of_the_published(write, tmp_path: Path) -> None:
    state = load_file(weights_file(NAME))
    state["classifier.1.bias"] = torch.zeros(1000)
    state["classifier.1.bias"][7] = 1e4  # everything is class 7
    save_file(state, tmp_path / "sevens.safetensors")
    folder = write(8 * [0])
    (folder / "7").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "7/black.png")
    found = verify(NAME, folder, weights=tmp_path / "sevens.safetensors")
    assert (found.top1.right, found.top1.n) == (len(list((folder / "7").iterdir())), 9)


def test_files_that_cannot_be_measured(write, tmp_path: Path) -> None:
    folder, state = write(4 * [0]), load_file(weights_file(NAME))
    few = {k: v[:10].clone() if k.startswith("classifier") else v for k, v in state.items()}
    save_file(few, tmp_path / "few.safetensors")
    with refused(UsageError, "few.safetensors", "10 classes", "1000"):
        verify(NAME, folder, weights=tmp_path / "few.safetensors")
    save_file(
        state | {"classifier.1.bias": torch.full((1000,), float("nan"))},
        tmp_path / "nan.safetensors",
    )
    with refused(ArtefactError, "nan.safetensors", "finite", "classifier.1.bias"):
        verify(NAME, folder, weights=tmp_path / "nan.safetensors")
    with refused(UsageError, "'lenet5'", "pretrained"):
        verify("lenet5", folder)


def test_unreadable_images(write) -> None:
    folder = write(23 * [0])
    (place,) = {p.parent for p in folder.glob("*/0.png")}
    (place / "broken.jpg").write_bytes(b"nothing")
    found = verify(NAME, folder)
    assert (found.top1.n, list(found.bad)) == (23, [f"{place.name}/broken.jpg"])
    for i in range(5):
        (place / f"broken{i}.jpg").write_bytes(b"nothing")
    with refused(DataError, "6 of 29 images"):
        verify(NAME, folder)


def test_the_part_that_is_measured(tmp_path: Path) -> None:
    for split, n in (("train", 3), ("val", 2)):
        (tmp_path / split / "0").mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (8, 8), (i, n, 0)).save(tmp_path / split / f"0/{i}.png")
    dataset, split = part_to_measure(load_dataset(tmp_path))
    assert (split, len(dataset)) == ("validation", 2)
    (tmp_path / "test/0").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "test/0/0.png")
    assert part_to_measure(load_dataset(tmp_path))[1] == "test"
    dataset, split = part_to_measure(load_dataset(tmp_path / "val"))
    assert (split, len(dataset)) == ("all", 2)


def test_word_net_ids_go_by_their_order() -> None:
    """Against timm's table of ids and descriptions."""
    from timm.data import ImageNetInfo

    table = ImageNetInfo()
    wnids = [table.index_to_label_name(i) for i in range(1000)]
    shuffled = np.random.default_rng(0).permutation(1000)
    numbers, recognised = class_numbers(tuple(wnids[i] for i in shuffled))
    assert (numbers == shuffled).all() and recognised == "by WordNet id, in alphabetical order"
    first = [table.index_to_description(i).split(",")[0].lower() for i in range(1000)]
    # torchvision's are in this order
    assert sum(a == b.lower() for a, b in zip(first, CATEGORIES, strict=True)) > 980


def test_all_of_torchvisions_names() -> None:
    numbers, _ = class_numbers(tuple(CATEGORIES))
    assert numbers.tolist() == list(range(1000))


def test_names_and_numbers() -> None:
    assert class_numbers(("007", "12"))[0].tolist() == [7, 12]
    assert class_numbers(("Goldfish", "tench", "great white shark", "great_grey_owl"))[
        0
    ].tolist() == [1, 0, 2, 24]
    assert class_numbers(("crane_bird", "maillot tank suit"))[0].tolist() == [134, 639]
    assert class_numbers(("crane", "crane bird"))[0].tolist() == [517, 134]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("1000", "2"), ["'1000', '2'", "0 to 999"]),
        (("7", "07"), ["'7', '07'", "0 to 999"]),
        (("n01440764", "n01443537"), ["2 WordNet ids", "1000"]),
        (("cat", "goldfish"), ["no class 'cat'", "1000 WordNet ids"]),
        (("goldfish", "7"), ["no class '7'"]),
        (("goldfish", "crane"), ["two classes", "'crane'", "517 and 134"]),
        (("maillot",), ["two classes", "'maillot'", "638 and 639"]),
        (("cardigan",), ["two classes", "'cardigan'", "474 and 264"]),
        (("CRANE", "crane", "crane bird"), ["two classes", "'CRANE'"]),
    ],
)
def test_names_that_are_not_imagenets(names: tuple[str, ...], parts: list[str]) -> None:
    with refused(DataError, *parts):
        class_numbers(names)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with refused(DataError, str(tmp_path), "CLASS"):
        verify(NAME, tmp_path)


@pytest.mark.slow
def test_the_command(write) -> None:
    folder = write(12 * [0] + 4 * [900])
    done = foveate("weights", "verify", NAME, folder, "--threads", "1")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert not absent(rows["top-1"], "agrees", "75.10 %", "75.00 %", "50.5 to 89.8")
    assert not absent(rows[NAME], "16 images") and rows["labels"] == "by number"
    assert not absent(done.stderr, "images: 16")


def test_the_command_in_json(write) -> None:
    done = foveate("weights", "verify", NAME, write(24 * [0]), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["agrees"], found["top1"]["agrees"], found["top5"]["agrees"]) == (
        1,
        False,
        False,
        None,
    )
    assert (found["top1"]["right"], found["top1"]["accuracy"], found["weights"]) == (
        24,
        100.0,
        NAME,
    )


def test_the_command_refuses(write) -> None:
    folder = write([0])
    (folder / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "cat/0.png")
    done = foveate("weights", "verify", NAME, folder)
    assert (done.returncode, done.stdout) == (4, "") and "ImageNet" in done.stderr
    done = foveate("weights", "verify", NAME, folder / "none")
    assert (done.returncode, done.stdout) == (4, "") and "none" in done.stderr
