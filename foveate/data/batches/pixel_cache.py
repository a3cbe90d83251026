"""Kept pixels: what was decoded once is not decoded again.

A cache knows an image by the digest of its bytes and by the rule that made its pixels
(`source.py`), so that nothing is confused with what another file, size or decoder gave. It is
bounded, and an image that does not fit is decoded each time: all caches give the same pixels. In an
epoch each image comes once, so to throw out what was used longest ago would be to throw out what
comes next; what is kept stays.
"""

import contextlib
import os
import shutil
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from foveate.data.image import Pixels
from foveate.errors import UsageError, quoted
from foveate.machine import free_memory
from foveate.storage import cache_root, fingerprint, read_bytes

CacheKind = Literal["off", "ram", "disk"]

# of the memory that is free when a cache is made; training and validation may each have one
RAM_SHARE = 0.4
DISK_LIMIT = 16 << 30  # bytes of kept pixels, all rules together
DISK_SHARE = 0.5  # of the free space, at most
# of the limit is taken at a time; then the folder is read again, since other runs write there too
STEP = 1 / 32

MAGIC = b"FOVEPX1\n"
HEADER = struct.Struct("<8sIIII")  # magic, height, width, channels, CRC-32 of the pixels


class PixelCache(Protocol):
    """Where pixels are kept. All of it may be called from many threads."""

    def find(self, digest: str) -> Pixels | None:
        """What is kept of the image with this SHA-256."""

    def keep(self, digest: str, pixels: Pixels) -> None:
        """Keep them, if there is room."""

    @property
    def room(self) -> int:
        """Bytes of this process's memory that may still be taken."""

    def notes(self) -> list[str]:
        """What a person should know, in sentences."""


def open_cache(
    kind: CacheKind, identity: Mapping[str, object], limit: int | None = None
) -> PixelCache:
    """The cache that is asked for.

    Args:
        kind: "off"; "ram", this process's memory; "disk", the cache folder, which other processes
            and later runs share.
        identity: of the rule that makes the pixels: everything that decides what they are.
        limit: bytes; by default RAM_SHARE of the free memory, and DISK_LIMIT.

    Raises:
        UsageError: no such kind; a negative limit.
    """
    if limit is not None and limit < 0:
        raise UsageError(f"a cache of {limit} bytes is less than nothing")
    if kind == "ram":
        return RamCache(int(RAM_SHARE * free_memory()) if limit is None else limit)
    if kind == "disk":
        return DiskCache(identity, DISK_LIMIT if limit is None else limit)
    if kind != "off":
        raise UsageError(f"no cache is called {kind!r}; expected off, ram or disk")
    return RamCache(0)


class RamCache:
    """Pixels in this process's memory, in the order in which they came until `limit` bytes are
    full."""

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0
        self.kept: dict[str, Pixels] = {}
        self.refused: set[str] = set()
        self.lock = threading.Lock()

    def find(self, digest: str) -> Pixels | None:
        return self.kept.get(digest)

    def keep(self, digest: str, pixels: Pixels) -> None:
        with self.lock:
            if digest in self.kept:
                return
            if self.used + pixels.nbytes > self.limit:
                self.refused.add(digest)
                return
            self.used += pixels.nbytes
            self.kept[digest] = pixels

    @property
    def room(self) -> int:
        return self.limit - self.used

    def notes(self) -> list[str]:
        if not self.refused or not self.limit:
            return []
        return [
            f"{self.used / 1e9:.1f} GB of memory are full of pixels: {len(self.refused)} images "
            "did not fit"
        ]


class DiskCache:
    """Pixels in the cache folder, a file an image, named by its digest.

    A file is written beside its place and moved there, so another process sees all of it or
    nothing, and two that keep the same image write the same bytes. It is not flushed to the disk,
    which would take longer than to decode: what a crash of the machine leaves is found by its CRC
    at the first reading, deleted and made again. Files are read, not mapped: a mapped file that
    another process cuts short ends this one with a bus error.
    """

    def __init__(self, identity: Mapping[str, object], limit: int):
        self.root = cache_root() / "pixels"
        self.folder = self.root / fingerprint(identity)[:32]
        self.limit = limit
        self.measured = False  # the folder and the disk
        self.budget = 0  # bytes that may be written before the folder is read again
        self.full = ""  # why nothing more is kept
        self.refused: set[str] = set()
        self.checked: set[str] = set()
        self.damaged = 0
        self.begun = time.time()
        self.lock = threading.Lock()

    def place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def find(self, digest: str) -> Pixels | None:
        path = self.place(digest)
        try:
            data = read_bytes(path)
        except OSError:
            return None
        first = digest not in self.checked
        pixels = unpack(data, check=first)
        if pixels is None:
            self.damaged += 1
            with contextlib.suppress(OSError):
                path.unlink()
        elif first:
            self.checked.add(digest)
            with contextlib.suppress(OSError):
                os.utime(path)  # used now: the last to go
        return pixels

    def keep(self, digest: str, pixels: Pixels) -> None:
        path = self.place(digest)
        if path.is_file():  # another process was faster
            return
        data = pack(pixels)
        with self.lock:
            if not self.full and self.budget < len(data):
                self.budget = self.make_room(len(data))
                if self.budget < len(data):
                    self.full = f"its {self.limit / 1e9:.1f} GB, or half of the disk, are used"
            if self.full:
                self.refused.add(digest)
                return
            self.budget -= len(data)
        temporary = path.with_name(f".{digest[:8]}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        # the cache was cleared just now; the next image makes its folder again
        except FileNotFoundError:
            pass
        except OSError as error:
            self.full = f"{quoted(self.root)} cannot be written: {error.strerror or error}"
            self.refused.add(digest)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def make_room(self, least: int) -> int:
        """Delete what no run has used since this one began, if need be, the oldest first; gives
        bytes to write now."""
        files = []
        for path in self.root.rglob("*"):
            with contextlib.suppress(OSError):  # another process has just removed it
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
        used = sum(size for _, size, _ in files)
        if not self.measured:
            self.root.mkdir(parents=True, exist_ok=True)
            self.limit = min(self.limit, used + int(DISK_SHARE * shutil.disk_usage(self.root).free))
            self.measured = True
        wanted = max(least, int(STEP * self.limit))
        for used_last, size, path in sorted(files):
            if used + wanted <= self.limit or used_last >= self.begun:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                used -= size
        return min(wanted, self.limit - used)

    @property
    def room(self) -> int:
        return 0

    def notes(self) -> list[str]:
        notes = []
        if self.full:
            notes.append(
                f"the disk cache of pixels is full ({self.full}): {len(self.refused)} images did "
                "not fit"
            )
        if self.damaged:
            notes.append(
                f"{self.damaged} damaged files in the disk cache of pixels were made again"
            )
        return notes


def pack(pixels: Pixels) -> bytes:
    """A header and the pixels as they are."""
    raw = np.ascontiguousarray(pixels).tobytes()
    return HEADER.pack(MAGIC, *pixels.shape, zlib.crc32(raw)) + raw


def unpack(data: bytes, check: bool = True) -> Pixels | None:
    """What `pack` packed; None if it is anything else. Without `check` the pixels themselves are
    taken on trust."""
    if len(data) < HEADER.size:
        return None
    magic, height, width, channels, crc = HEADER.unpack_from(data)
    size = height * width * channels
    if magic != MAGIC or channels not in (1, 3) or size == 0 or len(data) != HEADER.size + size:
        return None
    if check and zlib.crc32(memoryview(data)[HEADER.size :]) != crc:
        return None
    return np.frombuffer(data, np.uint8, offset=HEADER.size).reshape(height, width, channels)
