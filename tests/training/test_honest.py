"""What a run says of its accuracy where images belong together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from PIL import Image, ImageOps
from refusals import absent, refused

from foveate import Classifier, train
from foveate.audit.estimate import by_groups
from foveate.data.splits import judging_folds
from foveate.errors import DataError
from foveate.evaluation import evaluate
from foveate.metrics import wilson_interval
from foveate.training.honest import contradictions

pytestmark = pytest.mark.usefixtures("warm_features")
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """48 images with detail of all sizes, each like no other; the second half is coarser."""
    found = []
    for i in range(48):
        rng = RNG(i)
        parts = [
            Image.fromarray(rng.integers(256, size=(side, side, 3), dtype=np.uint8)).resize(
                (96, 96)
            )
            for side in ((8, 16, 32) if i < 24 else (3, 6, 12))
        ]
        pixels = np.mean([np.asarray(part, np.float32) for part in parts], axis=0)
        found.append(Image.fromarray(pixels.astype(np.uint8)))
    return found


def save(folder: Path, label: str, name: str, image: Image.Image, split: str = "") -> None:
    place = folder / split / label if split else folder / label
    place.mkdir(parents=True, exist_ok=True)
    image.save(place / name, quality=92)


def again(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same photo in another size, turned by quarters, and mirrored at random."""
    side = int(rng.integers(80, 110))
    turned = image.resize((side, side)).rotate(90 * int(rng.integers(4)))
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    return turned.transpose(mirror) if rng.random() < 0.5 else turned


def metrics(classifier: Classifier) -> dict[str, Any]:
    return json.loads((classifier.run / "metrics.json").read_text())


@pytest.mark.precision
def test_copies_are_judged_once_and_their_price_is_said(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rng = RNG(0)
    for i, photo in enumerate(photos):
        for k in range(3):
            label = "ab"[i % 2]  # nothing to be learnt: only memory helps
            save(tmp_path / "data", label, f"{i}-{k}.jpg", again(photo, rng))
    said = metrics(train(tmp_path / "data", out=tmp_path / "run"))["out_of_fold"]
    assert said["n"] <= 56 and said["accuracy"] < 0.75
    assert said["among_copies"]["accuracy"] > 0.75
    assert said["among_copies"]["memory"] > 0.2
    shown = foveate("train", tmp_path / "data", "--out", tmp_path / "again")
    assert not absent(shown.stdout, "among copies", "new photos"), shown.stdout


@pytest.mark.precision
def test_a_hundred_copies_of_an_image_change_no_figure(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    for i, photo in enumerate(photos):
        save(tmp_path / "data", "ab"[i >= 24], f"{i}.jpg", photo)
    before = metrics(train(tmp_path / "data", out=tmp_path / "before"))["out_of_fold"]
    first = (tmp_path / "data" / "a" / "0.jpg").read_bytes()
    for k in range(100):
        (tmp_path / "data" / "a" / f"copy {k}.jpg").write_bytes(first)
    after = metrics(train(tmp_path / "data", out=tmp_path / "after"))["out_of_fold"]
    assert after["accuracy"] == pytest.approx(before["accuracy"], abs=1e-9)
    assert after["log_loss"] == pytest.approx(before["log_loss"], abs=1e-9)


def test_a_class_of_one_group_is_a_rival_and_never_judged(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rng = RNG(0)
    for i, photo in enumerate(photos[:40]):
        save(tmp_path / "data", "ab"[i >= 20], f"{i}.jpg", photo)
    for k in range(6):
        save(tmp_path / "data", "c", f"{k}.jpg", again(photos[45], rng))
    run = train(tmp_path / "data", out=tmp_path / "run")
    found = metrics(run)
    said = found["out_of_fold"]
    assert said["unjudged"]["classes"] == ["c"] and said["per_class"]["c"]["support"] == 0
    assert any("'c'" in note and "never judged" in note for note in found["notes"])
    assert run.classes == ("a", "b", "c")


def test_where_nothing_can_be_judged_the_run_succeeds_without_a_figure(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rng = RNG(0)
    for k in range(6):
        save(tmp_path / "data", "a", f"{k}.jpg", again(photos[2], rng))
        save(tmp_path / "data", "b", f"{k}.jpg", again(photos[40], rng))
    done = foveate("train", tmp_path / "data", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())["out_of_fold"]
    assert (said["n"], said["accuracy"], said["accuracy_ci95"]) == (0, None, None)
    assert said["trusted"] is False and said["why"] in done.stdout
    loaded = Classifier.load(tmp_path / "run")
    assert loaded.metrics["out_of_fold"]["accuracy"] is None
    seen = loaded.metrics["seen"]  # nor is a framing chosen
    assert (seen["framing"], seen["tried"]) == ("whole", [])
    assert "nothing could be judged" in (loaded.folder / "README.md").read_text()
    assert foveate("evaluate", tmp_path / "run", tmp_path / "data").returncode == 0
    again_done = foveate("train", tmp_path / "data", "--out", tmp_path / "run", "--resume")
    assert again_done.returncode == 0, again_done.stderr


def test_a_test_split_of_copies_is_no_result(photos: list[Image.Image], tmp_path: Path) -> None:
    for i, photo in enumerate(photos):
        label = "ab"[i >= 24]
        save(tmp_path / "data", label, f"{i}.jpg", photo, "train")
        if i % 4 == 0:
            save(tmp_path / "data", label, f"{i}.jpg", photo.resize((80, 80)), "test")
    done = foveate("train", tmp_path / "data", "--out", tmp_path / "run")
    assert done.returncode == 0 and not absent(done.stdout, "no figure", "12 of 12"), done.stdout
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert test["trusted"] is False and test["copies"]["n"] == 12
    assert test["without_copies"] is None


def test_a_test_split_with_copies_has_figures_with_and_without_them(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    for i, photo in enumerate(photos):
        label = "ab"[i >= 24]
        save(tmp_path / "data", label, f"{i}.jpg", photo, "test" if i % 3 == 0 else "train")
        if i % 6 == 1:
            save(tmp_path / "data", label, f"copy {i}.jpg", photo.resize((80, 80)), "test")
    run = train(tmp_path / "data", out=tmp_path / "run")
    test = metrics(run)["test"]
    assert (test["n"], test["copies"]["n"], test["without_copies"]["n"]) == (24, 8, 16)
    assert all(Path(name).name.startswith("copy") for name in test["copies"]["files"])
    assert Classifier.load(run.run).metrics["test"]["copies"]["n"] == 8


def test_the_groups_are_in_the_runs_files(photos: list[Image.Image], tmp_path: Path) -> None:
    for i, photo in enumerate(photos):
        save(tmp_path / "data", "ab"[i >= 24], f"{i}.jpg", photo)
    save(
        tmp_path / "data", "a", "mirrored.jpg", photos[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    )
    run = train(tmp_path / "data", out=tmp_path / "run")
    data = json.loads((run.run / "data.json").read_text())
    assert sorted(data["groups"][0]["files"]) == ["a/3.jpg", "a/mirrored.jpg"]
    assert data["groups"][0]["kind"] == "copies" and "copies" in data["looked_for"]
    assert data["files"]["a/3.jpg"]["fold"] == data["files"]["a/mirrored.jpg"]["fold"]
    given = train(tmp_path / "data", out=tmp_path / "given", groups="given")
    assert json.loads((given.run / "data.json").read_text())["groups"] == []


def test_held_out_splits_of_other_recipes_keep_copies_together(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rng = RNG(0)
    for i, photo in enumerate(photos):
        for k in range(2):
            save(tmp_path / "data", "ab"[i >= 24], f"{i}-{k}.jpg", again(photo, rng))
    run = train(tmp_path / "data", "lenet5", out=tmp_path / "run", epochs=1)
    data = json.loads((run.run / "data.json").read_text())
    split = {name: entry["split"] for name, entry in data["files"].items()}
    assert len(data["groups"]) >= 40
    assert all(len({split[name] for name in group["files"]}) == 1 for group in data["groups"])
    said = metrics(run)
    assert said["test"]["groups"] < said["test"]["n"]
    assert json.loads((run.run / "config.json").read_text())["groups"] == "auto"


def test_copies_of_copies_in_the_test_are_all_named(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    """The test's names come first, so that byte copies are pairs of the test alone."""
    for i, photo in enumerate(photos):
        label = "ab"[i >= 24]
        save(tmp_path / "data", label, f"{i}.jpg", photo, "train" if i % 3 else "test")
    for i in (1, 2, 25):
        photo = (tmp_path / "data" / "train" / "ab"[i >= 24] / f"{i}.jpg").read_bytes()
        for k in range(3):
            (tmp_path / "data" / "test" / "ab"[i >= 24] / f"x{i}-{k}.jpg").write_bytes(photo)
    run = train(tmp_path / "data", out=tmp_path / "run")
    test = metrics(run)["test"]
    assert (test["copies"]["n"], test["without_copies"]["n"]) == (9, 16)
    card = (run.folder / "README.md").read_text()
    assert "on 16 images" in card and "on 25 images" not in card
    judged = foveate("evaluate", run.run, tmp_path / "data", "--json")
    assert json.loads(judged.stdout)["learnt_from"]["n"] == 9


def test_copies_of_what_was_learnt_are_no_test(
    photos: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes, so that only a look tells; new photos stay a test."""
    new = {5, 30}
    for i, photo in enumerate(photos):
        label = "ab"[i >= 24]
        if i not in new:
            save(tmp_path / "data", label, f"{i}.jpg", photo)
        if i in new or i % 5 == 0:
            save(tmp_path / "later", label, f"{i}.jpg", ImageOps.mirror(photo).resize((60, 60)))
    run = train(tmp_path / "data", out=tmp_path / "run")
    found = evaluate(run, tmp_path / "later")
    assert (found["n"], found["new"]["n"], found["learnt_from"]["n"]) == (10, 2, 8)
    assert not found["trusted"]
    first = found["learnt_from"]["copies"][0]
    assert first == {"file": "a/0.jpg", "of": "a/0.jpg", "kind": "mirrored"}

    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "another machine"))
    found = evaluate(run, tmp_path / "later")
    assert found["learnt_from"] == {"n": 0, "files": [], "copies": []}
    assert any(not absent(note, "46", "byte for byte") for note in found["notes"])


@pytest.mark.precision
def test_names_of_files_change_no_figure(photos: list[Image.Image], tmp_path: Path) -> None:
    rng = RNG(0)
    for i, photo in enumerate(photos):
        for k in range(2):
            save(tmp_path / "data", "ab"[i >= 24], f"{i}-{k}.jpg", again(photo, rng))
    before = train(tmp_path / "data", out=tmp_path / "before")
    for number, file in enumerate(sorted((tmp_path / "data").rglob("*.jpg"), reverse=True)):
        file.rename(file.with_name(f"renamed {number:03}.jpg"))
    after = train(tmp_path / "data", out=tmp_path / "after")
    tensors = "classifier/model.safetensors"
    assert (before.run / tensors).read_bytes() == (after.run / tensors).read_bytes()
    assert metrics(before)["out_of_fold"] == metrics(after)["out_of_fold"]


def test_a_photo_with_two_labels_counts_once_for_each(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    for i, photo in enumerate(photos):
        save(tmp_path / "data", "ab"[i >= 24], f"{i}.jpg", photo)
    first = (tmp_path / "data" / "a" / "0.jpg").read_bytes()
    for k in range(8):
        (tmp_path / "data" / "b" / f"copy {k}.jpg").write_bytes(first)
    assert metrics(train(tmp_path / "data", out=tmp_path / "run"))["out_of_fold"]["n"] == 49


def test_groups_of_a_table_that_are_in_two_splits_make_no_test(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rows = ["path,label,split,group"]
    for i, photo in enumerate(photos):
        photo.save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i >= 24]},{'test' if i % 2 else 'train'},{i // 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    test = metrics(train(tmp_path / "table.csv", out=tmp_path / "run"))["test"]
    assert test["without_copies"] is None and test["trusted"] is False


def test_groups_of_a_table_that_leave_nothing_to_judge_are_an_error(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    rows = ["path,label,group"]
    for i, photo in enumerate(photos[:12]):
        photo.save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]},{'one' if i % 2 else i}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    with refused(DataError, "'b'", "column group"):
        train(tmp_path / "table.csv", out=tmp_path / "run")


# Parts


def test_folds_of_classes_with_few_groups() -> None:
    labels = np.repeat([0, 1, 2], 12)
    groups = np.concatenate([np.arange(12), 20 + np.arange(12) // 6, np.full(12, 40)])
    folds = judging_folds(labels, groups, 0)
    assert (folds[labels == 2] == -1).all() and (folds[labels != 2] >= 0).all()
    for fold in range(folds.max() + 1):
        left = labels[folds != fold]
        assert set(left) == {0, 1, 2}
    assert len(set(folds[labels == 1])) == 2
    assert (judging_folds(labels, labels, 0) == -1).all()
    assert len(set(judging_folds(labels, np.arange(36), 0))) == 5


def test_an_interval_counts_groups() -> None:
    right = np.ones(40, bool)
    figures = {"accuracy": 1.0, "accuracy_ci95": list(wilson_interval(40, 40))}
    assert by_groups(figures, right, np.arange(40)) == figures
    counted = by_groups(figures, right, np.repeat(np.arange(20), 2))
    assert counted["groups"] == 20
    assert counted["accuracy_ci95"] == pytest.approx([0.839, 1.0], abs=1e-3)
    assert by_groups(figures, right, np.repeat(np.arange(5), 8))["accuracy_ci95"] is None


def split(accuracy: float, n: int, **more: Any) -> dict[str, Any]:
    interval = list(wilson_interval(accuracy * n, n))
    support = {"cat": {"support": n // 2}, "dog": {"support": n - n // 2}}
    found = {"n": n, "accuracy": accuracy, "accuracy_ci95": interval, "per_class": support}
    return found | {"confusion": [], **more}


def test_figures_that_contradict_one_another_get_a_sentence() -> None:
    assert contradictions({"out_of_fold": split(0.9, 400), "test": split(0.88, 100)}) == []
    (note,) = contradictions({"out_of_fold": split(0.97, 900), "test": split(0.7, 400)})
    assert not absent(note, "70.0%", "97.0%", "believe the test")
    (note,) = contradictions({"validation": split(0.7, 900), "test": split(0.99, 400)})
    assert "believe validation" in note
    (note,) = contradictions({"out_of_fold": split(0.5, 60)})
    assert not absent(note, "'cat'", "50.0%")
    nothing = {"accuracy": None, "accuracy_ci95": None, "trusted": False, "why": ""}
    assert contradictions({"out_of_fold": nothing, "test": split(0.9, 100)}) == []
    copies = split(0.3, 400, without_copies=None)
    assert contradictions({"out_of_fold": split(0.97, 900), "test": copies}) == []
