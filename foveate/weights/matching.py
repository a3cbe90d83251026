"""Match the tensors of a file with those of a network: by name, by rule, or by order.

Other libraries name the same tensors differently. Their names are not translated one by one:
the tensors are sorted in the order of the forward pass, and if there are as many as in the network,
each of the same kind (weight, bias, running_mean, running_var) and shape, they match. A single
tensor that differs rules this out.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveate.weights.published import WEIGHTS, Rules
from foveate.weights.tensors import COUNTER, describe, rename, size

if TYPE_CHECKING:
    from torch import Tensor

WAYS = OURS, BY_RULE, BY_SCHEME, BY_ORDER = (
    "ours",
    "rule",
    "scheme",
    "order",
)  # the most certain first
TIMM_VGG: Rules = ((r"pre_logits\.fc1\.", "classifier.0."), (r"pre_logits\.fc2\.", "classifier.3."))
TIMM_VGG += ((r"head\.fc\.", "classifier.6."),)

# The order of the parts in timm's EfficientNets and MobileNets, and in efficientnet_pytorch's
# (these begin with _). A .safetensors file sorts its tensors by name, so the order of the forward
# pass has to be restored from the names.
TOP = "conv_stem bn1 blocks conv_head bn2 classifier".split()
TOP += "_conv_stem _bn0 _blocks _conv_head _bn1 _fc".split()
REST = "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2".split()
REST += "conv_reduce conv_expand weight bias running_mean running_var".split()
WIDENING = "conv_pw bn1 conv_dw bn2 se conv_pwl bn3".split() + REST  # in a block that expands first
PLAIN = "conv conv_dw bn1 se conv_pw bn2".split() + REST  # in a block that does not


@dataclass(frozen=True)
class Blueprint:
    """The tensors of a network, on the meta device, and where classes and channels appear in them.

    Args:
        tensors: its state_dict.
        head, first: names of the last layer's and the first convolution's weight.
        auxiliary: prefixes of the names in the auxiliary classifiers.
        classes, channels: the network was built with these.
    """

    tensors: "dict[str, Tensor]"
    head: str
    first: str
    auxiliary: tuple[str, ...]
    classes: int | None
    channels: int | None


@functools.cache
def blueprint(network: str, classes: int | None = None, channels: int | None = None) -> Blueprint:
    """Blueprint of a network of MODELS; the paper's classes and channels by default."""
    import torch

    from foveate import models
    from foveate.models.surgery import ends

    with torch.device("meta"):
        built = models.build(network, classes, channels)
    tensors = built.state_dict()
    head, first = (f"{path}.weight" for path in ends(built))
    return Blueprint(
        tensors=tensors,
        head=head,
        first=first,
        auxiliary=tuple(path.partition(".")[0] + "." for path in getattr(built, "AUXILIARY", ())),
        classes=size(tensors.get(head), 0),
        channels=size(tensors.get(first), 1),
    )


@dataclass(frozen=True)
class Match:
    """A mapping from a file's tensors to a network's, and the tensors that it leaves out.

    Args:
        network: name in MODELS.
        way: OURS, BY_RULE, BY_SCHEME or BY_ORDER.
        names: the file's names -> ours, for the tensors that the network has.
        missing: our names that the file lacks; batch-norm counters aside, which nothing reads.
        unexpected: the file's names that the network lacks.
        misshapen: (our name, the file's shape, ours).
        reshaped: our names whose weight is a linear layer's on one side and the same numbers as a
            1x1 convolution's on the other.
        plan: the network with the file's classes and channels.
    """

    network: str
    way: str
    names: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, str, str], ...]
    reshaped: tuple[str, ...]
    plan: Blueprint

    @property
    def missing_auxiliary(self) -> tuple[str, ...]:
        """Missing tensors of the auxiliary classifiers, if all of them are missing; else ().

        Only training uses these classifiers, so a file without them fits; one with a part of them
        does not.
        """
        auxiliary = self.plan.auxiliary
        if any(name.startswith(auxiliary) for name in self.names.values()):
            return ()
        return tuple(name for name in self.missing if name.startswith(auxiliary))

    @property
    def failing(self) -> int:
        """How many tensors do not fit."""
        missing = len(self.missing) - len(self.missing_auxiliary)
        return missing + len(self.unexpected) + len(self.misshapen)


def best_match(found: "Mapping[str, Tensor]", network: str) -> Match:
    """The naming under which the fewest tensors fail; among equals the most certain one."""
    matches = (compare(found, network, way, names) for way, names in namings(found, network))
    return min(matches, key=cost)


def cost(match: Match) -> tuple[int, int, int]:
    """Sort key: the fewest that fail, then the most certain way, then the fewest reshaped."""
    return match.failing, WAYS.index(match.way), len(match.reshaped)


def namings(found: "Mapping[str, Tensor]", network: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(way, the file's names -> ours) for each way that applies."""
    plan = blueprint(network)
    yield OURS, {name: name for name in found}
    rules = WEIGHTS[network].rename if network in WEIGHTS else ()
    for known in (rules, TIMM_VGG):
        renamed = {name: name if name in plan.tensors else rename(name, known) for name in found}
        if len(set(renamed.values())) == len(renamed):
            yield BY_RULE, renamed
    ordered = in_forward_order(found)
    theirs = [name for name in ordered or found if not name.endswith(COUNTER)]
    ours = [name for name in plan.tensors if not name.endswith(COUNTER)]
    pairs = dict(zip(theirs, ours, strict=False))
    if len(theirs) == len(ours) and all(kind(a) == kind(b) for a, b in pairs.items()):
        counters = {a.rpartition(".")[0]: b.rpartition(".")[0] for a, b in pairs.items()}
        pairs |= {
            f"{a}.{COUNTER}": f"{b}.{COUNTER}"
            for a, b in counters.items()
            if f"{a}.{COUNTER}" in found
        }
        # pairs by order are a guess, and one tensor of another shape proves it wrong
        if not compare(found, network, BY_ORDER, pairs).misshapen:
            yield BY_SCHEME if ordered else BY_ORDER, pairs


def compare(found: "Mapping[str, Tensor]", network: str, way: str, names: dict[str, str]) -> Match:
    """Match a file with a network under given names, with the file's own classes and channels."""
    plain = blueprint(network)
    ours = {names[name]: tensor for name, tensor in found.items() if name in names}
    ends = (
        size(ours.get(plain.head), 0) or plain.classes,
        size(ours.get(plain.first), 1) or plain.channels,
    )
    plan = plain if ends == (plain.classes, plain.channels) else blueprint(network, *ends)
    shared = {name: tensor for name, tensor in ours.items() if name in plan.tensors}
    differ = {name: t for name, t in shared.items() if describe(t) != describe(plan.tensors[name])}
    reshaped = tuple(
        name for name, tensor in differ.items() if same_numbers(tensor, plan.tensors[name])
    )
    return Match(
        network=network,
        way=way,
        names={name: ours_ for name, ours_ in names.items() if ours_ in plan.tensors},
        missing=tuple(
            name for name in plan.tensors if name not in ours and not name.endswith(COUNTER)
        ),
        unexpected=tuple(name for name in found if names.get(name) not in plan.tensors),
        misshapen=tuple(
            (name, describe(t), describe(plan.tensors[name]))
            for name, t in differ.items()
            if name not in reshaped
        ),
        reshaped=reshaped,
        plan=plan,
    )


def same_numbers(tensor: "Tensor", like: "Tensor") -> bool:
    """Whether one is a linear layer's weight and the other the same as a convolution's."""
    real = tensor.is_floating_point() and like.is_floating_point()
    return (
        real
        and {tensor.ndim, like.ndim} == {2, 4}
        and tensor.flatten(1).shape == like.flatten(1).shape
    )


def in_forward_order(names: Iterable[str]) -> list[str] | None:
    """The names sorted by TOP, WIDENING and PLAIN; None if one of them has another scheme.

    >>> in_forward_order(["classifier.bias", "bn1.weight", "conv_stem.weight"])
    ['conv_stem.weight', 'bn1.weight', 'classifier.bias']
    """
    names = [name for name in names if not name.endswith(COUNTER)]
    widening = {block for name in names if (block := name.partition(".conv_pwl.")[0]) != name}

    def place(name: str) -> list[int]:
        top, *parts = name.split(".")
        block = WIDENING if ".".join([top, *parts[:2]]) in widening else PLAIN
        return [
            TOP.index(top),
            *(int(part) if part.isdecimal() else block.index(part) for part in parts),
        ]

    try:
        return sorted(names, key=place)
    except ValueError:  # a part that the scheme does not have
        return None


def kind(name: str) -> str:
    """weight, bias, running_mean or running_var."""
    return name.rpartition(".")[2]


def candidates(found: "Mapping[str, Tensor]") -> list[str]:
    """Networks that have as many parameters as the file.

    Their counts come from the builders' docstrings: building all networks would take seconds. The
    file may have other classes or channels: then any of its layers (C, width) with C biases may be
    the head, and any convolution the first.
    """
    from foveate.models import MODELS

    learnt = {
        name: t
        for name, t in found.items()
        if kind(name) not in ("running_mean", "running_var", COUNTER)
    }
    total = sum(t.numel() for t in learnt.values())
    shapes = {tuple(t.shape) for t in learnt.values()}
    heads = {
        s[:2] for s in shapes if len(s) >= 2 and all(n == 1 for n in s[2:]) and s[:1] in shapes
    }
    firsts = {s for s in shapes if len(s) == 4}
    chosen = []
    for name, builder in MODELS.items():
        stated = re.search(r"([\d,]+) parameters at (\d+) classes", builder.__doc__ or "")
        assert stated is not None, f"the builder of {name} does not say how many parameters it has"
        lacking, classes = int(stated[1].replace(",", "")) - total, int(stated[2])
        ends = {0} | {(classes - c) * (width + 1) for c, width in heads}
        begins = {0} | {(usual - c) * out * h * w for out, c, h, w in firsts for usual in (1, 3)}
        if any(lacking - begin in ends for begin in begins):
            chosen.append(name)
    return chosen
