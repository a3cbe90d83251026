"""From a weights file to a network's state_dict: read without running code, renamed, checked.

A `.pth` is a pickle, and a pickle can run code: torch reads it with `weights_only=True`, which
accepts tensors and plain containers and refuses the rest. The tensors are checked before any is
copied, since a small file may claim to hold more numbers than fit in memory.
"""

import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import ArtefactError
from foveate.weights.published import WEIGHTS, Rules

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of a batch-norm. Files older than torch 0.4.1 have none, and nothing here reads it.
COUNTER = "num_batches_tracked"
WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep a network's tensors
PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a .safetensors file, or of one that `torch.save` wrote.

    Raises:
        ArtefactError: no such file; it is damaged; it holds anything but named tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ArtefactError(f"there is no file '{path}'; expected a .pth or .safetensors file")
    if path.suffix == ".safetensors":
        try:
            return unwrapped(load_file(path), path.name)
        except SafetensorError as error:
            raise ArtefactError(
                f"'{path.name}' is damaged, or no safetensors file: {error}"
            ) from error
    try:
        refuse_bombs(path)
        with warnings.catch_warnings():
            # torch warns of old pickle protocols; the file is either read or refused
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (ArtefactError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails anywhere in zipfile, pickle or torch
        reason = re.search(r"(?:Unsupported|Trying to load unsupported)[^\n]*", str(error))
        raise ArtefactError(
            f"'{path.name}' is damaged, or holds more than tensors and was not read, since it "
            f"could run code ({reason[0] if reason else type(error).__name__}); if you trust its "
            "source, load it there and save its tensors alone: "
            "torch.save(network.state_dict(), FILE)"
        ) from error
    return unwrapped(content, path.name)


def refuse_bombs(path: Path) -> None:
    """ArtefactError if a zip would unpack to more than its size: `torch.save` never compresses."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > path.stat().st_size:
            raise ArtefactError(
                f"'{path.name}' would unpack to {size:,} bytes, more than its own size, which "
                "torch.save never writes: refused; save it again with "
                "torch.save(network.state_dict(), FILE)"
            )


def unwrapped(content: Any, name: str) -> "dict[str, Tensor]":
    """The state_dict in a file, without a wrapper and the prefixes of wrapping modules."""
    import torch
    from torch import Tensor

    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    plain = isinstance(content, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    )
    if not plain or not content:
        raise ArtefactError(
            f"'{name}' holds no state_dict (names and tensors), neither at its top level nor under "
            f"{' or '.join(WRAPPERS)}; save one with torch.save(network.state_dict(), FILE)"
        )
    for key, tensor in content.items():
        dense = tensor.layout is torch.strided and not tensor.is_meta
        # an expanded tensor repeats few stored numbers: copying it would allocate them all
        if not dense or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ArtefactError(
                f"'{name}' does not hold every number of its tensor '{key}' (sparse, repeated or "
                "without data): refused; save it dense, with .contiguous()"
            )
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in content)), ""):
        content = {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    return dict(content)


def rename(key: str, rules: Rules) -> str:
    """Apply the first rule whose pattern matches the key's start; unchanged if none does."""
    for pattern, replacement in rules:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key, count=1)
    return key


def under_our_names(
    found: "dict[str, Tensor]", expected: "dict[str, Tensor]", rules: Rules
) -> "dict[str, Tensor]":
    """A file's tensors under the network's names.

    A name that the network has stays. So does one that would be renamed onto a name already taken:
    `as_state_dict` then reports it as unexpected.
    """
    named: dict[str, Tensor] = {}
    for key, tensor in found.items():
        name = key if key in expected else rename(key, rules)
        named[key if name in found or name in named else name] = tensor
    return named


def as_state_dict(
    named: "dict[str, Tensor]", expected: "dict[str, Tensor]", source: str
) -> "dict[str, Tensor]":
    """A complete state_dict in the network's types.

    Args:
        named: tensors under the network's names.
        expected: the network's own state_dict; only its names, shapes and types are read.
        source: the file's name, for messages.

    Raises:
        ArtefactError: tensors are missing, unexpected or of another shape; all are named.
    """
    import torch

    missing = [name for name in expected if name not in named and not name.endswith(COUNTER)]
    unexpected = [name for name in named if name not in expected]
    misshapen = [
        f"{name} ({describe(tensor)}, expected {describe(like)})"
        for name, tensor in named.items()
        if (like := expected.get(name)) is not None and describe(tensor) != describe(like)
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape or kind": misshapen}
    if any(parts.values()):
        listing = "; ".join(
            f"{len(names)} {what}: {', '.join(names)}" for what, names in parts.items() if names
        )
        raise ArtefactError(
            f"the tensors in '{source}' are not the network's {len(expected)}: {listing}"
        )
    # what may be missing are counters
    absent = {name: torch.zeros(t.shape) for name, t in expected.items() if name not in named}
    named = absent | named
    return {name: named[name].to(like.dtype).contiguous() for name, like in expected.items()}


def describe(tensor: "Tensor") -> str:
    """A tensor's shape, as 64x3x7x7, and its type unless it is floating-point."""
    shape = "x".join(str(n) for n in tensor.shape) or "one number"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"


def load_network(name: str, path: Path) -> "nn.Module":
    """A network of MODELS with the weights of a file, and the file's classes and channels.

    Raises:
        ArtefactError: the file cannot be read, or its tensors do not fit the network.
    """
    import torch

    from foveate import models
    from foveate.models.surgery import ends

    found = read_tensors(path)
    with torch.device("meta"):
        plain = models.build(name)
    rules = WEIGHTS[name].rename if name in WEIGHTS else ()
    named = under_our_names(found, plain.state_dict(), rules)
    head, first = ends(plain)
    classes = size(named.get(f"{head}.weight"), 0)
    channels = size(named.get(f"{first}.weight"), 1)
    with torch.device("meta"):
        expected = models.build(name, classes, channels).state_dict()
    tensors = as_state_dict(named, expected, path.name)
    network = models.build(name, classes, channels)
    network.load_state_dict(tensors)
    return network


def load_into(network: "nn.Module", path: Path) -> None:
    """Load a checkpoint file into a network, in place; ArtefactError if its tensors are others."""
    expected = network.state_dict()
    network.load_state_dict(as_state_dict(read_tensors(path), expected, path.name))


def size(tensor: "Tensor | None", dimension: int) -> int | None:
    """Length of a dimension; None if there is no tensor, no such dimension, or nothing in it."""
    if tensor is None or tensor.ndim <= dimension:
        return None
    return tensor.shape[dimension] or None
