"""What of an image a probe sees: what is chosen, by which rule, and that it is kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from refusals import refused

import foveate
from foveate.classifier import Classifier
from foveate.data.preprocess import FRAMINGS
from foveate.errors import ArtefactError, MissingExtraError, UsageError
from foveate.heads import fit_head
from foveate.progress import Silent
from foveate.runs import read_json
from foveate.storage import write_json
from foveate.training import train
from foveate.training.framing import (
    HonestFolds,
    area_note,
    area_seen,
    least_losses,
    screen,
    ways_of,
)
from foveate.training.honest import Judging

pytestmark = pytest.mark.usefixtures("warm_features")

SIDE = 96


def patch(kind: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Stripes, upright or level, or dots."""
    y, x = np.mgrid[:side, :side]
    wave = [np.sin(x), np.sin(y), np.sin(x) * np.sin(y)][kind]
    noise = rng.normal(0, 20, (side, side, 3))
    return np.clip(128 + 90 * wave[:, :, None] + noise, 0, 255).astype(np.uint8)


def centred(folder: Path, n: int) -> Path:
    """The class shows in the centre half of each side; around it is another class, at random."""
    rng = np.random.default_rng(0)
    for kind in range(3):
        (folder / "abc"[kind]).mkdir(parents=True)
        for i in range(n):
            pixels = patch(int(rng.integers(3)), SIDE, rng)
            quarter = SIDE // 4
            pixels[quarter:-quarter, quarter:-quarter] = patch(kind, SIDE // 2, rng)
            Image.fromarray(pixels).save(folder / "abc"[kind] / f"{i}.png")
    return folder


def at_the_ends(folder: Path, n: int) -> Path:
    """Long images whose class shows at one end."""
    rng = np.random.default_rng(0)
    for kind in range(3):
        (folder / "abc"[kind]).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(90, 160, (48, 256, 3)).astype(np.uint8)
            pixels[:, :48] = patch(kind, 48, rng)
            pixels = pixels[:, ::-1] if i % 2 else pixels
            Image.fromarray(pixels).save(folder / "abc"[kind] / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def centre_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return centred(tmp_path_factory.mktemp("centre") / "photos", 30)


def seen(classifier: Classifier) -> dict[str, Any]:
    found: dict[str, Any] = classifier.metrics["seen"]
    return found


# What is chosen


@pytest.mark.precision
def test_the_centre_is_chosen_where_the_class_shows_there(
    centre_images: Path, tmp_path: Path
) -> None:
    found = train(centre_images, out=tmp_path / "auto")
    whole = train(centre_images, out=tmp_path / "whole", framing="whole")
    about = seen(found)
    assert about["framing"] in ("2/3", "1/2") and about["views"] == about["passes"] == 1
    assert found.preprocess.framing == about["framing"]
    chosen = [trial for trial in about["tried"] if trial["chosen"]]
    assert [trial["name"] for trial in chosen] == [about["framing"]]
    assert chosen[0]["difference"] < -chosen[0]["error"] and chosen[0]["photos"] == 90
    ours, theirs = (m.metrics["out_of_fold"]["log_loss"] for m in (found, whole))
    assert ours < theirs
    assert seen(whole)["tried"] == [] and seen(whole)["framing"] == "whole"
    # the rival's head is a candidate too
    candidates = found.metrics["out_of_fold"]["selection"]["candidates"]
    assert candidates > len((found.run / "history.jsonl").read_text().splitlines())


def test_the_whole_is_kept_where_nothing_asks_for_another(trained: Path) -> None:
    about = read_json(trained / "metrics.json")["seen"]
    assert (about["framing"], about["fit"], about["passes"]) == ("whole", "crop", 1)
    assert 0.5 < about["area"] <= 1 and about["backbones"] == ["efficientnet_lite0"]


def test_long_images_are_squashed(tmp_path: Path) -> None:
    data = at_the_ends(tmp_path / "photos", 30)
    found = train(data, out=tmp_path / "auto")
    assert (seen(found)["framing"], seen(found)["area"]) == ("squash", 1)
    assert found.preprocess.fit == "squash"
    assert found.metrics["out_of_fold"]["accuracy"] > 0.9
    cropped = train(data, out=tmp_path / "crop", fit="crop", framing="whole")
    assert cropped.metrics["out_of_fold"]["accuracy"] < 0.6
    notes = " ".join(cropped.metrics["notes"])
    assert "21% of an image's area" in notes and "--fit squash" in notes


def test_the_best_effort_tries_each_framing(tmp_path: Path) -> None:
    few = centred(tmp_path / "photos", 8)  # each is seen a dozen times, at 288 pixels
    found = train(few, out=tmp_path / "r", effort="best")
    about = seen(found)
    *framings, beside = about["tried"]
    assert {trial["name"] for trial in framings} == set(FRAMINGS)
    assert beside["name"].endswith("whole at 224 pixels")
    assert about["passes"] == 2 * about["views"]
    sizes = [view.crop for view in found.preprocess.views]
    assert sizes == [288] * (about["views"] - beside["chosen"]) + [224] * beside["chosen"]
    assert [t["name"] for t in about["tried"] if t["chosen"]] == (
        [beside["name"]] if beside["chosen"] else [about["framing"]]
    )


def test_a_sample_decides_as_a_comparison_of_all_would() -> None:
    """The rule by hand: mean difference, and its standard error over groups."""
    rng = np.random.default_rng(0)
    n, labels = 300, np.arange(300) % 3
    groups = np.repeat(np.arange(100), 3)
    folds = groups % 5
    judging = Judging(np.arange(n), groups, folds, folds)
    honest = HonestFolds(labels, judging, 3, 1, Silent())
    good, bad = (
        (rng.normal(size=(n, 8)) + far * np.eye(3, 8)[labels]).astype(np.float32)
        for far in (1.5, 1.0)
    )
    first, second = (least_losses(honest.head(x)) for x in (bad, good))
    difference, error = honest.compare(second, first)
    by_group = np.bincount(groups, second - first) - 3 * difference
    assert difference == pytest.approx((second - first).mean())
    assert error == pytest.approx(np.sqrt((by_group**2).sum()) / n)
    expected = fit_head(good, labels, folds, 3)
    assert np.array_equal(second, expected.losses[expected.losses.mean(axis=1).argmin()])
    small, large = honest.samples()
    assert (len(small), len(large)) == (96, 256) and set(small) <= set(large)
    assert all((np.bincount(labels[places]) >= 31).all() for places in (small, large))

    class Given:
        def some(self, preprocess: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return {"2/3": good, "1/2": bad}.get(preprocess.framing, bad)[rows]

    whole = foveate.Preprocess(224, 224)
    extractor: Any = Given()
    found, tried = screen(extractor, honest, ways_of(whole, area=0.8), thorough=False)
    assert found == ["2/3"] and set(tried) == {"2/3"}
    assert "squash" in ways_of(whole, area=0.3)


def test_area_seen(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for i, size in enumerate([(100, 100), (300, 100), (100, 200)]):
        Image.new("RGB", size).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    dataset = foveate.load_dataset(tmp_path)
    whole = foveate.Preprocess(224, 224)
    rows = np.arange(len(dataset))
    assert area_seen(dataset, rows, whole) == 0.5
    assert area_seen(dataset, rows, whole.framed(fit="pad")) == 1
    assert area_note(0.3, "whole", "crop") == ""
    assert "--framing whole" in area_note(0.2, "1/2", "crop")


# What is kept


@pytest.fixture(scope="module")
def two_views(
    backbone_cache: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    folder = tmp_path_factory.mktemp("two") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        return train(images, out=folder, framing="whole+2/3")


@pytest.mark.precision
def test_every_reader_sees_both_views(
    two_views: Classifier, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, evaluation, prediction of files, bytes, images and arrays; graph and torch."""
    test = foveate.load_dataset(images).split("test")
    files = [images / name for name in test.files]
    row = {r["file"]: r for r in map(read_line, lines(two_views.run / "predictions.jsonl"))}
    found = two_views.predict_proba(files)
    assert found.shape == (24, 3)
    for name, p in zip(test.files, found, strict=True):
        assert row[name]["probability"] == pytest.approx(p.max(), abs=0.02)
    same = two_views.predict_proba([file.read_bytes() for file in files])
    assert np.array_equal(found, same)
    lossless = [file for file in files if file.suffix == ".png"]
    opened = two_views.predict_proba([Image.open(file) for file in lossless])
    arrays = two_views.predict_proba([np.asarray(Image.open(file)) for file in lossless])
    of_files = two_views.predict_proba(lossless)
    assert np.array_equal(opened, of_files) and np.array_equal(arrays, of_files)
    evaluated = foveate.evaluate(two_views, images / "test")["new"]
    assert evaluated["accuracy"] == two_views.metrics["test"]["accuracy"]
    for tta in ("mirror", "ten"):
        assert two_views.predict_proba(files[:3], tta=tta).shape == (3, 3)
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")
    again = Classifier.load(two_views.run)
    assert np.abs(again.predict_proba(files) - found).max() < 0.03  # bf16


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def read_line(line: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(line)
    return found


def test_the_graph_has_an_input_a_view(two_views: Classifier) -> None:
    from foveate.engine.openvino import core

    model = core().read_model(two_views.folder / "engine.xml")
    assert [end.get_any_name() for end in model.inputs] == ["pixels", "pixels_2"]
    card = read_json(two_views.folder / "card.json")
    assert card["format"] == 4 and len(card["preprocess"]["more"]) == 1


@pytest.mark.usefixtures("cold_features")
def test_a_view_more_reads_only_what_is_new(images: Path, tmp_path: Path) -> None:
    first = train(images, out=tmp_path / "a", framing="whole").metrics["computed"]
    both = train(images, out=tmp_path / "b", framing="whole+2/3").metrics["computed"]
    again = train(images, out=tmp_path / "c", framing="2/3").metrics["computed"]
    assert (first, both, again) == (96, 96, 0)


def test_groups_do_not_depend_on_the_framing(images: Path, tmp_path: Path) -> None:
    runs = [
        train(images, out=tmp_path / str(i), framing=f).run for i, f in enumerate(("whole", "1/2"))
    ]
    a, b = (read_json(run / "data.json") for run in runs)
    assert a["groups"] == b["groups"]
    folds = [{n: f.get("fold") for n, f in data["files"].items()} for data in (a, b)]
    assert folds[0] == folds[1]


@pytest.mark.parametrize("size", range(8, 40))
def test_a_framing_keeps_its_name_at_any_size(size: int) -> None:
    for name in FRAMINGS:
        assert foveate.Preprocess(size, size).framed(name).framing == name


# Bad input


SPOILT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no view": lambda card: card["preprocess"] | {"crop": 0},
    "twenty views": lambda card: card["preprocess"] | {"more": card["preprocess"]["more"] * 19},
    "one view": lambda card: {k: v for k, v in card["preprocess"].items() if k != "more"},
    "another size": lambda card: (
        card["preprocess"] | {"more": [card["preprocess"]["more"][0] | {"crop": 200}]}
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_card_whose_views_do_not_fit_is_refused(
    how: str, two_views: Classifier, tmp_path: Path, images: Path
) -> None:
    import shutil

    folder = shutil.copytree(two_views.folder, tmp_path / "c")
    card = read_json(folder / "card.json")
    write_json(folder / "card.json", card | {"preprocess": SPOILT[how](card)})
    with refused(ArtefactError, "c"):
        Classifier.load(folder).predict(next(images.glob("test/*/*.png")))


def test_what_does_not_exist_or_apply_is_refused(images: Path, tmp_path: Path) -> None:
    def asks(*names: str, **arguments: Any) -> None:
        with refused(UsageError, *names):
            train(images, out=tmp_path / "r", **arguments)
        assert not (tmp_path / "r").exists()

    asks("'3'", "whole+2/3", framing="3")
    asks("'wide'", "squash", fit="wide")
    asks("pad", "2/3", framing="2/3", fit="pad")
    asks("probe", "finetune", framing="whole+2/3", recipe="finetune")
    asks("effort", "'more'", "most", effort="more")
    asks("most", "model", effort="most", model="resnet18")


def test_most_without_its_backbones_says_what_to_install(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda n, *p: None if "lite2" in n else real(n, *p))
    with refused(MissingExtraError, "foveate[backbones]", "lite2"):
        train(images, out=tmp_path / "r", effort="most")
    assert not (tmp_path / "r").exists()


def test_an_image_of_one_row(images: Path, tmp_path: Path, two_views: Classifier) -> None:
    Image.new("RGB", (1, 5000), "red").save(tmp_path / "thin.png")
    assert two_views.predict(tmp_path / "thin.png").label in two_views.classes


# Several backbones


@pytest.mark.slow
def test_backbones_side_by_side(images: Path, tmp_path: Path) -> None:
    """Graph and torch agree; what brings nothing is left out; fine-tuning goes on from the best."""
    found = train(images, out=tmp_path / "most", effort="most")
    about = seen(found)
    kept = [trial["name"] for trial in about["tried"] if trial["chosen"]]
    assert len(about["tried"]) == 6 and kept[0] == "efficientnet_lite0 whole"
    assert len(kept) == about["passes"] == len(found.preprocess.views)
    files = sorted(images.glob("test/*/*"))
    probabilities = found.predict_proba(files)
    assert found.metrics["test"]["accuracy"] > 0.6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveate.classifier.choose_engine", lambda: "torch")
        again = Classifier.load(found.run)
        assert np.abs(again.predict_proba(files) - probabilities).max() < 0.05  # bf16
    if found.card["form"] == "joined":
        tuned = train(
            images, recipe="finetune", weights=found.run, out=tmp_path / "t", epochs=1, size=64
        )
        losses = {b["model"]: b["log_loss"] for b in found.card["branches"]}
        assert tuned.card["model"] == min(losses, key=lambda name: losses[name])
        assert any("best alone" in note for note in tuned.metrics["notes"])


# Training by steps


def test_fine_tuning_sees_the_framing_that_is_asked_for(
    centre_images: Path, tmp_path: Path
) -> None:
    found = train(
        centre_images, recipe="finetune", out=tmp_path / "r", epochs=1, freeze="backbone", size=64
    )
    assert seen(found)["framing"] == found.preprocess.framing
    assert found.preprocess.framing in ("2/3", "1/2")
    config = read_json(found.run / "config.json")
    assert config["preprocess"]["resize"] > config["preprocess"]["crop"] == 64
    scratch = train(centre_images, "lenet5", "scratch", out=tmp_path / "s", epochs=1, fit="squash")
    assert scratch.preprocess.fit == "squash" and replace(scratch.preprocess).resize == 28
