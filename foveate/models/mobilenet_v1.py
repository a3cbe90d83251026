"""MobileNet: filter each channel by itself, then mix the channels, for an eighth of the work.

Paper   Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam. "MobileNets: Efficient
        Convolutional Neural Networks for Mobile Vision Applications". arXiv:1704.04861, 2017.
Idea    A 3x3 convolution filters and combines in one step. Split it (depthwise separable
        convolution): a 3x3 depthwise convolution, one filter a channel, then a 1x1 pointwise
        convolution. With M channels in and N out, a pixel costs 9M + MN multiply-adds instead of
        9MN, that is 1/N + 1/9 of them, for about one per cent of accuracy. A width multiplier alpha
        thins every layer alike: work and parameters fall as alpha^2.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of timm's published file (mobilenetv1_100), so that it loads as it
        is.

Differences from the paper, each asserted in tests/models/test_mobilenet_v1.py:
  D1  the activation is ReLU6, as in the authors' code and timm's file; the paper writes ReLU.
  D2  the last depthwise convolution has stride 1. Table 1 prints "s2", but also 7x7 in and 7x7 out.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

YEAR = 2017


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of the paper's Table 1, in pairs: a 3x3 depthwise and a 1x1 convolution."""

    width: int  # output channels
    pairs: int
    stride: int  # of the first depthwise convolution; the others have 1 (D2)


TABLE_1 = (
    Rows(width=64, pairs=1, stride=1),  # H/2
    Rows(width=128, pairs=2, stride=2),  # H/4
    Rows(width=256, pairs=2, stride=2),  # H/8
    Rows(width=512, pairs=6, stride=2),  # H/16
    Rows(width=1024, pairs=2, stride=2),  # H/32
)
STEM = 32  # channels of the first convolution, the only full one


class Separable(nn.Module):
    """3x3 depthwise, 1x1 pointwise, each with batch-norm and ReLU6 (the paper's Figure 3, right).

    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(c_in, c_in, 3, stride, padding=1, groups=c_in, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv_pw = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)  # D1
        return F.relu6(self.bn2(self.conv_pw(x)), inplace=True)  # D1


class MobileNetV1(nn.Module):
    """Table 1, `alpha` times as wide: stem, 13 separable convolutions, average, linear layer."""

    input_size = 224
    min_size = 1

    def __init__(self, alpha: float, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        c_in = int(STEM * alpha)
        # (N, 32a, H/2, W/2)
        self.conv_stem = nn.Conv2d(in_channels, c_in, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        blocks = []
        for rows in TABLE_1:
            c_out = int(rows.width * alpha)
            opening = Separable(c_in, c_out, rows.stride)
            blocks.append(
                nn.Sequential(opening, *[Separable(c_out, c_out, 1) for _ in range(rows.pairs - 1)])
            )
            c_in = c_out
        self.blocks = nn.Sequential(*blocks)  # (N, 1024a, H/32, W/32)
        self.classifier = nn.Linear(c_in, num_classes)
        self.apply(initialise)

    @property
    def head(self) -> nn.Linear:
        return self.classifier

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last map of each size: 1/2, 1/4, 1/8, 1/16 and 1/32 of the input."""
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)  # D1
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1024a), what the head reads: the mean of the last map's pixels."""
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        return self.blocks(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def initialise(m: nn.Module) -> None:
    """As timm's, since the paper names none.

    He's rule (arXiv:1502.01852) by fan-out for convolutions, uniform for the last layer.
    """
    if isinstance(m, nn.Conv2d):
        # torch's own would forget the groups
        fan_out = m.weight[0, 0].numel() * m.out_channels // m.groups
        nn.init.normal_(m.weight, 0, (2 / fan_out) ** 0.5)
    elif isinstance(m, nn.Linear):
        bound = m.out_features**-0.5
        nn.init.uniform_(m.weight, -bound, bound)
        nn.init.zeros_(m.bias)


def mobilenet_v1(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV1:
    """MobileNet, alpha 1: 4,231,976 parameters at 1000 classes.

    >>> import torch
    >>> mobilenet_v1(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return MobileNetV1(1.0, num_classes, in_channels)


def mobilenet_v1_x0_75(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV1:
    """MobileNet, alpha 0.75: 2,585,560 parameters at 1000 classes."""
    return MobileNetV1(0.75, num_classes, in_channels)


def mobilenet_v1_x0_5(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV1:
    """MobileNet, alpha 0.5: 1,331,592 parameters at 1000 classes."""
    return MobileNetV1(0.5, num_classes, in_channels)


def mobilenet_v1_x0_25(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV1:
    """MobileNet, alpha 0.25: 470,072 parameters at 1000 classes."""
    return MobileNetV1(0.25, num_classes, in_channels)
