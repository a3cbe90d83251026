"""Diagnosis of a weights file: its origin, the network it fits, its problems and its traps."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.errors import ArtefactError, UsageError, quoted
from foveate.storage import replacing, sha256
from foveate.weights import matching
from foveate.weights.files import kept_file
from foveate.weights.findings import container, notes, problems
from foveate.weights.matching import Match, best_match, blueprint, candidates
from foveate.weights.published import WEIGHTS
from foveate.weights.tensors import (
    COUNTER,
    SECOND,
    as_state_dict,
    fitted,
    other_parts,
    read_held,
    split_key,
    variants,
)
from foveate.weights.traps import (
    FOVEATE,
    MELAS,
    TIMM,
    TORCHVISION,
    UNKNOWN,
    bad_numbers,
    infinite,
    traps,
)

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
# A file that fits no network is compared, tensor by tensor, with those most similar to it.
MOST_SIMILAR, SIMILAR = 8, 0.8
NOTHING_NEAR = "no network here has as much as half of its shapes in common with this file"
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
        key: of the set of tensors that was taken; "" at the file's top level.
        sets: other sets in the file: key -> number of tensors.
        left: names of tensors that are no part of the network: of a loss, or of what is around it.
        source: "torchvision", "timm", "efficientnet_pytorch", "foveate" or "unknown", by tensor
            names and hash.
        hash: how the SHA-256 compares with published ones, as a sentence.
        published: key of WEIGHTS if the file is byte-identical to it, else None.
        network: the name in MODELS that it fits; None if it fits none.
        twins: other networks whose tensors have exactly the same names and shapes.
        nearest, failing: the network that it fits best, and how many tensors do not fit; None and
            all of them where it has less than half of its shapes in common with any.
        naming: how its names were mapped to ours and how certain that is, as a sentence.
        names: the file's names -> ours.
        classes, channels: of the file, read as the nearest network.
        loads: whether `foveate.build(network, weights=file)` accepts it as it is. A file that fits
            but does not load can be converted.
        finite: whether all of its numbers are; if not, it does not load.
        problems: what keeps it from fitting.
        notes: what is unusual and harmless.
        traps: why its results may differ from the published ones, though it fits.
    """

    file: str
    bytes: int
    sha256: str
    tensors: int
    parameters: int
    key: str
    sets: dict[str, int]
    left: tuple[str, ...]
    source: str
    hash: str
    published: str | None
    network: str | None
    twins: tuple[str, ...]
    nearest: str | None
    failing: int
    naming: str
    names: dict[str, str] = field(repr=False)
    classes: int | None
    channels: int | None
    loads: bool
    finite: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    traps: tuple[str, ...]


def diagnose(path: str | os.PathLike[str], key: str | None = None) -> Diagnosis:
    """Find out what a weights file is, whatever its name.

    Nothing in the file is executed, and it is not changed.

    Args:
        path: FILE, or FILE#KEY.
        key: of the set of tensors to look at, where a file has several; by default the one that is
            most likely the network.

    Raises:
        ArtefactError: no such file; it is a folder, damaged, or holds no named tensors; it has no
            such set.
    """
    path, own = split_key(path)
    held = read_held(path, key or own)
    match, twins, prefix = nearest(held.tensors, path.name)
    part = variants(held.tensors)[prefix]
    fits = match.failing == 0
    near = fits or is_near(part, match.network)
    inside = {prefix + name for name in part}
    left = (*held.left, *(name for name in held.tensors if name not in inside))
    sets = held.sets | other_parts(left, len(part))
    digest = sha256(path)
    published, comparison = compare_hash(path, digest)
    source = origin(held.tensors, match, path.name, published)
    return Diagnosis(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=digest,
        tensors=len(part),
        parameters=sum(
            t.numel() for name, t in part.items() if "running_" not in name and COUNTER not in name
        ),
        key=held.key,
        sets=sets,
        left=left,
        source=source,
        hash=comparison,
        published=published,
        network=match.network if fits else None,
        twins=twins if fits else (),
        nearest=match.network if near else None,
        failing=match.failing if near else len(part),
        naming=WAYS[match.way] if near else "none matches",
        names={prefix + name: ours for name, ours in match.names.items()} if near else {},
        classes=match.plan.classes if near else None,
        channels=match.plan.channels if near else None,
        loads=fits and loads_as_is(held.tensors, match),
        finite=not any(infinite(t) for t in part.values()),
        problems=tuple(problems(match, left)) if near else (NOTHING_NEAR,),
        notes=(*container(held, sets, prefix, left), *(notes(part, match) if near else ())),
        traps=(
            *bad_numbers(part),
            *(traps(match.network, source, path.name, bool(published)) if fits else ()),
        ),
    )


def nearest(held: "dict[str, Tensor]", file: str) -> tuple[Match, tuple[str, ...], str]:
    """The best match, the other networks that match equally well, and the prefix of the names of
    the part that matches.

    Networks with as many parameters as the file come first. If none of these fits, it is compared
    with those that have the most shapes in common with it. Among equals the network that the file's
    name contains wins.
    """
    parts = variants(held)
    matches = [
        (best_match(part, name), prefix)
        for prefix, part in parts.items()
        for name in candidates(part)
    ]
    if not any(match.failing == 0 for match, _ in matches):
        matches = [(best_match(parts[prefix], name), prefix) for prefix, name in similar(parts)]

    def rank(pair: tuple[Match, str]) -> tuple[bool, bool, int, int, int]:
        match, prefix = pair
        return match.failing > 0, SECOND.search(prefix) is not None, *matching.cost(match)

    best, taken = min(matches, key=rank)
    same = [
        m
        for m, t in matches
        if matching.cost(m) == matching.cost(best) and m.names == best.names and t == taken
    ]
    named = [m for m in same if re.search(rf"(?<![a-z0-9]){m.network}(?![._]?\d)", file.lower())]
    match = max(named, key=lambda m: len(m.network)) if named else best
    return match, tuple(m.network for m in same if m is not match), taken


def similar(parts: "dict[str, dict[str, Tensor]]") -> list[tuple[str, str]]:
    """The part of a file and the network that have the most shapes in common, measured by all the
    shapes of both; and the pairs that come close to them."""
    from foveate.models import MODELS

    def share(pair: tuple[str, str]) -> float:
        theirs, ours = shapes(parts[pair[0]]), shapes(blueprint(pair[1]).tensors)
        return (theirs & ours).total() / (theirs.total() + ours.total())

    shares = {pair: share(pair) for pair in itertools.product(parts, MODELS)}
    ranked = sorted(shares, key=lambda pair: shares[pair], reverse=True)[:MOST_SIMILAR]
    return [pair for pair in ranked if shares[pair] >= SIMILAR * shares[ranked[0]]]


def is_near(part: "Mapping[str, Tensor]", network: str) -> bool:
    """Whether a network and a file have at least half of their shapes in common."""
    theirs, ours = shapes(part), shapes(blueprint(network).tensors)
    return 2 * (theirs & ours).total() >= max(theirs.total(), ours.total())


def shapes(tensors: "Mapping[str, Tensor]") -> Counter[tuple[int, ...]]:
    """How often each shape is there; batch-norm counters aside."""
    return Counter(tuple(t.shape) for name, t in tensors.items() if not name.endswith(COUNTER))


def loads_as_is(held: "dict[str, Tensor]", match: Match) -> bool:
    """Whether `build` accepts the file without conversion."""
    rules = WEIGHTS[match.network].rename if match.network in WEIGHTS else ()
    named, _ = fitted(held, blueprint(match.network).tensors, rules)
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
        path: the file, or FILE#KEY.
        out: the new file, .safetensors.
        found: the result of `diagnose(path)`, to save computing it again.

    Raises:
        ArtefactError: it cannot be read, or fits no network.
        UsageError: `out` exists or does not end in .safetensors.
    """
    import torch
    from safetensors.torch import save

    from foveate import models

    out = Path(out)
    if out.suffix != ".safetensors" or out.exists():
        raise UsageError(
            f"'{out}' {'exists already' if out.exists() else 'does not end in .safetensors'}"
        )
    found = found or diagnose(path)
    path, _ = split_key(path)
    if found.network is None:
        raise ArtefactError(
            f"{quoted(path)} fits no network, so it cannot be converted: "
            f"{'; '.join(found.problems)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        full = models.build(found.network, found.classes, found.channels).state_dict()
    for name, tensor in read_held(path, found.key or None).tensors.items():
        if (ours := found.names.get(name)) is not None:
            full[ours] = tensor.reshape(full[ours].shape)
    expected = blueprint(found.network, found.classes, found.channels).tensors
    tensors = as_state_dict(full, expected, path.name)
    with replacing(out) as temporary:
        temporary.write_bytes(save(tensors))
    return found
