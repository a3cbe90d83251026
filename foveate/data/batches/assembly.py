"""From plans to batches: threads fill them ahead of the reader, in bounded memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from foveate.data.augment.mix import mixed
from foveate.data.batches.order import Plan, Rows
from foveate.data.dataset import Dataset
from foveate.data.image import Pixels
from foveate.data.workers import AHEAD_BYTES, work_ahead

AHEAD = 2  # batches that threads may be ahead of the reader
AT_ONCE = 16  # images that a thread takes, if there is room


@dataclass(frozen=True)
class Batch:
    """What one rank reads in one step.

    Args:
        pixels: (N, C, H, W), uint8, in the memory format channels_last.
        targets: (N,), int64; or (N, classes): int64, where images have labels, or float32, where
            they are mixed.
        rows: (N,), of the dataset.
        names: of the files, for messages.
        number: of the batch in its epoch, from 0.
        total: images of the batch on all ranks together.
    """

    pixels: Tensor
    targets: Tensor
    rows: Rows
    names: tuple[str, ...]
    number: int
    total: int


class Unfinished:
    """A batch whose images are still being made. The thread that makes the last one mixes them."""

    def __init__(self, plan: Plan, size: int, channels: int):
        self.plan = plan
        self.pixels = np.empty((len(plan.rows), size, size, channels), np.uint8)
        self.missing = len(plan.rows)
        self.unread = len(plan.rows)
        self.lock = threading.Lock()

    def put(self, place: int, pixels: Pixels) -> None:
        self.pixels[place] = pixels
        with self.lock:
            self.missing -= 1
            complete = self.missing == 0
        if complete:
            self.pixels = mixed(self.pixels, self.plan.mixture)


@dataclass
class Share:
    """What a thread takes of a batch: several places, since handing over costs as much as flipping
    an image."""

    batch: Unfinished
    places: range
    at: int = 0  # the place that is being filled


def assemble(
    plans: Iterable[Plan],
    size: int,
    channels: int,
    read: Callable[[Plan, int], Callable[[], Pixels]],
    dataset: Dataset,
    threads: int,
    limit: float,
) -> Iterator[Batch]:
    """Let threads fill batches, AHEAD of the reader; all together are bounded by AHEAD_BYTES.

    `read` reads an image and returns what makes its pixels. A thread reads all of its share before
    it makes the first, so that Python's part of several images stays in the core's caches
    (docs/LOG.md).
    """
    plans = iter(plans)
    first = next(plans, None)
    if first is None:
        return
    waiting: deque[Unfinished] = deque()
    # images
    ahead = max(2 * threads, min(AHEAD * len(first.rows), AHEAD_BYTES // (size * size * channels)))
    at_once = min(AT_ONCE, ahead // (2 * threads))

    def shares() -> Iterator[Share]:
        for plan in chain([first], plans):
            waiting.append(Unfinished(plan, size, channels))
            places = range(len(plan.rows))
            yield from (Share(waiting[-1], places[i : i + at_once], i) for i in places[::at_once])

    def name(share: Share) -> str:
        return dataset.files[share.batch.plan.rows[share.at]]

    def fill(share: Share) -> int:
        makers = []
        for place in share.places:
            share.at = place
            makers.append(read(share.batch.plan, place))
        for place, make in zip(share.places, makers, strict=True):
            share.at = place
            share.batch.put(place, make())
        return len(share.places)

    with closing(
        work_ahead(shares(), fill, name, threads, ahead // at_once, limit, alone)
    ) as filled:
        for images in filled:
            waiting[0].unread -= images
            if waiting[0].unread == 0:
                yield finished(waiting[0].plan, waiting.popleft().pixels, dataset)


def whole_batches(
    plans: Iterable[Plan], pixels: Callable[[Plan], Pixels], dataset: Dataset, limit: float
) -> Iterator[Batch]:
    """Let a thread make whole batches of the `pixels` of a plan, AHEAD of the reader."""

    def make(plan: Plan) -> Batch:
        return finished(plan, mixed(pixels(plan), plan.mixture), dataset)

    return work_ahead(plans, make, lambda plan: dataset.files[plan.rows[0]], 1, AHEAD, limit, alone)


def finished(plan: Plan, pixels: Pixels, dataset: Dataset) -> Batch:
    """(own, H, W, C), mixed -> a batch."""
    rows = plan.rows[: plan.own]
    names = tuple(dataset.files[row] for row in rows)
    return Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        plan.targets,
        rows,
        names,
        plan.number,
        plan.total,
    )


@cache
def openmp() -> ThreadpoolController:
    """Limits how many threads share one tensor operation. OpenMP holds that number for each thread
    that asks, while `torch.set_num_threads` would change it for the training too."""
    return ThreadpoolController().select(user_api="openmp")


def alone() -> object:
    """Keep the tensor arithmetic of the calling thread in that thread: there is one for each core
    already."""
    torch.get_num_threads()  # torch sets the number when a thread first asks, and then never again
    return openmp().limit(limits=1)
