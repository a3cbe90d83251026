"""Integrated gradients: the slopes of the logit on the way from no image to this one (Sundararajan,
Taly, Yan. "Axiomatic Attribution for Deep Networks". arXiv:1703.01365).

    value(pixel) = (x - x0) * mean over the way of d logit / d x

The values of all pixels sum to what the logit gains from the baseline x0, here the mean colour, as
far as the steps are fine enough: `total` beside the gain says how far.
"""

import torch
from torch import Tensor, nn

STEPS = 32  # points on the way, of Gauss and Legendre
BATCH = 8  # points at once


def integrated_gradients(
    network: nn.Module, views: tuple[Tensor, ...], index: int, steps: int = STEPS
) -> tuple[list[Tensor], float]:
    """The map of each view, (H, W), summed over the channels; and what the logit gains.

    Args:
        network: in evaluation.
        views: (1, C, H, W) of each, normalised; the baseline is 0, the mean colour.
        index: of the class.
        steps: points on the way.
    """
    points, weights = legendre(steps)
    slopes = [torch.zeros_like(view[0]) for view in views]
    for begin in range(0, steps, BATCH):
        part = slice(begin, begin + BATCH)
        scale = points[part].to(views[0])[:, None, None, None]
        xs = [(scale * view).detach().requires_grad_() for view in views]
        with torch.enable_grad():
            logits = network(*xs)[:, index]
        share = weights[part].to(views[0])[:, None, None, None]
        for slope, each in zip(slopes, torch.autograd.grad(logits.sum(), xs), strict=True):
            slope += (share * each).sum(dim=0)
    with torch.no_grad():
        gain = network(*views)[0, index] - network(*map(torch.zeros_like, views))[0, index]
    maps = [(view[0] * slope).sum(dim=0) for view, slope in zip(views, slopes, strict=True)]
    return maps, float(gain)


def legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Points and weights for an integral from 0 to 1."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
