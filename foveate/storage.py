"""Where files are kept, and how they are written: a crash, a full disk or a second process leaves
no half of one."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from foveate.errors import FoveateError, UsageError

PARTS = (
    "datasets",
    "features",
    "networks",
    "pixels",
    "weights",
)  # of the cache; anything else there is not ours


def cache_root() -> Path:
    """`$FOVEATE_CACHE`, else the platform's cache folder for this user. It need not exist yet."""
    given = os.environ.get("FOVEATE_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("foveate", appauthor=False))


def cache_size() -> dict[str, int]:
    """Bytes in each part of the cache, by the part's name."""
    parts = [part for name in PARTS if (part := cache_root() / name).is_dir()]
    return {
        part.name: sum(f.stat().st_size for f in part.rglob("*") if f.is_file()) for part in parts
    }


def clear_cache() -> int:
    """Delete what is cached; returns the bytes freed. Runs and classifiers are not in the cache and
    stay."""
    before = cache_size()
    for part in before:
        shutil.rmtree(cache_root() / part, ignore_errors=True)
    return sum(before.values()) - sum(cache_size().values())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, flushed to disk and renamed onto it at the end; removed if
    anything fails.

    Works for a file and for a folder. A reader sees the old content or the new, never a part.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        with disk_errors(path):
            yield temporary
            for part in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
                sync(part)
            move_onto(temporary, path)
            sync(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def move_onto(source: Path, target: Path) -> None:
    """Rename; a folder that is in the way is moved aside first, since no system replaces a full
    folder at once."""
    if not source.is_dir():
        source.replace(target)
        return
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.old"
    while source.is_dir():
        try:
            if target.is_dir():
                with contextlib.suppress(FileNotFoundError):  # another process moved it aside first
                    target.replace(aside)
            source.replace(target)
        except OSError as error:
            if error.errno not in (
                errno.ENOTEMPTY,
                errno.EEXIST,
            ):  # these: another process was faster, so again
                if aside.is_dir():
                    aside.replace(target)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Ask the disk to have it, file or folder."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says while `path` is written into a message with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FoveateError(
                f"the disk is full: '{path}' could not be written and nothing was replaced; free "
                "some space, or point --out or FOVEATE_CACHE to another disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise FoveateError(
                f"no permission to write '{path}'; choose a folder that is yours"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise UsageError(
                f"'{path}' cannot be written: a file or a folder is in the way; choose another name"
            ) from error
        raise


# `json.dumps` with an option makes an encoder at every call
encode = json.JSONEncoder(allow_nan=False).encode


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(lines(value) + "\n", encoding="ascii")


def lines(value: Any, depth: int = 2) -> str:
    """JSON with a line for each entry of an object, and of the objects in it; what lies deeper is
    on that line.

    >>> print(lines({"a": {"b": {"c": [1, 2]}}, "d": 3}))
    {
     "a": {
      "b": {"c": [1, 2]}
     },
     "d": 3
    }
    """
    if not (depth and isinstance(value, dict) and value):
        return encode(value)
    margin = " " * (3 - depth)
    entries = (
        f"{margin}{encode(str(key))}: {lines(entry, depth - 1)}" for key, entry in value.items()
    )
    return "{\n" + ",\n".join(entries) + f"\n{margin[1:]}}}"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a value that JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
