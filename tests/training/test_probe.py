"""From images to a run: what it leaves, that it repeats to the byte, and that no test image is
learnt from."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnt import tensors

from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.features import Extracted
from foveate.metrics import wilson_interval
from foveate.progress import Silent
from foveate.runs import read_json
from foveate.training import framing, train
from foveate.training.report import dataset_fingerprint

pytestmark = pytest.mark.usefixtures("warm_features")


# What a run leaves


def test_a_run_holds_what_is_documented(trained: Path) -> None:
    assert sorted(p.name for p in trained.iterdir()) == [
        "classifier",
        "config.json",
        "confusion.png",
        "data.json",
        "env.json",
        "history.jsonl",
        "log.txt",
        "metrics.json",
        "predictions.jsonl",
        "probabilities.safetensors",
        "reliability.png",
        "report.html",
        "review.json",
    ]
    assert "foveate train photos" in (trained / "log.txt").read_text()


def test_metrics_keep_their_contract(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    history = (trained / "history.jsonl").read_text().splitlines()
    assert (metrics["model"], metrics["recipe"], metrics["seed"]) == (
        "efficientnet_lite0",
        "probe",
        0,
    )
    assert (
        metrics["seconds"]["total"]
        >= sum(v for k, v in metrics["seconds"].items() if k != "total") - 0.01
    )
    assert set(metrics["seconds"]) == {"total", "reading", "features", "groups", "head", "saving"}
    for split, n in (("test", 24), ("out_of_fold", 72)):
        m = metrics[split]
        assert {
            "n",
            "accuracy",
            "accuracy_ci95",
            "macro_f1",
            "log_loss",
            "ece",
            "per_class",
            "confusion",
        } <= set(m)
        confusion = np.array(m["confusion"])
        right = int(confusion.trace())
        assert m["n"] == confusion.sum() == n
        correction = m["selection"]["correction"] if split == "out_of_fold" else 0
        assert m["accuracy"] == pytest.approx(right / n - correction)
        if split == "test":
            assert m["accuracy_ci95"] == pytest.approx(wilson_interval(right, n))
        else:
            assert m["accuracy_ci95"][0] < m["accuracy"] < m["accuracy_ci95"][1]
            assert (m["groups"], m["selection"]["candidates"]) == (n, len(history))
        assert set(m["per_class"]) == {"blob", "noise", "stripes"}
        assert [c["support"] for c in m["per_class"].values()] == confusion.sum(axis=1).tolist()
    assert metrics["bad"] == {} and metrics["computed"] == 96 and metrics["temperature"] > 0


@pytest.mark.precision
def test_what_it_learnt_is_better_than_a_guess(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    assert metrics["test"]["accuracy"] > 0.6 and metrics["out_of_fold"]["accuracy"] > 0.6
    assert metrics["out_of_fold"]["log_loss"] < np.log(3)


@pytest.mark.precision
def test_metrics_are_those_of_the_predictions(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    metrics = read_json(trained / "metrics.json")
    for split in ("test", "out_of_fold"):
        mine = [line for line in lines if line["split"] == split]
        assert len(mine) == len({line["file"] for line in mine}) == metrics[split]["n"]
        right = [line["label"] == line["predicted"] for line in mine]
        correction = metrics[split].get("selection", {"correction": 0})["correction"]
        assert np.mean(right) == pytest.approx(metrics[split]["accuracy"] + correction)
        loss = -np.log([max(line["probability_of_label"], 1e-12) for line in mine]).mean()
        assert loss == pytest.approx(metrics[split]["log_loss"], rel=1e-3)
        assert all(line["file"].split("/")[1] == line["label"] for line in mine)
        assert all(line["probability"] >= line["probability_of_label"] for line in mine)


def test_data_json_has_every_file(trained: Path, images: Path) -> None:
    data, dataset = read_json(trained / "data.json"), load_dataset(images)
    assert list(data["files"]) == list(dataset.files) and data["classes"] == list(dataset.classes)
    for name, entry in data["files"].items():
        assert (
            entry["split"] == name.split("/")[0]
            and data["classes"][entry["label"]] == name.split("/")[1]
        )
        assert ("fold" in entry) == (entry["split"] == "train")
    folds = np.array([e["fold"] for e in data["files"].values() if "fold" in e])
    assert np.bincount(folds).min() >= 12 and set(folds) == set(range(5))
    assert data["counts"]["test"] == {"blob": 8, "noise": 8, "stripes": 8}


def test_config_and_environment(trained: Path, images: Path) -> None:
    config, env = read_json(trained / "config.json"), read_json(trained / "env.json")
    assert config == {
        "data": "photos",
        "fingerprint": dataset_fingerprint(load_dataset(images)),
        "model": "efficientnet_lite0",
        "effort": "fast",
        "framing": "auto",
        "fit": None,
        "reject": 0.05,
        "seed": 0,
        "groups": "auto",
        "on_bad": "skip",
        "engine": "openvino",
        "recipe": "probe",
        "task": "multiclass",
    }
    assert env["cores"] >= 1 and {"torch", "numpy", "openvino", "pillow", "safetensors"} <= set(
        env["packages"]
    )
    card = read_json(trained / "classifier" / "card.json")
    assert card["provenance"] == {"command": "train photos", "environment": env, **config}


def test_history_is_the_search(trained: Path) -> None:
    steps = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    metrics = read_json(trained / "metrics.json")
    assert min(steps, key=lambda s: s["log_loss"])["penalty"] == metrics["penalty"]
    assert [s["penalty"] for s in steps] == sorted((s["penalty"] for s in steps), reverse=True)


# The same again


@pytest.mark.precision
@pytest.mark.usefixtures("cold_features")
@pytest.mark.parametrize("threads", [1, 2, 64])
def test_threads_change_no_byte(
    threads: int, images: Path, tmp_path: Path, reference: bytes
) -> None:
    assert tensors(train(images, out=tmp_path / "r", threads=threads).run) == reference


def test_threads_change_no_byte_of_a_large_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 images, drawn as features: large enough for BLAS to share the work among threads."""
    rng, n = np.random.default_rng(0), 3000
    labels = np.arange(n) % 3
    drawn = (rng.normal(size=(n, 300)) + rng.normal(size=(3, 300))[labels] / 4).astype(np.float32)
    greys = rng.integers(256, size=(n, 64, 64), dtype=np.uint8)

    def extracted(dataset: Dataset, *_: object) -> Extracted:
        rows = [int(name.removesuffix(".png")) for name in dataset.files]
        return Extracted(drawn[rows], {}, {}, n, greys[rows])

    monkeypatch.setattr(framing, "extract", extracted)
    names = tuple(f"{i}.png" for i in range(n))
    dataset = Dataset(
        "drawn",
        "",
        names,
        labels,
        ("a", "b", "c"),
        ("train",) * n,
        ("",) * n,
        read=lambda i: b"%d" % i,
    )
    runs = [
        train(dataset, out=tmp_path / str(t), threads=t, engine="torch", reject="off").run
        for t in (1, 2)
    ]
    assert tensors(runs[0]) == tensors(runs[1])


@pytest.mark.usefixtures("cold_features")
def test_place_and_copy_change_no_byte(
    root: Path, tmp_path: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: another working folder, a relative path, a copy, another order on disk; the default run
    folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *a, **k: ((here, f[::-1], n[::-1]) for here, f, n in walk(*a, **k))
    )
    first, second = train("../photos"), train(Path("../photos"))
    assert (first.run, second.run) == (Path("runs/photos"), Path("runs/photos-2"))
    assert tensors(first.run) == tensors(second.run) == reference


@pytest.mark.usefixtures("cold_features")
@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8"}]
)
def test_locale_time_zone_and_hash_seed_change_no_byte(
    variables: dict[str, str],
    images: Path,
    tmp_path: Path,
    reference: bytes,
    python: Callable[..., str],
) -> None:
    """In a process of its own, with a cold cache of features; and without torch."""
    program = """
import sys, foveate
foveate.train(sys.argv[1], out=sys.argv[2])
assert "torch" not in sys.modules and "sklearn" not in sys.modules
"""
    python(program, images, tmp_path / "r", **variables)
    assert tensors(tmp_path / "r") == reference


@pytest.mark.precision
@pytest.mark.usefixtures("cold_features")
def test_cached_features_change_no_byte(images: Path, tmp_path: Path, reference: bytes) -> None:
    train(images, out=tmp_path / "a")
    again = train(images, out=tmp_path / "b")
    assert read_json(again.run / "metrics.json")["computed"] == 0
    assert tensors(again.run) == reference


def test_another_seed_deals_other_folds(images: Path, tmp_path: Path) -> None:
    a, b = (
        read_json(train(images, out=tmp_path / str(s), seed=s).run / "data.json")["files"]
        for s in (0, 1)
    )
    assert [e.get("fold") for e in a.values()] != [e.get("fold") for e in b.values()]


# Who learns from what


@pytest.mark.precision
def test_test_images_are_not_learnt_from(
    root: Path, tmp_path: Path, reference: bytes, draw_folder: Callable[..., Path]
) -> None:
    """Other test images, with wrong labels: the same head to the byte."""
    shutil.rmtree(root / "test")
    draw_folder(root / "test", 5, first=200)
    (root / "test" / "blob").rename(root / "test" / "x")
    (root / "test" / "noise").rename(root / "test" / "blob")
    (root / "test" / "x").rename(root / "test" / "noise")
    found = train(root, out=tmp_path / "r")
    assert read_json(found.run / "metrics.json")["test"]["n"] == 15
    assert tensors(found.run) == reference


def test_no_test_split(root: Path, tmp_path: Path, reference: bytes) -> None:
    shutil.rmtree(root / "test")
    found = train(root, out=tmp_path / "r")
    metrics = read_json(found.run / "metrics.json")
    assert "test" not in metrics and metrics["out_of_fold"]["n"] == 72
    assert list(found.card["metrics"]) == ["out_of_fold"]
    assert tensors(found.run) == reference


def test_validation_joins_learning(root: Path, tmp_path: Path) -> None:
    (root / "valid").mkdir()
    for kind in ("blob", "noise", "stripes"):
        (root / "valid" / kind).mkdir()
        for file in sorted((root / "train" / kind).iterdir())[:6]:
            file.rename(root / "valid" / kind / file.name)
    found = train(root, out=tmp_path / "r")
    metrics, data = read_json(found.run / "metrics.json"), read_json(found.run / "data.json")
    assert metrics["out_of_fold"]["n"] == 72 and "validation" not in metrics
    assert sum(e["split"] == "validation" and "fold" in e for e in data["files"].values()) == 18


def test_groups_stay_together(flat: Path, tmp_path: Path) -> None:
    dataset = load_dataset(flat)
    groups = tuple(f"patient {i // 4}" for i in range(len(dataset)))
    found = train(replace(dataset, groups=groups), out=tmp_path / "r")
    folds: dict[str, set[int]] = {}
    for group, entry in zip(
        groups, read_json(found.run / "data.json")["files"].values(), strict=True
    ):
        folds.setdefault(group, set()).add(entry["fold"])
    assert len(folds) == 18 and all(len(where) == 1 for where in folds.values())
    assert set.union(*folds.values()) == set(range(5))


def test_copies_count_once(flat: Path, tmp_path: Path) -> None:
    """D12: the same bytes under another name are in the same fold, and change nothing."""
    before = train(flat, out=tmp_path / "before")
    for file in sorted((flat / "noise").iterdir())[:10]:
        for name in (f"a-{file.name}", f"copy-{file.name}"):
            shutil.copy(file, flat / "noise" / name)
    found = train(flat, out=tmp_path / "r")
    assert tensors(found.run) == tensors(before.run)
    honest, expected = dict(found.metrics["out_of_fold"]), before.metrics["out_of_fold"]
    assert honest.pop("among_copies")["accuracy"] > expected["accuracy"]
    assert honest == expected
    files = read_json(found.run / "data.json")["files"]
    pairs = [(name, name.replace("copy-", "")) for name in files if "copy-" in name]
    assert len(pairs) == 10 and all(files[a]["fold"] == files[b]["fold"] for a, b in pairs)


def test_twins_are_reported(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "train" / "blob" / "000.png", root / "test" / "blob" / "leak.png")
    shutil.copy(root / "train" / "noise" / "000.png", root / "train" / "stripes" / "quarrel.png")
    found = train(root, out=tmp_path / "r")
    notes = read_json(found.run / "metrics.json")["notes"]
    assert any(
        n.startswith("1 image is in two classes, byte for byte: ") and "quarrel.png" in n
        for n in notes
    )
    assert any(
        n.startswith("1 test image is also outside the test split") and "leak.png" in n
        for n in notes
    )
    assert all(note in (found.run / "log.txt").read_text() for note in notes)
    assert read_json(found.run / "data.json")["notes"] == notes


# The dials


@pytest.mark.precision
@pytest.mark.usefixtures("cold_features")
def test_the_torch_engine_agrees(trained: Path, images: Path, tmp_path: Path) -> None:
    found = train(images, out=tmp_path / "r", engine="torch")
    ours, theirs = read_json(found.run / "metrics.json"), read_json(trained / "metrics.json")
    for split in ("test", "out_of_fold"):
        assert ours[split]["accuracy"] == pytest.approx(theirs[split]["accuracy"], abs=0.1)
    assert ours["engine"] == "torch" and ours["computed"] == 96  # nothing is shared between engines
    assert sorted(p.name for p in found.folder.iterdir()) == [
        "README.md",
        "card.json",
        "model.safetensors",
    ]
    assert found.predict(images / "test" / "blob" / "100.jpg").label in found.classes


@pytest.mark.slow
def test_best_effort_sees_more(images: Path, tmp_path: Path) -> None:
    found = train(images, out=tmp_path / "r", effort="best")
    assert found.preprocess.crop == 288 and found.card["mirror"] is True
    lines = [
        json.loads(line) for line in (found.run / "predictions.jsonl").read_text().splitlines()
    ]
    line = next(line for line in lines if line["split"] == "test")
    top = dict(found.predict(images / line["file"]).top)
    assert top[line["label"]] == pytest.approx(line["probability_of_label"], abs=0.05)
    from PIL import Image

    image = Image.open(images / line["file"]).convert("RGB")
    mirrored = dict(found.predict(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).top)
    assert mirrored == pytest.approx(dict(found.predict(image).top), abs=0.02)


@pytest.mark.usefixtures("cold_features")
def test_progress_hears_every_phase(images: Path, tmp_path: Path) -> None:
    class Phases(Silent):
        def __init__(self) -> None:
            self.seen: list[list[Any]] = []

        def begin(self, phase: str, total: int) -> None:
            self.seen.append([phase, total, 0])

        def advance(self, n: int = 1) -> None:
            self.seen[-1][2] += n

    phases = Phases()
    train(images, out=tmp_path / "r", progress=phases)
    assert [p[0] for p in phases.seen] == ["reading", "images", "copies", "head", "thumbnails"]
    assert phases.seen[1][1:] == [96, 96] and 1 <= phases.seen[2][2] <= phases.seen[2][1]


def test_grey_images_only(tmp_path: Path, flat: Path) -> None:
    """D13"""
    from PIL import Image

    for file in flat.glob("*/*"):
        with Image.open(file) as image:
            grey = image.convert("L")
        grey.save(file)
    assert (
        read_json(train(flat, out=tmp_path / "r").run / "metrics.json")["out_of_fold"]["accuracy"]
        > 0.5
    )


def test_two_images_a_class(flat: Path, tmp_path: Path) -> None:
    for kind in flat.iterdir():
        for file in sorted(kind.iterdir())[2:]:
            file.unlink()
    found = train(flat, out=tmp_path / "r")
    assert read_json(found.run / "metrics.json")["out_of_fold"]["n"] == 6
    assert np.isfinite(found.predict(next(flat.glob("*/*"))).probability)
