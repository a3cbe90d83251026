"""Where the pixels of a dataset's rows come from: a cache if they are known, else their file.

    row ── cache: known? ── yes ──> pixels (H, W, C), uint8
                  └─ no ──> read ── digest ── decode by a rule ── keep ──> pixels

There are two rules. Evaluation keeps the square that prediction sees; training keeps the whole
image, scaled down, from which every epoch cuts something else.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveate.data.batches.pixel_cache import PixelCache
from foveate.data.dataset import Dataset
from foveate.data.decoding import Rule
from foveate.data.image import Pixels
from foveate.data.workers import work_ahead
from foveate.errors import ImageError


class Source:
    """Pixels of a dataset's rows, from a cache where they are known.

    A file's digest is taken when it is first read. Where the dataset knows it already, a file that
    has changed since is refused; where it does not, it is not asked to read all its files only for
    that.
    """

    def __init__(self, dataset: Dataset, rule: Rule, cache: PixelCache):
        self.dataset, self.rule, self.cache = dataset, rule, cache
        self.damaged: dict[str, str] = {}  # what was decoded all the same: name and reason
        self.digests: dict[int, str] = dict(enumerate(vars(dataset).get("digests", ())))

    def pixels(self, row: int) -> Pixels:
        """Raises ImageError: the image cannot be read or decoded, or is not what it was."""
        expected = self.digests.get(row)
        kept = self.cache.find(expected) if expected else None
        if kept is not None:
            return kept
        name = self.dataset.files[row]
        data = self.dataset.read(row)
        digest = hashlib.sha256(data).hexdigest()
        if expected is not None and digest != expected:
            raise ImageError(f"image {name!r} changed while it was read; run again")
        self.digests[row] = digest
        if expected is None and (kept := self.cache.find(digest)) is not None:
            return kept
        damage: list[str] = []
        pixels = self.rule.make(data, name, damage.append)
        pixels.flags.writeable = False  # whoever comes next finds them as they are
        if damage:
            self.damaged[name] = damage[0]
        else:  # a later run that found it in the cache would not know that it is damaged
            self.cache.keep(digest, pixels)
        return pixels


def unreadable(
    source: Source, rows: NDArray[np.int64], threads: int, advance: Callable[[], None]
) -> dict[str, str]:
    """Decode every row once, which fills the source's cache; name and reason of each that cannot be
    read.

    Raises:
        ImageError: a file does not come in time; it names the file.
    """

    def attempt(row: int) -> ImageError | None:
        try:
            source.pixels(row)
        except ImageError as error:
            return error
        return None

    outcomes = work_ahead(
        [int(row) for row in rows], attempt, lambda row: source.dataset.files[row], threads, 64
    )
    bad: dict[str, str] = {}
    for row, error in zip(rows, outcomes, strict=True):
        advance()
        if error is not None:
            bad[source.dataset.files[row]] = str(error)
    return bad
