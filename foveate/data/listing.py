"""What lies in a folder: images, known by their content, and what is left out, with the cause.

A file with an image's suffix is taken for one unopened, so that listing stays fast; of any other
the first bytes decide. Links are followed; a link that leads back, or to what is listed already, is
left out. Folders that machines make, and runs of Foveate, are left out as a whole, at any depth.
Each folder is read once, when it is first asked for.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from foveate.data.dataset import listed
from foveate.data.image import SUFFIXES
from foveate.errors import DataError, quoted

ENDINGS = tuple(SUFFIXES)
# lie beside images in great numbers, and are never images: not even opened
DOCUMENTS = tuple(".txt .json .xml .csv .tsv .md .yaml .yml .html .py .mp4 .zip".split())
# TIFF by their first bytes, but what a TIFF reader finds in them is a thumbnail
RAW = tuple(".cr2 .cr3 .nef .arw .dng .orf .rw2 .pef .srw .raf .3fr .iiq .nrw".split())
# folders that operating systems, NAS and editors make, in lower case: Windows keeps any case
MACHINES = frozenset(
    "@eadir __macosx .thumbnails #recycle #snapshot @recycle @recently-snapshot .@__thumb @tmp "
    "$recycle.bin lost+found .ipynb_checkpoints __pycache__ .git .trash .trashes "
    ".spotlight-v100 .fseventsd .appledouble .picasaoriginals .cache .snapshot".split()
) | {"system volume information"}
TRASH = ".trash-"  # and the number of a user, on a disk that is mounted
LITTER = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini"])

RUN_FILES = (  # of a run that has ended, of one that has not, of a classifier
    {"config.json", "metrics.json"},
    {"config.json", "env.json"},
    {"card.json", "model.safetensors"},
)
DRAWN = {"curves.png", "confusion.png", "reliability.png"}  # by a run

# images that many viewers show
OTHERS = tuple(".jp2 .j2k .jpx .jxl .psd .tga .ico .svg .dcm .dicom .exr .hdr .xcf .eps".split())

NOT_IMAGES = "not images"
RAW_FILES = "raw files of a camera (save them as JPEG or TIFF)"
OTHER_FORMATS = "images of a format that is not read (save them as JPEG or PNG)"
HIDDEN = "hidden"
MACHINE_MADE = "folders that only machines make"
RUNS = "runs of Foveate"
NOWHERE = "links that lead nowhere"
SPECIAL = "pipes, sockets or devices"
LOOPS = "links to a folder that they lie in"
AGAIN = "links to what is listed already"
LOOSE = "images in no class folder"

HEAD = 64  # bytes that decide
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF.{4}WEBP"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|P[1-6]\s+(?:#[^\n]*\s+)*\d+\s+\d+\s"
    rb"|.{4}ftyp(?:avif|avis|heic|heix|hevc|heim|heis|mif1|msf1)",
    re.DOTALL,
)


class Folder:
    """A folder as its listing: `folders`, `images` (names of files) and `left` (out).

    Args:
        path: to open it by.
        name: from the root of the listing, with slashes; "" is the root itself.
        real: the path without links.
        above: the root's real path, "" of the root: a link to a folder that holds it leads back.
        is_link: whether the folder's own name is a link.
        through: whether it is, or lies in one that is.
    """

    def __init__(
        self,
        path: str,
        name: str,
        real: str,
        above: str = "",
        is_link: bool = False,
        through: bool = False,
    ) -> None:
        self.path, self.name, self.real = path, name, real
        self.above, self.is_link, self.through = above or real, is_link, through

    @classmethod
    def of(cls, root: Path) -> "Folder":
        return cls(os.fspath(root), "", os.path.realpath(root))

    @property
    def base(self) -> str:
        """Its name alone."""
        return self.name.rpartition("/")[2]

    def inside(self, name: str) -> str:
        """A name in this folder, from the root."""
        return f"{self.name}/{name}" if self.name else name

    @cached_property
    def contents(
        self,
    ) -> tuple[list["Folder"], list[str], dict[str, str], list[tuple[str, str]]]:
        """(folders, images, {image that is a link: real path}, (left out, from the root: cause))

        The folders include runs: only the names inside a folder show that it is one.
        """
        folders: list[Folder] = []
        images: list[str] = []
        links: dict[str, str] = {}
        left: list[tuple[str, str]] = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    name, low = entry.name, entry.name.lower()
                    is_folder = leads_to(entry.is_dir)
                    if is_folder and (low in MACHINES or name[0] == "."):
                        by_machine = low in MACHINES or low.startswith(TRASH)
                        left.append((self.inside(name), MACHINE_MADE if by_machine else HIDDEN))
                    elif name[0] == ".":
                        if low.endswith(ENDINGS) and not name.startswith("._"):
                            left.append((self.inside(name), HIDDEN))
                    elif is_folder:
                        found = self.below(entry)
                        if found is None:
                            left.append((self.inside(name), LOOPS))
                        else:
                            folders.append(found)
                    elif low not in LITTER:
                        cause = "" if low.endswith(ENDINGS) else cause_to_leave(entry, low)
                        if cause:
                            left.append((self.inside(name), cause))
                            continue
                        images.append(name)
                        if entry.is_symlink() and leads_to(entry.is_file):
                            links[name] = os.path.realpath(entry.path)
        except OSError as error:
            raise DataError(
                f"the folder '{error.filename or self.path}' cannot be read: {error.strerror}"
            ) from error
        return sorted(folders, key=lambda f: f.name), sorted(images), links, sorted(left)

    def below(self, entry: "os.DirEntry[str]") -> "Folder | None":
        """The folder of an entry; None for a link to a folder that it lies in."""
        is_link = entry.is_symlink()
        real = os.path.realpath(entry.path) if is_link else os.path.join(self.real, entry.name)
        if is_link and any(holds(real, here) for here in (self.real, self.above)):
            return None
        through = is_link or self.through
        return Folder(entry.path, self.inside(entry.name), real, self.above, is_link, through)

    @cached_property
    def folders(self) -> list["Folder"]:
        return [folder for folder in self.contents[0] if not folder.holds_runs]

    @property
    def images(self) -> list[str]:
        return self.contents[1]

    @property
    def links(self) -> dict[str, str]:
        return self.contents[2]

    @cached_property
    def left(self) -> list[tuple[str, str]]:
        runs = [(folder.name, RUNS) for folder in self.contents[0] if folder.holds_runs]
        return sorted(self.contents[3] + runs)

    @property
    def is_run(self) -> bool:
        """Whether it is a run or a classifier of ours, by the names of its files."""
        _, images, _, left = self.contents
        if not DRAWN.issuperset(images):
            return False
        names = {name.rpartition("/")[2] for name, _ in left}
        return any(names >= files for files in RUN_FILES)

    @cached_property
    def holds_runs(self) -> bool:
        """Whether it is a run or a classifier of ours, or has such in it and no other image."""
        queue, found = [self], False
        try:
            while queue:
                here = queue.pop()
                if here.is_run:
                    found = True
                elif here.images or (here.is_link and here is not self):
                    return False
                else:
                    queue += here.contents[0]
        except DataError:  # closed: an error where it is a class, and none where it is not used
            return False
        return found

    def all_below(self, left: list[tuple[str, str]]) -> Iterator["Folder"]:
        """This folder and those below it, each real one once; `left` takes what is left out.

        Folders first and links to folders afterwards, so that of a folder and a link to it the
        folder counts.
        """
        seen: set[str] = set()
        queue, later = [self], list[Folder]()
        while queue or later:
            here = queue.pop() if queue else later.pop(0)
            if here.real in seen:
                left.append((here.name, AGAIN))
                continue
            seen.add(here.real)
            left += here.left
            yield here
            for folder in here.folders:
                (later if folder.is_link else queue).append(folder)


class Listing:
    """The images below some folders of one root, each real file once.

    `left` collects what is left out: (name from the root, cause).
    """

    def __init__(self) -> None:
        self.left: list[tuple[str, str]] = []
        self.parts: list[tuple[Folder, int]] = []

    def add(self, folder: Folder, mark: int = 0) -> int:
        """List all below a folder under a mark; how many images that are."""
        n = 0
        for here in folder.all_below(self.left):
            self.parts.append((here, mark))
            n += len(here.images)
        return n

    def images(self) -> list[tuple[str, int]]:
        """(name from the root, mark) of each image.

        Raises:
            DataError: one file is listed under two marks, through a link.
        """
        if not any(folder.links or folder.through for folder, _ in self.parts):
            return [
                (folder.inside(name), mark) for folder, mark in self.parts for name in folder.images
            ]
        # files first and links afterwards: of a file and a link to it the file counts
        found: dict[str, tuple[str, int]] = {}
        for through_link in (False, True):
            for folder, mark in self.parts:
                for name in folder.images:
                    if (folder.through or name in folder.links) != through_link:
                        continue
                    real = folder.links.get(name) or os.path.join(folder.real, name)
                    place = folder.inside(name)
                    first, other = found.setdefault(real, (place, mark))
                    if other != mark:
                        raise DataError(
                            f"'{first}' and '{place}' are one file, by a link, in two classes or "
                            "splits; remove one of them"
                        )
                    if first != place:
                        self.left.append((place, AGAIN))
        return list(found.values())


def images_below(root: Path) -> tuple[list[Path], list[str]]:
    """All images below a folder, sorted, and notes on what is left out.

    Raises:
        DataError: there is none; a folder cannot be read.
    """
    names, notes = names_below(root)
    return [root / name for name in names], notes


def names_below(root: Path) -> tuple[list[str], list[str]]:
    """The same, by their names from the root, which are a fifth as large as paths."""
    listing = Listing()
    listing.add(Folder.of(root))
    names = sorted(name for name, _ in listing.images())
    notes = notes_on(listing.left)
    if not names:
        why = "".join(f"; {note}" for note in notes)
        raise DataError(f"the folder {quoted(root)} has no images{why}")
    return names, notes


def notes_on(left: Iterable[tuple[str, str]]) -> list[str]:
    """What is left out, by cause, with counts: for people."""
    causes: dict[str, list[str]] = {}
    for name, cause in left:
        causes.setdefault(cause, []).append(name)
    return [f"left out, {cause}: {len(n)} ({listed(n, 3)})" for cause, n in causes.items()]


def cause_to_leave(entry: "os.DirEntry[str]", low: str) -> str:
    """Why a file without an image's suffix is left out; "" if its content is an image's.

    Only regular files are opened: a pipe would wait for ever.
    """
    if not leads_to(entry.is_file):
        return NOWHERE if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL
    if low.endswith(RAW):
        return RAW_FILES
    if low.endswith(DOCUMENTS):
        return NOT_IMAGES
    try:
        with open(entry.path, "rb") as file:
            if is_image(file.read(HEAD)):
                return ""
        return OTHER_FORMATS if low.endswith(OTHERS) else NOT_IMAGES
    except OSError as error:
        return f"not readable ({error.strerror})"


def leads_to(kind: Callable[[], bool]) -> bool:
    """What `is_dir` or `is_file` of an entry says; False for a link in a circle."""
    try:
        return kind()
    except OSError:
        return False


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image.

    >>> is_image(b"\\x89PNG\\r\\n\\x1a\\n...."), is_image(b"BM is how this text begins")
    (True, False)
    """
    return MAGIC.match(head) is not None


def holds(folder: str, path: str) -> bool:
    """Whether a real path is this folder or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def present(path: Path) -> bool:
    """Whether a path exists; False if it is too long or in a folder that may not be read."""
    try:
        return path.exists()
    except OSError:
        return False
