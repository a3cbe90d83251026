"""Checkpoints: the whole state of a training, from which it resumes bit for bit.

    checkpoints/epoch-0003-batch-000000-5d0c...safetensors   the state after three epochs
    checkpoints/best-0002-91ab...safetensors                 the network after the best epoch so far

A file's name ends in the SHA-256 of its bytes. It is written under a temporary name, flushed and
renamed, so a file with its final name is complete, and later damage on the disk is detected. The
two newest checkpoints are kept: if one is damaged, training resumes from the other.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from foveate.errors import ArtefactError, printable, quoted
from foveate.storage import check, disk_errors, is_of, read_bytes, sync, unreadable

KEPT = 2
NAME = re.compile(r"(epoch-\d{4,}-batch-\d{6,}|best-\d{4,})-([0-9a-f]{64})\.safetensors")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """An undamaged checkpoint.

    Args:
        path: its file.
        tensors: the saved ones.
        about: the metadata saved with them: epoch, batch, and the caller's own.
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
        folder: created if it does not exist.
        epoch, batch: epochs done, and batches done of the next one.
        tensors: of the network, the optimiser and so on.
        about: metadata, any JSON value.
        best: what `save_best` returned for the best epoch so far.

    Raises:
        FoveateError: the disk is full or the folder cannot be written to; earlier checkpoints
            stay as they were.
    """
    about = about | {"epoch": epoch, "batch": batch, "best": best}
    path = write(folder, f"epoch-{epoch:04}-batch-{batch:06}", tensors, about)
    tidy(folder, path, best)
    return path


def save_best(folder: Path, epoch: int, tensors: State) -> str:
    """Write the tensors of the best epoch so far; returns the name for `save_checkpoint`."""
    return write(folder, f"best-{epoch:04}", tensors, {}).name


def latest(folder: Path, log: Callable[[str], object]) -> Found | None:
    """The newest undamaged checkpoint; None if there is none at all.

    Args:
        folder: of the checkpoints; it need not exist.
        log: receives a message for each damaged one.

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
            log(f"{error}; trying the checkpoint before it")
    if paths:
        raise ArtefactError(
            f"every checkpoint in {quoted(folder)} is damaged: the run cannot be resumed; train "
            "again"
        )
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
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
    """Write tensors and metadata to a file named by its SHA-256, atomically."""
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
            if path.is_dir():  # a file cannot replace a folder
                path.rename(path.with_suffix(".folder"))
            temporary.replace(path)
            sync(folder)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def read(path: Path) -> tuple[dict[str, Any], State]:
    """(metadata, tensors) of a file; ArtefactError if a byte differs from what was written."""
    try:
        data = read_bytes(path)
        found = NAME.fullmatch(path.name)
        if not found or hashlib.sha256(data).hexdigest() != found[2]:
            raise ValueError("its SHA-256 is not that of its name")
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        check(about, ABOUT if path.name.startswith("epoch") else {}, "its metadata")
        return about, load(data)
    except FileNotFoundError:
        raise ArtefactError(f"the checkpoint {quoted(path)} is damaged (it is missing)") from None
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        reason = printable(str(error)[:200])
        raise ArtefactError(f"the checkpoint {quoted(path)} is damaged ({reason})") from error


def a_count(value: Any) -> bool:
    return is_of(value, int) and 0 <= value < 2**63


def the_name_of_a_file_or_empty(value: Any) -> bool:
    return isinstance(value, str) and (not value or bool(NAME.fullmatch(value)))


# what every checkpoint says; the caller checks what it added
ABOUT = {"epoch": a_count, "batch": a_count, "best": the_name_of_a_file_or_empty}


def tidy(folder: Path, fresh: Path, best: str) -> None:
    """Remove all but the new checkpoint, the newest undamaged ones up to KEPT, and their best."""
    for path in folder.glob(".*.tmp"):  # left by processes that were killed
        path.unlink(missing_ok=True)
    kept, mentioned = 1, {best}
    for path in checkpoints(folder):
        if path == fresh:
            continue
        if kept < KEPT:
            # a damaged one is removed: it must not take the place of an undamaged one
            with contextlib.suppress(ArtefactError):
                mentioned.add(read(path)[0]["best"])
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
    """A module's state_dict with a prefix before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def part_of(tensors: State, prefix: str) -> State:
    """The tensors whose names begin with a prefix, under their names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
