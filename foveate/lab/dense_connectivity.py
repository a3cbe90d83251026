"""Dense connectivity: each layer reads the maps of all layers before it.

Layer l of a block makes k maps x_l = H_l([x_0, x_1, ..., x_l-1]) out of all that was made before.
The lecture draws five layers with growth rate k = 4, and says that features are reused, gradients
flow more easily and training is more stable. What a trained layer reads is told by its weights, as
in the paper's figure 5, and by the rise of the loss if it gets a source's maps of another image.

Source: Huang et al. "Densely Connected Convolutional Networks". CVPR 2017, arXiv:1608.06993.
"""

from functools import partial
from itertools import combinations_with_replacement, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, figure, line
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit, watched
from foveate.models import CifarResNet, DenseNet, summarise
from foveate.models.densenet import Column, DenseBlock
from foveate.models.resnet_cifar import Plain, Residual

QUESTION = "What is gained if each layer reads all layers before it?"
MINUTES = (0.6, 30)
GROWTH, LAYERS, DEPTHS = 4, 5, (1, 2, 4, 8)  # of the lecture's block; layers of each block


def dense(growth: int, n: int, k: int, c: int) -> DenseNet:
    return DenseNet(Column(growth, (n, n, n), cifar=True), k, c)


KINDS: dict[str, Any] = {
    "plain": lambda n, k, c: CifarResNet(n, Plain, k, c),
    "residual": lambda n, k, c: CifarResNet(n, Residual, k, c),
    "dense": partial(dense, GROWTH),
}


def gradients(kind: str, images: Images) -> list[float]:
    """The norm of the gradient at the first convolution's output, before training, by depth."""
    found = []
    for network in [KINDS[kind](n, len(images.classes), images.channels) for n in DEPTHS]:
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        with watched([first]) as maps:
            loss = F.cross_entropy(network(images.x[:128]), images.y[:128])
        found.append(float(torch.autograd.grad(loss, maps[0])[0].norm()))
    return found


def swap(low: int, high: int, _: nn.Module, given: tuple[Tensor]) -> Tensor:
    """A hook: what a layer reads, with some channels of another image."""
    return torch.cat([given[0][:, :low], given[0][:, low:high].roll(1, 0), given[0][:, high:]], 1)


@torch.no_grad()
def reading(network: DenseNet, images: Images) -> list[Any]:
    """(block, reader, source, 2): the mean weight of a source's maps, over that of all, and the
    rise of the loss. A reader is a layer, or what follows the block; source 0 is its input."""
    x, y, found = images.test_x[:200], images.test_y[:200], []
    before = F.cross_entropy(network.eval()(x), y)
    for block, follower in pairwise(network.features):
        if isinstance(block, DenseBlock):
            readers: list[Any] = [layer.conv1 for layer in block.values()]
            readers += [network.head if isinstance(follower, nn.BatchNorm2d) else follower.conv]
            ends = [0, *(reader.weight.shape[1] for reader in readers)]
            found.append(np.zeros((len(readers), len(readers), 2)))
            for i, reader in enumerate(readers):
                weight = reader.weight.flatten(1).abs().mean(dim=0)
                for j, (low, high) in enumerate(pairwise(ends[: i + 2])):
                    handle = reader.register_forward_pre_hook(partial(swap, low, high))
                    rise = F.cross_entropy(network(x), y) - before
                    found[-1][i, j] = float(weight[low:high].mean() / weight.mean()), float(rise)
                    handle.remove()
    return [block.tolist() for block in found]


def learn(make: Any, images: Images, epochs: int, runs: int) -> Any:
    """Accuracies, last training losses, and how a dense network reads after the last run."""
    right, losses = [], []
    for network in [make(len(images.classes), images.channels) for _ in range(runs)]:
        losses.append(fit(network, images, epochs, batch=32)[-1].loss)
        right.append(accuracy(network, images.test_x, images.test_y))
    return right, losses, reading(network, images) if isinstance(network, DenseNet) else []


def run(bench: Bench) -> Findings:
    side = 8 if bench.quick and not bench.data else 16
    images = bench.images("digits" if bench.quick else "fashion-mnist", side, most=8000)
    few, given = images.few(30 if bench.quick else 200), (len(images.classes), images.channels)
    size = (images.channels, side, side)
    makes: dict[str, Any] = {"residual": partial(KINDS["residual"], LAYERS)}
    goal = summarise(makes["residual"](*given), size)
    costs = {g: summarise(dense(g, LAYERS, *given), size) for g in range(4, 33, 2)}
    for what, name in (("parameters", "parameters"), ("macs", "MACs")):
        g = min(costs, key=lambda g: abs(getattr(costs[g], what) - getattr(goal, what)))
        makes[f"dense, equal {name}"] = partial(dense, g, LAYERS)
    bench.steps(len(makes) + len(KINDS), "networks")
    norms = {k: bench.measure(f"start of {k}", gradients, k, images) for k in KINDS}
    effort, rows = (8, 3) if bench.quick else (20, 5), []  # epochs, runs
    for name, make in makes.items():
        right, losses, reads = bench.measure(name, learn, make, few, *effort)
        table, row = summarise(make(*given), size), {"network": name, "runs": right}
        row |= {"accuracy": np.mean(right).item(), "spread of the loss": np.std(losses).item()}
        rows.append(row | {"parameters": table.parameters, "MACs": table.macs})

    made, axes = figure(3, 2, width=3.2, height=2.8)
    slide: Any = DenseBlock(2 * GROWTH, LAYERS, GROWTH)
    ends = [layer.conv1.in_channels for layer in slide.values()]
    ends.append(slide(torch.zeros(2, 2 * GROWTH, 4, 4)).shape[1])
    for i, (low, high) in enumerate(pairwise([0, *ends])):
        axes[0, 0].bar(range(i + 1, len(ends) + 1), high - low, bottom=low, color=COLOURS[i])
        axes[0, 0].text(i + 1, high, high, ha="center", va="bottom")
    axes[0, 0].set(title=f"channels read, k = {GROWTH}", xlabel="layer, and what follows")
    for number, kind in enumerate(KINDS):
        line(axes[0, 1], [6 * n for n in DEPTHS], norms[kind], number, kind)
    axes[0, 1].set(yscale="log", xlabel="convolutions", title="norm of the first gradient")
    axes[0, 1].legend()
    for i, row in enumerate(rows):
        axes[0, 2].plot(row["runs"], [i] * len(row["runs"]), "o", color=COLOURS[i], alpha=0.7)
    axes[0, 2].set_yticks(range(len(rows)), [r["network"].replace(", ", ",\n") for r in rows])
    axes[0, 2].set(title="accuracy of each run", ylim=(len(rows) - 0.5, -0.5))
    weights, rises = np.moveaxis(np.array(reads), -1, 0)  # (block, reader, source) each
    for number, (panel, rise) in enumerate(zip(axes[1], rises, strict=True), start=1):
        shade, extent = np.sqrt(np.maximum(rise.T, 0)), (0.5, LAYERS + 1.5, LAYERS + 0.5, -0.5)
        panel.imshow(shade, cmap="Blues", vmax=1.2, extent=extent, zorder=3)
        for j, i in combinations_with_replacement(range(LAYERS + 1), 2):
            panel.text(i + 1, j, f"{rise[i, j]:.2f}", ha="center", va="center", fontsize=7)
        panel.set(title=f"block {number}: rise of the loss", xlabel="layer", ylabel="source")

    old = 1 - np.trace(rises[:, 1:LAYERS, 1:LAYERS], 0, 1, 2).sum() / rises[:, 1:LAYERS].sum()
    growth, (plain, same, cheap) = [norm[-1] / norm[0] for norm in norms.values()], rows
    spread = [row["spread of the loss"] for row in rows]
    seen = (
        f"Maps older than the latest account for {old:.0%} of what the loss rises by if layers get "
        f"another image's: they are {'' if old > 0.5 else 'hardly '}reused. Weights of a source "
        f"are {weights[weights > 0].min():.2f} to {weights.max():.2f} of the mean (start: 1).",
        f"From {6 * DEPTHS[0]} to {6 * DEPTHS[-1]} convolutions the first layer's gradient grows "
        f"{growth[0]:,.0f} times (plain), {growth[1]:.0f} (residual) and {growth[2]:.0f} (dense).",
        f"Residual {plain['accuracy']:.1%}, dense {same['accuracy']:.1%} with equal parameters, "
        f"{cheap['accuracy']:.1%} with equal MACs. Last losses spread by {spread[0]:.4f}, "
        f"{spread[1]:.4f} and {spread[2]:.4f}: in these few runs dense training is "
        f"{'' if spread[0] > max(spread[1:]) else 'not '}more stable.",
    )
    shown = growth[2] < growth[1] < growth[0] and cheap["accuracy"] > plain["accuracy"] - 0.02
    return Findings(made, rows, seen, bool(shown), "Set GROWTH to 12: and the gradient?")
