"""`--quiet`, warnings on stderr, and JSON on a terminal that lacks letters."""

import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
from commands import foveate

from foveate.cli.console import TerminalProgress, hush, log_to_stderr, print_json


@pytest.fixture
def loggers() -> logging.Logger:
    """The library's."""
    return logging.getLogger("foveate")


def test_warnings_go_to_stderr_and_notes_do_not(
    loggers: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr()
    loggers.warning("a\x1b[31m %s", "head")
    logging.getLogger("foveate.notes").warning("the answer has this")
    assert capsys.readouterr() == ("", "foveate: warning: a\\x1b[31m head\n")


def test_quiet_leaves_errors(loggers: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    with warnings.catch_warnings():
        hush(True)
        warnings.warn("of a library", stacklevel=1)
    loggers.warning("a head is fresh")
    loggers.error("the disk is full")
    with TerminalProgress(quiet=True) as progress:
        progress.begin("features", 2)
        progress.say("a sentence")
    assert capsys.readouterr() == ("", "foveate: error: the disk is full\n")


def test_quiet_verbs_answer_on_stdout_alone(
    trained: Path, images: Path, warm_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = images / "test/blob/100.jpg"
    for command in (
        ("train", images, "--out", "run", "--quiet"),
        ("evaluate", "run", images, "-q"),
        ("predict", "run", one, "-q"),
        ("data", "show", images, "--quiet"),
    ):
        done = foveate(*command)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.strip()
    done = foveate("predict", "run", "gone.jpg", "--quiet")
    assert (done.returncode, done.stdout) == (4, "") and "gone.jpg" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_shows_letters_where_they_can_be_shown(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    value = {"label": "猫 café", "file": os.fsdecode(b"\xff.png")}
    print_json(value)
    stdout.flush()
    text = stdout.buffer.getvalue().decode(encoding)
    assert json.loads(text) == value
    assert ("猫 café" in text) == (encoding == "utf-8")
