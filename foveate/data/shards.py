"""Images in tar files, for sets that are too many files for a file system.

The tars are plain ones in WebDataset's layout: an image, and beside it by the same key its label.

    shard-000000.tar
      foveate.json      of the set, in each tar that `pack` writes: its name and task
      000000000.jpg     the image's bytes, unchanged
      000000000.json    {"file": "train/cat/1.jpg", "label": "cat", "split": "train", "group": ""}
    index.jsonl         where in which tar each image lies, and its SHA-256

Tars that others made are read as they are: a label is what a `.cls` or a `.txt` says, or the field
`label`, `class` or `cls` of a `.json`; its split is the one that the tar's name begins with. The
index gives any image by one read, so that order, splits and folds are those of a folder. It is made
once, by reading the tars from end to end, and again where one was changed.

Nothing of a tar is ever unpacked: names are only names, and members that are no regular files are
left out.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from foveate.data.dataset import BETWEEN, Dataset
from foveate.data.image import SUFFIXES
from foveate.data.listing import Folder
from foveate.data.tables import SPLITS
from foveate.errors import DataError, FoveateError, ImageError, UsageError, quoted
from foveate.progress import Progress, Silent
from foveate.storage import disk_errors, replacing, size_of

INDEX, ABOUT = "index.jsonl", "foveate.json"
FORMAT = 1
SIZE = 1 << 30  # bytes of a shard, about
LONGEST_LABEL = 1 << 16  # bytes of a .cls, .txt or .json
LABELS = {".cls", ".txt", ".json"}
UNNAMED = ".img"  # an image whose file says nothing of its format
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
FIRST_WORD = re.compile("[a-z]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image: the number of its shard, where its bytes lie there, and what is known of it."""

    shard: int
    offset: int
    length: int
    sha256: str
    file: str
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class Shards:
    """A folder of tars, indexed.

    Args:
        root: the folder.
        name: of the set.
        task: "multiclass" or "multilabel".
        tars: names of the files, sorted.
        entries: by the images' names.
        notes: on what was left out.
        sizes: of the files when an index was written, in bytes.
    """

    root: Path
    name: str
    task: str
    tars: tuple[str, ...]
    entries: dict[str, Entry]
    notes: tuple[str, ...]
    sizes: tuple[int, ...] = ()

    def read(self, file: str) -> bytes:
        """An image's bytes.

        Raises:
            ImageError: they are not those that the index has: the tar was changed.
        """
        entry = self.entries[file]
        path = self.root / self.tars[entry.shard]
        try:
            with path.open("rb") as tar:
                tar.seek(entry.offset)
                data = tar.read(entry.length)
        except OSError as error:
            raise ImageError(
                f"image {file!r} cannot be read: {quoted(path)} ({error.strerror})"
            ) from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ImageError(
                f"image {file!r} is not what {INDEX} says: {quoted(path)} was damaged, or changed; "
                "copy it again"
            )
        return data


def is_sharded(folder: Folder) -> bool:
    """Whether a folder holds tars, and neither images nor folders."""
    if folder.folders or folder.images:
        return False
    return any(name.lower().endswith((".tar", *COMPRESSED)) for name, _ in folder.left)


def open_shards(root: Path, progress: Progress | None = None) -> Shards:
    """The tars of a folder, by their index, which is made if there is none that fits.

    Raises:
        DataError: a tar that the index names is missing, or holds other bytes; a tar is
            compressed, cut off or no tar; an image has no label, or a key two images; a name leads
            out of the set.
    """
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    packed = [name for name in names if name.lower().endswith(COMPRESSED)]
    if packed:
        raise DataError(
            f"{quoted(root / packed[0])} is compressed, so that no image of it can be reached "
            "without reading all: unpack it to a plain .tar (gunzip and the like)"
        )
    tars = tuple(name for name in names if name.lower().endswith(".tar"))
    known = from_index(root)
    if known is not None:
        lacking = [tar for tar in known.tars if tar not in tars]
        if lacking:
            raise DataError(
                f"{quoted(root / lacking[0])} is missing, which {INDEX} names: copy it again; or, "
                f"if it is meant to be gone, delete {INDEX}, which is then made anew"
            )
        if fits(known, tars):
            return known
    made = make_index(root, tars, progress or Silent())
    if known is not None:
        check_bytes(known, made)
    with suppress(FoveateError):  # the folder is read-only: the next time it is made once more
        write_index(made)
    return made


# The index


def from_index(root: Path) -> Shards | None:
    """What index.jsonl says; None if there is none, or it cannot be read."""
    try:
        with (root / INDEX).open(encoding="utf-8") as lines:
            head = json.loads(next(lines))
            tars, sizes = zip(*head["tars"], strict=True)
            if head["format"] != FORMAT or not all(type(tar) is str for tar in tars):
                return None
            entries = [as_entry(json.loads(line), len(tars)) for line in lines]
        by_name = {entry.file: entry for entry in entries}
        if len(by_name) != head["images"]:
            return None
        notes = tuple(map(str, head["notes"]))
        name, task = str(head["name"]), str(head["task"])
        return Shards(root, name, task, tars, by_name, notes, sizes)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def fits(known: Shards, tars: tuple[str, ...]) -> bool:
    """Whether an index is of these tars: of their sizes, and none is newer."""
    stats = [(known.root / tar).stat() for tar in tars]
    written = (known.root / INDEX).stat().st_mtime_ns
    newer = any(stat.st_mtime_ns > written for stat in stats)
    return known.tars == tars and known.sizes == tuple(s.st_size for s in stats) and not newer


def check_bytes(known: Shards, made: Shards) -> None:
    """DataError if a tar of the size that an older index names holds other bytes: it was damaged,
    or changed, and copying alone makes it newer, too."""
    same = {
        tar
        for tar, size in zip(known.tars, known.sizes, strict=True)
        if size == size_of(made.root / tar)
    }
    for file, before in known.entries.items():
        now = made.entries.get(file)
        if known.tars[before.shard] in same and (now is None or now.sha256 != before.sha256):
            raise DataError(
                f"the image {file!r} in {quoted(made.root / known.tars[before.shard])} is not what "
                f"{INDEX} says: copy the tar again; or, if the change is meant, delete {INDEX}, "
                "which is then made anew"
            )


def as_entry(row: list[Any], tars: int) -> Entry:
    """A line of the index; ValueError if it is none."""
    entry = Entry(*row)
    numbers, words = row[:3], row[3:]
    if not all(type(n) is int and n >= 0 for n in numbers) or entry.shard >= tars:
        raise ValueError("a place is no number")
    if not all(type(word) is str for word in words) or entry.split not in SPLITS.values():
        raise ValueError("a name is no text")
    return entry


def write_index(shards: Shards) -> None:
    sizes = [[tar, (shards.root / tar).stat().st_size] for tar in shards.tars]
    head = {
        "format": FORMAT,
        "name": shards.name,
        "task": shards.task,
        "images": len(shards.entries),
        "notes": shards.notes,
        "tars": sizes,
    }
    with replacing(shards.root / INDEX) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head) + "\n")
        for entry in shards.entries.values():
            file.write(json.dumps(astuple(entry), ensure_ascii=False) + "\n")


def make_index(root: Path, tars: tuple[str, ...], progress: Progress) -> Shards:
    """Read the tars from end to end."""
    progress.begin("index", len(tars))
    entries: dict[str, Entry] = {}
    name, task, left = root.resolve().name, "multiclass", 0
    for number, tar in enumerate(tars):
        about, found, others = read_tar(root / tar, number)
        name, task = str(about.get("name", name)), str(about.get("task", task))
        left += others
        for entry in found:
            if entry.file in entries:
                raise DataError(
                    f"{quoted(root / tar)} and another tar both hold an image called "
                    f"{entry.file!r}: each key may be there once"
                )
            entries[entry.file] = entry
        progress.advance()
    notes = (f"members of the tars that are no images and no labels, left out: {left}",)
    return Shards(root, name, task, tars, entries, notes if left else ())


def read_tar(path: Path, number: int) -> tuple[dict[str, Any], list[Entry], int]:
    """What is said of the set; the images of a tar; and how many of its members are neither these
    nor labels."""
    about: dict[str, Any] = {}
    images: dict[str, tuple[str, int, int, str]] = {}  # by key: name, offset, length, SHA-256
    labels: dict[str, dict[str, str]] = {}
    left = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = PurePosixPath(member.name)
                if not member.isreg():
                    left += not member.isdir()
                    continue
                check_name(path, member.name)
                key, kind = key_of(file)
                if member.name == ABOUT:
                    about |= json.loads(content(tar, member, path))
                elif kind in SUFFIXES or kind == UNNAMED:
                    if key in images:
                        raise DataError(
                            f"{quoted(path)} has two images of the key {key!r}: expected one, and "
                            "its label"
                        )
                    digest = hashlib.file_digest(stream(tar, member, path), "sha256").hexdigest()
                    images[key] = member.name, member.offset_data, member.size, digest
                elif kind in LABELS:
                    labels.setdefault(key, {}).update(label_of(kind, content(tar, member, path)))
                else:
                    left += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{quoted(path)} is no whole tar ({error}): it was cut off, or is something else; copy "
            "it again"
        ) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{quoted(path)} holds a label that cannot be read: {error}") from error
    entries = []
    word = FIRST_WORD.match(path.name.lower())
    usual = SPLITS.get(word.group() if word else "", "train")
    for key, (name, offset, length, digest) in images.items():
        said = labels.get(key, {})
        if "label" not in said:
            raise DataError(
                f"{quoted(path)} has no label of the image {name!r}: expected {key}.cls, .txt, or "
                '.json with "label"'
            )
        split = SPLITS.get(said.get("split", usual).lower())
        if split is None:
            raise DataError(f"{quoted(path)}: no split is called {said['split']!r}")
        if "several" in said:
            about.setdefault("task", "multilabel")
        called, group = said.get("file", name), said.get("group", "")
        check_name(path, called)
        entries.append(Entry(number, offset, length, digest, called, said["label"], split, group))
    return about, entries, left


def check_name(path: Path, name: str) -> None:
    """DataError for a name that leads out of the set."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise DataError(
            f"{quoted(path)} holds a member called {name[:200]!r}, which leads out of the set: it "
            "is not to be trusted"
        )


def key_of(file: PurePosixPath) -> tuple[str, str]:
    """A member's key and its kind, which begins at the first dot of its name.

    >>> key_of(PurePosixPath("cats/7.JPG"))
    ('cats/7', '.jpg')
    """
    base, dot, kind = file.name.partition(".")
    return str(file.with_name(base)) if base else str(file), f"{dot}{kind}".lower()


def stream(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Any:
    found = tar.extractfile(member)
    if found is None:
        raise DataError(f"{quoted(path)}: {member.name!r} cannot be read")
    return found


def content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    """The bytes of a label."""
    if member.size > LONGEST_LABEL:
        raise DataError(
            f"{quoted(path)}: the label {member.name!r} has {member.size:,} bytes; expected "
            f"{LONGEST_LABEL:,} at most"
        )
    data: bytes = stream(tar, member, path).read()
    return data


def label_of(kind: str, data: bytes) -> dict[str, str]:
    """What a member says of its image: file, label, split, group, and that there may be several
    labels, as far as it does."""
    text = data.decode("utf-8")
    if kind != ".json":
        return {"label": text.strip()} if text.strip() else {}
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, got {text[:40]!r}")
    said = {key: str(found[key]) for key in ("file", "split", "group") if found.get(key)}
    for key in ("labels", "label", "class", "cls"):
        if key in found:
            value = found[key]
            said["label"] = str(value)
            if isinstance(value, list):
                said |= {"label": BETWEEN.join(map(str, value)), "several": "yes"}
            break
    return said


# Writing


def pack(
    dataset: Dataset, out: Path, size: int = SIZE, progress: Progress | None = None
) -> list[Path]:
    """Write a dataset as tars, with their index; whole or not at all.

    Args:
        dataset: any. Its images' bytes stay as they are.
        out: the folder, which must not exist.
        size: bytes of a tar, beyond which no further image is begun.
        progress: is advanced with each image.

    Raises:
        UsageError: the folder exists.
        ImageError: an image cannot be read.
        FoveateError: the disk is full.
    """
    progress = progress or Silent()
    if out.exists():
        raise UsageError(f"{quoted(out)} exists; choose another folder for the shards")
    progress.begin("pack", len(dataset))
    several = dataset.task == "multilabel"
    about = json.dumps({"name": dataset.name, "task": dataset.task}).encode()
    entries: dict[str, Entry] = {}
    tars: list[str] = []
    with replacing(out) as temporary, disk_errors(out):
        temporary.mkdir()
        rows = iter(range(len(dataset)))
        row = next(rows, None)
        while row is not None:
            name = f"shard-{len(tars):06}.tar"
            with tarfile.open(temporary / name, "w", format=tarfile.PAX_FORMAT) as tar:
                add(tar, ABOUT, about)
                begun = tar.offset
                while row is not None and (tar.offset == begun or tar.offset < size):
                    data, file = dataset.read(row), dataset.files[row]
                    label = dataset.label(row)
                    said: dict[str, Any] = {"file": file, "split": dataset.splits[row]}
                    said |= {"labels": names(label)} if several else {"label": label}
                    said |= {"group": dataset.groups[row]} if dataset.groups[row] else {}
                    suffix = PurePosixPath(file).suffix.lower()
                    suffix = suffix if suffix in SUFFIXES else UNNAMED
                    offset = add(tar, f"{row:09}{suffix}", data)
                    add(tar, f"{row:09}.json", json.dumps(said, ensure_ascii=False).encode())
                    digest = hashlib.sha256(data).hexdigest()
                    entries[file] = Entry(
                        len(tars),
                        offset,
                        len(data),
                        digest,
                        file,
                        label,
                        dataset.splits[row],
                        dataset.groups[row],
                    )
                    progress.advance()
                    row = next(rows, None)
            tars.append(name)
        write_index(Shards(temporary, dataset.name, dataset.task, tuple(tars), entries, ()))
    return [out / tar for tar in tars]


def names(label: str) -> list[str]:
    """The labels of an image that has several."""
    return label.split(BETWEEN) if label else []


def add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file; where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    blocks = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - blocks


def images_of(shards: Shards) -> Iterator[tuple[str, str, str, str]]:
    """(file, label, split, group) of each."""
    return ((e.file, e.label, e.split, e.group) for e in shards.entries.values())
