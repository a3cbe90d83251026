"""Filters and feature maps: what a network has learnt to look for.

The filters of a first layer are small images, and can be looked at. What a deeper channel responds
to is shown by its map of an image, and by the images that excite it most. Here is all this for an
EfficientNet-Lite0 that has learnt ImageNet, and for one with random weights.

A filter of the first layer is a 3 x 9 matrix. Where it is (nearly) a product, w[colour, pixel] =
a[colour] b[pixel], it looks for one pattern in one colour; random numbers seldom are a product.

Source: Zeiler and Fergus. "Visualizing and Understanding Convolutional Networks". arXiv:1311.2901;
    filters of a first layer: figure 3 of Krizhevsky et al. (AlexNet), NIPS 2012.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foveate
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, figure, image, line
from foveate.lab.images import Images

QUESTION = "What do the filters of a trained network look for?"
MINUTES = (0.4, 2.0)
SIDE, CELL, BEST, SHOWN = 64, 48, 9, (1, 2, 3, 5, 7)  # pixels; of a cell; images; stages drawn
ONE = 0.8  # share of a filter's energy from which it counts as one pattern in one colour
KINDS = {"trained": "imagenet", "untrained": None}  # and their weights


def criteria(w: Tensor) -> dict[str, Tensor]:
    """What each filter is; (F, 3, height, width)."""
    colours, strength, patterns = torch.linalg.svd(w.flatten(2), full_matrices=False)
    a, b = colours[:, :, 0], patterns[:, 0].unflatten(1, w.shape[2:])  # both of length 1
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in w.shape[2:]), indexing="ij")
    angle = torch.arange(12)[:, None, None, None] * math.pi / 12
    frequency = torch.linspace(0.1, 0.5, 9)[:, None, None]  # cycles a pixel
    grating = torch.exp(2j * math.pi * frequency * (x * angle.cos() + y * angle.sin()))
    response = torch.einsum("fyx,aryx->far", b + 0j, grating).abs().amax(dim=2)
    size = w.flatten(1).norm(dim=1)
    return {
        "working": size > 1e-3 * size.max(),  # training has switched the others off
        "share": strength[:, 0] ** 2 / (strength**2).sum(dim=1),
        "opponent": (a.amax(dim=1) > 0.2) & (a.amin(dim=1) < -0.2),
        "oriented": (response > 2 * response.roll(6, dims=1)).any(dim=1),  # roll: across
    }


def as_rgb(images: Images) -> Tensor:
    """(N, 3, H, W), in [0, 1]; grey ones have three equal channels."""
    pixels = images.x * images.spread[:, None, None] + images.mean[:, None, None]
    return pixels.expand(-1, 3, -1, -1)


@torch.no_grad()
def look(kind: str, images: Images) -> dict[str, Any]:
    """The first layer, maps of the first image, and the images that excite a channel most."""
    large = (as_rgb(images) - 0.498) / 0.502  # as the published weights expect it
    parts = torch.tensor_split(F.interpolate(large, (SIDE, SIDE), mode="area"), 5)
    network: Any = foveate.build("efficientnet_lite0", weights=KINDS[kind]).eval()
    if kind == "untrained":  # or its deep maps would fade to nothing: batch-norm of these images
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.train().momentum = None  # the mean over all parts
        for part in parts:
            network(part)
        network.eval()
    excited = zip(*([m.amax(dim=(2, 3)) for m in network.stages(x)] for x in parts), strict=True)
    stages, maps = [], []
    for stage in map(torch.cat, excited):  # (N, channels)
        best = stage[:, stage.std(dim=0) > 1e-6].topk(BEST, dim=0).indices  # who responds
        counts = F.one_hot(images.y[best], len(images.classes)).sum(dim=0)
        pure = counts.amax(dim=1) / BEST
        middling = best[:, pure.argsort()[len(pure) // 2]]  # no better and no worse than most
        stages.append({"purity": float(pure.mean()), "best": middling.tolist()})
    for stage in network.stages(large[:1]):
        most = stage[0, stage[0].var(dim=(1, 2)).argsort(descending=True)[:6]].flatten(1)
        low, high = most.amin(dim=1, keepdim=True), most.amax(dim=1, keepdim=True)
        grey = 255 * (most - low) / (high - low + 1e-9)
        maps.append(grey.unflatten(1, stage.shape[2:]).round().int().tolist())
    return {"filters": network.features[0][0].weight.tolist(), "stages": stages, "maps": maps}


def montage(axes: Any, rows: list[Any], title: str) -> None:
    """Rows of images, each (n, H, W, 3) in [0, 1]; those of stages have their names before them."""
    lines = []
    for i, row in enumerate(rows):
        cells = torch.as_tensor(np.asarray(row), dtype=torch.float32).permute(0, 3, 1, 2)
        cells = F.pad(F.interpolate(cells, (CELL, CELL)), (2, 2, 2, 2), value=1.0)
        lines.append(torch.cat(list(cells), dim=2))
        place, name = (i + 0.5) * (CELL + 4), f"stage {SHOWN[i]}" if "first" not in title else ""
        axes.text(-8, place, name, ha="right", va="center", fontsize=8)
    image(axes, torch.cat(lines, dim=1).permute(1, 2, 0).clamp(0, 1).numpy())
    axes.set_title(title, loc="left")


def run(bench: Bench) -> Findings:
    images = bench.images("fashion-mnist", 2 * SIDE, 300 if bench.quick else 2000)
    bench.steps(2, "networks")
    found = {kind: bench.measure(kind, look, kind, images) for kind in KINDS}
    order = torch.rand(1000, len(images.y), generator=torch.Generator().manual_seed(bench.seed))
    lots = F.one_hot(images.y[order.argsort(dim=1)[:, :BEST]], len(images.classes)).sum(dim=1)
    chance = float(lots.amax(dim=1).float().mean()) / BEST

    made, axes = figure(2, 4, 4.6, 2.7)
    photos, count, rows = as_rgb(images).permute(0, 2, 3, 1), {}, []
    for i, (kind, one) in enumerate(found.items()):
        w, stages = torch.tensor(one["filters"]), one["stages"]
        of = criteria(w)
        single = of["working"] & (of["share"] >= ONE)
        groups = [single, of["working"], single & of["opponent"], of["working"] & of["oriented"]]
        count[kind] = [int(group.sum()) for group in groups]
        largest = w.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=0.01)
        grid = (0.5 + w / largest / 2)[(of["opponent"] + 2 * ~of["working"]).argsort(stable=True)]
        first = list(torch.tensor_split(grid.permute(0, 2, 3, 1), 4))
        montage(axes[0, i], first, f"{kind}: filters of the first layer")
        maps = [np.array(one["maps"][n - 1])[..., None].repeat(3, 3) / 255 for n in SHOWN]
        montage(axes[1, i], maps, f"{kind}: maps of one image")
        best = [photos[stages[n - 1]["best"]] for n in SHOWN]
        montage(axes[2, i], best, f"{kind}: the images that excite a channel most")
        share = of["share"][of["working"]].numpy()
        axes[3, 0].hist(share, np.linspace(0.3, 1, 15), color=COLOURS[i], alpha=0.6)
        pure = [stage["purity"] for stage in stages]
        line(axes[3, 1], range(1, len(pure) + 1), pure, i, kind)
        rows += [{"network": kind, "stage": n, "purity": p} for n, p in enumerate(pure, start=1)]
    axes[3, 0].set(xlabel="share of a filter that is one pattern in one colour", ylabel="filters")
    axes[3, 1].axhline(chance, color="black", linewidth=1, linestyle=":", label="drawn by lot")
    axes[3, 1].set(xlabel="stage", ylabel=f"of one class, among {BEST} images", ylim=(0, None))
    made.legend(*axes[3, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    late = [sum(stage["purity"] for stage in one["stages"][-3:]) / 3 for one in found.values()]
    (product, works, opponent, oriented), (chances, others, _, turned) = count.values()
    shown = product > 2 / 3 * works and chances < others / 3 and late[0] > late[1]
    seen = (
        f"{product} of the {works} working filters of the trained first layer are one pattern in "
        f"one colour ({ONE:.0%} of their energy or more), and {chances} of {others} random ones; "
        f"{opponent} of the trained ones weigh colours against each other.",
        f"{oriented} of {works} trained filters respond to gratings of some direction at least "
        f"twice as much as across it, and so do {turned} of {others} random ones: with 3 x 3 "
        f"pixels, a direction alone is {'a' if oriented / works > 2 * turned / others else 'no'} "
        "sign of learning.",
        f"In the last three stages {late[0]:.0%} of the {BEST} images that excite a channel most "
        f"are of one class, in the untrained network {late[1]:.0%}, by lot {chance:.0%}: learning "
        f"{'has' if late[0] > late[1] else 'has not'} made channels follow the classes.",
    )
    change = "Give it your photos with --data: do the channels of late stages agree with classes?"
    return Findings(made, rows, seen, shown, change)
