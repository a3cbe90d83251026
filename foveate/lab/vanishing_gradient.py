"""Vanishing and exploding gradients: what a product of one factor a layer does.

The derivative of a deep chain's output with respect to an early activation is a product,

    d a_n / d a_0  =  product over layers i of  sigma'(z_i) w_i

Every factor below 1 makes it smaller, every factor above 1 larger, and there are as many factors as
layers. Here this product is computed for a chain of one neuron a layer, and compared with what
autograd gives; then the gradient at each layer of five real networks is measured on images.

Source: S. Hochreiter. "Untersuchungen zu dynamischen neuronalen Netzen", 1991; Glorot and Bengio.
    "Understanding the difficulty of training deep feedforward neural networks". AISTATS 2010.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.lab.bench import Bench, Findings
from foveate.lab.drawing import figure, line
from foveate.lab.images import Images

QUESTION = "Why did deep networks not learn, and what made them learn?"
MINUTES = (0.1, 0.3)
DEPTH, WIDTH, IMAGES = 30, 64, 256
KINDS = ("sigmoid", "tanh", "ReLU", "ReLU, batch-norm", "ReLU, residual")
INITS = {"small (0.5 Xavier)": 0.5, "Xavier": 1.0, "large (2 Xavier)": 2.0}  # standard deviations


class Layer(nn.Module):
    """A linear layer and what follows it."""

    def __init__(self, kind: str, scale: float):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        nn.init.xavier_normal_(self.linear.weight, gain=scale)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(WIDTH) if "norm" in kind else nn.Identity()
        first = kind.split(",")[0]
        self.activation = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "ReLU": nn.ReLU()}[first]
        self.residual = "residual" in kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.linear(x)))
        return x + y if self.residual else y


def gradients(kind: str, scale: float, images: Images) -> list[float]:
    """The norm of the loss's gradient at the output of each layer, from the first to the last."""
    first, head = nn.Linear(images.x[0].numel(), WIDTH), nn.Linear(WIDTH, len(images.classes))
    layers = [Layer(kind, scale) for _ in range(DEPTH)]
    maps = [torch.tanh(first(images.x[:IMAGES].flatten(1)))]
    for layer in layers:
        maps.append(layer(maps[-1]))
    loss = F.cross_entropy(head(maps[-1]), images.y[:IMAGES])
    return [float(g.norm()) for g in torch.autograd.grad(loss, maps[1:])]


def slide() -> list[tuple[float, float]]:
    """(sigma'(z) w, product so far) of each layer of a chain of single sigmoid neurons, w = 1; the
    last product is what autograd has too."""
    a = start = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    product, found = 1.0, []
    for w in torch.ones(DEPTH, dtype=torch.float64):
        z = w * a
        a = torch.sigmoid(z)
        factor = float((a * (1 - a) * w).detach())  # sigma'(z) = sigma(z) (1 - sigma(z))
        product *= factor
        found.append((factor, product))
    (gradient,) = torch.autograd.grad(a, start)
    assert abs(product / float(gradient) - 1) < 1e-9
    return found


def run(bench: Bench) -> Findings:
    images = bench.images(side=8)
    bench.steps(len(KINDS) * len(INITS) + 1, "networks")
    norms = {
        (kind, init): bench.measure(f"{kind} {init}", gradients, kind, scale, images)
        for kind in KINDS
        for init, scale in INITS.items()
    }
    product = bench.measure("slide", slide)

    made, axes = figure(len(INITS) + 1, width=3.4)
    x = range(1, DEPTH + 1)
    for panel, init in zip(axes[0], INITS, strict=False):
        for number, kind in enumerate(KINDS):
            line(panel, x, [max(g, 1e-45) for g in norms[kind, init]], number, kind)
        panel.set(yscale="log", xlabel="layer", title=init, ylim=(1e-22, 1e10))
    axes[0, 0].set_ylabel("norm of the gradient")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=len(KINDS))
    last = axes[0, -1]
    line(last, x, [p for _, p in product], 0, "product so far")
    line(last, x, [f for f, _ in product], 1, "factor of this layer")
    last.set(yscale="log", xlabel="layer", title="σ'(z) w, one neuron a layer")
    last.legend()

    ratio = {key: g[0] / max(g[-1], 1e-45) for key, g in norms.items()}  # first over last layer
    shown = ratio["sigmoid", "Xavier"] < 1e-6 and 0.01 < ratio["ReLU, residual", "Xavier"] < 1e6
    calm = [kind for kind in KINDS if all(1e-3 < ratio[kind, init] < 1e3 for init in INITS)]
    grown = max(ratio.values())
    seen = (
        f"In the sigmoid network the gradient at the first of {DEPTH} layers is "
        f"{ratio['sigmoid', 'Xavier']:.0e} of that at the last; each factor of the slide's product "
        f"is {product[-1][0]:.2f}, and {DEPTH} of them are {product[-1][1]:.0e}, which is what "
        "autograd has to nine digits.",
        f"ReLU keeps {ratio['ReLU', 'Xavier']:.0e} with Xavier's weights, "
        f"{ratio['ReLU', 'small (0.5 Xavier)']:.0e} with half of them and "
        f"{ratio['ReLU', 'large (2 Xavier)']:.0e} with twice: without a norm, the weights alone "
        f"decide whether the gradient vanishes or explodes; the largest growth is {grown:.0e}.",
        f"Between a thousandth and a thousand times at all three: {', '.join(calm) or 'none'}.",
    )
    rows = [
        {"network": kind, "weights": init, "first layer": g[0], "last layer": g[-1]}
        | {"first over last": ratio[kind, init]}
        for (kind, init), g in norms.items()
    ]
    return Findings(made, rows, seen, shown, "Set DEPTH to 100: which networks still learn?")
