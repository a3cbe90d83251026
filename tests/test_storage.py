import errno
import json
import math
import multiprocessing
import os
import re
import threading
from pathlib import Path

import platformdirs
import pytest
from refusals import refused

from foveate import storage
from foveate.errors import FoveateError, UsageError
from foveate.storage import (
    cache_root,
    cache_size,
    clear_cache,
    disk_errors,
    fingerprint,
    replacing,
    sha256,
    sync,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder, without the cache in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def test_cache_root(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root() == cache
    for unset in (
        lambda: monkeypatch.setenv("FOVEATE_CACHE", ""),
        lambda: monkeypatch.delenv("FOVEATE_CACHE"),
    ):
        unset()
        assert cache_root() == Path(platformdirs.user_cache_dir("foveate", appauthor=False))


def test_a_cache_that_is_not_there(cache: Path) -> None:
    assert cache_size() == {}
    assert clear_cache() == 0
    assert not cache.exists()


def test_clearing_leaves_what_is_not_ours(cache: Path) -> None:
    sizes = {"features/a/x": 10, "features/y": 5, "weights/z": 7, "Documents/thesis": 99, "note": 3}
    for name, size in sizes.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("x" * size)
    (cache / "networks").mkdir()
    assert cache_size() == {"features": 15, "networks": 0, "weights": 7}
    assert clear_cache() == 22
    assert contents(cache) == {"Documents/thesis": "x" * 99, "note": "xxx"}
    assert cache_size() == {}


def test_clearing_does_not_follow_links(cache: Path, home: Path) -> None:
    (home / "mine").write_text("mine")
    (cache / "features").mkdir(parents=True)
    (cache / "features" / "link").symlink_to(home)
    (cache / "weights").symlink_to(home)
    assert clear_cache() == 0
    assert contents(home) == {"mine": "mine"}


def test_every_part_of_the_cache_is_counted() -> None:
    package = Path(storage.__file__).parent
    used = {
        part
        for file in package.rglob("*.py")
        for part in re.findall(r'cache_root\(\)\s*/\s*"(\w+)"', file.read_text())
    }
    assert used == set(storage.PARTS)


def test_a_file_is_replaced(home: Path) -> None:
    path = home / "deep" / "er" / "x.txt"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent and temporary != path
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert contents(home) == {"deep/er/x.txt": text}


def test_a_folder_is_replaced(home: Path) -> None:
    path = home / "model"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / "sub" / text).write_text(text)
            assert not path.exists() or contents(path) == {"sub/first": "first"}
        assert contents(home) == {f"model/sub/{text}": text}
        assert names(home) == ["model"]


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EIO, "I/O")]
)
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_the_old_content_and_nothing_else(
    home: Path, error: BaseException, kind: str, existing: bool
) -> None:
    path = home / "x"
    file = path / "part" if kind == "folder" else path
    if existing:
        file.parent.mkdir(exist_ok=True)
        file.write_text("old")
    before = contents(home)
    with pytest.raises(type(error)) as caught, replacing(path) as temporary:
        target = temporary / "part" if kind == "folder" else temporary
        target.parent.mkdir(exist_ok=True)
        target.write_text("half of it")
        raise error
    assert caught.value is error
    assert contents(home) == before
    assert names(home) == (["x"] if existing else [])


@pytest.mark.parametrize("step", ["sync", "move_onto"])
def test_a_failure_at_the_very_end(home: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = home / "x"
    path.write_text("old")

    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, step, full)
    with refused(FoveateError, str(path), "disk"), replacing(path) as temporary:
        temporary.write_text("new")
    assert contents(home) == {"x": "old"}


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "x").mkdir()
    (home / "x" / "part").write_text("old")
    replace = Path.replace

    def failing(path: Path, target: Path) -> Path:
        if target.name == "x" and not path.name.endswith(".old"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", failing)
    with refused(FoveateError, str(home / "x"), "disk"), replacing(home / "x") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("new")
    assert contents(home) == {"x/part": "old"}
    assert names(home) == ["x"]


def test_a_folder_does_not_replace_a_file(home: Path) -> None:
    (home / "x").write_text("old")
    with (
        refused(UsageError, str(home / "x"), "in the way"),
        replacing(home / "x") as temporary,
    ):
        temporary.mkdir()
    assert contents(home) == {"x": "old"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.ENOENT])
def test_a_cache_that_takes_nothing_names_its_variable(cache: Path, home: Path, code: int) -> None:
    for path, remedy in ((cache / "weights" / "x", "FOVEATE_CACHE"), (home / "x", "choose")):
        with pytest.raises(FoveateError) as caught, disk_errors(path):
            raise OSError(code, os.strerror(code))
        assert str(path) in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported(home: Path, code: int) -> None:
    with (
        refused(FoveateError, str(home / "x"), "disk is full", "out", "FOVEATE_CACHE"),
        replacing(home / "x"),
    ):
        raise OSError(code, os.strerror(code))


def test_a_full_disk_inside_a_folder_names_the_folder_to_be(home: Path) -> None:
    with (
        refused(FoveateError, str(home / "x" / "inner"), "disk is full"),
        replacing(home / "x") as outer,
        replacing(outer / "inner"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_missing_permission_is_reported(home: Path, code: int) -> None:
    with (
        refused(FoveateError, str(home / "x"), "permission"),
        replacing(home / "x"),
    ):
        raise OSError(code, os.strerror(code))


def test_a_parent_that_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with (
        refused(FoveateError, str(home / "deep" / "x"), "permission"),
        replacing(home / "deep" / "x"),
    ):
        raise AssertionError("not reached")


def test_other_errors_pass() -> None:
    with refused(OSError, "Input/output error"), disk_errors(Path("x")):
        raise OSError(errno.EIO, "Input/output error")
    with disk_errors(Path("x")):
        pass


def test_files_and_folders_are_flushed_before_the_rename(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    move = storage.move_onto
    monkeypatch.setattr(
        storage, "sync", lambda path: done.append(path.name if path == home else "part")
    )
    monkeypatch.setattr(storage, "move_onto", lambda a, b: (done.append("move"), move(a, b)))
    with replacing(home / "x") as temporary:
        temporary.mkdir()
        (temporary / "1").touch()
        (temporary / "2").touch()
    assert done == ["part", "part", "part", "move", "home"]


def test_sync(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    sync(home)
    (home / "x").touch()
    sync(home / "x")
    assert len(flushed) == 2
    for handle in set(flushed):
        with refused(OSError, "Bad file descriptor"):
            os.fstat(handle)


def test_sync_skips_folders_on_windows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setattr(os, "open", denied)
        sync(home)


def write_often(path: Path, text: str, folder: bool) -> None:
    for _ in range(25):
        with replacing(path) as temporary:
            if folder:
                temporary.mkdir()
                for part in ("1", "2"):
                    (temporary / part).write_text(text * 1000)
            else:
                temporary.write_text(text * 1000)


@pytest.mark.parametrize("folder", [False, True])
def test_threads_that_write_the_same_thing(home: Path, folder: bool) -> None:
    failures: list[BaseException] = []

    def attempt(text: str) -> None:
        try:
            write_often(home / "x", text, folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(text,)) for text in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(home) == ["x"]
    texts = set(contents(home).values())
    assert len(texts) == 1 and texts <= {text * 1000 for text in "abcd"}


def test_processes_that_write_the_same_thing(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write_often, args=(home / "x", text, True)) for text in "ab"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert names(home) == ["x"]
    assert len(set(contents(home).values())) == 1


def test_a_reader_sees_a_whole_file(home: Path) -> None:
    path = home / "x"
    path.write_text("a" * 1000)
    writer = threading.Thread(target=write_often, args=(path, "a", False))
    writer.start()
    while writer.is_alive():
        assert path.read_text() == "a" * 1000
    writer.join()


@pytest.mark.parametrize(
    "value", [{}, [], None, "é\ud800 😀\n", 0.1, 10**30, {"a": [1, {"b": None}]}, True], ids=ascii
)
def test_json_round_trip(home: Path, value: object) -> None:
    write_json(home / "x.json", value)
    text = (home / "x.json").read_bytes()
    assert json.loads(text) == value
    assert text.endswith(b"\n")


def test_json_keeps_letters_and_escapes_what_hides(home: Path) -> None:
    write_json(home / "x.json", {"café": "猫\x9b\u202e\udcff\x7f"})
    assert (home / "x.json").read_bytes().decode() == (
        '{\n "café": "猫\\u009b\\u202e\\udcff\\u007f"\n}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, {"loss": [1.0, -math.inf]}])
def test_json_refuses_what_json_cannot_say(home: Path, value: object) -> None:
    write_json(home / "x.json", {"old": 1})
    with refused(ValueError, "JSON compliant"):
        write_json(home / "x.json", value)
    with refused(TypeError, "JSON serializable"):
        write_json(home / "x.json", object())
    assert json.loads((home / "x.json").read_text()) == {"old": 1}
    assert names(home) == ["x.json"]


def test_sha256(home: Path) -> None:
    (home / "x").write_bytes(b"abc")  # FIPS 180-2, B.1
    assert sha256(home / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fingerprint() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert len({fingerprint(v) for v in (1, "1", [1], {"1": 1}, None, 1.5)}) == 6
    assert len(bytes.fromhex(fingerprint(None))) == 32
