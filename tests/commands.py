"""Run `foveate` in processes of its own, forked from one that has imported everything.

A fresh interpreter takes two to four seconds to import torch, a child of that process a tenth of a
second. Arguments, environment, folder, streams and exit code are the child's own. Tests of what an
interpreter imports, and of signals, start a fresh one.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
    wanted = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"} | environment
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, stream) for stream in ("stdout", "stderr")]
        child = nursery.Process(target=run, args=(words, wanted, Path.cwd(), streams))
        child.start()
        child.join(LIMIT)
        if child.exitcode is None:
            child.kill()
        out, err = (path.read_text(encoding="utf-8") for path in streams)
        assert child.exitcode is not None, (
            f"{words} did not end within {LIMIT} seconds\n{out}\n{err}"
        )
        return subprocess.CompletedProcess(words, child.exitcode, out, err)


def run(words: list[str], environment: dict[str, str], folder: Path, streams: list[Path]) -> None:
    """As `python -m foveate` would."""
    for stream, path in zip((1, 2), streams, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["foveate", *words]
    from foveate.cli import main

    main()
