"""What a training by steps needs before its first step.

    splits ── what the network reads ── augmentation ── plan ── run's folder        Job.open
           ── network, batches, memory ──────────────────────── Trainer             Job.prepare
                                                           ──── Classifier          Job.fit

finetune begins with the probe of its backbone, solved on the training images alone: the head is
right from the first step on, and no random head sends large gradients through what the backbone
knows (Kumar et al., arXiv:2202.10054).
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foveate import models
from foveate.audit.groups import Grouping, Groups, find_groups
from foveate.audit.inspection import find_groups_alike
from foveate.classifier import Classifier
from foveate.data.augment import Augment, PolicyOptions
from foveate.data.augment.policies import Choice, resolve
from foveate.data.batches import EvaluationBatches, normalise
from foveate.data.batches.pixel_cache import CacheKind
from foveate.data.dataset import (
    Dataset,
    OnBad,
    Task,
    check_trainable,
)
from foveate.data.preprocess import Fit, Preprocess
from foveate.data.splits import FOLDS, judging_folds, stratified_folds, with_splits
from foveate.errors import DataError, UsageError, quoted
from foveate.features import extract
from foveate.heads import PENALTIES, fit_head
from foveate.machine import environment, free_memory, instructions
from foveate.models.summary import meta_twin
from foveate.probe import Probe, pooled_width
from foveate.progress import Progress, Silent
from foveate.runs import Run, settings_of
from foveate.storage import fingerprint as hash_of
from foveate.training.config import TrainConfig, resolve_config
from foveate.training.cost import images_per_step, plan_lines, seconds_to_come
from foveate.training.distributed import Ranks
from foveate.training.framing import Framing, Trial
from foveate.training.freezing import Norm, Plan, Size, make_plan, without_numbers
from foveate.training.honest import check_given, group_notes, learnt_from
from foveate.training.loader import Loader, check_readable, progressive
from foveate.training.memory import (
    bytes_per_image,
    check_batches,
    give_back,
    micro_batches_that_fit,
)
from foveate.training.network_input import choose_preprocess, choose_size
from foveate.training.report import Clock, EpochLog, Record
from foveate.training.saving import save_trained
from foveate.training.trainer import Trainer, step_seed
from foveate.weights.starting_point import OWN, TIMM, StartingPoint

FAST_BF16 = {"avx512_bf16", "amx_bf16"}  # instruction sets that multiply bf16 faster than f32

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """What was asked; `training.train` explains it. All of it decides what is learnt."""

    model: str  # name of the network, as the run and the card have it
    start: StartingPoint | None  # of finetune: the network and its weights
    module: nn.Module | None  # of scratch: a network that was handed in
    recipe: Literal["finetune", "scratch"]
    settings: dict[str, Any]  # single fields of TrainConfig
    config: TrainConfig | None  # or all of them
    augment: str | Augment | PolicyOptions | None
    size: int | None
    framing: Framing
    fit: Fit | None
    channels: int | None
    seed: int
    on_bad: OnBad | None
    engine: str
    groups: Groups
    reject: float | None  # share of images like the training images that may be refused
    grouping: Grouping | None = None  # found before, for all that share it

    def network(self, num_classes: int, in_channels: int) -> nn.Module:
        """The network of a random start, or a copy of the one that was handed in."""
        if self.module is not None:
            return copy.deepcopy(self.module)
        if self.model.startswith(TIMM):
            from foveate.weights.timm import timm_network

            return timm_network(self.model.removeprefix(TIMM), num_classes, in_channels)
        return models.build(self.model, num_classes, in_channels)

    @property
    def channels_last(self) -> bool:
        """The memory format of batches; a network of the user's reads contiguous NCHW."""
        return not self.model.startswith(OWN)


@dataclass(frozen=True)
class Resources:
    """Execution resources: they affect speed, not results, but for the last digits of sums that
    are shared by another number of threads."""

    threads: int
    cache: CacheKind
    tensorboard: bool
    progress: Progress
    clock: Clock
    command: str


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked, resolved; saved in its config.json, and compared when it is resumed."""

    data: str  # the set's name
    fingerprint: str  # of its files, labels, splits and groups
    order: str  # of its files, by which images are held out and drawn: their names decide it
    recipe: str
    model: str
    seed: int
    on_bad: str
    engine: str
    task: Task
    groups: Groups
    reject: float | None
    images: dict[str, int]  # in each split
    policy: str
    augmentation: dict[str, Any]
    preprocess: dict[str, Any]
    training: dict[str, Any]


class Job:
    """A training by steps: everything that is settled before a network is there.

    Args:
        run: its folder.
        ranks: this process among all.
        request, resources: what was asked, and what may be used.
        config: resolved.
        dataset: with its splits and groups.
        grouping: these groups, with their reasons.
        rows: of each split, the readable images.
        preprocess: what the network reads.
        policy, augmentation: of the training images.
        plan: which parts of the network learn.
        provenance: for the card.
        notes: what a person should know.
        tried: the framings that were tried.
    """

    def __init__(
        self,
        *,
        run: Run,
        ranks: Ranks,
        request: Request,
        resources: Resources,
        config: TrainConfig,
        dataset: Dataset,
        grouping: Grouping,
        rows: dict[str, Rows],
        preprocess: Preprocess,
        policy: str,
        augmentation: Augment,
        plan: Plan,
        provenance: dict[str, Any],
        notes: list[str],
        tried: list[Trial],
    ):
        self.run, self.ranks, self.request, self.resources = run, ranks, request, resources
        self.config, self.dataset, self.rows = config, dataset, rows
        self.grouping = grouping
        self.preprocess, self.policy, self.augmentation = preprocess, policy, augmentation
        self.plan, self.provenance, self.notes = plan, provenance, notes
        self.tried = tried
        self.bad: dict[str, str] = {}
        self.listener: EpochLog | None = None
        if not ranks.first:
            self.resources = replace(resources, progress=Silent())

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        fingerprint: str,
        request: Request,
        resources: Resources,
        ranks: Ranks,
        out: Path | None,
        resume: bool,
    ) -> "Job":
        """Settle everything that needs no weights, refuse what does not fit, open the run."""
        threads = resources.threads
        if request.start is not None:
            if ranks.first and not request.start.is_here:
                with resources.clock.phase("weights"):
                    request.start.fetch(resources.progress)
            ranks.share(None)  # the weights are here now, for all
        if ranks.first:  # what does not fit is said before groups are looked for, which takes long
            learnable = np.flatnonzero(learnt_from(dataset))
            settle(dataset, request, choose_size(dataset, learnable, request, None, threads)[0])
        grouping = ranks.share(
            look_for_groups(dataset, request, resources) if ranks.first else NO_GROUPS
        )
        given, dataset = dataset, grouping.applied(dataset)
        dataset, reasons = with_splits(dataset, request.seed)
        reasons += group_notes(given, grouping, None)
        rows = {
            split: np.flatnonzero([s == split for s in dataset.splits])
            for split in ("train", "validation", "test")
        }
        if not len(rows["train"]):
            raise DataError(
                f"{quoted(dataset.name)} has no training images, all are for validation or test"
            )
        preprocess, taken, tried = ranks.share(
            choose_preprocess(dataset, rows["train"], request, threads, resources.progress)
            if ranks.first
            else NOT_CHOSEN
        )
        choice, config, plan = settle(dataset, request, preprocess)
        augmentation = choice.augmentation.fit(
            dataset, rows=rows["train"], preprocess=preprocess, threads=threads
        )
        folder = ranks.share(
            Run.resumed(out, dataset.name, fingerprint) if resume and ranks.first else out
        )
        if resume and config.precision == "auto" and folder is not None:
            before = settings_of(folder).get("training.precision")
            config = replace(config, precision=before if before in ("f32", "bf16") else "auto")
        if config.freeze == "early":
            config = replace(config, freeze=sum(part.frozen for part in plan.parts if part.lr))
        check_batches(plan, len(rows["train"]), config, ranks.world)
        precision = choose_precision(config.precision, ranks.device.type)
        config = replace(config, precision=precision)
        settled = as_json(
            RunConfig(
                data=dataset.name,
                fingerprint=fingerprint,
                order=hash_of(list(dataset.digests))[:16],
                recipe=request.recipe,
                model=request.model,
                seed=request.seed,
                on_bad=request.on_bad or "skip",
                engine=request.engine,
                task=dataset.task,
                groups=request.groups,
                reject=request.reject,
                images={split: len(found) for split, found in rows.items()},
                policy=choice.policy,
                augmentation=augmentation.to_dict(),
                preprocess=preprocess.to_dict(),
                training=config.to_dict(),
            )
        )
        if request.start is not None and request.start.own_weights:
            settled["weights"] = request.start.identity
        run = Run.open(folder, dataset.name, settled, resume) if ranks.first else None
        path, fresh = ranks.share((run.folder, run.fresh) if run else (Path(), False))
        return cls(
            run=Run(path, fresh),
            ranks=ranks,
            request=request,
            resources=resources,
            config=config,
            dataset=dataset,
            grouping=grouping,
            rows=rows,
            preprocess=preprocess,
            policy=choice.policy,
            augmentation=augmentation,
            plan=plan,
            provenance={
                "command": resources.command,
                "environment": environment(),
                **settled,
            },
            notes=[*dataset.notes, *reasons, *remarked(request), *taken, *choice.reasons],
            tried=tried,
        )

    @contextmanager
    def own_folder(self) -> Iterator[None]:
        """Keep other processes out of the run's folder; remove it if nothing of use is in it."""
        if not self.ranks.first:
            yield
            return
        with self.run.kept_if_whole(), self.run.alone():
            self.run.log(f"foveate {self.resources.command or 'train'}")
            yield

    def prepare(self) -> Trainer:
        """The trainer before its first step; the plan is shown and saved."""
        job, config, preprocess = self, self.config, self.preprocess
        tensorboard = self.resources.tensorboard and self.ranks.first
        listener = self.listener = EpochLog(self.run.folder, tensorboard)
        loader = Loader(self)
        with self.resources.clock.phase("network"):
            network = starting_network(self, loader)

        def on_epoch(record: Record) -> None:
            if job.ranks.first:
                job.show_epoch(record, trainer, loader, listener)

        def validate(network: nn.Module) -> NDArray[np.float32]:
            return logits_of(
                network, loader.validation, preprocess, config.precision, job.ranks, channels_last
            )

        channels_last = self.request.channels_last
        trainer = Trainer(
            network=network,
            plan=self.plan,
            config=config,
            batches=loader.batches,
            validate=validate,
            labels=self.dataset.labels[self.rows["validation"]],
            preprocess=preprocess,
            seed=self.request.seed,
            ranks=self.ranks,
            progress=self.resources.progress,
            folder=self.run.checkpoints,
            class_weights=class_weights(self) if config.balance == "weights" else None,
            start_counts=self.request.recipe == "finetune",
            channels_last=channels_last,
            log=self.say,
            on_epoch=on_epoch,
        )
        if trainer.device.type == "cpu":
            self.fit_memory(trainer, loader)
        seconds = seconds_to_come(trainer, progressive(preprocess.crop, config))
        if self.ranks.first:
            rounded = [round(s, 3) for s in seconds]
            self.run.write("plan.json", self.plan.to_dict() | {"seconds_of_epochs": rounded})
        for line in plan_lines(self, seconds):
            self.say(line)
        return trainer

    def fit(self, resume: bool = False) -> Classifier:
        """Train, calibrate, measure and save. All ranks get the classifier."""
        try:
            trainer = self.prepare()
            with self.resources.clock.phase("training"):
                fitted = trainer.run(resume)
        finally:
            if self.listener is not None:
                self.listener.close()
        classifier = None
        if self.ranks.first:
            with self.resources.clock.phase("saving"):
                classifier = save_trained(self, trainer.network, fitted)
                self.run.drop_checkpoints()
        self.ranks.share(None)  # nobody leaves before it is written
        return classifier or Classifier.load(self.run.folder)

    def fit_memory(self, trainer: Trainer, loader: Loader) -> None:
        """Cut batches into micro-batches that fit into memory: where it is only promised, as on
        Linux, a process that takes too much is killed, with no error to answer to."""
        config = self.config
        last = config.epochs - 1  # in which most of the network learns
        n = images_per_step(trainer)
        size = size_read(self.preprocess)
        each = bytes_per_image(trainer.network, self.plan, size, last, config.precision)
        give_back()
        free = free_memory() - loader.pixels_to_come()
        trainer.micro_batches = micro_batches_that_fit(
            n, each, config.accumulate, self.plan.least(last), free
        )
        if trainer.micro_batches > config.accumulate:
            self.say(
                f"a step of {n} images would take {n * each / 1e9:.1f} GB: it is done in "
                f"{trainer.micro_batches} micro-batches"
            )

    def show_epoch(
        self, record: Record, trainer: Trainer, loader: Loader, listener: EpochLog
    ) -> None:
        """Write an epoch's figures, and show them."""
        for note in loader.notes() if record.epoch == 1 else []:
            self.notes.append(note)
            self.say(f"note  {note}")
        self.run.write_lines("history.jsonl", [asdict(r) for r in trainer.history])
        listener.add(record)
        learnt = f"loss {record.loss:.3f}  accuracy {record.accuracy:.3f}"
        rate = f"  {record.images_per_second:.0f} images/s"
        if record.epoch == 0:
            learnt, rate = f"{'the probe':<26}", ""
        best = " *" if record.best else "  "
        self.say(
            f"epoch {record.epoch:>3}  {learnt}  validation loss {record.validation_loss:.3f}  "
            f"accuracy {record.validation_accuracy:.3f}{best}{rate}"
        )

    def say(self, sentence: str) -> None:
        """Show a sentence now, and log it."""
        if self.ranks.first:
            self.resources.progress.say(sentence)
            self.run.log(sentence)


NO_GROUPS: Any = None  # of the ranks that are told of them
NOT_CHOSEN: Any = None  # the same of the Preprocess


def look_for_groups(dataset: Dataset, request: Request, resources: Resources) -> Grouping:
    """The groups of a dataset, those that were handed in or those that it has: they decide the
    splits."""
    threads, progress = resources.threads, resources.progress
    with resources.clock.phase("groups"):
        if request.grouping is not None:
            grouping = request.grouping
        elif request.groups == "auto":
            grouping = find_groups_alike(dataset, threads, progress)
        else:
            grouping = find_groups(dataset, None, request.groups, threads, progress)
        check_given(dataset, grouping, learnt_from(dataset))
    return grouping


def settle(
    dataset: Dataset, request: Request, preprocess: Preprocess
) -> tuple[Choice, TrainConfig, Plan]:
    """The augmentation, the settings, and what learns; UsageError for what does not fit."""
    asked = request.augment
    if not isinstance(asked, PolicyOptions):
        asked = PolicyOptions(asked, {})
    choice = resolve(dataset, preprocess.crop, preprocess.channels, *asked)
    network = unweighted_network(request, len(dataset.classes), preprocess)
    normed = any(isinstance(module, Norm) for module in network.modules())
    config = resolve_config(request.recipe, request.settings, normed, request.config)
    if config.balance != "none" and dataset.task == "multilabel":
        raise UsageError(
            "balance applies to the task multiclass; of several labels each has a threshold of its "
            "own"
        )
    plan = plan_for(network, preprocess, config)
    if "auxiliary" in request.settings and all(part.name != "auxiliary" for part in plan.parts):
        raise UsageError(
            f"auxiliary does not apply: {request.model} learns without auxiliary classifiers here"
        )
    return choice, config, plan


def remarked(request: Request) -> list[str]:
    """A sentence on how the start was come by, where there is something to say."""
    return [request.start.remark] if request.start and request.start.remark else []


def as_json(config: RunConfig) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return value


# The network


def unweighted_network(request: Request, num_classes: int, preprocess: Preprocess) -> nn.Module:
    """The network that will be trained, with numbers of no account: for its structure alone."""
    if request.start is None:
        if request.module is not None:
            return request.module
        with torch.device("meta"):
            return request.network(num_classes, preprocess.channels)
    network = request.start.unweighted()
    width = without_numbers(network, size_read(preprocess), pooled_width)
    with torch.device("meta"):
        return Probe(meta_twin(network), width, num_classes)


def plan_for(network: nn.Module, preprocess: Preprocess, config: TrainConfig) -> Plan:
    """The transfer plan. The first epoch's images have to fit the network as well."""
    first = progressive(preprocess.crop, config)(0)
    if first != preprocess.crop:
        smaller = (preprocess.channels, first, first)
        without_numbers(network, smaller, lambda twin, image: twin(image))
    return make_plan(
        network,
        size_read(preprocess),
        config.freeze,
        config.lr,
        config.head_lr,
        config.layer_decay,
        config.unfreeze_at,
        frozen_norms=config.batch_norm == "frozen",
    )


def size_read(preprocess: Preprocess) -> Size:
    return preprocess.channels, preprocess.crop, preprocess.crop


def starting_network(job: Job, loader: Loader) -> nn.Module:
    """The network as it is before the first step; unreadable images are left out from here on."""
    if job.request.start is None:
        found = job.ranks.share(check_readable(job, loader) if job.ranks.first else ({}, {}))
        loader.leave_out(*found)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(job.request.seed))
            return job.request.network(len(job.dataset.classes), job.preprocess.channels)
    head, bad, damaged = job.ranks.share(solve_head(job) if job.ranks.first else ((), {}, {}))
    loader.leave_out(bad, damaged)
    weight, bias = (torch.from_numpy(a) for a in head)
    probe = Probe(job.request.start.network(), weight.shape[1], weight.shape[0])
    with torch.no_grad():
        probe.linear.weight.copy_(weight)
        probe.linear.bias.copy_(bias)
    return probe


def solve_head(
    job: Job,
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], dict[str, str], dict[str, str]]:
    """The probe's head, solved on the training images alone; and the images that cannot be read,
    and those that are damaged."""
    dataset, resources, request = job.dataset, job.resources, job.request
    assert request.start is not None
    found = extract(
        dataset,
        request.start,
        job.preprocess,
        mirror=False,
        engine=request.engine,
        threads=resources.threads,
        progress=resources.progress,
    )
    readable = [r for r in job.rows["train"] if dataset.files[r] not in found.bad]
    rows = np.array(readable, dtype=np.int64)
    check_trainable(dataset.select(rows))
    labels, groups = dataset.labels[rows], dataset.grouping()[rows]
    folds = judging_folds(labels, groups, request.seed)
    if (folds < 0).all():  # nothing new to choose by
        folds = stratified_folds(labels, rows, FOLDS, request.seed)
    resources.progress.begin("head", len(PENALTIES))
    head = fit_head(
        found.features[rows],
        labels,
        folds,
        len(dataset.classes),
        resources.threads,
        resources.progress.advance,
    )
    return (head.weight, head.bias), found.bad, found.damaged


# Batches


def class_weights(job: Job) -> tuple[float, ...]:
    """How much an image of each class counts, so that all classes count the same and an image 1 in
    the mean."""
    counts = np.bincount(job.dataset.labels[job.rows["train"]], minlength=len(job.dataset.classes))
    return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())


@torch.no_grad()
def logits_of(
    network: nn.Module,
    batches: EvaluationBatches,
    preprocess: Preprocess,
    precision: str,
    ranks: Ranks,
    channels_last: bool = True,
) -> NDArray[np.float32]:
    """A network's logits of the validation images, (N, classes), on all ranks."""
    device = ranks.device
    rows = []
    for batch in batches:
        x = normalise(batch.pixels.to(device), preprocess)
        x = x if channels_last else x.contiguous()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            rows.append(network(x).float().cpu().numpy())
    own: NDArray[np.float32] = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    return np.concatenate([part for part in ranks.gather(own) if len(part)])


def choose_precision(
    requested: Literal["auto", "f32", "bf16"], device: str
) -> Literal["f32", "bf16"]:
    """The precision of convolutions and linear layers in training; weights and their updates are
    always f32. It is chosen from what the processor has, never from a timing, which could differ
    when a run is resumed.

    Args:
        requested: what was asked.
        device: "cpu", "cuda" or "mps"; Apple's GPUs compute in f32.
    """
    if requested != "auto":
        return requested
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    return "bf16" if device == "cpu" and FAST_BF16 & instructions() else "f32"
