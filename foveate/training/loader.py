"""The images that a training by steps reads: their batches, which of them can be read, and how
large they are."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.batches import EvaluationBatches, TrainingBatches
from foveate.data.batches.source import unreadable
from foveate.data.dataset import apply_policy, check_trainable, damage_notes
from foveate.errors import DataError
from foveate.training.config import TrainConfig
from foveate.training.memory import check_batches

if TYPE_CHECKING:
    from foveate.training.setup import Job

VALIDATION_BATCH = 64  # images
ROUND = 32  # pixels: sizes of progressive resizing are multiples of it, of large images


class Loader:
    """The batches of a job, of all its images at first, then of those that can be read."""

    def __init__(self, job: "Job"):
        self.job = job
        config = job.config
        self.batches = TrainingBatches(
            job.dataset,
            job.rows["train"],
            job.preprocess,
            job.augmentation,
            config.batch_size,
            seed=job.request.seed,
            threads=job.resources.threads,
            cache=job.resources.cache,
            rank=job.ranks.rank,
            world=job.ranks.world,
            sampling="balanced" if config.balance == "sampling" else "all",
            size=progressive(job.preprocess.crop, config) if config.progressive < 1 else None,
        )
        self.validation = EvaluationBatches(
            job.dataset,
            job.rows["validation"],
            job.preprocess,
            VALIDATION_BATCH,
            threads=job.resources.threads,
            cache=job.resources.cache,
            rank=job.ranks.rank,
            world=job.ranks.world,
        )

    def leave_out(self, bad: dict[str, str], damaged: dict[str, str]) -> None:
        """Train without the unreadable images (name: reason), and say which are damaged."""
        job = self.job
        apply_policy(len(job.dataset), bad, job.request.on_bad, damaged)
        job.notes += damage_notes(damaged)
        if job.ranks.first:
            for reason in damaged.values():
                job.run.log(reason)
        if not bad:
            return
        job.bad, tested = bad, len(job.rows["test"]) > 0
        for split, rows in job.rows.items():
            readable = [row for row in rows if job.dataset.files[row] not in bad]
            job.rows[split] = np.array(readable, dtype=np.int64)
        check_trainable(job.dataset.select(np.concatenate([*job.rows.values()])))
        gone = [split for split in ("train", "validation") if not len(job.rows[split])]
        if gone:
            raise DataError(
                f"no image of the {gone[0]} split can be read: {next(iter(bad.values()))}"
            )
        if tested and not len(job.rows["test"]):
            job.notes.append(
                "no image of the test split can be read: only the validation images say how good "
                "it is"
            )
        check_batches(job.plan, len(job.rows["train"]), job.config, job.ranks.world)
        self.batches.take(job.rows["train"])
        self.validation.take(job.rows["validation"])

    def pixels_to_come(self) -> int:
        """Bytes of memory that pixels will yet take: a whole photo with headroom is four crops."""
        each = self.job.preprocess.channels * self.job.preprocess.crop**2
        rows, caches = self.job.rows, (self.batches.cache, self.validation.cache)
        wanted = (4 * each * len(rows["train"]), each * len(rows["validation"]))
        return sum(min(cache.room, n) for cache, n in zip(caches, wanted, strict=True))

    def notes(self) -> list[str]:
        """What a person should know of the pixels that are kept."""
        return [*self.batches.cache.notes(), *self.validation.cache.notes()]


def check_readable(job: "Job", loader: Loader) -> tuple[dict[str, str], dict[str, str]]:
    """Decode every image once, which fills the cache; name and reason of each that cannot be
    read, and of each that is damaged."""
    bad: dict[str, str] = {}
    if job.dataset.pixels is not None:  # a built-in set, which has no files
        return bad, {}
    threads, progress = job.resources.threads, job.resources.progress
    progress.begin("reading", len(job.dataset))
    test = EvaluationBatches(
        job.dataset, job.rows["test"], job.preprocess, VALIDATION_BATCH, threads
    )
    sources = {
        "train": loader.batches.source,
        "validation": loader.validation.source,
        "test": test.source,
    }
    for split, source in sources.items():
        bad |= unreadable(source, job.rows[split], threads, progress.advance)
    return bad, {name: why for source in sources.values() for name, why in source.damaged.items()}


def progressive(full: int, config: TrainConfig) -> Callable[[int], int]:
    """The side of each epoch's images: from a fraction of the full one to all of it, evenly."""
    first, epochs = config.progressive, config.epochs
    step = ROUND if full >= 4 * ROUND else 4

    def size(epoch: int) -> int:
        share = first + (1 - first) * (epoch / (epochs - 1) if epochs > 1 else 1)
        return min(full, step * max(1, round(full * share / step))) if share < 1 else full

    return size
