"""finetune and scratch: from images to a run, by way of the loop.

    split ── what the network reads ── augmentation ── network ── plan ── loop ── calibrate ── save
    ── measure

finetune begins with the probe of its backbone, solved on the training images alone: the head is
right from the first step on, and no random head sends large gradients through what the backbone
knows (Kumar et al., arXiv:2202.10054).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from foveate import models
from foveate.classifier import Classifier
from foveate.data.augment.policies import resolve
from foveate.data.dataset import Dataset, Task
from foveate.data.preprocess import Preprocess
from foveate.errors import DataError, UsageError
from foveate.machine import environment, free_memory
from foveate.probe import Probe
from foveate.progress import Silent
from foveate.runs import Run, read_json
from foveate.training.config import TrainConfig, resolve_config
from foveate.training.distributed import Ranks, joined
from foveate.training.freezing import Plan, make_plan
from foveate.training.lr_finder import RateTest, range_test
from foveate.training.memory import (
    bytes_per_image,
    check_batches,
    give_back,
    memory_kept,
    pieces_that_fit,
)
from foveate.training.report import Listener, Record
from foveate.training.saving import keep
from foveate.training.setup import (
    Job,
    Loader,
    Means,
    Request,
    choose_precision,
    class_weights,
    has_norms,
    inputs,
    judge,
    progressive,
    start,
    with_splits,
)
from foveate.training.telling import as_lines, seconds_to_come
from foveate.training.trainer import Loop
from foveate.weights import find_weights, is_here, source_file

T = TypeVar("T")


@dataclass(frozen=True)
class DescentConfig:
    """What a run was asked, resolved; saved in its config.json, and compared when it is resumed."""

    data: str  # the set's name
    fingerprint: str  # of its files, labels, splits and groups
    recipe: str
    model: str
    seed: int
    on_bad: str
    engine: str
    task: Task
    images: dict[str, int]  # of each split, as they were dealt
    policy: str
    augmentation: dict[str, Any]
    preprocess: dict[str, Any]
    training: dict[str, Any]


def descend(
    dataset: Dataset, digest: str, request: Request, means: Means, out: Path | None, resume: bool
) -> Classifier:
    """Train, measure and save. Arguments as `training.train` has them."""

    def act(job: Job, loop: Loop) -> Classifier:
        with means.clock.phase("training"):
            fitted = loop.run(resume)
        with means.clock.phase("saving"):
            classifier = keep(job, loop.network, fitted)
        job.ranks.share(None)  # nobody leaves before it is written
        return classifier or Classifier.load(job.run.folder)

    def finished(run: Run) -> Classifier | None:
        return Classifier.load(run.folder) if resume and run.finished else None

    return prepared(dataset, digest, request, means, out, resume, finished, act)


def try_rates(dataset: Dataset, digest: str, request: Request, means: Means) -> RateTest:
    """The learning rate range test, in a run's folder that does not stay."""
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        return prepared(
            dataset,
            digest,
            request,
            means,
            out,
            False,
            lambda run: None,
            lambda _, loop: range_test(loop),
        )


def prepared(
    dataset: Dataset,
    digest: str,
    request: Request,
    means: Means,
    out: Path | None,
    resume: bool,
    finished: Callable[[Run], T | None],
    act: Callable[[Job, Loop], T],
) -> T:
    """Let `act` work with a loop that is ready, on all ranks; unless the run is `finished`."""
    with joined() as ranks, torch_threads(means.threads):
        if not ranks.first:
            means = replace(means, progress=Silent())
        if request.recipe == "finetune" and ranks.first:
            weights = find_weights(request.model)
            if not is_here(weights):
                with means.clock.phase("weights"):
                    source_file(weights, progress=means.progress)
        ranks.share(None)  # the weights are here now, for all
        run, job = opened(dataset, digest, request, means, ranks, out, resume)
        done = finished(run)
        if done is not None:
            return done
        if not ranks.first:
            with memory_kept():
                return act(job, ready_loop(job))
        with run.kept_if_whole(), run.alone(), memory_kept():
            run.log(f"foveate {means.command or 'train'}")
            return act(job, ready_loop(job))


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """So many cores for torch's operations, meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def opened(
    dataset: Dataset,
    digest: str,
    request: Request,
    means: Means,
    ranks: Ranks,
    out: Path | None,
    resume: bool,
) -> tuple[Run, Job]:
    """The run's folder, and everything that can be settled before a network is there."""
    dataset, reasons = with_splits(dataset, request.seed)
    rows = {
        split: np.flatnonzero([s == split for s in dataset.splits])
        for split in ("train", "validation", "test")
    }
    if not len(rows["train"]):
        raise DataError(f"'{dataset.name}' has no training images, all are for validation or test")
    preprocess = inputs(dataset, rows["train"], request, means.threads)
    choice = resolve(dataset, preprocess.crop, preprocess.channels, request.augment, request.parts)
    augmentation = choice.augmentation.fit(
        dataset, rows=rows["train"], preprocess=preprocess, threads=means.threads
    )
    config = resolve_config(request.recipe, request.settings, has_norms(request.model))
    if config.balance != "none" and dataset.task == "multilabel":
        raise UsageError(
            "balance applies to the task multiclass; of several labels each has a threshold of its "
            "own"
        )
    folder = ranks.share(Run.resumed(out, dataset.name) if resume and ranks.first else out)
    if resume and config.precision == "auto" and folder is not None:
        before = read_json(folder / "config.json").get("training", {}).get("precision")
        config = replace(config, precision=before if before in ("f32", "bf16") else "auto")
    plan = first_plan(request, dataset, preprocess, config)
    if "auxiliary" in request.settings and all(part.name != "auxiliary" for part in plan.parts):
        raise UsageError(
            f"auxiliary does not apply: {request.model} learns without auxiliary classifiers here"
        )
    if config.freeze == "early":
        config = replace(config, freeze=sum(part.frozen for part in plan.parts if part.lr))
    steps = -(-len(rows["train"]) // config.batch_size)
    check_batches(
        plan, len(rows["train"]) // steps // ranks.world // config.accumulate, config.epochs
    )
    config = replace(config, precision=choose_precision(config.precision, ranks.device.type))
    settled = DescentConfig(
        data=dataset.name,
        fingerprint=digest,
        recipe=request.recipe,
        model=request.model,
        seed=request.seed,
        on_bad=request.on_bad,
        engine=request.engine,
        task=dataset.task,
        images={split: len(found) for split, found in rows.items()},
        policy=choice.policy,
        augmentation=augmentation.to_dict(),
        preprocess=preprocess.to_dict(),
        training=config.to_dict(),
    )
    fresh = (
        Run.open(folder, dataset.name, as_json(asdict(settled)), resume) if ranks.first else None
    )
    run = fresh or Run(Path(), fresh=False)
    run = Run(ranks.share(run.folder), run.fresh)
    about = {
        "provenance": {
            "command": means.command,
            "environment": environment(),
            **as_json(asdict(settled)),
        }
    }
    notes = [*dataset.notes, *reasons, *choice.reasons]
    job = Job(
        run,
        ranks,
        request,
        means,
        config,
        dataset,
        rows,
        preprocess,
        choice.policy,
        augmentation,
        about,
        notes,
    )
    return run, job


def first_plan(
    request: Request, dataset: Dataset, preprocess: Preprocess, config: TrainConfig
) -> Plan:
    """The transfer plan of a network without memory for its numbers: what does not fit is refused
    before any work."""
    with torch.device("meta"):
        network: Any = models.build(request.model, len(dataset.classes), preprocess.channels)
        if request.recipe == "finetune":
            network = Probe(network, 1, len(dataset.classes))
    rates, frozen_norms = (
        (config.lr, config.head_lr, config.layer_decay),
        config.batch_norm == "frozen",
    )
    first = progressive(preprocess.crop, config)(0)  # the first epoch's images have to fit as well
    plans = [
        make_plan(
            network,
            (preprocess.channels, side, side),
            config.freeze,
            *rates,
            config.unfreeze_at,
            frozen_norms,
        )
        for side in sorted({first, preprocess.crop})
    ]
    return plans[-1]


def ready_loop(job: Job) -> Loop:
    """The loop before its first step, its plan told and saved."""
    run, config = job.run, job.config
    listener = Listener(run.folder, job.means.tensorboard and job.ranks.first)
    loader = Loader(job)
    with job.means.clock.phase("network"):
        network = start(job, loader)
    size = (job.preprocess.channels, job.preprocess.crop, job.preprocess.crop)
    frozen_norms = config.batch_norm == "frozen"
    rates = (config.lr, config.head_lr, config.layer_decay)
    plan = make_plan(network, size, config.freeze, *rates, config.unfreeze_at, frozen_norms)
    batches, validation = loader.batches, loader.validation
    check_batches(
        plan,
        len(batches.rows) // len(batches) // job.ranks.world // config.accumulate,
        config.epochs,
    )
    loop = Loop(
        network=network,
        plan=plan,
        config=config,
        batches=batches,
        judge=lambda net: judge(net, validation, job.preprocess, config.precision, job.ranks),
        labels=job.dataset.labels[job.rows["validation"]],
        preprocess=job.preprocess,
        seed=job.request.seed,
        ranks=job.ranks,
        progress=job.means.progress,
        folder=run.checkpoints,
        class_weights=class_weights(job) if config.balance == "weights" else None,
        start_counts=job.request.recipe == "finetune",
        log=job.say,
        on_epoch=lambda record: tell(job, listener, loader, loop, record),
    )
    if loop.device.type == "cpu":
        last = config.epochs - 1  # in which most of the network learns
        n = -(-len(batches.rows) // len(batches) // job.ranks.world)
        each = bytes_per_image(network, plan, size, last, config.precision)
        give_back()
        free = free_memory() - loader.pixels_to_come()
        loop.pieces = pieces_that_fit(n, each, config.accumulate, plan.least(last), free)
        if loop.pieces > config.accumulate:
            job.say(
                f"a step of {n} images would take {n * each / 1e9:.1f} GB: it is done in "
                f"{loop.pieces} pieces"
            )
    seconds = seconds_to_come(loop, progressive(job.preprocess.crop, config))
    if job.ranks.first:
        run.write(
            "plan.json", plan.to_dict() | {"seconds_of_epochs": [round(s, 3) for s in seconds]}
        )
    for line in as_lines(plan, job, seconds):
        job.say(line)
    return loop


def tell(job: Job, listener: Listener, loader: Loader, loop: Loop, record: Record) -> None:
    """That an epoch is done."""
    if not job.ranks.first:
        return
    for note in loader.notes() if record.epoch == 1 else []:
        job.notes.append(note)
        job.say(f"note  {note}")
    job.run.write_lines("history.jsonl", [asdict(r) for r in loop.history])
    listener.hear(record)
    learnt = (
        f"loss {record.loss:.3f}  accuracy {record.accuracy:.3f}"
        if record.epoch
        else f"{'the probe':<26}"
    )
    rate = f"  {record.images_per_second:.0f} images/s" if record.epoch else ""
    job.say(
        f"epoch {record.epoch:>3}  {learnt}  validation loss {record.validation_loss:.3f}  "
        "accuracy "
        f"{record.validation_accuracy:.3f}{' *' if record.best else '  '}{rate}"
    )


def as_json(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))
