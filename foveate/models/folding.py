"""Batch-norms with fixed statistics, folded into the convolutions before them: one layer for two.

With fixed statistics a batch-norm multiplies each channel by a number and adds another. Both may as
well be done to the convolution's weights, which are thousands of times fewer than the pixels of its
map:

    norm(conv(x, w)) = conv(x, w) * s + t = conv(x, w * s) + t
    s = gamma / sqrt(var + eps),  t = beta - mean * s

`folded` is for training: it keeps the parameters, and autograd goes through w * s to the same w,
gamma and beta, so that a step is the same but for rounding; a quarter of its time is saved, and the
maps that batch-norm keeps for its backward (docs/LOG.md). `fold_batchnorm` is for export: it
multiplies the weights once and for all, and the exporter has a third fewer nodes to trace.

Both find the pairs by running the network once, and both fold nothing if the outputs then differ:
something else may read what a convolution gives.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

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

    Args:
        network: with its frozen batch-norms in evaluation. It is not changed.
        size: of an image, (channels, height, width).

    Returns:
        Another network; or this one, where there is nothing to fold or the outputs would differ.
    """
    frozen = {name for name, module in network.named_modules() if foldable(module)}
    if not frozen:
        return network
    still = copy.deepcopy(network).eval()
    parameter = next(network.parameters())
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)).to(parameter.device)
    with torch.no_grad():
        expected, pairs = adjacent(still, x)
        pairs = [
            (conv, norm)
            for conv, norm in pairs
            if norm in frozen and is_plain(network.get_submodule(conv))
        ]
        agrees = agree(fold(still, pairs)(x), expected)
    return fold(network, pairs) if agrees else network


def fold_batchnorm(network: nn.Module, *views: Tensor) -> None:
    """Multiply each batch-norm that reads a convolution's output into that convolution, in place.

    Args:
        network: in evaluation. Its folded norms become identities; it is left as it is if its
            outputs would differ.
        views: what it reads, one batch of each; better random than constant, for it is compared on
            these.
    """
    with torch.no_grad():
        expected, pairs = adjacent(network, *views)
        pairs = [pair for pair in pairs if foldable(network.get_submodule(pair[1]))]
        before = [copy.copy(network.get_submodule(conv)._parameters) for conv, _ in pairs]
        norms = {network.get_submodule(norm) for _, norm in pairs}
        for conv, norm in pairs:
            multiply_in(network.get_submodule(conv), network.get_submodule(norm))
        places = [
            (parent, name, child)
            for parent in network.modules()
            for name, child in parent.named_children()
            if child in norms
        ]
        for parent, name, _ in places:
            setattr(parent, name, nn.Identity())
        if not agree(network(*views), expected):
            for parent, name, child in places:
                setattr(parent, name, child)
            for (conv, _), parameters in zip(pairs, before, strict=True):
                network.get_submodule(conv)._parameters = parameters


def multiply_in(conv: nn.Module, norm: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def foldable(module: nn.Module) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and not module.training
        and module.affine
        and module.track_running_stats
    )


def is_plain(module: nn.Module) -> bool:
    """A convolution that `FoldedConv2d` can compute: none that pads in a way of its own."""
    return type(module) is nn.Conv2d and module.padding_mode == "zeros"


def agree(found: Tensor, expected: Tensor) -> bool:
    """The same outputs, but for rounding."""
    return float((found - expected).abs().max()) <= AGREE * max(1.0, float(expected.abs().max()))


def adjacent(network: nn.Module, *views: Tensor) -> tuple[Tensor, list[tuple[str, str]]]:
    """The network's output, and the names of convolutions and of the batch-norms that read what
    they give.

    A pair is found by its tensor: what the batch-norm reads is what the convolution gave, and
    nothing has written into it since. A layer that runs more than once is in no pair.
    """
    gave: dict[tuple[int, int], str] = {}
    alive: list[Tensor] = []  # so that no two tensors share an address
    pairs: list[tuple[str, str]] = []
    runs: list[str] = []

    def after_conv(name: str, output: Tensor) -> None:
        runs.append(name)
        gave[id(output), output._version] = name
        alive.append(output)

    def before_norm(name: str, given: Tensor) -> None:
        runs.append(name)
        if (id(given), given._version) in gave:
            pairs.append((gave[id(given), given._version], name))

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
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
    try:
        output: Tensor = network(*views)
    finally:
        for hook in hooks:
            hook.remove()
    read = [conv for conv, _ in pairs]
    return output, [
        (conv, norm)
        for conv, norm in pairs
        if runs.count(conv) == runs.count(norm) == read.count(conv) == 1
    ]


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
