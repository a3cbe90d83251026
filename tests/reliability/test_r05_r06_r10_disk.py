"""The disk: killed while saving (R5), damaged afterwards (R6), full (R10)."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import absent, refused
from toy import CONFIG, same, small, train

from foveate import checkpoint
from foveate.checkpoint import latest, save_best, save_checkpoint
from foveate.errors import ArtefactError, FoveateError

pytestmark = pytest.mark.usefixtures("warm_cache")

KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from foveate.checkpoint import latest, save_best, save_checkpoint as save

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
rng = random.Random(0)
torch.testing  # loaded once, before the children
found = latest(folder, print)
n, messages = 0, []
for _ in range(kills):
    child = os.fork()
    if not child:
        while True:
            n += 1
            tensors = {f"t{i}": torch.full((20_000,), float(n)) for i in range(8)}
            best = save_best(folder, n, tensors)
            save(folder, n, 0, tensors, {"n": n}, best)
    time.sleep(rng.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = latest(folder, messages.append)
    if found:
        assert found.about["n"] >= n, "an older one was left than before"
        n = found.about["n"]
        for tensors in (found.tensors, found.best):
            assert len(tensors) == 8 and all((t == n).all() for t in tensors.values())
left = [p.name for p in folder.iterdir()]
print(json.dumps({"n": n, "messages": messages, "left": left}))
"""


@pytest.mark.slow
def test_r5_killed_while_saving(python: Callable[..., str], tmp_path: Path) -> None:
    answer = json.loads(python(KILLS, tmp_path, 50))
    assert answer["n"] > 10  # it did save, and was killed between and in the midst of saves
    assert answer["messages"] == []  # nothing that had a name was ever damaged
    halves = [name for name in answer["left"] if name.endswith(".tmp")]
    assert len(halves) <= 2
    found = latest(tmp_path, print)
    assert found
    save_checkpoint(tmp_path, found.about["n"] + 1, 0, found.tensors, {}, found.about["best"])
    # what the killed ones left is removed by the next save
    assert not list(tmp_path.glob(".*.tmp"))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # in a tensor: no format would notice
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FOUR = replace(CONFIG, epochs=4)
DAMAGES = [truncate, flip, empty, make_folder, make_loop, make_pipe]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The checkpoints of a training of two epochs of four."""
    folder = tmp_path / "checkpoints"
    network = small()
    with pytest.raises(KeyboardInterrupt):
        train(network, folder, config=FOUR, on_epoch=stop_after(2))
    return folder


def stop_after(epoch: int) -> Callable[..., None]:
    def interrupt(record) -> None:  # type: ignore[no-untyped-def]
        if record.epoch == epoch:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_r6_a_damaged_checkpoint_is_noticed(damage: Callable[[Path], None], trained: Path) -> None:
    whole = small()
    train(whole, config=FOUR)
    newest = next(trained.glob("epoch-0002-*"))
    damage(newest)
    messages: list[str] = []
    epochs: list[int] = []
    again = small(1)
    train(
        again,
        trained,
        resume=True,
        config=FOUR,
        log=messages.append,
        on_epoch=lambda r: epochs.append(r.epoch),
    )
    assert len(messages) == 1
    assert not absent(messages[0], f"'{newest}'", "damaged")
    assert epochs == [2, 3, 4]
    assert same(again, whole)
    left = sorted(path.name[:10] for path in trained.glob("epoch-*") if path.is_file())
    assert left == ["epoch-0003", "epoch-0004"]


def test_r6_damaged_best_weights_are_noticed(tmp_path: Path) -> None:
    tensors = {"x": torch.ones(3)}
    save_checkpoint(tmp_path, 1, 0, tensors, {}, save_best(tmp_path, 1, tensors))
    save_checkpoint(tmp_path, 2, 0, tensors, {}, save_best(tmp_path, 2, {"x": torch.zeros(3)}))
    messages: list[str] = []
    flip(next(tmp_path.glob("best-0002*")))
    found = latest(tmp_path, messages.append)
    assert found and found.path.name.startswith("epoch-0001")
    assert not absent(messages[0], "best-0002", "SHA-256")
    next(tmp_path.glob("best-0001*")).unlink()
    with refused(ArtefactError, str(tmp_path), "damaged"):
        latest(tmp_path, messages.append)
    assert not absent(messages[-1], "best-0001", "missing")


def test_r6_all_damaged(trained: Path) -> None:
    for path in trained.iterdir():
        truncate(path)
    with refused(ArtefactError, str(trained), "damaged"):
        train(small(), trained, resume=True, config=FOUR)
    assert len(list(trained.glob("epoch-*"))) == 2  # kept, in case they can be repaired


def test_r6_a_damaged_one_does_not_push_out_a_whole_one(trained: Path) -> None:
    truncate(next(trained.glob("epoch-0002-*")))
    with pytest.raises(KeyboardInterrupt):
        train(small(), trained, resume=True, config=FOUR, on_epoch=stop_after(2))
    assert sorted(path.name[:10] for path in trained.glob("epoch-*")) == [
        "epoch-0001",
        "epoch-0002",
    ]
    messages: list[str] = []
    found = latest(trained, messages.append)
    assert found and found.path.name.startswith("epoch-0002")
    assert messages == []


@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_r10_disk_full(at: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if at == "write":
            opened = Path.open

            class Full:
                def __init__(self, file) -> None:  # type: ignore[no-untyped-def]
                    self.file, self.left = file, 1000

                def __getattr__(self, name: str) -> object:
                    return getattr(self.file, name)

                def __enter__(self) -> "Full":
                    return self

                def __exit__(self, *_: object) -> None:
                    self.file.close()

                def write(self, data: bytes) -> None:
                    self.file.write(data[: self.left])
                    self.left -= len(data)
                    if self.left < 0:
                        full()

            def open_full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
                file = opened(path, mode, *rest, **options)
                return Full(file) if mode == "wb" else file

            patch.setattr(Path, "open", open_full)
        else:
            patch.setattr(
                *{"fsync": (checkpoint.os, "fsync"), "rename": (Path, "replace")}[at], full
            )
        with refused(FoveateError, "epoch-0003-batch-000000", "disk is full"):
            train(small(), trained, resume=True, config=FOUR)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before
    again, whole = small(1), small()
    train(again, trained, resume=True, config=FOUR)
    train(whole, config=FOUR)
    assert same(again, whole)


FULL = """
import sys
from pathlib import Path
import torch
from foveate.checkpoint import latest, save_checkpoint as save
from foveate.errors import FoveateError

folder = Path(sys.argv[1])
small, large = {"x": torch.ones(10_000)}, {"x": torch.ones(1_000_000)}
save(folder, 1, 0, small, {}, "")
try:
    save(folder, 2, 0, large, {}, "")
except FoveateError as error:
    print(error)
found = latest(folder, print)
print(found.path.name[:10], [p.name[:10] for p in folder.iterdir()])
"""
OWN_DISK = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'


def test_r10_a_disk_that_is_full(tmp_path: Path) -> None:
    """A real disk of one megabyte, where the system lets a test have one."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode
    ):
        pytest.skip("no file system of its own for this test")
    run = ["unshare", "-rm", "sh", "-c", OWN_DISK, "sh", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(
        run,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    error, found = done.stdout.splitlines()
    assert "disk is full" in error
    assert found == "epoch-0001 ['epoch-0001']"
