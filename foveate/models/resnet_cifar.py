"""ResNet for CIFAR-10: the paper's experiment on depth, with shortcuts and without.

Paper   He, Zhang, Ren, Sun. "Deep Residual Learning for Image Recognition". CVPR 2016,
        arXiv:1512.03385, section 4.2.
Idea    Keep the network as plain as can be, so that only depth varies: 6n + 2 layers, n = 3, 5, 7,
        9, 18. A plain network of 56 layers ends with a higher training error than one of 20
        (degradation). With shortcuts it is the other way round, and they cost not one parameter:
        where sizes differ, the shortcut takes every second pixel and fills the new channels with
        zeros (the paper's option A).
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says; the paper's are
        32x32.
Output  logits (N, num_classes), before softmax.
Names   of parameters follow resnet.py. A plain network has those of the residual one of its depth:
        files of one load into the other.

Differences from the paper, each asserted in tests/models/test_resnet_cifar.py: none. Where the
paper is silent, half of the channels of zeros come before the old ones and half after, and the last
layer starts as torch's linear layers do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.resnet import conv, he_init

YEAR = 2015

WIDTHS = (16, 32, 64)  # channels of the three stages, on maps of 32, 16 and 8 pixels a side
# n: blocks in each of the three stages. Layers with weights: the stem, 3 * n * 2 convolutions and
# the last one.
DEPTHS = {
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
    "plain20": 3,
    "plain56": 9,
}


class OptionA(nn.Module):
    """A shortcut without parameters.    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)"""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.before = (c_out - c_in) // 2
        self.after = c_out - c_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class Residual(nn.Module):
    """relu(3x3, 3x3 + shortcut).    (N, c_in, H, W) -> (N, width, H/stride, W/stride)"""

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = conv(c_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and c_in == width
        self.shortcut = nn.Identity() if same else OptionA(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return torch.relu_(y)


class Plain(nn.Module):
    """relu(3x3, 3x3): the same two layers without the shortcut."""

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = conv(c_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(y)))


class CifarResNet(nn.Module):
    """Section 4.2: a 3x3 stem, three stages of n blocks, global average, one linear layer."""

    input_size = 32
    min_size = 1

    def __init__(
        self,
        n: int,
        block: type[Residual] | type[Plain],
        num_classes: int = 10,
        in_channels: int = 3,
    ):
        super().__init__()

        def stage(c_in: int, width: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                block(c_in, width, stride), *[block(width, width, 1) for _ in range(n - 1)]
            )

        self.conv1 = conv(in_channels, WIDTHS[0], 3)  # (N, 16, H, W)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = stage(WIDTHS[0], WIDTHS[0], stride=1)  # (N, 16, H,   W)
        self.layer2 = stage(WIDTHS[0], WIDTHS[1], stride=2)  # (N, 32, H/2, W/2)
        self.layer3 = stage(WIDTHS[1], WIDTHS[2], stride=2)  # (N, 64, H/4, W/4)
        self.fc = nn.Linear(WIDTHS[2], num_classes)
        self.apply(he_init)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the map at the end of each stage: 1/1, 1/2 and 1/4 of the input."""
        x = torch.relu_(self.bn1(self.conv1(x)))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 64), what the head reads: the last map, averaged over its pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20: 269,722 parameters at 10 classes.

    >>> resnet20()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return CifarResNet(DEPTHS["resnet20"], Residual, num_classes, in_channels)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-32: 464,154 parameters at 10 classes."""
    return CifarResNet(DEPTHS["resnet32"], Residual, num_classes, in_channels)


def resnet44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-44: 658,586 parameters at 10 classes."""
    return CifarResNet(DEPTHS["resnet44"], Residual, num_classes, in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56: 853,018 parameters at 10 classes."""
    return CifarResNet(DEPTHS["resnet56"], Residual, num_classes, in_channels)


def resnet110(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-110: 1,727,962 parameters at 10 classes."""
    return CifarResNet(DEPTHS["resnet110"], Residual, num_classes, in_channels)


def plain20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20 without its shortcuts: 269,722 parameters at 10 classes."""
    return CifarResNet(DEPTHS["plain20"], Plain, num_classes, in_channels)


def plain56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56 without its shortcuts: 853,018 parameters at 10 classes."""
    return CifarResNet(DEPTHS["plain56"], Plain, num_classes, in_channels)
