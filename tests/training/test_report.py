"""Remarks on trainings that go wrong, and none on those that do not."""

from pathlib import Path

import numpy as np
import pytest
from refusals import absent

from foveate.data.dataset import Dataset
from foveate.training.report import EpochLog, Record, draw_curves, duplicate_notes, remarks

CLASSES = ("cat", "dog", "eel")
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])


def history(
    losses, accuracies=None, validation=None, best: int = -1, start: bool = False
) -> tuple[Record, ...]:
    n = len(losses)
    accuracies = accuracies or [0.8] * n
    validation = validation or [0.8] * n
    records = [
        Record(e, 1.0, loss, a, loss, v, 1.0, 1.0, 9.0, best=e == (best if best >= 0 else n))
        for e, loss, a, v in zip(range(1, n + 1), losses, accuracies, validation, strict=True)
    ]
    return (*([Record(0, 0, 0, 0, 0.1, 0.9, 0, 0, 0, best=True)] if start else []), *records)


def given(predicted) -> np.ndarray:
    return np.eye(3, dtype=bool)[predicted]


RIGHT = given(LABELS)


def remarks_on(
    records, answers=RIGHT, stopped=True, labels=LABELS, sizes=(40, 40, 40), **of_training
) -> list[str]:
    training = {"policy": "standard", "balance": "none"} | of_training
    return remarks(records, answers, labels, CLASSES, stopped, sizes=np.array(sizes), **training)


def test_no_remark_on_a_good_training():
    assert remarks_on(history([2.0, 1.0, 0.5])) == []


@pytest.mark.parametrize(
    ("records", "names"),
    [
        (history([1.0, 1.2, 1.5]), ["training loss", "1.000", "1.500", "lr"]),
        (
            history([1.0, 1.0, 1.0], validation=[0.5, 0.4, 0.5]),
            ["validation accuracy", "50%"],
        ),
        (history([1.0, 0.9], best=9, start=True), ["epoch", "probe"]),
        (
            history([1.0, 0.5, 0.2, 0.1], [0.6, 0.8, 0.9, 0.99], [0.7, 0.7, 0.7, 0.7], best=1),
            ["overfits", "epoch 1"],
        ),
    ],
)
def test_what_looks_wrong(records, names):
    (remark,) = remarks_on(records)
    assert not absent(remark, *names), remark


def test_more_epochs_may_help():
    (remark,) = remarks_on(history([2.0, 1.0, 0.5]), stopped=False)
    assert "epochs" in remark


def test_there_is_nothing_above_all_right():
    assert remarks_on(history([2.0, 1.0, 0.5], validation=[0.9, 0.9, 1.0]), stopped=False) == []


def test_where_one_class_is_nearly_all_accuracy_has_no_room_above_it():
    labels = np.array([0] * 99 + [1])
    answers = np.eye(3, dtype=bool)[labels]
    learnt = history([0.02, 0.01, 0.01], validation=[1.0, 1.0, 1.0])
    assert remarks_on(learnt, answers, labels=labels) == []
    guessing = history([0.06, 0.06, 0.06], validation=[0.99, 0.99, 0.99])
    assert not absent(remarks_on(guessing, answers, labels=labels)[0], "99%", "find_lr")


def test_of_several_labels_guessing_is_measured_label_by_label():
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]])
    answers = labels.astype(bool)
    assert remarks_on(history([1.0, 1.0, 1.0], validation=[0.5] * 3), answers, labels=labels) == []
    (remark,) = remarks_on(history([2.0] * 3, validation=[0.5] * 3), answers, labels=labels)
    assert "50%" in remark


def test_the_strongest_policy_has_none_above_it():
    records = history([1.0, 0.5, 0.2, 0.1], [0.6, 0.8, 0.9, 0.99], [0.7] * 4, best=1)
    assert "augment" in remarks_on(records)[0]
    (remark,) = remarks_on(records, policy="strong")
    assert "overfits" in remark and "augment" not in remark


@pytest.mark.parametrize(
    ("sizes", "balance", "advised"),
    [
        ((40, 40, 40), "none", False),  # balanced: it is not rare
        ((60, 60, 30), "none", False),
        ((90, 80, 10), "none", True),
        ((90, 80, 10), "sampling", False),
        ((90, 80, 10), "weights", False),
    ],
)
def test_balance_is_advised_for_rare_classes(sizes, balance, advised):
    answers = given([0, 0, 0, 0, 1, 1, 0, 1])
    (remark,) = remarks_on(history([2.0, 1.0]), answers, sizes=sizes, balance=balance)
    assert "'eel'" in remark and ("balance" in remark) == advised


def test_a_class_that_is_never_predicted():
    (remark,) = remarks_on(history([2.0, 1.0]), given([0, 0, 0, 0, 1, 1, 0, 1]))
    assert not absent(remark, "validation", "'eel'"), remark
    assert "'cat'" not in remark and "'dog'" not in remark


def test_curves(tmp_path: Path):
    from PIL import Image

    for records in (history([2.0, 1.0, 0.5], start=True), history([1.0])):
        draw_curves(tmp_path / "curves.png", records)
        with Image.open(tmp_path / "curves.png") as image:
            assert image.width > 2 * image.height
            # something is drawn
            assert len(image.convert("RGB").resize((90, 34)).getcolors(90 * 34)) > 20


def test_tensorboard(tmp_path: Path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    listener = EpochLog(tmp_path, tensorboard=True)
    for record in history([2.0, 1.0, 0.5]):
        listener.add(record)
    read = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [round(e.value, 3) for e in read.Scalars("loss/training")] == [2.0, 1.0, 0.5]
    EpochLog(tmp_path / "other", tensorboard=False).add(record)
    assert not (tmp_path / "other").exists()


def test_copies_are_counted_by_image():
    """Two test images with the bytes of one that is learnt from."""
    dataset = Dataset(
        name="photos",
        layout="drawn",
        files=("a.png", "b.png", "c.png", "d.png"),
        labels=np.array([0, 0, 0, 1]),
        classes=("cat", "dog"),
        splits=("train", "test", "test", "test"),
        groups=("",) * 4,
        read=lambda i: b"one" if i < 3 else b"another",
    )
    (note,) = duplicate_notes(dataset)
    assert note.startswith("2 test images") and "'a.png', 'b.png', 'c.png'" in note
