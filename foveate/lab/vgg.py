"""VGG: two 3x3 convolutions in the place of one 5x5.

Both see 5x5 pixels. With C maps in and out, two 3x3 have 2 * 9 C^2 weights and one 5x5 has 25 C^2,
and there is a ReLU between the two. Here the field, parameters and MACs are read off real layers;
then a small network of VGG's shape learns with either, and with two 3x3 without that ReLU, which
are no more than a 5x5 convolution of a restricted kind. Last, the paper's table: how many
parameters its columns have when they are built. All convolutions are "same": padded, so that
the maps keep their size.

Source: Simonyan, Zisserman. "Very Deep Convolutional Networks for Large-Scale Image Recognition".
    ICLR 2015, arXiv:1409.1556. Section 2.3 and tables 1 to 3.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, bars, figure, line
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models import VGG, build, summarise

QUESTION = "Why does VGG use two 3x3 convolutions and not one 5x5?"
MINUTES = (0.1, 5.0)
TWO, LINEAR, ONE = "two 3x3", "two 3x3, no ReLU between", "one 5x5"
KINDS = (TWO, LINEAR, ONE)
WIDTHS = (8, 16, 32)  # of three stages, as pooling halves the size
RATE, EPOCHS, RUNS = 0.02, 10, 5
SIZE = 64, 28, 28  # of the maps that a single block is counted on
PAPER = {  # by column: millions of parameters (table 2), top-1 error in % (table 3, S = 256)
    "A": (133, 29.6),
    "B": (133, 28.7),
    "C": (134, 28.1),
    "D": (138, 27.0),
    "E": (144, 27.3),
}
NETWORKS = {"A": "vgg11", "B": "vgg13", "C": "vgg16", "D": "vgg16", "E": "vgg19"}


def block(kind: str, c_in: int, c_out: int) -> list[nn.Module]:
    """(N, c_in, H, W) -> (N, c_out, H, W), each output seeing 5x5 pixels."""
    if kind == ONE:
        return [nn.Conv2d(c_in, c_out, 5, padding=2), nn.ReLU()]
    between = nn.ReLU() if kind == TWO else nn.Identity()
    first, second = (nn.Conv2d(c, c_out, 3, padding=1) for c in (c_in, c_out))
    return [first, between, second, nn.ReLU()]


def network_of(kind: str, channels: int, classes: int) -> nn.Sequential:
    """Three stages of a block and a pooling, and a linear layer."""
    layers: list[nn.Module] = []
    for c_in, c_out in zip((channels, *WIDTHS), WIDTHS, strict=False):
        layers += [*block(kind, c_in, c_out), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * 3 * 3, classes))
    for m in network:
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    return network


def trained(kind: str, images: Images, draw: int) -> list[float]:
    """The training error of each epoch in percent, and the test error at the end."""
    torch.manual_seed(draw)
    network = network_of(kind, images.channels, len(images.classes))
    shares = [epoch.accuracy for epoch in fit(network, images, EPOCHS, RATE)]
    shares += [0.0] * (EPOCHS - len(shares))  # it diverged
    return [100 * (1 - a) for a in (*shares, accuracy(network, images.test_x, images.test_y))]


def column(name: str) -> VGG:
    """A column of table 1. C is D with 1x1 for the third convolution of the last three stages."""
    network = build(NETWORKS[name])
    assert isinstance(network, VGG)
    if name == "C":
        for i, width in ((14, 256), (21, 512), (28, 512)):
            network.features[i] = nn.Conv2d(width, width, 1)
    return network


def compared(bench: Bench, axes: Any, rows: list[dict[str, Any]]) -> tuple[bool, str]:
    """Train the three kinds; whether two 3x3 are better than one 5x5, and what is seen."""
    images = bench.images("fashion-mnist", most=12_000)
    bench.steps(len(KINDS) * RUNS, "networks")
    test = {}
    for number, kind in enumerate(KINDS):
        draws = [bench.seed + 100 * i for i in range(RUNS)]
        runs = np.array([bench.measure(f"{kind} {d}", trained, kind, images, d) for d in draws])
        test[kind] = runs[:, -1]
        line(axes[0], range(1, EPOCHS + 1), runs[:, :-1], number, kind)
        axes[1].plot(test[kind], [number] * RUNS, "o", color=COLOURS[number], alpha=0.6)
        axes[1].plot(test[kind].mean(), number, "|", color="black", markersize=18)
        rows += [{"what": kind, "test error, %": float(error)} for error in test[kind]]
    axes[0].set(xlabel="epoch", title="training error, %", ylim=(0, None))
    axes[0].legend()
    axes[1].set_yticks(range(len(KINDS)), KINDS)
    axes[1].set(title="test error of each run, and mean", xlabel="%", ylim=(2.5, -0.5))
    gap = float(test[ONE].mean() - test[TWO].mean())
    noise = 2 * float(np.sqrt((test[TWO].var(ddof=1) + test[ONE].var(ddof=1)) / RUNS))
    means = ", ".join(f"{test[kind].mean():.1f} % with {kind}" for kind in KINDS)
    return gap > noise, (
        f"Test error on {images.name}, in the mean of {RUNS} runs: {means}; two 3x3 are "
        f"{abs(gap):.1f} points {'better' if gap > 0 else 'worse'} than one 5x5, and two standard "
        f"errors are {noise:.1f} points."
    )


def run(bench: Bench) -> Findings:
    with torch.device("meta"):  # shapes without numbers
        blocks = [summarise(nn.Sequential(*block(kind, *SIZE[:1] * 2)), SIZE) for kind in KINDS]
        count = {name: summarise(column(name)).parameters for name in PAPER}
    cost = dict(zip(KINDS, blocks, strict=True))
    assert {one.layers[-1].field for one in blocks} == {(5, 5)}
    parameters = 1 - cost[TWO].parameters / cost[ONE].parameters
    macs = 1 - cost[TWO].macs / cost[ONE].macs

    made, axes = figure(2, 1 if bench.quick else 2, width=4.6, height=2.9)
    bars(axes[0, 0], KINDS, [one.parameters / 1e3 for one in blocks], "{:.1f}")
    axes[0, 0].set(title=f"{SIZE[0]} maps in and out, field 5x5", xlabel="thousand parameters")
    names = [f"{name}, paper: {PAPER[name][0]}" for name in count]
    bars(axes[0, 1], names, [number / 1e6 for number in count.values()], "{:.1f}")
    axes[0, 1].set(title="VGG's columns", xlabel="million parameters")
    rows: list[dict[str, Any]] = [
        {"what": kind, "field": 5, "parameters": one.parameters, "MACs": one.macs}
        for kind, one in cost.items()
    ] + [
        {"what": f"VGG {name}", "parameters": count[name], "millions in the paper": PAPER[name][0]}
        | {"top-1 error in the paper, %": PAPER[name][1]}
        for name in PAPER
    ]
    shown, learnt = None, "Whether they also learn better needs the full form, which trains both."
    if not bench.quick:
        shown, learnt = compared(bench, axes[1], rows)
    built = ", ".join(f"{name} {number / 1e6:.1f}" for name, number in count.items())
    given = ", ".join(str(millions) for millions, _ in PAPER.values())
    seen = (
        f"With {SIZE[0]} maps two 3x3 convolutions see 5x5 pixels as one 5x5 does, with "
        f"{parameters:.0%} fewer parameters and {macs:.0%} fewer MACs.",
        f"Built, the paper's columns have {built} million parameters; it gives {given}.",
        learnt,
    )
    change = "Compare three 3x3 with one 7x7: does the difference grow?"
    return Findings(made, rows, seen, shown, change)
