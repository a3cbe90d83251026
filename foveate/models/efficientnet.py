"""EfficientNet: one searched block, scaled in depth, width and resolution by a single coefficient.

Paper   Tan, Le. "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks". ICML
        2019, arXiv:1905.11946. The block is MobileNetV2's (Sandler et al., arXiv:1801.04381) with
        squeeze-and-excitation (Hu et al., arXiv:1709.01507).
Idea    A network that is only deeper, only wider or only fed larger images soon stops improving.
        Grow all three together: depth alpha^phi, width beta^phi, resolution gamma^phi, with
        alpha * beta^2 * gamma^2 = 2, so that phi + 1 costs about twice the work of phi.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of the published torchvision files, so that they load as they are.

Differences from the paper, each asserted in tests/models/test_efficientnet.py:
  D1  B4 to B7 are the published networks, not what compound_scaling() gives: the authors departed
      from their rule.
  D2  B0 to B7 pad evenly, as torchvision's files were converted; the paper's own code pads as
      TensorFlow does.
  D3  batch-norm: eps and momentum of torchvision's builders (1e-5 and 0.1 up to B4, 1e-3 and 0.01
      from B5).
  D4  depthwise convolutions start sqrt(channels) times narrower than in the authors' code, which
      draws them by He's rule (arXiv:1502.01852) by fan-out: torch's fan-out, and so torchvision's
      networks, forget the groups. The paper names no initialisation.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

YEAR = 2019


class Row(NamedTuple):
    """One MBConv row of the paper's Table 1, at B0's size."""

    expand: int  # how many times the block widens its input before the depthwise convolution
    kernel: int
    stride: int  # of the first layer; the others have 1
    width: int  # output channels
    depth: int  # layers


TABLE_1 = (
    Row(expand=1, kernel=3, stride=1, width=16, depth=1),  # H/2
    Row(expand=6, kernel=3, stride=2, width=24, depth=2),  # H/4
    Row(expand=6, kernel=5, stride=2, width=40, depth=2),  # H/8
    Row(expand=6, kernel=3, stride=2, width=80, depth=3),  # H/16
    Row(expand=6, kernel=5, stride=1, width=112, depth=3),  # H/16
    Row(expand=6, kernel=5, stride=2, width=192, depth=4),  # H/32
    Row(expand=6, kernel=3, stride=1, width=320, depth=1),  # H/32
)
STEM, LAST = 32, 1280  # channels of the first and the last convolution
# Growth of depth, width and resolution per unit of phi: a grid search at B0.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15


class Variant(NamedTuple):
    """How one published network scales Table 1."""

    width: float
    depth: float
    resolution: int  # side of the training images, pixels
    dropout: float
    eps: float = 1e-5  # D3
    momentum: float = 0.1  # D3


VARIANTS = {
    "efficientnet_b0": Variant(1.0, 1.0, 224, 0.2),
    "efficientnet_b1": Variant(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": Variant(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": Variant(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": Variant(1.4, 1.8, 380, 0.4),  # D1, from here on
    "efficientnet_b5": Variant(1.6, 2.2, 456, 0.4, eps=1e-3, momentum=0.01),
    "efficientnet_b6": Variant(1.8, 2.6, 528, 0.5, eps=1e-3, momentum=0.01),
    "efficientnet_b7": Variant(2.0, 3.1, 600, 0.5, eps=1e-3, momentum=0.01),
}


def compound_scaling(phi: float) -> tuple[float, float, int]:
    """The paper's rule (section 3.3): one coefficient in, the three scales out.

    Args:
        phi: how much more work is allowed; the cost grows as 2^phi.

    Returns:
        (width, depth, resolution): two factors on Table 1, to one decimal as they are published,
        and the images' side in pixels, to the nearest 20.

    >>> [compound_scaling(phi) for phi in (0.5, 1, 2)]  # B1, B2, B3
    [(1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 300)]
    """
    return round(BETA**phi, 1), round(ALPHA**phi, 1), 20 * round(224 * GAMMA**phi / 20)


def scale_width(channels: int, factor: float) -> int:
    """Channels times a factor, to the nearest multiple of 8, never more than 10 % below."""
    nearest = max(8, int(channels * factor + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * factor else nearest


def scale_depth(layers: int, factor: float) -> int:
    """Layers times a factor, rounded up."""
    return math.ceil(layers * factor)


def conv_bn(
    v: Variant, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A 'same' convolution without bias, and its batch-norm."""
    # D2
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out, v.eps, v.momentum)]


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what the whole image says.    (N, C, H, W) -> the same"""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(weight))))


class StochasticDepth(nn.Module):
    """In training, drop an image's whole residual branch with probability p.

    Huang et al., arXiv:1603.09382.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.p
        return x * keep / (1 - self.p)


class MBConv(nn.Module):
    """Widen, filter each channel by itself, weigh, narrow; add the input where shapes agree.

    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)
    """

    def __init__(
        self, v: Variant, c_in: int, c_out: int, expand: int, kernel: int, stride: int, drop: float
    ):
        super().__init__()
        wide = c_in * expand
        widen = (
            [nn.Sequential(*conv_bn(v, c_in, wide), nn.SiLU(inplace=True))] if expand != 1 else []
        )
        each = nn.Sequential(
            *conv_bn(v, wide, wide, kernel, stride, groups=wide), nn.SiLU(inplace=True)
        )
        weigh = SqueezeExcitation(wide, max(1, c_in // 4))
        # no activation: the bottleneck stays linear
        narrow = nn.Sequential(*conv_bn(v, wide, c_out))
        self.block = nn.Sequential(*widen, each, weigh, narrow)
        self.adds = stride == 1 and c_in == c_out
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + self.stochastic_depth(y) if self.adds else y


class EfficientNet(nn.Module):
    """Table 1, scaled: stem, seven stages of MBConv, 1x1 convolution, average, linear layer."""

    min_size = 1

    def __init__(self, v: Variant, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.input_size = v.resolution
        stem, last = scale_width(STEM, v.width), scale_width(LAST, v.width)
        depths = [scale_depth(row.depth, v.depth) for row in TABLE_1]
        parts: list[nn.Module] = [
            nn.Sequential(*conv_bn(v, in_channels, stem, 3, stride=2), nn.SiLU(inplace=True))
        ]
        c_in, built = stem, 0
        for row, depth in zip(TABLE_1, depths, strict=True):
            c_out = scale_width(row.width, v.width)
            stage = []
            for i in range(depth):
                drop = 0.2 * built / sum(depths)  # rises from 0 to 0.2 with depth
                stage.append(
                    MBConv(
                        v, c_in, c_out, row.expand, row.kernel, row.stride if i == 0 else 1, drop
                    )
                )
                c_in, built = c_out, built + 1
            parts.append(nn.Sequential(*stage))
        parts.append(nn.Sequential(*conv_bn(v, c_in, last), nn.SiLU(inplace=True)))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Dropout(v.dropout, inplace=True), nn.Linear(last, num_classes)
        )
        self.apply(initialise)

    @property
    def head(self) -> nn.Module:
        return self.classifier[1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of the seven MBConv rows and of the last convolution.

        At H/2, H/4, H/8, H/16, H/16, H/32, H/32, and H/32.
        """
        maps = [self.features[0](x)]  # (N, 32w, H/2, W/2): the stem, no row of its own
        for stage in self.features[1:]:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1280w), what the head reads: the mean of the last map's pixels."""
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def initialise(m: nn.Module) -> None:
    """Torchvision's: He's rule for convolutions, the authors' uniform one for the last layer."""
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(m.weight, mode="fan_out")  # D4
    elif isinstance(m, nn.Linear):
        bound = m.out_features**-0.5
        nn.init.uniform_(m.weight, -bound, bound)
    if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None:
        nn.init.zeros_(m.bias)


def efficientnet_b0(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B0: 5,288,548 parameters at 1000 classes.

    >>> efficientnet_b0(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return EfficientNet(VARIANTS["efficientnet_b0"], num_classes, in_channels)


def efficientnet_b1(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B1: 7,794,184 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b1"], num_classes, in_channels)


def efficientnet_b2(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B2: 9,109,994 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b2"], num_classes, in_channels)


def efficientnet_b3(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B3: 12,233,232 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b3"], num_classes, in_channels)


def efficientnet_b4(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B4: 19,341,616 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b4"], num_classes, in_channels)


def efficientnet_b5(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B5: 30,389,784 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b5"], num_classes, in_channels)


def efficientnet_b6(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B6: 43,040,704 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b6"], num_classes, in_channels)


def efficientnet_b7(num_classes: int = 1000, in_channels: int = 3) -> EfficientNet:
    """EfficientNet-B7: 66,347,960 parameters at 1000 classes."""
    return EfficientNet(VARIANTS["efficientnet_b7"], num_classes, in_channels)
