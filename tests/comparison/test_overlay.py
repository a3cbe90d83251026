"""Finished runs over one another: what one has right and another has not, and runs that cannot be
compared."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from refusals import absent, refused
from safetensors.numpy import load_file, save_file

from foveate.comparison import compare_runs
from foveate.errors import ArtefactError, DataError, UsageError

SPLITS = ("out_of_fold", "test")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "first"))


def changed(run: Path, name: str, wrong: int = 0) -> Path:
    """A copy of a run whose first right answers out of fold are wrong ones."""
    folder = Path(shutil.copytree(run, run.parent / name))
    path = folder / "probabilities.safetensors"
    kept = load_file(path)
    p = kept["out_of_fold"].copy()
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    classes = json.loads((folder / "data.json").read_text())["classes"]
    rows = [row for row in map(json.loads, lines) if row["split"] == "out_of_fold"]
    labels = np.array([classes.index(row["label"]) for row in rows])
    right = np.flatnonzero(p.argmax(axis=1) == labels)[:wrong]
    p[right] = np.roll(p[right], 1, axis=1)
    save_file(kept | {"out_of_fold": p}, path)
    return folder


def edited(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_and_its_copy_are_not_told_apart(run: Path) -> None:
    found = compare_runs([run, changed(run, "copy")])
    (pair,) = found["pairs"]
    assert (pair["p"], pair["verdict"]) == (1.0, "not distinguishable")
    one = found["apart"][0]
    assert (one["only_first"], one["only_second"], one["confusions"]) == ([], [], [])
    assert found["judged"] == 96 and found["notes"] == []  # 72 out of fold, 24 of the test


def test_what_one_has_right_and_the_other_has_not(run: Path, images: Path, tmp_path: Path) -> None:
    worse = changed(run, "worse", wrong=20)
    found = compare_runs([worse, run], data=images, out=tmp_path / "out")
    (pair,) = found["pairs"]
    assert (pair["newly_right"], pair["newly_wrong"], pair["verdict"]) == (0, 20, "worse")
    assert found["best"]["name"] == "first" and found["best"]["rivals"] == []
    (one,) = found["apart"]
    assert len(one["only_second"]) == 20 and not one["only_first"]
    assert sum(c["first"] - c["second"] for c in one["confusions"]) == 20
    rows = {row["name"]: row for row in found["runs"]}
    assert rows["first"]["shared_accuracy"] - rows["worse"]["shared_accuracy"] == pytest.approx(
        20 / 96
    )
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert not absent(page, "worse", "first", one["only_second"][0]["file"], "data:image/jpeg")
    assert page.count('class="second"') and page.count('class="line"')  # two curves
    assert json.loads((tmp_path / "out/comparison.json").read_text())["pairs"] == found["pairs"]
    assert {*found["curves"]} == {"first", "worse"}
    again = compare_runs([worse, run], out=tmp_path / "out", lang="zh")
    assert again == found
    assert "正确率最高" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_copies_of_what_was_learnt_from_are_left_out(run: Path) -> None:
    other = changed(run, "other")
    metrics = json.loads((run / "metrics.json").read_text())
    rows = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    copied = [row["file"] for row in rows if row["split"] == "test"][:3]
    test = metrics["test"] | {
        "copies": {"n": 3, "files": copied},
        "without_copies": metrics["test"],
        "why": "three are copies",
    }
    edited(run, "metrics.json", test=test)
    assert compare_runs([run, other])["judged"] == 93


def test_runs_of_one_name_are_told_apart_by_their_folders(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "elsewhere/first"))
    found = compare_runs([run, other])
    assert [row["name"] for row in found["runs"]] == [str(run), str(other)]


def test_runs_of_other_classes(run: Path) -> None:
    other = changed(run, "other")
    for name in ("classifier/card.json", "data.json"):
        edited(other, name, classes=["blob", "noise", "waves"])
    with refused(UsageError, str(run), str(other), "stripes", "waves"):
        compare_runs([run, other])


def test_a_run_of_labels_and_one_of_classes(run: Path) -> None:
    other = changed(run, "other")
    edited(other, "classifier/card.json", thresholds=[0.5, 0.5, 0.5])
    with refused(UsageError, str(run), str(other), "multiclass", "multilabel"):
        compare_runs([run, other])


def test_runs_of_other_data(run: Path) -> None:
    other = changed(run, "other")
    files = json.loads((other / "data.json").read_text())["files"]
    for number, file in enumerate(files.values()):
        file["sha256"] = f"{number:016}"
    edited(other, "data.json", files=files)
    with refused(DataError, "first", "other", "0 images", "20"):
        compare_runs([run, other])


def test_runs_of_nearly_the_same_data_say_so(run: Path) -> None:
    other = changed(run, "other")
    files = json.loads((other / "data.json").read_text())["files"]
    next(iter(files.values()))["sha256"] = "0" * 16
    edited(other, "data.json", files=files)
    edited(other, "config.json", fingerprint="another")
    found = compare_runs([run, other])
    assert found["judged"] == 95
    assert not absent(" ".join(found["notes"]), "same data", "95", "96")


def test_refused(run: Path, tmp_path: Path) -> None:
    with refused(UsageError, "two or more"):
        compare_runs([run])
    with refused(UsageError, str(run), "twice"):
        compare_runs([run, run.parent / "." / run.name])
    with refused(UsageError, "list"):
        compare_runs(str(run))
    other = changed(run, "other")
    (other / "metrics.json").unlink()
    with refused(ArtefactError, str(other), "not a finished run"):
        compare_runs([run, other])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with refused(UsageError, "full", "no comparison of runs"):
        compare_runs([run, changed(run, "third")], out=tmp_path / "full")


def test_an_older_run_that_did_not_record_its_images(run: Path) -> None:
    other = changed(run, "other")
    files = json.loads((other / "data.json").read_text())["files"]
    for file in files.values():
        del file["sha256"]
    edited(other, "data.json", files=files)
    with refused(ArtefactError, str(other), "older version"):
        compare_runs([run, other])


def test_the_command(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = changed(run, "worse", wrong=20)
    monkeypatch.chdir(tmp_path)
    done = foveate("compare", run.name, worse.name)
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "first", "worse", "better", "compare/first-worse/report.html")
    page = tmp_path / "compare/first-worse/report.html"
    assert "data:image/jpeg" not in page.read_text(encoding="utf-8")
    (tmp_path / "photos").symlink_to(images)  # the name of what they were trained on
    assert foveate("compare", run.name, worse.name).returncode == 0
    assert "data:image/jpeg" in page.read_text(encoding="utf-8")
    found = json.loads(foveate("compare", run.name, worse.name, "--json").stdout)
    assert found["pairs"][0]["verdict"] == "better"
    done = foveate("compare", run.name, "nothing")
    assert (done.returncode, done.stdout) == (5, "") and "nothing" in done.stderr
