"""ShuffleNet: 1x1 convolutions in groups, and a shuffle of channels so that the groups can talk.

Paper   Zhang, Zhou, Lin, Sun. "ShuffleNet: An Extremely Efficient Convolutional Neural Network for
        Mobile Devices". CVPR 2018, arXiv:1707.01083 (2017).
Idea    In a small network most of the work is in the 1x1 convolutions. Do them in g groups and they
        cost 1/g, so the maps may be wider at the same cost. But an output then sees only its own
        group's inputs, and stacked groups never learn of each other. So shuffle the channels
        between two grouped convolutions: every group of the second one reads from every group of
        the first.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are after the paper's Figure 2 (no published file has names to follow).

Differences from the paper, each asserted in tests/models/test_shufflenet_v1.py: none; the
multiply-adds come out within 1.5 % of Table 1's. Where the paper is silent: the zeros around a map
count in the average of the shortcut's pooling; convolutions start by He's rule (arXiv:1502.01852),
the last layer as torch's linear layers do.
"""

import torch
from torch import Tensor, nn

YEAR = 2017

TABLE_1 = {  # g, the groups of the 1x1 convolutions: output channels of stages 2, 3 and 4
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
UNITS = (4, 8, 4)  # in stages 2, 3 and 4; the first one of each has stride 2
STEM = 24  # channels of the first convolution


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal out the channels of each group to all, as cards to players.    (N, C, H, W) -> the same

    Channels (groups, n) as a matrix, transposed, read row by row (the paper's section 3.1).

    >>> channel_shuffle(torch.arange(6).reshape(1, 6, 1, 1), groups=2).flatten().tolist()
    [0, 3, 1, 4, 2, 5]
    """
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Branch(nn.Module):
    """1x1 in groups, shuffle, 3x3 depthwise, 1x1 in groups; no activation behind the last two.

    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)
    """

    def __init__(
        self, c_in: int, narrow: int, c_out: int, stride: int, groups_in: int, groups: int
    ):
        super().__init__()
        self.groups = groups
        self.gconv1 = nn.Conv2d(c_in, narrow, 1, groups=groups_in, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.dwconv = nn.Conv2d(narrow, narrow, 3, stride, padding=1, groups=narrow, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.gconv2 = nn.Conv2d(narrow, c_out, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.gconv1(x)))
        x = self.bn2(self.dwconv(channel_shuffle(x, self.groups)))
        return self.bn3(self.gconv2(x))


class Unit(nn.Module):
    """relu(branch + x), the paper's Figure 2b.    (N, c, H, W) -> the same"""

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.branch = Branch(c, c // 4, c, stride=1, groups_in=groups, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        y += x
        return torch.relu_(y)


class StridedUnit(nn.Module):
    """relu(pooled x, branch), the two side by side (Figure 2c).

    (N, c_in, H, W) -> (N, c_out, H/2, W/2)
    """

    def __init__(self, c_in: int, c_out: int, groups_in: int, groups: int):
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.branch = Branch(
            c_in, c_out // 4, c_out - c_in, stride=2, groups_in=groups_in, groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(torch.cat([self.pool(x), self.branch(x)], dim=1))


class ShuffleNetV1(nn.Module):
    """Table 1: stem, three stages, global average, one linear layer."""

    input_size = 224
    min_size = 1

    def __init__(self, groups: int, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()

        def stage(c_in: int, c_out: int, units: int, groups_in: int) -> nn.Sequential:
            rest = [Unit(c_out, groups) for _ in range(units - 1)]
            return nn.Sequential(StridedUnit(c_in, c_out, groups_in, groups), *rest)

        c2, c3, c4 = TABLE_1[groups]
        # (N, 24, H/2, W/2)
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (N, 24, H/4, W/4)
        # The very first 1x1 convolution is not grouped: its 24 input channels are few.
        self.stage2 = stage(STEM, c2, UNITS[0], groups_in=1)  # (N, c2, H/8,  W/8)
        self.stage3 = stage(c2, c3, UNITS[1], groups_in=groups)  # (N, c3, H/16, W/16)
        self.stage4 = stage(c3, c4, UNITS[2], groups_in=groups)  # (N, c4, H/32, W/32)
        self.fc = nn.Linear(c4, num_classes)
        self.apply(initialise)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of stages 2, 3 and 4: 1/8, 1/16 and 1/32 of the input."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        maps = []
        for stage in (self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, c4), what the head reads: the last map, averaged over its pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def initialise(m: nn.Module) -> None:
    """He's rule by fan-in, which knows of the groups."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")


def shufflenet_v1(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet 1x, three groups: 1,865,728 parameters at 1000 classes.

    The paper counts 137 M multiply-adds.

    >>> shufflenet_v1(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return ShuffleNetV1(3, num_classes, in_channels)


def shufflenet_v1_g1(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet 1x, no groups: 1,531,936 parameters at 1000 classes.

    The paper counts 143 M multiply-adds.
    """
    return ShuffleNetV1(1, num_classes, in_channels)


def shufflenet_v1_g2(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet 1x, two groups: 1,733,848 parameters at 1000 classes.

    The paper counts 140 M multiply-adds.
    """
    return ShuffleNetV1(2, num_classes, in_channels)


def shufflenet_v1_g4(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet 1x, four groups: 1,968,344 parameters at 1000 classes.

    The paper counts 133 M multiply-adds.
    """
    return ShuffleNetV1(4, num_classes, in_channels)


def shufflenet_v1_g8(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet 1x, eight groups: 2,434,768 parameters at 1000 classes.

    The paper counts 137 M multiply-adds.
    """
    return ShuffleNetV1(8, num_classes, in_channels)
