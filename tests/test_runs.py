import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from foveate.errors import ArtefactError, FoveateError, UsageError
from foveate.machine import environment
from foveate.runs import Run, last, read_json, unused

CONFIG = {"model": "lite0", "seed": 0, "sizes": [224, 256]}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begin(out: Path | None = None, name: str = "photos", config: dict[str, Any] = CONFIG) -> Run:
    return Run.open(out, name, config, resume=False)


def resume(out: Path | None = None, name: str = "photos", config: dict[str, Any] = CONFIG) -> Run:
    return Run.open(out, name, config, resume=True)


def test_a_new_run(desk: Path) -> None:
    run = begin()
    assert run.folder == Path("runs/photos") and run.fresh and not run.finished
    assert names(run.folder) == ["config.json", "env.json"]
    assert read_json(run.folder / "config.json") == CONFIG
    assert read_json(run.folder / "env.json") == environment()


def test_runs_of_one_name_never_mix(desk: Path) -> None:
    assert [begin().folder.name for _ in range(3)] == ["photos", "photos-2", "photos-3"]
    assert begin(name="photos-2").folder.name == "photos-2-2"


@pytest.mark.parametrize(
    "name,folder",
    [
        ("photos", "photos"),
        ("my photos", "my-photos"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf", "rf"),
        ("...", "run"),
        ("", "run"),
        ("a\nb\x1b[31m", "a-b-31m"),
        ("猫 été", "猫-été"),
        (os.fsdecode(b"caf\xe9"), "caf"),
        ("C:\\photos", "C-photos"),
        ("v1.2", "v1.2"),
    ],
)
def test_names_become_folder_names(desk: Path, name: str, folder: str) -> None:
    assert unused(name) == Path("runs") / folder
    assert begin(name=name).folder == Path("runs") / folder
    assert unused(name) == Path("runs") / f"{folder}-2"
    assert last(name) == Path("runs") / folder


def test_a_folder_of_ones_own(desk: Path) -> None:
    assert begin(desk / "deep" / "er" / "mine").folder == desk / "deep" / "er" / "mine"
    assert not (desk / "runs").exists()


@pytest.mark.parametrize("there", ["folder", "file", "run"])
def test_what_exists_is_not_overwritten(desk: Path, there: str) -> None:
    out = desk / "out"
    if there == "run":
        begin(out)
    elif there == "folder":
        out.mkdir()
    else:
        out.write_text("mine")
    before = sorted(desk.rglob("*"))
    with refused(UsageError, "out'", "exists", "out", "resume"):
        begin(out)
    assert sorted(desk.rglob("*")) == before


@pytest.mark.parametrize("below", ["file/out", "file/deep/out"])
def test_below_a_file(desk: Path, below: str) -> None:
    (desk / "file").write_text("mine")
    with refused(UsageError, f"{below}'", "below a file", "out"):
        begin(desk / below)
    assert (desk / "file").read_text() == "mine"


def test_where_nothing_may_be_made(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with refused(FoveateError, "out'", "permission"):
        begin(desk / "out")


def test_resume_with_the_same_settings(desk: Path) -> None:
    begin(desk / "out").log("begun")
    run = resume(desk / "out")
    assert run.folder == desk / "out" and not run.fresh
    assert (run.folder / "log.txt").read_text() == "begun\n"


def test_resume_takes_the_youngest(desk: Path) -> None:
    for _ in range(11):
        begin()
    assert resume().folder == Path("runs/photos-11")


@pytest.mark.parametrize(
    "changed,names",
    [
        ({"seed": 1}, ["seed 0, now 1"]),
        ({"seed": 1, "model": "lite1"}, ["model 'lite0', now 'lite1'", "seed 0, now 1"]),
        ({"sizes": [224]}, ["sizes [224, 256], now [224]"]),
        ({"new": 5}, ["new None, now 5"]),
    ],
)
def test_resume_with_other_settings(desk: Path, changed: dict[str, Any], names: list[str]) -> None:
    begin(desk / "out")
    with refused(UsageError, "out'", *names):
        resume(desk / "out", config={**CONFIG, **changed})


def test_resume_with_a_setting_left_out(desk: Path) -> None:
    begin(desk / "out")
    with refused(UsageError, "out'", "seed 0, now None"):
        resume(desk / "out", config={"model": "lite0", "sizes": [224, 256]})


@pytest.mark.parametrize("name", ["photos", "photos-7", "photos 7", "7", "-", ""])
def test_resume_where_there_is_no_run(desk: Path, name: str) -> None:
    begin(desk / "runs" / "photos-6")
    with refused(ArtefactError, "'runs/", "resume"):
        resume(name=name)


@pytest.mark.parametrize("make", [lambda out: None, lambda out: out.mkdir()])
def test_resume_in_a_folder_that_is_no_run(desk: Path, make: Any) -> None:
    make(desk / "out")
    with refused(ArtefactError, "out'", "no config.json"):
        resume(desk / "out")


def test_resume_in_a_file(desk: Path) -> None:
    (desk / "out").write_text("mine")
    with refused(ArtefactError, "out'", "no config.json"):
        resume(desk / "out")


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "Expecting value"),
        (b'{"seed": 0', "Expecting"),
        (b"\xff\xfe", "can't decode byte"),
        (b"[" * 100_000, "deep"),
        (b"[1, 2]", "object"),
        (b"null", "object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer string conversion"),
    ],
)
def test_damaged_files_of_a_run(desk: Path, data: bytes, reason: str) -> None:
    begin(desk / "out")
    (desk / "out" / "config.json").write_bytes(data)
    with refused(ArtefactError, "config.json'", "damaged", reason):
        resume(desk / "out")


def test_a_closed_file_of_a_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(desk / "out")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with refused(ArtefactError, "config.json'", "permission") as caught:
        read_json(desk / "out" / "config.json")
    assert "damaged" not in str(caught.value)  # and so nobody deletes it


def test_finished_needs_the_metrics_and_the_card(desk: Path) -> None:
    run = begin()
    run.write("metrics.json", {"accuracy": 0.5})
    assert not run.finished
    run.write("classifier/card.json", {})
    assert run.finished and resume().finished
    (run.folder / "metrics.json").unlink()
    assert not run.finished


def test_a_run_that_succeeds_is_kept(desk: Path) -> None:
    run = begin()
    with run.kept_if_whole():
        run.log("done")
    assert (run.folder / "log.txt").read_text() == "done\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(143), UsageError("x")]
)
def test_a_run_that_fails_is_removed(desk: Path, error: BaseException) -> None:
    run = begin()
    with pytest.raises(type(error)) as caught, run.kept_if_whole():
        run.write("deep/x.json", 1)
        raise error
    assert caught.value is error
    assert names(Path("runs")) == []


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_resumed_run_that_fails_is_kept(desk: Path, error: BaseException) -> None:
    begin(desk / "out")
    run = resume(desk / "out")
    with pytest.raises(type(error)), run.kept_if_whole():
        run.log("half")
        raise error
    assert names(run.folder) == ["config.json", "env.json", "log.txt"]


def test_lines_and_log(desk: Path) -> None:
    run = begin()
    rows = [{"file": os.fsdecode(b"\xe9\n.jpg"), "p": 0.1}, {"file": "猫"}]
    for values in (rows[:1] * 5, rows):
        run.write_lines("history.jsonl", values)
    lines = (run.folder / "history.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == rows
    run.log("first: 猫")
    run.log(os.fsdecode(b"second: \xe9"))
    assert (run.folder / "log.txt").read_text(encoding="utf-8") == "first: 猫\nsecond: ?\n"


@pytest.mark.parametrize(
    "act", [lambda run: run.write_lines("x.jsonl", [{}]), lambda run: run.log("x")]
)
def test_a_full_disk_is_reported(desk: Path, monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    run = begin()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_text", full)
    with refused(FoveateError, "disk is full"):
        act(run)
