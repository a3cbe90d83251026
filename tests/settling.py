"""Networks that tests can rely on."""

import torch
from torch import nn

from foveate import models


def settled(name: str) -> nn.Module:
    """Random weights, and batch-norm statistics of a batch: activations neither overflow nor die
    out."""
    torch.manual_seed(0)
    network = models.build(name).eval()
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train().momentum = 1.0
    side = max(128, network.min_size)
    with torch.no_grad():
        network(torch.randn(4, 3, side, side))
    return network.eval()
