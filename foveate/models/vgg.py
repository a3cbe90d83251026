"""VGG: nothing but 3x3 convolutions, stacked deep.

Paper   Simonyan, Zisserman. "Very Deep Convolutional Networks for Large-Scale Image Recognition".
        ICLR 2015, arXiv:1409.1556. The `_bn` networks add batch-norm (Ioffe, Szegedy,
        arXiv:1502.03167).
Idea    Two 3x3 convolutions see as much as one of 5x5, three as much as one of 7x7, with fewer
        parameters and a ReLU between them. Fix everything else, double the width as pooling halves
        the size, and add only depth: from 11 layers with weights to 19 the error falls.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_vgg.py:
  D1  batch-norm between each convolution and its ReLU in the `_bn` networks; the paper is older
      than batch-norm.
  D2  the last maps are averaged to 7x7, so that images may have any size from 32 pixels on; at the
      paper's 224 they are 7x7 as they are. The paper slides the linear layers over larger images
      and averages the scores.
  D3  the initialisation is torchvision's: He's rule for convolutions (arXiv:1502.01852), N(0, 0.01)
      for linear layers, no bias. The paper draws all from N(0, 0.01) and starts deep networks from
      the trained layers of column A.
  D4  columns A-LRN and C of Table 1 are left out: the paper found that normalisation did not help,
      and nobody publishes weights for C's 1x1 convolutions.
"""

from torch import Tensor, nn

from foveate.models.size import at_least

YEAR = 2014

# Table 1 by its columns: the widths of the 3x3 convolutions before each of the five max-poolings.
TABLE_1 = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}  # D4


class VGG(nn.Module):
    """A column of Table 1: five stages of 3x3 convolutions and a pooling, three linear layers."""

    input_size = 224
    min_size = 32

    def __init__(
        self,
        column: tuple[tuple[int, ...], ...],
        batch_norm: bool,
        num_classes: int = 1000,
        in_channels: int = 3,
    ):
        super().__init__()
        parts: list[nn.Module] = []
        c_in = in_channels
        for stage in column:
            for width in stage:
                parts.append(nn.Conv2d(c_in, width, 3, padding=1))
                if batch_norm:
                    parts.append(nn.BatchNorm2d(width))  # D1
                parts.append(nn.ReLU(inplace=True))
                c_in = width
            parts.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))  # D2
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        self.apply(initialise)

    @property
    def head(self) -> nn.Module:
        return self.classifier[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the five pooled maps: 1/2, 1/4, 1/8, 1/16 and 1/32 of the input."""
        at_least(self, x)
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4096), what the head reads: the second hidden linear layer."""
        return self.classifier[:-1](self.avgpool(self.stages(x)[-1]).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


def initialise(m: nn.Module) -> None:  # D3
    """He's rule by fan-out for convolutions, a narrow normal for linear layers, biases zero."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        if m.bias is not None:
            nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, std=0.01)
        nn.init.zeros_(m.bias)


def vgg11(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-11, column A: 132,863,336 parameters at 1000 classes.

    >>> import torch
    >>> with torch.device("meta"):  # shapes without the half gigabyte of numbers
    ...     [tuple(m.shape[1:]) for m in vgg11().stages(torch.zeros(1, 3, 224, 224))]
    [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
    """
    return VGG(TABLE_1["A"], batch_norm=False, num_classes=num_classes, in_channels=in_channels)


def vgg13(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-13, column B: 133,047,848 parameters at 1000 classes."""
    return VGG(TABLE_1["B"], batch_norm=False, num_classes=num_classes, in_channels=in_channels)


def vgg16(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-16, column D: 138,357,544 parameters at 1000 classes."""
    return VGG(TABLE_1["D"], batch_norm=False, num_classes=num_classes, in_channels=in_channels)


def vgg19(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-19, column E: 143,667,240 parameters at 1000 classes."""
    return VGG(TABLE_1["E"], batch_norm=False, num_classes=num_classes, in_channels=in_channels)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-11 with batch-norm: 132,868,840 parameters at 1000 classes."""
    return VGG(TABLE_1["A"], batch_norm=True, num_classes=num_classes, in_channels=in_channels)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-13 with batch-norm: 133,053,736 parameters at 1000 classes."""
    return VGG(TABLE_1["B"], batch_norm=True, num_classes=num_classes, in_channels=in_channels)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-16 with batch-norm: 138,365,992 parameters at 1000 classes."""
    return VGG(TABLE_1["D"], batch_norm=True, num_classes=num_classes, in_channels=in_channels)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-19 with batch-norm: 143,678,248 parameters at 1000 classes."""
    return VGG(TABLE_1["E"], batch_norm=True, num_classes=num_classes, in_channels=in_channels)
