"""AlexNet: large convolutional networks, trained on two GPUs, win ImageNet by a wide margin.

Paper   Krizhevsky, Sutskever, Hinton. "ImageNet Classification with Deep Convolutional Neural
        Networks". NIPS 2012. One tower: Krizhevsky. "One weird trick for parallelizing
        convolutional neural networks", arXiv:1404.5997.
Idea    Depth and size pay, if they can be trained: ReLUs, which do not saturate, learn several
        times faster than tanh units; the maps are spread over two GPUs that exchange theirs in
        certain layers only; maps compete at each position (local response normalisation); pooling
        windows overlap; and dropout keeps sixty million parameters from learning the training
        images by heart. Several such networks averaged won ILSVRC-2012 with a top-5 error of
        15.3 %; the next best entry had 26.2 %.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision file, so that it loads as it is; in
        `alexnet_2012` and `alexnet_one_tower`, features.0 to features.4 are the paper's five
        convolutional layers.

Differences from the paper, each asserted in tests/models/test_alexnet.py:
`alexnet_2012` is the paper's, except:
  D1  it reads 227 pixels; the paper says 224, from which its 55x55 maps come only by rounding up.
  D2  the two GPUs' halves lie in one tensor, and the convolutions between them have two groups;
      normalisation runs over all maps of a layer, as the paper's formula says, so also across the
      border of the halves.
  D3  dropout doubles what it keeps in training, where the paper halves every unit in evaluation:
      the same on average.
`alexnet_one_tower` is the network of many lectures, with D3 and:
  D4  one tower: every map reads all maps before it; no normalisation; 224 pixels, padded by two.
`alexnet` is torchvision's, with D3 and:
  D5  the single tower of "One weird trick": 64, 192, 384, 256 and 256 maps, no normalisation, 224
      pixels padded by two.
  D6  dropout comes before the two hidden linear layers, not after them.
  D7  the last maps are averaged to 6x6, so that images may have any size from 63 pixels on.
  D8  it is initialised as torch does, not as the paper says.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.size import at_least, exactly

YEAR = 2012


@dataclass(frozen=True)
class Row:
    """One convolutional layer, always with a ReLU (section 3.5)."""

    width: int  # maps, of both GPUs together
    kernel: int
    stride: int
    padding: int
    groups: int = 1  # 2: each GPU reads its own maps only
    normalise: bool = False
    pool: bool = False  # 3x3 windows at stride 2, which overlap


PAPER = (  # 227x227
    # D1: 55x55, pooled to 27x27
    Row(96, kernel=11, stride=4, padding=0, normalise=True, pool=True),
    # 27x27, pooled to 13x13
    Row(256, kernel=5, stride=1, padding=2, groups=2, normalise=True, pool=True),
    # 13x13; here the GPUs meet
    Row(384, kernel=3, stride=1, padding=1),
    # 13x13
    Row(384, kernel=3, stride=1, padding=1, groups=2),
    # 13x13, pooled to 6x6
    Row(256, kernel=3, stride=1, padding=1, groups=2, pool=True),
)
ONE_TOWER = (  # D4: 224x224, then as above
    Row(96, kernel=11, stride=4, padding=2, pool=True),
    Row(256, kernel=5, stride=1, padding=2, pool=True),
    Row(384, kernel=3, stride=1, padding=1),
    Row(384, kernel=3, stride=1, padding=1),
    Row(256, kernel=3, stride=1, padding=1, pool=True),
)
ONE_WEIRD_TRICK = (  # D5: 224x224, then as above
    Row(64, kernel=11, stride=4, padding=2, pool=True),
    Row(192, kernel=5, stride=1, padding=2, pool=True),
    Row(384, kernel=3, stride=1, padding=1),
    Row(256, kernel=3, stride=1, padding=1),
    Row(256, kernel=3, stride=1, padding=1, pool=True),
)

# Where the biases of the five convolutions, the two hidden linear layers and the last one begin
# (section 5): ones give ReLUs positive inputs, and so gradients, from the first step on.
BIASES = (0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0)


class ResponseNormalisation(nn.Module):
    """Section 3.3: each unit divided by (k + alpha * sum of a^2)^beta, over n neighbouring maps at
    its pixel.

    The paper's alpha weighs the sum of the squares; that of `nn.LocalResponseNorm` weighs their
    mean.
    """

    k, n, alpha, beta = 2, 5, 1e-4, 0.75

    def forward(self, a: Tensor) -> Tensor:
        windows = (self.n, 1, 1)  # maps, rows, columns; D2: past the border of the halves
        total = self.n * F.avg_pool3d(
            a.square().unsqueeze(1), windows, stride=1, padding=(self.n // 2, 0, 0)
        )
        return a / (self.k + self.alpha * total.squeeze(1)) ** self.beta


def layers(row: Row, c_in: int) -> list[nn.Module]:
    """A convolution and what follows it."""
    parts: list[nn.Module] = [
        nn.Conv2d(c_in, row.width, row.kernel, row.stride, row.padding, groups=row.groups)
    ]
    parts.append(nn.ReLU(inplace=True))
    if row.normalise:
        parts.append(ResponseNormalisation())
    if row.pool:
        parts.append(nn.MaxPool2d(3, stride=2))
    return parts


class AlexNetFixed(nn.Module):
    """Figure 2: five convolutional layers and three linear ones."""

    def __init__(
        self, rows: tuple[Row, ...], side: int, num_classes: int = 1000, in_channels: int = 3
    ):
        super().__init__()
        self.input_size = self.min_size = side
        widths = [in_channels, *(row.width for row in rows)]
        self.features = nn.Sequential(
            *(nn.Sequential(*layers(row, c_in)) for row, c_in in zip(rows, widths, strict=False))
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),  # D3
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        weighted = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for m, bias in zip(weighted, BIASES, strict=True):
            nn.init.normal_(m.weight, std=0.01)
            if m.bias is not None:
                nn.init.constant_(m.bias, bias)

    @property
    def head(self) -> nn.Module:
        return self.classifier[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, side, side) -> the maps of the five convolutional layers, pooled where they are.

        27x27, 13x13, 13x13, 13x13 and 6x6.
        """
        exactly(self, x)
        maps = []
        for stage in self.features:
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, side, side) -> (N, 4096), what the head reads: the second hidden linear layer."""
        return self.classifier[:-1](self.stages(x)[-1].flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


class AlexNet(nn.Module):
    """Torchvision's: one tower, its last maps averaged to 6x6, three linear layers."""

    input_size = 224
    min_size = 63

    def __init__(self, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        parts: list[nn.Module] = []
        self.ends = []  # where each row's layers end
        c_in = in_channels
        for row in ONE_WEIRD_TRICK:
            parts += layers(row, c_in)
            self.ends.append(len(parts) - 1)
            c_in = row.width
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))  # D7
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),  # D6
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )  # D8

    @property
    def head(self) -> nn.Module:
        return self.classifier[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of the five convolutional layers, pooled where they are.

        From 224 pixels 27x27, 13x13, 13x13, 13x13 and 6x6.
        """
        at_least(self, x)
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.ends:
                maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4096), what the head reads: the second hidden linear layer."""
        return self.classifier[:-1](self.avgpool(self.stages(x)[-1]).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def alexnet(num_classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """AlexNet as torchvision publishes it: 61,100,840 parameters at 1000 classes.

    >>> import torch
    >>> alexnet(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return AlexNet(num_classes, in_channels)


def alexnet_2012(num_classes: int = 1000, in_channels: int = 3) -> AlexNetFixed:
    """AlexNet of the paper: 60,965,224 parameters at 1000 classes."""
    return AlexNetFixed(PAPER, 227, num_classes, in_channels)


def alexnet_one_tower(num_classes: int = 1000, in_channels: int = 3) -> AlexNetFixed:
    """AlexNet without the division between GPUs: 62,378,344 parameters at 1000 classes."""
    return AlexNetFixed(ONE_TOWER, 224, num_classes, in_channels)
