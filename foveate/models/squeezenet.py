"""SqueezeNet: AlexNet's accuracy with fifty times fewer parameters, by squeezing the channels.

Paper   Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer. "SqueezeNet: AlexNet-level accuracy with
        50x fewer parameters and <0.5MB model size". 2016, arXiv:1602.07360.
Idea    Three strategies. Replace 3x3 filters by 1x1 filters, which have nine times fewer
        parameters. Give the 3x3 filters that remain fewer input channels: a "squeeze" layer of 1x1
        filters comes before them. Downsample late, so that most layers see large maps. The first
        two make the Fire module: squeeze, then expand with 1x1 and 3x3 filters side by side. No
        linear layers: the last convolution makes one map per class, which is averaged.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax; never negative, see D2.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_squeezenet.py:
  D1  224 pixels make maps of 109, 54, 27 and 13; Table 1 has 111, 55, 27 and 13, which 227 pixels
      make.
  D2  a ReLU follows the last convolution too, as in the authors' published network.
  D3  `squeezenet1_1` is the authors' later network, not in the paper: its first convolution has 64
      3x3 filters in the place of 96 7x7 ones, and it pools earlier. It needs 2.3 times less work.
  D4  initialised as torchvision does: He's rule, uniform (arXiv:1502.01852), the last convolution
      N(0, 0.01^2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.models.size import at_least

YEAR = 2016


@dataclass(frozen=True)
class Row:
    """One Fire module, by the columns of the paper's Table 1."""

    squeeze: int  # s1x1: filters of the squeeze layer
    expand1x1: int  # e1x1
    expand3x3: int  # e3x3
    pool: bool = False  # 3x3 windows at stride 2 behind it


@dataclass(frozen=True)
class Column:
    """One published network."""

    width: int  # filters of the first convolution, at stride 2
    kernel: int
    fires: tuple[Row, ...]  # fire2 to fire9
    min_size: int  # a smaller image leaves a pooling nothing to read


TABLE_1 = {
    "squeezenet1_0": Column(
        width=96,
        kernel=7,
        fires=(  # conv1 is pooled to 55x55
            Row(16, 64, 64),
            Row(16, 64, 64),
            Row(32, 128, 128, pool=True),  # 27x27
            Row(32, 128, 128),
            Row(48, 192, 192),
            Row(48, 192, 192),
            Row(64, 256, 256, pool=True),  # 13x13
            Row(64, 256, 256),
        ),
        min_size=21,
    ),
    "squeezenet1_1": Column(  # D3
        width=64,
        kernel=3,
        fires=(
            Row(16, 64, 64),
            Row(16, 64, 64, pool=True),
            Row(32, 128, 128),
            Row(32, 128, 128, pool=True),
            Row(48, 192, 192),
            Row(48, 192, 192),
            Row(64, 256, 256),
            Row(64, 256, 256),
        ),
        min_size=17,
    ),
}


class Fire(nn.Module):
    """Squeeze, then expand with two kinds of filters.

    (N, c_in, H, W) -> (N, expand1x1 + expand3x3, H, W)
    """

    def __init__(self, c_in: int, row: Row):
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, row.squeeze, 1)
        self.expand1x1 = nn.Conv2d(row.squeeze, row.expand1x1, 1)
        self.expand3x3 = nn.Conv2d(row.squeeze, row.expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.squeeze(x))
        return torch.cat([torch.relu_(self.expand1x1(x)), torch.relu_(self.expand3x3(x))], dim=1)


class SqueezeNet(nn.Module):
    """Table 1: a convolution, eight Fire modules, a map for each class, their average.

    The head is a convolution. `embed` gives the map that it reads, averaged over its pixels; the
    logits are not the head of that, but the average over pixels of relu(head of the map).
    """

    input_size = 224

    def __init__(self, column: Column, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.min_size = column.min_size
        parts: list[nn.Module] = [
            nn.Conv2d(in_channels, column.width, column.kernel, stride=2),
            nn.ReLU(inplace=True),
        ]
        parts.append(pool())
        c_in = column.width
        for row in column.fires:
            parts.append(Fire(c_in, row))
            if row.pool:
                parts.append(pool())
            c_in = row.expand1x1 + row.expand3x3
        self.features = nn.Sequential(*parts)
        head = nn.Conv2d(c_in, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.5), head, nn.ReLU(inplace=True))  # D2
        self.apply(he_init)
        nn.init.normal_(head.weight, std=0.01)

    @property
    def head(self) -> nn.Module:
        return self.classifier[1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last map of each size, before pooling: about 1/2, 1/4, 1/8, 1/16."""
        at_least(self, x)
        maps = []
        for part in self.features:
            if isinstance(part, nn.MaxPool2d):
                maps.append(x)
            x = part(x)
        return [*maps, x]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 512): the mean of what the head reads."""
        at_least(self, x)
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        at_least(self, x)
        return self.classifier(self.features(x)).mean(dim=(2, 3))


def pool() -> nn.MaxPool2d:
    """Overlapping windows, which may reach over the border."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def he_init(m: nn.Module) -> None:  # D4
    """Uniform, with the variance that keeps activations their size through a ReLU; biases zero."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_uniform_(m.weight, nonlinearity="relu")
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def squeezenet1_0(num_classes: int = 1000, in_channels: int = 3) -> SqueezeNet:
    """SqueezeNet 1.0, the paper's: 1,248,424 parameters at 1000 classes.

    >>> squeezenet1_0(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return SqueezeNet(TABLE_1["squeezenet1_0"], num_classes, in_channels)


def squeezenet1_1(num_classes: int = 1000, in_channels: int = 3) -> SqueezeNet:
    """SqueezeNet 1.1: 1,235,496 parameters at 1000 classes."""
    return SqueezeNet(TABLE_1["squeezenet1_1"], num_classes, in_channels)
