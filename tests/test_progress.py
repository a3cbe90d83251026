"""How far long jobs are: bars in a terminal, a bar in a notebook, nothing elsewhere."""

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from refusals import absent, refused

from foveate.errors import UsageError
from foveate.progress import Bars, Logged, NotebookBars, Progress, Silent, bars, log_notes


def test_what_was_given_is_used() -> None:
    mine = Silent()
    with bars(mine) as progress:
        assert progress is mine


@pytest.mark.parametrize("given", [False, True, 5, "bar"])
def test_what_is_no_progress(given: Any) -> None:
    with refused(UsageError, "progress", repr(given)), bars(given):
        pass


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with bars(None) as progress:
        use(progress)
    assert isinstance(progress, Logged) and capsys.readouterr() == ("", "")


def test_sentences_are_logged_where_nobody_looks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "foveate"), bars(None) as progress:
        use(progress)
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
        ("foveate", logging.INFO, "<b> is no markup")
    ]


def test_notes_are_warnings_and_many_bad_images_one(caplog: pytest.LogCaptureFixture) -> None:
    log_notes(["100 % odd"], {f"{i}.png": "it is empty" for i in range(5)})
    assert {(r.name, r.levelname) for r in caplog.records} == {("foveate.notes", "WARNING")}
    note, bad = caplog.messages
    assert note == "100 % odd"
    assert not absent(bad, "5", "'0.png'", "'2.png'", "...") and "3.png" not in bad


def test_importing_and_warning_installs_no_handler(python) -> None:
    program = (
        "import logging, foveate, foveate.training\n"
        "from foveate.progress import log_notes\n"
        "log_notes(['a note'], {})\n"
        "loggers = [logging.getLogger(n) for n in ('foveate', 'foveate.notes', None)]\n"
        "print([logger.handlers for logger in loggers])"
    )
    assert python(program) == "[[], [], []]\n"


def test_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with bars(None) as progress:
        assert isinstance(progress, Bars)
        use(progress)
        assert progress.bars.tasks[-1].completed == 3
        assert [task.description for task in progress.bars.tasks] == ["head"]  # one at a time


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the few calls of IPython that it makes."""
    shown: list[str] = []

    class ZMQInteractiveShell:
        pass

    def display(html: str, display_id: bool = False) -> SimpleNamespace:
        shown.append(html)
        return SimpleNamespace(update=shown.append)

    notebook = ModuleType("IPython")
    notebook.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    notebook.display = SimpleNamespace(HTML=str, display=display)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    with bars(None) as progress:
        assert isinstance(progress, NotebookBars)
        use(progress)
    assert 'value="3" max="3"' in shown[-1] and "head" in shown[-1] and "3/3" in shown[-1]
    assert "<pre>&lt;b&gt; is no markup</pre>" in shown


def use(progress: Progress) -> None:
    progress.begin("features", 2)
    progress.advance(2)
    progress.say("<b> is no markup")
    progress.begin("head", 3)
    progress.advance()
    progress.advance(2)
