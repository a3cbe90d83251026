"""Inception-v3: large filters factorised into small ones, the saving spent on a better network.

Paper   Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. "Rethinking the Inception Architecture for
        Computer Vision". CVPR 2016, arXiv:1512.00567.
Idea    What a 5x5 filter sees, two 3x3 filters see for 28 % less work; what an nxn filter sees, 1xn
        and then nx1 see for 2/n of the work, which pays on maps of middle size (Figure 6). At the
        smallest size, widen instead: 1x3 and 3x1 side by side (Figure 7). Pooling before widening
        loses, widening before pooling is dear: halve a map by pooling and by convolutions with
        stride 2 at once, and concatenate (Figure 10). One auxiliary classifier, with batch-norm:
        late in training it regularises.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax. In training a tuple (logits, aux) of two such.
Names   of parameters are those of the published torchvision file, so that it loads as it is.

Differences from the paper, each asserted in tests/models/test_inception_v3.py:
  D1  as the authors published it, the stem goes on with a 1x1 and a 3x3 convolution and a maximum,
      from 73 to 71 to 35 pixels and 192 channels; Table 1 has three 3x3 convolutions, the last of
      which makes 288.
  D2  the second branch of Figure 5 ends in a 5x5 filter, not in a 3x3 one.
  D3  Table 1's five modules of Figure 6 are a reduction and four; two of Figure 7 come after a
      second reduction.
  D4  the second reduction looks through 1x7 and 7x1 filters before it halves; Figure 10 has 3x3
      only.
  D5  the auxiliary classifier's hidden layer is a 5x5 convolution, averaged: the same on the 5x5
      map of 299 pixels.
  D6  in training images may be smaller than 299 pixels: the map which the auxiliary classifier
      reads is stretched to 17x17, the least that its layers can read.
  D7  weights are drawn from normal distributions cut at 2, of standard deviation 0.1, in the
      auxiliary classifier's last layer 0.001; the paper does not say.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.size import at_least

YEAR = 2015

FIGURE_5 = (32, 64, 64)  # three modules at 35x35: filters behind their pooling
FIGURE_6 = (128, 160, 160, 192)  # four modules at 17x17: 1x7 and 7x1 filters inside


class Conv(nn.Module):
    """A convolution without bias, its batch-norm, ReLU.

    It pads ('same') where it neither strides nor is `valid`.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        valid: bool = False,
    ):
        super().__init__()
        padding = (0, 0) if valid or stride > 1 else (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.bn(self.conv(x)))


def mean3(x: Tensor) -> Tensor:
    """3x3 averages; what hangs over the border counts as zeros."""
    return F.avg_pool2d(x, 3, stride=1, padding=1)


class Figure5(nn.Module):
    """5x5 as two 3x3.    (N, c_in, H, W) -> (N, 224 + pooled, H, W)"""

    def __init__(self, c_in: int, pooled: int):
        super().__init__()
        self.branch1x1 = Conv(c_in, 64)
        self.branch5x5_1 = Conv(c_in, 48)
        self.branch5x5_2 = Conv(48, 64, (5, 5))  # D2
        self.branch3x3dbl_1 = Conv(c_in, 64)
        self.branch3x3dbl_2 = Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3))
        self.branch_pool = Conv(c_in, pooled)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([one, five, double, self.branch_pool(mean3(x))], dim=1)


class Figure10(nn.Module):
    """Halve by convolution and by pooling at once.

    (N, c_in, H, W) -> (N, 480 + c_in, H/2, W/2)
    """

    def __init__(self, c_in: int):
        super().__init__()
        self.branch3x3 = Conv(c_in, 384, (3, 3), stride=2)
        self.branch3x3dbl_1 = Conv(c_in, 64)
        self.branch3x3dbl_2 = Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3(x)
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([three, double, F.max_pool2d(x, 3, stride=2)], dim=1)


class Figure6(nn.Module):
    """7x7 as 1x7 and 7x1, once and twice.    (N, c_in, H, W) -> (N, 768, H, W)"""

    def __init__(self, c_in: int, c: int):
        super().__init__()
        self.branch1x1 = Conv(c_in, 192)
        self.branch7x7_1 = Conv(c_in, c)
        self.branch7x7_2 = Conv(c, c, (1, 7))
        self.branch7x7_3 = Conv(c, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(c_in, c)
        self.branch7x7dbl_2 = Conv(c, c, (7, 1))
        self.branch7x7dbl_3 = Conv(c, c, (1, 7))
        self.branch7x7dbl_4 = Conv(c, c, (7, 1))
        self.branch7x7dbl_5 = Conv(c, 192, (1, 7))
        self.branch_pool = Conv(c_in, 192)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([one, seven, double, self.branch_pool(mean3(x))], dim=1)


class SecondReduction(nn.Module):
    """As Figure 10, after a look through 1x7 and 7x1 (D4).

    (N, c_in, H, W) -> (N, 512 + c_in, H/2, W/2)
    """

    def __init__(self, c_in: int):
        super().__init__()
        self.branch3x3_1 = Conv(c_in, 192)
        self.branch3x3_2 = Conv(192, 320, (3, 3), stride=2)
        self.branch7x7x3_1 = Conv(c_in, 192)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, (3, 3), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], dim=1)


class Figure7(nn.Module):
    """Widen: 1x3 and 3x1 side by side.    (N, c_in, H, W) -> (N, 2048, H, W)"""

    def __init__(self, c_in: int):
        super().__init__()
        self.branch1x1 = Conv(c_in, 320)
        self.branch3x3_1 = Conv(c_in, 384)
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(c_in, 448)
        self.branch3x3dbl_2 = Conv(448, 384, (3, 3))
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.branch_pool = Conv(c_in, 192)

    def forward(self, x: Tensor) -> Tensor:
        one, three = self.branch1x1(x), self.branch3x3_1(x)
        three = torch.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], dim=1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], dim=1)
        return torch.cat([one, three, double, self.branch_pool(mean3(x))], dim=1)


class Auxiliary(nn.Module):
    """A small classifier on the last 17x17 map, in training only (Figure 8).

    (N, 768, H, W) -> (N, num_classes)
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv0 = Conv(768, 128)
        self.conv1 = Conv(128, 768, (5, 5), valid=True)  # D5
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        # D6: repeats pixels of smaller maps; one of 17x17 or more stays as it is
        x = F.adaptive_avg_pool2d(x, (max(h, 17), max(w, 17)))
        x = self.conv0(F.avg_pool2d(x, 5, stride=3))  # (N, 128, 5, 5) at 17x17
        return self.fc(self.conv1(x).mean(dim=(2, 3)))


class Outputs(NamedTuple):
    """In training: logits (N, num_classes) of the network and of its auxiliary classifier."""

    logits: Tensor
    aux: Tensor


class InceptionV3(nn.Module):
    """Table 1: a stem of five convolutions, eleven modules, global average, one linear layer."""

    AUXILIARY: ClassVar[tuple[str, ...]] = ("AuxLogits.fc",)
    input_size = 299
    min_size = 75

    def __init__(self, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(in_channels, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, (3, 3), valid=True)
        self.Conv2d_2b_3x3 = Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Conv(64, 80)  # D1
        self.Conv2d_4a_3x3 = Conv(80, 192, (3, 3), valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = map(Figure5, (192, 256, 288), FIGURE_5)
        self.Mixed_6a = Figure10(288)  # D3
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (
            Figure6(768, width) for width in FIGURE_6
        )
        self.AuxLogits = Auxiliary(num_classes)
        self.Mixed_7a = SecondReduction(768)
        self.Mixed_7b, self.Mixed_7c = Figure7(1280), Figure7(2048)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(m.weight, std=0.001 if m is self.AuxLogits.fc else 0.1)  # D7

    @property
    def head(self) -> nn.Module:
        return self.fc

    def to_17x17(self, x: Tensor) -> list[Tensor]:
        """The last map of each size, down to that which the auxiliary classifier reads.

        From 299 pixels (N, 64, 147, 147), (N, 192, 71, 71), (N, 288, 35, 35), (N, 768, 17, 17).
        """
        a = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        b = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(a, 3, stride=2)))
        c = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(b, 3, stride=2))))
        d = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(c)))))
        return [a, b, c, d]

    def to_8x8(self, x: Tensor) -> Tensor:
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (N, 2048, 8, 8)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last map of each size: about 1/2, 1/4, 1/8, 1/16 and 1/32."""
        at_least(self, x)
        maps = self.to_17x17(x)
        return [*maps, self.to_8x8(maps[-1])]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2048), what the head reads: the mean of the last map's pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor | Outputs:
        if not self.training:
            return self.fc(self.embed(x))
        at_least(self, x)
        x = self.to_17x17(x)[-1]
        aux = self.AuxLogits(x)
        return Outputs(self.fc(self.dropout(self.to_8x8(x).mean(dim=(2, 3)))), aux)


def inception_v3(num_classes: int = 1000, in_channels: int = 3) -> InceptionV3:
    """Inception-v3: 27,161,264 parameters at 1000 classes.

    Evaluation uses 23,834,568 of them, and not the auxiliary classifier's.

    >>> inception_v3(num_classes=10).eval()(torch.zeros(2, 3, 75, 75)).shape
    torch.Size([2, 10])
    """
    return InceptionV3(num_classes, in_channels)
