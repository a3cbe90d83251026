"""MobileNetV3: MobileNetV2's block with attention to channels, laid out by search, for phones.

Paper   Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam. "Searching for
        MobileNetV3". ICCV 2019, arXiv:1905.02244. The block is MobileNetV2's (arXiv:1801.04381)
        with squeeze-and-excitation (Hu et al., arXiv:1709.01507).
Idea    A search measures accuracy against latency on a phone and picks the rows of the table: block
        by block by platform-aware search, then layer by layer by NetAdapt. Two things are done by
        hand. The costly ends are redesigned: a stem of 16 filters, and the last wide layer moved
        behind the average, where it costs one pixel. And swish becomes hard,
        h-swish(x) = x * relu6(x + 3) / 6, used in the deeper half, where maps are small.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_mobilenet_v3.py:
  D1  in the small network the last 1x1 convolution has no squeeze-and-excitation, though Table 2
      marks one.
  D2  a block squeezes to a quarter of its expanded channels, as the paper says, but to a multiple
      of 8.
  D3  the two layers behind the average are linear; the paper's are 1x1 convolutions, the same
      function there.
  D4  a block that does not widen (the first of each network) has no expanding convolution.
  D5  the initialisation is torchvision's: He's rule (arXiv:1502.01852) by torch's fan-out, which
      forgets the groups, so that depthwise convolutions start sqrt(channels) times narrower than
      the rule says. The authors' code draws every weight from a normal distribution of standard
      deviation 0.09, cut at two of them; the paper names none.
Dropout is 0.2: the paper's "dropout of 0.8" is the part that is kept. Batch-norm has the paper's
decay, 0.99.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

YEAR = 2019


@dataclass(frozen=True)
class Row:
    """One bneck row of the paper's Tables 1 and 2, in the order of their columns."""

    kernel: int
    expanded: int  # "exp size": channels inside the block
    width: int  # "#out": output channels
    se: bool  # squeeze-and-excitation
    activation: str  # RE: ReLU, HS: h-swish
    stride: int


# Rows of one width are a stage.
TABLE_1 = (
    (Row(3, 16, 16, False, "RE", 1),),  # H/2
    (Row(3, 64, 24, False, "RE", 2), Row(3, 72, 24, False, "RE", 1)),  # H/4
    (
        Row(5, 72, 40, True, "RE", 2),
        Row(5, 120, 40, True, "RE", 1),
        Row(5, 120, 40, True, "RE", 1),
    ),  # H/8
    (
        Row(3, 240, 80, False, "HS", 2),  # H/16
        Row(3, 200, 80, False, "HS", 1),
        Row(3, 184, 80, False, "HS", 1),
        Row(3, 184, 80, False, "HS", 1),
    ),
    (Row(3, 480, 112, True, "HS", 1), Row(3, 672, 112, True, "HS", 1)),  # H/16
    (
        Row(5, 672, 160, True, "HS", 2),
        Row(5, 960, 160, True, "HS", 1),
        Row(5, 960, 160, True, "HS", 1),
    ),  # H/32
)
TABLE_2 = (
    (Row(3, 16, 16, True, "RE", 2),),  # H/4
    (Row(3, 72, 24, False, "RE", 2), Row(3, 88, 24, False, "RE", 1)),  # H/8
    (
        Row(5, 96, 40, True, "HS", 2),
        Row(5, 240, 40, True, "HS", 1),
        Row(5, 240, 40, True, "HS", 1),
    ),  # H/16
    (Row(5, 120, 48, True, "HS", 1), Row(5, 144, 48, True, "HS", 1)),  # H/16
    (
        Row(5, 288, 96, True, "HS", 2),
        Row(5, 576, 96, True, "HS", 1),
        Row(5, 576, 96, True, "HS", 1),
    ),  # H/32
)
STEM = 16  # channels of the first convolution


def conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A 'same' convolution without bias, and its batch-norm."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)]


def activation(name: str) -> nn.Module:
    return nn.Hardswish(inplace=True) if name == "HS" else nn.ReLU(inplace=True)


def quarter(channels: int) -> int:
    """A quarter, to the nearest multiple of 8, never more than 10 % below (D2).

    >>> [quarter(channels) for channels in (16, 72, 96, 120, 672)]
    [8, 24, 24, 32, 168]
    """
    exact = channels // 4
    nearest = max(8, (exact + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * exact else nearest


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what the whole image says, from 0 to 1.    (N, C, H, W) -> the same"""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, quarter(channels), 1)
        self.fc2 = nn.Conv2d(quarter(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        weight = self.fc2(torch.relu_(self.fc1(weight)))
        return F.hardsigmoid(weight) * x  # h-sigmoid(x) = relu6(x + 3) / 6


class Bneck(nn.Module):
    """Expand, filter, weigh, project; add the input where shapes agree (the paper's Figure 4).

    (N, c_in, H, W) -> (N, width, H/stride, W/stride)
    """

    def __init__(self, c_in: int, row: Row):
        super().__init__()
        wide = row.expanded
        layers: list[nn.Module] = []
        if wide != c_in:  # D4
            layers += [nn.Sequential(*conv_bn(c_in, wide), activation(row.activation))]
        filters = conv_bn(wide, wide, row.kernel, row.stride, groups=wide)
        layers += [nn.Sequential(*filters, activation(row.activation))]
        if row.se:
            layers += [SqueezeExcitation(wide)]
        # no activation: the bottleneck is linear
        layers += [nn.Sequential(*conv_bn(wide, row.width))]
        self.block = nn.Sequential(*layers)
        self.adds = row.stride == 1 and c_in == row.width

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return y.add_(x) if self.adds else y


class MobileNetV3(nn.Module):
    """A table's rows between a stem and a 1x1 convolution, global average, two linear layers."""

    input_size = 224
    min_size = 1

    def __init__(
        self,
        table: tuple[tuple[Row, ...], ...],
        last: int,
        num_classes: int = 1000,
        in_channels: int = 3,
    ):
        super().__init__()
        parts: list[nn.Module] = [
            nn.Sequential(*conv_bn(in_channels, STEM, 3, stride=2), activation("HS"))
        ]
        c_in = STEM
        for stage in table:
            for row in stage:
                parts.append(Bneck(c_in, row))
                c_in = row.width
        parts.append(nn.Sequential(*conv_bn(c_in, 6 * c_in), activation("HS")))  # D1
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Linear(6 * c_in, last),  # D3
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
            nn.Linear(last, num_classes),
        )
        # which parts end a stage
        self.ends = (*accumulate(len(stage) for stage in table), len(parts) - 1)
        self.apply(initialise)

    @property
    def head(self) -> nn.Module:
        return self.classifier[3]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last map of each width, and that of the last convolution.

        Large: H/2, H/4, H/8, H/16, H/16, H/32, H/32; small: H/4, H/8, H/16, H/16, H/32, H/32.
        """
        maps = []
        for i, part in enumerate(self.features):
            x = part(x)
            if i in self.ends:
                maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, last), what the head reads: a linear layer on the last map's mean."""
        x = self.features(x).mean(dim=(2, 3))  # (N, 960) in the large network, else (N, 576)
        return self.classifier[1](self.classifier[0](x))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier[3](self.classifier[2](self.embed(x)))


def initialise(m: nn.Module) -> None:
    """Torchvision's: He's rule for convolutions, a narrow normal for the linear layers."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_out")  # D5
        if m.bias is not None:
            nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, 0, 0.01)
        nn.init.zeros_(m.bias)


def mobilenet_v3_small(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV3:
    """MobileNetV3-Small: 2,542,856 parameters at 1000 classes.

    >>> mobilenet_v3_small(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return MobileNetV3(TABLE_2, 1024, num_classes, in_channels)


def mobilenet_v3_large(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV3:
    """MobileNetV3-Large: 5,483,032 parameters at 1000 classes."""
    return MobileNetV3(TABLE_1, 1280, num_classes, in_channels)
