"""A small residual network of three stages, which two experiments grow and search."""

import time
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models import summarise


class Plan(NamedTuple):
    """What a network is built from: channels, layers and kernel of each stage, and the images' side
    in pixels."""

    channels: tuple[int, ...]
    layers: tuple[int, ...]
    side: int
    kernels: tuple[int, ...] = (3, 3, 3)


class Block(nn.Module):
    """Convolution, batch-norm, ReLU; the input is added where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.norm, self.adds = nn.BatchNorm2d(c_out), stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        return x + y if self.adds else y


def build(plan: Plan, inputs: int, classes: int) -> nn.Sequential:
    """Stages at the full side, a half and a quarter; the mean over pixels; a linear layer.

    >>> build(Plan((8, 16, 32), (1, 2, 2), 14), 1, 10)(torch.zeros(2, 1, 14, 14)).shape
    torch.Size([2, 10])
    """
    parts: list[nn.Module] = []
    c_in = inputs
    for stage, (c, layers, k) in enumerate(
        zip(plan.channels, plan.layers, plan.kernels, strict=True)
    ):
        for layer in range(layers):
            parts.append(Block(c_in, c, k, stride=2 if stage and not layer else 1))
            c_in = c
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))


def macs(plan: Plan, inputs: int, classes: int) -> int:
    """Multiply-accumulates for one image."""
    with torch.device("meta"):  # shapes are all it takes
        network = build(plan, inputs, classes)
    return summarise(network, (inputs, plan.side, plan.side)).macs


def resized(x: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side)"""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def train(plan: Plan, images: Images, epochs: int, seed: int) -> list[float]:
    """Accuracy on the test images, and the seconds that training took.

    Args:
        images: of any side; they are resized to that of the plan.
    """
    torch.manual_seed(seed)
    x, test_x = resized(images.x, plan.side), resized(images.test_x, plan.side)
    network = build(plan, images.channels, len(images.classes))
    begun = time.perf_counter()
    fit(network, replace(images, x=x), epochs)
    seconds = time.perf_counter() - begun
    return [accuracy(network, test_x, images.test_y), seconds]


def interval(
    ours: list[float], theirs: list[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Between which the difference of two means lies: Welch's t-test over trainings.

    >>> low, high = interval([0.91, 0.92, 0.93], [0.90, 0.89, 0.91])
    >>> f"{low:.3f} to {high:.3f}"
    '-0.003 to 0.043'
    """
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(confidence)
    return float(found.low), float(found.high)
