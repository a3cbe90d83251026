"""Remarks on trainings that go wrong, and none on those that do not."""

from pathlib import Path

import numpy as np
import pytest
from refusals import absent

from foveate.training.report import EpochLog, Record, draw_curves, remarks

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


def remarks_on(records, answers=RIGHT, stopped=True) -> list[str]:
    return remarks(records, answers, LABELS, CLASSES, stopped)


def test_no_remark_on_a_good_training():
    assert remarks_on(history([2.0, 1.0, 0.5])) == []


@pytest.mark.parametrize(
    ("records", "names"),
    [
        (history([1.0, 1.2, 1.5]), ["training loss", "1.000", "1.500", "--lr"]),
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
    assert "--epochs" in remark


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
