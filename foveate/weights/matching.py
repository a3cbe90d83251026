"""Which tensor of a file is which of a network's: by its name, by a rule, or by its place in the
order.

Foreign files name the same tensors otherwise. Their names are not translated one by one: the
tensors are put in the order in which an image meets them, and when there are as many as the network
has, each of the same kind (weight, bias, running_mean, running_var) and shape, they are the
network's. One tensor that disagrees and nothing is matched so.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveate.weights.published import WEIGHTS, Rules
from foveate.weights.tensors import COUNTER, described, rename, size

if TYPE_CHECKING:
    from torch import Tensor

WAYS = OURS, BY_RULE, BY_SCHEME, BY_ORDER = "ours", "rule", "scheme", "order"  # the surest first
TIMM_VGG: Rules = ((r"pre_logits\.fc1\.", "classifier.0."), (r"pre_logits\.fc2\.", "classifier.3."))
TIMM_VGG += ((r"head\.fc\.", "classifier.6."),)

# The order of the parts in timm's EfficientNets and MobileNets, and in efficientnet_pytorch's
# (these begin with _). Without it a .safetensors file, whose tensors are sorted by name, has lost
# its order.
TOP = "conv_stem bn1 blocks conv_head bn2 classifier".split()
TOP += "_conv_stem _bn0 _blocks _conv_head _bn1 _fc".split()
REST = "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2".split()
REST += "conv_reduce conv_expand weight bias running_mean running_var".split()
WIDENING = "conv_pw bn1 conv_dw bn2 se conv_pwl bn3".split() + REST  # in a block that widens first
PLAIN = "conv conv_dw bn1 se conv_pw bn2".split() + REST  # in a block that does not


@dataclass(frozen=True)
class Blueprint:
    """The tensors of a network, on no device, and what in them depends on its ends.

    Args:
        tensors: its state_dict.
        head, first: names of the last layer's and the first convolution's weight.
        auxiliary: what the names in the auxiliary classifiers begin with.
        classes, channels: what it was built with.
    """

    tensors: "dict[str, Tensor]"
    head: str
    first: str
    auxiliary: tuple[str, ...]
    classes: int | None
    channels: int | None


@functools.cache
def blueprint(network: str, classes: int | None = None, channels: int | None = None) -> Blueprint:
    """Of a network of MODELS, with the paper's ends by default."""
    import torch

    from foveate import models

    with torch.device("meta"):
        built = models.build(network, classes, channels)
    paths = {module: path for path, module in built.named_modules()}
    first = next(m for m in built.modules() if isinstance(m, torch.nn.Conv2d))
    tensors = built.state_dict()
    head, first_weight = f"{paths[built.head]}.weight", f"{paths[first]}.weight"
    return Blueprint(
        tensors=tensors,
        head=head,
        first=first_weight,
        auxiliary=tuple(path.partition(".")[0] + "." for path in getattr(built, "AUXILIARY", ())),
        classes=size(tensors.get(head), 0),
        channels=size(tensors.get(first_weight), 1),
    )


@dataclass(frozen=True)
class Match:
    """How a file's tensors go onto a network's.

    Args:
        network: name in MODELS.
        way: OURS, BY_RULE, BY_SCHEME or BY_ORDER.
        names: the file's names -> ours, of all that have a place.
        missing: our names that the file lacks, without counters, which nothing reads.
        unexpected: the file's names that have no place.
        misshapen: (our name, the file's shape, ours).
        reshaped: our names whose numbers are a convolution's in one file and a linear layer's in
            the other.
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
        """What is missing of the auxiliary classifiers, which only training uses: none, unless it
        is all."""
        all_ = tuple(name for name in self.missing if name.startswith(self.plan.auxiliary))
        return (
            ()
            if any(name.startswith(self.plan.auxiliary) for name in self.names.values())
            else all_
        )

    @property
    def failing(self) -> int:
        """Tensors that keep the file from being the network's."""
        return (
            len(self.missing)
            + len(self.unexpected)
            + len(self.misshapen)
            - len(self.missing_auxiliary)
        )


def best_match(found: "Mapping[str, Tensor]", network: str) -> Match:
    """The way of naming under which the fewest tensors fail; the plainest of equals."""
    return min(
        (compared(found, network, way, names) for way, names in namings(found, network)), key=cost
    )


def cost(match: Match) -> tuple[int, int, int]:
    """The fewest that fail, then the surest way, then the fewest that are reshaped."""
    return match.failing, WAYS.index(match.way), len(match.reshaped)


def namings(found: "Mapping[str, Tensor]", network: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(way, the file's names -> ours) for each way that can be tried."""
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
        if not compared(found, network, BY_ORDER, pairs).misshapen:
            yield BY_SCHEME if ordered else BY_ORDER, pairs


def compared(found: "Mapping[str, Tensor]", network: str, way: str, names: dict[str, str]) -> Match:
    """What is missing, left over and of another shape under these names, the file's ends allowed
    for."""
    plain = blueprint(network)
    ours = {names[name]: tensor for name, tensor in found.items() if name in names}
    ends = (
        size(ours.get(plain.head), 0) or plain.classes,
        size(ours.get(plain.first), 1) or plain.channels,
    )
    plan = plain if ends == (plain.classes, plain.channels) else blueprint(network, *ends)
    shared = {name: tensor for name, tensor in ours.items() if name in plan.tensors}
    differ = {
        name: t for name, t in shared.items() if described(t) != described(plan.tensors[name])
    }
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
            (name, described(t), described(plan.tensors[name]))
            for name, t in differ.items()
            if name not in reshaped
        ),
        reshaped=reshaped,
        plan=plan,
    )


def same_numbers(tensor: "Tensor", like: "Tensor") -> bool:
    """Whether one is a linear layer's weight and the other the same numbers as a convolution's."""
    real = tensor.is_floating_point() and like.is_floating_point()
    return (
        real
        and {tensor.ndim, like.ndim} == {2, 4}
        and tensor.flatten(1).shape == like.flatten(1).shape
    )


def in_forward_order(names: Iterable[str]) -> list[str] | None:
    """By the scheme above; None if they are not named by it.

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
    """Networks that have as many parameters as the file, by their builders' docstrings: nothing has
    to be built.

    The file may have other classes or channels: then any of its layers may be the head (C, width)
    with C biases, and any convolution the first.
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
        said = re.search(r"([\d,]+) parameters at (\d+) classes", builder.__doc__ or "")
        assert said is not None, f"the builder of {name} does not say how many parameters it has"
        lacking, classes = int(said[1].replace(",", "")) - total, int(said[2])
        ends = {0} | {(classes - c) * (width + 1) for c, width in heads}
        begins = {0} | {(usual - c) * out * h * w for out, c, h, w in firsts for usual in (1, 3)}
        if any(lacking - begin in ends for begin in begins):
            chosen.append(name)
    return chosen
