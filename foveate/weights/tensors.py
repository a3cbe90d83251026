"""From a weights file to a network's state_dict: read without running code, renamed, checked.

A `.pth` is a pickle, and a pickle can run code: torch reads it with `weights_only=True`, which
accepts tensors and plain containers and refuses the rest. What training scripts keep beside the
tensors as plain data (an `argparse.Namespace`, numpy's numbers, paths) is read past: an inert
object stands in its place, and none of its own code runs. The tensors are checked before any is
copied, since a small file may claim to hold more numbers than fit in memory.

A file is known by its content; its name may end in anything. `FILE#KEY` names one of several sets
of tensors in it, as `last.pth#model_ema`.
"""

import logging
import os
import re
import shlex
import threading
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.data.dataset import listed
from foveate.errors import ArtefactError, quoted
from foveate.storage import sha256
from foveate.weights.published import WEIGHTS, Rules

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of a batch-norm. Files older than torch 0.4.1 have none, and nothing here reads it.
COUNTER = "num_batches_tracked"
PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile
AVERAGED = "n_averaged"  # beside the tensors of torch's AveragedModel
# Names of tensors that are no network's: of a loss or a metric in a larger module, and the counts
# that profilers register in every layer.
STRAY = re.compile(
    rf"({AVERAGED}|(criterion|loss|loss_\w+|\w+_loss|metrics?|\w+_metrics?)\..+"
    r"|(.*\.)?total_(ops|params))"
)
# Keys of sets of tensors: of an average of the weights or a second network, which is taken only if
# it is asked for, and of what is no network at all.
SECOND = re.compile(r"ema|averag|swa|shadow|teacher|momentum_enc", re.IGNORECASE)
NO_NETWORK = re.compile(r"optim|sched|scaler|criterion|loss|metric", re.IGNORECASE)
USUAL = ("state_dict", "model")  # preferred among equals
DEEP = 4  # levels of containers that are searched for tensors
MANY = 20_000  # tensors in a file; the canon's largest network has 1,700
FEW = 5  # names of tensors in a message

NUMPY = [
    f"numpy.{core}.multiarray.{function}"
    for core in ("core", "_core")
    for function in ("scalar", "_reconstruct")
]
DTYPES = "Bool Bytes Complex64 Complex128 DateTime64 Float16 Float32 Float64 Int8 Int16 Int32 Int64"
DTYPES += " LongDouble LongLong Object Str TimeDelta64 UInt8 UInt16 UInt32 UInt64 ULongLong Void"
PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath".split()
# Plain data that training scripts keep beside the tensors. A name stands here if what it builds is
# nothing but data; the object itself is never made.
PLAIN = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *NUMPY,
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.dtypes.{kind}DType" for kind in DTYPES.split()),
    *(f"{module}.{path}" for module in ("pathlib", "pathlib._local") for path in PATHS),
    *(f"datetime.{kind}" for kind in ("date", "datetime", "timedelta", "timezone")),
    *(f"builtins.{kind}" for kind in "bool float frozenset int range slice str tuple".split()),
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "torch.torch_version.TorchVersion",
)
LISTS = ("builtins.list", "collections.deque")
MAPPINGS = (  # dictionaries by other names
    "builtins.dict",
    "collections.defaultdict",
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
ONE_AT_A_TIME = threading.Lock()  # torch keeps the names that it may read for the whole process


@dataclass(frozen=True)
class Held:
    """The tensors that are taken from a file, and what else is in it.

    Args:
        tensors: by name, without the PREFIXES of wrapping modules.
        key: of the set that was taken, as "state_dict" or "state_dict.model"; "" at the top level.
        sets: the other sets that could be a network's: key -> number of tensors.
        beside: keys beside the set that was taken, whose content is not used.
        removed: the PREFIXES that all names began with.
        left: names that were left out.
    """

    tensors: "dict[str, Tensor]"
    key: str
    sets: dict[str, int]
    beside: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]


# Reading


def split_key(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """FILE#KEY -> the file, and the key of one of its sets of tensors.

    >>> split_key("last.pth")
    (PosixPath('last.pth'), None)
    """
    whole = Path(path)
    before, sign, key = str(whole).rpartition("#")
    if sign and key and not whole.exists() and Path(before).is_file():
        return Path(before), key
    return whole, None


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file, as `read_held` finds them."""
    return read_held(path).tensors


def read_held(path: Path, key: str | None = None) -> Held:
    """What a .safetensors file holds, or one that `torch.save` wrote, whatever its name.

    Args:
        path: FILE or FILE#KEY.
        key: of the set of tensors to take; by default the one that is most likely the network.

    Raises:
        ArtefactError: no such file; it is damaged; it holds no named tensors, or no such set.
    """
    file, own = split_key(path)
    if file.is_dir():
        raise ArtefactError(f"{quoted(file)} is a folder; expected a file of weights")
    if not file.is_file():
        found = f"{quoted(file)} is no regular file"
        problem = found if file.exists() else f"there is no file {quoted(file)}"
        raise ArtefactError(f"{problem}; expected a file of weights, as .pth or .safetensors")
    content = read_content(file)
    return chosen(content, file, key or own)


def read_content(path: Path) -> Any:
    """The whole of a file: tensors and plain data."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        raise ArtefactError(f"{quoted(path)} cannot be read: {error.strerror}") from error
    if begin[8:] == b"{" or (
        path.suffix == ".safetensors" and begin[:2] not in (b"PK", b"\x80\x02")
    ):
        return read_safetensors(path)
    return read_pickled(path, begin)


def read_safetensors(path: Path) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # of safetensors, or of a type of numbers that torch lacks
        raise ArtefactError(
            f"{quoted(path.name)} is damaged, or no safetensors file that can be read: {error}"
        ) from error


def read_pickled(path: Path, begin: bytes) -> Any:
    """What `torch.save` wrote; none of its code runs."""
    import torch

    if not begin:
        raise ArtefactError(f"{quoted(path.name)} is empty (0 bytes): copy or download it again")
    for signs, what in NOT_WEIGHTS:
        if begin.startswith(signs):
            raise ArtefactError(f"{quoted(path.name)} is {what}")
    try:
        refuse_bombs(path)
        with ONE_AT_A_TIME, warnings.catch_warnings():
            # torch warns of old pickle protocols; the file is either read or refused
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(stand_ins()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except (ArtefactError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails anywhere in zipfile, pickle or torch
        reason = re.search(
            r"(?:Unsupported|Trying to load unsupported)[^\n]*?(?= was not|\n|$)", str(error)
        )
        raise ArtefactError(
            f"{quoted(path.name)} is damaged, or holds more than tensors and was not read, since "
            "it "
            f"could run code ({reason[0] if reason else type(error).__name__}); if you trust its "
            "source, load it there and save its tensors alone: "
            "torch.save(network.state_dict(), FILE)"
        ) from error


NOT_WEIGHTS = (
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"), "compressed: unpack it first (gunzip, bunzip2, unxz)"),
    ((b"version h",), "a pointer of Git LFS, not the file: fetch that with git lfs pull"),
    ((b"<!DOCTYPE", b"<!doctype", b"<html"), "a web page, not weights: download the file again"),
    ((b"\xff\xd8\xff", b"\x89PNG"), "an image; expected a file of weights"),
)


class Inert:
    """Stands for an object of plain data: it takes anything, does nothing and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class InertMapping:
    """Stands for a class of dictionaries: a plain one comes instead."""

    # another class on purpose: what is unpickled is plain
    def __new__(cls, *args: Any) -> "OrderedDict[Any, Any]":  # type: ignore[misc]
        return OrderedDict()


class InertList:
    """Stands for a class of lists."""

    # as above
    def __new__(cls, *args: Any) -> list[Any]:  # type: ignore[misc]
        return []


def stand_ins() -> list[Any]:
    """(what is built, the name in the pickle) for torch's list of what it may read."""
    kinds: tuple[tuple[Any, Iterable[str]], ...] = (
        (Inert, PLAIN),
        (InertMapping, MAPPINGS),
        (InertList, LISTS),
    )
    return [(kind, name) for kind, names in kinds for name in names]


def refuse_bombs(path: Path) -> None:
    """ArtefactError if a zip would unpack to more than its size: `torch.save` never compresses."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        if any(part.filename.endswith("/constants.pkl") for part in parts):
            raise ArtefactError(
                f"{quoted(path.name)} is TorchScript, which holds more than tensors and was not "
                "read, since it could run code; if you trust its source, save its tensors alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
            )
        size = sum(part.file_size for part in parts)
        if size > path.stat().st_size:
            raise ArtefactError(
                f"{quoted(path.name)} would unpack to {size:,} bytes, more than its own size, "
                "which "
                "torch.save never writes: refused; save it again with "
                "torch.save(network.state_dict(), FILE)"
            )
        too_many(len(parts), path.name)


def too_many(n: int, name: str) -> None:
    if n > MANY:
        raise ArtefactError(f"{quoted(name)} holds {n:,} tensors; at most {MANY:,} are read")


# Which tensors


def sets_of_tensors(content: Any) -> "dict[str, dict[str, Tensor]]":
    """Every dictionary of named tensors in a file, by the keys that lead to it."""
    from torch import Tensor

    found: dict[str, dict[str, Tensor]] = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, content)]
    for place, depth, value in waiting:
        if not isinstance(value, Mapping):  # the content
            continue
        named = {k: v for k, v in value.items() if isinstance(k, str)}
        if tensors := {k: v for k, v in named.items() if isinstance(v, Tensor)}:
            found[place] = tensors
        # a container may hold itself, many times
        if depth < DEEP and len(waiting) < MANY:
            inner = [(k, v) for k, v in named.items() if isinstance(v, Mapping)]
            waiting += [(f"{place}.{k}".lstrip("."), depth + 1, v) for k, v in inner]
    return found


def chosen(content: Any, file: Path, key: str | None) -> Held:
    """One set of the tensors in a file.

    By default it is the largest; among those of at least half as many tensors, one that is no
    average of the weights; among these one under a usual key, or the first.
    """
    found = sets_of_tensors(content)
    too_many(sum(len(tensors) for tensors in found.values()), file.name)
    likely = {k: t for k, t in found.items() if not NO_NETWORK.search(k)} or found
    largest = max((len(tensors) for tensors in likely.values()), default=0)
    networks = [k for k, tensors in likely.items() if 2 * len(tensors) >= largest]
    if not networks:
        raise ArtefactError(
            f"{quoted(file.name)} holds no state_dict (names and tensors), neither at its top "
            "level nor "
            "in a dictionary below it; save one with torch.save(network.state_dict(), FILE)"
        )
    if key is None:
        key = min(networks, key=lambda k: (SECOND.search(k) is not None, k not in USUAL))
    tensors = found.get(key) or beginning(found, key)
    if not tensors:
        known = listed([k or "(top level)" for k in networks])
        raise ArtefactError(
            f"{quoted(file.name)} holds no set of tensors called '{key}'; it has {known}"
        )
    left: tuple[str, ...] = ()
    if all(name.startswith(PREFIXES[0]) for name in tensors if name != AVERAGED):
        left = tuple(name for name in tensors if name == AVERAGED)
        tensors = {name: tensor for name, tensor in tensors.items() if name != AVERAGED}
    refuse_unreadable(tensors, file)
    removed = []
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        removed.append(prefix)
    return Held(
        tensors=dict(tensors),
        key=key,
        sets={k: len(found[k]) for k in networks if k != key},
        beside=tuple(beside(content, key, networks)) if key in found else (),
        removed=tuple(removed),
        left=left,
    )


def beginning(found: "Mapping[str, Mapping[str, Tensor]]", key: str) -> "dict[str, Tensor] | None":
    """The tensors whose names begin with the key, without it: of a part of a larger module."""
    for path, tensors in found.items():
        prefix = key.removeprefix(f"{path}.") + "."
        if part := {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}:
            return part
    return {}


def beside(content: Any, key: str, networks: list[str]) -> Iterator[str]:
    """The keys that are passed on the way to a set, without those of other sets."""
    from torch import Tensor

    path = key.split(".") if key else []
    for step in (*path, None):
        if not isinstance(content, Mapping):
            return
        for name, value in content.items():
            used = name == step or (step is None and isinstance(value, Tensor))
            if not used and not any(str(name) in network.split(".") for network in networks):
                yield str(name)
        content = content.get(step)


def refuse_unreadable(tensors: "Mapping[str, Tensor]", file: Path) -> None:
    """ArtefactError if numbers of a tensor are missing, or of a type that is not read."""
    import torch

    for key, tensor in tensors.items():
        dense = tensor.layout is torch.strided and not tensor.is_meta
        # an expanded tensor repeats few stored numbers: copying it would allocate them all
        if not dense or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ArtefactError(
                f"{quoted(file.name)} does not hold every number of its tensor '{key}' (sparse, "
                "repeated "
                "or without data): refused; save it dense, with .contiguous()"
            )
        if tensor.is_quantized or not readable(tensor.dtype):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtefactError(
                f"{quoted(file.name)} holds its tensor '{key}' as {kind}, quantised numbers that "
                "are not "
                "read; save the network in float32, before it is quantised"
            )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > 4 * file.stat().st_size:  # tied weights are in a file once
        raise ArtefactError(
            f"the tensors in {quoted(file.name)} overlap: they claim {claimed:,} bytes, in a file "
            "of "
            f"{file.stat().st_size:,}: refused; save them apart, with .clone()"
        )


def readable(dtype: Any) -> bool:
    """Whether torch converts such numbers to float32."""
    name = str(dtype).removeprefix("torch.")
    return (
        re.fullmatch(r"b?float(16|32|64)|float8_\w+|u?int(8|16|32|64)|bool|complex\d+", name)
        is not None
    )


# Fitting


def variants(found: "Mapping[str, Tensor]") -> "dict[str, dict[str, Tensor]]":
    """The tensors as they are, and as parts of a larger module: prefix -> names without it.

    A part is tried if at least a third of the names begin with it, down to three levels. Strays
    are left out, unless nothing else is there.
    """
    kept = {n: t for n, t in found.items() if not STRAY.fullmatch(n)} or dict(found)
    tried = {"": kept}
    parents = [""]
    for _ in range(3):
        children = []
        for parent in parents:
            inner = tried[parent]
            tops = Counter(name.partition(".")[0] for name in inner if "." in name)
            for top, n in tops.items():
                if 3 * n >= len(found):
                    prefix = f"{parent}{top}."
                    tried[prefix] = {
                        name.removeprefix(f"{top}."): tensor
                        for name, tensor in inner.items()
                        if name.startswith(f"{top}.")
                    }
                    children.append(prefix)
        parents = children
    return tried


def fitted(
    found: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]", rules: Rules = ()
) -> "tuple[dict[str, Tensor], tuple[str, ...]]":
    """The tensors under a network's names, and the names that are left.

    Of a larger module the part is taken that has the most of the network's names.
    """

    def named(part: "dict[str, Tensor]") -> "dict[str, Tensor]":
        return under_our_names(part, expected, rules)

    parts = {prefix: named(part) for prefix, part in variants(found).items()}
    if known := {n: t for n, t in found.items() if n in expected and STRAY.fullmatch(n)}:
        parts[""] |= known  # a network of the user's may call its layers so
    prefix = max(
        parts, key=lambda p: (sum(name in expected for name in parts[p]), not SECOND.search(p))
    )
    taken = set(variants(found)[prefix]) | set(known)
    left = tuple(n for n in found if not (n.startswith(prefix) and n[len(prefix) :] in taken))
    return parts[prefix], left


def other_parts(left: Iterable[str], taken: int) -> dict[str, int]:
    """Parts of a larger module that could be networks too: those of which at least half as many
    tensors are left as were taken."""
    tops = Counter(name.partition(".")[0] for name in left)
    return {top: n for top, n in tops.items() if 2 * n >= taken}


def say_what_is_left(left: tuple[str, ...], held: Held, path: Path) -> None:
    """Log messages for the tensors of a file that were not taken."""
    file, key = split_key(path)
    sets = held.sets | other_parts(left, len(held.tensors) - len(left))
    log = logging.getLogger("foveate")
    if left := tuple(name for name in left if name.partition(".")[0] not in sets):
        log.warning("%s: tensors that are not the network's: %s", path.name, listed(left, 3))
    if sets and key is None:
        others = ", ".join(f"{file.name}#{other}" for other in sets)
        log.warning("%s: it has other sets of tensors too: %s", path.name, others)


def rename(key: str, rules: Rules) -> str:
    """Apply the first rule whose pattern matches the key's start; unchanged if none does."""
    for pattern, replacement in rules:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key, count=1)
    return key


def under_our_names(
    found: "dict[str, Tensor]", expected: "Mapping[str, Tensor]", rules: Rules
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
        ArtefactError: tensors are missing, unexpected or of another shape. Numbers are not finite.
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
            f"{len(names)} {what}: {', '.join(names[:FEW])}{', ...' if len(names) > FEW else ''}"
            for what, names in parts.items()
            if names
        )
        raise ArtefactError(
            f"the tensors in {quoted(source)} are not the network's {len(expected)}: {listing}; to "
            f"see which network they fit: foveate weights check {shlex.quote(source)}"
        )
    # what may be missing are counters
    absent = {name: torch.zeros(t.shape) for name, t in expected.items() if name not in named}
    named = absent | named
    state = {name: named[name].to(like.dtype).contiguous() for name, like in expected.items()}
    if infinite := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ArtefactError(
            f"{len(infinite)} tensors in {quoted(source)} hold numbers that are not finite (NaN or "
            f"infinity), so that no result would be: {listed(infinite)}; take a checkpoint from "
            "before the training failed"
        )
    return state


def describe(tensor: "Tensor") -> str:
    """A tensor's shape, as 64x3x7x7, and its type unless it is floating-point."""
    shape = "x".join(str(n) for n in tensor.shape) or "one number"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"


def check_published_name(path: Path) -> None:
    """Log a message for a file that has the name of a published one and another content."""
    named = next((w for w in WEIGHTS.values() if Path(w.file).name == path.name), None)
    if named is not None and not sha256(path).startswith(named.sha256):
        logging.getLogger("foveate").warning(
            "'%s' has the name of the published weights of %s, but not their SHA-256: it is "
            "damaged, or was changed or saved again",
            path,
            named.key,
        )


def load_network(name: str, path: Path) -> "nn.Module":
    """A network of MODELS with the weights of a file, and the file's classes and channels.

    Raises:
        ArtefactError: the file cannot be read, or its tensors do not fit the network.
    """
    import torch

    from foveate import models
    from foveate.models.surgery import ends

    held = read_held(path)
    check_published_name(split_key(path)[0])
    with torch.device("meta"):
        plain = models.build(name)
    rules = WEIGHTS[name].rename if name in WEIGHTS else ()
    named, left = fitted(held.tensors, plain.state_dict(), rules)
    head, first = ends(plain)
    classes = size(named.get(f"{head}.weight"), 0)
    channels = size(named.get(f"{first}.weight"), 1)
    with torch.device("meta"):
        expected = models.build(name, classes, channels).state_dict()
    tensors = as_state_dict(named, expected, path.name)
    say_what_is_left((*held.left, *left), held, path)
    network = models.build(name, classes, channels)
    network.load_state_dict(tensors)
    return network


def load_into(network: "nn.Module", path: Path) -> None:
    """Load a checkpoint file into a network, in place; ArtefactError if its tensors are others."""
    held, expected = read_held(path), network.state_dict()
    named, left = fitted(held.tensors, expected)
    tensors = as_state_dict(named, expected, path.name)
    say_what_is_left((*held.left, *left), held, path)
    network.load_state_dict(tensors)


def size(tensor: "Tensor | None", dimension: int) -> int | None:
    """Length of a dimension; None if there is no tensor, no such dimension, or nothing in it."""
    if tensor is None or tensor.ndim <= dimension:
        return None
    return tensor.shape[dimension] or None
