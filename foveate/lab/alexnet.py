"""AlexNet: a thousand times LeNet-5's parameters, and ReLU, with which so many can be trained.

The parameters are counted layer by layer in the real network, of one tower as in many lectures.
Then a small network of AlexNet's shape (five convolutions, three linear layers) learns with
sigmoid, tanh and ReLU until it has the same training error: the comparison of the paper's figure 1.
As there, each activation has the best of several learning rates, and nothing regularises.

How a network starts decides as much as its activation. So there are two starts: Xavier's weights
for all, and Xavier's times a gain that makes up for the activation's slope, as is done today.

Source: Krizhevsky, Sutskever, Hinton. "ImageNet Classification with Deep Convolutional Neural
    Networks". NIPS 2012. The starts: Glorot, Bengio, AISTATS 2010, as in vanishing-gradient.
"""

from typing import Any

import torch
from torch import nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import bars, figure, line
from foveate.lab.images import Images
from foveate.lab.learning import Epoch, fit
from foveate.models import alexnet_one_tower, lenet5, summarise
from foveate.models.summary import Layer

QUESTION = "Where are AlexNet's parameters, and does ReLU train faster than sigmoid and tanh?"
MINUTES = (0.8, 12.0)
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
GAINS = {"sigmoid": 4.0, "tanh": 5 / 3, "ReLU": 2**0.5}  # sigmoid's slope is 1/4 at most
STARTS = XAVIER, SUITED = "Xavier's weights", "Xavier's weights times a gain"
RATES = (0.05, 0.1, 0.2, 0.4)  # of learning
TARGET = 10  # training error, %
BYTES = 4  # of a number in single precision
ADAM = 4  # numbers for each parameter in training: weight, gradient, two moments


def weighted(network: nn.Module) -> list[Layer]:
    """The layers that have parameters, with their shapes."""
    return [row for row in summarise(network).layers if row.parameters and not row.block]


def small(activation: str, start: str, channels: int, classes: int) -> nn.Sequential:
    """AlexNet's shape for 28 pixels, with about a tenth of its maps."""
    act = ACTIVATIONS[activation]
    network = nn.Sequential(
        *(nn.Conv2d(channels, 8, 5, padding=2), act(), nn.MaxPool2d(3, 2)),  # (N, 8, 13, 13)
        *(nn.Conv2d(8, 16, 5, padding=2), act(), nn.MaxPool2d(3, 2)),  # (N, 16, 6, 6)
        *(nn.Conv2d(16, 24, 3, padding=1), act()),
        *(nn.Conv2d(24, 24, 3, padding=1), act()),
        *(nn.Conv2d(24, 16, 3, padding=1), act(), nn.MaxPool2d(3, 2)),  # (N, 16, 2, 2)
        *(nn.Flatten(), nn.Linear(64, 128), act(), nn.Linear(128, 128), act()),
        nn.Linear(128, classes),
    )
    gain = GAINS[activation] if start == SUITED else 1.0
    for p in network.parameters():
        _ = nn.init.xavier_normal_(p, gain) if p.dim() > 1 else nn.init.zeros_(p)
    return network


def errors(activation: str, start: str, lr: float, images: Images, limit: int) -> list[float]:
    """The training error of each epoch in percent, until it is TARGET."""
    network = small(activation, start, images.channels, len(images.classes))

    def stop(epoch: Epoch) -> bool:
        return 100 * (1 - epoch.accuracy) <= TARGET

    history = fit(network, images, limit, lr, weight_decay=0, constant=True, stop=stop)
    return [100 * (1 - epoch.accuracy) for epoch in history]


def rank(found: list[float]) -> tuple[bool, int, float]:
    """The smaller the sooner TARGET was reached; without it, the smaller the error."""
    reached = found[-1] <= TARGET
    return not reached, len(found) if reached else 0, found[-1]


def draw(layers: dict[str, list[Layer]], best: dict[Any, tuple[float, list[float]]]) -> Any:
    made, axes = figure(2, 2, width=4.6, height=3.2)
    names = [f"{row.kind.removesuffix(' /4')}, {row.shape[0]}" for row in layers["AlexNet"]]
    bars(axes[0, 0], names, [row.parameters * BYTES / 1e6 for row in layers["AlexNet"]])
    axes[0, 0].set(xlabel="MB", title="AlexNet's weights by layer")
    for number, (name, of) in enumerate(layers.items()):
        line(axes[0, 1], range(1, len(of) + 1), [row.shape[0] for row in of], number, name)
        for place, row in enumerate(of, 1):
            side = "x".join(str(n) for n in row.shape[1:])  # none after a linear layer
            at = (place, 0.65 * row.shape[0])
            axes[0, 1].annotate(side, at, ha="left", va="top", fontsize=8)
    axes[0, 1].set(yscale="log", xlim=(0, 8.5), ylim=(2, 10_000), xlabel="layer")
    axes[0, 1].set_title("number of maps, and their size in pixels")
    axes[0, 1].legend(loc="upper left")
    for panel, start in zip(axes[1], STARTS, strict=True):
        for number, name in enumerate(ACTIVATIONS):
            lr, found = best[start, name]
            line(panel, range(1, len(found) + 1), found, number, f"{name}, rate {lr}")
        panel.axhline(TARGET, color="black", linewidth=0.8, linestyle="--")
        panel.set(xlabel="epoch", ylabel="training error, %", title=start, ylim=(0, 100))
        panel.legend(loc="best")
    return made


def run(bench: Bench) -> Findings:
    images = bench.images("digits") if bench.quick else bench.images("fashion-mnist", most=12_000)
    limit = 15 if bench.quick else 30
    bench.steps(len(STARTS) * len(ACTIVATIONS) * len(RATES), "networks")
    best: dict[tuple[str, str], tuple[float, list[float]]] = {}
    for start in STARTS:
        for name in ACTIVATIONS:
            runs = []
            for lr in RATES:
                given = name, start, lr, images, limit
                runs.append((lr, bench.measure(f"{name}, {start}, {lr}", errors, *given)))
            best[start, name] = min(runs, key=lambda one: rank(one[1]))
    with torch.device("meta"):  # shapes without numbers
        layers = {"LeNet-5": weighted(lenet5()), "AlexNet": weighted(alexnet_one_tower())}
    epochs = {of: len(e) if e[-1] <= TARGET else limit + 1 for of, (_, e) in best.items()}

    def told(start: str) -> str:
        found = {name: epochs[start, name] for name in ACTIVATIONS}
        return ", ".join(f"{n} {e if e <= limit else 'not'}" for n, e in found.items())

    def faster(than: str) -> str:
        starts = [start for start in STARTS if epochs[start, "ReLU"] < epochs[start, than]]
        how = "either start" if len(starts) == 2 else (*starts, "neither start")[0]
        return f"faster than {than} with {how}"

    small_one, all_of = (sum(row.parameters for row in of) for of in layers.values())
    hidden = sum(row.parameters for row in layers["AlexNet"][5:7])
    seen = (
        f"AlexNet has {all_of / 1e6:.1f} million parameters, {all_of / small_one:,.0f} times "
        f"LeNet-5's, {hidden / all_of:.0%} of them in its two hidden linear layers: "
        f"{all_of * BYTES / 1e9:.2f} GB in single precision, and {all_of * BYTES * ADAM / 1e9:.2f} "
        "GB while Adam trains, with a gradient and two moments for each.",
        f"Epochs to {TARGET} % training error on {images.name}, of {limit} at most: "
        f"{told(XAVIER)} with Xavier's weights; {told(SUITED)} with the gain.",
        f"ReLU was {faster('sigmoid')}, and {faster('tanh')}; the paper reports six times tanh's "
        "speed, for four layers on CIFAR-10.",
    )
    rows = [
        {"network": name, "layer": row.kind, "output": "x".join(str(n) for n in row.shape)}
        | {"parameters": row.parameters, "MB": row.parameters * BYTES / 1e6}
        for name, of in layers.items()
        for row in of
    ] + [
        {"start": start, "activation": name, "best rate": lr}
        | {"epochs": len(e), "training error, %": e[-1]}
        for (start, name), (lr, e) in best.items()
    ]
    shown = all(epochs[start, "ReLU"] < epochs[start, "sigmoid"] for start in STARTS)
    return Findings(draw(layers, best), rows, seen, shown, "Add nn.BatchNorm2d: who gains most?")
