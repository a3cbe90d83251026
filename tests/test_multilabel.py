"""Several labels an image, from a table to predictions, in each recipe."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from refusals import absent, refused

from foveate import (
    Augment,
    Classifier,
    DataError,
    Dataset,
    UsageError,
    evaluate,
    load_dataset,
    train,
)
from foveate.data.dataset import learnable
from foveate.training import find_lr

pytestmark = pytest.mark.usefixtures("warm_features")

CLASSES = ("circle", "cross", "square")
MIXED = Augment("light", mixup=0.1)
SCRATCH: dict[str, Any] = {
    "model": "resnet20",
    "recipe": "scratch",
    "size": 32,
    "task": "multilabel",
}


def draw(path: Path, names: tuple[str, ...], rng: np.random.Generator) -> None:
    image = Image.new("RGB", (64, 64), tuple(rng.integers(150, 255, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for name in names:
        (x, y), r = rng.integers(14, 50, 2).tolist(), int(rng.integers(7, 14))
        ink = tuple(rng.integers(0, 100, 3).tolist())
        if name == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        elif name == "square":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=ink)
        else:
            pen.line((x - r, y, x + r, y), fill=ink, width=4)
            pen.line((x, y - r, x, y + r), fill=ink, width=4)
    image.save(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of any of three shapes, a third of them to test; to be read only."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    rows = []
    for i in range(120):
        names = tuple(np.array(CLASSES)[rng.random(3) < [0.5, 0.25, 0.4]].tolist())
        draw(folder / f"{i}.png", names, rng)
        rows.append([f"{i}.png", " | ".join(names), "test" if i % 3 == 0 else "train"])
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return folder / "table.csv"


@pytest.fixture(scope="module")
def probed(table: Path, backbone_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe's run; to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        return train(table, task="multilabel", out=tmp_path_factory.mktemp("run") / "run").run


def small(folder: Path, *rows: str) -> Path:
    for i in range(len(rows)):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    path = folder / "table.csv"
    path.write_text(
        "path,label,split\n" + "".join(f"{i}.png,{row}\n" for i, row in enumerate(rows))
    )
    return path


# The index


def test_a_cell_is_read_as_labels(tmp_path: Path) -> None:
    whole = load_dataset(
        small(tmp_path, "b|a,train", " a |a||,train", ",train", "a|z,test"), "multilabel"
    )
    assert whole.classes == ("a", "b", "z") and whole.label(0) == "a|z"
    dataset = learnable(whole)
    assert (dataset.task, dataset.classes) == ("multilabel", ("a", "b"))
    found = {dataset.files[i]: dataset.label(i) for i in range(len(dataset))}
    assert found == {"0.png": "a|b", "1.png": "a", "2.png": "", "3.png": "a"}
    assert dataset.counts() == {"test": {"a": 1, "b": 0}, "train": {"a": 2, "b": 1}}
    assert dataset.having(1).sum() == 1
    assert any(not absent(note, "label 'z'", "test split", "1 images") for note in dataset.notes)
    chosen = dataset.select(np.array([1, 2]))
    assert chosen.labels.shape == (2, 2) and chosen.task == "multilabel"


def test_one_class_with_a_bar_in_its_name_is_asked_about(tmp_path: Path) -> None:
    dataset = load_dataset(small(tmp_path, "a|b,train", "c,train"))
    assert dataset.classes == ("a|b", "c") and dataset.task == "multiclass"
    assert any("task='multilabel'" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (["a,train", "a|b,train", ",train", ",train"], ["few have 'b' (1)"]),
        (["a,train", "a,train", "a,train", ",train"], ["without 'a' (1)"]),
        ([",train", ",train"], ["no image"]),
    ],
)
def test_labels_that_cannot_be_learnt(rows: list[str], names: list[str], tmp_path: Path) -> None:
    with refused(DataError, *names):
        train(small(tmp_path, *rows), task="multilabel", out=tmp_path / "run")


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_only_a_table_has_several_labels(data: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with refused(DataError, "CSV", "path,label"):
        load_dataset(data if data == "digits" else tmp_path / "folder", "multilabel")


def test_no_such_task(table: Path) -> None:
    with refused(UsageError, "'both'", "multiclass", "multilabel"):
        load_dataset(table, "both")


# The probe


@pytest.mark.precision
def test_a_probe_learns_labels(probed: Path) -> None:
    metrics = json.loads((probed / "metrics.json").read_text())
    # some of the drawings are so plain that they are copies of one another
    for split, n in (("out_of_fold", range(60, 81)), ("test", range(40, 41))):
        assert metrics[split]["n"] in n and metrics[split]["mean_average_precision"] > 0.85
        assert metrics[split]["macro_f1"] > 0.75 and set(metrics[split]["per_class"]) == set(
            CLASSES
        )
    assert json.loads((probed / "config.json").read_text())["task"] == "multilabel"
    rows = [json.loads(line) for line in (probed / "predictions.jsonl").read_text().splitlines()]
    whole = [row["label"] == row["predicted"] for row in rows if row["split"] == "test"]
    assert np.mean(whole) == pytest.approx(metrics["test"]["accuracy"])
    both = next(row for row in rows if "|" in row["label"])
    assert set(both["probabilities"]) == {
        *both["label"].split("|"),
        *filter(None, both["predicted"].split("|")),
    }
    files = json.loads((probed / "data.json").read_text())["files"]
    assert files[both["file"]]["label"] == [
        CLASSES.index(name) for name in both["label"].split("|")
    ]


@pytest.mark.precision
def test_a_classifier_of_labels_gives_any_number(probed: Path, table: Path) -> None:
    classifier = Classifier.load(probed)
    assert classifier.task == "multilabel" and len(classifier.decision.thresholds or ()) == 3
    predictions = classifier.predict(table.parent, top=3)
    assert {len(p.labels) for p in predictions} >= {0, 1, 2}
    for p in predictions:
        thresholds = dict(
            zip(classifier.classes, classifier.decision.thresholds or (), strict=True)
        )
        assert p.labels == tuple(
            name for name, probability in p.top if probability >= thresholds[name]
        )
        assert (p.label, p.probability) == p.top[0]
        assert p.to_dict()["labels"] == list(p.labels)


@pytest.mark.precision
def test_evaluation_goes_by_names(probed: Path, table: Path, tmp_path: Path) -> None:
    classifier, expected = (
        Classifier.load(probed),
        json.loads((probed / "metrics.json").read_text())["test"],
    )
    found = evaluate(classifier, table)
    assert found["n"] == 40 and found["mean_average_precision"] == pytest.approx(
        expected["mean_average_precision"], abs=0.02
    )
    lines = table.read_text().splitlines()
    one = [line for line in lines[1:] if "square" in line and "c" not in line.split(",")[1]]
    some = table.parent / "some.csv"
    some.write_text("\n".join([lines[0], *one]))
    found = evaluate(classifier, some)
    assert [m["support"] > 0 for m in found["per_class"].values()] == [False, False, True]
    some.write_text(lines[0] + "\n0.png,star,train\n")
    with refused(DataError, "'star'"):
        evaluate(classifier, some)


def test_a_task_does_not_fit_the_other(
    probed: Path, trained: Path, table: Path, images: Path
) -> None:
    with refused(DataError, "multiclass", "multilabel"):
        evaluate(Classifier.load(probed), load_dataset(images))
    with refused(DataError, "multiclass", "multilabel"):
        evaluate(Classifier.load(trained), load_dataset(table, "multilabel"))


# Step by step


@pytest.mark.slow
def test_scratch_learns_labels_and_goes_on(table: Path, tmp_path: Path) -> None:
    settings = {"epochs": 8, "batch_size": 20, "lr": 0.05, "ema": 0.9}
    run = train(table, **SCRATCH, **settings, augment=MIXED, out=tmp_path / "run").run
    metrics = json.loads((run / "metrics.json").read_text())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]
    assert metrics["test"]["n"] == 40 and metrics["test"]["mean_average_precision"] > 0.4
    assert Classifier.load(run).predict(table.parent / "0.png", top=1).file.endswith("0.png")
    again = train(table, **SCRATCH, **settings, augment=MIXED, out=run, resume=True)
    assert again.run == run
    with refused(UsageError, str(run), "training.lr 0.05, now 0.1"):
        train(
            table,
            **SCRATCH,
            **settings | {"lr": 0.1},
            augment=MIXED,
            out=run,
            resume=True,
        )


@pytest.mark.slow
def test_finetune_learns_labels(table: Path, tmp_path: Path) -> None:
    made = train(
        table,
        recipe="finetune",
        task="multilabel",
        size=64,
        epochs=1,
        out=tmp_path / "run",
    )
    metrics = json.loads((made.run / "metrics.json").read_text())
    assert metrics["test"]["mean_average_precision"] > 0.5  # at 64 pixels


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balance_does_not_apply(balance: str, table: Path, tmp_path: Path) -> None:
    with refused(UsageError, "balance", "multiclass"):
        train(table, **SCRATCH, balance=balance, out=tmp_path / "run")


def test_balanced_batches_of_labels_are_refused(table: Path) -> None:
    from foveate.data.batches import TrainingBatches
    from foveate.data.preprocess import Preprocess

    dataset: Dataset = load_dataset(table, "multilabel")
    rows, preprocess = np.arange(len(dataset)), Preprocess(32, 32)
    with refused(UsageError, "classes"):
        TrainingBatches(dataset, rows, preprocess, Augment(), 8, sampling="balanced")


@pytest.mark.slow
def test_the_rate_test_reads_labels(table: Path) -> None:
    test = find_lr(table, "resnet20", "scratch", task="multilabel", batch_size=16, size=24)
    assert 0 < test.suggestion < 100
