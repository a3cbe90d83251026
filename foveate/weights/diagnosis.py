"""Diagnosis of a weights file: its origin, the network it fits, its problems and its traps."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import ArtefactError, UsageError
from foveate.storage import replacing, sha256
from foveate.weights import matching
from foveate.weights.files import kept_file
from foveate.weights.findings import container, notes, problems
from foveate.weights.matching import Match, best_match, blueprint, candidates
from foveate.weights.published import WEIGHTS
from foveate.weights.tensors import COUNTER, as_state_dict, read_tensors, under_our_names
from foveate.weights.traps import FOVEATE, MELAS, TIMM, TORCHVISION, UNKNOWN, bad_numbers, traps

if TYPE_CHECKING:
    from torch import Tensor

WAYS = {
    matching.OURS: "Foveate's own names: nothing is renamed",
    matching.BY_RULE: "known names, renamed by rule: certain",
    matching.BY_SCHEME: (
        "known names, matched in the order of the layers; every kind and shape agrees: almost "
        "certain"
    ),
    matching.BY_ORDER: (
        "unknown names, matched by order and shape alone: likely, so measure the accuracy before "
        "you trust it"
    ),
}
ORIGINS = {
    TORCHVISION: "torchvision's names, which several of timm's and Foveate's files have too",
    TIMM: "timm",
    MELAS: "efficientnet_pytorch (Melas-Kyriazi), whose names the published Lite files have too",
    FOVEATE: "Foveate",
    UNKNOWN: "unknown",
}


@dataclass(frozen=True)
class Diagnosis:
    """What a weights file holds. Sentences are for people and may change.

    Args:
        file: its name.
        bytes, sha256: of the file.
        tensors, parameters: how many; batch-norm statistics are tensors, but not parameters.
        source: "torchvision", "timm", "efficientnet_pytorch", "foveate" or "unknown", by tensor
            names and hash.
        hash: how the SHA-256 compares with published ones, as a sentence.
        published: key of WEIGHTS if the file is byte-identical to it, else None.
        network: the name in MODELS that it fits; None if it fits none.
        twins: other networks whose tensors have exactly the same names and shapes.
        nearest, failing: the network that it fits best, and how many tensors do not fit.
        naming: how its names were mapped to ours and how certain that is, as a sentence.
        names: the file's names -> ours.
        classes, channels: of the file, read as the nearest network.
        loads: whether `foveate.build(network, weights=file)` accepts it as it is. A file that fits
            but does not load can be converted.
        problems: what keeps it from fitting.
        notes: what is unusual and harmless.
        traps: why its results may differ from the published ones, though it fits.
    """

    file: str
    bytes: int
    sha256: str
    tensors: int
    parameters: int
    source: str
    hash: str
    published: str | None
    network: str | None
    twins: tuple[str, ...]
    nearest: str
    failing: int
    naming: str
    names: dict[str, str] = field(repr=False)
    classes: int | None
    channels: int | None
    loads: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    traps: tuple[str, ...]


def diagnose(path: str | os.PathLike[str]) -> Diagnosis:
    """Find out what a .pth, .pt or .safetensors file is.

    Nothing in the file is executed, and it is not changed.

    Raises:
        ArtefactError: no such file; it is a folder, damaged, or holds more than named tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise ArtefactError(
            f"'{path}' is a folder; expected a file of weights (.pth, .pt or .safetensors)"
        )
    held = read_tensors(path)
    match, twins, prefix = nearest(held, path.name)
    found = {name.removeprefix(prefix): tensor for name, tensor in held.items()}
    fits = match.failing == 0
    digest = sha256(path)
    published, comparison = compare_hash(path, digest)
    source = origin(held, match, path.name, published)
    return Diagnosis(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=digest,
        tensors=len(found),
        parameters=sum(
            t.numel() for name, t in found.items() if "running_" not in name and COUNTER not in name
        ),
        source=source,
        hash=comparison,
        published=published,
        network=match.network if fits else None,
        twins=twins if fits else (),
        nearest=match.network,
        failing=match.failing,
        naming=WAYS[match.way],
        names={prefix + name: ours for name, ours in match.names.items()},
        classes=match.plan.classes,
        channels=match.plan.channels,
        loads=fits and loads_as_is(held, match),
        problems=tuple(problems(match)),
        notes=(*container(path, prefix), *notes(found, match)),
        traps=(
            *bad_numbers(found),
            *(traps(match.network, source, path.name, bool(published)) if fits else ()),
        ),
    )


def nearest(held: "dict[str, Tensor]", file: str) -> tuple[Match, tuple[str, ...], str]:
    """The best match, the other networks that match equally well, and the prefix to remove.

    Networks with as many parameters as the file come first; all are tried only when none of these
    fits. If all names begin with the same part (`model.`, `backbone.`), they are tried without it
    too. Among equals the network that the file's name contains wins.
    """
    from foveate.models import MODELS

    tops = {name.partition(".")[0] + "." for name in held}
    variants = {"": held}
    if len(tops) == 1 and len(held) > 1:
        prefix = tops.pop()
        variants[prefix] = {name.removeprefix(prefix): tensor for name, tensor in held.items()}
    matches: list[tuple[Match, str]] = []
    for networks in (candidates(held), MODELS):
        matches = [
            (best_match(found, name), taken)
            for taken, found in variants.items()
            for name in networks
        ]
        if any(match.failing == 0 for match, _ in matches):
            break
    best, taken = min(matches, key=lambda pair: matching.cost(pair[0]))
    same = [
        m
        for m, t in matches
        if matching.cost(m) == matching.cost(best) and m.names == best.names and t == taken
    ]
    named = [m for m in same if re.search(rf"(?<![a-z0-9]){m.network}(?![._]?\d)", file.lower())]
    chosen = max(named, key=lambda m: len(m.network)) if named else best
    return chosen, tuple(m.network for m in same if m is not chosen), taken


def loads_as_is(held: "dict[str, Tensor]", match: Match) -> bool:
    """Whether `build` accepts the file without conversion."""
    rules = WEIGHTS[match.network].rename if match.network in WEIGHTS else ()
    named = under_our_names(held, blueprint(match.network).tensors, rules)
    try:
        as_state_dict(named, match.plan.tensors, source="")
    except ArtefactError:
        return False
    return True


def compare_hash(path: Path, digest: str) -> tuple[str | None, str]:
    """The key of WEIGHTS that is byte-identical to the file, and the comparison as a sentence."""
    same = next((w for w in WEIGHTS.values() if w.sha256 and digest.startswith(w.sha256)), None)
    if same is not None:
        begin = same.sha256[:8]
        return same.key, f"the file is the published {same.key}: its SHA-256 begins with {begin}"
    copy = next((w.key for w in WEIGHTS.values() if path.name == kept_file(w).name), None)
    if copy is not None:
        # a .safetensors under our names is never byte-identical to the published .pth
        return None, f"named like Foveate's converted copy of the published {copy}; not comparable"
    # torchvision's convention: the first digits of the SHA-256 end the file's name
    claim = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if claim is None:
        return None, "no published hash to compare with"
    begin = claim[1]
    if digest.startswith(begin):
        return None, f"its SHA-256 begins with {begin}, as in its name; not in Foveate's table"
    key = next((w.key for w in WEIGHTS.values() if w.sha256[:8] == begin[:8]), None)
    claimed = f"that it is the published {key}" if key else f"that its SHA-256 begins with {begin}"
    return None, (
        f"the name says {claimed}, but the bytes are different (SHA-256 {digest[:16]}...): it is "
        "damaged, or was changed or saved again"
    )


def origin(held: Iterable[str], match: Match, file: str, published: str | None) -> str:
    """The library that wrote the file, by its hash, its tensors' names and its own name."""
    names = set(held)
    if published is not None:
        url = WEIGHTS[published].url
        return TORCHVISION if "pytorch.org" in url else TIMM if url else MELAS
    if any(name.startswith("_conv_stem.") for name in names):
        return MELAS
    if "linear.weight" in names and any(name.startswith("backbone.") for name in names):
        return FOVEATE
    # names of timm's own; those of its mobilenet_v1 are ours too
    if names & {"conv_stem.weight", "pre_logits.fc1.weight"}:
        return TIMM
    if match.way != matching.OURS or 2 * len(match.names) < len(names):
        return UNKNOWN
    if re.search(r"^(timm|tf_)|[._][a-z0-9]*in(1|12|21|22)k\b", file.lower()):
        return TIMM
    theirs = WEIGHTS.get(match.network)
    return TORCHVISION if theirs is not None and "pytorch.org" in theirs.url else FOVEATE


def convert(
    path: str | os.PathLike[str], out: str | os.PathLike[str], found: Diagnosis | None = None
) -> Diagnosis:
    """Write a file that fits a network as .safetensors under our names.

    `foveate.build(network, weights=out)` loads the result. Missing auxiliary classifiers are
    initialised at random; only training uses them.

    Args:
        path: the file.
        out: the new file, .safetensors.
        found: the result of `diagnose(path)`, to save computing it again.

    Raises:
        ArtefactError: it cannot be read, or fits no network.
        UsageError: `out` exists or does not end in .safetensors.
    """
    import torch
    from safetensors.torch import save

    from foveate import models

    path, out = Path(path), Path(out)
    if out.suffix != ".safetensors" or out.exists():
        raise UsageError(
            f"'{out}' {'exists already' if out.exists() else 'does not end in .safetensors'}"
        )
    found = found or diagnose(path)
    if found.network is None:
        raise ArtefactError(
            f"'{path}' fits no network, so it cannot be converted: {'; '.join(found.problems)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        full = models.build(found.network, found.classes, found.channels).state_dict()
    for name, tensor in read_tensors(path).items():
        if (ours := found.names.get(name)) is not None:
            full[ours] = tensor.reshape(full[ours].shape)
    expected = blueprint(found.network, found.classes, found.channels).tensors
    tensors = as_state_dict(full, expected, path.name)
    with replacing(out) as temporary:
        temporary.write_bytes(save(tensors))
    return found
