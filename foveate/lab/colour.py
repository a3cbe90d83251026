"""Colour shifting and PCA colour: light changes the colours of an object, not its class.

All RGB values of the photos have three principal components p with variances l. To every pixel of
an image, AlexNet added, anew each time,

    [p1 p2 p3] [a1 l1, a2 l2, a3 l3]'      a1, a2, a3 ~ N(0, sigma), sigma = 0.1

Here the components are drawn as colours. Then a network learns under one light and is judged under
others: red times 1 + s, blue times 1 - s. Without colour photos of yours, scanned digits are put on
parts of the two photos that scikit-learn ships, with the photo's inverse as ink.

Source: Krizhevsky et al. "ImageNet Classification with Deep Convolutional Neural Networks". NIPS
    2012, 4.1. Digits on photos are from Ganin et al. (MNIST-M), JMLR 2016.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images
from torch import Tensor

from foveate import Augment, build
from foveate.data.augment.pca import PrincipalComponents, fit_pca
from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import figure, line, sheet
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit, variants

QUESTION = "What does colour augmentation do, and does it help under another light?"
MINUTES = (0.6, 15.0)
SIDE, PHOTO = 28, 96  # pixels, of what is learnt from and of the figure's photo
CASTS = (-0.6, -0.3, 0.0, 0.3, 0.6)
STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # along a component, in standard deviations of the colours


def scaled(photo: Tensor, side: int) -> Tensor:
    return F.interpolate(photo[None], (side, side), mode="area")[0]


def on_photos(images: Images, photos: list[Tensor], seed: int) -> Images:
    """Each image on a random square of a photo; its ink is the inverse of the photo."""
    rng = np.random.default_rng(seed)

    def painted(x: Tensor) -> Tensor:
        backs, ink = torch.empty(len(x), 3, SIDE, SIDE), images.unit(x)
        for back in backs:
            photo, side = photos[rng.integers(len(photos))], int(rng.integers(SIDE, 200))
            top, left = (int(rng.integers(length - side)) for length in photo.shape[1:])
            back[:] = scaled(photo[:, top : top + side, left : left + side], SIDE)
        return ink * (1 - backs) + (1 - ink) * backs

    x, test_x = painted(images.x), painted(images.test_x)
    made = replace(images, mean=x.mean(dim=(0, 2, 3)), spread=x.std(dim=(0, 2, 3)))
    return replace(made, x=made.standardised(x), test_x=made.standardised(test_x))


def as_bytes(photo: Tensor) -> NDArray[np.uint8]:
    return (photo * 255).round().byte().permute(1, 2, 0).numpy()


def cast(pixels: Tensor, s: float) -> Tensor:
    """Pixels in [0, 1] under another light: warm where s is above 0, cold below."""
    return (pixels * torch.tensor([1 + s, 1, 1 - s])[:, None, None]).clamp(0, 1)


def learn(images: Images, augment: Augment, name: str, epochs: int, seed: int) -> list[float]:
    """Accuracy under each of CASTS, of a network that learnt without any."""
    torch.manual_seed(seed)
    network = build(name, num_classes=len(images.classes), in_channels=3)
    fit(network, images, epochs, augment=variants(augment, images))
    seen = images.unit(images.test_x)
    return [accuracy(network, images.standardised(cast(seen, s)), images.test_y) for s in CASTS]


def along(photo: Tensor, pca: PrincipalComponents, i: int) -> Tensor:
    """The photo moved along component i by STEPS: (STEPS, 3, H, W)."""
    size = 1 / max(pca.eigenvalues[i], 1e-9) ** 0.5  # `shift` multiplies by the variance
    shifts = [pca.shift([s * size if j == i else 0 for j in range(3)]) for s in STEPS]
    return (photo + torch.tensor(shifts)[:, :, None, None]).clamp(0, 1)


def run(bench: Bench) -> Findings:
    images = bench.images(side=SIDE, most=1000 if bench.quick else 0)
    if images.channels == 1:
        photos = [torch.tensor(p).permute(2, 0, 1) / 255 for p in load_sample_images().images]
        images = on_photos(images, photos, bench.seed)
        bench.note("The images are digits on parts of two photos: give yours with --data PHOTOS")
        photo = scaled(photos[1][:, :400, 120:520], PHOTO)
    else:
        large = bench.images(side=PHOTO, most=100)
        photo, *_ = photos = list(large.unit(large.x))
    pca = fit_pca(as_bytes(p) for p in photos)
    weak, strong = (Augment(size=SIDE, pca_colour=s).with_components(pca) for s in (0.1, 1.0))
    kinds = {
        "none": Augment(size=SIDE),
        "brightness": Augment(size=SIDE, brightness=0.5),
        "hue": Augment(size=SIDE, hue=0.2),
        "PCA colour, σ = 0.1": weak,
        "PCA colour, σ = 1": strong,
    }
    network, epochs, runs = ("lenet5", 12, 3) if bench.quick else ("resnet20", 20, 4)
    bench.steps(len(kinds) * runs, "networks")
    found = {}  # (runs, casts) of each
    for name, kind in kinds.items():
        given = [(images, kind, network, epochs, 100 * bench.seed + r) for r in range(runs)]
        runs_of = [bench.measure(f"{name} {r}", learn, *g) for r, g in enumerate(given)]
        found[name] = 100 * np.array(runs_of)

    made, axes = figure(3, width=3.7, height=4.6)
    steps = [f"{s:g}" for s in STEPS]
    rows = {f"component {i + 1}": along(photo, pca, i) for i in range(3)}
    for name, kind in list(kinds.items())[1:]:
        draw = [kind.replace(size=PHOTO).at(bench.seed, 0, n) for n in range(len(STEPS))]
        rows[name] = torch.stack([change(as_bytes(photo)) / 255 for change in draw])
    pixels = torch.stack(list(rows.values())).permute(0, 1, 3, 4, 2)
    sheet(axes[0, 0], pixels, list(rows), steps)
    axes[0, 0].set_title("steps in standard deviations; draws")
    share = 100 * np.array(pca.eigenvalues) / max(sum(pca.eigenvalues), 1e-9)
    grey = torch.full((3, PHOTO, PHOTO), 0.5)
    pixels = torch.stack([along(grey, pca, i) for i in range(3)]).permute(0, 1, 3, 4, 2)
    sheet(axes[0, 1], pixels, [f"{s:.1f} %" for s in share], steps)
    axes[0, 1].set_title("components and their variance")
    for number, (name, values) in enumerate(found.items()):
        line(axes[0, 2], CASTS, values, number, name)
    axes[0, 2].set(xlabel="cast s: cold (−), warm (+)", title=f"accuracy, %: {runs} runs, range")
    made.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower right", ncols=5)

    far = {name: values[:, [0, -1]].mean(axis=1) for name, values in found.items()}
    mean = {name: f"{(values - far['none']).mean():+.1f}" for name, values in far.items()}
    wide, plain = far["PCA colour, σ = 1"] - far["none"], found["none"][:, 2]  # run by run
    moved = 25.5 * max(abs(row[0]) for row in pca.eigenvectors) * pca.eigenvalues[0]
    seen = (
        f"The first component holds {share[0]:.0f} % of the variance of the colours, the first two "
        f"{share[:2].sum():.0f} %; σ = 0.1 moves a channel along it by {moved:.0f} of 255 levels.",
        f"Without augmentation {plain.mean():.0f} % are right in the light that was learnt, and "
        f"{far['none'].mean():.0f} % under the strong casts (s = ±{CASTS[-1]:g}).",
        f"There, PCA colour changes that by {mean['PCA colour, σ = 0.1']} points with σ = 0.1 and "
        f"{mean['PCA colour, σ = 1']} with σ = 1 ({wide.min():+.1f} to {wide.max():+.1f} over "
        f"{runs} runs), brightness by {mean['brightness']}, hue by {mean['hue']}.",
    )
    shown = wide.mean() > 3 and wide.min() > 0 and far["none"].mean() < plain.min()
    table = [
        {"augmentation": name, "cast": s, "accuracy": float(values[:, i].mean()) / 100}
        for name, values in found.items()
        for i, s in enumerate(CASTS)
    ]
    return Findings(made, table, seen, bool(shown), "Set the strong σ to 0.3: is it enough?")
