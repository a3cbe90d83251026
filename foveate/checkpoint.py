"""Checkpoints: all that a training needs to go on as if nothing had happened.

    checkpoints/epoch-0003-batch-000000-5d0c...safetensors   the state with three epochs done
    checkpoints/best-0002-91ab...safetensors                 the network's tensors of the best epoch
    so far

A file's name ends in the SHA-256 of its bytes. A file is written beside its place, flushed and
renamed, so what has a name is whole, and what a disk has damaged since is noticed. The two newest
checkpoints stay: if one is damaged, training goes on from the other.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from foveate.errors import ArtefactError
from foveate.storage import disk_errors, sync

KEPT = 2
NAME = re.compile(r"(epoch-\d{4,}-batch-\d{6,}|best-\d{4,})-([0-9a-f]{64})\.safetensors")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole.

    Args:
        path: its file.
        tensors: what was saved.
        about: what was saved beside them: epoch, batch, and the caller's own.
        best: the tensors of the best epoch so far; {} if there was none.
    """

    path: Path
    tensors: State
    about: dict[str, Any]
    best: State


def save_checkpoint(
    folder: Path, epoch: int, batch: int, tensors: State, about: dict[str, Any], best: str = ""
) -> Path:
    """Write a checkpoint and remove those that are no longer needed.

    Args:
        folder: is made if need be.
        epoch, batch: how far the training is: epochs done, and batches of the next one.
        tensors: of the network, the optimiser and so on.
        about: anything that JSON can hold.
        best: what `save_best` returned for the best epoch so far.

    Raises:
        FoveateError: the disk is full or the folder shut; the checkpoints that were there are as
            they were.
    """
    about = about | {"epoch": epoch, "batch": batch, "best": best}
    path = write(folder, f"epoch-{epoch:04}-batch-{batch:06}", tensors, about)
    tidy(folder, path, best)
    return path


def save_best(folder: Path, epoch: int, tensors: State) -> str:
    """Write the tensors of the best epoch so far; gives the name under which a checkpoint mentions
    them."""
    return write(folder, f"best-{epoch:04}", tensors, {}).name


def latest(folder: Path, log: Callable[[str], object]) -> Found | None:
    """The newest checkpoint that is whole; None if there is none at all.

    Args:
        folder: of the checkpoints; it need not exist.
        log: hears of each that is damaged.

    Raises:
        ArtefactError: there are checkpoints, and all are damaged.
    """
    paths = checkpoints(folder)
    for path in paths:
        try:
            about, tensors = read(path)
            best = read(folder / about["best"])[1] if about["best"] else {}
            return Found(path, tensors, about, best)
        except ArtefactError as error:
            log(f"{error}; going back to the checkpoint before it")
    if paths:
        raise ArtefactError(
            f"no checkpoint in '{folder}' is whole: there is nothing to go on from; train anew"
        )
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Those in a folder, the newest first."""
    names = sorted(
        (p.name for p in folder.glob("epoch-*") if NAME.fullmatch(p.name)),
        key=progress_of,
        reverse=True,
    )
    return [folder / name for name in names]


def progress_of(name: str) -> tuple[int, int]:
    """ "epoch-0003-batch-000012-..." -> (3, 12)"""
    _, epoch, _, batch, _ = name.split("-")
    return int(epoch), int(batch)


def write(folder: Path, stem: str, tensors: State, about: dict[str, Any]) -> Path:
    """A file of tensors, named by its bytes, all of it or nothing."""
    data = save(
        {name: t.detach().contiguous().cpu() for name, t in tensors.items()},
        {"about": json.dumps(about)},
    )
    path = folder / f"{stem}-{hashlib.sha256(data).hexdigest()}.safetensors"
    temporary = folder / f".{stem}.{os.getpid()}.tmp"
    with disk_errors(folder / stem):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if path.is_dir():  # somebody's prank, or a test's: a file cannot take its place
                path.rename(path.with_suffix(".folder"))
            temporary.replace(path)
            sync(folder)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def read(path: Path) -> tuple[dict[str, Any], State]:
    """What was saved beside the tensors, and the tensors; ArtefactError if a byte differs from what
    was written."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for ever
            raise ArtefactError(f"the checkpoint '{path}' is damaged (it is no file)")
        data = path.read_bytes()
        found = NAME.fullmatch(path.name)
        if not found or hashlib.sha256(data).hexdigest() != found[2]:
            raise ArtefactError(
                f"the checkpoint '{path}' is damaged (its SHA-256 is not that of its name)"
            )
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        return about, load(data)
    except FileNotFoundError:
        raise ArtefactError(f"the checkpoint '{path}' is damaged (it is missing)") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ArtefactError(f"the checkpoint '{path}' is damaged ({error})") from error


def tidy(folder: Path, fresh: Path, best: str) -> None:
    """Keep the checkpoint that was just written, the newest KEPT in all that are whole, and the
    best they mention."""
    for path in folder.glob(".*.tmp"):  # of processes that were killed
        path.unlink(missing_ok=True)
    kept, mentioned = 1, {best}
    for path in checkpoints(folder):
        if path == fresh:
            continue
        if kept < KEPT:
            # damaged: it must not push out one that is whole
            with contextlib.suppress(ArtefactError):
                mentioned.add(str(read(path)[0]["best"]))
                kept += 1
                continue
        remove(path)
    for path in folder.glob("best-*"):
        if NAME.fullmatch(path.name) and path.name not in mentioned:
            remove(path)


def remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def tensors_of(module: torch.nn.Module, prefix: str) -> State:
    """A module's state, each name after a prefix."""
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def part_of(tensors: State, prefix: str) -> State:
    """The tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
