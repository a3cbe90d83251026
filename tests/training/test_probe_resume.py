"""A run that is cut short leaves nothing or goes on; it goes on with the same settings and the same
images alone."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learnt import tensors
from refusals import refused

from foveate import training
from foveate.classifier import Classifier
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.progress import Silent
from foveate.runs import Run, read_json
from foveate.training import train
from foveate.training.report import dataset_fingerprint

pytestmark = pytest.mark.usefixtures("warm_features")


def with_splits(dataset: Dataset, splits: list[str]) -> Dataset:
    return replace(dataset, splits=tuple(splits))


class Stop(Silent):
    """Fails when a phase begins."""

    def __init__(self, phase: str, error: BaseException):
        self.phase, self.error = phase, error

    def begin(self, phase: str, total: int) -> None:
        if phase == self.phase:
            raise self.error


@pytest.mark.parametrize("phase", ["reading", "images", "head"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(143), DataError("x"), RuntimeError("bug")]
)
def test_a_failing_run_leaves_no_folder(
    phase: str, error: BaseException, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        train(images, out=tmp_path / "r", progress=Stop(phase, error))
    assert not (tmp_path / "r").exists()


@pytest.mark.precision
@pytest.mark.usefixtures("cold_features")
def test_after_an_interruption_nothing_is_computed_twice(
    images: Path, tmp_path: Path, reference: bytes
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(images, out=tmp_path / "r", progress=Stop("head", KeyboardInterrupt()))
    again = train(images, out=tmp_path / "r")
    assert read_json(again.run / "metrics.json")["computed"] == 0
    assert tensors(again.run) == reference


def test_resuming_a_finished_run_changes_nothing(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()}
    monkeypatch.setattr(training, "solve_probe", lambda *_: pytest.fail("trained again"))
    found = train(images, out=run, resume=True)
    assert isinstance(found, Classifier) and found.run == run
    assert {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()
    } == before


@pytest.mark.parametrize(
    "missing", [["metrics.json"], ["metrics.json", "classifier", "data.json", "log.txt"]]
)
def test_resuming_an_unfinished_run_finishes_it(
    missing: list[str], trained: Path, images: Path, tmp_path: Path, reference: bytes
) -> None:
    """As a kill leaves it: no metrics yet."""
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    for name in missing:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    found = train(images, out=run, resume=True)
    assert found.run == run and tensors(run) == reference
    assert read_json(run / "metrics.json")["test"] == read_json(trained / "metrics.json")["test"]


def test_a_resumed_run_that_fails_is_kept(trained: Path, images: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (run / "metrics.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        train(images, out=run, resume=True, progress=Stop("head", KeyboardInterrupt()))
    assert (run / "config.json").is_file()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"seed": 1}, ["seed 0, now 1", "out"]),
        ({"effort": "best"}, ["effort 'fast', now 'best'"]),
        ({"on_bad": "error"}, ["on_bad 'skip', now 'error'"]),
        ({"engine": "torch"}, ["engine 'openvino', now 'torch'"]),
        ({"seed": 1, "effort": "best"}, ["effort 'fast', now 'best'", "seed 0, now 1"]),
    ],
)
def test_resume_with_other_settings_is_refused(
    change: dict[str, Any], names: list[str], trained: Path, images: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    with refused(UsageError, *names):
        train(images, out=run, resume=True, **change)
    assert tensors(run) == tensors(trained)


def test_resume_with_other_images_is_refused(trained: Path, root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (root / "train" / "blob" / "000.png").unlink()
    with refused(UsageError, "other data", "out"):
        train(root, out=run, resume=True)


def test_resume_without_a_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(ArtefactError, "r'", "config.json"):
        train(images, out=tmp_path / "r", resume=True)
    monkeypatch.chdir(tmp_path)
    with refused(ArtefactError, "resume"):
        train(images, resume=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json"])
def test_resume_of_a_damaged_run(
    name: str, content: bytes, trained: Path, images: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "r"))
    (run / name).write_bytes(content)
    with refused(ArtefactError, f"{name}'", "damaged"):
        train(images, out=run, resume=True)


def test_resume_finds_the_last_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(images)
    assert train(images, resume=True).run == first.run
    second = train(images)
    assert train(images, resume=True).run == second.run != first.run


@pytest.mark.usefixtures("cold_features")
def test_two_runs_of_one_name_do_not_mix(
    images: Path, tmp_path: Path, python: Callable[..., str]
) -> None:
    """R15: started at once in one folder, each has its own, whole."""
    import subprocess
    import sys

    program = "import sys, foveate; print(foveate.train(sys.argv[1], threads=1).run)"
    command = [sys.executable, "-c", program, str(images)]
    runs = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    folders = sorted(run.communicate()[0].strip() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert folders == ["runs/photos", "runs/photos-2"]
    assert tensors(tmp_path / folders[0]) == tensors(tmp_path / folders[1])


def test_the_fingerprint_sees_what_training_sees(flat: Path, tmp_path: Path) -> None:
    dataset = load_dataset(flat)
    before = dataset_fingerprint(dataset)
    n = len(dataset)
    same = [
        replace(dataset, name="other"),
        replace(dataset, files=tuple(f"x{i}.png" for i in range(n))),
    ]
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
