"""LeNet-5: the slide's code, its feature maps, and today's form beside that of 1998.

The slide's network is one `nn.Sequential`: two convolutions, each with ReLU and a 2x2 average, then
three linear layers. Foveate's `lenet5` computes the same, as is seen when its weights are copied
over. The network of 1998 has tanh after every layer, subsampling that learns, 16 maps of which most
read only some of the six before them, and the answer is the class whose code is nearest to the 84
units of F6: for a digit, its shape in 7x12 pixels. Both are compared with a linear classifier, also
on shifted test images. Each has a learning rate at which it trains well.

Source: LeCun, Bottou, Bengio, Haffner. "Gradient-Based Learning Applied to Document Recognition".
    Proceedings of the IEEE 86(11), 1998.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import figure, image, line
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit, watched
from foveate.models import LeNet5, LeNet1998, lenet5, lenet5_1998

QUESTION = "What is in LeNet-5, and what does it gain over a linear classifier?"
MINUTES = (0.4, 6.0)
LINEAR, TODAY, OLD = "linear classifier", "today's LeNet-5", "LeNet-5 of 1998"
RATES = {LINEAR: 0.02, TODAY: 0.1, OLD: 0.005}  # of learning
LAYERS = ("C1", "S2", "C3", "S4")
SHIFTS = range(5)  # pixels
RUNS = 2  # each draws its own weights


def slide(channels: int, classes: int) -> nn.Sequential:
    """The lecture's code."""
    first = nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2)  # (N, 6, 14, 14)
    second = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2)  # (N, 16, 5, 5)
    linear = nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)
    return nn.Sequential(*first, *second, nn.Flatten(), *linear)


def difference(images: Images) -> float:
    """The largest between a logit of the slide's code and of `lenet5`, with the same weights."""
    ours = lenet5(len(images.classes), images.channels)
    code = slide(images.channels, len(images.classes))
    code.load_state_dict(dict(zip(code.state_dict(), ours.state_dict().values(), strict=True)))
    with torch.no_grad():
        return float((code(images.test_x) - ours(images.test_x)).abs().max())


def at_levels(images: Images) -> Images:
    """The same images at the paper's levels: -0.1 for the background, 1.175 for ink."""
    mean, spread = images.mean[:, None, None], images.spread[:, None, None]
    x, test_x = ((part * spread + mean) * 1.275 - 0.1 for part in (images.x, images.test_x))
    return replace(images, x=x, test_x=test_x)


def network_of(name: str, images: Images) -> nn.Module:
    if name == LINEAR:
        return nn.Sequential(nn.Flatten(), nn.Linear(images.x[0].numel(), len(images.classes)))
    return (lenet5 if name == TODAY else lenet5_1998)(len(images.classes), images.channels)


def error_when_shifted(network: nn.Module, images: Images, by: int) -> float:
    """The test error, in the mean of a shift up, down, left and right by so many pixels."""
    side, room = images.test_x.shape[-1], F.pad(images.test_x, (by,) * 4, mode="replicate")
    corners = [(0, by), (2 * by, by), (by, 0), (by, 2 * by)]
    shifted = [room[:, :, i : i + side, j : j + side] for i, j in corners]
    return 1 - sum(accuracy(network, x, images.test_y) for x in shifted) / len(shifted)


def trained(name: str, images: Images, epochs: int, draw: int) -> dict[str, Any]:
    """The error of a network, and what its layers show of the first test image."""
    torch.manual_seed(draw)
    network = network_of(name, images)
    history = fit(network, images, epochs, RATES[name])
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "training": [100 * (1 - epoch.accuracy) for epoch in history],
        "test": [100 * error_when_shifted(network, images, by) for by in SHIFTS],
    }
    with torch.no_grad():
        if isinstance(network, LeNet5):
            with watched([network.get_submodule(name.lower()) for name in LAYERS]) as maps:
                network(images.test_x[:1])
            found["maps"] = [m[0].relu().tolist() for m in maps]
        if isinstance(network, LeNet1998):
            f6, codes = network.embed(images.test_x[:1]), network.output.codes
            found["F6"] = [f6[0].tolist(), codes[images.test_y[0]].tolist()]
    return found


def tiled(maps: Any, columns: int) -> NDArray[np.float64]:
    """(K, H, W) side by side in one image, with gaps between them."""
    bordered = np.pad(np.array(maps), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    return np.vstack([np.hstack(list(row)) for row in np.split(bordered, len(maps) // columns)])


def run(bench: Bench) -> Findings:
    images = at_levels(bench.images("digits" if bench.quick else "fashion-mnist"))
    epochs = 20 if bench.quick else 8
    draws = [bench.seed + 100 * i for i in range(RUNS)]
    bench.steps(len(draws) * len(RATES) + 1, "networks")
    apart = bench.measure("the slide's code", difference, images)
    found = {
        name: [bench.measure(f"{name} {d}", trained, name, images, epochs, d) for d in draws]
        for name in RATES
    }
    parameters = {name: found[name][0]["parameters"] for name in RATES}
    error = {name: np.mean([one["test"] for one in found[name]], axis=0) for name in RATES}

    made, axes = figure(4, 2, width=2.5, height=2.5)
    pixels = ((images.test_x[0] + 0.1) / 1.275).clamp(0, 1).permute(1, 2, 0).squeeze(2)
    image(axes[0, 0], pixels, f"a test image: {images.classes[int(images.test_y[0])]}")
    for panel, layer, maps in zip(axes.flat[1:], LAYERS, found[TODAY][0]["maps"], strict=False):
        title = f"{layer}: {len(maps)} maps of {len(maps[0])}x{len(maps[0])}"
        image(panel, tiled(maps, 2 if len(maps) == 6 else 4), title)
    drawn = tiled(np.array(found[OLD][0]["F6"]).reshape(2, 12, 7), 2)
    image(axes[1, 1], drawn, "F6 in 1998, and its class's code", cmap="cividis")
    for number, (name, runs) in enumerate(found.items()):
        line(axes[1, 2], range(1, epochs + 1), [one["training"] for one in runs], number, name)
        line(axes[1, 3], SHIFTS, [one["test"] for one in runs], number, name)
    axes[1, 2].set(xlabel="epoch", title="training error, %", ylim=(0, None))
    axes[1, 2].legend()
    axes[1, 3].set(xlabel="shift, pixels", title="test error, %", ylim=(0, None))

    straight, moved = ({name: float(e[i]) for name, e in error.items()} for i in (0, 2))
    shown = apart <= 1e-6 and moved[TODAY] < moved[LINEAR]
    seen = (
        f"The slide's code and foveate's lenet5, with the same {parameters[TODAY]:,} parameters: "
        f"the logits of {len(images.test_y):,} images differ by {apart:.1g} at most.",
        f"Test error on {images.name}: {straight[LINEAR]:.1f} % for the linear classifier, "
        f"{straight[TODAY]:.1f} % for today's LeNet-5, {straight[OLD]:.1f} % for that of 1998 with "
        f"its {parameters[OLD]:,} parameters.",
        f"With test images shifted by two pixels: {moved[LINEAR]:.1f} %, {moved[TODAY]:.1f} % and "
        f"{moved[OLD]:.1f} %; the smallest is that of {min(moved, key=lambda n: moved[n])}.",
    )
    rows = [
        {"network": name, "learning rate": RATES[name], "parameters": parameters[name], "run": i}
        | {"training error, %": one["training"][-1], "test error, %": one["test"][0]}
        | {"shifted by two": one["test"][2]}
        for name, runs in found.items()
        for i, one in enumerate(runs)
    ]
    change = "Use nn.MaxPool2d in `slide` and train it too: is it better than the average?"
    return Findings(made, rows, seen, shown, change)
