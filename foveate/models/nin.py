"""Network in Network: a small perceptron for each filter, an average for the linear layers.

Paper   Lin, Chen, Yan. "Network In Network". ICLR 2014, arXiv:1312.4400.
Idea    A convolution's filter is a linear model of its patch; what it must tell apart seldom is.
        Let a multilayer perceptron look at each patch instead ("mlpconv"): a convolution followed
        by 1x1 convolutions, which mix the maps at each pixel. Abstract that well, and the last
        mlpconv can make one map per class; the mean of a map is its class's score. That average has
        nothing to learn, so nothing to overfit, unlike linear layers.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax; never negative, for a ReLU follows the last layer
        too (equation 2).
Names   of parameters: mlpconv.0, mlpconv.1 ... in order of the network; classes is the last 1x1
        convolution.

Differences from the paper, each asserted in tests/models/test_nin.py:
  D1  the paper's text gives no widths and no kernels. Those of `nin_cifar` are of the authors'
      published code.
  D2  `nin` is the authors' published network for ImageNet, which the paper does not describe: four
      mlpconv layers where the paper's figure has three, and dropout only before the last.
  D3  pooling windows may reach over the border, as in the authors' code, so that 32 pixels become
      16 and 8; the second pooling of `nin_cifar` averages where the paper's text has maxima only.
  D4  the authors chose the initial weights by hand, the paper does not say how. Here they are drawn
      by He's rule (arXiv:1502.01852), and biases are zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.models.size import at_least

YEAR = 2013


@dataclass(frozen=True)
class MLPConv:
    """One mlpconv layer: a convolution, then 1x1 convolutions, each with a ReLU."""

    # of the convolution and of the 1x1 convolutions; in the last layer without the classes
    widths: tuple[int, ...]
    kernel: int
    stride: int
    padding: int
    pool: type[nn.MaxPool2d] | type[nn.AvgPool2d] | None = None  # 3x3 windows at stride 2
    drop: bool = False  # half of its input, in training


@dataclass(frozen=True)
class Column:
    """One published network."""

    layers: tuple[MLPConv, ...]
    input_size: int
    min_size: int  # a smaller image leaves a pooling nothing to read


TABLE = {
    "nin": Column(
        (  # D2, from 224x224
            # 54x54, pooled to 27x27
            MLPConv((96, 96, 96), kernel=11, stride=4, padding=0, pool=nn.MaxPool2d),
            # 27x27, pooled to 13x13
            MLPConv((256, 256, 256), kernel=5, stride=1, padding=2, pool=nn.MaxPool2d),
            # 13x13, pooled to 6x6
            MLPConv((384, 384, 384), kernel=3, stride=1, padding=1, pool=nn.MaxPool2d),
            # 6x6
            MLPConv((1024, 1024), kernel=3, stride=1, padding=1, drop=True),
        ),
        input_size=224,
        min_size=39,
    ),
    "nin_cifar": Column(
        (  # D1, from 32x32
            # 32x32, pooled to 16x16
            MLPConv((192, 160, 96), kernel=5, stride=1, padding=2, pool=nn.MaxPool2d),
            # 16x16, pooled to 8x8
            MLPConv((192, 192, 192), kernel=5, stride=1, padding=2, pool=nn.AvgPool2d, drop=True),
            # 8x8
            MLPConv((192, 192), kernel=3, stride=1, padding=1, drop=True),
        ),
        input_size=32,
        min_size=4,
    ),
}


def mlpconv(layer: MLPConv, c_in: int) -> nn.Sequential:
    """(N, c_in, H, W) -> (N, widths[-1], H', W')"""
    parts: list[nn.Module] = [nn.Dropout(0.5)] if layer.drop else []
    parts += [
        nn.Conv2d(c_in, layer.widths[0], layer.kernel, layer.stride, layer.padding),
        nn.ReLU(inplace=True),
    ]
    for narrow, wide in zip(layer.widths, layer.widths[1:], strict=False):
        parts += [nn.Conv2d(narrow, wide, 1), nn.ReLU(inplace=True)]
    if layer.pool is not None:
        parts.append(layer.pool(3, stride=2, ceil_mode=True))  # D3
    return nn.Sequential(*parts)


class NiN(nn.Module):
    """A stack of mlpconv layers and a global average.

    The head is a convolution. `embed` gives the map that it reads, averaged over its pixels; the
    logits are not the head of that, but the average over pixels of relu(head of the map).
    """

    def __init__(self, column: Column, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.input_size, self.min_size = column.input_size, column.min_size
        layers, c_in = [], in_channels
        for layer in column.layers:
            layers.append(mlpconv(layer, c_in))
            c_in = layer.widths[-1]
        self.mlpconv = nn.Sequential(*layers)
        # the last 1x1 of the last mlpconv layer: a map per class
        self.classes = nn.Conv2d(c_in, num_classes, 1)
        self.apply(he_init)

    @property
    def head(self) -> nn.Module:
        return self.classes

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the map of each mlpconv layer, pooled; the head reads the last."""
        at_least(self, x)
        maps = []
        for stage in self.mlpconv:
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1024), for CIFAR (N, 192): the mean of what the head reads."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.classes(self.stages(x)[-1]))  # (N, num_classes, H', W')
        return x.mean(dim=(2, 3))


def he_init(m: nn.Module) -> None:  # D4
    """Normal, with the variance that keeps activations their size through a ReLU."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def nin(num_classes: int = 1000, in_channels: int = 3) -> NiN:
    """Network in Network for ImageNet: 7,595,176 parameters at 1000 classes.

    >>> nin(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return NiN(TABLE["nin"], num_classes, in_channels)


def nin_cifar(num_classes: int = 10, in_channels: int = 3) -> NiN:
    """Network in Network for CIFAR: 966,986 parameters at 10 classes."""
    return NiN(TABLE["nin_cifar"], num_classes, in_channels)
