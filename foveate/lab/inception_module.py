"""The Inception module: filters of several sizes on one map, side by side.

Whether what matters in an image is small or large is not known beforehand. So the module has four
branches, with 1x1, 3x3 and 5x5 filters and a maximum, and concatenates their maps: the 28x28x192 of
GoogLeNet's module 3a become 64 + 128 + 32 + 32 = 256 channels. 1x1 convolutions reduce the channels
first. Two questions follow:

    cost         what the module would cost without these reductions
    gradients    what GoogLeNet's two side branches (auxiliary classifiers on middle maps, in
                 training only) add to the gradient of the early layers

The maps that are drawn are of a small network with one module of a quarter of 3a's widths.

Source: Szegedy et al. "Going Deeper with Convolutions". CVPR 2015, arXiv:1409.4842.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import foveate
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, divided, figure, image, line
from foveate.lab.images import Images
from foveate.lab.learning import fit, watched
from foveate.models.googlenet import PAPER, TABLE_1, ConvReLU, Inception, Row
from foveate.models.summary import summarise

QUESTION = "What does it cost to look through filters of several sizes at once?"
MINUTES = (0.5, 6)
BRANCHES = ("1x1", "3x3", "5x5", "maximum")
AUXILIARY = 0.3  # the weight of an auxiliary loss in the paper
PARTS = ("conv1", "conv2", "conv3", *(f"inception{name}" for name in TABLE_1))
FORMS = ("googlenet_2014", "googlenet")  # the paper's, and torchvision's with batch-norm


def module_3a() -> list[dict[str, Any]]:
    """What each branch of 3a makes and costs, as it is and without its 1x1 reduction."""
    row, size = TABLE_1["3a"], (192, 28, 28)
    module = Inception(192, row)
    naive = (  # Figure 2a of the paper
        ConvReLU(PAPER, 192, row.ones, 1),
        ConvReLU(PAPER, 192, row.threes, 3),
        ConvReLU(PAPER, 192, row.fives, 5),
        nn.MaxPool2d(3, stride=1, padding=1),
    )
    rows = []
    for name, branch, simple in zip(BRANCHES, module.children(), naive, strict=True):
        real, direct = summarise(branch, size), summarise(simple, size)
        field = real.layers[-1].field
        rows.append(
            {"branch": name, "output": "x".join(map(str, real.shape)), "channels": real.shape[0]}
            | {"field": field and field[0], "parameters": real.parameters, "MACs": real.macs}
            | {"channels, no reduction": direct.shape[0], "MACs, no reduction": direct.macs}
        )
    return rows


def maps(images: Images, epochs: int) -> list[Any]:
    """The map of each branch that varies most in one image, in a small trained network."""
    form = replace(PAPER, batch_norm=True)
    quarter = Inception(48, Row(*(width // 4 for width in TABLE_1["3a"])), form)
    stem = ConvReLU(form, images.channels, 48, 3)
    head = nn.Linear(64, len(images.classes))
    network = nn.Sequential(stem, quarter, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    fit(network, images, epochs)
    with torch.no_grad(), watched(list(quarter.children())) as outputs:
        network(images.test_x[:1])
    return [y[0, y[0].std(dim=(1, 2)).argmax()].tolist() for y in outputs]


def gradients(name: str, images: Images, seed: int) -> dict[str, list[float]]:
    """The norm of the gradient of each part's weights at the start of training, of the loss of the
    last layer alone and with the two auxiliary losses."""
    torch.manual_seed(seed)
    network: Any = foveate.build(name, len(images.classes), in_channels=images.channels)
    last, *others = (
        F.cross_entropy(logits, images.y[:64]) for logits in network.train()(images.x[:64])
    )
    parts = [list(network.get_submodule(part).parameters()) for part in PARTS]
    found = {}
    for way, loss in (("last", last), ("all", last + AUXILIARY * sum(others))):
        network.zero_grad()
        torch.autograd.backward(loss, retain_graph=True)
        found[way] = [
            float(torch.cat([p.grad.flatten() for p in part if p.grad is not None]).norm())
            for part in parts
        ]
    return found


def run(bench: Bench) -> Findings:
    most, epochs, side, runs = (800, 4, 64, 3) if bench.quick else (4000, 10, 112, 10)
    images, large = bench.images("fashion-mnist", 28, most), bench.images("fashion-mnist", side, 64)
    bench.steps(len(FORMS) * runs + 1, "networks")
    drawn = bench.measure("maps", maps, images, epochs)
    norms = {
        name: [
            bench.measure(f"{name} {i}", gradients, name, large, bench.seed * runs + i)
            for i in range(runs)
        ]
        for name in FORMS
    }
    rows = module_3a()

    made, axes = figure(5, 2, width=2.1, height=2.4)
    x = images.test_x[0] * images.spread[:, None, None] + images.mean[:, None, None]
    image(axes[0, 0], x.permute(1, 2, 0).clamp(0, 1), "image", cmap="gray")
    for panel, row, values in zip(axes[0, 1:], rows, drawn, strict=True):
        image(panel, values, f"{row['branch']}: sees {row['field']}x{row['field']}")
    cost, *panels = divided(made, axes, 1, 3)
    for number, (way, height) in enumerate((("MACs, no reduction", 0.7), ("MACs", 0.35))):
        label = ("without 1x1 reductions", "with them")[number]
        macs = [row[way] / 1e6 for row in rows]
        cost.barh(range(4), macs, height, color=COLOURS[5 - 5 * number], label=label)
    cost.set(yticks=range(4), yticklabels=BRANCHES, title="module 3a: MACs (millions)")
    cost.invert_yaxis()
    places, grown = range(len(PARTS)), {}
    for panel, name in zip(panels, FORMS, strict=True):
        last, everything = (np.array([n[way] for n in norms[name]]) for way in ("last", "all"))
        line(panel, places, last, 2, "last loss alone")
        line(panel, places, everything, 1, "with auxiliary losses")
        panel.set(ylim=(0, None), title=f"{name}: norm of the gradient")
        panel.set_xticks(places, [part.removeprefix("inception") for part in PARTS], rotation=90)
        grown[name] = (everything / last).mean(axis=0).tolist()
    cost.legend(loc="lower right")
    panels[1].legend(loc="upper right")

    before, now = (sum(row[way] for row in rows) for way in ("MACs, no reduction", "MACs"))
    *_, direct = wide = [row["channels, no reduction"] for row in rows]
    (first, *_, late), (normed, *_) = grown["googlenet_2014"], grown["googlenet"]
    shown = first > 1 + 2 * AUXILIARY and abs(late - 1) < 0.01
    seen = (
        f"Module 3a makes {' + '.join(str(row['channels']) for row in rows)} = "
        f"{sum(row['channels'] for row in rows)} channels of 192; a pixel of its branches sees "
        f"{', '.join('{0}x{0}'.format(row['field']) for row in rows)} pixels of the map below.",
        f"With its 1x1 reductions, module 3a takes {now / 1e6:.0f} M multiplications; without them "
        f"{before / 1e6:.0f} M, and {sum(wide)} channels come out, {direct} of them the maximum's.",
        f"At the start of training, auxiliary losses multiply the first convolution's gradient by "
        f"{first:.1f} in the paper's form (that of 5b, which is above them, by {late:.1f}), and by "
        f"{normed:.2f} in torchvision's form with batch-norm.",
    )
    for name, factors in grown.items():
        parts = zip(PARTS, factors, strict=True)
        rows += [{"network": name, "part": part, "gradient, times": g} for part, g in parts]
    return Findings(made, rows, seen, shown, "Set AUXILIARY to 1: which layers feel it?")
