"""A network whose weights are made random from the head on (Adebayo et al. "Sanity Checks for
Saliency Maps". arXiv:1810.03292)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from foveate.explanation.cam import reads


def randomised(network: Any, views: tuple[Tensor, ...]) -> dict[str, Any]:
    """Copies of the network by what of them is random: the head, then the last stage too.

    Args:
        network: in evaluation.
        views: (1, C, H, W) of each, as the network reads them, of any image.
    """
    noise = torch.Generator().manual_seed(0)
    first = copy.deepcopy(network)
    for parameter in first.head.parameters():
        shuffle(parameter, noise)
    second = copy.deepcopy(first)
    for parameter in last_stage(second, views):
        shuffle(parameter, noise)
    return {"the head": first, "the last stage": second}


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
    """Numbers of the parameters on which an output depends, by the graph of its gradient."""
    numbers = {id(parameter): i for i, parameter in enumerate(parameters)}
    found, seen, waiting = set[int](), set[Any](), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        if (leaf := getattr(node, "variable", None)) is not None and id(leaf) in numbers:
            found.add(numbers[id(leaf)])
    return found
