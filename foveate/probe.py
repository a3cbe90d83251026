"""Transfer: what a frozen backbone says about an image, the network that reads it, and the plan of
what learns on.

A backbone's last map says what ImageNet's classes needed; its earlier maps hold colour, texture and
shape that your classes may need. The probe reads them all (Evci et al., "Head2Toe",
arXiv:2201.03529) and pools each map into one number a channel:

    inner maps   how much the channel varies over the image: sqrt(standard deviation)
    last map     how much of it there is, as the backbone's own head reads it: sqrt(mean)

The square root (Perronnin et al., ECCV 2010) keeps a few loud channels from drowning the others.
Measured against the plain mean of every map in docs/LOG.md.
"""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.models.surgery import drop_head

EPSILON = 1e-4  # keeps the slope of the square root finite at 0


def pool_stages(maps: list[Tensor]) -> Tensor:
    """The maps of a network's stages, each (N, C_i, H_i, W_i) -> (N, C_1 + ... + C_n)."""
    maps = [m.float() if m.dtype == torch.bfloat16 else m for m in maps]
    inner = [spread(m) for m in maps[:-1]]
    mean = maps[-1].mean(dim=(2, 3))
    last = torch.sign(mean) * torch.sqrt(mean.abs() + EPSILON)
    return torch.cat([*inner, last], dim=1)


def spread(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the square root of each channel's standard deviation over the
    image."""
    variance = (x - x.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3))
    return (variance + EPSILON**2).sqrt().sqrt()


def pooled_width(network: Any, image: Tensor) -> int:
    """Numbers that an image is pooled to: the sum of the channels of the stages' maps."""
    return sum(m.shape[1] for m in network.stages(image))


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
        width: numbers an image is pooled to, the sum of the stages' channels.
        num_classes: outputs.
        mirror: pool the image and its mirror image, and average the two.
    """

    def __init__(self, network: nn.Module, width: int, num_classes: int, mirror: bool = False):
        super().__init__()
        self.backbone: Any = drop_head(network)
        self.linear = nn.Linear(width, num_classes)
        self.mirror = mirror

    @property
    def head(self) -> nn.Linear:
        return self.linear

    def stages(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the backbone's maps."""
        maps: list[Tensor] = self.backbone.stages(x)
        return maps

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width)"""
        pooled = pool_stages(self.stages(x))
        if self.mirror:
            pooled = (pooled + pool_stages(self.stages(x.flip(3)))) / 2
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))
