"""MobileNetV2: inverted residuals, wide inside, narrow and linear where blocks meet.

Paper   Sandler, Howard, Zhu, Zhmoginov, Chen. "MobileNetV2: Inverted Residuals and Linear
        Bottlenecks". CVPR 2018, arXiv:1801.04381.
Idea    What a layer has to say lies near few dimensions (its manifold of interest), so a few
        channels can carry it from block to block (the bottleneck). ReLU destroys information in so
        few channels, and is safe in many: so a block expands t-fold, filters each channel by
        itself, and projects back without an activation (linear bottleneck). The shortcut joins the
        narrow ends, not the wide ones as in ResNet (inverted residual), which is cheap in memory.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_mobilenet_v2.py:
  D1  a block with t = 1 has no expanding convolution; the paper's Table 1 would give it a 1x1 from
      k to k channels.
  D2  the last layer is linear, on the average; the paper's is a 1x1 convolution on the 1x1 map, the
      same function.
  D3  in training a fifth of what the last layer reads is dropped, as in the authors' code; the
      paper names no dropout.
  D4  the initialisation is torchvision's: He's rule (arXiv:1502.01852) by torch's fan-out, which
      forgets the groups, so that depthwise convolutions start sqrt(channels) times narrower than
      the rule says. The authors' code draws every weight from a normal distribution of standard
      deviation 0.09, cut at two of them; the paper names none.
"""

from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor, nn

YEAR = 2018


@dataclass(frozen=True)
class Row:
    """One bottleneck row of the paper's Table 2, by the paper's letters."""

    t: int  # expansion factor
    c: int  # output channels
    n: int  # blocks
    s: int  # stride of the first block; the others have 1


TABLE_2 = (
    Row(t=1, c=16, n=1, s=1),  # H/2
    Row(t=6, c=24, n=2, s=2),  # H/4
    Row(t=6, c=32, n=3, s=2),  # H/8
    Row(t=6, c=64, n=4, s=2),  # H/16
    Row(t=6, c=96, n=3, s=1),  # H/16
    Row(t=6, c=160, n=3, s=2),  # H/32
    Row(t=6, c=320, n=1, s=1),  # H/32
)
STEM, LAST = 32, 1280  # channels of the first and the last convolution


def conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A 'same' convolution without bias, and its batch-norm."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class InvertedResidual(nn.Module):
    """Expand, filter, project; add the input where shapes agree (Table 1, Figure 4d).

    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)
    """

    def __init__(self, c_in: int, c_out: int, t: int, stride: int):
        super().__init__()
        wide = t * c_in
        layers: list[nn.Module] = []
        if t != 1:  # D1
            layers += [nn.Sequential(*conv_bn(c_in, wide), nn.ReLU6(inplace=True))]
        layers += [
            nn.Sequential(*conv_bn(wide, wide, 3, stride, groups=wide), nn.ReLU6(inplace=True))
        ]
        layers += conv_bn(wide, c_out)  # no activation: the bottleneck is linear
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Table 2: stem, seven rows of blocks, 1x1 convolution, global average, one linear layer."""

    input_size = 224
    min_size = 1

    def __init__(self, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        parts: list[nn.Module] = [
            nn.Sequential(*conv_bn(in_channels, STEM, 3, stride=2), nn.ReLU6(inplace=True))
        ]
        c_in = STEM
        for row in TABLE_2:
            for i in range(row.n):
                parts.append(InvertedResidual(c_in, row.c, row.t, row.s if i == 0 else 1))
                c_in = row.c
        parts.append(nn.Sequential(*conv_bn(c_in, LAST), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST, num_classes))  # D3, D2
        # which parts end a stage
        self.ends = (*accumulate(row.n for row in TABLE_2), len(parts) - 1)
        self.apply(initialise)

    @property
    def head(self) -> nn.Module:
        return self.classifier[1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of Table 2's seven rows and of the last convolution.

        At H/2, H/4, H/8, H/16, H/16, H/32, H/32, and H/32.
        """
        maps = []
        for i, part in enumerate(self.features):
            x = part(x)
            if i in self.ends:
                maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1280), what the head reads: the mean of the last map's pixels."""
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def initialise(m: nn.Module) -> None:
    """Torchvision's: He's rule for convolutions, a narrow normal for the last layer."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_out")  # D4
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, 0, 0.01)
        nn.init.zeros_(m.bias)


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2: 3,504,872 parameters at 1000 classes.

    >>> import torch
    >>> mobilenet_v2(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return MobileNetV2(num_classes, in_channels)
