"""ShuffleNet V2: fast by the clock, not only by the count of its multiply-adds.

Paper   Ma, Zhang, Zheng, Sun. "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
        Design". ECCV 2018, arXiv:1807.11164. The channel shuffle is ShuffleNet's
        (arXiv:1707.01083).
Idea    Two networks of equal FLOPs differ in speed by what the count leaves out: memory traffic and
        parallelism. Four guidelines from measurement: (G1) 1x1 convolutions are fastest with as
        many channels out as in; (G2) groups cost memory traffic; (G3) many small branches cost
        parallelism; (G4) element-wise operations are not free. So: split the channels, pass one
        half by untouched, send the other through three convolutions of one width and no groups,
        concatenate (nothing is added up), and shuffle, so that the halves mix.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_shufflenet_v2.py: none; the
parameters come out as in Table 5, the multiply-adds within 1.5 %. The paper names no
initialisation: layers start as torch starts them, as torchvision's do.
"""

import torch
from torch import Tensor, nn

from foveate.models.shufflenet_v1 import channel_shuffle

YEAR = 2018

TABLE_5 = {  # output channels of stages 2, 3 and 4, and of Conv5
    "shufflenet_v2_x0_5": (48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (244, 488, 976, 2048),
}
UNITS = (4, 8, 4)  # in stages 2, 3 and 4; the first one of each has stride 2
STEM = 24  # channels of the first convolution


def pointwise(c_in: int, c_out: int) -> list[nn.Module]:
    """1x1 convolution, batch-norm, ReLU."""
    return [nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def depthwise(c: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise convolution, batch-norm, and no activation."""
    return [nn.Conv2d(c, c, 3, stride, padding=1, groups=c, bias=False), nn.BatchNorm2d(c)]


class Unit(nn.Module):
    """Half the channels stay, half are worked on; then shuffle (the paper's Figure 3c).

    (N, c, H, W) -> the same
    """

    def __init__(self, c: int):
        super().__init__()
        half = c // 2
        self.branch2 = nn.Sequential(
            *pointwise(half, half), *depthwise(half, stride=1), *pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        stays, works = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((stays, self.branch2(works)), dim=1), groups=2)


class StridedUnit(nn.Module):
    """No split: both branches read all channels (Figure 3d).

    (N, c_in, H, W) -> (N, c_out, H/2, W/2)
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        half = c_out // 2
        self.branch1 = nn.Sequential(*depthwise(c_in, stride=2), *pointwise(c_in, half))
        self.branch2 = nn.Sequential(
            *pointwise(c_in, half), *depthwise(half, stride=2), *pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), dim=1), groups=2)


class ShuffleNetV2(nn.Module):
    """Table 5: stem, three stages, 1x1 convolution, global average, one linear layer."""

    input_size = 224
    min_size = 1

    def __init__(
        self, channels: tuple[int, int, int, int], num_classes: int = 1000, in_channels: int = 3
    ):
        super().__init__()

        def stage(c_in: int, c_out: int, units: int) -> nn.Sequential:
            return nn.Sequential(StridedUnit(c_in, c_out), *[Unit(c_out) for _ in range(units - 1)])

        c2, c3, c4, c5 = channels
        self.conv1 = nn.Sequential(  # (N, 24, H/2, W/2)
            nn.Conv2d(in_channels, STEM, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(STEM),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (N, 24, H/4, W/4)
        self.stage2 = stage(STEM, c2, UNITS[0])  # (N, c2, H/8,  W/8)
        self.stage3 = stage(c2, c3, UNITS[1])  # (N, c3, H/16, W/16)
        self.stage4 = stage(c3, c4, UNITS[2])  # (N, c4, H/32, W/32)
        self.conv5 = nn.Sequential(*pointwise(c4, c5))  # (N, c5, H/32, W/32)
        self.fc = nn.Linear(c5, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.fc

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of stages 2, 3, 4 and of Conv5: 1/8, 1/16, 1/32 and 1/32."""
        x = self.maxpool(self.conv1(x))
        maps = []
        for stage in (self.stage2, self.stage3, self.stage4, self.conv5):
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, c5), what the head reads: the last map, averaged over its pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


def shufflenet_v2_x0_5(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 0.5x: 1,366,792 parameters at 1000 classes.

    >>> shufflenet_v2_x0_5(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return ShuffleNetV2(TABLE_5["shufflenet_v2_x0_5"], num_classes, in_channels)


def shufflenet_v2_x1_0(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 1x: 2,278,604 parameters at 1000 classes."""
    return ShuffleNetV2(TABLE_5["shufflenet_v2_x1_0"], num_classes, in_channels)


def shufflenet_v2_x1_5(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 1.5x: 3,503,624 parameters at 1000 classes."""
    return ShuffleNetV2(TABLE_5["shufflenet_v2_x1_5"], num_classes, in_channels)


def shufflenet_v2_x2_0(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 2x: 7,393,996 parameters at 1000 classes."""
    return ShuffleNetV2(TABLE_5["shufflenet_v2_x2_0"], num_classes, in_channels)
