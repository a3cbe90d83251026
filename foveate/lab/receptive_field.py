"""Receptive field: how much of what a map's pixel can see does it use?

L convolutions of 3x3 have a theoretical field 2L + 1 pixels wide, whose pixels do not count alike:
many paths lead from an output to the pixels near its centre, and one to a corner. With random
weights the squared gradient is on average L boxes of 3x3 convolved with each other, of variance
2L/3. The effective field, two standard deviations to either side, is 4 sqrt(2L / 3) pixels wide.

Here the spread of the squared gradient is measured in stacks of several depths, then in a stack and
in ResNet-20 before and after training; on test images joined 3 by 3, so that 81 pixels fit in.

Source: Luo, Li, Urtasun, Zemel. "Understanding the Effective Receptive Field in Deep Convolutional
    Neural Networks". NeurIPS 2016, arXiv:1701.04128.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import foveate
from foveate.lab.bench import Bench, Findings, Row
from foveate.lab.drawing import figure, image, line
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models.summary import summarise, summarise_stages

QUESTION = "How much of its receptive field does a network use?"
MINUTES = (0.6, 20)
DEPTHS, DRAWS, WIDTH, MOSAICS, SIDE = (1, 2, 4, 8, 16, 32), 3, 16, 16, 28
TRAINED = 8  # convolutions of the stack that is trained


class Stack(nn.Module):
    """3x3 convolutions, each with batch-norm and ReLU; the mean over pixels; a linear layer."""

    def __init__(self, depth: int, num_classes: int, in_channels: int):
        super().__init__()
        self.layers = nn.Sequential()
        for c_in, c_out in pairwise([in_channels] + [WIDTH] * depth):
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            self.layers.extend([conv, nn.BatchNorm2d(c_out), nn.ReLU()])
        self.head = nn.Linear(WIDTH, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.layers(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(dim=(2, 3)))


def mosaics(images: Images) -> Tensor:
    """Test images, joined 3 by 3.    -> (MOSAICS, C, 3 SIDE, 3 SIDE)"""
    chosen = images.test_x[torch.arange(MOSAICS * 9) % len(images.test_x)]
    tiles = chosen.reshape(MOSAICS, 3, 3, -1, SIDE, SIDE)  # (MOSAICS, row, column, C, SIDE, SIDE)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(MOSAICS, -1, 3 * SIDE, 3 * SIDE)


def squared_gradient(network: Any, x: Tensor) -> Tensor:
    """Of the last map's middle pixel with respect to each pixel of the image; its sum is 1."""
    x = x.clone().requires_grad_()
    y = network.eval().stages(x)[-1]
    (gradient,) = torch.autograd.grad(y[:, :, y.shape[2] // 2, y.shape[3] // 2].sum(), x)
    square = gradient.double().square().sum(dim=(0, 1))  # (3 SIDE, 3 SIDE)
    return square / square.sum()


def spread(square: Tensor) -> float:
    """Four standard deviations of a distribution over pixels, in the mean of the two sides."""
    place = torch.arange(len(square), dtype=torch.float64)
    sums = torch.stack([square.sum(dim=1), square.sum(dim=0)])
    mean = (sums * place).sum(dim=1, keepdim=True)
    return float(4 * (sums * (place - mean) ** 2).sum(dim=1).mean().sqrt())


def theoretical(network: nn.Module, channels: int) -> tuple[int, int]:
    """The field of the last map's pixels and their distance, in pixels of the image."""
    last = summarise_stages(network, summarise(network, (channels, SIDE, SIDE)))[-2]
    assert last.field and last.stride
    return last.field[0], last.stride[0]


def untrained(depth: int, x: Tensor) -> list[float]:
    return [spread(squared_gradient(Stack(depth, 2, x.shape[1]), x)) for _ in range(DRAWS)]


def trained(build: Any, images: Images, epochs: int, runs: int) -> list[Any]:
    """Of each run the squared gradients before and after training, and the accuracy."""
    found, x = [], mosaics(images)
    for network in [build(len(images.classes), images.channels) for _ in range(runs)]:
        before = squared_gradient(network, x).tolist()
        fit(network, images, epochs)
        right = accuracy(network, images.test_x, images.test_y)
        found.append((before, squared_gradient(network, x).tolist(), right))
    return found


def run(bench: Bench) -> Findings:
    images = bench.images("fashion-mnist", SIDE, most=1500 if bench.quick else 8000)
    builds: dict[str, Any] = {f"stack of {TRAINED}": partial(Stack, TRAINED)}
    builds["ResNet-20"] = partial(foveate.build, "resnet20")
    effort = (4, 1) if bench.quick else (12, 3)  # epochs, runs
    bench.steps(len(DEPTHS) + len(builds), "networks")
    widths = [bench.measure(f"depth {d}", untrained, d, mosaics(images)) for d in DEPTHS]
    runs = {name: bench.measure(name, trained, b, images, *effort) for name, b in builds.items()}

    made, axes = figure(4, 2, width=2.4, height=2.3)
    for panel in axes[:, :2].flat:
        panel.remove()
    plot = made.add_subplot(axes[0, 0].get_gridspec()[:, :2])
    fields, mean = [theoretical(Stack(d, 2, 1), 1)[0] for d in DEPTHS], np.mean(widths, axis=1)
    expected = [4 * (2 * depth / 3) ** 0.5 for depth in DEPTHS]
    line(plot, DEPTHS, fields, 1, "theoretical")
    line(plot, DEPTHS, np.transpose(widths), 0, "effective, random weights")
    plot.plot(DEPTHS, expected, color="black", linestyle=":", label="4 √(2L/3)")
    plot.set(xscale="log", yscale="log", xlabel="convolutions of 3x3, L", ylabel="width, pixels")
    plot.set(xticks=DEPTHS, xticklabels=DEPTHS, yticks=fields, yticklabels=fields)
    plot.minorticks_off()
    plot.legend(loc="upper left")
    rows: list[Row] = []
    for depth, field, width in zip(DEPTHS, fields, mean.tolist(), strict=True):
        rows.append({"network": f"stack of {depth}", "theoretical": field, "untrained": width})
    for panels, (name, found) in zip(axes[:, 2:], runs.items(), strict=True):
        field, stride = theoretical(builds[name](2, 1), 1)
        rows.append({"network": name, "theoretical": field})
        low = 3 * SIDE // stride // 2 * stride - field / 2  # where the field of that pixel begins
        for i, (panel, word) in enumerate(zip(panels, ("untrained", "trained"), strict=True)):
            width = rows[-1][word] = np.mean([spread(torch.tensor(one[i])) for one in found]).item()
            pixels = np.sqrt(found[0][i])
            image(panel, pixels, f"{name}, {word}: {width:.1f} of {field}", cmap="magma")
            panel.set(xlim=(low, low + field), ylim=(low + field, low))
        rows[-1]["accuracy"] = float(np.mean([right for _, _, right in found]))

    share, change = mean[-1] / fields[-1], [r["trained"] / r["untrained"] - 1 for r in rows[-2:]]
    powers = [np.polyfit(np.log(DEPTHS), np.log(w), 1)[0].item() for w in (mean, fields)]
    seen = (
        f"{DEPTHS[-1]} convolutions of 3x3 can see {fields[-1]} pixels a side, but the gradient of "
        f"an output is spread over {mean[-1]:.1f} of them, {share:.0%}; the formula for random "
        f"weights gives {expected[-1]:.1f}.",
        f"From {DEPTHS[0]} to {DEPTHS[-1]} layers the effective field grows like depth to the power"
        f" of {powers[0]:.2f}, the theoretical one {powers[1]:.2f}; a square root has 0.5.",
        f"Training changes the width by {change[0]:+.0%} in the stack of {TRAINED} and by "
        f"{change[1]:+.0%} in ResNet-20; {sum(c > 0.05 for c in change)} of the 2 become more than "
        "5 % wider. Those in the paper, trained far longer, did.",
    )
    shown = bool(0.4 < powers[0] < 0.6 and share < 0.5)
    return Findings(made, rows, seen, shown, "Give Stack dilation=2 and padding=2: what grows?")
