"""Batches of images for training and for validation.

    rows ── order of the epoch ──> batches ── this rank's part
         ── in threads: kept pixels ── augment ──> mix ──> Batch

The batches depend on (seed, epoch) alone: the order is drawn from them, and each image's and each
batch's random numbers from them and its own number. Threads, ranks, caches and the batch at which
an epoch begins change nothing.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from foveate.data.augment import Augment, render
from foveate.data.augment.batched import Table, applies
from foveate.data.augment.geometry import Crop
from foveate.data.batches.assembly import Batch, assemble, openmp, whole_batches
from foveate.data.batches.order import Plan, Rows, draw_order, draw_plan, part
from foveate.data.batches.pixel_cache import CacheKind, open_cache
from foveate.data.batches.source import Source
from foveate.data.dataset import Dataset
from foveate.data.decoding import for_evaluation, for_training, scaled
from foveate.data.image import Pixels
from foveate.data.preprocess import Preprocess, as_prediction_sees
from foveate.data.workers import LIMIT
from foveate.errors import UsageError
from foveate.machine import cores

CACHED = 2 * 3 * 224 * 224  # numbers: 1.2 MB
HEADROOM = 25 / 14  # how much larger than the input images are kept, see TrainingBatches


class TrainingBatches:
    """Augmented batches, epoch after epoch.

    Images are kept with HEADROOM for crop "resized": for an input of 224 pixels the shorter side
    has 400. A crop of 35 % of the area, the least of policy "standard", then has 237 pixels a side
    or more, so none is enlarged: with 288, fine-tuning was less accurate (docs/LOG.md). The other
    crops keep the image's scale, which is evaluation's.

    An epoch has ceil(images / batch_size) batches that differ by at most one image, so there is no
    small last one, on which batch-norm would fail. A rank reads a contiguous part of each; the
    parts differ by at most one. A partner for mixup or CutMix may be in another rank's part: then
    both ranks make it.

    Args:
        dataset: where the images are.
        rows: the training images.
        preprocess: of the run: channels, scale and interpolation.
        augmentation: fitted (`Augment.fit`), where PCA colour is on. Its own size does not count.
        batch_size: images a step, on all ranks together.
        seed: not negative.
        threads: how many decode and augment; all cores by default.
        cache: where decoded pixels are kept: "off", "ram" or "disk".
        cache_bytes: the cache's limit.
        rank, world: this process, and how many there are.
        sampling: "all" gives each image once an epoch; "balanced" gives as many images in all, and
            each class equally often, so that images of small classes come several times.
        size: side of the square in pixels; or a function of the epoch, for progressive resizing,
            which gives at most the side that `preprocess` crops. By default that side.
        limit: seconds to wait for one file.

    Raises:
        UsageError: no images; a number out of its range; batches that have not an image for each
            rank; balanced sampling of several labels an image; PCA colour that is not fitted; a
            change of colour on one channel.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: Rows,
        preprocess: Preprocess,
        augmentation: Augment,
        batch_size: int,
        seed: int = 0,
        threads: int | None = None,
        cache: CacheKind = "ram",
        cache_bytes: int | None = None,
        rank: int = 0,
        world: int = 1,
        sampling: Literal["all", "balanced"] = "all",
        size: int | Callable[[int], int] | None = None,
        limit: float = LIMIT,
    ):
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.threads = threads_of(threads)
        self.take(rows)
        augmentation.check_fitted()
        augmentation.check_channels(preprocess.channels)
        if sampling not in ("all", "balanced"):
            raise UsageError(f"no sampling is called {sampling!r}; expected all or balanced")
        if sampling == "balanced" and dataset.task == "multilabel":
            raise UsageError(
                "classes cannot be seen equally often where an image has several labels"
            )
        if seed < 0:
            raise UsageError(f"a seed is not negative, got {seed}")
        self.dataset, self.preprocess, self.augmentation, self.seed = (
            dataset,
            preprocess,
            augmentation,
            seed,
        )
        self.sampling, self.size, self.limit = sampling, size, limit
        self.largest = size if isinstance(size, int) else preprocess.crop
        if self.largest < 1:
            raise UsageError(f"an image has at least 1 pixel a side, not {self.largest}")
        self.resized = augmentation.part(Crop).crop == "resized"
        if self.resized:
            rule = for_training(preprocess, round(HEADROOM * self.largest))
        else:
            rule = for_training(preprocess, self.scale(self.largest))
        self.cache = open_cache(cache, rule.identity, cache_bytes)
        self.source = Source(dataset, rule, self.cache)
        whole = preprocess.views[0].trained_on == 1  # the images of an array are square
        array = dataset.array(preprocess.channels, self.scale(self.largest)) if whole else None
        self.table = None
        if array is not None and not callable(size) and applies(augmentation):
            self.table = Table(array, augmentation, self.largest)

    def take(self, rows: Rows) -> None:
        """Take other training images from now on. Pixels that are kept stay."""
        self.rows = checked(rows, self.batch_size, self.rank, self.world)
        self.steps = -(-len(rows) // self.batch_size)
        smallest = len(rows) // self.steps
        if smallest < self.world:
            raise UsageError(
                f"a batch of {smallest} images cannot be shared by {self.world} processes"
            )

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.steps

    def scale(self, size: int) -> int:
        """The shorter side of the part that is trained on, as evaluation scales it for an input of
        `size`."""
        view = self.preprocess.views[0]
        return round(view.resize * view.trained_on * size / view.crop)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, both counted from 0; those before `start` are skipped without
        reading a file.

        Raises:
            UsageError: the epoch's size is larger than the images are kept for.
            ImageError: an image cannot be read or decoded, has changed, or does not come in time;
                it names the file.
        """
        size = self.size(number) if callable(self.size) else self.largest
        if not 1 <= size <= self.largest:
            raise UsageError(
                f"epoch {number} has images of {size} pixels a side; expected 1 to {self.largest}"
            )
        order = draw_order(self.dataset, self.rows, self.sampling, self.seed, number)
        plans = (
            draw_plan(
                self.dataset,
                order,
                self.augmentation,
                size,
                self.seed,
                number,
                i,
                self.steps,
                self.rank,
                self.world,
            )
            for i in range(start, self.steps)
        )

        if self.table is not None:
            table = self.table
            return whole_batches(
                plans,
                lambda plan: table.augmented(plan.rows, plan.samples, self.seed, number),
                self.dataset,
                self.limit,
            )

        def read(plan: Plan, place: int) -> Callable[[], Pixels]:
            pixels = self.source.pixels(int(plan.rows[place]))
            if not self.resized and min(pixels.shape[:2]) != self.scale(size):
                pixels = scaled(pixels, self.scale(size), self.preprocess.interpolation)
            sample = int(plan.samples[place])
            steps = self.augmentation.draw(self.seed, number, sample, pixels.shape, size)
            return lambda: render(pixels, steps).permute(1, 2, 0).numpy()

        return assemble(
            plans, size, self.preprocess.channels, read, self.dataset, self.threads, self.limit
        )


class EvaluationBatches:
    """The images in order, each the very tensor that prediction makes of it (`preprocess.decode`).

    Args:
        dataset: where the images are.
        rows: which, in which order. A rank reads a contiguous part of them; the parts differ by at
            most one.
        preprocess: of the run.
        batch_size: images a batch of this rank; the last one may have fewer.
        threads, cache, cache_bytes, rank, world, limit: as for TrainingBatches.

    Raises:
        UsageError: no images; a number out of its range.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: Rows,
        preprocess: Preprocess,
        batch_size: int,
        threads: int | None = None,
        cache: CacheKind = "off",
        cache_bytes: int | None = None,
        rank: int = 0,
        world: int = 1,
        limit: float = LIMIT,
    ):
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.threads = threads_of(threads)
        self.take(rows)
        self.dataset, self.preprocess, self.limit = dataset, preprocess, limit
        rule = for_evaluation(preprocess)
        self.cache = open_cache(cache, rule.identity, cache_bytes)
        self.source = Source(dataset, rule, self.cache)
        self.array = as_prediction_sees(dataset, preprocess)

    def take(self, rows: Rows) -> None:
        """Take other images from now on. Pixels that are kept stay."""
        rows = checked(rows, self.batch_size, self.rank, self.world)
        self.rows = rows[part(len(rows), self.world, self.rank)]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Raises ImageError as `TrainingBatches.epoch` does."""

        def plan(number: int) -> Plan:
            rows = self.rows[number * self.batch_size : (number + 1) * self.batch_size]
            return Plan(
                number,
                len(rows),
                len(rows),
                rows,
                rows,
                torch.from_numpy(self.dataset.labels[rows]),
            )

        plans = map(plan, range(len(self)))
        if self.array is not None:
            array = self.array
            return whole_batches(plans, lambda plan: array[plan.rows], self.dataset, self.limit)

        def read(plan: Plan, place: int) -> Callable[[], Pixels]:
            pixels = self.source.pixels(int(plan.rows[place]))
            return lambda: pixels

        shape = self.preprocess.crop, self.preprocess.channels
        return assemble(plans, *shape, read, self.dataset, self.threads, self.limit)


def threads_of(asked: int | None) -> int:
    """All cores by default."""
    if asked is not None and asked < 1:
        raise UsageError(f"a number of threads is at least 1, got {asked}")
    return asked or cores()


def checked(rows: Rows, batch_size: int, rank: int, world: int) -> Rows:
    """The rows as an array, or a UsageError."""
    if len(rows) == 0:
        raise UsageError("there are no images to make batches of")
    for what, n in (("batch", batch_size), ("world", world)):
        if n < 1:
            raise UsageError(f"a {what} is at least 1, got {n}")
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is none of {world} processes")
    return np.asarray(rows, np.int64)


def normalise(pixels: Tensor, preprocess: Preprocess, out: Tensor | None = None) -> Tensor:
    """(N, C, H, W), uint8 -> float32, bit for bit as `Preprocess.normalise`, in channels_last,
    where the pixels are.

    On a CPU fresh memory costs more than the arithmetic, so `out`, a result that is no longer
    needed, is written over. It is done in one thread: threads that share an operation would wait
    for each other while the cores are busy with the next batch.
    """
    n, channels, height, width = pixels.shape
    scale, shift = (
        torch.from_numpy(row).to(pixels.device).repeat(width)  # whole rows: long inner loops
        for row in preprocess.scale_and_shift()
    )
    if out is None:
        out = torch.empty((n, height, width, channels), device=pixels.device).permute(0, 3, 1, 2)
    source = pixels.permute(0, 2, 3, 1).reshape(n * height, width * channels)
    target = out.permute(0, 2, 3, 1).view(n * height, width * channels)
    piece = n * height
    if pixels.device.type == "cpu":  # two photos, or many small images, stay in a core's own cache
        piece = height * max(1, CACHED // (height * width * channels))
    with openmp().limit(limits=1):
        for i in range(0, n * height, piece):
            target[i : i + piece].copy_(source[i : i + piece]).mul_(scale).add_(shift)
    return out
