"""Change a network's ends without knowing which network it is.

Transfer learning in three lines:

>>> from foveate.models import build
>>> network = build("resnet18")  # with weights: foveate.build("resnet18", weights="imagenet")
>>> replace_head(network, 10).head
Linear(in_features=512, out_features=10, bias=True)
"""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Module = TypeVar("Module", bound=nn.Module)


def drop_head(network: Module) -> Module:
    """Replace the last layer by an identity, in place, and return the network: the backbone."""
    parent, name = place(network, next(last_layers(network)))
    setattr(parent, name, nn.Identity())
    return network


def replace_head(network: Module, num_classes: int) -> Module:
    """Give a network fresh last layers for other classes, in place, and leave the rest as it is.

    The auxiliary classifiers of GoogLeNet and Inception get theirs too: their layers are named in
    the class's `AUXILIARY`. A convolutional head (NiN, SqueezeNet) stays a convolution.

    Args:
        network: any of the canon, or a module with a `head`.
        num_classes: outputs, at least 1.

    Returns:
        The network.

    Raises:
        ValueError: num_classes is below 1; there is no last layer whose like can be made.
    """
    if num_classes < 1:
        raise ValueError(f"a head has at least one output, got num_classes={num_classes}")
    for head in last_layers(network):
        parent, name = place(network, head)
        setattr(parent, name, with_outputs(head, num_classes))
    return network


def set_in_channels(network: Module, channels: int) -> Module:
    """Let a network read images of other channels, in place, keeping what its first convolution
    has learned.

    From colour to grey the filters are summed: a grey image gets the answer that it got as three
    equal channels. To other numbers the filters' mean is repeated and scaled by old / new, so that
    the sums keep their size.

    Args:
        network: any of the canon.
        channels: at least 1.

    Returns:
        The network.

    Raises:
        ValueError: channels is below 1; there is no convolution, or one in groups or lazy.

    >>> from foveate.models import build
    >>> set_in_channels(build("resnet18"), 1).conv1.weight.shape
    torch.Size([64, 1, 7, 7])
    """
    if channels < 1:
        raise ValueError(f"images have at least one channel, got channels={channels}")
    first = first_convolution(network)
    if first is None:
        raise ValueError(f"{type(network).__name__} has no convolution that reads the image")
    if channels == first.in_channels:
        return network
    if first.groups != 1 or is_lazy(first.weight):
        kind = "in groups" if first.groups != 1 else "lazy, without weights yet"
        raise ValueError(
            f"the first convolution of {type(network).__name__} is {kind}: its channels cannot be "
            "changed"
        )
    with torch.no_grad():
        mean = first.weight.mean(dim=1, keepdim=True)  # (C_out, 1, k, k)
        weight = mean.repeat(1, channels, 1, 1) * (first.in_channels / channels)
    first.in_channels = channels
    first.weight = nn.Parameter(weight, requires_grad=first.weight.requires_grad)
    return network


def first_convolution(network: nn.Module) -> nn.Conv2d | None:
    """The convolution that reads the image; None where there is none."""
    return next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)


def ends(network: nn.Module) -> tuple[str, str]:
    """The names of the last layer and of the first convolution of a network of the canon, the two
    that depend on classes and channels.

    >>> from foveate.models import build
    >>> ends(build("resnet18"))
    ('fc', 'conv1')
    """
    paths = {module: path for path, module in network.named_modules()}
    first = first_convolution(network)
    assert first is not None and isinstance(network.head, nn.Module)
    return paths[network.head], paths[first]


def last_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The head, and the last layer of each auxiliary classifier that the network was built with."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Module):
        raise ValueError(
            f"{type(network).__name__} has no `head`, its last layer, a module inside it"
        )
    yield head
    for path in getattr(network, "AUXILIARY", ()):
        yield network.get_submodule(path)


def place(network: nn.Module, layer: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds a layer, and the layer's name in it."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is layer:
                return parent, name
    raise ValueError(f"the head of {type(network).__name__} is no module inside it")


def with_outputs(head: nn.Module, outputs: int) -> nn.Module:
    """A layer like `head` with other outputs, on its device and of its type, drawn as torch draws
    it.

    A head that is neither linear nor a convolution (`lenet5_1998`) makes its like itself, in its
    `with_outputs`.
    """
    make = getattr(head, "with_outputs", None)
    if make is not None:
        return make(outputs)
    if any(is_lazy(parameter) for parameter in head.parameters(recurse=False)):
        raise ValueError("the head is lazy, without weights yet: show it a batch of images first")
    if isinstance(head, nn.Linear):
        w = head.weight
        return nn.Linear(
            head.in_features, outputs, head.bias is not None, device=w.device, dtype=w.dtype
        )
    if not (isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1)):
        raise ValueError(
            f"the head is {type(head).__name__}; one with other outputs can be made of a linear "
            "layer, a 1x1 convolution, or a layer that has `with_outputs`"
        )
    w = head.weight
    return nn.Conv2d(
        head.in_channels, outputs, 1, bias=head.bias is not None, device=w.device, dtype=w.dtype
    )
