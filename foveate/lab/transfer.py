"""Transfer learning: begin with what a network learnt from a million photos, not with nothing.

In three steps: load the pretrained weights, freeze them, replace the last layer by one for your
classes. Then train that layer alone (frozen), or everything from there on (fine-tuned). Both are
compared with the same network from random weights, on the same images, for as many steps.

A frozen backbone gives the same features each time, so that they are computed once and the head
learns from them alone, which takes a second; `foveate.extract_features` does so for a data set.

Source: Yosinski et al. "How transferable are features in deep neural networks?". NIPS 2014,
    arXiv:1411.1792; Donahue et al. "DeCAF". ICML 2014, arXiv:1310.1531.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import foveate
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import figure, line, sheet
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit

QUESTION = "How much do pretrained weights help when there are few images?"
MINUTES = (0.9, 30.0)
NETWORK = "efficientnet_lite0"  # its weights come with the package
TEST = 300  # images to be judged by
EPOCHS = {5: 12, 20: 8, 50: 8, 0: 5}  # by images of a class; 0 is all of them


def for_network(images: Images) -> Images:
    """Images as the pretrained weights expect them: three channels, with ImageNet's mean."""
    reads = foveate.build(NETWORK, weights="imagenet").preprocess
    mean, spread = (torch.tensor(of) for of in (reads.mean, reads.std))

    def read(x: Tensor) -> Tensor:
        pixels = images.unit(x).expand(-1, 3, -1, -1)
        return (pixels - mean[:, None, None]) / spread[:, None, None]

    x, test_x, test_y = read(images.x), read(images.test_x[:TEST]), images.test_y[:TEST]
    return replace(images, x=x, test_x=test_x, test_y=test_y, mean=mean, spread=spread)


def three_steps(classes: int) -> Any:
    """The lecture's transfer learning: load, freeze, replace the head."""
    network = foveate.build(NETWORK, weights="imagenet")
    foveate.freeze(network, "backbone")
    foveate.replace_head(network, classes)
    return network


@torch.no_grad()
def features(network: Any, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1280): what the head of a network in evaluation reads."""
    network.eval()
    return torch.cat([network.embed(part) for part in torch.split(x, 64)])


def frozen(images: Images, epochs: int) -> float:
    """Accuracy where the new head alone learns, from features that are computed once."""
    network = three_steps(len(images.classes))
    x, test_x = features(network, images.x), features(network, images.test_x)
    head: nn.Module = network.head
    fit(head, replace(images, x=x), 60, batch=32)  # steps of the head cost nothing
    return accuracy(head, test_x, images.test_y)


def fine_tuned(images: Images, epochs: int) -> float:
    """Accuracy where everything learns on from the pretrained weights."""
    network = three_steps(len(images.classes))
    foveate.freeze(network, "none")
    fit(network, images, epochs, lr=0.03, batch=16)
    return accuracy(network, images.test_x, images.test_y)


def from_scratch(images: Images, epochs: int) -> float:
    """Accuracy where everything learns from random weights."""
    network = foveate.build(NETWORK, num_classes=len(images.classes))
    fit(network, images, epochs, lr=0.03, batch=16)
    return accuracy(network, images.test_x, images.test_y)


def learn(how: Callable[[Images, int], float], images: Images, each: int, seed: int) -> float:
    """Accuracy after learning from so many images of each class, which the seed draws."""
    torch.manual_seed(seed)
    order = torch.randperm(len(images.x))
    part = replace(images, x=images.x[order], y=images.y[order]).few(each or len(order))
    return 100 * how(part, EPOCHS[each])


def run(bench: Bench) -> Findings:
    side, runs, most = (64, 1, 1200) if bench.quick else (96, 3, 2400)
    amounts = [5, 20] if bench.quick else list(EPOCHS)
    images = for_network(bench.images("fashion-mnist", side, most))
    kinds = {"fine-tuned": fine_tuned, "frozen": frozen, "from scratch": from_scratch}
    bench.steps(len(kinds) * len(amounts) * runs, "networks")
    found = {}
    for name, how in kinds.items():
        flat = [
            bench.measure(f"{name} {each} {r}", learn, how, images, each, 100 * bench.seed + r)
            for r in range(runs)
            for each in amounts
        ]
        found[name] = np.array(flat).reshape(runs, len(amounts))

    counts = [each or len(images.x) // len(images.classes) for each in amounts]
    made, axes = figure(2, width=4.6, height=3.6)
    for number, (name, values) in enumerate(found.items()):
        line(axes[0, 0], counts, values, number, name)
    chance = 100 * float(torch.bincount(images.test_y).max()) / len(images.test_y)
    axes[0, 0].axhline(chance, color="grey", linestyle=":", label="always the largest class")
    axes[0, 0].set(xscale="log", xlabel="images of each class", ylabel="accuracy, %", ylim=(0, 100))
    axes[0, 0].set_xticks(counts, [str(n) for n in counts], minor=False)
    axes[0, 0].minorticks_off()
    axes[0, 0].set_title(f"{len(images.test_y)} test images, {side} pixels")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    pixels = images.unit(images.x[:9]).permute(0, 2, 3, 1)
    sheet(axes[0, 1], pixels.reshape(3, 3, *pixels.shape[1:]), ["", "", ""])
    axes[0, 1].set_title(f"what the network reads: {images.name}")

    few = {name: float(values[:, 0].mean()) for name, values in found.items()}
    last = {name: float(values[:, -1].mean()) for name, values in found.items()}
    kept = max(few["frozen"], few["fine-tuned"]) - few["from scratch"]
    gap = max(last["frozen"], last["fine-tuned"]) - last["from scratch"]
    ahead = max(last, key=last.__getitem__)
    steps = -(-5 * len(images.classes) // 16) * EPOCHS[5]
    seen = (
        f"With 5 images of each class, {few['frozen']:.0f} % are right with frozen weights and a "
        f"new head, {few['fine-tuned']:.0f} % when fine-tuned, {few['from scratch']:.0f} % from "
        f"scratch; {chance:.0f} % would be right without learning.",
        f"From scratch had the same {steps} steps as fine-tuning: pretrained weights are "
        f"{kept:+.0f} points ahead at 5 images of each class, {gap:+.0f} at {counts[-1]}.",
        f"At {counts[-1]} images of each class, {ahead} is best; frozen weights give "
        f"{last['frozen']:.0f} %, fine-tuning {last['fine-tuned']:.0f} %, from scratch "
        f"{last['from scratch']:.0f} %"
        + ("; 50 and more are left to the full form." if bench.quick else "."),
    )
    rows = [
        {"weights": name, "images of each class": n, "accuracy": float(values[:, i].mean()) / 100}
        for name, values in found.items()
        for i, n in enumerate(counts)
    ]
    change = "Give the network from scratch ten times the epochs: does it catch up?"
    return Findings(made, rows, seen, kept > 10 and few["frozen"] > chance + 10, change)
