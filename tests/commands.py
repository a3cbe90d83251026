"""Run `foveate`, or a program, in processes of its own, forked from one that has imported all.

A fresh interpreter takes two to four seconds to import torch, a child of that process a tenth of a
second. Arguments, environment, folder, streams and exit code are the child's own. Tests of what an
interpreter imports, and of signals, start a fresh one.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 300  # seconds

nursery = multiprocessing.get_context("forkserver")
nursery.set_forkserver_preload(
    [
        "__main__",
        "commands",
        "foveate.cli",
        "foveate.training.setup",
        "torchvision.transforms.v2.functional",
    ]
)


def foveate(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `foveate ARGUMENTS` prints, in a terminal of 100 columns without colour, and how it
    ends."""
    words = list(map(str, arguments))
    return born(run_command, words, {"COLUMNS": "100", "NO_COLOR": "1"} | environment)


def program(text: str) -> subprocess.CompletedProcess[str]:
    """What a Python program prints, and how it ends."""
    return born(run_program, text, {})


def born(
    work: Callable[[Any], None], given: Any, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """`work(given)` in a process of its own, and here."""
    wanted = os.environ | environment
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, stream) for stream in ("stdout", "stderr")]
        child = nursery.Process(target=enter, args=(work, given, wanted, Path.cwd(), streams))
        child.start()
        child.join(LIMIT)
        if child.exitcode is None:
            child.kill()
        out, err = (path.read_text(encoding="utf-8") for path in streams)
        assert child.exitcode is not None, (
            f"{given} did not end within {LIMIT} seconds\n{out}\n{err}"
        )
        return subprocess.CompletedProcess(given, child.exitcode, out, err)


def enter(
    work: Callable[[Any], None],
    given: Any,
    environment: dict[str, str],
    folder: Path,
    streams: list[Path],
) -> None:
    """In the child: environment, folder and streams first."""
    for stream, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    work(given)


def run_program(text: str) -> None:
    """As `python -c TEXT` would."""
    sys.argv = ["-c"]
    sys.path.insert(0, "")
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(text, "<string>", "exec"), main.__dict__)


def run_command(words: list[str]) -> None:
    """As `python -m foveate` would."""
    sys.argv = ["foveate", *words]
    from foveate.cli import main

    main()
