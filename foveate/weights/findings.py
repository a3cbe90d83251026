"""Findings about a weights file, as sentences: what keeps it from loading, and what is harmless."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from foveate.data.dataset import listed
from foveate.errors import quoted
from foveate.weights.matching import Match, blueprint
from foveate.weights.tensors import COUNTER, Held

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES_FROM = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
}


def problems(match: Match, left: tuple[str, ...]) -> Iterable[str]:
    """What keeps the file from loading into the network; nothing if it fits."""
    network, head = match.network, match.plan.head.rpartition(".")[0] + "."
    missing = [name for name in match.missing if name not in match.missing_auxiliary]
    heads = [name for name in missing if name.startswith(head)]
    others = [name for name in missing if name not in heads]
    statistics = [name for name in others if "running_" in name]
    if heads:
        alone = "" if others or match.unexpected else ": the file holds a backbone alone"
        yield f"the head of {network} is missing ({listed(heads)}){alone}"
    if others and others == statistics:
        yield (
            f"the statistics of {len(others) // 2} batch-norms are missing: it cannot be evaluated"
        )
    elif others:
        yield f"{len(others)} tensors of {network} are missing: {listed(others)}"
    if {"linear.weight", "linear.bias"} <= {*match.unexpected, *left}:
        yield "it is a Foveate classifier's: load its folder with foveate.Classifier.load"
    if match.unexpected:
        tops = Counter(name.partition(".")[0] for name in match.unexpected)
        parts = ", ".join(f"{n} in '{top}'" for top, n in tops.most_common(3))
        yield (
            f"{len(match.unexpected)} tensors have no place in {network} ({parts}): "
            f"{listed(match.unexpected, 3)}"
        )
    for name, theirs, ours in match.misshapen[:5]:
        yield f"{quoted(name)} is {theirs}; {network} has {ours}"
    if len(match.misshapen) > 5:
        yield f"{len(match.misshapen) - 5} more tensors have another shape or kind"


def notes(found: "Mapping[str, Tensor]", match: Match) -> Iterable[str]:
    """What is unusual and harmless."""
    usual, plan = blueprint(match.network), match.plan
    if plan.classes != usual.classes:
        yield f"the head has {plan.classes} classes instead of {usual.classes}"
    if plan.channels != usual.channels:
        yield f"the first convolution reads {plan.channels} channels instead of {usual.channels}"
    counters = [name for name in plan.tensors if name.endswith(COUNTER)]
    if counters and not any(name.endswith(COUNTER) for name in found):
        yield (
            f"{COUNTER} is missing: harmless, files older than torch 0.4.1 do not have it, and "
            "nothing reads it"
        )
    if match.missing_auxiliary:
        yield (
            f"the auxiliary classifiers are missing ({len(match.missing_auxiliary)} tensors): only "
            "training uses them"
        )
    if match.reshaped:
        yield (
            f"{listed(match.reshaped)} are a linear layer's here and a convolution's in the file: "
            "the same numbers in the same order"
        )
    halves = Counter(
        str(t.dtype).removeprefix("torch.") for t in found.values() if t.is_floating_point()
    )
    for kind, n in halves.items():
        if kind != "float32":
            rounding = ", at the precision they were saved with" if "16" in kind else ""
            yield f"{n} tensors are {kind}: read as float32{rounding}"


def container(
    held: Held, sets: Mapping[str, int], prefix: str, left: tuple[str, ...]
) -> Iterable[str]:
    """How the tensors are stored: what wraps them, and what is beside them.

    `sets` are others that could be taken, `prefix` is what `nearest` removed to match the names,
    `left` the tensors that it left out.
    """
    if held.key:
        rest = f"; beside them, not used: {listed(held.beside)}" if held.beside else ""
        yield f"the tensors are wrapped in '{held.key}'{rest}"
    elif held.beside:
        yield f"beside the tensors, not used: {listed(held.beside)}"
    for key, n in sets.items():
        yield f"another set of {n} tensors is in '{key}': --key {shlex.quote(key)} takes that one"
    for wrapped in held.removed:
        yield f"every name begins with '{wrapped}': saved from {PREFIXES_FROM[wrapped]}; removed"
    if prefix:
        whole = "their names begin" if left else "every name begins"
        yield f"{whole} with {quoted(prefix)}: saved as part of a larger module"
    if left := tuple(name for name in left if name.partition(".")[0] not in sets):
        tensors = "1 tensor is" if len(left) == 1 else f"{len(left)} tensors are"
        yield f"{tensors} no part of the network, and left: {listed(left)}"
