"""The transfer plan in words, and what it will cost, before the first step."""

import copy
import time
from collections.abc import Iterator

import torch

from foveate.data.policy import describe
from foveate.training.folding import folded
from foveate.training.job import Job
from foveate.training.loop import Loop
from foveate.transfer import Plan


def seconds_an_epoch(loop: Loop) -> float:
    """What an epoch will take, from a step on a copy of the network and a batch of nothing; loading not counted."""
    side, channels = loop.preprocess.crop, loop.preprocess.channels
    network = copy.deepcopy(loop.network)
    loop.plan.apply(network, 0)
    network = folded(network, (channels, side, side))
    n = -(-loop.batches.rows.size // len(loop.batches) // loop.ranks.world // loop.pieces)
    x = torch.zeros(n, channels, side, side, device=loop.device).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros((n, *loop.labels.shape[1:]), dtype=torch.int64, device=loop.device)
    seconds = 0.0
    for _ in range(2):  # the first makes room
        begun = time.perf_counter()
        with torch.autocast(loop.device.type, torch.bfloat16, enabled=loop.config.precision == "bf16"):
            outputs = network(x)
        _, cost = loop.objective.cost(outputs, targets)
        torch.autograd.backward(cost)
        seconds = time.perf_counter() - begun
    return seconds * loop.pieces * len(loop.batches)


def as_lines(plan: Plan, job: Job, seconds: float) -> Iterator[str]:
    """The transfer plan as lines; `seconds` an epoch will take."""
    config = job.config
    side = job.preprocess.crop
    yield f"{job.request.recipe} of {job.request.model}, {job.preprocess.channels}x{side}x{side}, {config.precision}"
    yield f"{'part':<10} {'parameters':>12} {'MACs':>14}  learns"
    for part in plan.parts:
        if part.lr == 0:
            learns = "not: nothing reads it"
        elif part.frozen:
            learns = "not" if plan.unfreeze_at < 0 else f"from epoch {plan.unfreeze_at + 1} on, at {part.lr:.2g}"
        else:
            learns = f"at {part.lr:.2g}"
        norms = {"batch": "; batch statistics", "frozen": "; statistics frozen", "": ""}[part.norms]
        yield f"{part.name:<10} {part.parameters:>12,} {part.macs:>14,}  {learns}{norms}"
    total, n = sum(part.parameters for part in plan.parts), len(job.rows["train"])
    yield f"{plan.learning():,} of {total:,} parameters learn; a step costs {plan.macs() / 1e9:.3g} G MACs a picture"
    whole = clock_time(seconds * config.epochs)
    yield f"{n} pictures an epoch: about {clock_time(seconds)} of computing here, {whole} for {config.epochs} epochs"
    yield f"augmentation {job.policy}: {', '.join(describe(job.augmentation))}"
    for note in job.notes:
        yield f"note  {note}"


def clock_time(seconds: float) -> str:
    """90 -> "1:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
