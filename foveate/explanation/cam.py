"""Grad-CAM: the last map of a network, each channel weighted by how much the class rises with it.

    Grad-CAM     Selvaraju et al. arXiv:1610.02391
    Grad-CAM++   Chattopadhyay et al. arXiv:1710.11063

No layer is chosen: by the contract of a network its `stages` are its maps, and the last one that
has more than one position is read.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from foveate.errors import UsageError


class Watch(TorchFunctionMode):
    """Finds tensors of known values while a network computes them, so that the gradient with
    respect to them can be taken."""

    def __init__(self, values: list[Tensor]):
        super().__init__()
        self.values = values
        self.found: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.requires_grad and made.dim() == 4:
            for number, value in enumerate(self.values):
                new = number not in self.found and made.shape == value.shape
                if new and torch.equal(made, value):
                    self.found[number] = made
        return made


def reads(network: Any, views: tuple[Tensor, ...]) -> Iterator[tuple[Any, Tensor, bool]]:
    """Each pass through a backbone: it, what it reads, and whether that is a mirror image; view by
    view, (1, C, H, W)."""
    backbones = getattr(network, "readers", None) or [getattr(network, "backbone", network)]
    backbones = backbones if len(backbones) == len(views) else backbones * len(views)
    for backbone, view in zip(backbones, views, strict=True):
        yield backbone, view, False
        if getattr(network, "mirror", False):
            yield backbone, view.flip(3), True


def last_map(backbone: Any, x: Tensor) -> Tensor:
    """The last map that has more than one position; of maps of one each, the last."""
    maps: list[Tensor] = backbone.stages(x)
    return next((m for m in reversed(maps) if m.shape[2] * m.shape[3] > 1), maps[-1])


def grad_cam(
    network: nn.Module, views: tuple[Tensor, ...], classes: list[int], plus: bool = False
) -> list[list[Tensor]]:
    """Of each class, the map of each view, (H_i, W_i), at least 0; a mirror image's is turned back
    and the two are averaged.

    Args:
        network: in evaluation: one that keeps the contract, or a probe.
        views: (1, C, H, W) of each, normalised.
        classes: their numbers.
        plus: Grad-CAM++.

    Raises:
        UsageError: the network's logits do not come of the maps that its `stages` gives.
    """
    passes = list(reads(network, views))
    with torch.no_grad():
        wanted = [last_map(backbone, x) for backbone, x, _ in passes]
    xs = tuple(view.detach().requires_grad_() for view in views)
    with torch.enable_grad(), Watch(wanted) as watch:
        logits = network(*xs)
    if len(watch.found) < len(wanted):
        raise UsageError(
            f"the logits of {type(network).__name__} do not come of the maps that its stages "
            "gives, which Grad-CAM reads: choose the method occlusion or gradients"
        )
    maps = [watch.found[number] for number in range(len(wanted))]
    found = []
    for index in classes:
        slopes = torch.autograd.grad(logits[0, index], maps, retain_graph=True)
        cams = [weighted(m[0], slope[0], plus) for m, slope in zip(maps, slopes, strict=True)]
        turned = [c.flip(1) if p[2] else c for c, p in zip(cams, passes, strict=True)]
        each = len(passes) // len(views)
        found.append(
            [torch.stack(turned[i : i + each]).mean(0) for i in range(0, len(turned), each)]
        )
    return found


@torch.no_grad()
def weighted(maps: Tensor, slopes: Tensor, plus: bool) -> Tensor:
    """The channels' sum by their weights, (C, H, W) -> (H, W), where it is above 0."""
    weights = slopes.mean(dim=(1, 2))
    if plus:  # equation 19, for the exponential of the logit, whose own factor cancels out
        square = slopes**2
        below = 2 * square + maps.sum(dim=(1, 2), keepdim=True) * slopes**3
        alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1.0), 0.0)
        weights = (alpha * slopes.relu()).sum(dim=(1, 2))
    return (weights[:, None, None] * maps).sum(dim=0).relu()
