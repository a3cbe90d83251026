"""Findings about a weights file, as sentences: what keeps it from loading, and what is harmless."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.dataset import listed
from foveate.weights.matching import Match, blueprint
from foveate.weights.tensors import COUNTER, PREFIXES, WRAPPERS

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES_FROM = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
}


def problems(match: Match) -> Iterable[str]:
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
    if {"linear.weight", "linear.bias"} <= set(match.unexpected):
        yield "it is a Foveate classifier's: load its folder with foveate.Classifier.load"
    if match.unexpected:
        tops = Counter(name.partition(".")[0] for name in match.unexpected)
        parts = ", ".join(f"{n} in '{top}'" for top, n in tops.most_common(3))
        yield (
            f"{len(match.unexpected)} tensors have no place in {network} ({parts}): "
            f"{listed(match.unexpected, 3)}"
        )
    for name, theirs, ours in match.misshapen[:5]:
        yield f"'{name}' is {theirs}; {network} has {ours}"
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


def container(path: Path, prefix: str) -> Iterable[str]:
    """How the tensors are stored: the prefix of all names, and what `torch.save` wrapped them in.

    `prefix` is what `nearest` removed to match the names.
    """
    import torch

    if prefix:
        yield f"every name begins with '{prefix}': saved as part of a larger module"
    if path.suffix == ".safetensors":
        return
    # Read again, without the numbers: read_tensors checked it, but returned only its tensors.
    content = torch.load(path, map_location="meta", weights_only=True)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            rest = [str(key) for key in content if key != wrapper]
            beside = f"; beside them, not used: {listed(rest)}" if rest else ""
            yield f"the tensors are wrapped in '{wrapper}'{beside}"
            content = content[wrapper]
    keys = [str(key) for key in content]
    while wrapped := next((p for p in PREFIXES if all(key.startswith(p) for key in keys)), ""):
        yield f"every name begins with '{wrapped}': saved from {PREFIXES_FROM[wrapped]}; removed"
        keys = [key.removeprefix(wrapped) for key in keys]
