"""Pretrained networks: published weights, and weights from your own files.

    published   the table of published weights
    files       from a row of the table to a checked file on this machine
    tensors     from any weights file to a network's state_dict, without running code
    diagnosis   what an unknown file is; with matching, findings and traps

Files in torch's own format are read once, renamed, and kept in the cache as safetensors. torch is
imported only where such a file is read or a network is built.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import UsageError
from foveate.weights.files import find_weights, is_here, source_file, weights_file
from foveate.weights.published import WEIGHTS, Weights
from foveate.weights.tensors import load_network

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "WEIGHTS",
    "Weights",
    "build",
    "find_weights",
    "is_here",
    "pretrained",
    "source_file",
    "weights_file",
]

SETS = {"imagenet": "", "imagenet-v1": ".v1"}  # suffix of the network's name in WEIGHTS
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def build(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> "nn.Module":
    """A network of `foveate.models`, optionally with pretrained weights.

    With weights, a different `num_classes` replaces the head by a new one, and a different
    `in_channels` adapts the first convolution; all other weights stay.

    Args:
        name: a key of `foveate.models.MODELS`.
        weights: None (random); "imagenet", the best published ones; "imagenet-v1", torchvision's
            older set where there are two; or the path of a .pth or .safetensors file with the
            network's tensors, under our names or the published ones.
        num_classes: outputs; by default the paper's, or as many as the file has.
        in_channels: 3 for RGB, 1 for grey; by default the paper's, or as many as the file has.

    Raises:
        UsageError: no such network; no such weights; num_classes or in_channels below 1.
        ArtefactError: a weights file is missing, damaged, unsafe, or of another network; every
            tensor that is missing, unexpected or of another shape is named.
        MissingExtraError: the package that carries the weights is not installed.
        FoveateError: the weights cannot be downloaded.

    >>> build("efficientnet_lite0", weights="imagenet").head.out_features
    1000
    >>> build("efficientnet_lite0", weights="imagenet", num_classes=10).head.out_features
    10
    """
    from foveate import models
    from foveate.models.surgery import replace_head, set_in_channels

    if weights is None or name not in models.MODELS:
        with usage_errors():
            return models.build(name, num_classes, in_channels)
    network: Any
    if weights in SETS:
        network = pretrained(f"{name}{SETS[str(weights)]}")
    elif isinstance(weights, os.PathLike) or Path(weights).suffix in SUFFIXES:
        network = load_network(name, Path(weights))
    else:
        raise UsageError(
            f"weights '{weights}' are unknown; expected {', '.join(SETS)}, None, or a file "
            f"({', '.join(SUFFIXES)})"
        )
    with usage_errors():
        if num_classes is not None and num_classes != len(network.head.weight):
            replace_head(network, num_classes)
        if in_channels is not None:
            set_in_channels(network, in_channels)
    return network


def pretrained(key: str) -> "nn.Module":
    """The network of a key of WEIGHTS, with its weights."""
    from safetensors.torch import load_file

    from foveate import models

    network = models.build(find_weights(key).network)
    network.load_state_dict(load_file(weights_file(key)))
    return network


@contextmanager
def usage_errors() -> Iterator[None]:
    """Builders raise ValueError for arguments that they do not accept; here the user chose them."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
