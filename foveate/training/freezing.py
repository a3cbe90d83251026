"""Freezing: which parts of a network learn, at which rate, and what that costs."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.models.summary import run, summarise, summarise_stages
from foveate.probe import Probe

EARLY = 0.4  # of the stages: edges, colours and textures, which are the same in all photos


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
    size: tuple[int, int, int],
    freeze: int | Literal["none", "early", "backbone"],
    lr: float,
    head_lr: float,
    layer_decay: float = 1.0,
    unfreeze_at: int = -1,
    frozen_norms: bool = False,
) -> Plan:
    """The transfer plan of a network of the canon, or of a Probe.

    Args:
        network: it is not changed.
        size: of an image, (channels, height, width).
        freeze: a number of stages from the first; "early", the first two fifths of them, to the
            nearest whole one; "backbone", all but the head; or "none".
        lr, head_lr: highest rates, of the last stage and of the head.
        layer_decay: each stage's rate in parts of the next one's.
        unfreeze_at: the epoch from which everything learns; -1 is never.
        frozen_norms: keep all running statistics.

    Raises:
        UsageError: the network has fewer stages; images of that size do not fit it.
    """
    probe = isinstance(network, Probe)
    body: nn.Module = network.backbone if probe else network  # type: ignore[assignment]
    prefix = "backbone." if probe else ""
    try:
        judged = summarise(body, size)
        *stages, rest = summarise_stages(body, judged)
    except ValueError as error:
        raise UsageError(f"{error} (--size)") from error
    if freeze == "early":
        freeze = round(EARLY * len(stages))
    if isinstance(freeze, int) and freeze > len(stages):
        raise UsageError(
            f"cannot freeze {freeze} stages: the network has {len(stages)}; give 0 to {len(stages)}"
        )

    names = [name for name, _ in network.named_parameters()]
    head = next(name for name, module in network.named_modules() if module is network.head)
    own = [{prefix + layer.name + "." for layer in stage.layers} for stage in stages]
    others = ["neck", "head", "unread" if probe else "auxiliary"]
    placed: dict[str, list[str]] = {
        name: [] for name in [*(stage.name for stage in stages), *others]
    }
    neck = {layer.name + "." for layer in rest.layers}
    for name in names:
        stage = next(
            (s for s, mine in zip(stages, own, strict=True) if name.startswith(tuple(mine))), None
        )
        if stage is not None:
            placed[stage.name].append(name)
        elif name.startswith(head + "."):
            placed["head"].append(name)
        elif probe:
            placed["unread"].append(name)
        else:
            placed["neck" if name.startswith(tuple(neck)) else "auxiliary"].append(name)

    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    normed = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    macs = {stage.name: stage.macs for stage in stages}
    if probe:
        macs["head"] = network.linear.weight.numel()  # type: ignore[union-attr, operator]
    else:
        macs["head"] = sum(layer.macs for layer in rest.layers if layer.name == head)
        macs["neck"] = rest.macs - macs["head"]
        if placed["auxiliary"]:
            macs["auxiliary"] = macs_in_training(network, size) - judged.macs
    rates = {
        stage.name: lr * layer_decay ** (len(stages) - 1 - i) for i, stage in enumerate(stages)
    }
    rates |= {"neck": lr, "head": head_lr, "auxiliary": lr, "unread": 0.0}
    still = {stage.name for stage in stages[: freeze if isinstance(freeze, int) else 0]}
    if freeze == "backbone":
        still = {*placed} - {"head"}
    parts = []
    for part, inside in placed.items():
        if not inside and not macs.get(part):
            continue
        frozen = part in still or rates[part] == 0
        has_norms = any(name.rpartition(".")[0] in normed for name in inside)
        norms: Literal["batch", "frozen", ""] = (
            ("frozen" if frozen or frozen_norms else "batch") if has_norms else ""
        )
        count = sum(sizes[name] for name in inside)
        parts.append(
            Part(part, tuple(inside), count, macs.get(part, 0), rates[part], frozen, norms)
        )
    return Plan(tuple(parts), unfreeze_at, frozen_norms)


def macs_in_training(network: nn.Module, size: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image, (channels, height, width), those of auxiliary classifiers
    among them."""

    def learning(twin: Any, image: Tensor) -> Any:
        # its own forward's choice; what is in it stays in evaluation, as one image needs
        twin.training = True
        return twin(image)

    return run(network, size, learning)[1].follower.macs
