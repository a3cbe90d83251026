"""From a file of tensors to a network's own: read without running code, renamed, and every misfit
named.

A `.pth` is a pickle, and a pickle can run code: torch reads it with `weights_only=True`, which
knows tensors and plain containers and refuses the rest. What it lets through is checked before any
of it is copied, since a small file may claim to hold more numbers than any memory.
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

# of a batch-norm; files older than torch 0.4.1 have none, and nothing reads it here
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
            # on old pickle protocols and the like: it is read or refused
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (ArtefactError, MemoryError):
        raise
    except Exception as error:  # what is damaged fails anywhere in the readers
        reason = re.search(r"(?:Unsupported|Trying to load unsupported)[^\n]*", str(error))
        raise ArtefactError(
            f"'{path.name}' is damaged, or holds more than tensors and was not read, since it "
            f"could run code ({reason[0] if reason else type(error).__name__}); if you trust where "
            "it comes from, load it there and keep its tensors alone: "
            "torch.save(network.state_dict(), FILE)"
        ) from error
    return unwrapped(content, path.name)


def refuse_bombs(path: Path) -> None:
    """`torch.save` does not compress, so a zip whose parts are larger than itself is not its
    work."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > path.stat().st_size:
            raise ArtefactError(
                f"'{path.name}' would unpack to {size:,} bytes, and torch.save packs nothing: "
                "refused; save it again with torch.save(network.state_dict(), FILE)"
            )


def unwrapped(content: Any, name: str) -> "dict[str, Tensor]":
    """A state_dict from what a file held: out of its wrapper, without the prefixes of wrapping
    modules."""
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
            f"'{name}' holds no state_dict (names and tensors), neither at its top nor under "
            f"{' or '.join(WRAPPERS)}; keep one with torch.save(network.state_dict(), FILE)"
        )
    for key, tensor in content.items():
        dense = tensor.layout is torch.strided and not tensor.is_meta
        if not dense or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ArtefactError(
                f"'{name}' does not hold every number of its tensor '{key}' (sparse, repeated or "
                "without data): refused; save it dense, with .contiguous()"
            )
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in content)), ""):
        content = {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    return dict(content)


def rename(key: str, rules: Rules) -> str:
    """By the first rule whose pattern the key starts with; as it is if there is none."""
    for pattern, replacement in rules:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key, count=1)
    return key


def under_our_names(
    found: "dict[str, Tensor]", expected: "dict[str, Tensor]", rules: Rules
) -> "dict[str, Tensor]":
    """A file's tensors by the network's names; one that is named already keeps its name, and so
    does a double."""
    named: dict[str, Tensor] = {}
    for key, tensor in found.items():
        name = key if key in expected else rename(key, rules)
        named[key if name in found or name in named else name] = tensor
    return named


def fitted(
    named: "dict[str, Tensor]", expected: "dict[str, Tensor]", source: str
) -> "dict[str, Tensor]":
    """The tensors in the network's types, complete; ArtefactError names all that are not as
    `expected`.

    Args:
        named: under the network's names.
        expected: the network's own state_dict; only its names, shapes and types are read.
        source: what to call the file.
    """
    import torch

    missing = [name for name in expected if name not in named and not name.endswith(COUNTER)]
    unexpected = [name for name in named if name not in expected]
    misshapen = [
        f"{name} ({described(tensor)}, expected {described(like)})"
        for name, tensor in named.items()
        if (like := expected.get(name)) is not None and described(tensor) != described(like)
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape or kind": misshapen}
    if any(parts.values()):
        said = "; ".join(
            f"{len(names)} {what}: {', '.join(names)}" for what, names in parts.items() if names
        )
        raise ArtefactError(
            f"the tensors in '{source}' are not the network's {len(expected)}: {said}"
        )
    named = {
        name: torch.zeros(like.shape) for name, like in expected.items() if name not in named
    } | named
    return {name: named[name].to(like.dtype).contiguous() for name, like in expected.items()}


def described(tensor: "Tensor") -> str:
    """64x3x7x7, and what is not real numbers of any precision."""
    shape = "x".join(str(n) for n in tensor.shape) or "one number"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"


def network_from(name: str, path: Path) -> "nn.Module":
    """A network of the canon with the weights of a file, and as many classes and channels as they
    have.

    Raises:
        ArtefactError: the file cannot be read, or its tensors are not the network's.
    """
    import torch

    from foveate import models

    found = read_tensors(path)
    with torch.device("meta"):
        plain = models.build(name)
    rules = WEIGHTS[name].rename if name in WEIGHTS else ()
    named = under_our_names(found, plain.state_dict(), rules)
    modules = {module: path for path, module in plain.named_modules()}
    first = next(m for m in plain.modules() if isinstance(m, torch.nn.Conv2d))
    classes = size(named.get(f"{modules[plain.head]}.weight"), 0)
    channels = size(named.get(f"{modules[first]}.weight"), 1)
    with torch.device("meta"):
        expected = models.build(name, classes, channels).state_dict()
    tensors = fitted(named, expected, path.name)
    network = models.build(name, classes, channels)
    network.load_state_dict(tensors)
    return network


def size(tensor: "Tensor | None", dimension: int) -> int | None:
    """How long a tensor is; None if there is nothing to measure."""
    return (
        (tensor.shape[dimension] or None)
        if tensor is not None and tensor.ndim > dimension
        else None
    )
