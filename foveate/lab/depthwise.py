"""Depthwise separable convolutions, and channels in groups that are shuffled.

A standard 3x3 convolution filters and mixes channels in one step, for 9MN multiply-accumulates
(MACs) a pixel with M channels in and N out. MobileNet filters each channel by itself (9M) and mixes
with a 1x1 convolution (MN): 1/N + 1/9 of the work, most of it now in the 1x1 convolutions.
ShuffleNet does them in groups, and shuffles the channels so that the groups are not separate.

Source: Howard et al. "MobileNets". arXiv:1704.04861; Zhang et al. "ShuffleNet". arXiv:1707.01083.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import nn
from torch.autograd.functional import jacobian  # has no types

import foveate
from foveate.lab.bench import Bench, Findings, Row
from foveate.lab.drawing import COLOURS, figure, image
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models import summarise
from foveate.models.mobilenet_v1 import Separable
from foveate.models.shufflenet_v1 import Unit

QUESTION = "What does a convolution lose if it treats each channel by itself?"
MINUTES = (0.7, 12)
WIDTH, CHANNELS, GROUPS, UNITS, RUNS = 16, 64, 8, 3, 3


def standard(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution with batch-norm and ReLU6, in the place of MobileNet's `Separable`."""
    conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6())


def mobilenet() -> list[Row]:
    """What MobileNet and its pairs of convolutions cost, and standard ones in their place."""
    network, full = foveate.build("mobilenet_v1"), foveate.build("mobilenet_v1")
    for name, module in list(full.named_modules()):
        if isinstance(module, Separable):
            c_in, stride = module.conv_dw.in_channels, module.conv_dw.stride[0]
            full.set_submodule(name, standard(c_in, module.conv_pw.out_channels, stride))
    ours, theirs = summarise(network), summarise(full)
    other = {layer.name: layer.macs for layer in theirs.layers}
    found: list[Row] = [{"network": "MobileNet", "MACs": ours.macs, "standard": theirs.macs}]
    found[0] |= {"size": ours.parameters / theirs.parameters}
    for pair in [layer for layer in ours.layers if layer.kind == "Separable"]:
        found.append({"network": f"MobileNet, {pair.name}", "N": pair.shape[0], "MACs": pair.macs})
        found[-1] |= {"standard": other[pair.name]}
    return [row | {"ratio": row["MACs"] / row["standard"]} for row in found]


def small(kind: Callable[[int, int, int], nn.Module], width: int, c_in: int, k: int) -> nn.Module:
    """Three blocks of that kind behind a standard convolution; k classes."""
    blocks = kind(width, 2 * width, 1), kind(2 * width, 4 * width, 2), kind(4 * width, 4 * width, 1)
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, k)
    return nn.Sequential(standard(c_in, width, 2), *blocks, *end)


def units(count: int, shuffle: bool) -> nn.Sequential:
    """ShuffleNet's units, with or without its shuffle."""
    chain = [Unit(CHANNELS, GROUPS) for _ in range(count)]
    for unit in chain:
        unit.branch.groups = GROUPS if shuffle else 1  # of the shuffle, which leaves one as it is
    return nn.Sequential(*chain)


def grouped(shuffle: bool, c_in: int, k: int) -> nn.Module:
    """Units behind a standard convolution and a pooling; k classes."""
    begin = standard(c_in, CHANNELS, 2), nn.MaxPool2d(2)
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, k)
    return nn.Sequential(*begin, units(UNITS, shuffle), *end)


def reach(count: int, shuffle: bool) -> torch.Tensor:
    """(output, input): does that output channel depend on that input channel, by gradients?"""
    chain = units(count, shuffle).double().eval()
    for p in chain.parameters():
        nn.init.ones_(p)  # so that no path ends at a ReLU and none cancels another
    x = torch.ones(1, CHANNELS, 3, 3, dtype=torch.float64)
    found = jacobian(lambda x: chain(x).sum(dim=(0, 2, 3)), x)  # type: ignore[no-untyped-call]  # torch has no types for it
    return found.sum(dim=(1, 3, 4)) != 0


def learn(make: Callable[[int, int], nn.Module], images: Images, epochs: int) -> list[float]:
    """The accuracy of each run."""
    found = []
    for network in [make(images.channels, len(images.classes)) for _ in range(RUNS)]:
        fit(network, images, epochs, batch=32)
        found.append(accuracy(network, images.test_x, images.test_y))
    return found


def run(bench: Bench) -> Findings:
    images = bench.images("fashion-mnist", most=1500 if bench.quick else 10_000)
    c, k, size = images.channels, len(images.classes), (images.channels, 28, 28)
    work = summarise(small(Separable, WIDTH, c, k), size).macs
    thin = next(w for w in range(1, 99) if summarise(small(standard, w, c, k), size).macs >= work)
    makes = {
        "standard 3x3": partial(small, standard, WIDTH),
        "depthwise 3x3, 1x1": partial(small, Separable, WIDTH),
        "standard 3x3, thinner": partial(small, standard, thin),
        f"{GROUPS} groups, shuffled": partial(grouped, True),
        f"{GROUPS} groups, not shuffled": partial(grouped, False),
    }
    bench.steps(len(makes), "networks")
    costs, trained = mobilenet(), []
    for name, make in makes.items():
        runs = bench.measure(name, learn, make, images, 4 if bench.quick else 12)
        row: Row = {"network": name, "MACs": summarise(make(c, k), size).macs, "runs": runs}
        trained.append(row | {"accuracy": float(np.mean(runs))})

    made, axes = figure(3, 2, width=3.2, height=2.8)
    pairs, every = costs[1:], np.arange(64, 1025)
    axes[0, 0].plot(every, 1 / every + 1 / 9, color="black", label="1/N + 1/9")
    axes[0, 0].plot([p["N"] for p in pairs], [p["ratio"] for p in pairs], "o", label="MobileNet")
    axes[0, 0].set(xlabel="output channels, N", title="MACs, separable over standard")
    axes[0, 0].legend()
    for i, row in enumerate(trained):
        axes[1, 0].plot(row["runs"], [i] * RUNS, "o", color=COLOURS[i], alpha=0.7)
    names = [f"{row['network']}\n{row['MACs'] / 1e6:.2f} M MACs" for row in trained]
    axes[1, 0].set_yticks(range(len(names)), names, fontsize=8)
    axes[1, 0].set(title="accuracy of each run", ylim=(len(names) - 0.5, -0.5))
    reads, chains = {}, product((False, True), (1, UNITS))
    for panel, (shuffle, count) in zip(axes[:, 1:].flat, chains, strict=True):
        depends = reach(count, shuffle)
        reads[shuffle] = int(depends.sum(dim=1).min())
        title = f"{count} ShuffleNet unit{'s' * (count > 1)}, {'' if shuffle else 'not '}shuffled"
        image(panel, ~depends, f"{title}\nan output reads {reads[shuffle]} of {CHANNELS} channels")

    full, separable, thinner, mixed, apart = (row["accuracy"] for row in trained)
    wrong = max(abs(p["ratio"] / (1 / p["N"] + 1 / 9) - 1) for p in pairs)
    clear = abs(mixed - apart) > max(np.ptp(row["runs"]) for row in trained[3:])
    seen = (
        f"MobileNet has {costs[0]['ratio']:.1%} of the MACs and {costs[0]['size']:.1%} of the "
        "parameters that it has with standard 3x3 convolutions; each pair has 1/N + 1/9 of a "
        f"standard one's MACs, {'exactly' if wrong < 1e-9 else f'within {wrong:.1%}'}.",
        f"At equal width, with {trained[1]['MACs'] / trained[0]['MACs']:.0%} of the MACs, the "
        f"separable network reaches {separable:.1%}, the standard one {full:.1%} (the paper, on "
        f"ImageNet: 70.6 % and 71.7 %); a standard one as cheap, for it is thinner, {thinner:.1%}.",
        f"Behind {UNITS} units an output depends on {reads[False]} of {CHANNELS} channels without "
        f"the shuffle, on {reads[True]} with it; accuracy is {apart:.1%} without and {mixed:.1%} "
        f"with it, which is {'more' if clear else 'less'} than the runs differ among themselves.",
    )
    shown = wrong < 1e-9 and separable > 0.9 * full and reads[False] < reads[True] == CHANNELS
    return Findings(made, costs + trained, seen, shown, "Set GROUPS to 16: what is shuffled?")
