"""What a training starts from: splits, what the network reads, batches, and the network before its
first step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foveate import models
from foveate.catalogue import CATALOGUE
from foveate.data.augment import Augment
from foveate.data.batches import EvaluationBatches, TrainingBatches, normalise
from foveate.data.batches.pixel_cache import CacheKind
from foveate.data.batches.source import unreadable
from foveate.data.dataset import Dataset, apply_policy, check_trainable
from foveate.data.image import load_image
from foveate.data.preprocess import LARGEST, Preprocess
from foveate.data.splits import check_spread, hold_out, stratified_folds
from foveate.data.workers import decode_ahead
from foveate.errors import DataError, ImageError, UsageError
from foveate.features import extract
from foveate.heads import PENALTIES, fit_head
from foveate.machine import instructions
from foveate.probe import Probe
from foveate.progress import Progress
from foveate.runs import Run
from foveate.training.config import TrainConfig
from foveate.training.distributed import Ranks
from foveate.training.probe import FOLDS, shown
from foveate.training.report import Clock
from foveate.training.trainer import mixed
from foveate.weights import find_weights, pretrained

HELD_OUT = 0.15  # of the images, for validation and for test each, where the data has no such split
ENOUGH = 5_000  # held out are enough; or ENOUGH_EACH of a class, if there are many classes
ENOUGH_EACH = 50
JUDGED = 64  # images at once in validation
ROUND = 32  # pixels: sizes of progressive resizing are multiples of it, of large images


Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """What was asked; `training.train` explains it."""

    recipe: Literal["finetune", "scratch"]
    model: str
    settings: dict[str, Any]
    augment: str | None
    parts: dict[str, Any]
    size: int | None
    channels: int | None
    seed: int
    on_bad: Literal["skip", "error"]
    engine: str


@dataclass(frozen=True)
class Means:
    """What does not change what is seen and learnt; sums that other numbers of threads share may
    differ in their last digit."""

    threads: int
    cache: CacheKind
    tensorboard: bool
    progress: Progress
    clock: Clock
    command: str


@dataclass
class Job:
    """A training that is about to run: `rows` are the readable images of each split."""

    run: Run
    ranks: Ranks
    request: Request
    means: Means
    config: TrainConfig
    dataset: Dataset
    rows: dict[str, Rows]
    preprocess: Preprocess
    policy: str
    augmentation: Augment
    about: dict[str, Any]  # provenance, for the card
    notes: list[str]
    bad: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """To a person, now, and into the log."""
        if self.ranks.first:
            self.means.progress.say(sentence)
            self.run.log(sentence)


def with_splits(dataset: Dataset, seed: int) -> tuple[Dataset, list[str]]:
    """The dataset with a validation and a test split: its own, or held out; and what a person
    should know of that."""
    there = set(dataset.splits)
    wanted = [split for split in ("validation", "test") if split not in there]
    if not wanted:
        return dataset, []
    learn = np.flatnonzero([split == "train" for split in dataset.splits])
    groups = dataset.grouping()[learn]
    shares = (held_out(len(learn), len(dataset.classes)),) * len(wanted)
    part = hold_out(dataset.labels[learn], groups, shares, seed)
    splits = np.array(dataset.splits, dtype=object)
    for number, split in enumerate(wanted, start=1):
        splits[learn[part == number]] = split
        if not (part == number).any():
            raise DataError(
                f"{len(learn)} images in {len(np.unique(groups))} groups are too few to hold some "
                f"out for {split}; "
                "a probe needs none: --recipe probe"
            )
    words = " and ".join(
        f"{int((part == n).sum())} for {split}" for n, split in enumerate(wanted, start=1)
    )
    return dataset.resplit(tuple(splits)), [f"held out of {len(learn)} images: {words}"]


def held_out(images: int, classes: int) -> float:
    """The share held out for one split: in twentieths, as few as are enough.

    >>> held_out(1_000, 10), held_out(60_000, 10), held_out(1_000_000, 1_000)
    (0.15, 0.1, 0.05)
    """
    enough = max(ENOUGH, ENOUGH_EACH * classes)
    return min(HELD_OUT, math.ceil(20 * enough / images) / 20)


def inputs(dataset: Dataset, rows: Rows, request: Request, threads: int) -> Preprocess:
    """How images are shown to the network."""
    if request.size is not None and not 1 <= request.size <= LARGEST:
        raise UsageError(f"size must be a whole number from 1 to {LARGEST}, not {request.size}")
    if request.recipe == "scratch":
        with torch.device("meta"):
            smallest = int(models.build(request.model).min_size)  # type: ignore[arg-type]
        return choose_inputs(
            request.model, smallest, look_at(dataset, rows, threads), request.size, request.channels
        )
    if request.channels not in (None, 3):
        raise UsageError("channels applies to the recipe scratch: published weights read three")
    weights = find_weights(request.model)
    preprocess = shown(weights)
    return preprocess if request.size is None else preprocess.at(request.size, preprocess.stretch)


def has_norms(model: str) -> bool:
    """Whether a network has batch-norms."""
    with torch.device("meta"):
        return any(isinstance(m, nn.BatchNorm2d) for m in models.build(model).modules())


class Loader:
    """The batches of a job, of all its images at first, then of those that can be read."""

    def __init__(self, job: Job):
        self.job = job
        config = job.config
        self.batches = TrainingBatches(
            job.dataset,
            job.rows["train"],
            job.preprocess,
            job.augmentation,
            config.batch_size,
            seed=job.request.seed,
            threads=job.means.threads,
            cache=job.means.cache,
            rank=job.ranks.rank,
            world=job.ranks.world,
            sampling="balanced" if config.balance == "sampling" else "all",
            size=progressive(job.preprocess.crop, config) if config.progressive < 1 else None,
        )
        self.validation = EvaluationBatches(
            job.dataset,
            job.rows["validation"],
            job.preprocess,
            JUDGED,
            threads=job.means.threads,
            cache=job.means.cache,
            rank=job.ranks.rank,
            world=job.ranks.world,
        )

    def without(self, bad: dict[str, str]) -> None:
        """Leave unreadable images out."""
        job = self.job
        if not bad:
            return
        job.bad, tested = bad, len(job.rows["test"]) > 0
        apply_policy(len(job.dataset), bad, job.request.on_bad)
        for split, rows in job.rows.items():
            job.rows[split] = np.array(
                [row for row in rows if job.dataset.files[row] not in bad], dtype=np.int64
            )
        check_trainable(job.dataset.select(np.concatenate([*job.rows.values()])))
        gone = [split for split in ("train", "validation") if not len(job.rows[split])]
        if gone:
            raise DataError(
                f"no image of the {gone[0]} split can be read: {next(iter(bad.values()))}"
            )
        if tested and not len(job.rows["test"]):
            job.notes.append(
                "no image of the test split can be read: the validation images alone tell how good "
                "it is"
            )
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


def progressive(full: int, config: TrainConfig) -> Callable[[int], int]:
    """The side of each epoch's images: from a part of the full one to all of it, evenly."""
    first, epochs = config.progressive, config.epochs
    step = ROUND if full >= 4 * ROUND else 4

    def size(epoch: int) -> int:
        share = first + (1 - first) * (epoch / (epochs - 1) if epochs > 1 else 1)
        return min(full, step * max(1, round(full * share / step))) if share < 1 else full

    return size


def start(job: Job, loader: Loader) -> nn.Module:
    """The network as it is before the first step."""
    if job.request.recipe == "scratch":
        bad = job.ranks.share(check_readable(job, loader) if job.ranks.first else {})
        loader.without(bad)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed(job.request.seed))
            return models.build(
                job.request.model, len(job.dataset.classes), job.preprocess.channels
            )
    head, bad = job.ranks.share(solved_head(job) if job.ranks.first else ((), {}))
    loader.without(bad)
    weight, bias = (torch.from_numpy(a) for a in head)
    probe = Probe(pretrained(job.request.model), weight.shape[1], weight.shape[0])
    with torch.no_grad():
        probe.linear.weight.copy_(weight)
        probe.linear.bias.copy_(bias)
    return probe


def check_readable(job: Job, loader: Loader) -> dict[str, str]:
    """Decode every image once, which fills the cache; name and reason of each that cannot be
    read."""
    bad: dict[str, str] = {}
    if job.dataset.pixels is not None:  # a built-in set, which has no files
        return bad
    job.means.progress.begin("reading", len(job.dataset))
    test = EvaluationBatches(
        job.dataset, job.rows["test"], job.preprocess, JUDGED, job.means.threads
    )
    for batches, split in (
        (loader.batches, "train"),
        (loader.validation, "validation"),
        (test, "test"),
    ):
        bad |= unreadable(
            batches.source, job.rows[split], job.means.threads, job.means.progress.advance
        )
    return bad


def solved_head(job: Job) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], dict[str, str]]:
    """The probe's head, solved on the training images alone; and the images that cannot be read."""
    dataset, means, request = job.dataset, job.means, job.request
    found = extract(
        dataset, request.model, job.preprocess, False, request.engine, means.threads, means.progress
    )
    rows = np.array(
        [r for r in job.rows["train"] if dataset.files[r] not in found.bad], dtype=np.int64
    )
    check_trainable(dataset.select(rows))
    labels = dataset.labels[rows]
    groups = dataset.grouping()[rows]
    check_spread(labels, groups, dataset.classes)
    folds = stratified_folds(labels, groups, FOLDS, request.seed)
    means.progress.begin("head", len(PENALTIES))
    head = fit_head(
        found.features[rows],
        labels,
        folds,
        len(dataset.classes),
        means.threads,
        means.progress.advance,
    )
    return (head.weight, head.bias), found.bad


def class_weights(job: Job) -> tuple[float, ...]:
    """How much an image of each class counts, so that all classes count the same and an image 1 in
    the mean."""
    counts = np.bincount(job.dataset.labels[job.rows["train"]], minlength=len(job.dataset.classes))
    return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())


@torch.no_grad()
def judge(
    network: nn.Module,
    batches: EvaluationBatches,
    preprocess: Preprocess,
    precision: str,
    ranks: Ranks,
) -> NDArray[np.float32]:
    """A network's logits of the validation images, (N, classes), on all ranks."""
    device = ranks.device
    rows = []
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            rows.append(
                network(normalise(batch.pixels.to(device), preprocess)).float().cpu().numpy()
            )
    own: NDArray[np.float32] = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    return np.concatenate([part for part in ranks.gather(own) if len(part)])


LOOKED_AT = 500  # images, evenly spaced


SMALL = 64  # networks for images up to this side are shown smaller ones as they are


class Seen(NamedTuple):
    """What images are like.

    Args:
        grey: all of them.
        short_side: the median's, pixels.
        mean, std: of red, green and blue, from 0 to 1, over all pixels.
    """

    grey: bool
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def look_at(dataset: Dataset, rows: NDArray[np.int64], threads: int) -> Seen:
    """Look at LOOKED_AT of the images; those that cannot be read are passed over.

    Raises:
        DataError: none can be read.
    """
    sides: list[int] = []
    sums: list[NDArray[np.float64]] = []
    grey = True

    def small(row: int) -> NDArray[np.uint8]:
        image = load_image(dataset.read(row), dataset.files[row])
        sides.append(min(image.size))
        image.thumbnail((SMALL, SMALL))
        return np.asarray(image)

    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).round().astype(int)]
    as_read = Preprocess(SMALL, SMALL)
    reasons: list[str] = []
    for _, pixels in decode_ahead(
        [int(row) for row in chosen], small, dataset.files.__getitem__, as_read, threads
    ):
        if isinstance(pixels, ImageError):
            reasons.append(str(pixels))
            continue
        grey = grey and bool((pixels == pixels[:, :, :1]).all())
        values = pixels.reshape(-1, 3) / 255
        sums.append(np.stack([values.mean(axis=0), (values**2).mean(axis=0)]))
    if not sums:
        told = "\n  ".join(reasons[:5])
        raise DataError(f"none of the training images of '{dataset.name}' can be read:\n  {told}")
    mean, square = np.mean(sums, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    return Seen(
        grey, int(np.median(sides)), tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
    )


def choose_inputs(
    model: str, smallest: int, seen: Seen, size: int | None, channels: int | None
) -> Preprocess:
    """The Preprocess of a random start.

    Args:
        model: a network's name.
        smallest: the side that it can read at least.
        seen: what the training images are like.
        size: what was asked; by default the network's own, and for networks of small images that of
            the images where they are smaller still.
        channels: what was asked; by default 1 where all images are grey.
    """
    own = CATALOGUE[model].input_size
    if size is None:
        size = max(smallest, min(own, seen.short_side)) if own <= SMALL else own
    channels = channels or (1 if seen.grey else 3)
    mean = seen.mean if channels == 3 else (round(float(np.mean(seen.mean)), 4),)
    std = seen.std if channels == 3 else (round(float(np.mean(seen.std)), 4),)
    return Preprocess(size, size, channels=channels, mean=mean, std=std)


PAYS = {"avx512_bf16", "amx_bf16"}  # instruction sets that multiply bf16 faster than f32


def choose_precision(wish: Literal["auto", "f32", "bf16"], device: str) -> Literal["f32", "bf16"]:
    """The precision of convolutions and linear layers in training; weights and their updates are
    always f32.

    Args:
        wish: what was asked.
        device: "cpu", "cuda" or "mps"; Apple's GPUs compute in f32.
    """
    if wish != "auto":
        return wish
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    return "bf16" if device == "cpu" and PAYS & instructions() else "f32"
