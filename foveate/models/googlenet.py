"""GoogLeNet: filters of several sizes side by side, made affordable by 1x1 convolutions.

Paper   Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich. "Going Deeper
        with Convolutions". CVPR 2015, arXiv:1409.4842.
Idea    What belongs together in an image may be small or large. So one Inception module looks at
        its input with 1x1, 3x3 and 5x5 filters and a maximum at once, and concatenates what they
        find. Wide 5x5 filters would be ruinous: 1x1 convolutions first reduce the channels which
        the 3x3 and 5x5 filters read, and those that the pooling passes on. Twenty-two layers with
        8.7 times fewer parameters than AlexNet in evaluation (the paper says 12 times); a global
        average in the place of linear layers; and in training two auxiliary classifiers on middle
        maps, to bring gradients there.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax. In training a tuple (logits, aux2, aux1) of three
        such; in the paper's loss the auxiliary ones weigh 0.3.
Names   of parameters are those of the published torchvision file, so that it loads as it is.

Differences from the paper, each asserted in tests/models/test_googlenet.py:
`googlenet_2014` is the paper's, except:
  D1  local response normalisation has AlexNet's constants; the paper gives none.
  D2  the auxiliary classifiers first bring their map to 14x14, so that images may have any size; at
      224 pixels it already is.
  D3  weights are drawn by He's rule (arXiv:1502.01852), biases are zero; the paper does not say.
`googlenet` is torchvision's, with:
  D4  batch-norm (eps 1e-3) after each convolution, in the place of biases and of local response
      normalisation.
  D5  3x3 filters where the paper has 5x5.
  D6  the last maximum is over 2x2 windows, not 3x3.
  D7  dropout of 0.2, not 0.4, before the last layer.
  D8  the auxiliary classifiers average their map to 4x4 whatever its size, in the place of 5x5
      windows at stride 3.
  D9  weights are drawn from N(0, 0.01^2).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from foveate.models.alexnet import ResponseNormalisation
from foveate.models.size import at_least

YEAR = 2014


class Row(NamedTuple):
    """One Inception module: filters of each kind, by the columns of the paper's Table 1."""

    ones: int  # "#1x1"
    reduce3: int  # "#3x3 reduce": 1x1 filters before the 3x3 ones
    threes: int
    reduce5: int
    fives: int
    projected: int  # "pool proj": 1x1 filters behind the maximum


TABLE_1 = {
    "3a": Row(64, 96, 128, 16, 32, 32),  # 28x28 at 224 pixels
    "3b": Row(128, 128, 192, 32, 96, 64),
    "4a": Row(192, 96, 208, 16, 48, 64),  # 14x14
    "4b": Row(160, 112, 224, 24, 64, 64),
    "4c": Row(128, 128, 256, 24, 64, 64),
    "4d": Row(112, 144, 288, 32, 64, 64),
    "4e": Row(256, 160, 320, 32, 128, 128),
    "5a": Row(256, 160, 320, 32, 128, 128),  # 7x7
    "5b": Row(384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Form:
    """In what the published network departs from the paper's."""

    batch_norm: bool  # D4
    five: int  # side of the "5x5" filters, D5
    last_pool: int  # side of the last maximum's windows, D6
    dropout: float  # D7
    any_map: bool  # auxiliary classifiers average a map of any size to 4x4, D8
    he: bool  # D3, D9
    min_size: int  # a smaller image leaves the last maximum nothing to read


PAPER = Form(
    batch_norm=False, five=5, last_pool=3, dropout=0.4, any_map=False, he=True, min_size=31
)
TORCHVISION = Form(
    batch_norm=True, five=3, last_pool=2, dropout=0.2, any_map=True, he=False, min_size=15
)


class ConvReLU(nn.Module):
    """A 'same' convolution, batch-norm in torchvision's form, ReLU."""

    def __init__(self, form: Form, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            c_in, c_out, kernel, stride, padding=kernel // 2, bias=not form.batch_norm
        )
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3) if form.batch_norm else nn.Identity()  # D4

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches on one map, concatenated (Figure 2b).

    (N, c_in, H, W) -> (N, the sum of their widths, H, W)

    >>> Inception(192, TABLE_1["3a"])(torch.zeros(1, 192, 28, 28)).shape  # 64 + 128 + 32 + 32
    torch.Size([1, 256, 28, 28])
    """

    def __init__(self, c_in: int, row: Row, form: Form = PAPER):
        super().__init__()
        self.branch1 = ConvReLU(form, c_in, row.ones, 1)
        self.branch2 = nn.Sequential(
            ConvReLU(form, c_in, row.reduce3, 1), ConvReLU(form, row.reduce3, row.threes, 3)
        )
        five = ConvReLU(form, row.reduce5, row.fives, form.five)  # D5
        self.branch3 = nn.Sequential(ConvReLU(form, c_in, row.reduce5, 1), five)
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), ConvReLU(form, c_in, row.projected, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1
        )


class Auxiliary(nn.Module):
    """A small classifier on a middle map, in training only (section 5).

    (N, c_in, H, W) -> (N, num_classes)
    """

    def __init__(self, form: Form, c_in: int, num_classes: int):
        super().__init__()
        at_14x14 = nn.Sequential(nn.AdaptiveAvgPool2d(14), nn.AvgPool2d(5, stride=3))  # D2
        self.pool = nn.AdaptiveAvgPool2d(4) if form.any_map else at_14x14  # D8
        self.conv = ConvReLU(form, c_in, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x)).flatten(1)  # (N, 128, 4, 4) -> (N, 2048)
        return self.fc2(self.dropout(torch.relu_(self.fc1(x))))


class Outputs(NamedTuple):
    """In training: logits (N, num_classes) of the network and of its auxiliary classifiers."""

    logits: Tensor
    aux2: Tensor  # on 4d
    aux1: Tensor  # on 4a


class GoogLeNet(nn.Module):
    """Table 1: three convolutions, nine Inception modules, global average, one linear layer."""

    AUXILIARY: ClassVar[tuple[str, ...]] = ("aux1.fc2", "aux2.fc2")
    input_size = 224

    def __init__(self, form: Form, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.min_size = form.min_size

        def pool(window: int = 3) -> nn.MaxPool2d:
            # over the border, so that 224 pixels become 7
            return nn.MaxPool2d(window, stride=2, ceil_mode=True)

        normalisation = nn.Identity if form.batch_norm else ResponseNormalisation  # D1, D4

        def inception(c_in: int, name: str) -> Inception:
            return Inception(c_in, TABLE_1[name], form)

        self.conv1 = ConvReLU(form, in_channels, 64, 7, stride=2)
        self.maxpool1, self.norm1 = pool(), normalisation()
        self.conv2 = ConvReLU(form, 64, 64, 1)  # "#3x3 reduce"
        self.conv3 = ConvReLU(form, 64, 192, 3)
        self.norm2, self.maxpool2 = normalisation(), pool()
        self.inception3a = inception(192, "3a")
        self.inception3b = inception(256, "3b")
        self.maxpool3 = pool()
        self.inception4a = inception(480, "4a")
        self.inception4b = inception(512, "4b")
        self.inception4c = inception(512, "4c")
        self.inception4d = inception(512, "4d")
        self.inception4e = inception(528, "4e")
        self.maxpool4 = pool(form.last_pool)  # D6
        self.inception5a = inception(832, "5a")
        self.inception5b = inception(832, "5b")
        self.aux1 = Auxiliary(form, 512, num_classes)
        self.aux2 = Auxiliary(form, 528, num_classes)
        self.dropout = nn.Dropout(form.dropout)  # D7
        self.fc = nn.Linear(1024, num_classes)
        for m in self.modules():
            initialise(m, form)

    @property
    def head(self) -> nn.Module:
        return self.fc

    def to_3b(self, conv1: Tensor) -> tuple[Tensor, Tensor]:
        """From the first convolution's map to those of the third and of 3b, at 1/4 and 1/8."""
        conv3 = self.conv3(self.conv2(self.norm1(self.maxpool1(conv1))))  # (N, 192, H/4, W/4)
        x = self.maxpool2(self.norm2(conv3))
        return conv3, self.inception3b(self.inception3a(x))  # the latter (N, 480, H/8, W/8)

    def to_4a(self, x: Tensor) -> Tensor:
        """From the map of 3b to what the first auxiliary classifier reads: (N, 512, H/16, W/16)."""
        return self.inception4a(self.maxpool3(x))

    def to_4d(self, x: Tensor) -> Tensor:
        """From there to what the second one reads: (N, 528, H/16, W/16)."""
        return self.inception4d(self.inception4c(self.inception4b(x)))

    def to_5b(self, x: Tensor) -> Tensor:
        """From the map of 4e to the last: (N, 1024, H/32, W/32)."""
        return self.inception5b(self.inception5a(self.maxpool4(x)))

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last map of each size, before pooling: 1/2, 1/4, 1/8, 1/16, 1/32."""
        at_least(self, x)
        conv1 = self.conv1(x)  # (N, 64, H/2, W/2)
        conv3, in_3b = self.to_3b(conv1)
        in_4e = self.inception4e(self.to_4d(self.to_4a(in_3b)))  # (N, 832, H/16, W/16)
        return [conv1, conv3, in_3b, in_4e, self.to_5b(in_4e)]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1024), what the head reads: the mean of the last map's pixels."""
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor | Outputs:
        if not self.training:
            return self.fc(self.embed(x))
        at_least(self, x)
        x = self.to_4a(self.to_3b(self.conv1(x))[1])
        aux1 = self.aux1(x)
        x = self.to_4d(x)
        aux2 = self.aux2(x)
        x = self.to_5b(self.inception4e(x)).mean(dim=(2, 3))
        return Outputs(self.fc(self.dropout(x)), aux2, aux1)


def initialise(m: nn.Module, form: Form) -> None:
    """He's rule keeps activations their size through ReLUs; with batch-norm any scale will do."""
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        if form.he:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")  # D3
        else:
            nn.init.normal_(m.weight, std=0.01)  # D9
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def googlenet(num_classes: int = 1000, in_channels: int = 3) -> GoogLeNet:
    """GoogLeNet as torchvision publishes it: 13,004,888 parameters at 1000 classes.

    Evaluation uses 6,624,904 of them, and not the auxiliary classifiers'.

    >>> googlenet(num_classes=10).eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return GoogLeNet(TORCHVISION, num_classes, in_channels)


def googlenet_2014(num_classes: int = 1000, in_channels: int = 3) -> GoogLeNet:
    """GoogLeNet as the paper describes it: 13,378,280 parameters at 1000 classes.

    Evaluation uses 6,998,552 of them, and not the auxiliary classifiers'.
    """
    return GoogLeNet(PAPER, num_classes, in_channels)
