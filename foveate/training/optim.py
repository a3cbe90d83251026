"""The optimiser, its rates from step to step, and the average of the weights."""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveate.training.config import TrainConfig
from foveate.training.freezing import Plan

RISE = 0.3  # of one cycle
LOW = 1 / 25  # of the highest rate: where one cycle begins


def make_optimizer(network: nn.Module, plan: Plan, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parts of a plan, each at its own rate; biases, norms and other vectors
    do not decay.

    Parts that are frozen at first but learn later are in it too: what has no gradient is passed
        over.
    """
    parameters = dict(network.named_parameters())
    groups: list[dict[str, Any]] = []
    for part in plan.parts:
        if part.lr == 0:
            continue
        for decays in (True, False):
            chosen = [
                parameters[name] for name in part.names if (parameters[name].ndim > 1) == decays
            ]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                groups.append(
                    {"params": chosen, "lr": part.lr, "highest": part.lr, "weight_decay": decay}
                )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate: a part of its highest."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["highest"]


def rate_factor(
    schedule: Literal["cosine", "one-cycle", "constant"], step: int, steps: int, warmup: float
) -> float:
    """The rate of a step, in parts of the highest.

        cosine     (step + 1) / warmup, then (1 + cos(pi t)) / 2 with t from 0 to 1 (Loshchilov,
        Hutter, 1608.03983) one-cycle  from 1/25 to 1 along half a cosine, then to 0 along another
                                       (Smith, 1803.09820); momentum stays

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: steps of the warm-up; at most `steps`.

    >>> [round(rate_factor("cosine", step, 10, 2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    if schedule == "one-cycle":
        top = max(1.0, RISE * steps)
        if step < top:
            return LOW + (1 - LOW) * (1 - math.cos(math.pi * step / top)) / 2
        return (1 + math.cos(math.pi * (step - top) / (steps - top))) / 2
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    if schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


class EMA:
    """An exponential moving average of a network's weights (Polyak's, as Inception's and
    EfficientNet's authors use).

    It begins as the network. In the first steps it forgets faster, by (1 + n) / (10 + n), so that a
    random start does not stay in it for long. Buffers, running statistics above all, are those of
    the network.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """After a step."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for mine, its in zip(self.network.parameters(), network.parameters(), strict=True):
            if its.requires_grad:
                mine.lerp_(its, weight)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, as PREFIX.NUMBER.NAME."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}{number}.{name}": torch.as_tensor(value)
        for number, kept in state.items()
        for name, value in kept.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`, the prefix taken off."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        like = parameters[int(number)]
        # in the parameter's memory format: the fused step goes through memory, whatever the strides
        mine = torch.empty_like(like if tensor.shape == like.shape else tensor).copy_(tensor)
        state.setdefault(int(number), {})[name] = mine
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
