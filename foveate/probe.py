"""Transfer: what a frozen backbone says about an image, the network that reads it, and the plan of
what learns on.

A backbone's last map says what ImageNet's classes needed; its earlier maps hold colour, texture and
shape that your classes may need. The probe reads them all (Evci et al., "Head2Toe",
arXiv:2201.03529) and pools each map into one number a channel:

    inner maps   how much the channel varies over the image, and over the centre half of it:
                 sqrt(standard deviation); and how much of it there is: sqrt(mean)
    last map     how much of it there is, as the backbone's own head reads it: sqrt(mean)

The square root (Perronnin et al., ECCV 2010) keeps a few loud channels from drowning the others.
Measured against other ways in docs/decisions/028-what-is-seen.md. Probes of the first pooling read
of the inner maps only how much they vary over the image; their cards say so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate.models.surgery import drop_head

EPSILON = 1e-4  # keeps the slope of the square root finite at 0


POOLING = 2  # number of the pooling; a probe of the first one is read as ever


def pool_stages(maps: list[Tensor], pooling: int = POOLING) -> Tensor:
    """The maps of a network's stages, each (N, C_i, H_i, W_i) -> (N, width)."""
    maps = [m.float() if m.dtype == torch.bfloat16 else m for m in maps]
    spreads = [spread(m) for m in maps[:-1]]
    if pooling == 1:
        return torch.cat([*spreads, level(maps[-1], at_zero=EPSILON**0.5)], dim=1)
    halves = [spread(centre(m)) for m in maps[:-1]]
    return torch.cat([*spreads, *halves, *map(level, maps)], dim=1)


def spread(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the square root of each channel's standard deviation over the
    image."""
    # `level` computes the same mean once more: where they share it, OpenVINO takes a third longer
    variance = (x - x.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3))
    return (variance + EPSILON**2).sqrt().sqrt()


def level(x: Tensor, at_zero: float = 0.0) -> Tensor:
    """(N, C, H, W) -> (N, C), the square root of each channel's mean over the image, with its
    sign; it leaves 0 by a step of `at_zero`, which the first pooling has."""
    mean = x.mean(dim=(2, 3))
    return torch.sign(mean) * (torch.sqrt(mean.abs() + EPSILON) - (EPSILON**0.5 - at_zero))


def centre(x: Tensor) -> Tensor:
    """(N, C, H, W) -> the centre half of each side, rounded up."""
    height, width = x.shape[2:]
    h, w = (height + 1) // 2, (width + 1) // 2
    top, left = (height - h) // 2, (width - w) // 2
    return x[:, :, top : top + h, left : left + w]


def pooled_view(network: Any, x: Tensor, mirror: bool, pooling: int = POOLING) -> Tensor:
    """(N, C, H, W) -> what is read of one view, (N, width)."""
    found = pool_stages(network.stages(x), pooling)
    if mirror:
        found = (found + pool_stages(network.stages(x.flip(3)), pooling)) / 2
    return found


def pooled_width(network: Any, image: Tensor) -> int:
    """Numbers that an image is pooled to."""
    *inner, last = (m.shape[1] for m in network.stages(image))
    return 3 * sum(inner) + last


class PooledStages(nn.Module):
    """(N, C, H, W) -> (N, width): what the probe reads of a backbone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network: Any = network

    def forward(self, x: Tensor) -> Tensor:
        return pool_stages(self.network.stages(x))


class Probe(nn.Module):
    """A backbone, its pooled stages, one linear layer: a network like any other.

    Args:
        network: of the canon; its own head is removed, in place.
        width: numbers that all views of an image are pooled to.
        num_classes: outputs.
        mirror: pool the image and its mirror image, and average the two.
        pooling: its number.
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        num_classes: int,
        mirror: bool = False,
        pooling: int = POOLING,
    ):
        super().__init__()
        self.backbone: Any = drop_head(network)
        self.linear = nn.Linear(width, num_classes)
        self.mirror, self.pooling = mirror, pooling

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the backbone's maps."""
        maps: list[Tensor] = self.backbone.stages(x)
        return maps

    def embed(self, *views: Tensor) -> Tensor:
        """(N, C, H, W) of each view -> (N, width)"""
        pooled = [pooled_view(self.backbone, view, self.mirror, self.pooling) for view in views]
        return torch.cat(pooled, dim=1)

    def forward(self, *views: Tensor) -> Tensor:
        return self.head(self.embed(*views))


class JoinedProbe(nn.Module):
    """Several backbones, each with views of its own, and one linear layer on all that they see.

    Args:
        networks: their heads are removed, in place.
        views: how many each reads, in this order.
        width: numbers that an image is pooled to by all.
        num_classes: outputs.
        mirror: pool each view and its mirror image, and average the two.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        views: Sequence[int],
        width: int,
        num_classes: int,
        mirror: bool = False,
    ):
        super().__init__()
        self.mirror = mirror
        self.backbones = nn.ModuleList(drop_head(network) for network in networks)
        self.readers = [
            backbone for backbone, n in zip(self.backbones, views, strict=True) for _ in range(n)
        ]
        self.linear = nn.Linear(width, num_classes)

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def stages(self, *views: Tensor) -> list[Tensor]:
        """(N, C, H, W) of each view -> the maps of all, view by view."""
        pairs: Any = zip(self.readers, views, strict=True)
        return [m for backbone, view in pairs for m in backbone.stages(view)]

    def embed(self, *views: Tensor) -> Tensor:
        """(N, C, H, W) of each view -> (N, width)"""
        pairs: Any = zip(self.readers, views, strict=True)
        pooled = [pooled_view(backbone, view, self.mirror) for backbone, view in pairs]
        return torch.cat(pooled, dim=1)

    def forward(self, *views: Tensor) -> Tensor:
        return self.head(self.embed(*views))


class Features(nn.Module):
    """What the head of a probe reads: (N, C, H, W) of each view -> (N, width); or logits, and after
    them what it reads: (N, classes + width).

    Args:
        probe: a Probe or a JoinedProbe.
        logits: whether they come first.
    """

    def __init__(self, probe: Any, logits: bool = False):
        super().__init__()
        self.probe, self.logits = probe, logits

    def forward(self, *views: Tensor) -> Tensor:
        features: Tensor = self.probe.embed(*views)
        return torch.cat([self.probe.head(features), features], dim=1) if self.logits else features
