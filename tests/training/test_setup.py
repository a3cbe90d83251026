"""finetune and scratch, from images to a classifier: the run's folder, its numbers, and what is
refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import absent, refused
from safetensors.torch import load_file

from foveate import Classifier, UsageError, build, evaluate
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.listing import Folder
from foveate.data.splits import with_splits
from foveate.errors import DataError
from foveate.training import find_lr, train

pytestmark = pytest.mark.usefixtures("warm_cache")

SCRATCH: dict[str, Any] = {"model": "resnet20", "recipe": "scratch", "size": 24}


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a training from scratch. To be read only."""
    folder = tmp_path_factory.mktemp("scratch") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(folder.parent / "cache"))
        settings = {"epochs": 6, "batch_size": 16, "lr": 0.05, "balance": "weights"}
        return train(images, out=folder, **SCRATCH, **settings, command="train photos").run


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_runs_folder(run: Path) -> None:
    assert {p.name for p in run.iterdir() if not p.name.startswith(".")} == {
        *(
            "config.json",
            "env.json",
            "data.json",
            "plan.json",
            "metrics.json",
            "history.jsonl",
            "predictions.jsonl",
            "probabilities.safetensors",
        ),
        *("report.html", "confusion.png", "reliability.png"),
        *("curves.png", "log.txt", "classifier"),  # no checkpoints: it is finished
    }
    assert (run / "log.txt").read_text().startswith("foveate train photos\n")
    config, metrics, plan = (read(run / f"{name}.json") for name in ("config", "metrics", "plan"))
    assert config["training"]["epochs"] == 6 and config["preprocess"]["crop"] == 24
    assert config["training"]["precision"] in ("f32", "bf16")
    assert (metrics["model"], metrics["recipe"], metrics["epochs"]) == ("resnet20", "scratch", 6)
    assert {"validation", "test"} <= set(metrics) and metrics["test"]["n"] == 24
    assert plan["learning"] == plan["parameters"]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    best = min(history, key=lambda record: record["validation_loss"])
    assert metrics["best_epoch"] == best["epoch"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert Folder.of(run).is_run  # in a folder of images it is left out, with its curves


def test_splits_are_written_and_kept_apart(run: Path, images: Path) -> None:
    data = read(run / "data.json")
    splits = Counter(row["split"] for row in data["files"].values())
    assert splits == {"train": 61, "validation": 11, "test": 24} or splits["test"] == 24
    assert all(
        name.startswith("test/") == (row["split"] == "test") for name, row in data["files"].items()
    )
    assert any(not absent(note, "72", "11", "validation") for note in data["notes"])


@pytest.mark.precision
def test_what_is_saved_is_what_is_measured(run: Path, images: Path) -> None:
    measured = evaluate(Classifier.load(run), images)
    saved = read(run / "metrics.json")["test"]
    assert measured["n"] == saved["n"] and measured["accuracy"] == saved["accuracy"]
    assert measured["log_loss"] == pytest.approx(saved["log_loss"], abs=1e-6)


@pytest.mark.precision
def test_torch_and_the_engine_agree(
    run: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow = Classifier.load(run), Classifier.load(run)
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")
    slow.engine
    monkeypatch.undo()
    folder = images / "test" / "blob"
    for a, b in zip(fast.predict(folder), slow.predict(folder), strict=True):
        assert dict(a.top) == pytest.approx(dict(b.top), abs=0.02)


@pytest.mark.precision
def test_a_network_that_anyone_can_load(run: Path) -> None:
    """Plain names, and the temperature in the head: `foveate.build` reads the file as it is."""
    clf = Classifier.load(run)
    network = build("resnet20", weights=run / "classifier" / "model.safetensors")
    assert network.head.out_features == 3
    x = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), clf.network()(x))
    assert clf.card["form"] == "network" and clf.card["provenance"]["recipe"] == "scratch"
    assert "random start" in (run / "classifier" / "README.md").read_text()
    assert str(run) not in (run / "classifier" / "card.json").read_text()


@pytest.mark.slow
def test_same_seed_same_bytes(run: Path, images: Path, tmp_path: Path) -> None:
    settings = {"epochs": 6, "batch_size": 16, "lr": 0.05, "balance": "weights"}
    again = train(
        images,
        out=tmp_path / "again",
        **SCRATCH,
        **settings,
        cache="off",
        command="train photos",
    )
    other = train(images, out=tmp_path / "other", **SCRATCH, **settings, seed=1)
    tensors, same, different = (
        load_file(folder / "classifier" / "model.safetensors")
        for folder in (run, again.run, other.run)
    )
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    assert not torch.equal(tensors["conv1.weight"], different["conv1.weight"])


@pytest.mark.slow
def test_finetune_starts_from_the_probe(images: Path, tmp_path: Path, warm_cache: Path) -> None:
    settings = {"epochs": 1, "batch_size": 24, "lr": 1e-5}
    clf = train(images, recipe="finetune", out=tmp_path / "run", **settings, augment="light")
    history = [
        json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    ]
    assert [record["epoch"] for record in history] == [0, 1]
    # three classes: the solved head, before any step
    assert history[0]["validation_accuracy"] > 0.5
    config = read(tmp_path / "run" / "config.json")
    assert config["training"]["freeze"] == 3  # "early", resolved
    assert config["images"] == {"train": 61, "validation": 11, "test": 24}
    assert clf.card["form"] == "probe" and clf.card["mirror"] is False
    assert (clf.folder / "engine.xml").is_file()
    before = load_file(next((warm_cache / "weights").glob("*.safetensors")))
    after = load_file(clf.folder / "model.safetensors")
    assert any("running_mean" in name for name in before)
    for name, tensor in before.items():
        if "running" in name:  # frozen statistics
            assert torch.equal(after[f"backbone.{name}"], tensor)
    assert clf.predict(images / "test" / "blob" / "100.jpg").label in clf.classes


def test_a_run_that_is_finished_is_left_as_it_is(run: Path, images: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    settings = {"epochs": 6, "batch_size": 16, "lr": 0.05, "balance": "weights"}
    clf = train(images, out=run, **SCRATCH, **settings, resume=True, command="train photos")
    assert clf.run == run
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_unreadable_images(images: Path, tmp_path: Path, draw_folder) -> None:
    photos = draw_folder(tmp_path / "photos", 16)
    (photos / "blob" / "003.png").write_bytes(b"no image")
    settings = {"epochs": 1, "batch_size": 8}
    clf = train(photos, out=tmp_path / "run", **SCRATCH, **settings)
    metrics = read(clf.run / "metrics.json")
    assert list(metrics["bad"]) == ["blob/003.png"]
    assert "blob/003.png" in (clf.run / "log.txt").read_text()
    with refused(DataError, "blob/003.png"):
        train(photos, out=tmp_path / "strict", **SCRATCH, **settings, on_bad="error")
    assert not (tmp_path / "strict").exists()


@pytest.mark.precision
def test_damaged_and_deep_images(tmp_path: Path) -> None:
    """A photo with a hole is learnt from, and named; 12 bits in 16 have levels, also on resume."""
    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 4096, (40, 40)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{i:02}.png")
    Image.fromarray((values >> 4).astype(np.uint8)).save(folder / "hole.jpg")
    data = (folder / "hole.jpg").read_bytes()
    middle = len(data) // 2
    (folder / "hole.jpg").write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])

    settings = SCRATCH | {"epochs": 1, "batch_size": 8, "cache": "disk"}
    for n in range(2):  # the second finds the others' pixels in the cache
        clf = train(tmp_path / "photos", out=tmp_path / str(n), **settings)
        metrics, log = read(clf.run / "metrics.json"), (clf.run / "log.txt").read_text()
        assert sum("b/hole.jpg" in note for note in metrics["notes"]) == 1
        assert any("0 to 4095" in note for note in metrics["notes"])
        assert "b/hole.jpg" in log and not metrics["bad"]
    assert clf.preprocess.levels == (0, 4095) and clf.card["format"] == 3
    assert read(clf.run / "config.json")["preprocess"]["levels"] == [0, 4095]
    before = (clf.run / "metrics.json").read_bytes()
    train(tmp_path / "photos", out=clf.run, **settings, resume=True)
    assert (clf.run / "metrics.json").read_bytes() == before
    measured = evaluate(clf, tmp_path / "photos")
    assert any("b/hole.jpg" in note for note in measured["notes"])
    for refusing in (
        lambda: train(tmp_path / "photos", out=tmp_path / "e", **settings, on_bad="error"),
        lambda: evaluate(clf, tmp_path / "photos", "error"),
    ):
        with refused(DataError, "1 of 25", "b/hole.jpg", "damaged"):
            refusing()


def test_no_test_image_can_be_read(tmp_path: Path, draw_folder) -> None:
    photos = draw_folder(tmp_path / "photos/train", 24).parent
    (photos / "test/blob").mkdir(parents=True)
    (photos / "test/blob/1.jpg").write_bytes(b"nothing")
    clf = train(photos, out=tmp_path / "run", **SCRATCH, epochs=1, batch_size=8)
    metrics = read(clf.run / "metrics.json")
    assert "test" not in metrics
    assert any(not absent(note, "test", "read") for note in metrics["notes"])


@pytest.mark.slow
def test_grey_images_and_small_ones() -> None:
    clf = train("digits", "lenet5", "scratch", epochs=1, out=None)
    assert clf.preprocess.channels == 1 and clf.preprocess.crop == 28
    clf = train("digits", "resnet20", epochs=1, batch_size=256)
    assert (clf.preprocess.channels, clf.preprocess.crop) == (1, 8)
    assert clf.network().conv1.in_channels == 1


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"recipe": "guess"}, ["recipe", "'guess'", "probe", "finetune", "scratch"]),
        ({"model": "resnet21", "recipe": "scratch"}, ["'resnet21'", "resnet20"]),
        ({"model": "zzz", "recipe": "scratch"}, ["'zzz'", "foveate models"]),
        ({"epochs": 3}, ["epochs", "finetune", "scratch", "recipe="]),
        ({"augment": "light", "cache": "off"}, ["augment", "cache", "recipe="]),
        ({"tensorboard": True}, ["tensorboard", "recipe="]),
        ({"recipe": "scratch", "effort": "best"}, ["effort", "probe", "scratch"]),
        ({"recipe": "finetune", "channels": 1}, ["channels", "scratch"]),
        ({"seed": -1}, ["seed", "0 to 2^63 - 1", "-1"]),
        ({"seed": 2**64}, ["seed", "0 to 2^63 - 1"]),
        ({**SCRATCH, "freeze": 99}, ["freeze 99", "3"]),
        ({**SCRATCH, "size": 0}, ["size", "1 to 4096", "not 0"]),
        ({**SCRATCH, "model": "lenet5"}, ["LeNet5", "28x28", "24x24"]),
        ({**SCRATCH, "batch_size": 1}, ["batch-norm"]),
        ({**SCRATCH, "batch_size": 8, "accumulate": 8}, ["batch-norm"]),
        ({**SCRATCH, "cache": "tape"}, ["cache", "'tape'"]),
        ({**SCRATCH, "auxiliary": 0.5}, ["auxiliary", "resnet20"]),
        (
            {"model": "lenet5", "recipe": "scratch", "progressive": 0.5},
            ["LeNet5", "28x28"],
        ),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], names: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # before any image is decoded for training
    monkeypatch.delattr("foveate.training.setup.starting_network")
    with refused(UsageError, *names):
        train(images, out="run", **options)
    assert not Path("run").exists()


def test_too_few_images_to_hold_out(tmp_path: Path, draw_folder) -> None:
    photos = draw_folder(tmp_path / "few", 2, kinds=("blob", "stripes"))
    with refused(DataError, "4 images", "4 groups", "test", "probe"):
        train(photos, out="run", **SCRATCH)


def test_tensorboard_that_is_missing(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    from foveate.errors import MissingExtraError

    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(MissingExtraError, "pip install 'foveate[track]'"):
        train(images, out="run", **SCRATCH, tensorboard=True)


def test_a_run_that_another_process_works_in(images: Path, run: Path) -> None:
    from foveate.runs import Run

    one, other = Run(run, fresh=False), Run(run, fresh=False)
    with (
        one.alone(),
        refused(UsageError, "another process", run.name),
        other.alone(),
    ):
        pass


@pytest.mark.slow
def test_find_lr(images: Path) -> None:
    settings = {"epochs": 1, "batch_size": 24, "optimizer": "adamw", "lr": 1e-2}
    test = find_lr(images, "resnet20", "scratch", **settings, size=16)
    assert len(test.rates) == len(test.losses) >= 12
    assert list(test.rates) == sorted(test.rates) and test.rates[0] == pytest.approx(1e-5)
    assert test.rates[0] <= test.suggestion <= test.rates[-1]
    assert not Path("runs").exists()
    with refused(UsageError, "loss", "lr"):
        find_lr(
            images,
            "resnet20",
            "scratch",
            batch_size=24,
            lr=90.0,
            optimizer="adamw",
            size=16,
        )


def test_held_out_images(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    dataset, notes = with_splits(digits, seed=0)
    counts = dataset.counts()
    (note,) = notes
    assert not absent(note, "1797", "270", "validation", "269", "test"), note
    assert all(24 <= n <= 30 for split in ("validation", "test") for n in counts[split].values())
    groups = dataset.grouping()  # the same bytes stay on one side
    for group in np.flatnonzero(np.bincount(groups) > 1):
        assert len({dataset.splits[i] for i in np.flatnonzero(groups == group)}) == 1
    assert with_splits(dataset, seed=1) == (dataset, [])
    assert with_splits(digits, seed=1)[0].splits != dataset.splits


def test_of_large_sets_less_is_held_out() -> None:
    n = 60_000
    labels = np.arange(n) % 10
    files, name = tuple(map(str, range(n))), tuple("0123456789")
    large = Dataset(
        "large", "", files, labels, name, ("train",) * n, ("",) * n, lambda i: str(i).encode()
    )
    dataset, notes = with_splits(large, seed=0)
    (note,) = notes
    assert not absent(note, "60000", "6000", "validation", "test"), note
    assert set(dataset.counts()["validation"].values()) == {600}


def test_all_images_are_for_validation_or_test(images: Path, tmp_path: Path) -> None:
    files = sorted((images / "train").rglob("*.*"))
    rows = [
        f"{file},{file.parent.name},{('validation', 'test')[i % 2]}" for i, file in enumerate(files)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    with refused(DataError, "'table'", "training"):
        train(tmp_path / "table.csv", out=tmp_path / "run", **SCRATCH)


def test_no_validation_image_can_be_read(tmp_path: Path, draw_folder) -> None:
    draw_folder(tmp_path / "photos/train", 40)
    for name in ("blob/1", "noise/1"):
        (tmp_path / "photos/validation" / name).parent.mkdir(parents=True)
        (tmp_path / f"photos/validation/{name}.jpg").write_bytes(b"\xff\xd8\xffnothing")
    draw_folder(tmp_path / "photos/test", 2, first=100)
    with refused(DataError, "validation split", "'validation/"):
        train(
            tmp_path / "photos",
            out=tmp_path / "run",
            **SCRATCH,
            epochs=1,
            batch_size=8,
        )
