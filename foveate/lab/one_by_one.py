"""1x1 convolution: a linear layer over the channels, at every pixel.

A 1x1 filter sees one pixel, but all of its channels: each new map is a weighted sum of the old
ones, and there may be fewer, as many or more of them. Two uses are measured here:

    bottleneck   reduce the channels, convolve, increase them again: far fewer multiplications
    mlpconv      a ReLU before each 1x1 convolution makes a small network of each filter (Network in
                 Network); without these ReLUs, the layers are one linear filter

Source: Lin et al. "Network In Network". ICLR 2014, arXiv:1312.4400; Szegedy et al. "Going Deeper
    with Convolutions". CVPR 2015, arXiv:1409.4842; He et al., arXiv:1512.03385, Figure 5.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import COLOURS, bars, divided, figure, image
from foveate.lab.images import Images
from foveate.lab.learning import accuracy, fit
from foveate.models.googlenet import PAPER, TABLE_1, ConvReLU, Inception
from foveate.models.resnet import Basic, Bottleneck
from foveate.models.summary import summarise

QUESTION = "What is a convolution good for that sees a single pixel?"
MINUTES = (0.5, 8)
WIDTH, KERNEL, DRAWN = 32, 5, 4  # of the trained networks; maps that are drawn
FORMS = {  # layers, with ReLUs
    f"{n} mlpconv, {'ReLUs' if r else 'linear'}": (n, r) for n in (1, 2) for r in (True, False)
}


def shapes() -> dict[int, str]:
    """What 192 channels of 28x28 pixels become; each equals a linear layer at every pixel."""
    x, found = torch.randn(2, 192, 28, 28), {}
    for width in (64, 192, 256):
        conv, linear = nn.Conv2d(192, width, 1), nn.Linear(192, width)
        linear.load_state_dict({"weight": conv.weight[:, :, 0, 0], "bias": conv.bias})
        y, by_pixel = conv(x), linear(x.permute(0, 2, 3, 1))  # linear layers want channels last
        assert torch.allclose(y, by_pixel.permute(0, 3, 1, 2), atol=1e-5)
        found[width] = "x".join(map(str, y.shape[1:]))
    return found


def costs() -> dict[str, tuple[int, int]]:
    """Parameters and multiply-accumulates of real blocks without a bottleneck and with one."""
    blocks: dict[str, tuple[nn.Module, tuple[int, int, int]]] = {
        "ResNet, 3x3, 3x3": (Basic(256, 256, stride=1), (256, 56, 56)),
        "ResNet-50, 1x1, 3x3, 1x1": (Bottleneck(256, 64, 1, stride_in_3x3=True), (256, 56, 56)),
        "Inception, 5x5": (ConvReLU(PAPER, 192, 32, 5), (192, 28, 28)),
        "Inception 3a, 1x1, 5x5": (Inception(192, TABLE_1["3a"]).branch3, (192, 28, 28)),
    }
    found = {name: summarise(block, size) for name, (block, size) in blocks.items()}
    return {name: (summary.parameters, summary.macs) for name, summary in found.items()}


def mlpconv(c_in: int, relu: bool) -> nn.Sequential:
    """A convolution and two 1x1 convolutions; without `relu` only the last has a ReLU after it."""
    between = nn.ReLU if relu else nn.Identity
    return nn.Sequential(
        *(nn.Conv2d(c_in, WIDTH, KERNEL, padding=KERNEL // 2), between()),
        *(nn.Conv2d(WIDTH, WIDTH, 1), between()),
        *(nn.Conv2d(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()),
    )


def collapsed(block: nn.Sequential) -> Tensor:
    """The one filter that the three convolutions of an mlpconv without ReLUs are together."""
    first, *mixing = [m.weight for m in block if isinstance(m, nn.Conv2d)]
    for weight in mixing:
        first = torch.einsum("oi,ichw->ochw", weight[:, :, 0, 0], first)
    return first


def learn(images: Images, layers: int, relu: bool, epochs: int, seed: int) -> dict[str, Any]:
    """Test accuracy; and how a map of the first mlpconv is mixed from one image."""
    torch.manual_seed(seed)
    first = mlpconv(images.channels, relu)
    more = [m for _ in range(layers - 1) for m in (nn.MaxPool2d(2), mlpconv(WIDTH, relu))]
    head = nn.Linear(WIDTH, len(images.classes))
    network = nn.Sequential(first, *more, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    fit(network, images, epochs)
    return {"test": accuracy(network, images.test_x, images.test_y)} | mixture(
        first, images.test_x[:1]
    )


@torch.no_grad()
def mixture(block: nn.Sequential, x: Tensor) -> dict[str, Any]:
    """The map of the first 1x1 convolution that varies most, and the maps that weigh most in it."""
    maps, mixed = block[:2](x)[0], block[:3](x)[0]  # (WIDTH, H, W)
    chosen = int(mixed.std(dim=(1, 2)).argmax())
    weights = next(block[2].parameters())[chosen, :, 0, 0]
    most = (weights * maps.std(dim=(1, 2))).abs().argsort(descending=True)[:DRAWN]
    found = {"weights": weights[most], "maps": maps[most], "mixed": mixed[chosen]}
    return {name: values.tolist() for name, values in found.items()}


def run(bench: Bench) -> Findings:
    side, most, epochs, runs = (16, 1500, 8, 3) if bench.quick else (28, 4000, 12, 5)
    images = bench.images("fashion-mnist", side, most)
    bench.steps(len(FORMS) * runs, "networks")
    found = {
        (label, i): bench.measure(f"{label} {i}", learn, images, *form, epochs, seed)
        for label, form in FORMS.items()
        for i, seed in enumerate(range(bench.seed * runs, bench.seed * runs + runs))
    }
    cost, made_of_192 = costs(), shapes()
    x, linear = images.test_x[:1], mlpconv(images.channels, relu=False)[:5]  # the convolutions
    one_filter = F.conv2d(x, collapsed(linear), linear(x * 0).mean(dim=(0, 2, 3)), padding="same")
    assert torch.allclose(linear(x), one_filter, atol=1e-4)

    made, axes = figure(DRAWN + 2, 2, width=1.75, height=2.2)
    one = found["1 mlpconv, ReLUs", 0]
    pixels = x[0] * images.spread[:, None, None] + images.mean[:, None, None]
    image(axes[0, 0], pixels.permute(1, 2, 0).clamp(0, 1), "image", cmap="gray")
    for panel, weight, values in zip(axes[0, 1:], one["weights"], one["maps"], strict=False):
        image(panel, values, f"{weight:+.2f} × this map")
    image(axes[0, -1], one["mixed"], f"sum of all {WIDTH} maps")
    left, middle, right = divided(made, axes, 1, 3)
    bars(left, list(cost), [parameters / 1e3 for parameters, _ in cost.values()], "{:,.0f}")
    bars(middle, [""] * len(cost), [macs / 1e6 for _, macs in cost.values()], "{:,.0f}")
    left.set(title="parameters (thousands)", xmargin=0.25)
    middle.set(title="MACs (millions)", xmargin=0.25)
    test = {label: [found[label, i]["test"] for i in range(runs)] for label in FORMS}
    for place, values in enumerate(test.values()):
        right.plot(values, [place] * runs, "o", color=COLOURS[place], alpha=0.7)
    right.set(yticks=range(len(FORMS)), yticklabels=FORMS, title=f"test accuracy, {runs} networks")
    right.invert_yaxis()

    one_relu, one_linear, two_relu, two_linear = (sum(values) / runs for values in test.values())
    plain, narrow, five, reduced = (macs for _, macs in cost.values())
    seen = (
        f"A 1x1 convolution equals a linear layer over the channels at each pixel (to 0.00001). Of "
        f"192x28x28 it makes {', '.join(made_of_192.values())}: fewer, as many or more channels.",
        f"A bottleneck of 1x1 convolutions costs ResNet-50's block {narrow / plain:.0%} of the "
        f"multiplications of two 3x3 convolutions on the same 256 channels, and the 5x5 branch of "
        f"Inception 3a {reduced / five:.0%} of those without the reduction.",
        f"ReLUs before the 1x1 convolutions add no parameter: test accuracy is {one_relu:.1%} with "
        f"them and {one_linear:.1%} without in a network of one mlpconv layer, {two_relu:.1%} and "
        f"{two_linear:.1%} in one of two.",
    )
    rows = [{"block": n, "parameters": p, "MACs": m} for n, (p, m) in cost.items()]
    rows += [{"block": f"1x1, 192 to {c}", "output": shape} for c, shape in made_of_192.items()]
    rows += [{"block": label, "test accuracy": sum(v) / runs} for label, v in test.items()]
    shown = one_relu > one_linear + 0.05
    return Findings(made, rows, seen, shown, "Set KERNEL to 1: what is left without neighbours?")
