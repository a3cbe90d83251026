"""The one loop: from random or pretrained weights, in one process or in many.

    for each epoch    what learns, the images' size
      for each batch  rate ─ forward, loss, backward, in micro-batches ─ finite? ─ clip ─ step ─ EMA
      validate        the validation images choose the epoch that is kept
      save            network, optimiser, EMA, history: enough to go on, bit for bit

What a step does depends on (seed, epoch, batch) and the weights alone: dropout draws from them, as
the images do (data/batches). So a training that was interrupted anywhere ends with the same
weights as one that was not.
"""

import gc
import hashlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from foveate.arguments import option
from foveate.checkpoint import (
    Found,
    State,
    a_count,
    latest,
    part_of,
    save_best,
    save_checkpoint,
    tensors_of,
)
from foveate.data.batches import normalise
from foveate.data.batches.assembly import Batch
from foveate.data.batches.order import part
from foveate.data.dataset import Task
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, FoveateError, printable, quoted
from foveate.heads import fit_temperature
from foveate.metrics import log_loss_of_logits
from foveate.models.folding import folded
from foveate.progress import Progress, unmonitored
from foveate.storage import check, is_of
from foveate.training.config import TrainConfig
from foveate.training.distributed import Ranks
from foveate.training.freezing import Plan
from foveate.training.losses import Objective, share_right
from foveate.training.memory import is_out_of_memory
from foveate.training.optim import (
    EMA,
    make_optimizer,
    optimizer_tensors,
    rate_factor,
    restore_optimizer,
    set_rates,
)
from foveate.training.report import Record

SAVE_EVERY = 600.0  # seconds between checkpoints within an epoch
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    EXIT_CODES[signal.SIGUSR1] = 75  # saved; a scheduler may queue the job again


class StopRequest:
    """Whether a signal has asked training to save and stop: `code` is the exit code, 0 before that.

    The second signal goes to whoever handled it before, which ends a program at once and raises
    KeyboardInterrupt in a notebook.
    """

    def __init__(self) -> None:
        self.code = 0
        self.before: dict[signal.Signals, Any] = {}

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.code = EXIT_CODES[signal.Signals(number)]
        self.restore()

    def restore(self) -> None:
        """Give signals back to those who handled them before."""
        for each, handler in self.before.items():
            signal.signal(each, handler)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn signals into a request that the trainer looks at after each step. Python delivers
    signals to the main thread alone: in other threads none comes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    for each in EXIT_CODES:
        request.before[each] = signal.signal(each, request.receive)
    try:
        yield request
    finally:
        request.restore()


def stopped(code: int) -> BaseException:
    """What to raise when the state is saved."""
    return KeyboardInterrupt() if code == 130 else SystemExit(code)


def step_seed(*numbers: int) -> int:
    """A seed of 63 bits from several numbers.

    >>> step_seed(0, 1) == step_seed(0, 1) != step_seed(1, 0)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()) >> 1


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from on a device, and nothing else: on a machine without a GPU
    `torch.manual_seed` keeps the caller's stack at every call, for the GPU that might yet come."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def is_of_compiler(error: BaseException) -> bool:
    """Whether torch.compile has failed; its own classes would take seconds to import."""
    homes = ("torch._dynamo", "torch._inductor")
    return any(kind.__module__.startswith(homes) for kind in type(error).__mro__)


def not_compiled(error: BaseException) -> FoveateError:
    reason = printable((str(error).strip().splitlines() or [repr(error)])[0][:200])
    return FoveateError(
        f"torch.compile cannot make a program of the network ({reason}): train without "
        f"{option('compile')}, or see whether a C++ compiler works here"
    )


@dataclass
class Sums:
    """Of an epoch, so far."""

    loss: float = 0.0
    right: float = 0.0
    gradient: float = 0.0
    images: float = 0.0
    seconds: float = 0.0


def at_least_1(value: Any) -> bool:
    return is_of(value, int) and 1 <= value < 2**31


def an_epochs_record(value: Any) -> bool:
    kinds: dict[Any, Any] = {int: a_count, float: float, bool: bool}
    form = {field.name: kinds[field.type] for field in fields(Record)}
    return is_of(value, form) and len(value) == len(form)


# what a checkpoint's metadata hold beside what every one has
ABOUT: dict[Any, Any] = {
    "history": [an_epochs_record],
    "micro_batches": at_least_1,
    "sums": {field.name: float for field in fields(Sums)},
}


@dataclass(frozen=True)
class Fitted:
    """What the loop leaves: the network holds the best epoch's weights.

    Args:
        history: a record an epoch.
        logits: (N, classes), of the validation images, from those weights.
        best: the epoch.
        stopped_early: validation did not get better any more.
    """

    history: tuple[Record, ...]
    logits: NDArray[np.float32]
    best: int
    stopped_early: bool


class Epochs(Protocol):
    """Training batches: `data.batches.TrainingBatches`, or what a test makes."""

    rows: NDArray[np.int64]  # of the images of an epoch, on all ranks together

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass
class Trainer:
    """A training: what it works on, and how far it is.

    Args:
        network: trained in place, where `ranks.device` says; with the tensors it is to start from.
        plan: what learns, at which rate.
        config: resolved; `precision` is "f32" or "bf16".
        batches: the training images.
        validate: gives a network's logits of the validation images.
        labels: (N,), theirs; or (N, classes), 0 or 1.
        preprocess: whose mean and std normalise.
        seed: of dropout and the like.
        ranks: this process among all.
        folder: of the checkpoints; None saves nothing.
        class_weights: (classes,), how much an image of each class counts; None is all the same.
        start_counts: whether the state before the first epoch may be the one that is kept.
        channels_last: the memory format of network and batches; else they are contiguous NCHW.
        progress: is advanced with each batch.
        log: is called with what a person should know.
        on_epoch: is called with each epoch's figures.
    """

    network: nn.Module
    plan: Plan
    config: TrainConfig
    batches: Epochs
    validate: Callable[[nn.Module], NDArray[np.float32]]
    labels: NDArray[np.int64]
    preprocess: Preprocess
    seed: int
    ranks: Ranks
    progress: Progress
    folder: Path | None = None
    class_weights: tuple[float, ...] | None = None
    start_counts: bool = False
    channels_last: bool = True
    log: Callable[[str], object] = lambda sentence: None
    on_epoch: Callable[[Record], object] = lambda record: None

    epoch: int = field(default=0, init=False)
    batch: int = field(default=0, init=False)
    sums: Sums = field(default_factory=Sums, init=False)
    history: list[Record] = field(default_factory=list, init=False)
    best: str = field(default="", init=False)  # file of the best epoch's tensors
    best_state: State = field(default_factory=dict, init=False)
    module: nn.Module | None = field(default=None, init=False)
    learning: int = field(default=0, init=False)  # parameters for which `module` was made

    def __post_init__(self) -> None:
        self.device = self.ranks.device
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.memory_format: torch.memory_format = layout
        self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.network, self.plan, self.config)
        self.ema = EMA(self.network, self.config.ema) if self.config.ema else None
        self.micro_batches = self.config.accumulate
        self.steps = len(self.batches) * self.config.epochs
        self.warmup = min(self.config.warmup * len(self.batches), self.steps)
        weights = (
            None
            if self.class_weights is None
            else torch.tensor(self.class_weights, device=self.device)
        )
        task: Task = "multilabel" if self.labels.ndim == 2 else "multiclass"
        self.objective = Objective(
            task, self.config.label_smoothing, self.config.auxiliary, weights
        )
        # by their shape: memory that is written over
        self.inputs: dict[tuple[int, ...], Tensor] = {}
        self.saved = time.monotonic()

    def run(self, resume: bool = False) -> Fitted:
        """Train to the end, from the newest checkpoint if asked.

        Raises:
            FoveateError: a loss or gradient is not finite; the memory is too small for one image;
                the disk is full.
            ArtefactError: the checkpoints are all damaged, or of another network.
            KeyboardInterrupt, SystemExit: a signal came, and the state is saved.
        """
        found = self.found() if resume else None
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            stop_requests() as request,
        ):
            if found:
                self.restore(found)
            elif self.start_counts:
                before = Record(0, 0.0, 0.0, 0.0, *self.validated()[:2], 0.0, 0.0, 0.0, best=True)
                self.keep_if_best(before)
                self.on_epoch(before)
            while self.epoch < self.config.epochs and not self.stale:
                self.train_epoch(lambda: request.code)
                self.end_epoch()
                if code := int(self.ranks.largest(request.code)):
                    raise stopped(code)
        return self.finish()

    # one epoch

    def train_epoch(self, stop_code: Callable[[], int]) -> None:
        """Train what is left of the epoch that has begun."""
        self.plan.apply(self.network, self.epoch)
        module = self.module_of(self.epoch)
        self.inputs.clear()  # images grow from epoch to epoch with progressive sizes
        shown = f"epoch {self.epoch + 1}/{self.config.epochs}"
        self.progress.begin(shown, len(self.batches.rows))
        self.progress.advance(self.batch * len(self.batches.rows) // len(self.batches))
        begun = time.perf_counter()
        for batch in self.batches.epoch(self.epoch, self.batch):
            self.step(module, batch)
            self.batch += 1
            self.progress.advance(batch.total)
            now = time.perf_counter()
            self.sums.seconds, begun = self.sums.seconds + now - begun, now
            due = self.folder is not None and time.monotonic() - self.saved > SAVE_EVERY
            # All ranks decide together: one that stopped alone would leave the others waiting in
            # the next step's gradients. A signal's exit code outweighs the half of a due save.
            asked = self.ranks.largest(stop_code() + 0.5 * due)
            if asked and self.batch < len(self.batches):
                self.save()
                if asked >= 1:
                    raise stopped(int(asked))

    def module_of(self, epoch: int) -> nn.Module:
        """The network as its forward is called: frozen batch-norms folded, compiled, gradients
        averaged over the ranks. It is made anew when something thaws."""
        learning = self.plan.learning(epoch)
        if self.module is None or learning != self.learning:
            side = self.preprocess.crop
            self.module = folded(self.network, (self.preprocess.channels, side, side))
            self.learning = learning
            if self.ranks.world > 1:
                ids = [self.device.index] if self.device.type == "cuda" else None
                # newer torch renames an option
                with warnings.catch_warnings(action="ignore", category=FutureWarning):
                    self.module = DistributedDataParallel(
                        self.module, device_ids=ids, broadcast_buffers=False
                    )
            if self.config.compile:
                self.module = torch.compile(self.module)  # type: ignore[assignment]
        assert self.module is not None
        return self.module

    def step(self, module: nn.Module, batch: Batch) -> None:
        """Learn from one batch."""
        number = self.epoch * len(self.batches) + batch.number
        set_rates(
            self.optimizer, rate_factor(self.config.schedule, number, self.steps, self.warmup)
        )
        loss, right = self.gradients(module, batch)
        norm = self.clipped()
        # before the optimizer step, so that the weights are still those of the last good step
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FoveateError(self.not_finite(batch, loss, number))
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.network)
        self.sums.loss += loss * batch.total / self.ranks.world
        self.sums.right += right
        self.sums.gradient += norm
        self.sums.images += len(batch.rows)

    def clipped(self) -> float:
        """The norm of the gradient over all parameters, before it is cut down to the longest
        allowed."""
        learning = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if self.config.clip and bool(norm.isfinite()):
            torch.nn.utils.clip_grads_with_norm_(learning, self.config.clip, norm)
        return float(norm)

    def not_finite(self, batch: Batch, loss: float, number: int) -> str:
        rate = max(float(group["lr"]) for group in self.optimizer.param_groups)
        what = "the loss" if not math.isfinite(loss) else "a gradient"
        self.log(f"the batch whose {what.split()[-1]} is not finite: {', '.join(batch.names)}")
        return (
            f"{what} is not finite at step {number + 1} (epoch {self.epoch + 1}, batch "
            f"{batch.number + 1}, rate {rate:.3g}); nothing was learnt from it. Lower "
            f"{option('lr')}, or "
            f"look at these images: {', '.join(batch.names[:5])}"
            f"{', others are in log.txt' if len(batch.names) > 5 else ''}"
        )

    def gradients(self, module: nn.Module, batch: Batch) -> tuple[float, float]:
        """Backward through a batch, in smaller micro-batches if memory runs out; the loss, and how
        many answers were right."""
        while True:
            try:
                with unmonitored() if self.config.compile else nullcontext():
                    return self.attempt(module, batch)
            except (RuntimeError, MemoryError) as error:
                if is_of_compiler(error):
                    raise not_compiled(error) from error
                self.cut_smaller(len(batch.rows), error)
            gc.collect()  # out of the handler, which holds what filled the memory

    def cut_smaller(self, images: int, error: BaseException) -> None:
        """Answer an error: if memory was the reason, batches are cut into more micro-batches from
        here on. The effective batch, and so what is learnt, stays the same."""
        if not is_out_of_memory(error):
            raise error
        smallest = self.micro_batches >= self.most_micro_batches(images)
        if smallest or self.ranks.world > 1:
            larger = "" if smallest else f", or a larger {option('accumulate')}"
            raise FoveateError(
                f"out of memory with {-(-images // self.micro_batches)} images at once; choose a "
                f"smaller {option('size')} or network{larger}"
            ) from error
        self.micro_batches = min(2 * self.micro_batches, self.most_micro_batches(images))
        self.inputs.clear()
        self.log(
            f"out of memory: from here on a batch is cut into {self.micro_batches} micro-batches"
        )

    def most_micro_batches(self, images: int) -> int:
        """Into which a batch may be cut: batch-norm takes no statistics from a single image."""
        return max(1, images // self.plan.least(self.epoch))

    def attempt(self, module: nn.Module, batch: Batch) -> tuple[float, float]:
        self.optimizer.zero_grad(set_to_none=True)
        seed_dropout(step_seed(self.seed, self.epoch, batch.number, self.ranks.rank), self.device)
        n, loss, right = len(batch.rows), 0.0, 0.0
        count = min(self.micro_batches, self.most_micro_batches(n))
        for i in range(count):
            rows = part(n, count, i)
            targets = batch.targets[rows].to(self.device, non_blocking=True)
            x = self.input(batch.pixels[rows])
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
            ):
                outputs = module(x)
            logits, total = self.objective.loss(outputs, targets)
            # The loss is a sum over images. DDP averages the gradients of ranks, and those of
            # micro-batches are added, so this makes the step that of the mean over the whole batch.
            share = total * (self.ranks.world / batch.total)
            last = i == count - 1
            # gradients travel between ranks once a step, with the last micro-batch
            with nullcontext() if last else getattr(module, "no_sync", nullcontext)():
                torch.autograd.backward(share)
            loss += float(share.detach())
            right += self.objective.right(logits, targets)
        return loss, right

    def input(self, pixels: Tensor) -> Tensor:
        """Normalised, on the device, in memory that the last batch of this shape no longer
        needs."""
        shape = tuple(pixels.shape)
        self.inputs[shape] = x = normalise(
            pixels.to(self.device, non_blocking=True), self.preprocess, self.inputs.get(shape)
        )
        return x if self.channels_last else x.contiguous()

    # validating and keeping

    @property
    def validated_network(self) -> nn.Module:
        """The one whose validation counts, and that is kept."""
        return self.ema.network if self.ema else self.network

    def validated(self) -> tuple[float, float, NDArray[np.float32]]:
        """Calibrated log-loss, accuracy and logits on the validation images."""
        network = self.validated_network.eval()
        logits = self.validate(network)
        if not np.isfinite(logits).all():
            raise FoveateError(
                f"validation after epoch {self.epoch + 1} gives numbers that are not finite; lower "
                + option("lr")
            )
        # Calibrated, so that an epoch is not preferred for being less sure of itself: the
        # temperature is fitted anew before the classifier is saved.
        temperature = fit_temperature(logits, self.labels)
        loss = log_loss_of_logits(logits / np.float32(temperature), self.labels)
        return loss, share_right(logits, self.labels), logits

    def end_epoch(self) -> None:
        """Validate, keep, record and save."""
        begun = time.perf_counter()
        # each rank took running statistics from its own part of the batches
        self.ranks.mean_of_buffers(self.network)
        if self.ema:
            self.ranks.mean_of_buffers(self.ema.network)
        loss, accuracy, _ = self.validated()
        sums = self.summed()
        record = Record(
            epoch=self.epoch + 1,
            lr=rate_factor(
                self.config.schedule,
                (self.epoch + 1) * len(self.batches) - 1,
                self.steps,
                self.warmup,
            ),
            loss=sums.loss / sums.images,
            accuracy=sums.right / sums.images,
            validation_loss=loss,
            validation_accuracy=accuracy,
            gradient=sums.gradient / (len(self.batches) * self.ranks.world),
            seconds=round(self.sums.seconds + time.perf_counter() - begun, 3),
            images_per_second=round(sums.images / max(self.sums.seconds, 1e-9), 1),
            best=not self.history or loss < min(r.validation_loss for r in self.history),
        )
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
        self.keep_if_best(record)
        self.save()
        self.on_epoch(record)

    def keep_if_best(self, record: Record) -> None:
        self.history.append(record)
        if record.best:
            state = {
                name: t.detach().clone() for name, t in self.validated_network.state_dict().items()
            }
            self.best_state = state
            if self.folder and self.ranks.first:
                self.best = save_best(self.folder, record.epoch, state)

    def summed(self) -> Sums:
        """The epoch's sums over all ranks; seconds are this rank's."""
        if self.ranks.world == 1:
            return self.sums
        own = torch.tensor([*asdict(self.sums).values()], dtype=torch.float64, device=self.device)
        return replace(Sums(*self.ranks.total(own).tolist()), seconds=self.sums.seconds)

    @property
    def stale(self) -> bool:
        """Whether validation has not become better for as long as patience lasts."""
        best = max((r.epoch for r in self.history if r.best), default=0)
        return bool(self.config.patience) and self.epoch - best >= self.config.patience

    def finish(self) -> Fitted:
        """Put the best epoch's tensors into the network."""
        self.network.load_state_dict(self.best_state)
        self.network.eval().requires_grad_(True)
        best = max(r.epoch for r in self.history if r.best)
        return Fitted(
            tuple(self.history), self.validate(self.network), best, self.epoch < self.config.epochs
        )

    # saving and going on

    def save(self) -> None:
        """Write a checkpoint: of the epochs that are done, or in the midst of one."""
        sums = asdict(self.summed())
        # in mid-epoch running statistics differ from rank to rank; between epochs they are the same
        statistics = self.ranks.gather(self.statistics()) if self.batch else []
        self.saved = time.monotonic()
        if self.folder is None or not self.ranks.first:
            return
        tensors = tensors_of(self.network, "network.") | optimizer_tensors(
            self.optimizer, "optimizer."
        )
        for rank, buffers in enumerate(statistics[1:], start=1):
            tensors |= {f"rank{rank}.{name}": t for name, t in buffers.items()}
        about: dict[str, Any] = {
            "sums": sums,
            "history": [asdict(record) for record in self.history],
            "micro_batches": self.micro_batches,
        }
        if self.ema:
            tensors |= tensors_of(self.ema.network, "ema.")
            about["updates"] = self.ema.updates
        save_checkpoint(self.folder, self.epoch, self.batch, tensors, about, self.best)

    def statistics(self) -> State:
        """Running statistics, which each rank takes from its own part of the batches."""
        return {name: t.cpu() for name, t in self.network.named_buffers() if t.is_floating_point()}

    def found(self) -> Found | None:
        """The newest whole checkpoint, the same one on all ranks."""
        assert self.folder is not None
        return self.ranks.share(latest(self.folder, self.log) if self.ranks.first else None)

    def restore(self, found: Found) -> None:
        """Go back to what a checkpoint holds."""
        try:
            about = found.about
            check(about, ABOUT | ({"updates": a_count} if self.ema else {}), "its metadata")
            done = about["epoch"] * len(self.batches) + about["batch"]
            if done > self.steps or about["batch"] >= max(1, len(self.batches)):
                raise ValueError(f"it was saved after {done} of {self.steps} steps")
            best = any(record["best"] for record in about["history"])
            if best != bool(found.best) or (about["epoch"] and not best):
                raise ValueError("the best epoch's tensors are not those of its history")
            self.network.load_state_dict(part_of(found.tensors, "network."))
            self.network.load_state_dict(
                part_of(found.tensors, f"rank{self.ranks.rank}."), strict=False
            )
            restore_optimizer(self.optimizer, part_of(found.tensors, "optimizer."))
            if self.ema:
                self.ema.network.load_state_dict(part_of(found.tensors, "ema."))
                self.ema.updates = about["updates"]
            mine = {name: t.shape for name, t in self.network.state_dict().items()}
            if found.best and {name: t.shape for name, t in found.best.items()} != mine:
                raise ValueError("the best epoch's tensors have other names or shapes")
            self.best_state = {name: t.to(self.device) for name, t in found.best.items()}
            self.history = [Record(**record) for record in about["history"]]
            self.epoch, self.batch = about["epoch"], about["batch"]
            self.best, before = about["best"], about["micro_batches"]
            self.sums = Sums(**about["sums"]) if self.ranks.first else Sums()
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = printable(str(error).splitlines()[0][:200])
            raise ArtefactError(
                f"{quoted(found.path)} is of another network or training ({reason}); train anew"
            ) from error
        if before < self.micro_batches:
            self.log(
                f"resuming with more micro-batches than before ({self.micro_batches} instead of "
                f"{before}) because less memory is free; results may differ in the last digits"
            )
        self.micro_batches = max(self.micro_batches, before)
