"""The cache; atomic writes: a crash, a full disk or a second process leaves no partial file; and
reading back, where nothing is what it should be until it was checked."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from foveate.arguments import option
from foveate.errors import ArtefactError, FoveateError, UsageError, quoted

# folders of the cache; anything else in it was not made by Foveate and is not touched
PARTS = ("copies", "datasets", "features", "networks", "pixels", "runtimes", "weights")
TEMPORARY = re.compile(r"^\.(.+)\.\d+-[0-9a-f]{8}$")  # names that `replacing` gives: NAME in \1


def cache_root() -> Path:
    """`$FOVEATE_CACHE`, else the platform's cache folder for this user. It need not exist yet."""
    folder = os.environ.get("FOVEATE_CACHE")
    return Path(folder or platformdirs.user_cache_dir("foveate", appauthor=False))


def cache_size() -> dict[str, int]:
    """Bytes in each part of the cache, by the part's name."""
    found = {}
    for name in PARTS:
        with contextlib.suppress(OSError):  # it is shut
            if (part := cache_root() / name).is_dir():
                found[name] = sum(map(size_of, part.rglob("*")))
    return found


def size_of(path: Path) -> int:
    """Bytes of a regular file; 0 of all else, and of what another process has just removed."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


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
        name, cached = quoted(path), path.is_relative_to(cache_root())
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FoveateError(
                f"the disk is full: {name} could not be written and nothing was replaced; free "
                f"some space, or point {option('out')} or FOVEATE_CACHE to another disk"
            ) from error
        if error.errno == errno.EFBIG:
            raise FoveateError(
                f"{name} could not be written and nothing was replaced: it is larger than the "
                "system lets this process write (ulimit -f)"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "set FOVEATE_CACHE to" if cached else "choose"
            raise FoveateError(
                f"no permission to write {name}; {remedy} a folder that you may write to"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            remedy = "set FOVEATE_CACHE to another folder" if cached else "choose another name"
            raise UsageError(
                f"{name} cannot be written: a file or a folder is in the way; {remedy}"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                f"{name} cannot be written: the name is too long for this system; choose a "
                "shorter one"
            ) from error
        if error.errno == errno.ENOENT:
            there = path.parent.is_dir()
            why = (
                f"{quoted(path.parent)} takes no new files"
                if there
                else f"there is no folder {quoted(path.parent)}, and none can be made there"
            )
            remedy = "set FOVEATE_CACHE to another folder" if cached else "choose another"
            raise FoveateError(f"{name} cannot be written: {why}; {remedy}") from error
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


# Reading back


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it cannot be read; also of a pipe or a device, which would be waited for for ever.
    """
    return check_regular(path).read_bytes()


def check_regular(path: Path) -> Path:
    """The path of a regular file; OSError if it is anything else."""
    if not stat.S_ISREG(path.stat().st_mode):
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, "not a regular file", str(path))
    return path


def read_object(path: Path, form: Any) -> dict[str, Any]:
    """A JSON object that Foveate wrote, checked.

    Args:
        path: of the file.
        form: of the object, as `check` takes it.

    Raises:
        ArtefactError: the file is missing, may not be read, or is of another form.
    """
    try:
        value = json.loads(read_bytes(path).decode("utf-8"))
        check(value, form)
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    found: dict[str, Any] = value
    return found


def unreadable(path: Path, error: Exception) -> ArtefactError:
    """What to raise where a file of a run, a classifier or the cache cannot be used."""
    name = quoted(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ArtefactError(f"{name} is missing; train again, or restore it from a backup")
    if isinstance(error, PermissionError):
        return ArtefactError(f"no permission to read {name}; ask its owner for it")
    if isinstance(error, OSError):
        return ArtefactError(f"{name} cannot be read: {error.strerror or error}")
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ArtefactError(f"{name} is damaged ({reason}); train again, or restore it from a backup")


def check(value: Any, form: Any, where: str = "") -> None:
    """Check that a JSON value is of a form.

    Args:
        value: read from a file.
        form: a type, whose numbers are finite, and `float` includes whole ones; a list of one form,
            that of each entry; a dict of forms by key, "key?" where it may be left out, `str` for
            any other key; a tuple, one of which it is; None; or a predicate, whose name is what
            was expected.
        where: what the value is called in the message.

    Raises:
        ValueError: it is not; the message has the first place where.

    >>> check({"epoch": 1, "loss": [0.5]}, {"epoch": int, "loss": [float], "best?": str})
    >>> check({"epoch": 1, "loss": [None]}, {"epoch": int, "loss": [float], "best?": str})
    Traceback (most recent call last):
    ValueError: loss[0] is null, not a finite number
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise mismatch(value, "an object", where)
        above = f"{where}." if where else ""
        for key, entry in value.items():
            inner = form.get(key, form.get(f"{key}?", form.get(str, ...)))
            if inner is not ...:
                check(entry, inner, f"{above}{key}")
        for key in form:
            if isinstance(key, str) and not key.endswith("?") and key not in value:
                raise ValueError(f"{above}{key} is missing")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise mismatch(value, "a list", where)
        for i, entry in enumerate(value):
            check(entry, form[0], f"{where}[{i}]")
    elif isinstance(form, tuple):
        if not any(is_of(value, one) for one in form):
            check(value, form[-1], where)
    elif form is None or isinstance(form, type):
        if not is_of_type(value, form):
            raise mismatch(value, FORMS[form], where)
    elif not form(value):
        raise mismatch(value, form.__name__.replace("_", " "), where)


FORMS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    None: "null",
}


def is_of(value: Any, form: Any) -> bool:
    """Whether `check` passes."""
    try:
        check(value, form)
    except ValueError:
        return False
    return True


def is_of_type(value: Any, form: Any) -> bool:
    if form is None or form is bool:
        return value is None if form is None else isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if form is float:
        return isinstance(value, (int, float)) and abs(value) < 1e300 and math.isfinite(value)
    return isinstance(value, form)


def mismatch(value: Any, expected: str, where: str) -> ValueError:
    try:
        found = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        found = type(value).__name__
    short = found if len(found) <= 60 else f"{found[:60]}..."
    return ValueError(f"{where or 'it'} is {short}, not {expected}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file; OSError if it is none."""
    with check_regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value; it does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
