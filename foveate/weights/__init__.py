"""Pretrained networks: published weights, and weights from your own files.

    published   the table of published weights
    files       from a row of the table to a checked file on this machine
    tensors     from any weights file to a network's state_dict, without running code
    diagnosis   what an unknown file is; with matching, findings and traps

Files in torch's own format are read once, renamed, and kept in the cache as safetensors. torch is
imported only where such a file is read or a network is built.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from foveate.arguments import check_switch, checked_path, whole_number
from foveate.catalogue import CATALOGUE, canonical, folded, unknown_network
from foveate.errors import UsageError
from foveate.forking import torch_threads
from foveate.weights.files import find_weights, is_here, source_file, weights_file
from foveate.weights.published import SETS, WEIGHTS, Weights
from foveate.weights.starting_point import preprocess_of
from foveate.weights.tensors import load_network, split_key

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "WEIGHTS",
    "Weights",
    "build",
    "find_weights",
    "is_here",
    "list_models",
    "pretrained",
    "replace_head",
    "set_in_channels",
    "source_file",
    "weights_file",
]

# A name that ends so is meant as a file, there or not; a file that is there may end in anything.
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")


Parameters = ParamSpec("Parameters")
Module = TypeVar("Module", bound="nn.Module")


def without_pretrained(
    build: "Callable[Parameters, nn.Module]",
) -> "Callable[Parameters, nn.Module]":
    """Refuse an argument that torchvision and timm have, with what to write in its place."""

    @functools.wraps(build)
    def checked(*args: Parameters.args, **given: Parameters.kwargs) -> "nn.Module":
        if "pretrained" in given:
            raise UsageError(
                f"pretrained={given['pretrained']!r} does not say which weights: "
                'weights="imagenet" takes the best published ones, weights=None random ones'
            )
        return build(*args, **given)

    return checked


@without_pretrained
@torch_threads()
def build(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
) -> "nn.Module":
    """A network of `foveate.models`, optionally with pretrained weights.

    With weights, a different `num_classes` replaces the head by a new one, and a different
    `in_channels` adapts the first convolution; all other weights stay.

    Args:
        name: a key of `foveate.models.MODELS`; case, hyphens and underscores make no difference.
        num_classes: outputs; by default the paper's, or as many as the weights have. If it is
            another number than the weights', the head is fresh, and a log message says so.
        in_channels: 3 for RGB, 1 for grey; by default the paper's, or as many as the weights have.
        weights: None (random); "imagenet", the best published ones; "imagenet-v1", torchvision's
            older set where there are two; or the path of a file with the network's tensors, under
            our names or the published ones. `FILE#KEY` takes one of several sets in a file, as
            "last.pth#model_ema".

    Returns:
        The network. Its `name` is its name here; with weights, its `preprocess` says how they
        expect images.

    Raises:
        UsageError: no such network; no such weights; num_classes or in_channels below 1; a wrong
            type.
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

    if not isinstance(name, str):
        raise UsageError(f"build takes a network's name, not {type(name).__name__}")
    if num_classes is not None:
        num_classes = whole_number("num_classes", num_classes, 1)
    if in_channels is not None:
        in_channels = whole_number("in_channels", in_channels, 1)
    if weights is not None:
        checked_path(f"weights is {', '.join(map(repr, SETS))}, a file or None", weights)
    name = canonical(name)
    if name not in CATALOGUE:
        raise UsageError(unknown_network(name))
    network: Any
    if weights is None:
        with usage_errors():
            network = models.build(name, num_classes, in_channels)
        network.name = name
        return network
    if weights in SETS:
        key = f"{name}{SETS[str(weights)]}"
        network, preprocess = pretrained(key), find_weights(key).preprocess
    elif is_file_name(weights):
        network = load_network(name, Path(weights))
        preprocess = preprocess_of(name, network)
    else:
        raise UsageError(
            f"weights '{weights}' are unknown, and no file is called so; expected "
            f"{', '.join(SETS)}, None, or a file ({', '.join(SUFFIXES)} or any other)"
        )
    had = len(network.head.weight)
    if num_classes is not None and num_classes != had:
        replace_head(network, num_classes)
        import logging  # seldom needed: predicting goes without

        message = "%s: the head of %d classes is fresh; the weights had %d"
        logging.getLogger("foveate").warning(message, name, num_classes, had)
    if in_channels is not None:
        set_in_channels(network, in_channels)
        preprocess = preprocess.with_channels(in_channels)
    network.name, network.preprocess = name, preprocess
    return network


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Whether a file is meant, and not the name of a published set."""
    if isinstance(weights, os.PathLike):
        return True
    file, key = split_key(weights)
    named = file.suffix.partition("#")[0] in SUFFIXES or file.name != weights
    return named or key is not None or file.exists()


def replace_head(network: Module, num_classes: int) -> Module:
    """As `foveate.models.replace_head`: fresh last layers for other classes, in place.

    Args:
        network: of the canon, or any module with a `head`.
        num_classes: outputs, at least 1.

    Returns:
        The network.

    Raises:
        UsageError: it is no module, or has no head whose like can be made; num_classes is no whole
            number of at least 1.
    """
    from foveate.models import surgery

    check_module("replace_head", network)
    with usage_errors():
        return surgery.replace_head(network, whole_number("num_classes", num_classes, 1))


def set_in_channels(network: Module, channels: int) -> Module:
    """As `foveate.models.set_in_channels`: let a network read images of other channels, in place,
    keeping what its first convolution has learned.

    Args:
        network: any module with a convolution.
        channels: at least 1.

    Returns:
        The network.

    Raises:
        UsageError: it is no module, or has no convolution that can be changed; channels is no whole
            number of at least 1.
    """
    from foveate.models import surgery

    check_module("set_in_channels", network)
    with usage_errors():
        return surgery.set_in_channels(network, whole_number("channels", channels, 1))


def check_module(function: str, network: Any) -> None:
    """UsageError unless it is a module."""
    from torch import nn

    if not isinstance(network, nn.Module):
        raise UsageError(f"{function} takes a torch.nn.Module, not {type(network).__name__}")


def list_models(pretrained: bool | None = None, family: str | None = None) -> list[str]:
    """Names of the networks of the canon, in the order of their history.

    Args:
        pretrained: only those with published weights, or only those without.
        family: only those of one family, such as "ResNet"; case, hyphens and underscores make no
            difference.

    Raises:
        UsageError: no such family; the message lists them. pretrained is neither True, False nor
            None.

    >>> list_models(family="densenet", pretrained=False)
    ['densenet_bc_100_12']
    """
    if pretrained is not None:
        check_switch("pretrained", pretrained)
    entries = list(CATALOGUE.values())
    if family is not None:
        families = {folded(entry.family): entry.family for entry in entries}
        if not isinstance(family, str) or folded(family) not in families:
            raise UsageError(
                f"no family is called {family!r}; there are {', '.join(families.values())}"
            )
        entries = [entry for entry in entries if folded(entry.family) == folded(family)]
    names = [entry.name for entry in entries]
    if pretrained is None:
        return names
    with_weights = {weights.network for weights in WEIGHTS.values()}
    return [name for name in names if (name in with_weights) == pretrained]


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
