"""How a network is trained step by step: every number of it, with each recipe's own choice."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from foveate.arguments import as_number, as_whole, check_switch, option, shown, spoken
from foveate.errors import UsageError

Freeze = int | Literal["none", "early", "backbone"]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of the loop.

    Args:
        epochs: passes over the training images.
        batch_size: images a step, on all processes together.
        accumulate: micro-batches into which a batch is cut to save memory; the step is that of
            the whole batch.
        optimizer: "sgd", with Nesterov's momentum, or "adamw". Neither decays biases and norms.
        lr: highest learning rate, of the last stage.
        head_lr: highest learning rate of the head.
        layer_decay: each stage learns at this part of the rate of the stage after it.
        momentum: of SGD; AdamW's betas are 0.9 and 0.999.
        weight_decay: of SGD as of AdamW.
        schedule: "cosine" falls from `lr` to 0 after the warm-up; "one-cycle" rises for 30 % of the
            steps, then falls; "constant" stays after the warm-up.
        warmup: epochs in which the rate rises from 0, parts allowed; "cosine" and "constant" alone.
        label_smoothing: share of each label that is spread over all classes.
        clip: longest gradient, by its norm over all parameters; 0 is no limit.
        ema: decay of the exponential moving average of the weights, which is then what is validated
            and kept; 0 is off.
        patience: epochs without a better validation after which training ends; 0 is never.
        freeze: "none"; "early", the first two fifths of the stages; "backbone", all but the head;
            or how many stages.
        unfreeze_at: the epoch, from 0, from which everything learns; -1 is never.
        batch_norm: "train" takes statistics from each batch and keeps their running mean; "frozen"
            leaves those that were learnt before. Frozen stages never change theirs.
        balance: "none"; "weights", an image counts as its class is rare; "sampling", each class is
            seen equally often.
        precision: "f32" or "bf16"; "auto" is decided once, from what the processor has, and then
            written into the run.
        compile: let torch.compile make one program of the network, which takes a minute or more.
        progressive: side of the first epoch's images, in parts of the last one's; it grows evenly.
            1 is off.
        auxiliary: weight of the loss of each auxiliary classifier, 0.3 in the papers.

    Raises:
        UsageError: a value is none of its choices or out of its range.
    """

    epochs: int = 30
    batch_size: int = 128
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    head_lr: float = 0.1
    layer_decay: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: float = 1.0
    label_smoothing: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    freeze: Freeze = "none"
    unfreeze_at: int = -1
    batch_norm: Literal["train", "frozen"] = "train"
    balance: Literal["none", "weights", "sampling"] = "none"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    compile: bool = False
    progressive: float = 1.0
    auxiliary: float = 0.3

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if not (isinstance(getattr(self, name), str) and getattr(self, name) in choices):
                raise UsageError(
                    f"no {spoken(name)} is called {getattr(self, name)!r}; expected "
                    f"{', '.join(choices)}"
                )
        for name, (low, high) in RANGES.items():
            given = getattr(self, name)
            whole = isinstance(getattr(type(self), name), int)  # as the default is
            value = as_whole(given) if whole else as_number(given)
            if value is None or not low <= value <= high:
                number = "a whole number" if whole else "a number"
                raise UsageError(
                    f"{spoken(name)} must be {number} from {low:g} to {high:g}, not {shown(given)}"
                )
            object.__setattr__(self, name, value)
        check_switch("compile", self.compile)
        object.__setattr__(self, "freeze", what_to_freeze(self.freeze))
        if self.unfreeze_at >= self.epochs:
            raise UsageError(f"{spoken('unfreeze_at')} must lie within the {self.epochs} epochs")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate {self.accumulate}: a batch of {self.batch_size} has not so many "
                "micro-batches"
            )
        if self.progressive < 1 and self.epochs == 1:
            raise UsageError(
                "progressive needs at least 2 epochs: from smaller images to larger ones"
            )
        if self.unfreeze_at >= 0 and self.freeze in ("none", 0):
            raise UsageError(
                f"{spoken('unfreeze_at')} applies where something is frozen; give "
                f"{option('freeze', 'backbone')} or a number "
                "too"
            )
        if self.warmup > self.epochs:
            raise UsageError(
                f"a warmup of {self.warmup:g} epochs is longer than the training, {self.epochs}"
            )
        if self.warmup and self.schedule == "one-cycle":
            raise UsageError(
                "warmup applies to the schedules cosine and constant; one-cycle has a rise of its "
                "own"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def what_to_freeze(value: Any) -> Freeze:
    """A choice or a number of stages; UsageError if it is none."""
    if isinstance(value, str) and value in FREEZE:
        return value  # type: ignore[return-value]  # `in` does not narrow str to a Literal
    stages = as_whole(value)
    if stages is None or stages < 0:
        raise UsageError(
            f"freeze must be {', '.join(FREEZE)} or a number of stages, not {shown(value)}"
        )
    return stages


FREEZE = ("none", "early", "backbone")
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "one-cycle", "constant"),
    "batch_norm": ("train", "frozen"),
    "balance": ("none", "weights", "sampling"),
    "precision": ("auto", "f32", "bf16"),
}
RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 65_536),
    "accumulate": (1, 65_536),
    "lr": (1e-9, 100),
    "head_lr": (1e-9, 100),
    "layer_decay": (0.01, 1),
    "momentum": (0, 0.999),
    "weight_decay": (0, 10),
    "warmup": (0, 1000),
    "label_smoothing": (0, 0.9),
    "clip": (0, 1e6),
    "ema": (0, 0.99999),
    "patience": (0, 100_000),
    "unfreeze_at": (-1, 100_000),
    "progressive": (0.25, 1),
    "auxiliary": (0, 10),
}

SCRATCH = TrainConfig()
SCRATCH_WITHOUT_NORMS = replace(
    SCRATCH, optimizer="adamw", lr=1e-3, head_lr=1e-3, weight_decay=0.01, clip=1.0
)
FINETUNE = replace(
    SCRATCH,
    epochs=5,
    batch_size=32,
    optimizer="adamw",
    lr=3e-4,
    head_lr=3e-4,
    layer_decay=0.85,
    weight_decay=0.01,
    warmup=0.5,
    clip=1.0,
    ema=0.99,
    freeze="early",
    batch_norm="frozen",
)
SGD_RATES = {"finetune": 1e-2, "scratch": 0.1, "scratch without norms": 1e-2}
ADAMW_RATES = {"finetune": 3e-4, "scratch": 1e-3, "scratch without norms": 1e-3}
RISING = 0.1  # of the epochs: a recipe's own warm-up takes no more
DECAYS = {"sgd": 5e-4, "adamw": 0.01}


def resolve_config(
    recipe: Literal["finetune", "scratch"],
    given: Mapping[str, Any],
    norms: bool,
    whole: TrainConfig | None = None,
) -> TrainConfig:
    """A recipe's settings with some replaced.

    Args:
        recipe: whose.
        given: fields of `TrainConfig` and their values. Where a rate is given and the head's is
            not, both are that.
        norms: whether the network has batch-norms; without them a rate of 0.1 would throw a deep
            network off.
        whole: settings that take the place of the recipe's.

    Raises:
        UsageError: no such setting; a value out of its range; a setting that does not apply.
    """
    check_names(given)
    if not isinstance(whole, TrainConfig | None):
        raise UsageError(f"config is a TrainConfig, not {type(whole).__name__}")
    if "batch_norm" in given and not norms:
        raise UsageError(f"{spoken('batch_norm')} does not apply: the network has none")
    if "momentum" in given and given.get("optimizer") == "adamw":
        raise UsageError("momentum applies to the optimizer sgd; adamw has betas of its own")
    kind = recipe if norms or recipe == "finetune" else "scratch without norms"
    recipes = {"finetune": FINETUNE, "scratch": SCRATCH}
    base = whole or recipes.get(kind, SCRATCH_WITHOUT_NORMS)
    given = dict(given)
    epochs = as_whole(given.get("epochs", base.epochs))
    if whole is None and epochs is not None and epochs > 0:
        given.setdefault(
            "warmup",
            0.0 if given.get("schedule") == "one-cycle" else min(base.warmup, RISING * epochs),
        )
    optimizer = given.get("optimizer", base.optimizer)
    # the other one's numbers would mean something else
    if optimizer != base.optimizer and optimizer in DECAYS:
        if whole is not None and not {"lr", "weight_decay"} <= given.keys():
            raise UsageError(
                f"the optimizer {optimizer} needs an lr and a {spoken('weight_decay')} of its own: "
                f"those of the config are for {base.optimizer}"
            )
        rate = {"sgd": SGD_RATES, "adamw": ADAMW_RATES}[optimizer][kind]
        base = replace(base, lr=rate, head_lr=rate, weight_decay=DECAYS[optimizer])
    if "lr" in given:
        given.setdefault("head_lr", given["lr"])
    if "momentum" in given and base.optimizer == "adamw" and "optimizer" not in given:
        raise UsageError(
            "momentum applies to the optimizer sgd, and the one here is adamw; give "
            f"{option('optimizer', 'sgd')} too"
        )
    return replace(base, **given)


def check_names(given: Iterable[str]) -> None:
    """UsageError for what is no field of `TrainConfig`, with the nearest name."""
    names = [field.name for field in fields(TrainConfig)]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"no setting of training is called {name!r}; {hint}")
