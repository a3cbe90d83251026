"""EfficientNet-Lite: EfficientNet made of nothing but what phones and 8-bit arithmetic run well.

Paper   Liu. "Higher accuracy on vision models with EfficientNet-Lite". TensorFlow blog, March 2020;
        the code is in tensorflow/tpu. The network it starts from: Tan, Le. "EfficientNet", ICML
        2019, arXiv:1905.11946.
Idea    Take out what an accelerator stumbles over. Squeeze-and-excitation goes: it waits for the
        whole map before any pixel can go on. SiLU becomes ReLU6: in 8 bits the range of every map
        has to be known, and now it is 0 to 6. Stem and last convolution are not widened, first and
        last stage not deepened: the scaled networks stay small.
Input   images (N, C, H, W), float, normalised as the weights' Preprocess says.
Output  logits (N, num_classes), before softmax.
Names   of parameters are those of torchvision's EfficientNet, which has no Lite; the published
        files are renamed.

Differences from the paper, each asserted in tests/models/test_efficientnet_lite.py:
  D1  batch-norm's momentum is torch's 0.1; the authors' is 0.01.
  D2  depthwise convolutions start sqrt(channels) times narrower than in the authors' code, as those
      of efficientnet.py (D4 there).
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from foveate.models.efficientnet import (
    LAST,
    STEM,
    TABLE_1,
    StochasticDepth,
    Variant,
    initialise,
    scale_depth,
    scale_width,
)

YEAR = 2020

VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224, 0.2, eps=1e-3),
    "efficientnet_lite1": Variant(1.0, 1.1, 240, 0.2, eps=1e-3),
    "efficientnet_lite2": Variant(1.1, 1.2, 260, 0.3, eps=1e-3),
    "efficientnet_lite3": Variant(1.2, 1.4, 280, 0.3, eps=1e-3),
    "efficientnet_lite4": Variant(1.4, 1.8, 300, 0.3, eps=1e-3),
}


class ConvSame(nn.Conv2d):
    """A convolution padded as TensorFlow does, the odd pixel of padding right and below.

    (N, c_in, H, W) -> (N, c_out, ceil(H / stride), ceil(W / stride))
    """

    def forward(self, x: Tensor) -> Tensor:
        (h, w), (kernel, _), (stride, _) = x.shape[2:], self.kernel_size, self.stride
        dy = max((math.ceil(h / stride) - 1) * stride + kernel - h, 0)
        dx = max((math.ceil(w / stride) - 1) * stride + kernel - w, 0)
        return super().forward(F.pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2)))


def conv_bn(
    v: Variant, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A 'same' convolution without bias, and its batch-norm."""
    if stride > 1:
        conv: nn.Conv2d = ConvSame(c_in, c_out, kernel, stride, groups=groups, bias=False)
    else:  # even padding is TensorFlow's too
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out, v.eps, v.momentum)]  # D1


class MBConv(nn.Module):
    """Widen, filter each channel by itself, narrow; add the input where shapes agree.

    (N, c_in, H, W) -> (N, c_out, H/stride, W/stride)
    """

    def __init__(
        self, v: Variant, c_in: int, c_out: int, expand: int, kernel: int, stride: int, drop: float
    ):
        super().__init__()
        wide = c_in * expand
        widen = (
            [nn.Sequential(*conv_bn(v, c_in, wide), nn.ReLU6(inplace=True))] if expand != 1 else []
        )
        each = nn.Sequential(
            *conv_bn(v, wide, wide, kernel, stride, groups=wide), nn.ReLU6(inplace=True)
        )
        # no activation: the bottleneck stays linear
        narrow = nn.Sequential(*conv_bn(v, wide, c_out))
        self.block = nn.Sequential(*widen, each, narrow)
        self.adds = stride == 1 and c_in == c_out
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + self.stochastic_depth(y) if self.adds else y


class EfficientNetLite(nn.Module):
    """EfficientNet's Table 1, of which only the inner rows are scaled."""

    min_size = 1

    def __init__(self, v: Variant, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.input_size = v.resolution
        inner = [scale_depth(row.depth, v.depth) for row in TABLE_1[1:-1]]
        depths = [TABLE_1[0].depth, *inner, TABLE_1[-1].depth]

        parts: list[nn.Module] = [
            nn.Sequential(*conv_bn(v, in_channels, STEM, 3, stride=2), nn.ReLU6(inplace=True))
        ]
        c_in, built = STEM, 0
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
        parts.append(nn.Sequential(*conv_bn(v, c_in, LAST), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Dropout(v.dropout, inplace=True), nn.Linear(LAST, num_classes)
        )
        self.apply(initialise)  # D2

    @property
    def head(self) -> nn.Module:
        return self.classifier[1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of the seven MBConv rows and of the last convolution.

        At H/2, H/4, H/8, H/16, H/16, H/32, H/32, and H/32.
        """
        maps = [self.features[0](x)]  # (N, 32, H/2, W/2): the stem, no row of its own
        for stage in self.features[1:]:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1280), what the head reads: the mean of the last map's pixels."""
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def efficientnet_lite0(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """EfficientNet-Lite0: 4,652,008 parameters at 1000 classes.

    >>> import torch
    >>> efficientnet_lite0(num_classes=10)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    return EfficientNetLite(VARIANTS["efficientnet_lite0"], num_classes, in_channels)


def efficientnet_lite1(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """EfficientNet-Lite1: 5,416,680 parameters at 1000 classes."""
    return EfficientNetLite(VARIANTS["efficientnet_lite1"], num_classes, in_channels)


def efficientnet_lite2(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """EfficientNet-Lite2: 6,092,072 parameters at 1000 classes."""
    return EfficientNetLite(VARIANTS["efficientnet_lite2"], num_classes, in_channels)


def efficientnet_lite3(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """EfficientNet-Lite3: 8,197,096 parameters at 1000 classes."""
    return EfficientNetLite(VARIANTS["efficientnet_lite3"], num_classes, in_channels)


def efficientnet_lite4(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """EfficientNet-Lite4: 13,006,568 parameters at 1000 classes."""
    return EfficientNetLite(VARIANTS["efficientnet_lite4"], num_classes, in_channels)
