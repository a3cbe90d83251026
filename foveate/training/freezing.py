"""Freezing: which parts of a network learn, at which rate, and what that costs.

Which parameter belongs to which stage is asked of automatic differentiation: a stage's parameters
are those that its map depends on and no earlier map does. Nothing is known of the operations in
between, so any network that keeps the contract has a plan.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foveate.arguments import option, whole_number
from foveate.data.preprocess import is_number
from foveate.errors import UsageError
from foveate.forking import torch_threads
from foveate.models.adapters import check_stages
from foveate.models.summary import meta_twin
from foveate.models.surgery import first_convolution
from foveate.probe import Probe
from foveate.training.config import Freeze, what_to_freeze
from foveate.weights import usage_errors

EARLY = 0.4  # of the stages: edges, colours and textures, which are the same in all photos
Size = tuple[int, int, int]  # of an image: channels, height, width
Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Part:
    """One part of a network in a transfer plan.

    Args:
        name: "stage 1" ..., "neck" (between the last map and the head), "head", "auxiliary", or
            "unread".
        names: its parameters.
        parameters: numbers in them.
        macs: multiply-accumulates for one image.
        lr: its highest learning rate; 0 for what never learns.
        frozen: whether it is, at first.
        norms: what its batch-norms do at first: "batch" statistics, "frozen" ones, or "" where
            there are none.
    """

    name: str
    names: tuple[str, ...]
    parameters: int
    macs: int
    lr: float
    frozen: bool
    norms: Literal["batch", "frozen", ""]


@dataclass(frozen=True)
class Plan:
    """Which parts of a network learn, at which rate, and what that costs.

    Args:
        parts: in the order in which an image passes them.
        unfreeze_at: the epoch, from 0, from which frozen parts learn as well; -1 is never.
        frozen_norms: whether batch-norms keep their statistics everywhere.
    """

    parts: tuple[Part, ...]
    unfreeze_at: int
    frozen_norms: bool

    def frozen(self, epoch: int) -> list[Part]:
        """The parts that do not learn in an epoch."""
        thawed = 0 <= self.unfreeze_at <= epoch
        return [part for part in self.parts if part.lr == 0 or (part.frozen and not thawed)]

    def learning(self, epoch: int = 0) -> int:
        """Parameters that learn in an epoch."""
        return sum(part.parameters for part in self.parts) - sum(
            part.parameters for part in self.frozen(epoch)
        )

    def macs(self, epoch: int = 0) -> int:
        """Multiply-accumulates of a training step for one image: forward once, backward twice where
        it learns."""
        frozen = self.frozen(epoch)
        return sum(part.macs * (1 if part in frozen else 3) for part in self.parts)

    def least(self, epoch: int) -> int:
        """Images that go through the network at once, at least: batch-norm takes no statistics from
        a single one."""
        still = self.frozen(epoch)
        takes = not self.frozen_norms and any(
            part.norms and part not in still for part in self.parts
        )
        return 2 if takes else 1

    def apply(self, network: nn.Module, epoch: int) -> None:
        """Make a network ready to be trained in an epoch: what is frozen has no gradients and is in
        evaluation."""
        network.train()
        still = {name for part in self.frozen(epoch) for name in part.names}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in still)
        for name, module in network.named_modules():
            own = [f"{name}.{n}" if name else n for n, _ in module.named_parameters()]
            held = bool(own) and all(n in still for n in own)
            if held or (self.frozen_norms and isinstance(module, nn.BatchNorm2d)):
                module.eval()

    def to_dict(self) -> dict[str, Any]:
        parts = [{**asdict(part), "names": len(part.names)} for part in self.parts]
        return {
            "parts": parts,
            "unfreeze_at": self.unfreeze_at,
            "learning": self.learning(),
            "parameters": sum(part.parameters for part in self.parts),
            "macs_per_image": self.macs(),
        }


def make_plan(
    network: nn.Module,
    size: Size,
    freeze: Freeze,
    lr: float,
    head_lr: float,
    layer_decay: float = 1.0,
    unfreeze_at: int = -1,
    frozen_norms: bool = False,
) -> Plan:
    """The transfer plan of a network.

    Args:
        network: with `stages` and `head`, or without both: then it is one part, which learns. It
            is not changed; a Probe's parts are those of its backbone, and its own linear head.
        size: of an image, (channels, height, width).
        freeze: a number of stages from the first; "early", the first two fifths of them, to the
            nearest whole one; "backbone", all but the head; or "none".
        lr, head_lr: highest rates, of the last stage and of the head.
        layer_decay: each stage's rate as a fraction of the next one's.
        unfreeze_at: the epoch from which everything learns; -1 is never.
        frozen_norms: keep all running statistics.

    Raises:
        UsageError: the network has fewer stages, or none and something is to be frozen; images of
            that size do not fit it.
    """
    owners = parameters_of_parts(network, size)
    stages = [name for name in owners if name.startswith("stage ")]
    if not stages and (freeze not in ("none", 0) or layer_decay != 1):
        raise UsageError(
            f"freeze and layer-decay need a network with `stages` and `head`, and "
            f"{type(network).__name__} lacks them; leave both out, or add them"
        )
    rates = {name: lr * layer_decay ** (len(stages) - 1 - i) for i, name in enumerate(stages)}
    rates |= {"network": lr, "neck": lr, "head": head_lr, "auxiliary": lr, "unread": 0.0}
    held = frozen_parts(owners, freeze)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    normed = {n for n, m in network.named_modules() if isinstance(m, Norm)}
    macs = macs_of_parts(network, size, owners)
    parts = []
    for part, names in owners.items():
        frozen = part in held or rates[part] == 0
        norms: Literal["batch", "frozen", ""] = ""
        if any(name.rpartition(".")[0] in normed for name in names):
            norms = "frozen" if frozen or frozen_norms else "batch"
        count = sum(sizes[name] for name in names)
        parts.append(Part(part, names, count, macs.get(part, 0), rates[part], frozen, norms))
    return Plan(tuple(parts), unfreeze_at, frozen_norms)


def frozen_parts(owners: dict[str, tuple[str, ...]], freeze: Freeze) -> set[str]:
    """Names of the parts that do not learn."""
    stages = [name for name in owners if name.startswith("stage ")]
    if freeze == "backbone":
        return {*owners} - {"head"}
    if freeze == "early":
        freeze = round(EARLY * len(stages))
    if isinstance(freeze, int) and freeze > len(stages):
        raise UsageError(
            f"cannot freeze {freeze} stages: the network has {len(stages)}; give 0 to {len(stages)}"
        )
    return set(stages[: freeze if isinstance(freeze, int) else 0])


def parameters_of_parts(network: nn.Module, size: Size) -> dict[str, tuple[str, ...]]:
    """Each part's parameters, in the order in which an image passes the parts.

    "stage 1", "stage 2" ... have what their map depends on and no earlier map does; "neck" what
    lies between the last map and the head; "head"; "auxiliary" what only training uses, and
    "unread" what a Probe does not read of its backbone. A network without `stages` or `head` is
    one part, "network".
    """
    names = [name for name, _ in network.named_parameters()]
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Module) or not callable(getattr(network, "stages", None)):
        return {"network": tuple(names)}
    path = next(name for name, module in network.named_modules() if module is head)
    in_head = {name for name in names if name.startswith(f"{path}.")}
    maps = dependencies(network, size)
    logits = set() if isinstance(network, Probe) else maps.pop()
    placed: dict[str, list[str]] = {f"stage {i}": [] for i in range(1, len(maps) + 1)}
    unused = "unread" if isinstance(network, Probe) else "auxiliary"
    placed |= {"neck": [], "head": [], unused: []}
    for name in names:
        number = next((i for i, reached in enumerate(maps, start=1) if name in reached), None)
        if name in in_head:
            placed["head"].append(name)
        elif number is not None:
            placed[f"stage {number}"].append(name)
        else:
            placed["neck" if name in logits else unused].append(name)
    return {part: tuple(own) for part, own in placed.items() if own or part.startswith("stage ")}


def dependencies(network: nn.Module, size: Size) -> list[set[str]]:
    """Names of the parameters that each map of `stages` depends on; at last, but for a Probe, those
    of the logits."""

    def reached(twin: nn.Module, image: Tensor) -> list[set[str]]:
        parameters = dict(twin.requires_grad_(True).named_parameters())
        stages: Any = twin.stages
        found = []
        with torch.enable_grad():
            behind = [] if isinstance(twin, Probe) else [twin(image)]  # a Probe reads maps alone
            for output in [*stages(image), *behind]:
                gradients = torch.autograd.grad(
                    output.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
                )
                pairs = zip(parameters, gradients, strict=True)
                found.append({name for name, gradient in pairs if gradient is not None})
        return found

    return without_numbers(network, size, reached)


def macs_of_parts(
    network: nn.Module, size: Size, owners: dict[str, tuple[str, ...]]
) -> dict[str, int]:
    """Multiply-accumulates of convolutions and matrix products for one image, by part; those of
    auxiliary classifiers as in training."""
    part_of = {name: part for part, names in owners.items() for name in names}

    def counted(twin: nn.Module, image: Tensor) -> dict[str, int]:
        parts: dict[str, int] = {}
        entered: list[tuple[int, int]] = []  # of each module that runs: flops before, flops inside

        def enter(*_: object) -> None:
            entered.append((counter.get_total_flops(), 0))

        def leave(name: str) -> None:
            before, inside = entered.pop()
            own = counter.get_total_flops() - before
            if own > inside:
                part = part_of_module(name, part_of)
                parts[part] = parts.get(part, 0) + (own - inside) // 2
            if entered:
                entered[-1] = (entered[-1][0], entered[-1][1] + own)

        for name, module in twin.named_modules():
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(lambda *_, name=name: leave(name))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            twin(image)
        return parts

    inference = without_numbers(network, size, counted)
    if "auxiliary" in owners:

        def learning(twin: nn.Module, image: Tensor) -> dict[str, int]:
            twin.training = True  # what is in it stays in evaluation, as a single image needs
            return counted(twin, image)

        return without_numbers(network, size, learning)
    return inference


def part_of_module(name: str, part_of: dict[str, str]) -> str:
    """The part in which a module's own arithmetic is counted: that of its first parameter, else
    of the nearest module around it that has one."""
    while True:
        prefix = f"{name}." if name else ""
        part = next((part for own, part in part_of.items() if own.startswith(prefix)), None)
        if part is not None:
            return part
        name = name.rpartition(".")[0]


def without_numbers(
    network: nn.Module, size: Size, function: Callable[[nn.Module, Tensor], Any]
) -> Any:
    """What a function of the network and one image gives, computed on a twin on torch's meta
    device, where no number is stored; on a copy where an operation is not known there.

    Raises:
        UsageError: the network refuses images of this size.
    """
    try:
        try:
            return function(meta_twin(network), torch.zeros(1, *size, device="meta"))
        except (NotImplementedError, RuntimeError):
            where = next((t.device for t in network.parameters()), torch.device("cpu"))
            if where.type == "meta":
                raise
            copied = copy.deepcopy(network).eval()
            return function(copied, torch.zeros(1, *size, device=where))
    except (ValueError, RuntimeError) as error:
        sides = "x".join(str(n) for n in size[1:])
        raise UsageError(
            f"{type(network).__name__} cannot read images of {sides} pixels: {error} "
            f"({option('size')})"
        ) from error


# For loops of one's own


class FrozenBatchNorm(Norm):
    """A batch-norm that keeps its statistics in any mode. Its tensors have the same names."""

    def __init__(self, norm: Norm):
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.kind: type[Norm] = type(norm)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)

    def thawed(self) -> Norm:
        """The batch-norm that it was, with the same tensors."""
        norm = self.kind(self.num_features, self.eps, self.momentum, affine=self.affine)
        norm.weight, norm.bias = self.weight, self.bias
        norm.running_mean, norm.running_var = self.running_mean, self.running_var
        norm.num_batches_tracked = self.num_batches_tracked
        return norm


class ParameterGroups:
    """The parameter groups of a network that `freeze` was called on, read when they are iterated.

    An optimiser reads them when it is made. So a head that is replaced in between learns, and no
    frozen parameter is in any group.
    """

    def __init__(self, network: nn.Module, rates: dict[str, float | None], part_of: dict[str, str]):
        self.network, self.rates, self.part_of = network, rates, part_of

    def __iter__(self) -> Iterator[dict[str, Any]]:
        head: Any = self.network.head
        path = next(name for name, module in self.network.named_modules() if module is head)
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            known = self.part_of.get(name, "neck")
            part = "head" if name.startswith(f"{path}.") else known
            if parameter.requires_grad:
                groups.setdefault(part, []).append(parameter)
        for part, parameters in groups.items():
            rate = self.rates.get(part)
            group: dict[str, Any] = {"params": parameters, "name": part}
            yield group if rate is None else group | {"lr": rate}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        lines = []
        for group in self:
            rate = f" at {group['lr']:.3g}" if "lr" in group else ""
            count = sum(p.numel() for p in group["params"])
            lines.append(f"{group['name']}: {count:,} parameters{rate}")
        return f"ParameterGroups({'; '.join(lines)})"


@torch_threads()
def freeze(
    network: nn.Module,
    what: Freeze = "backbone",
    *,
    lr: float | None = None,
    head_lr: float | None = None,
    layer_decay: float = 1.0,
    size: int | None = None,
) -> ParameterGroups:
    """Freeze the first stages of a network, in place, and give what an optimiser is to train.

    What is frozen has no gradients, and its batch-norms keep their statistics even in training
    mode; the names of all tensors stay. Calling it again replaces what an earlier call froze:
    `freeze(network, "none")` makes everything learn.

    Args:
        network: with `stages` and `head`: of the canon, of timm, or your own.
        what: "backbone", all but the head; "early", the first two fifths of the stages; a number
            of stages from the first; or "none".
        lr: rate of the last stage and what follows it. By default the optimiser's own.
        head_lr: rate of the head; by default `lr`.
        layer_decay: each stage's rate as a fraction of the next one's; it needs `lr`.
        size: side in pixels of an image that fits; by default the network's `input_size`.

    Returns:
        Parameter groups for any optimiser of torch: `torch.optim.SGD(groups, lr=0.01)`. They are
        read when the optimiser is made, so the head may be replaced before that.

    Raises:
        UsageError: a part of the contract is missing, and named; there are fewer stages; a rate
            or `layer_decay` is out of its range.

    >>> from foveate.models import build, replace_head
    >>> network = build("resnet18")
    >>> groups = freeze(network, "backbone")
    >>> optimizer = torch.optim.SGD(groups, lr=0.01)
    >>> [group["name"] for group in optimizer.param_groups]
    ['head']
    """
    if not isinstance(network, nn.Module):
        raise UsageError(f"freeze takes a torch.nn.Module, not {type(network).__name__}")
    for part in ("stages", "head"):
        if not callable(getattr(network, part, None)):
            raise UsageError(
                f"freeze needs `{part}` of a network, and {type(network).__name__} has none"
            )
    what = what_to_freeze(what)
    for name, rate in (("lr", lr), ("head_lr", head_lr)):
        if rate is not None and not (is_number(rate) and rate > 0):
            raise UsageError(f"{name} must be a number above 0, not {rate!r}")
    if not (is_number(layer_decay) and 0 < layer_decay <= 1):
        raise UsageError(f"layer_decay must be above 0 and at most 1, not {layer_decay!r}")
    if layer_decay != 1 and lr is None:
        raise UsageError("layer_decay is a fraction of lr; give lr too")
    read = size_of(network, size)
    with usage_errors():
        check_stages(network, read[0], read[1])
    owners = parameters_of_parts(network, read)
    held = frozen_parts(owners, what)
    still = {name for part in held for name in owners[part]}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in still)
    for name, module in list(network.named_modules()):
        own = [f"{name}.{n}" if name else n for n, _ in module.named_parameters(recurse=False)]
        frozen = bool(own) and all(n in still for n in own)
        if isinstance(module, FrozenBatchNorm):
            if not frozen:
                network.set_submodule(name, module.thawed().train(module.training))
        elif isinstance(module, Norm) and frozen and module.track_running_stats:
            network.set_submodule(name, FrozenBatchNorm(module).train(module.training))
    stages = [name for name in owners if name.startswith("stage ")]
    rates: dict[str, float | None] = {"neck": lr, "auxiliary": lr, "unread": lr}
    rates["head"] = lr if head_lr is None else head_lr
    for i, stage in enumerate(stages):
        rates[stage] = None if lr is None else lr * layer_decay ** (len(stages) - 1 - i)
    part_of = {name: part for part, names in owners.items() for name in names}
    return ParameterGroups(network, rates, part_of)


def size_of(network: nn.Module, side: int | None) -> Size:
    """Of an image that a network can read, (channels, height, width)."""
    side = None if side is None else whole_number("size", side, 1)
    first = first_convolution(network)
    given = getattr(network, "input_size", None) if side is None else side
    if first is None or not isinstance(given, int):
        raise UsageError(
            f"the size of {type(network).__name__}'s images is not known: give size, in pixels"
        )
    return first.in_channels, given, given
