"""Copies that were found once are not looked for again: the same images have the same copies.

The cache knows the images by all that `find_copies` compares, and holds nothing but pairs of rows.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from foveate.audit.copies import Greys, find_copies
from foveate.audit.neighbours import Array
from foveate.errors import ArtefactError, FoveateError
from foveate.progress import Progress
from foveate.storage import cache_root, read_object, write_json

RULES = 1  # goes up with each change of copies.py by which other pairs are found
KEPT = 256  # data sets, of which the copies are kept


def known_copies(
    greys: Greys,
    features: Array,
    digests: Sequence[str],
    size: Callable[[int], tuple[int, int]] | None,
    threads: int,
    progress: Progress,
) -> list[tuple[int, int, str]]:
    """The pairs that `find_copies` finds, with how they differ, from the cache where they are
    known.

    Args:
        greys, features, size, threads, progress: of `find_copies`.
        digests: of the images' bytes, by which the sizes are known.
    """
    path = cache_root() / "copies" / f"{key(greys, features, digests)}.json"
    known = read(path, len(greys))
    if known is not None:
        with contextlib.suppress(OSError):  # the cache may be read only
            os.utime(path)  # used now: the last to go
        return known
    found = find_copies(greys, features, size, threads, progress)
    ends = found.pairs.tolist()
    pairs = [(a, b, kind) for (a, b), kind in zip(ends, found.kinds, strict=True)]
    first, second, kinds = ([pair[i] for pair in pairs] for i in range(3))
    with contextlib.suppress(FoveateError):  # the cache may be read only: they are found again
        write_json(path, {"first": first, "second": second, "kinds": kinds})
    trim(path.parent)
    return pairs


def key(greys: Greys, features: Array, digests: Sequence[str]) -> str:
    said = hashlib.sha256(f"{RULES} {features.shape} {'/'.join(digests)}".encode())
    said.update(np.ascontiguousarray(greys).data)
    said.update(np.ascontiguousarray(features).data)
    return said.hexdigest()[:32]


def read(path: Path, n: int) -> list[tuple[int, int, str]] | None:
    """What the file has of `n` images; None where it is missing or damaged."""
    try:
        found = read_object(path, {"first": [int], "second": [int], "kinds": [str]})
        pairs = list(zip(found["first"], found["second"], found["kinds"], strict=True))
    except (ArtefactError, ValueError):
        return None
    return pairs if all(0 <= a < b < n for a, b, _ in pairs) else None


def trim(folder: Path) -> None:
    """Delete the files that were unused for longest, but for KEPT."""
    files = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError):  # another run has just removed it
            files.append((path.stat().st_mtime, path))
    for _, path in sorted(files)[:-KEPT]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
