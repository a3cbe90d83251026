"""The cache, and atomic writes: a crash, a full disk or a second process leaves no partial file."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from foveate.errors import FoveateError, UsageError

# folders of the cache; anything else in it was not made by Foveate and is not touched
PARTS = ("datasets", "features", "networks", "pixels", "weights")
TEMPORARY = re.compile(r"^\.(.+)\.\d+-[0-9a-f]{8}$")  # names that `replacing` gives: NAME in \1


def cache_root() -> Path:
    """`$FOVEATE_CACHE`, else the platform's cache folder for this user. It need not exist yet."""
    folder = os.environ.get("FOVEATE_CACHE")
    return Path(folder or platformdirs.user_cache_dir("foveate", appauthor=False))


def cache_size() -> dict[str, int]:
    """Bytes in each part of the cache, by the part's name."""
    parts = [part for name in PARTS if (part := cache_root() / name).is_dir()]
    return {
        part.name: sum(f.stat().st_size for f in part.rglob("*") if f.is_file()) for part in parts
    }


def clear_cache() -> int:
    """Empty the cache; returns the bytes freed. Runs and classifiers are not in it."""
    before = cache_size()
    for part in before:
        shutil.rmtree(cache_root() / part, ignore_errors=True)
    return sum(before.values()) - sum(cache_size().values())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` at the end.

    Works for a file and for a folder. It is flushed to disk before it is renamed, so a reader sees
    the old content or the new, never a part of it. If anything fails, `path` stays as it was.
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
    """Rename; a folder at `target` is moved aside first, since rename cannot replace a full one."""
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
            # Not empty, or exists: another process has put its folder there in between; try again.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                if aside.is_dir():
                    aside.replace(target)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system while `path` is written into ours, with a remedy."""
    try:
        yield
    except OSError as error:
        path = Path(*(TEMPORARY.sub(r"\1", part) for part in path.parts))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FoveateError(
                f"the disk is full: '{path}' could not be written and nothing was replaced; free "
                "some space, or point --out or FOVEATE_CACHE to another disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise FoveateError(
                f"no permission to write '{path}'; choose a folder that you may write to"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise UsageError(
                f"'{path}' cannot be written: a file or a folder is in the way; choose another name"
            ) from error
        raise


# json.dumps with an option creates an encoder at every call
READABLE = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
# lone surrogates (of file names that are not UTF-8), terminal controls, line and text direction
HIDDEN = re.compile("[\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def encode(value: Any) -> str:
    """JSON that a person can read: letters as they are, and only what cannot be seen as \\u codes.

    >>> print(encode({"café": "猫\\x9b"}))
    {"café": "猫\\u009b"}
    """
    text = READABLE(value)
    if text.isascii() and "\x7f" not in text:
        return text
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(lines(value) + "\n", encoding="utf-8")


def lines(value: Any, depth: int = 2) -> str:
    """JSON with one line for each entry of an object and of the objects in it, but not deeper.

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
    """Hexadecimal SHA-256 of a JSON value; it does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
