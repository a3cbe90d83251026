"""Skip connections: why deeper plain networks get worse, and residual ones do not.

A deeper network can do all that a shallower one does: its added layers need only pass their input
on. Trained, a plain one comes out worse all the same, on the very images that it learns from
(degradation), so overfitting is not the cause. A residual block outputs relu(F(x) + x): to pass its
input on it need only make F zero.

The networks are the paper's for CIFAR-10, at their full width; images are smaller and fewer, and
training is shorter. Then the loss is drawn around the two deep networks, along two random
directions. Each filter of a direction has the length of the network's own filter, so that the scale
of weights does not matter.

Source: He et al. "Deep Residual Learning for Image Recognition". CVPR 2016, arXiv:1512.03385,
    section 4.2; Li et al. "Visualizing the Loss Landscape of Neural Nets". NeurIPS 2018,
    arXiv:1712.09913.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foveate
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import figure, line
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models.resnet_cifar import Residual, plain56, resnet56

QUESTION = "Why do deeper plain networks get worse on their own training images?"
MINUTES = (0.5, 15)
PAPER = {"plain20": "plain, 20 layers", "plain56": "plain, 56 layers"}
PAPER |= {"resnet20": "residual, 20 layers", "resnet56": "residual, 56 layers"}
REACH = 1.0  # of the surface, in lengths of a filter


def learn(name: str, images: Images, epochs: int, grid: int) -> dict[str, Any]:
    """The training error after each epoch, the test error, and of deep networks the surface."""
    network = foveate.build(name, num_classes=len(images.classes), in_channels=images.channels)
    errors = [1 - epoch.accuracy for epoch in fit(network, images, epochs)]
    test = 1 - accuracy(network, images.test_x, images.test_y)
    loss = surface(network, images, grid) if name.endswith("56") else []
    return {"errors": errors, "test": test, "surface": loss}


def direction(weight: Tensor) -> Tensor:
    """A random one, in which each filter has the norm of the weight's own filter."""
    drawn = torch.randn_like(weight).flatten(1)
    drawn *= weight.flatten(1).norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
    return drawn.view_as(weight)


@torch.no_grad()
def surface(network: nn.Module, images: Images, grid: int) -> list[list[float]]:
    """The loss at (grid, grid) points around the weights, which are its middle."""
    weights = [p for p in network.parameters() if p.dim() > 1]  # no biases and no batch-norm
    middle = [w.clone() for w in weights]
    first, second = ([direction(w) for w in weights] for _ in range(2))
    x, y = images.x[:128], images.y[:128]

    def loss(a: float, b: float) -> float:
        for w, m, d, e in zip(weights, middle, first, second, strict=True):
            w.copy_(m + a * d + b * e)
        return min(1e6, float(F.cross_entropy(network(x), y)))  # 1e6 where it overflows too

    steps = np.linspace(-REACH, REACH, grid).tolist()
    return [[loss(a, b) for a in steps] for b in steps]


def sides(padding: int) -> list[int]:
    """The side of the map after each block of plain56, for 32x32 images, while there is a map."""
    network = plain56().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.padding = (padding, padding)
    x, found = torch.zeros(1, 16, 32, 32), []
    for block in (*network.layer1, *network.layer2, *network.layer3):
        if x.shape[-1] >= 5:  # what two 3x3 filters need
            x = block(x)
            found.append(int(x.shape[-1]))
    return found


def run(bench: Bench) -> Findings:
    data, side, most, epochs, grid = ("digits", 8, 1500, 8, 11)
    if not bench.quick:
        data, side, most, epochs, grid = ("fashion-mnist", 16, 2000, 20, 21)
    images = bench.images(data, side, most)
    bench.steps(len(PAPER), "networks")
    found = {name: bench.measure(name, learn, name, images, epochs, grid) for name in PAPER}
    error = {name: found[name]["errors"][-1] for name in PAPER}
    same, valid, ways = sides(1), sides(0), np.linspace(-REACH, REACH, grid)
    guess, middle, better = float(np.log(len(images.classes))), {}, {}

    made, axes = figure(3, 2, width=3.4, height=2.9)
    for number, (name, label) in enumerate(PAPER.items()):
        panel, errors = axes[0, number // 2], found[name]["errors"]
        line(panel, range(1, len(errors) + 1), errors, number % 2, label.split(", ")[1])
        panel.set(xlabel="epoch", ylabel="training error", title=label.split(",")[0])
        panel.set(ylim=(-0.03, 1), xticks=range(0, epochs + 1, epochs // 4))
        panel.legend()
    for number, (drawn, label) in enumerate(((same, "1 (“same”)"), (valid, "0 (“valid”)")), 2):
        line(axes[0, 2], range(1, len(drawn) + 1), drawn, number, f"padding {label}")
    axes[0, 2].set(
        xlabel="block", ylabel="side of the map (pixels)", title="56 layers, 32x32 images"
    )
    axes[0, 2].legend(loc="upper right", bbox_to_anchor=(1, 0.93))
    for number, name in enumerate(("plain56", "resnet56")):
        loss, panel = np.array(found[name]["surface"]), axes[1, number]
        shades = panel.contourf(ways, ways, np.log10(loss + 1e-4), range(-4, 7), extend="max")
        if loss.min() < guess < loss.max():
            panel.contour(ways, ways, loss, [guess], colors="white")
        panel.set(title=f"{PAPER[name]}: loss", xlabel="direction 1", ylabel="direction 2")
        line(axes[1, 2], ways.tolist(), loss[grid // 2], number, PAPER[name].split(",")[0])
        middle[name], better[name] = loss[grid // 2, grid // 2], (loss < guess).mean()
    made.colorbar(shades, ax=axes[1, 1], label="log10 of the loss")
    axes[1, 2].axhline(guess, color="black", linestyle=":", linewidth=1, label="guessing")
    axes[1, 2].set(yscale="log", xlabel="direction 1", ylabel="loss", title="loss, direction 2 = 0")
    axes[1, 2].margins(y=0.2)  # room for the legend
    axes[1, 2].legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1)

    plain, residual = (error[f"{kind}56"] - error[f"{kind}20"] for kind in ("plain", "resnet"))
    shown = plain > 0.05 and residual < 0.01
    verdict = "depth hurts only the plain network" if shown else "this is not the paper's result"
    blocks = [block for block in resnet56().modules() if isinstance(block, Residual)]
    same_shape = sum(isinstance(block.shortcut, nn.Identity) for block in blocks)
    seen = (
        f"After {epochs} epochs, training errors at 20 and 56 layers are {error['plain20']:.1%} "
        f"and {error['plain56']:.1%} without shortcuts, {error['resnet20']:.1%} and "
        f"{error['resnet56']:.1%} with them: {verdict}.",
        f"F(x) + x needs equal shapes. With padding, {same_shape} of ResNet-56's {len(blocks)} "
        f"shortcuts are the identity; without it, a map of 32 pixels a side is one of {valid[0]} "
        f"after the first block, and too small for another after block {len(valid)}.",
        f"The loss is better than guessing (inside the white line) on {better['plain56']:.0%} of "
        f"the surface around the plain network and {better['resnet56']:.0%} of that around the "
        f"residual one; at the weights it is {middle['plain56']:.2g} and {middle['resnet56']:.2g}.",
    )
    rows = [
        {"network": name, "training error": error[name], "test error": found[name]["test"]}
        for name in PAPER
    ]
    return Findings(
        made, rows, seen, shown, "Train resnet110 in the same way: does it still learn?"
    )
