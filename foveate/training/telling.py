"""The transfer plan in words, and what it will cost, before the first step."""

import copy
import gc
import time
from collections.abc import Callable, Iterator

import torch

from foveate.models.folding import folded
from foveate.training.freezing import Plan
from foveate.training.setup import Job
from foveate.training.trainer import Loop


def seconds_to_come(loop: Loop, size: Callable[[int], int]) -> list[float]:
    """What each epoch will take, by a step before and a step after the thaw, and by the epochs'
    sizes of images; loading is not counted."""
    epochs, thaw = loop.config.epochs, loop.plan.unfreeze_at
    first = seconds_per_epoch(loop, 0)
    later = seconds_per_epoch(loop, thaw) if 0 < thaw < epochs else first
    full = loop.preprocess.crop
    return [
        (first if not 0 < thaw <= epoch else later) * (size(epoch) / full) ** 2
        for epoch in range(epochs)
    ]


def seconds_per_epoch(loop: Loop, epoch: int) -> float:
    """From a step at the full size; one that needs too much memory makes the loop cut its batches
    smaller."""
    while True:
        try:
            return loop.pieces * len(loop.batches) * seconds_per_piece(loop, epoch)
        except (RuntimeError, MemoryError) as error:
            loop.cut_smaller(images_per_step(loop), error)
        gc.collect()


def images_per_step(loop: Loop) -> int:
    """Of this rank, at most."""
    return -(-loop.batches.rows.size // len(loop.batches) // loop.ranks.world)


def seconds_per_piece(loop: Loop, epoch: int) -> float:
    """Forward and backward on a copy of the network, with images of nothing."""
    side, channels = loop.preprocess.crop, loop.preprocess.channels
    network = copy.deepcopy(loop.network)
    loop.plan.apply(network, epoch)
    network = folded(network, (channels, side, side))
    n = -(-images_per_step(loop) // loop.pieces)
    x = torch.zeros(n, channels, side, side, device=loop.device).contiguous(
        memory_format=torch.channels_last
    )
    targets = torch.zeros((n, *loop.labels.shape[1:]), dtype=torch.int64, device=loop.device)
    seconds = 0.0
    for _ in range(2):  # the first makes room
        settled(loop.device)
        begun = time.perf_counter()
        with torch.autocast(
            loop.device.type, torch.bfloat16, enabled=loop.config.precision == "bf16"
        ):
            outputs = network(x)
        _, cost = loop.objective.cost(outputs, targets)
        torch.autograd.backward(cost)
        settled(loop.device)
        seconds = time.perf_counter() - begun
    return seconds


def settled(device: torch.device) -> None:
    """Wait for what a GPU has been told to do."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def as_lines(plan: Plan, job: Job, seconds: list[float]) -> Iterator[str]:
    """The transfer plan as lines; `seconds` the epochs will take."""
    config = job.config
    side = job.preprocess.crop
    yield (
        f"{job.request.recipe} of {job.request.model}, {job.preprocess.channels}x{side}x{side}, "
        f"{config.precision}"
    )
    yield f"{'part':<10} {'parameters':>12} {'MACs':>14}  learns"
    for part in plan.parts:
        if part.name == "unread":
            learns = "not: nothing reads it"
        elif part.frozen:
            learns = (
                "not"
                if plan.unfreeze_at < 0
                else f"from epoch {plan.unfreeze_at + 1} on, at {part.lr:.2g}"
            )
        else:
            learns = f"at {part.lr:.2g}"
        thaws = plan.unfreeze_at >= 0 and part.lr > 0 and not plan.frozen_norms
        frozen = "; statistics frozen until then" if thaws else "; statistics frozen"
        norms = {"batch": "; batch statistics", "frozen": frozen, "": ""}[part.norms]
        yield f"{part.name:<10} {part.parameters:>12,} {part.macs:>14,}  {learns}{norms}"
    total, n = sum(part.parameters for part in plan.parts), len(job.rows["train"])
    yield (
        f"{plan.learning():,} of {total:,} parameters learn; a step costs {plan.macs() / 1e9:.3g} "
        "G MACs an image"
    )
    first, last = clock_time(seconds[0]), clock_time(seconds[-1])
    each = first if first == last else f"{first}, at the end {last},"
    whole = clock_time(sum(seconds))
    yield f"{n} images an epoch: about {each} of computing here, {whole} for {config.epochs} epochs"
    yield f"augmentation {job.policy}: {', '.join(job.augmentation.describe())}"
    for note in job.notes:
        yield f"note  {note}"


def clock_time(seconds: float) -> str:
    """90 -> "1:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
