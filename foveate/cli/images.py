"""The images that `predict` is given: names, folders, standard input, and a folder that is
watched."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foveate.classifier.given import is_folder
from foveate.cli.console import complain
from foveate.data.listing import is_image, names_below, present
from foveate.errors import DataError, UsageError, quoted

STDIN = "-"
HEAD = 64  # bytes that say whether standard input is an image itself
LONGEST = 1 << 16  # bytes of a line; no system has longer names
PAUSE = 1.0  # seconds between two looks at a folder that is watched

State = tuple[int, int]  # a file's size and time of change


def given_images(names: list[str]) -> tuple[Iterator[Any], int | None]:
    """What `Classifier.predict_each` takes, one by one, and how many they are, if that is known.

    A folder's images are listed here and now, as names alone: 65,000 files take 20 MB.

    Raises:
        DataError: a file or folder is not there, or a folder has no images.
        UsageError: `-` is not alone.
    """
    if names == [STDIN]:
        return from_stdin(), None
    if STDIN in names:
        raise UsageError(
            "- stands for names on standard input, and is given alone; a file called - is ./-"
        )
    # Path("") is the working folder: an empty name comes of a variable that is not set
    absent = [quoted(name) for name in names if not (name and present(Path(name)))]
    if absent:
        raise DataError(f"no such file or folder: {', '.join(absent)}")
    parts = [(name, listed(name) if Path(name).is_dir() else [""]) for name in names]
    return paths(parts), sum(len(below) for _, below in parts)


def listed(folder: str) -> list[str]:
    """The names of a folder's images, from the folder; what is left out is said on stderr."""
    below, notes = names_below(Path(folder))
    for note in notes:
        complain(f"note: {quoted(folder)}: {note}")
    return below


def paths(parts: list[tuple[str, list[str]]]) -> Iterator[str]:
    """Of the files of folders; of files themselves, whose only name is empty."""
    for folder, names in parts:
        for name in names:
            # not a Path: to make one takes as long as to open the file
            yield os.path.join(folder, name) if name else folder  # noqa: PTH118  # a Path a file takes most of the time


def from_stdin() -> Iterator[Any]:
    """The image on standard input; or those whose names are on it, one a line, as they come.

    Raises:
        DataError: there is nothing.
    """
    stream: Any = getattr(sys.stdin, "buffer", None)
    head = b"" if stream is None else stream.peek(HEAD)[:HEAD]
    if is_image(head):
        yield stream
        return
    some = False
    while line := stream.readline(LONGEST) if stream is not None else b"":
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if not name:
            continue
        some = True
        if not is_folder(Path(name)):
            yield name
            continue
        try:
            yield from paths([(name, listed(name))])
        except DataError as error:  # the lines after it are as good as they were
            complain(str(error))
    if not some:
        raise DataError("standard input has neither names of images nor an image")


def watched(folder: Path, pause: float = PAUSE) -> Iterator[list[str]]:
    """Without end, the images in a folder that are new or have changed since they were last given,
    and whose size and time have not changed between two looks: they are not being written.

    Raises:
        DataError: the folder is not there, or no longer.
    """
    before: dict[str, State] = {}
    done: dict[str, State] = {}
    while True:
        now = states(folder)
        ready = [name for name, state in now.items() if before.get(name) == state != done.get(name)]
        before = now
        done = {name: state for name, state in done.items() if name in now}
        done |= {name: now[name] for name in ready}
        yield ready
        time.sleep(pause)


def states(folder: Path) -> dict[str, State]:
    """Of each image below a folder."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {quoted(folder)}")
    try:
        names, _ = names_below(folder)
    except DataError:  # none yet
        return {}
    found = {}
    for name in names:
        path = folder / name
        try:
            status = path.stat()
        except OSError:  # gone since
            continue
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found
