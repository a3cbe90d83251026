"""Batch-norms whose statistics are frozen, folded into the convolutions before them, while a
network is trained.

With frozen statistics a batch-norm multiplies each channel by a number and adds another. Both may
as well be done to the convolution's weights, which are thousands of times fewer than the pixels of
its map:

    norm(conv(x, w)) = conv(x, w) * s + t = conv(x, w * s) + t     with s = gamma / sqrt(var + eps),
    t = beta - mean * s

Autograd goes through w * s to the same w, gamma and beta, so that a step is the same but for
rounding; a quarter of its time and the maps that batch-norm keeps for its backward are saved
(docs/LOG.md).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AGREE = 1e-2  # of the largest output: far above rounding, far below another network


class FoldedConv2d(nn.Module):
    """A convolution and the frozen batch-norm behind it, as one. Its parameters are theirs."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        weight = conv.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def folded(network: nn.Module, size: tuple[int, int, int]) -> nn.Module:
    """The network to call instead of a network, in the modes that it has now; it has the very same
    tensors.

    A pair is found by its tensor: what the batch-norm reads is what the convolution gave. Whether
        nothing else reads it
    is not asked but tried: if the outputs differ, nothing is folded.

    Args:
        network: with its frozen batch-norms in evaluation. It is not changed.
        size: of an image, (channels, height, width).
    """
    frozen = {name for name, module in network.named_modules() if foldable(module)}
    if not frozen:
        return network
    still = copy.deepcopy(network).eval()
    parameter = next(network.parameters())
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)).to(parameter.device)
    with torch.no_grad():
        pairs = [(conv, norm) for conv, norm in adjacent(still, x) if norm in frozen]
        expected, found = still(x), fold(still, pairs)(x)
    if float((found - expected).abs().max()) > AGREE * max(1.0, float(expected.abs().max())):
        return network
    return fold(network, pairs)


def foldable(module: nn.Module) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and not module.training
        and module.affine
        and module.track_running_stats
    )


def adjacent(network: nn.Module, x: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch-norms that read what they give."""
    gave: dict[int, str] = {}
    alive: list[Tensor] = []  # so that no two tensors share an address
    pairs: list[tuple[str, str]] = []

    def after_conv(name: str, output: Tensor) -> None:
        gave[id(output)] = name
        alive.append(output)

    def before_norm(name: str, given: Tensor) -> None:
        if id(given) in gave:
            pairs.append((gave.pop(id(given)), name))

    hooks = []
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            hooks.append(
                module.register_forward_hook(
                    lambda _, __, output, name=name: after_conv(name, output)
                )
            )
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, given, name=name: before_norm(name, given[0])
                )
            )
    network(x)
    for hook in hooks:
        hook.remove()
    return pairs


def fold(network: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """A copy with the same tensors, in which each pair is one module."""
    shared = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    twin = copy.deepcopy(network, shared)
    for conv, norm in pairs:
        before, after = twin.get_submodule(conv), twin.get_submodule(norm)
        assert isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)
        twin.set_submodule(conv, FoldedConv2d(before, after))
        twin.set_submodule(norm, nn.Identity())
    return twin
