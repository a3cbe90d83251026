"""What a training will cost: measured with a step before the first one, and shown with the plan."""

import copy
import gc
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from foveate.models.folding import folded
from foveate.training.trainer import Trainer

if TYPE_CHECKING:
    from foveate.training.setup import Job


def seconds_to_come(trainer: Trainer, size: Callable[[int], int]) -> list[float]:
    """What each epoch will take, from a step before and a step after the thaw, and the epochs'
    image sizes; loading is not counted."""
    epochs, thaw = trainer.config.epochs, trainer.plan.unfreeze_at
    first = seconds_per_epoch(trainer, 0)
    later = seconds_per_epoch(trainer, thaw) if 0 < thaw < epochs else first
    full = trainer.preprocess.crop
    each = [first if not 0 < thaw <= epoch else later for epoch in range(epochs)]
    return [seconds * (size(epoch) / full) ** 2 for epoch, seconds in enumerate(each)]


def seconds_per_epoch(trainer: Trainer, epoch: int) -> float:
    """From a step at the full size; one that needs too much memory makes the trainer cut its
    batches smaller."""
    while True:
        try:
            return (
                trainer.micro_batches
                * len(trainer.batches)
                * seconds_per_micro_batch(trainer, epoch)
            )
        except (RuntimeError, MemoryError) as error:
            trainer.cut_smaller(images_per_step(trainer), error)
        gc.collect()  # out of the handler, which holds what filled the memory


def images_per_step(trainer: Trainer) -> int:
    """Of this rank, at most."""
    return -(-len(trainer.batches.rows) // len(trainer.batches) // trainer.ranks.world)


def seconds_per_micro_batch(trainer: Trainer, epoch: int) -> float:
    """Forward and backward on a copy of the network, with images of zeros."""
    channels, side = trainer.preprocess.channels, trainer.preprocess.crop
    network = copy.deepcopy(trainer.network)
    trainer.plan.apply(network, epoch)
    network = folded(network, (channels, side, side))
    n = -(-images_per_step(trainer) // trainer.micro_batches)
    x = torch.zeros(n, channels, side, side, device=trainer.device)
    x = x.contiguous(memory_format=trainer.memory_format)
    targets = torch.zeros((n, *trainer.labels.shape[1:]), dtype=torch.int64, device=trainer.device)
    bf16 = trainer.config.precision == "bf16"
    seconds = 0.0
    for _ in range(2):  # the first makes room
        synchronise(trainer.device)
        begun = time.perf_counter()
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=bf16):
            outputs = network(x)
        _, loss = trainer.objective.loss(outputs, targets)
        torch.autograd.backward(loss)
        synchronise(trainer.device)
        seconds = time.perf_counter() - begun
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU has been given to do."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def plan_lines(job: "Job", seconds: list[float]) -> Iterator[str]:
    """The transfer plan as lines; `seconds` the epochs will take."""
    config, plan = job.config, job.plan
    channels, side = job.preprocess.channels, job.preprocess.crop
    yield (
        f"{job.request.recipe} of {job.request.model}, {channels}x{side}x{side}, {config.precision}"
    )
    yield f"{'part':<10} {'parameters':>12} {'MACs':>14}  learns"
    for part in plan.parts:
        if part.name == "unread":
            learns = "not: nothing reads it"
        elif part.frozen:
            thaw = f"from epoch {plan.unfreeze_at + 1} on, at {part.lr:.2g}"
            learns = "not" if plan.unfreeze_at < 0 else thaw
        else:
            learns = f"at {part.lr:.2g}"
        thaws = plan.unfreeze_at >= 0 and part.lr > 0 and not plan.frozen_norms
        frozen = "; statistics frozen until then" if thaws else "; statistics frozen"
        norms = {"batch": "; batch statistics", "frozen": frozen, "": ""}[part.norms]
        yield f"{part.name:<10} {part.parameters:>12,} {part.macs:>14,}  {learns}{norms}"
    total, n = sum(part.parameters for part in plan.parts), len(job.rows["train"])
    yield (
        f"{plan.learning():,} of {total:,} parameters learn; a step costs "
        f"{plan.macs() / 1e9:.3g} G MACs an image"
    )
    first, last = clock_time(seconds[0]), clock_time(seconds[-1])
    each = first if first == last else f"{first}, at the end {last},"
    whole = clock_time(sum(seconds))
    yield (
        f"{n} images an epoch: about {each} of computing here, {whole} for {config.epochs} epochs"
    )
    yield f"augmentation {job.policy}: {', '.join(job.augmentation.describe())}"
    for note in job.notes:
        yield f"note  {note}"


def clock_time(seconds: float) -> str:
    """90 -> "1:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
