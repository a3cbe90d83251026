"""Images without labels, where those are asked for: a folder or a table becomes a Dataset without
classes.

    photos/1.jpg     images that lie directly in a folder, and no folders of images beside them
    table.csv        path[,split][,group], paths relative to the table
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foveate.arguments import checked_path
from foveate.data.dataset import Dataset
from foveate.data.layouts import SOURCES, images_in, natural, read_numbered
from foveate.data.listing import Folder, Listing, notes_on, present
from foveate.data.tables import lacks_labels, read_below, unlabelled_rows


def load_unlabelled(source: Any) -> Dataset | None:
    """The images of a folder without folders of images in it, or of a CSV without labels, whose
    columns are path, and perhaps split and group; None of anything else.

    Returns:
        A Dataset without classes, whose labels are all 0: nobody gave any.

    Raises:
        DataError: the folder or the table cannot be read; files of the table do not exist.
    """
    if isinstance(source, Dataset):
        return None
    path = checked_path(SOURCES, source)
    if not present(path):
        return None
    if path.is_dir():
        return flat_folder(path)
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv") and lacks_labels(path):
        rows, read = unlabelled_rows(path)
        return without_labels(path.stem, "table of paths", rows, read)
    return None


def flat_folder(root: Path) -> Dataset | None:
    """The images that lie directly in a folder; None if folders below have images, or it has
    none."""
    top = Folder.of(root)
    if not top.images or any(map(images_in, top.folders)):
        return None
    listing = Listing()
    listing.add(top)
    rows = [(name, "train", "") for name, _ in listing.images()]
    ignored = sorted(name for name, _ in listing.left)
    found = without_labels(root.resolve().name, "images", rows, partial(read_below, root))
    return replace(found, ignored=tuple(ignored), notes=tuple(notes_on(listing.left)))


def without_labels(
    name: str, layout: str, rows: list[tuple[str, str, str]], read: Callable[[str], bytes]
) -> Dataset:
    """(file, split, group) rows -> a Dataset without classes."""
    rows = sorted(rows, key=lambda row: natural(row[0]))
    files = tuple(row[0] for row in rows)
    return Dataset(
        name=name,
        layout=layout,
        files=files,
        labels=np.zeros(len(files), dtype=np.int64),
        classes=(),
        splits=tuple(row[1] for row in rows),
        groups=tuple(row[2] for row in rows),
        read=partial(read_numbered, read, files),
    )
