"""Where a training starts: a network by name or in hand, its weights, and what they expect to read.

    "resnet18"            published weights                        Published
    "resnet18" + FILE     a checkpoint of yours                    Loaded
    RUN                   the network that a run of yours left     Loaded
    "timm:NAME", module   another library's network, or your own   Loaded

A Published network is known by a name and two hashes: features are read from the cache, and a
graph is converted in a process of its own, before this one has imported torch.
"""

import copy
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.arguments import checked_path
from foveate.catalogue import CATALOGUE, canonical
from foveate.data.preprocess import Preprocess
from foveate.errors import UsageError
from foveate.progress import Progress, unmonitored
from foveate.storage import sha256
from foveate.weights.files import find_weights, is_here, source_file, weights_file
from foveate.weights.published import SETS, WEIGHTS, Weights
from foveate.weights.tensors import split_key

if TYPE_CHECKING:
    from torch import nn

EMBEDDED = "efficientnet_lite0"  # its weights come with the package
TIMM = "timm:"  # begins the name of a network of timm
WEIGHTS_TAKEN = "weights is a checkpoint file or a run (without it, published ones are taken)"
OWN = "module:"  # begins the name of a network that was handed in; its class follows


class StartingPoint(Protocol):
    """A network with weights, from which a probe or a fine-tuning starts."""

    @property
    def name(self) -> str:
        """Of the network, as a run and its card have it."""

    @property
    def identity(self) -> str:
        """What stands for its weights in every key of the cache; "" if nothing may be cached."""

    @property
    def preprocess(self) -> Preprocess:
        """How its weights expect images."""

    @property
    def channels_last(self) -> bool:
        """Whether it reads that memory format; a network of yours reads contiguous NCHW."""

    @property
    def is_here(self) -> bool:
        """Whether nothing has to be downloaded."""

    def fetch(self, progress: Progress) -> None:
        """Download the weights if they are not here."""

    @property
    def remark(self) -> str:
        """A sentence on how it was come by, for the run's notes; or ""."""

    @property
    def own_weights(self) -> bool:
        """Whether the weights are other than published ones, so that a run records their hash."""

    def network(self) -> "nn.Module":
        """The network with its weights, the caller's own."""

    def unweighted(self) -> "nn.Module":
        """The network for its structure alone; it may lie on torch's meta device."""

    def backbone_tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors without the head's, by the network's names."""


@dataclass(frozen=True)
class Published:
    """A published set of weights."""

    weights: Weights

    @property
    def name(self) -> str:
        return self.weights.key

    @property
    def identity(self) -> str:
        return self.weights.identity

    @property
    def preprocess(self) -> Preprocess:
        return self.weights.preprocess

    @property
    def channels_last(self) -> bool:
        return True

    @property
    def is_here(self) -> bool:
        return is_here(self.weights)

    def fetch(self, progress: Progress) -> None:
        if not self.is_here:
            source_file(self.weights, progress=progress)

    @property
    def remark(self) -> str:
        return ""

    @property
    def own_weights(self) -> bool:
        return False

    def network(self) -> "nn.Module":
        from foveate.weights import pretrained

        return pretrained(self.name)

    def unweighted(self) -> "nn.Module":
        import torch

        from foveate import models

        with torch.device("meta"):
            return models.build(self.weights.network)

    def backbone_tensors(self) -> dict[str, NDArray[Any]]:
        from safetensors.numpy import load_file

        tensors = load_file(weights_file(self.name))
        return {n: t for n, t in tensors.items() if not n.startswith(f"{self.weights.head}.")}


class Loaded:
    """A network in memory.

    Args:
        name: as a run and its card have it.
        module: with `stages` and `head`; it is copied, never changed.
        preprocess: how its weights expect images.
        source: the SHA-256 of what the weights were read from, and the network's name; "" to take
            the network's own graph and tensors.
        remark: a sentence on how it was come by, for the run's notes.
    """

    def __init__(
        self,
        name: str,
        module: "nn.Module",
        preprocess: Preprocess,
        source: str = "",
        remark: str = "",
    ):
        self.name, self.module, self.preprocess, self.source = name, module, preprocess, source
        self.remark = remark
        self.channels_last = not name.startswith(OWN)
        self.own_weights = self.is_here = True

    @cached_property
    def identity(self) -> str:
        return self.source or graph_identity(self.module, self.preprocess)

    def fetch(self, progress: Progress) -> None:
        """It is here."""

    def network(self) -> "nn.Module":
        return copy.deepcopy(self.module)

    def unweighted(self) -> "nn.Module":
        return self.module

    def backbone_tensors(self) -> dict[str, NDArray[Any]]:
        from foveate.models.surgery import drop_head

        tensors = drop_head(self.network()).state_dict()
        return {n: np.asarray(t.detach().cpu().contiguous()) for n, t in tensors.items()}


def graph_identity(module: "nn.Module", preprocess: Preprocess) -> str:
    """SHA-256 of what a network computes: its exported operations and its tensors; "" where it
    cannot be exported, since then nothing says what its forward does."""
    import torch

    class Stages(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner: Any = copy.deepcopy(module)

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner.stages(x)

    side = preprocess.crop
    try:
        image = torch.zeros(2, preprocess.channels, side, side)
        with unmonitored():
            exported = torch.export.export(Stages().eval(), (image,))
    except Exception:  # a forward can fail to be exported in any way
        return ""
    digest = hashlib.sha256(str(exported.graph).encode())
    for name, tensor in sorted([*exported.state_dict.items(), *exported.constants.items()]):
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            dense = tensor.detach().cpu().contiguous()
            digest.update(f"{dense.dtype} {tuple(dense.shape)}".encode())
            digest.update(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"graph {digest.hexdigest()}"


def find_start(model: Any, weights: Any = None) -> StartingPoint:
    """The network and weights that a probe or a fine-tuning starts from.

    Args:
        model: a key of WEIGHTS, a network of the canon with `weights`, "timm:NAME", or a module
            with `stages` and `head`.
        weights: a checkpoint file of the model's.

    Raises:
        UsageError: no such network or weights; it is no module, or a class of modules; weights
            are given twice, or are a folder; the module lacks a part of the contract.
        ArtefactError: the file is missing, damaged, unsafe or not the network's.
    """
    if weights is not None:
        checked_path(WEIGHTS_TAKEN, weights)
    if weights is not None and Path(weights).is_dir():
        raise UsageError(
            f"weights '{weights}' is a folder, and a checkpoint file is taken here: it is "
            "foveate.train that goes on from a run"
        )
    # what `foveate.build` calls them; a file of that name would come first
    if weights in SETS and not Path(str(weights)).is_file():
        raise UsageError(
            f"weights is a checkpoint file or a run here, not {weights!r}: published weights are "
            "taken without it, those of torchvision's older set as NAME.v1"
        )
    if not isinstance(model, str):
        return from_module(model, weights)
    if model.startswith(TIMM):
        return from_timm(model, weights)
    if weights is not None:
        return from_file(model, Path(weights))
    return Published(find_weights(model))


def from_file(name: str, path: Path) -> Loaded:
    """A network of the canon with the weights of a checkpoint file."""
    from foveate.weights import build

    published = WEIGHTS.get(canonical(name))  # resnet50.v1 says how its file expects images
    network: Any = build(published.network if published else name, weights=path)
    file, key = split_key(path)
    source = f"{network.name} {sha256(file)}{'' if key is None else f' {key}'}"
    preprocess = published.preprocess if published else preprocess_of(network.name, network)
    return Loaded(network.name, network, preprocess, source)


def from_timm(name: str, weights: Any) -> Loaded:
    """A network of timm with its pretrained weights, or those of a file."""
    from foveate.models.adapters import module_hash
    from foveate.weights.timm import timm_network

    path = None if weights is None else Path(weights)
    network: Any = timm_network(name.removeprefix(TIMM), pretrained=path or True)
    return Loaded(name, network, network.preprocess, f"{name} {module_hash(network)}")


def check_module(model: Any) -> None:
    """UsageError unless it is a module, by what every module has: torch is not imported for it."""
    if isinstance(model, type):
        raise UsageError(f"model is a module, not a class: give {model.__name__}()")
    if not (callable(model) and hasattr(model, "state_dict")):
        raise UsageError(
            f"model is a network's name or a torch.nn.Module, not {type(model).__name__}"
        )


def from_module(module: Any, weights: Any) -> Loaded:
    """A network that was handed in, with the weights that it has, or those of a file."""
    check_module(module)
    from foveate.models.adapters import check_parts, check_stages, is_timm
    from foveate.weights import usage_errors
    from foveate.weights.tensors import load_into
    from foveate.weights.timm import adapt

    network = adapt(module) if is_timm(module) else module
    with usage_errors():
        check_parts(network)  # stages and head: the head is replaced
    if weights is not None:
        if getattr(network, "preprocess", None) is not None:
            raise UsageError(
                f"weights are given twice: {type(module).__name__} was built with some; leave "
                "weights out"
            )
        network = copy.deepcopy(network)
        load_into(network, Path(weights))
    name = name_of(module)
    own = getattr(network, "preprocess", None)
    preprocess = own if isinstance(own, Preprocess) else preprocess_of(name, network)
    with usage_errors():
        check_stages(network, preprocess.channels, preprocess.crop)
    return Loaded(name, network, preprocess)


def name_of(module: Any) -> str:
    """A module's name in runs and cards: of the canon if it was built as such and still has all
    its tensors, so that it can be built again; else its class."""
    name = getattr(module, "name", None)
    own = OWN + type(module).__name__
    if not isinstance(name, str) or name not in CATALOGUE:
        return own
    import torch

    from foveate import models
    from foveate.models import surgery

    with torch.device("meta"):
        plain: Any = models.build(name)
    ends = surgery.ends(plain)

    def body(network: Any) -> dict[str, Any]:
        """Shapes of all tensors but those of the ends, which fit classes and channels."""
        tensors = network.state_dict().items()
        return {n: t.shape if n.rpartition(".")[0] not in ends else None for n, t in tensors}

    return name if body(module) == body(plain) else own


def preprocess_of(name: str, network: Any) -> Preprocess:
    """How weights of unknown origin probably expect images: as the network's published ones do,
    else at the network's size, normalised as is usual. A network's attribute `preprocess` says
    otherwise."""
    if name in WEIGHTS:
        return WEIGHTS[name].preprocess
    from foveate.models.surgery import first_convolution

    first = first_convolution(network)
    size = getattr(network, "input_size", None)
    if first is None or not isinstance(size, int):
        raise UsageError(
            f"how {type(network).__name__} expects images is not known: set its attribute "
            "preprocess = foveate.Preprocess(resize, crop)"
        )
    if first.in_channels == 3:
        return Preprocess(size, size)
    return Preprocess(size, size, channels=1, mean=(0.5,), std=(0.5,))
