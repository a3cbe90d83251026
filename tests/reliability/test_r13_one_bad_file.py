"""R13: a loader that fails or hangs on a file ends with an error that names it, without zombies."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

import foveate
from foveate.data.augment import Augment
from foveate.data.batches import EvaluationBatches, TrainingBatches
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess, decode
from foveate.data.workers import decode_ahead, work_ahead
from foveate.errors import DataError, ImageError

PREPROCESS = Preprocess(32, 32)
ROOT = str(Path(foveate.__file__).parents[1])


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.fixture
def dataset(tmp_path: Path, draw_folder) -> Dataset:
    return load_dataset(draw_folder(tmp_path / "photos", 6))


def readers(dataset: Dataset, threads: int, limit: float):
    rows = np.arange(len(dataset))
    training = TrainingBatches(
        dataset, rows, PREPROCESS, Augment("standard"), 4, threads=threads, limit=limit
    )
    return training.epoch(0), iter(
        EvaluationBatches(dataset, rows, PREPROCESS, 4, threads=threads, limit=limit)
    )


@pytest.mark.parametrize("threads, reader", [(1, 0), (3, 1)])
def test_a_file_that_never_comes(dataset: Dataset, threads: int, reader: int) -> None:
    never = threading.Event()
    stuck = dataset.files[7]
    read = dataset.read

    def hang(row: int) -> bytes:
        if row == 7:
            never.wait()
        return read(row)

    batches = readers(replace(dataset, read=hang), threads, limit=1.5)[reader]
    with refused(ImageError, stuck, "1.5 seconds"):
        list(batches)
    assert len(loader_threads()) == 1  # the one that waits; all others have ended
    assert all(thread.daemon for thread in loader_threads())
    never.set()
    for thread in loader_threads():
        thread.join(60)
    assert loader_threads() == []


def test_a_slow_file_is_waited_for(dataset: Dataset) -> None:
    read = dataset.read

    def slow(row: int) -> bytes:
        time.sleep(0.3 if row == 7 else 0)
        return read(row)

    for batches in readers(replace(dataset, read=slow), 2, limit=60):
        assert sum(len(batch.rows) for batch in batches) == len(dataset)


@pytest.mark.parametrize(
    "fault, kind, names",
    [
        (OSError(5, "Input/output error"), ImageError, ["OSError", "Input/output error"]),
        (ZeroDivisionError("by zero"), ImageError, ["ZeroDivisionError", "by zero"]),
        (RecursionError("deep"), ImageError, ["RecursionError", "deep"]),
        (DataError("image 'F' is odd"), DataError, ["is odd"]),
    ],
)
def test_a_crash_has_the_name(
    dataset: Dataset, fault: Exception, kind: type[Exception], names: list[str]
) -> None:
    read = dataset.read

    def crash(row: int) -> bytes:
        if row == 7:
            raise fault
        return read(row)

    for batches in readers(replace(dataset, read=crash), 2, limit=60):
        with refused(kind, *names) as caught:
            list(batches)
        assert caught.value is fault or (
            dataset.files[7] in str(caught.value) and caught.value.__cause__ is fault
        )
        assert loader_threads() == []


@pytest.mark.parametrize("fault", [MemoryError("no more"), AssertionError("a mistake of ours")])
def test_what_is_not_the_files_fault_is_left_as_it_is(dataset: Dataset, fault: Exception) -> None:
    def crash(row: int) -> bytes:
        raise fault

    for batches in readers(replace(dataset, read=crash), 1, limit=60):
        with pytest.raises(type(fault)) as caught:
            list(batches)
        assert any(name in note for note in caught.value.__notes__ for name in dataset.files)
        del fault.__notes__


def test_the_first_failure_in_order_is_raised() -> None:
    def work(task: int) -> int:
        time.sleep(0.1 if task == 3 else 0)
        if task in (3, 4, 5):
            raise ImageError(f"image {task} is bad")
        return task

    for threads in (1, 4):
        found: list[int] = []
        with refused(ImageError, "image 3 is bad"):
            found.extend(work_ahead(range(10), work, str, threads, ahead=8))
        assert found == [0, 1, 2]


def test_a_thread_that_cannot_begin() -> None:
    def prepare() -> None:
        raise RuntimeError("no OpenMP")

    with refused(ImageError, "'0'", "RuntimeError", "no OpenMP"):
        list(work_ahead(range(3), int, str, 2, ahead=4, prepare=prepare))


def test_nothing_to_do() -> None:
    assert list(work_ahead([], int, str, 2, ahead=4)) == []
    assert loader_threads() == []


PROGRAM = """
import sys
from dataclasses import replace
import numpy as np
from foveate.data.batches import TrainingBatches
from foveate.data.layouts import load_dataset
from foveate.data.augment import Augment
from foveate.data.preprocess import Preprocess
from foveate.errors import ImageError

root, fifo, way = sys.argv[1:]
dataset = load_dataset(root)
read, preprocess = dataset.read, Preprocess(224, 224)

def hang(row):
    if row == 7:
        open(fifo, "rb").read()  # nobody ever writes to it: a system call that does not return
    return read(row)

def epoch(limit):
    rows, stuck = np.arange(len(dataset)), replace(dataset, read=hang)
    batches = TrainingBatches(
        stuck, rows, preprocess, Augment("strong"), 2, threads=4, limit=limit
    )
    return batches.epoch(0)

if way == "given up":
    try:
        list(epoch(1.5))
    except ImageError as error:
        print(error)
else:
    left = epoch(60)
    print(len(next(left).rows), "read, and left while one thread hangs and the others compute")
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["given up", "left"])
def test_the_program_ends(tmp_path: Path, draw_folder, python, way: str) -> None:
    root = draw_folder(tmp_path / "photos", 6)
    os.mkfifo(tmp_path / "fifo")
    out = python(PROGRAM, root, tmp_path / "fifo", way, PYTHONPATH=ROOT)
    assert (
        "'noise/001.jpg' did not come within 1.5 seconds" if way == "given up" else "left while one"
    ) in out


@pytest.mark.parametrize("reader", ["digests", "decoded"])
def test_everything_that_reads_files_gives_up_a_lost_one(
    dataset: Dataset, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every training computes digests; features, evaluation and prediction use `decode_ahead`."""
    never = threading.Event()
    stuck = dataset.files[7]

    def hang(row: int) -> bytes:
        return never.wait() and b"" if row == 7 else dataset.read(row)

    hanging = replace(dataset, read=hang)
    for module in ("dataset", "workers"):
        monkeypatch.setattr(f"foveate.data.{module}.LIMIT", 1.5)
    with refused(ImageError, stuck, "1.5 seconds"):
        if reader == "digests":
            _ = hanging.digests
        else:
            rows = range(len(dataset))
            list(
                decode_ahead(
                    rows,
                    lambda i: decode(hang(i), "", PREPROCESS),
                    dataset.files.__getitem__,
                    PREPROCESS,
                    2,
                )
            )
    never.set()
    for thread in loader_threads():
        thread.join(60)
