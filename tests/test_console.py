"""The console: any encoding, a closed or full output, names that would steer a terminal."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from refusals import absent, refused

from foveate import cli
from foveate.classifier import Classifier
from foveate.cli import console
from foveate.data.image import load_image
from foveate.errors import ArtefactError, ImageError, quoted

ODD = "猫é\x1b[31m\n\u202e\udce9 😀"  # no encoding but UTF-8 has all, and that not the surrogate


class Stream(io.TextIOWrapper):
    """A standard stream of some encoding, as strict as Python makes it."""

    def __init__(self, encoding: str, raw: Any = None) -> None:
        super().__init__(io.BytesIO() if raw is None else raw, encoding=encoding)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "cp932", "utf-16"])
def test_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Stream(encoding), Stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    console.any_console()
    console.say(ODD)
    console.print_table(ODD, [ODD], [[ODD]])
    console.complain(ODD)
    with console.TerminalProgress() as progress:
        progress.begin("images", 3)
        progress.say(ODD)
    shown = out.text() + err.text()
    assert "\x1b" not in shown and "\u202e" not in shown
    assert not absent(shown, "\\x1b[31m", "\\n", "\\udce9")
    if encoding == "utf-8":
        assert "猫é" in shown and "😀" in shown


@pytest.mark.parametrize(
    ("encoding", "kept"), [("cp1252", "é"), ("ascii", ""), ("utf-8", "猫é😀"), ("latin-1", "é")]
)
def test_json_keeps_what_the_console_can_carry(
    encoding: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    console.print_json({"file": ODD, "plain": "x"})
    text = out.text()
    assert json.loads(text) == {"file": ODD, "plain": "x"} and len(text.splitlines()) == 1
    assert {c for c in text if not c.isascii()} == set(kept)
    with refused(ValueError, "JSON"):
        console.print_json({"probability": float("nan")})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EPIPE])
@pytest.mark.parametrize("when", ["while it works", "at the end"])
def test_an_output_that_takes_no_more(
    code: int, when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(code, os.strerror(code))

    def app() -> None:
        if when == "while it works":
            sys.stdout.flush()

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    if code != errno.EPIPE:  # `| head` has read enough
        assert not absent(said, "standard output", os.strerror(code))


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_closed_stream(stream: str) -> None:
    command = f'exec "$1" -m foveate --version {stream}>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (1 if stream == "1" else 0)
    if stream == "1":
        assert not absent(done.stderr, "foveate:", "standard output", "closed")


def test_a_name_is_one_line_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[2J.png"
    assert quoted(path).endswith("a\\nb\\x1b[2J.png'")
    assert quoted("it's é") == "'it's é'" and quoted("\udcff") == "'\\udcff'"
    for content in (b"", b"nothing", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        for error, act in ((ImageError, load_image), (ArtefactError, Classifier.load)):
            with pytest.raises(error) as caught:
                act(path)
            assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
