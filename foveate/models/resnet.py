"""ResNet: residual blocks let a plain stack of convolutions grow past a hundred layers.

Paper   He, Zhang, Ren, Sun. "Deep Residual Learning for Image Recognition". CVPR 2016,
        arXiv:1512.03385.
Idea    A plain stack of layers gets worse, on its own training set, when it is made too deep
        (degradation), though the added layers had only to do nothing. So let a block output
        relu(F(x) + x), a residual F and a shortcut: doing nothing is F = 0, easy to learn, and the
        gradient always has the short way back.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_resnet.py:
  D1  a bottleneck strides in its 3x3 convolution, not in its first 1x1 ("v1.5"); `resnet50_v1` is
      the paper's.
The networks for CIFAR-10 (section 4.2), with and without shortcuts, are in resnet_cifar.py.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

YEAR = 2015


@dataclass(frozen=True)
class Column:
    """One column of the paper's Table 1."""

    blocks: tuple[int, int, int, int]  # residual blocks in conv2_x .. conv5_x
    bottleneck: bool  # False: 3x3, 3x3.  True: 1x1, 3x3, 1x1
    stride_in_3x3: bool = True  # D1


TABLE_1 = {
    "resnet18": Column((2, 2, 2, 2), bottleneck=False),
    "resnet34": Column((3, 4, 6, 3), bottleneck=False),
    "resnet50": Column((3, 4, 6, 3), bottleneck=True),
    "resnet101": Column((3, 4, 23, 3), bottleneck=True),
    "resnet152": Column((3, 8, 36, 3), bottleneck=True),
    "resnet50_v1": Column((3, 4, 6, 3), bottleneck=True, stride_in_3x3=False),
}


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A 'same' convolution without bias: the batch-norm behind it has one."""
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The paper's option B: identity where shapes agree, else a 1x1 projection."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class Basic(nn.Module):
    """relu(3x3, 3x3 + shortcut).    (N, c_in, H, W) -> (N, width, H/stride, W/stride)"""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = conv(c_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return torch.relu_(y)


class Bottleneck(nn.Module):
    """relu(1x1, 3x3, 1x1 + shortcut).    (N, c_in, H, W) -> (N, 4*width, H/stride, W/stride)"""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, stride_in_3x3: bool):
        super().__init__()
        first, second = (1, stride) if stride_in_3x3 else (stride, 1)  # D1
        self.conv1 = conv(c_in, width, 1, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(c_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return torch.relu_(y)


class ResNet(nn.Module):
    """Table 1: stem, four stages, global average, one linear layer."""

    input_size = 224
    min_size = 1

    def __init__(self, column: Column, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        bottleneck = partial(Bottleneck, stride_in_3x3=column.stride_in_3x3)
        block = bottleneck if column.bottleneck else Basic
        e = Bottleneck.expansion if column.bottleneck else Basic.expansion
        self.conv1 = conv(in_channels, 64, 7, stride=2)  # (N, 64, H/2, W/2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (N, 64, H/4, W/4)

        def stage(c_in: int, width: int, n_blocks: int, stride: int) -> nn.Sequential:
            opening = block(c_in, width, stride=stride)
            return nn.Sequential(
                opening, *[block(e * width, width, stride=1) for _ in range(n_blocks - 1)]
            )

        self.layer1 = stage(64, 64, column.blocks[0], stride=1)  # (N,  64e, H/4,  W/4)
        self.layer2 = stage(64 * e, 128, column.blocks[1], stride=2)  # (N, 128e, H/8,  W/8)
        self.layer3 = stage(128 * e, 256, column.blocks[2], stride=2)  # (N, 256e, H/16, W/16)
        self.layer4 = stage(256 * e, 512, column.blocks[3], stride=2)  # (N, 512e, H/32, W/32)
        self.fc = nn.Linear(512 * e, num_classes)
        self.apply(he_init)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the map at the end of each stage: 1/4, 1/8, 1/16, 1/32 of the input."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 512e), what the head reads: the mean of the last map's pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def he_init(m: nn.Module) -> None:
    """The paper's initialisation (section 3.4, from arXiv:1502.01852)."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18: 11,689,512 parameters at 1000 classes.

    >>> resnet18(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return ResNet(TABLE_1["resnet18"], num_classes, in_channels)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-34: 21,797,672 parameters at 1000 classes."""
    return ResNet(TABLE_1["resnet34"], num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-50 (v1.5): 25,557,032 parameters at 1000 classes."""
    return ResNet(TABLE_1["resnet50"], num_classes, in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-101 (v1.5): 44,549,160 parameters at 1000 classes."""
    return ResNet(TABLE_1["resnet101"], num_classes, in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-152 (v1.5): 60,192,808 parameters at 1000 classes."""
    return ResNet(TABLE_1["resnet152"], num_classes, in_channels)


def resnet50_v1(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-50 as in the paper: 25,557,032 parameters at 1000 classes."""
    return ResNet(TABLE_1["resnet50_v1"], num_classes, in_channels)
