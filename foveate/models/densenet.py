"""DenseNet: every layer reads the maps of all layers before it, so that none has to carry them on.

Paper   Huang, Liu, van der Maaten, Weinberger. "Densely Connected Convolutional Networks". CVPR
        2017, arXiv:1608.06993.
Idea    Layer l computes x_l = H_l([x_0, x_1, ..., x_l-1]): it reads the concatenation of what all
        earlier layers of its block have made, and adds a few maps of its own, k of them, the growth
        rate. Features are reused, not learnt again, so k may be small (12, 32) and parameters few;
        and every layer is one step from the loss. H_l is batch-norm, ReLU, convolution; in
        DenseNet-B a 1x1 bottleneck of 4k maps comes before the 3x3. Between blocks a transition
        halves the sides, and in DenseNet-C the number of maps.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of torchvision, whose published files load as they are but for
        norm.1, conv.1 and the like, which are norm1, conv1 here.

Differences from the paper, each asserted in tests/models/test_densenet.py:
  D1  a transition has a ReLU between its batch-norm and its convolution, and a batch-norm and a
      ReLU follow the last block, as in the authors' code.
  D2  `densenet161`, of growth 48, is of the authors' release; Table 1 has growth 32 only.
  D3  no dropout. The paper has it (0.2) where it trains on small sets without augmentation.
Training in a third of the memory, the same numbers in 1.3 times the time: recomputation.py.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.size import at_least

YEAR = 2016


@dataclass(frozen=True)
class Column:
    """One column of the paper's Table 1; the last one is of Table 2."""

    growth: int  # k: maps which a layer adds
    layers: tuple[int, ...]  # in each dense block
    cifar: bool = False  # 32x32: the first convolution is 3x3 and leaves the size as it is

    @property
    def stem(self) -> int:
        return 2 * self.growth  # maps of the first convolution


TABLE_1 = {
    "densenet121": Column(32, (6, 12, 24, 16)),
    "densenet161": Column(48, (6, 12, 36, 24)),  # D2
    "densenet169": Column(32, (6, 12, 32, 32)),
    "densenet201": Column(32, (6, 12, 48, 32)),
    # 3 * 16 * 2 convolutions and four others
    "densenet_bc_100_12": Column(12, (16, 16, 16), cifar=True),
}
BOTTLENECK = 4  # DenseNet-B: the 1x1 convolution makes 4k maps
COMPRESSION = 0.5  # DenseNet-C: theta, the part of the maps that a transition keeps


class DenseLayer(nn.Module):
    """H_l: batch-norm, ReLU, 1x1; batch-norm, ReLU, 3x3.

    maps (N, c_i, H, W) of c_in channels in all -> (N, growth, H, W)
    """

    def __init__(self, c_in: int, growth: int):
        super().__init__()
        wide = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, wide, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, growth, 3, padding=1, bias=False)

    def reduce(self, *maps: Tensor) -> Tensor:
        return self.conv1(torch.relu_(self.norm1(torch.cat(maps, dim=1))))

    def grow(self, x: Tensor) -> Tensor:
        return self.conv2(torch.relu_(self.norm2(x)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.grow(self.reduce(*maps))


class DenseBlock(nn.ModuleDict):
    """Layers that read everything before them.

    (N, c_in, H, W) -> (N, c_in + layers * growth, H, W)
    """

    def __init__(self, c_in: int, layers: int, growth: int):
        super().__init__()
        for i in range(layers):
            self[f"denselayer{i + 1}"] = DenseLayer(c_in + i * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, dim=1)


class Transition(nn.Module):
    """Batch-norm, ReLU, 1x1, and 2x2 averages.    (N, c_in, H, W) -> (N, c_out, H/2, W/2)"""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)

    def reduce(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu_(self.norm(x)))  # D1

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.reduce(x), 2)


def stem(column: Column, in_channels: int) -> OrderedDict[str, nn.Module]:
    """What comes before the first dense block.

    (N, C, H, W) -> (N, 2k, H/4, W/4), for CIFAR (N, 2k, H, W)
    """
    if column.cifar:
        return OrderedDict(conv0=nn.Conv2d(in_channels, column.stem, 3, padding=1, bias=False))
    return OrderedDict(
        conv0=nn.Conv2d(in_channels, column.stem, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(column.stem),
        relu0=nn.ReLU(inplace=True),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )


class DenseNet(nn.Module):
    """Table 1: a convolution, dense blocks, transitions between them, average, linear layer."""

    def __init__(self, column: Column, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.input_size, self.min_size = (32, 4) if column.cifar else (224, 29)
        parts, width = stem(column, in_channels), column.stem
        self.stem_end = len(parts)
        for i, layers in enumerate(column.layers, start=1):
            parts[f"denseblock{i}"] = DenseBlock(width, layers, column.growth)
            width += layers * column.growth
            if i < len(column.layers):
                parts[f"transition{i}"] = Transition(width, int(COMPRESSION * width))
                width = int(COMPRESSION * width)
        parts["norm5"] = nn.BatchNorm2d(width)  # D1
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(width, num_classes)
        self.apply(he_init)

    @property
    def head(self) -> nn.Module:
        return self.classifier

    def open(self, x: Tensor) -> Tensor:
        return self.features[: self.stem_end](x)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the map of each dense block; that of the last one behind batch-norm and
        ReLU.

        At 1/4, 1/8, 1/16 and 1/32 of the input's size; for CIFAR at 1, 1/2 and 1/4.
        """
        at_least(self, x)
        x = self.open(x)
        maps = []
        for part in self.features[self.stem_end :]:
            x = part(x)
            if isinstance(part, DenseBlock):
                maps.append(x)
        return [*maps[:-1], torch.relu_(x)]  # D1

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D), what the head reads: the last map, averaged over its pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def he_init(m: nn.Module) -> None:
    """The paper's initialisation (section 4.2, from arXiv:1502.01852)."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight)
    elif isinstance(m, nn.Linear):
        nn.init.zeros_(m.bias)


def densenet121(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-121: 7,978,856 parameters at 1000 classes.

    >>> densenet121(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return DenseNet(TABLE_1["densenet121"], num_classes, in_channels)


def densenet161(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-161: 28,681,000 parameters at 1000 classes."""
    return DenseNet(TABLE_1["densenet161"], num_classes, in_channels)


def densenet169(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-169: 14,149,480 parameters at 1000 classes."""
    return DenseNet(TABLE_1["densenet169"], num_classes, in_channels)


def densenet201(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-201: 20,013,928 parameters at 1000 classes."""
    return DenseNet(TABLE_1["densenet201"], num_classes, in_channels)


def densenet_bc_100_12(num_classes: int = 10, in_channels: int = 3) -> DenseNet:
    """DenseNet-BC, 100 layers, growth 12, for CIFAR: 769,162 parameters at 10 classes."""
    return DenseNet(TABLE_1["densenet_bc_100_12"], num_classes, in_channels)
