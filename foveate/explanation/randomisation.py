"""A network whose weights are made random from the head on (Adebayo et al. "Sanity Checks for
Saliency Maps". arXiv:1810.03292)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from foveate.explanation.cam import reads


def randomised(network: Any, views: tuple[Tensor, ...]) -> Iterator[tuple[str, nn.Module]]:
    """The network with a random head, then with a random last stage too. It is changed in place:
    use each before the next.

    Args:
        network: in evaluation.
        views: (1, C, H, W) of each, as the network reads them.
    """
    noise = torch.Generator().manual_seed(0)
    last = last_stage(network, views)
    for part, parameters in (
        ("the head", list(network.head.parameters())),
        ("the last stage", last),
    ):
        for parameter in parameters:
            shuffle(parameter, noise)
        yield part, network


@torch.no_grad()
def shuffle(parameter: Tensor, noise: torch.Generator) -> None:
    """The same numbers in another order: their size stays what the network is made for."""
    order = torch.randperm(parameter.numel(), generator=noise)
    parameter.copy_(parameter.flatten()[order].view_as(parameter))


def last_stage(network: Any, views: tuple[Tensor, ...]) -> list[nn.Parameter]:
    """The parameters on which only the last map depends, of each backbone; all of them where there
    is one map."""
    found: dict[int, nn.Parameter] = {}
    for backbone, x, _ in reads(network, views):
        parameters = [p for p in backbone.parameters() if p.requires_grad]
        with torch.enable_grad():
            maps = backbone.stages(x)
        of_last = reached(maps[-1], parameters)
        before = reached(maps[-2], parameters) if len(maps) > 1 else set()
        found |= {i: parameters[i] for i in of_last - before}
    return list(found.values())


def reached(output: Tensor, parameters: list[nn.Parameter]) -> set[int]:
    """Numbers of the parameters on which an output depends."""
    slopes = torch.autograd.grad(output.sum(), parameters, retain_graph=True, allow_unused=True)
    return {i for i, slope in enumerate(slopes) if slope is not None}
