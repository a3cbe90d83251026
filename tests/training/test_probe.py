"""From pictures to a run: what it leaves, that it repeats to the byte, and that no test picture is learnt from."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate import training
from foveate.classifier import Classifier
from foveate.data.dataset import Dataset
from foveate.data.index import load_dataset
from foveate.errors import ArtefactError, DataError, FoveateError, UsageError
from foveate.features import Extracted
from foveate.metrics import wilson_interval
from foveate.progress import Silent
from foveate.runs import Run, read_json
from foveate.training import outcome, probe, train
from foveate.training.outcome import dataset_fingerprint

pytestmark = pytest.mark.usefixtures("warm_cache")


@pytest.fixture
def root(pictures: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(pictures, tmp_path / "photos"))


@pytest.fixture
def flat(pictures: Path, tmp_path: Path) -> Path:
    """One folder a class, no splits."""
    return Path(shutil.copytree(pictures / "train", tmp_path / "flat"))


def tensors(run: Path) -> bytes:
    return (run / "classifier" / "model.safetensors").read_bytes()


def with_splits(dataset: Dataset, splits: list[str]) -> Dataset:
    return replace(dataset, splits=tuple(splits))


# What a run leaves


def test_a_run_holds_what_is_documented(trained: Path) -> None:
    assert sorted(p.name for p in trained.iterdir()) == [
        "classifier",
        "config.json",
        "data.json",
        "env.json",
        "history.jsonl",
        "log.txt",
        "metrics.json",
        "predictions.jsonl",
    ]
    assert "foveate train photos" in (trained / "log.txt").read_text()


def test_metrics_keep_their_contract(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    assert (metrics["model"], metrics["recipe"], metrics["seed"]) == ("efficientnet_lite0", "probe", 0)
    assert metrics["seconds"]["total"] >= sum(v for k, v in metrics["seconds"].items() if k != "total") - 0.01
    assert set(metrics["seconds"]) == {"total", "reading", "features", "head", "saving"}
    for split, n in (("test", 24), ("out_of_fold", 72)):
        m = metrics[split]
        assert {"n", "accuracy", "accuracy_ci95", "macro_f1", "log_loss", "ece", "per_class", "confusion"} <= set(m)
        confusion = np.array(m["confusion"])
        right = int(confusion.trace())
        assert m["n"] == confusion.sum() == n and m["accuracy"] == pytest.approx(right / n)
        assert m["accuracy_ci95"] == pytest.approx(wilson_interval(right, n))
        assert set(m["per_class"]) == {"blob", "noise", "stripes"}
        assert [c["support"] for c in m["per_class"].values()] == confusion.sum(axis=1).tolist()
    assert metrics["bad"] == {} and metrics["computed"] == 96 and metrics["temperature"] > 0


def test_what_it_learnt_is_better_than_a_guess(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    assert metrics["test"]["accuracy"] > 0.6 and metrics["out_of_fold"]["accuracy"] > 0.6
    assert metrics["out_of_fold"]["log_loss"] < np.log(3)


def test_metrics_are_those_of_the_predictions(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    metrics = read_json(trained / "metrics.json")
    for split in ("test", "out_of_fold"):
        mine = [line for line in lines if line["split"] == split]
        assert len(mine) == len({line["file"] for line in mine}) == metrics[split]["n"]
        right = [line["label"] == line["predicted"] for line in mine]
        assert np.mean(right) == pytest.approx(metrics[split]["accuracy"])
        loss = -np.log([max(line["probability_of_label"], 1e-12) for line in mine]).mean()
        assert loss == pytest.approx(metrics[split]["log_loss"], rel=1e-3)
        assert all(line["file"].split("/")[1] == line["label"] for line in mine)
        assert all(line["probability"] >= line["probability_of_label"] for line in mine)


def test_data_json_has_every_file(trained: Path, pictures: Path) -> None:
    data, dataset = read_json(trained / "data.json"), load_dataset(pictures)
    assert list(data["files"]) == list(dataset.files) and data["classes"] == list(dataset.classes)
    for name, entry in data["files"].items():
        assert entry["split"] == name.split("/")[0] and data["classes"][entry["label"]] == name.split("/")[1]
        assert ("fold" in entry) == (entry["split"] == "train")
    folds = np.array([e["fold"] for e in data["files"].values() if "fold" in e])
    assert np.bincount(folds).min() >= 12 and set(folds) == set(range(5))
    assert data["counts"]["test"] == {"blob": 8, "noise": 8, "stripes": 8}


def test_config_and_environment(trained: Path, pictures: Path) -> None:
    config, env = read_json(trained / "config.json"), read_json(trained / "env.json")
    assert config == {
        "data": "photos",
        "fingerprint": dataset_fingerprint(load_dataset(pictures)),
        "model": "efficientnet_lite0",
        "effort": "fast",
        "seed": 0,
        "on_bad": "skip",
        "engine": "openvino",
        "recipe": "probe",
        "task": "multiclass",
    }
    assert env["cores"] >= 1 and {"torch", "numpy", "openvino", "pillow", "safetensors"} <= set(env["packages"])
    card = read_json(trained / "classifier" / "card.json")
    assert card["provenance"] == {"command": "train photos", "environment": env, **config}


def test_history_is_the_search(trained: Path) -> None:
    steps = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    metrics = read_json(trained / "metrics.json")
    assert min(steps, key=lambda s: s["log_loss"])["penalty"] == metrics["penalty"]
    assert [s["penalty"] for s in steps] == sorted((s["penalty"] for s in steps), reverse=True)


# The same again


@pytest.fixture
def reference(trained: Path) -> bytes:
    return tensors(trained)


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_threads_change_no_byte(threads: int, pictures: Path, tmp_path: Path, reference: bytes) -> None:
    assert tensors(train(pictures, out=tmp_path / "r", threads=threads).run) == reference


def test_threads_change_no_byte_of_a_large_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 pictures, drawn as features: large enough for BLAS to share the work among threads."""
    rng, n = np.random.default_rng(0), 3000
    labels = np.arange(n) % 3
    drawn = (rng.normal(size=(n, 300)) + rng.normal(size=(3, 300))[labels] / 4).astype(np.float32)
    monkeypatch.setattr(probe, "extract", lambda *_: Extracted(drawn, {}, n))
    names = tuple(f"{i}.png" for i in range(n))
    dataset = Dataset("drawn", "", names, labels, ("a", "b", "c"), ("train",) * n, ("",) * n, read=lambda i: b"%d" % i)
    runs = [train(dataset, out=tmp_path / str(t), threads=t, engine="torch").run for t in (1, 2)]
    assert tensors(runs[0]) == tensors(runs[1])


def test_place_and_copy_change_no_byte(
    root: Path, tmp_path: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: another working folder, a relative path, a copy, another order on disk; the default run folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((here, f[::-1], n[::-1]) for here, f, n in walk(*a, **k)))
    first, second = train("../photos"), train(Path("../photos"))
    assert (first.run, second.run) == (Path("runs/photos"), Path("runs/photos-2"))
    assert tensors(first.run) == tensors(second.run) == reference


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8"}]
)
def test_locale_time_zone_and_hash_seed_change_no_byte(
    variables: dict[str, str], pictures: Path, tmp_path: Path, reference: bytes, python: Callable[..., str]
) -> None:
    """In a process of its own, with a cold cache of features; and without torch."""
    program = """
import sys, foveate
foveate.train(sys.argv[1], out=sys.argv[2])
assert "torch" not in sys.modules and "sklearn" not in sys.modules
"""
    python(program, pictures, tmp_path / "r", **variables)
    assert tensors(tmp_path / "r") == reference


def test_cached_features_change_no_byte(pictures: Path, tmp_path: Path, reference: bytes) -> None:
    train(pictures, out=tmp_path / "a")
    again = train(pictures, out=tmp_path / "b")
    assert read_json(again.run / "metrics.json")["computed"] == 0
    assert tensors(again.run) == reference


def test_another_seed_deals_other_folds(pictures: Path, tmp_path: Path) -> None:
    a, b = (read_json(train(pictures, out=tmp_path / str(s), seed=s).run / "data.json")["files"] for s in (0, 1))
    assert [e.get("fold") for e in a.values()] != [e.get("fold") for e in b.values()]


# Who learns from what


def test_test_pictures_are_not_learnt_from(
    root: Path, tmp_path: Path, reference: bytes, draw_folder: Callable[..., Path]
) -> None:
    """Other test pictures, with wrong labels: the same head to the byte."""
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
    for group, entry in zip(groups, read_json(found.run / "data.json")["files"].values(), strict=True):
        folds.setdefault(group, set()).add(entry["fold"])
    assert len(folds) == 18 and all(len(where) == 1 for where in folds.values())
    assert set.union(*folds.values()) == set(range(5))


def test_copies_stay_together(flat: Path, tmp_path: Path) -> None:
    """D12: the same bytes under another name are in the same fold."""
    for file in sorted((flat / "noise").iterdir())[:10]:
        shutil.copy(file, flat / "noise" / f"copy-{file.name}")
    found = train(flat, out=tmp_path / "r")
    files = read_json(found.run / "data.json")["files"]
    pairs = [(name, name.replace("copy-", "")) for name in files if "copy-" in name]
    assert len(pairs) == 10 and all(files[a]["fold"] == files[b]["fold"] for a, b in pairs)


def test_twins_are_reported(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "train" / "blob" / "000.png", root / "test" / "blob" / "leak.png")
    shutil.copy(root / "train" / "noise" / "000.png", root / "train" / "stripes" / "quarrel.png")
    found = train(root, out=tmp_path / "r")
    notes = read_json(found.run / "metrics.json")["notes"]
    assert any(n.startswith("1 pictures are in two classes, byte for byte: ") and "quarrel.png" in n for n in notes)
    assert any(n.startswith("1 test pictures are also outside the test split") and "leak.png" in n for n in notes)
    assert all(note in (found.run / "log.txt").read_text() for note in notes)
    assert read_json(found.run / "data.json")["notes"] == notes


# The dials


def test_the_torch_engine_agrees(trained: Path, pictures: Path, tmp_path: Path) -> None:
    found = train(pictures, out=tmp_path / "r", engine="torch")
    ours, theirs = read_json(found.run / "metrics.json"), read_json(trained / "metrics.json")
    for split in ("test", "out_of_fold"):
        assert ours[split]["accuracy"] == pytest.approx(theirs[split]["accuracy"], abs=0.1)
    assert ours["engine"] == "torch" and ours["computed"] == 96  # nothing is shared between engines
    assert sorted(p.name for p in found.folder.iterdir()) == ["README.md", "card.json", "model.safetensors"]
    assert found.predict(pictures / "test" / "blob" / "100.jpg").label in found.classes


def test_best_effort_sees_more(pictures: Path, tmp_path: Path) -> None:
    found = train(pictures, out=tmp_path / "r", effort="best")
    assert found.preprocess.crop == 288 and found.card["mirror"] is True
    lines = [json.loads(line) for line in (found.run / "predictions.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["split"] == "test")
    said = dict(found.predict(pictures / line["file"]).top)
    assert said[line["label"]] == pytest.approx(line["probability_of_label"], abs=0.05)
    from PIL import Image

    image = Image.open(pictures / line["file"]).convert("RGB")
    mirrored = dict(found.predict(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).top)
    assert mirrored == pytest.approx(dict(found.predict(image).top), abs=0.02)


def test_progress_hears_every_phase(pictures: Path, tmp_path: Path) -> None:
    class Phases(Silent):
        def __init__(self) -> None:
            self.seen: list[list[Any]] = []

        def begin(self, phase: str, total: int) -> None:
            self.seen.append([phase, total, 0])

        def advance(self, n: int = 1) -> None:
            self.seen[-1][2] += n

    phases = Phases()
    train(pictures, out=tmp_path / "r", progress=phases)
    assert [p[0] for p in phases.seen] == ["reading", "pictures", "head"]
    assert phases.seen[1][1:] == [96, 96] and 1 <= phases.seen[2][2] <= phases.seen[2][1]


def test_grey_pictures_only(tmp_path: Path, flat: Path) -> None:
    """D13"""
    from PIL import Image

    for file in flat.glob("*/*"):
        with Image.open(file) as image:
            grey = image.convert("L")
        grey.save(file)
    assert read_json(train(flat, out=tmp_path / "r").run / "metrics.json")["out_of_fold"]["accuracy"] > 0.5


def test_two_pictures_a_class(flat: Path, tmp_path: Path) -> None:
    for kind in flat.iterdir():
        for file in sorted(kind.iterdir())[2:]:
            file.unlink()
    found = train(flat, out=tmp_path / "r")
    assert read_json(found.run / "metrics.json")["out_of_fold"]["n"] == 6
    assert np.isfinite(found.predict(next(flat.glob("*/*"))).probability)


# Bad pictures


def spoil(root: Path, n: int, split: str = "train") -> None:
    for file in sorted((root / split / "blob").iterdir())[:n]:
        file.write_bytes(b"\x89PNG\r\n\x1a\n")


def test_bad_pictures_are_skipped_and_named(root: Path, tmp_path: Path) -> None:
    spoil(root, 2)
    spoil(root, 1, "test")
    found = train(root, out=tmp_path / "r")
    metrics, data = read_json(found.run / "metrics.json"), read_json(found.run / "data.json")
    names = ["test/blob/100.jpg", "train/blob/000.png", "train/blob/001.jpg"]
    assert sorted(metrics["bad"]) == sorted(data["bad"]) == names
    assert not set(names) & set(data["files"])
    assert (metrics["out_of_fold"]["n"], metrics["test"]["n"]) == (70, 23)
    assert all(name in (found.run / "log.txt").read_text() for name in names)


def test_skipping_a_bad_picture_is_as_if_it_were_not_there(root: Path, tmp_path: Path) -> None:
    spoil(root, 1)
    a = train(root, out=tmp_path / "a")
    (root / "train" / "blob" / "000.png").unlink()
    assert tensors(a.run) == tensors(train(root, out=tmp_path / "b").run)


@pytest.mark.parametrize(
    ("n", "policy", "message"),
    [
        (1, "error", r"000\.png' is .* \(1 of 96 pictures are unreadable\)"),
        (5, "skip", "5 of 96 pictures are unreadable, more than 5%"),
    ],
)
def test_too_many_bad_pictures(n: int, policy: Any, message: str, root: Path, tmp_path: Path) -> None:
    spoil(root, n)
    with pytest.raises(DataError, match=message):
        train(root, out=tmp_path / "r", on_bad=policy)
    assert not (tmp_path / "r").exists()


def test_a_class_whose_pictures_are_all_bad(root: Path, tmp_path: Path, draw_folder: Callable[..., Path]) -> None:
    (root / "train" / "empty").mkdir()
    for name in "ab":
        (root / "train" / "empty" / f"{name}.jpg").write_bytes(name.encode())
    with pytest.raises(DataError, match=r"too few readable pictures to learn from in class 'empty' \(0\)"):
        train(root, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"effort": "slow"}, UsageError, "no effort is called 'slow'; expected fast or best"),
        ({"on_bad": "ignore"}, UsageError, "no policy is called 'ignore'; expected skip or error"),
        ({"threads": 0}, UsageError, "expected at least 1 thread, got 0"),
        ({"threads": -2}, UsageError, "expected at least 1 thread, got -2"),
        ({"engine": "onnx"}, UsageError, "no engine is called 'onnx'; expected auto, openvino, torch"),
        (
            {"model": "efficientnet_lite4", "recipe": "probe"},
            UsageError,
            "no pretrained weights for 'efficientnet_lite4'; there are for",
        ),
        ({"data": "no-such-folder"}, DataError, "no such folder or file: 'no-such-folder'"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any], error: type[FoveateError], message: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(**({"data": pictures, "out": tmp_path / "r"} | arguments))
    assert not (tmp_path / "r").exists()


def test_one_class(flat: Path, tmp_path: Path) -> None:
    for kind in ("blob", "noise"):
        shutil.rmtree(flat / kind)
    with pytest.raises(DataError, match="has only one class, 'stripes'; a classifier needs at least two"):
        train(flat, out=tmp_path / "r")


def test_one_picture_in_a_class(flat: Path, tmp_path: Path) -> None:
    for file in sorted((flat / "noise").iterdir())[1:]:
        file.unlink()
    with pytest.raises(DataError, match=r"too few readable pictures to learn from in class 'noise' \(1\)"):
        train(flat, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("there", ["folder", "file"])
def test_a_run_is_never_overwritten(there: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir() if there == "folder" else (tmp_path / "r").touch()
    with pytest.raises(UsageError, match=r"r' exists; choose another --out, or .*--resume to go on with it"):
        train(pictures, out=tmp_path / "r")
    assert (tmp_path / "r").exists()


def test_a_run_below_a_file(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="below a file; choose another --out"):
        train(pictures, out=tmp_path / "file" / "r")


# Interruption and resume


class Stop(Silent):
    """Fails when a phase begins."""

    def __init__(self, phase: str, error: BaseException):
        self.phase, self.error = phase, error

    def begin(self, phase: str, total: int) -> None:
        if phase == self.phase:
            raise self.error


@pytest.mark.parametrize("phase", ["reading", "pictures", "head"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), DataError("x"), RuntimeError("bug")])
def test_a_failing_run_leaves_no_folder(phase: str, error: BaseException, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        train(pictures, out=tmp_path / "r", progress=Stop(phase, error))
    assert not (tmp_path / "r").exists()


def test_after_an_interruption_nothing_is_computed_twice(pictures: Path, tmp_path: Path, reference: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(pictures, out=tmp_path / "r", progress=Stop("head", KeyboardInterrupt()))
    again = train(pictures, out=tmp_path / "r")
    assert read_json(again.run / "metrics.json")["computed"] == 0
    assert tensors(again.run) == reference


def test_resuming_a_finished_run_changes_nothing(
    trained: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()}
    monkeypatch.setattr(training, "solve_probe", lambda *_: pytest.fail("trained again"))
    found = train(pictures, out=run, resume=True)
    assert isinstance(found, Classifier) and found.run == run
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("missing", [["metrics.json"], ["metrics.json", "classifier", "data.json", "log.txt"]])
def test_resuming_an_unfinished_run_finishes_it(
    missing: list[str], trained: Path, pictures: Path, tmp_path: Path, reference: bytes
) -> None:
    """As a kill leaves it: no metrics yet."""
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    for name in missing:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    found = train(pictures, out=run, resume=True)
    assert found.run == run and tensors(run) == reference
    assert read_json(run / "metrics.json")["test"] == read_json(trained / "metrics.json")["test"]


def test_a_resumed_run_that_fails_is_kept(trained: Path, pictures: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (run / "metrics.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        train(pictures, out=run, resume=True, progress=Stop("head", KeyboardInterrupt()))
    assert (run / "config.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"begun with other settings \(seed 0, now 1\); repeat them, or choose another --out"),
        ({"effort": "best"}, "effort 'fast', now 'best'"),
        ({"on_bad": "error"}, "on_bad 'skip', now 'error'"),
        ({"engine": "torch"}, "engine 'openvino', now 'torch'"),
        ({"seed": 1, "effort": "best"}, "effort 'fast', now 'best', seed 0, now 1"),
    ],
)
def test_resume_with_other_settings_is_refused(
    change: dict[str, Any], message: str, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    with pytest.raises(UsageError, match=message):
        train(pictures, out=run, resume=True, **change)
    assert tensors(run) == tensors(trained)


def test_resume_with_other_pictures_is_refused(trained: Path, root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (root / "train" / "blob" / "000.png").unlink()
    with pytest.raises(UsageError, match=r"begun with other settings .*fingerprint"):
        train(root, out=run, resume=True)


def test_resume_without_a_run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtefactError, match=r"r' is no run \(no config\.json there\)"):
        train(pictures, out=tmp_path / "r", resume=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtefactError, match=r"there is no run .* to resume; leave --resume out"):
        train(pictures, resume=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json"])
def test_resume_of_a_damaged_run(name: str, content: bytes, trained: Path, pictures: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (run / name).write_bytes(content)
    with pytest.raises(ArtefactError, match=rf"{name}' is damaged"):
        train(pictures, out=run, resume=True)


def test_resume_finds_the_last_run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(pictures)
    assert train(pictures, resume=True).run == first.run
    second = train(pictures)
    assert train(pictures, resume=True).run == second.run != first.run


def test_two_runs_of_one_name_do_not_mix(pictures: Path, tmp_path: Path, python: Callable[..., str]) -> None:
    """R15: started at once in one folder, each has its own, whole."""
    import subprocess
    import sys

    program = "import sys, foveate; print(foveate.train(sys.argv[1], threads=1).run)"
    command = [sys.executable, "-c", program, str(pictures)]
    runs = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(run.communicate()[0].strip() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert said == ["runs/photos", "runs/photos-2"]
    assert tensors(tmp_path / said[0]) == tensors(tmp_path / said[1])


# Parts


def test_the_fingerprint_sees_what_training_sees(flat: Path, tmp_path: Path) -> None:
    dataset = load_dataset(flat)
    before = dataset_fingerprint(dataset)
    n = len(dataset)
    same = [replace(dataset, name="other"), replace(dataset, files=tuple(f"x{i}.png" for i in range(n)))]
    other = [
        with_splits(dataset, ["test", *dataset.splits[1:]]),
        replace(dataset, groups=("g", *dataset.groups[1:])),
        replace(dataset, labels=np.roll(dataset.labels, 1)),
        replace(dataset, classes=("a", "b", "c")),
        dataset.select(np.arange(1, n)),
    ]
    assert all(dataset_fingerprint(d) == before for d in same)
    assert len({before, *(dataset_fingerprint(d) for d in other)}) == 1 + len(other)
    moved = Path(shutil.copytree(flat, tmp_path / "moved"))
    assert dataset_fingerprint(load_dataset(moved)) == before


def test_a_run_knows_whether_it_is_finished(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    assert Run(run, fresh=False).finished
    (run / "classifier" / "card.json").unlink()
    assert not Run(run, fresh=False).finished


def test_what_fine_tuning_would_cost_is_told(trained: Path) -> None:
    """3 x 0.385 G multiply-accumulates, 9,000 pictures, 5 epochs, two cores of 16 G a second: 27 minutes."""
    assert "--recipe finetune trains all of the network on" in read_json(trained / "metrics.json")["offer"]
    assert "roughly 27 min here" in outcome.finetune_offer("efficientnet_lite0", 9000, 2, 5)
    assert "roughly 1 min here" in outcome.finetune_offer("efficientnet_lite0", 9, 2, 5)
