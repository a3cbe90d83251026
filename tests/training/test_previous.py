"""A run beside the last one of the same data: on which images, and when a difference is noise."""

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from foveate.cli.train import since
from foveate.data.dataset import Dataset
from foveate.evaluation.pairs import sign_flip
from foveate.runs import Run
from foveate.training.previous import compare_with_last

N = 60
CONFIG = {"data": "photos", "task": "multiclass"}


def photos(n: int = N, groups: tuple[str, ...] | None = None) -> Dataset:
    """n files of which each has its own bytes."""
    return Dataset(
        name="photos",
        layout="drawn",
        files=tuple(f"cat/{i}.jpg" for i in range(n)),
        labels=np.arange(n) % 2,
        classes=("cat", "dog"),
        splits=("train",) * n,
        groups=groups or ("",) * n,
        read=lambda i: f"image {i}".encode(),
    )


def judged(dataset: Dataset, wrong: set[int], split: str = "out_of_fold") -> list[dict[str, Any]]:
    """predictions.jsonl, where these images are mistaken for the other class."""
    return [
        {
            "split": split,
            "file": file,
            "label": dataset.label(i),
            "predicted": dataset.classes[int(dataset.labels[i]) ^ (i in wrong)],
            "sha256": dataset.digests[i][:16],
        }
        for i, file in enumerate(dataset.files)
    ]


def finish(folder: Path, rows: list[dict[str, Any]], at: int = 0, **config: str) -> Path:
    """A finished run; `at` is when."""
    run = Run.open(folder, "photos", CONFIG | config, resume=False)
    run.write_lines("predictions.jsonl", rows)
    run.write("metrics.json", {})
    os.utime(folder / "metrics.json", (1e9 + at, 1e9 + at))
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "runs/photos-9", "photos", CONFIG, resume=False)


def compared(run: Run, dataset: Dataset, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return compare_with_last(run, dataset, rows)["compared_with"]


def test_no_run_before_says_nothing(new: Run) -> None:
    assert compare_with_last(new, photos(), judged(photos(), set())) == {}


def test_the_same_answers_are_no_difference(new: Run) -> None:
    finish(new.folder.with_name("photos"), judged(photos(), {1, 2}))
    found = compared(new, photos(), judged(photos(), {1, 2}))
    assert found == {
        "run": "photos",
        "split": "out_of_fold",
        "split_before": "out_of_fold",
        "n": N,
        "before": 1 - 2 / N,
        "after": 1 - 2 / N,
        "newly_right": 0,
        "newly_wrong": 0,
        "p": 1.0,
        "within_noise": True,
    }
    assert "photos" in since(found) and "noise" not in since(found)


@pytest.mark.parametrize(("worse", "noise"), [(5, True), (6, False)])
def test_a_difference_is_noise_or_not(worse: int, noise: bool, new: Run) -> None:
    """McNemar: 5 of 5 against it have p = 0.06, 6 of 6 have 0.03."""
    finish(new.folder.with_name("photos"), judged(photos(), set()))
    found = compared(new, photos(), judged(photos(), set(range(worse))))
    assert (found["newly_wrong"], found["within_noise"]) == (worse, noise)
    assert found["p"] == pytest.approx(2 / 2**worse)
    assert ("within noise" in since(found)) == noise
    assert f"100.0 to {100 * (1 - worse / N):.1f} %" in since(found)


def test_images_of_one_group_count_once(new: Run) -> None:
    """Twelve mistakes are far from noise, unless they are of two objects."""
    grouped = photos(groups=tuple(f"object {i // 6}" for i in range(N)))
    finish(new.folder.with_name("photos"), judged(photos(), set()))
    mistakes = judged(photos(), set(range(12)))
    assert not compared(new, photos(), mistakes)["within_noise"]
    assert compared(new, grouped, mistakes)["p"] == pytest.approx(0.5)


def test_images_are_known_by_their_bytes_and_label(new: Run) -> None:
    """Twenty more images, all files renamed, one with another label since."""
    rows = judged(photos(), set())
    rows[0]["label"] = "dog"
    for row in rows:
        row["file"] = "old/" + row["file"]
    finish(new.folder.with_name("photos"), rows)
    assert compared(new, photos(N + 20), judged(photos(N + 20), set()))["n"] == N - 1


def test_the_same_split_comes_first_and_another_is_named(new: Run) -> None:
    test = judged(photos(), {1}, "test")[:25]
    rest = judged(photos(), set())[25:]
    finish(new.folder.with_name("photos"), [*test, *rest])
    found = compared(new, photos(), [*test, *judged(photos(), set(), "validation")[25:]])
    assert (found["split"], found["split_before"], found["n"]) == ("test", "test", 25)
    few = [*judged(photos(), set(), "test")[:5], *judged(photos(), set(), "validation")[25:]]
    found = compared(new, photos(), few)  # five are too few, though of the same split
    assert (found["split"], found["split_before"]) == ("validation", "out_of_fold")
    assert "out of fold then, validation now" in since(found)


def test_which_run_is_the_last(new: Run) -> None:
    beside = new.folder.parent
    finish(beside / "elder", judged(photos(), set()), at=1)
    finish(beside / "younger", judged(photos(), {1}), at=2)
    finish(beside / "other", judged(photos(), set()), at=3, data="plants")
    finish(beside / "several", judged(photos(), set()), at=4, task="multilabel")
    Run.open(beside / "unfinished", "photos", CONFIG, resume=False)
    damaged = finish(beside / "damaged", [], at=5)
    (damaged / "config.json").write_text("{")
    (beside / "a-file").write_text("")
    assert compared(new, photos(), judged(photos(), set()))["run"] == "younger"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]\n",
        "[1]\n",
        '{"split": [], "sha256": 1, "label": {}, "predicted": null}\n',
        '{"split": "test"}\n',
        "\xff",
    ],
)
def test_predictions_that_cannot_be_read_say_nothing(text: str, new: Run) -> None:
    folder = finish(new.folder.with_name("photos"), [])
    (folder / "predictions.jsonl").write_text(text, encoding="latin-1")
    assert compare_with_last(new, photos(), judged(photos(), set())) == {}


def test_few_images_in_common_say_nothing(new: Run) -> None:
    finish(new.folder.with_name("photos"), judged(photos(19), set()))
    assert compare_with_last(new, photos(), judged(photos(), set())) == {}


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (3, 9), (40, 12), (500, 431), (3000, 3000)])
def test_sign_flip_is_mcnemars_exact_test(better: int, worse: int) -> None:
    n = better + worse
    expected = binomtest(better, n).pvalue if n else 1.0
    assert sign_flip([1] * better + [-1] * worse + [0] * 5) == pytest.approx(expected)


def test_sign_flip_of_groups_is_all_signs_one_by_one() -> None:
    sums = np.array([3, -1, 2, 2, -5, 1, 1])
    every = np.array([*product((1, -1), repeat=len(sums))]) @ sums
    assert sign_flip(sums) == pytest.approx((np.abs(every) >= abs(sums.sum())).mean())


@pytest.mark.slow
def test_a_training_is_compared_with_the_one_before(
    images: Path, warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveate.training import train

    monkeypatch.chdir(tmp_path)
    first, second = train(images), train(images, seed=1)
    assert "compared_with" not in first.metrics
    found = second.metrics["compared_with"]
    assert (found["run"], found["split"], found["n"]) == ("photos", "out_of_fold", 72)
    assert json.loads((second.run / "metrics.json").read_text())["compared_with"] == found
