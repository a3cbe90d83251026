"""Data augmentation: which changes of an image leave its class as it is, and what they are worth.

A network that sees the same few images in each epoch soon knows them by heart. Augmentation shows
it another variant each time, which helps as long as the variant still belongs to its class. A
digit that is moved or slightly rotated does; a digit that is flipped is often none. Here the same
network learns from the same images, once without augmentation and once with each of them alone, and
the differences are taken run by run.

Source: Krizhevsky et al. "ImageNet Classification with Deep Convolutional Neural Networks". NIPS
    2012, 4.1 (crops, flips, PCA colour); Zhang et al. "mixup". ICLR 2018, arXiv:1710.09412.
"""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import foveate
from foveate import Augment
from foveate.data.augment.pca import fit_pca
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, figure, sheet
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit, variants

QUESTION = "Which augmentation helps, how much, and which one hurts?"
MINUTES = (0.9, 12.0)
SIDE, MOST, DRAWS = 28, 3000, 6
EPOCHS = {10: 70, 50: 40, 0: 25}  # by images per class; 0 is all of them
SAFE = ("random crop", "rotation, 15°", "mixup, α = 0.2")  # keep the class of most images
T95 = {5: 2.776, 8: 2.365}  # Student's t of a 95 % interval over so many runs


def augmentations(images: Images) -> dict[str, Augment]:
    """Each augmentation alone; those of colour for colour images only."""
    found = {
        "none": Augment(size=SIDE),
        "horizontal flip": Augment(size=SIDE, hflip=0.5),
        "vertical flip": Augment(size=SIDE, vflip=0.5),
        "random crop": Augment(size=SIDE, crop="random", padding=0.125),
        "rotation, 15°": Augment(size=SIDE, rotation=15),
        "brightness, contrast": Augment(size=SIDE, brightness=0.4, contrast=0.4),
        "mixup, α = 0.2": Augment(size=SIDE, mixup=0.2),
    }
    if images.channels == 3:
        pixels = (images.unit(images.x) * 255).byte().permute(0, 2, 3, 1).numpy()
        pca = Augment(size=SIDE, pca_colour=0.1).with_components(fit_pca(pixels))
        colour = Augment(size=SIDE, saturation=0.4, hue=0.1)
        found |= {"saturation, hue": colour, "PCA colour, σ = 0.1": pca}
    return found


def learn(images: Images, augment: Augment, each: int, seed: int) -> float:
    """Accuracy of a network that learnt from so many images of each class, which the seed draws;
    the same ones, and the same initial weights, for each augmentation."""
    torch.manual_seed(seed)
    order = torch.randperm(len(images.x))
    part = replace(images, x=images.x[order], y=images.y[order]).few(each or len(order))
    classes = len(images.classes)
    network = foveate.build("lenet5", num_classes=classes, in_channels=images.channels)

    def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return augment.batch(x, y, classes)  # shares of the classes, also where mixup is off

    changed = variants(augment, images)
    fit(network, part, EPOCHS[each], lr=0.02, batch=32, augment=changed, mix=mix)
    return accuracy(network, images.test_x, images.test_y)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean over runs, and half the width of its 95 % interval."""
    n = len(values)
    return float(values.mean()), T95[n] * float(values.std(ddof=1)) / math.sqrt(n)


def drawn(images: Images, augment: Augment) -> Tensor:
    """DRAWS variants of one image, (DRAWS, side, side, channels), in [0, 1]."""
    one = torch.nonzero(images.y == min(7, len(images.classes) - 1))[0]
    x = variants(augment, images)(images.x[one].expand(DRAWS, -1, -1, -1))
    others = images.x[torch.nonzero(images.y != images.y[one])[:DRAWS, 0]]
    for i in range(DRAWS):  # mixup's partner is an image of another class
        pair = torch.stack([x[i], others[i]])
        x[i] = augment.batch(pair, torch.tensor([0, 1]), 2)[0][0]
    return images.unit(x).permute(0, 2, 3, 1)


def run(bench: Bench) -> Findings:
    images = bench.images("digits", SIDE, MOST)
    kinds = augmentations(images)
    runs = 5 if bench.quick else 8
    amounts = [10] if bench.quick else list(EPOCHS)
    bench.steps(len(amounts) * len(kinds) * runs, "networks")
    found = {}
    for each, (name, kind) in product(amounts, kinds.items()):
        seeds = [100 * bench.seed + r for r in range(runs)]
        keys = [f"{name} {each} {seed}" for seed in seeds]
        values = [
            bench.measure(key, learn, images, kind, each, seed)
            for key, seed in zip(keys, seeds, strict=True)
        ]
        found[name, each] = np.array(values)
    gain = {key: 100 * (a - found["none", key[1]]) for key, a in found.items()}  # run by run
    mean, half = ({key: interval(g)[i] for key, g in gain.items()} for i in (0, 1))

    made, axes = figure(2, width=4.6, height=0.46 * len(kinds) + 0.9)
    names = list(kinds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        sheet(axes[0, 0], torch.stack([drawn(images, kind) for kind in kinds.values()]), names)
    axes[0, 0].set_title(f"{DRAWS} variants of one image")
    for n, each in enumerate(amounts):
        places = [i + (n - (len(amounts) - 1) / 2) * 0.22 for i in range(1, len(names))]
        values = [[of[name, each] for name in names[1:]] for of in (mean, half)]
        label = f"{each} images a class" if each else "all images"
        style = {"fmt": "o", "color": COLOURS[n], "capsize": 3, "label": label}
        axes[0, 1].errorbar(values[0], places, xerr=values[1], **style)
    axes[0, 1].axvline(0, color="black", linewidth=0.8)
    axes[0, 1].set_yticks(range(len(names)), names)
    axes[0, 1].set(ylim=(len(names) - 0.5, -0.5), xlabel="gain in accuracy, points")
    axes[0, 1].set_title(f"against none, {runs} runs, 95 % interval")
    made.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=3)

    few = {name: mean[name, 10] for name in names[1:]}
    best = max(few, key=few.__getitem__)
    safe = np.mean([gain[name, 10] for name in SAFE], axis=0)
    ahead, chance = interval(safe - gain["vertical flip", 10])
    hurts = [f"{name} ({n or 'all'})" for name, n in found if mean[name, n] < -half[name, n]]
    helps = [f"{name} ({n or 'all'})" for name, n in found if mean[name, n] > half[name, n]]
    seen = (
        f"With 10 images a class, crops, rotation and mixup are {ahead:+.1f} points (±{chance:.1f})"
        f" ahead of vertical flips in the mean, {'more' if ahead > chance else 'no more'} than "
        f"chance; without augmentation {100 * found['none', 10].mean():.1f} % are right.",
        f"The largest gain is that of {best}, {few[best]:+.1f} points (±{half[best, 10]:.1f}); "
        f"horizontal flips give {few['horizontal flip']:+.1f} (±{half['horizontal flip', 10]:.1f}) "
        f"and vertical ones {few['vertical flip']:+.1f} (±{half['vertical flip', 10]:.1f}).",
        f"What helps beyond chance, with so many images a class: {', '.join(helps) or 'nothing'}; "
        f"what hurts: {', '.join(hurts) or 'nothing'}"
        + ("; the full form measures 50 and all images too." if bench.quick else "."),
    )
    rows = [
        {"augmentation": name, "images per class": each or "all", "accuracy": float(a.mean())}
        | {"gain, points": mean[name, each], "95 % interval, ±": half[name, each]}
        for (name, each), a in found.items()
    ]
    change = "Take --data fashion-mnist: do flips hurt there too?"
    return Findings(made, rows, seen, ahead > chance, change)
