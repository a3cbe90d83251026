"""LeNet-5: convolution, subsampling and gradient learning read handwritten digits from the pixels.

Paper   LeCun, Bottou, Bengio, Haffner. "Gradient-Based Learning Applied to Document Recognition".
        Proceedings of the IEEE 86(11), 1998.
Idea    Three things make a net insensitive to where and how a digit is written: local receptive
        fields (a unit sees a small patch), shared weights (a feature is looked for everywhere with
        one kernel: a feature map), and subsampling (what was found matters, exactly where matters
        less). All of it is learned by back-propagation, no feature is made by hand.
Input   images (N, C, 28, 28), float, normalised as the weights' Preprocess says; the network puts
        them in the middle of the paper's 32x32 field. `lenet5_1998` expects the paper's levels:
        background -0.1, ink 1.175.
Output  logits (N, num_classes), before softmax.
Names   of parameters are the paper's names of the layers, in small letters: C1, S2, C3, S4, C5, F6,
        output.

Differences from the paper, each asserted in tests/models/test_lenet.py:
`lenet5` is the network as it is taught today, drawn at first as torch draws it:
  D1  ReLU after C1, C3, C5 and F6, for the scaled tanh after every layer.
  D2  S2 and S4 are plain averages, with nothing to learn and no squashing.
  D3  every map of C3 reads every map of S2.
  D4  the output layer is linear.
`lenet5_1998` is the paper's, except:
  D5  logits are minus the distances to the codes, so that the largest is the answer; their
      cross-entropy is the paper's criterion (its equation 9) without the constant of the "rubbish"
      class.
  D6  the codes are digits of our own drawing in the paper's grid of 7x12, not those of its Figure
      3; the paper has ten classes, for other numbers the code of class i is the first 84 bits of
      the SHA-256 of i's decimal digits.
Both:
  D7  C5 is a linear layer: at this size it is the paper's 5x5 convolution of 5x5 maps.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.size import exactly

YEAR = 1998

# which maps of S2 (rows) each map of C3 (columns) reads: no two read the same, so they must differ
TABLE_1 = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)

DIGITS = """
..###.. ...#... ..###.. .#####. ....##. ####### ..####. ####### ..###.. ..###..
.#...#. ..##... .#...#. #.....# ...#.#. #...... .#..... ......# .#...#. .#...#.
#.....# .#.#... #.....# ......# ...#.#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# .....#. ..#..#. #.####. #.###.. ....#.. .#...#. #.....#
#.....# ...#... .....#. ..###.. .#...#. ##....# ##...#. ....#.. ..###.. .#...##
#.....# ...#... ....#.. .....#. .#...#. ......# #.....# ...#... .#...#. ..###.#
#.....# ...#... ...#... ......# #....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# ####### ......# #.....# ..#.... #.....# ......#
#.....# ...#... .#..... ......# .....#. #.....# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... #.....# .....#. .#...#. .#...#. .#..... .#...#. ....#..
..###.. .#####. ####### .#####. .....#. ..###.. ..###.. .#..... ..###.. .##....
"""
GRID = 7 * 12  # pixels of a digit, units of F6

# Amplitude and slope of the squashing function: f(1) = 1, f(-1) = -1, steepest curve there.
A, S = 1.7159, 2 / 3
BACKGROUND = -0.1  # level of white paper


def squash(a: Tensor) -> Tensor:
    """The paper's equation 6."""
    return A * torch.tanh(S * a)


def class_codes(num_classes: int) -> list[list[float]]:
    """What F6 should show for each class: 84 numbers, each -1 or +1."""
    if num_classes == 10:
        rows = [line.split() for line in DIGITS.split("\n") if line]
        return [
            [1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[digit]]
            for digit in range(10)
        ]
    codes = []
    for i in range(num_classes):  # D6
        bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(str(i).encode()).digest())
        codes.append([1.0 if bit == "1" else -1.0 for bit in bits[:GRID]])
    return codes


def initialise(layer: nn.Module, fan_in: int) -> None:
    """The paper's Appendix A: uniform, narrower the more inputs a unit has."""
    for p in layer.parameters():
        nn.init.uniform_(p, -2.4 / fan_in, 2.4 / fan_in)


class Subsampling(nn.Module):
    """The sum of each 2x2 times the map's coefficient, plus its bias.

    (N, maps, H, W) -> (N, maps, H/2, W/2)
    """

    def __init__(self, maps: int):
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))
        initialise(self, fan_in=4)

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * F.avg_pool2d(x, 2)
        return total * self.coefficient[:, None, None] + self.bias[:, None, None]


class SparseConvolution(nn.Module):
    """C3: 5x5 kernels only where Table 1 has an X.    (N, 6, H, W) -> (N, 16, H-4, W-4)"""

    kernel_of: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = [[i for i, row in enumerate(TABLE_1) if row[j] == "X"] for j in range(16)]
        pairs = [(j, i) for j in range(16) for i in inputs[j]]  # 60 kernels
        bound = torch.tensor([2.4 / (25 * len(maps)) for maps in inputs])
        self.weight = nn.Parameter(
            torch.empty(60, 5, 5).uniform_(-1, 1) * bound[[j for j, _ in pairs], None, None]
        )
        self.bias = nn.Parameter(torch.empty(16).uniform_(-1, 1) * bound)
        table = [
            [pairs.index((j, i)) if i in inputs[j] else 60 for i in range(6)] for j in range(16)
        ]
        self.register_buffer("kernel_of", torch.tensor(table))

    def forward(self, x: Tensor) -> Tensor:
        # number 60 is zero, for the pairs that are not connected
        kernels = F.pad(self.weight, (0, 0, 0, 0, 0, 1))
        return F.conv2d(x, kernels[self.kernel_of], self.bias)


class RBF(nn.Module):
    """How near F6 is to each class's code: minus the squared distance.

    (N, 84) -> (N, num_classes)

    The codes are fixed: it is F6 that learns to draw them. Similar characters have similar codes,
    so that a reader of words can tell a likely confusion from an unlikely one.
    """

    codes: Tensor
    in_features = GRID

    def __init__(self, out_features: int):
        super().__init__()
        self.out_features = out_features
        self.register_buffer("codes", torch.tensor(class_codes(out_features)))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(dim=2)  # D5

    def with_outputs(self, outputs: int) -> "RBF":
        """The layer for another number of classes, on this one's device and of its type."""
        return RBF(outputs).to(self.codes)


class LeNet5(nn.Module):
    """Figure 2, as taught today: two convolutions with their averages, three linear layers."""

    input_size = min_size = 28

    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=2)  # (N, 6, 28, 28)
        self.s2 = nn.AvgPool2d(2)  # (N, 6, 14, 14)  D2
        self.c3 = nn.Conv2d(6, 16, 5)  # (N, 16, 10, 10)  D3
        self.s4 = nn.AvgPool2d(2)  # (N, 16, 5, 5)
        self.c5 = nn.Linear(16 * 5 * 5, 120)  # D7
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)  # D4

    @property
    def head(self) -> nn.Module:
        return self.output

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, 28, 28) -> S2 (N, 6, 14, 14) and S4 (N, 16, 5, 5)."""
        exactly(self, x)
        s2 = self.s2(torch.relu(self.c1(x)))  # D1
        s4 = self.s4(torch.relu(self.c3(s2)))
        return [s2, s4]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, 28, 28) -> (N, 84), what the head reads: F6."""
        x = torch.relu(self.c5(self.stages(x)[-1].flatten(1)))
        return torch.relu(self.f6(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.embed(x))


class LeNet1998(nn.Module):
    """Figure 2: convolutions with learned subsampling, squashing everywhere, distances to codes."""

    input_size = min_size = 28

    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5)  # (N, 6, 28, 28)
        self.s2 = Subsampling(6)  # (N, 6, 14, 14)
        self.c3 = SparseConvolution()  # (N, 16, 10, 10)
        self.s4 = Subsampling(16)  # (N, 16, 5, 5)
        self.c5 = nn.Linear(16 * 5 * 5, 120)  # D7
        self.f6 = nn.Linear(120, GRID)
        self.output = RBF(num_classes)
        initialise(self.c1, fan_in=25 * in_channels)
        initialise(self.c5, fan_in=400)
        initialise(self.f6, fan_in=120)

    @property
    def head(self) -> nn.Module:
        return self.output

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, 28, 28) -> S2 (N, 6, 14, 14) and S4 (N, 16, 5, 5)."""
        exactly(self, x)
        x = F.pad(x, (2, 2, 2, 2), value=BACKGROUND)  # (N, C, 32, 32)
        s2 = squash(self.s2(squash(self.c1(x))))
        s4 = squash(self.s4(squash(self.c3(s2))))
        return [s2, s4]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, 28, 28) -> (N, 84), what the head reads: F6."""
        x = squash(self.c5(self.stages(x)[-1].flatten(1)))
        return squash(self.f6(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.embed(x))


def lenet5(num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 as taught today: 61,706 parameters at 10 classes.

    >>> lenet5()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    return LeNet5(num_classes, in_channels)


def lenet5_1998(num_classes: int = 10, in_channels: int = 1) -> LeNet1998:
    """LeNet-5 of the paper: 60,000 parameters at 10 classes.

    The 840 numbers of the codes are fixed and not counted.
    """
    return LeNet1998(num_classes, in_channels)
