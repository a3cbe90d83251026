"""From LeNet to EfficientNet: what each network costs, and what it learns in the same time.

The chart of work against accuracy on ImageNet is drawn from the published weights, some of them of
newer recipes than their paper's, and a training step is timed on this machine. In the full form all
learn from the same images for the same time, from random weights. Images have 32 pixels, or the
fewest that a network reads: most networks end in a map of one pixel there. It is no ImageNet.

Source: the papers in `foveate.catalogue.PAPERS`; such a chart: Canziani, Paszke and Culurciello.
    "An Analysis of Deep Neural Network Models for Practical Applications". 2016, arXiv:1605.07678.
"""

import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from foveate import build
from foveate.catalogue import CATALOGUE
from foveate.lab.bench import Bench, Findings, Row
from foveate.lab.drawing import figure
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.lab.stages import resized
from foveate.models import summarise
from foveate.weights.published import WEIGHTS

QUESTION = "What did twenty years of architectures gain, and for how much work?"
MINUTES = (0.5, 45)
NETWORKS = (
    "lenet5 alexnet nin vgg16_bn googlenet resnet18 resnet50 squeezenet1_1 densenet121 "
    "mobilenet_v1 mobilenet_v2 shufflenet_v2_x1_0 mobilenet_v3_large efficientnet_b0"
).split()
SECONDS, IMAGES, BATCH, SIDE = 150, 12_000, 32, 32  # SECONDS: in which each network learns
TOP, HERE, SPEED = "ImageNet top-1, %", "accuracy here, %", "ms an image, training"


def start(name: str, images: Images) -> tuple[Any, int]:
    """A network with random weights, and the side of the images that it gets."""
    network: Any = build(name, num_classes=len(images.classes), in_channels=images.channels)
    side = network.min_size  # LeNet reads images of its 28 pixels only
    return network, side if side == network.input_size else max(SIDE, side)


def step(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Seconds that a training step takes: the fastest of five, which other work delays least."""
    optimiser, times = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9), []
    network.train()
    for _ in range(5):
        begun, answer = time.perf_counter(), network(x)
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(getattr(answer, "logits", answer), y))
        optimiser.step()
        times.append(time.perf_counter() - begun)
    return min(times)


def cost(name: str, images: Images) -> Row:
    """What the network is as published, and what it costs on these images."""
    network, side = start(name, images)
    found = summarise(network, (images.channels, side, side))
    size = {"pixels here": side, "parameters here": found.parameters, "MACs here": found.macs}
    seconds = step(network, resized(images.x[:BATCH], side), images.y[:BATCH])
    entry, older = CATALOGUE[name], WEIGHTS.get(f"{name}.v1", WEIGHTS.get(name))
    known = {"network": name, "year": entry.year, TOP: older.accuracy if older else None}
    known |= {"parameters": entry.parameters, "MACs": entry.macs}
    return known | size | {SPEED: 1000 * seconds / BATCH}


def learn(name: str, images: Images, seconds: float) -> Row:
    """Train for about so long, and judge by the test images."""
    network, side = start(name, images)
    x, lr = resized(images.x, side), 0.05 if "BatchNorm2d" in str(network) else 0.01
    seen = max(1, round(seconds / step(network, x[:BATCH], images.y[:BATCH]))) * BATCH
    count, epochs = min(seen, len(x)) // BATCH * BATCH, max(1, round(seen / len(x)))
    network, begun = start(name, images)[0], time.perf_counter()
    fit(network, replace(images, x=x[:count], y=images.y[:count]), epochs, lr, BATCH)
    known = {"images seen": epochs * count, "seconds": time.perf_counter() - begun}
    return known | {HERE: 100 * accuracy(network, resized(images.test_x, side), images.test_y)}


def bubbles(axes: Any, rows: list[Row], x: str, y: str, size: str = "") -> None:
    """A numbered bubble for each network, coloured by its year; its area is its parameters."""
    for number, row in enumerate(rows, start=1):
        if row[y] is not None:
            area = 8 * row[size] / 1e6 + 12 if size else 90
            colour = {"c": [row["year"]], "cmap": "viridis", "vmin": 2011, "vmax": 2020}
            axes.scatter(row[x], row[y], area, alpha=0.55, linewidth=0, **colour)
            axes.text(row[x], row[y], str(number), ha="center", va="center", fontsize=8)
    axes.set(xscale="log", ylabel=y, xlabel=x)
    axes.margins(0.12)


def front(rows: list[Row]) -> str:
    """The networks that none with fewer MACs beats in top-1, from few to many."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: row["MACs"]):
        if row[TOP] and all(row[TOP] > better[TOP] for better in found):
            found.append(row)
    return ", ".join(row["network"] for row in found)


def run(bench: Bench) -> Findings:
    images = bench.images("fashion-mnist", side=64, most=BATCH if bench.quick else IMAGES)
    bench.steps(len(NETWORKS) * (1 if bench.quick else 2), "networks")
    rows = [dict(bench.measure(name, cost, name, images)) for name in NETWORKS]
    made, axes = figure(2 if bench.quick else 3, width=4, height=4)
    bubbles(axes[0, 0], rows, "MACs", TOP, "parameters")
    bubbles(axes[0, 1], rows, "MACs here", SPEED)
    axes[0, 0].set(title="published; area: parameters, colour: year")
    axes[0, 1].set(title="time on this machine", yscale="log")
    names = [f"{i} {row['network']} ({row['year']})" for i, row in enumerate(rows, start=1)]
    blank = [axes[0, 0].plot([], [], " ")[0] for _ in names]
    made.legend(blank, names, loc="outside lower left", ncols=4, handlelength=0, handletextpad=0)

    old, new = rows[1], rows[-1]
    pace = ((row[SPEED] / row["MACs here"], row["network"]) for row in rows[1:])
    (least, fast), *_, (most, slow) = sorted(pace)
    share = {key: f"{new[key] / old[key]:.2f}" for key in ("MACs", "parameters")}
    gain = (
        f"From {old['network']} to {new['network']} published top-1 went from {old[TOP]:.1f} to "
        f"{new[TOP]:.1f} %, with {share['MACs']} of the MACs and {share['parameters']} of the "
        f"parameters; for each of {front(rows)}, none is as accurate with fewer MACs."
    )
    clock = f"MACs are not time: one takes {most / least:.0f} times as long in {slow} as in {fast}."
    change = "Take --data with your photos: is the order of the networks the same?"
    if bench.quick:
        return Findings(made, rows, (gain, clock, "The full form trains them all."), None, change)

    for row in rows:
        row |= bench.measure(f"{row['network']} learns", learn, row["network"], images, SECONDS)
    bubbles(axes[0, 2], rows, "MACs here", HERE, "parameters here")
    axes[0, 2].set_title(f"{images.name}, {SECONDS} s each")
    order, counts = sorted(rows, key=lambda row: row[HERE]), [row["images seen"] for row in rows]
    rank = stats.spearmanr([row["year"] for row in rows], [row[HERE] for row in rows])
    sure = bool(rank.pvalue < 0.05)
    trend = ("more" if rank.statistic > 0 else "less") if sure else "neither more nor less"
    best, worst = (f"{row['network']} ({row[HERE]:.1f} %)" for row in (order[-1], order[0]))
    saw = f"In {SECONDS} s each network saw {min(counts):,} to {max(counts):,} images: "
    learnt = f"{saw}{best} learnt most from them, {worst} least."
    years = (
        f"Later networks are {trend} accurate here, beyond chance: the rank correlation of "
        f"accuracy with the year is {rank.statistic:+.2f} (p = {rank.pvalue:.2g})."
    )
    return Findings(made, rows, (f"{gain} {clock}", learnt, years), trend == "more", change)
