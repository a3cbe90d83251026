"""The options of training by steps; `given_settings` reads them back. Their defaults are the
recipe's own."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli.augmentation import given_augment
from foveate.cli.help import DATA, EXECUTION, STEPS, complete_data

Data = Annotated[
    str,
    typer.Argument(
        help="A folder of images, a CSV, or a built-in set.", autocompletion=complete_data
    ),
]
Language = Annotated[
    Literal["en", "zh"], typer.Option("--lang", help="Of the report: English or Chinese.")
]
Task = Annotated[
    Literal["multiclass", "multilabel"],
    typer.Option(
        rich_help_panel=DATA,
        help="One class per image; or any number of labels, from a CSV: cat|outdoors.",
    ),
]
Corrections = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=DATA,
        help="A table of right labels, as foveate review writes it: only its rows are applied.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="A checkpoint file of the model, or a run to go on from."),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A run's config.json: train as it was trained; options beside it win."),
]
Epochs = Annotated[
    int | None, typer.Option(rich_help_panel=STEPS, help="Passes over the training images.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(rich_help_panel=STEPS, help="Images per step, on all processes together."),
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=EXECUTION, help="Micro-batches that a batch is cut into, to save memory."
    ),
]
Optimizer = Annotated[
    Literal["sgd", "adamw"] | None,
    typer.Option(rich_help_panel=STEPS, help="SGD with Nesterov's momentum, or AdamW."),
]
Lr = Annotated[float | None, typer.Option(rich_help_panel=STEPS, help="Highest learning rate.")]
HeadLr = Annotated[
    float | None, typer.Option(rich_help_panel=STEPS, help="That of the last layer [default: --lr]")
]
LayerDecay = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Each stage's rate as a fraction of the next one's."),
]
Momentum = Annotated[float | None, typer.Option(rich_help_panel=STEPS, help="Momentum of SGD.")]
WeightDecay = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Weight decay; biases and norms have none."),
]
Schedule = Annotated[
    Literal["cosine", "one-cycle", "constant"] | None,
    typer.Option(rich_help_panel=STEPS, help="How the learning rate changes."),
]
Warmup = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=STEPS, help="Epochs in which the rate rises from 0; not with one-cycle."
    ),
]
LabelSmoothing = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Share of a label that is spread over all classes."),
]
Clip = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Longest gradient, by its norm; 0 is no limit."),
]
Ema = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Decay of the average of the weights; 0 is off."),
]
Patience = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=STEPS,
        help="Epochs without a better validation that end training; 0 is never.",
    ),
]
Freeze = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=STEPS,
        help="What does not learn: none, early, backbone, or a number of stages.",
    ),
]
UnfreezeAt = Annotated[
    int | None,
    typer.Option(rich_help_panel=STEPS, help="The epoch, from 1, from which it learns after all."),
]
BatchNorm = Annotated[
    Literal["train", "frozen"] | None,
    typer.Option(rich_help_panel=STEPS, help="Statistics of batches, or those learnt before."),
]
Balance = Annotated[
    Literal["none", "weights", "sampling"] | None,
    typer.Option(rich_help_panel=STEPS, help="Rare classes count more, or are seen more often."),
]
Precision = Annotated[
    Literal["auto", "f32", "bf16"] | None,
    typer.Option(
        rich_help_panel=EXECUTION, help="auto: bf16 where the processor is faster with it."
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile", rich_help_panel=EXECUTION, help="torch.compile the network."
    ),
]
Progressive = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=STEPS,
        help="Size of the first epoch's images as a fraction of the full size; grows to 1.",
    ),
]
Auxiliary = Annotated[
    float | None,
    typer.Option(rich_help_panel=STEPS, help="Weight of auxiliary classifiers' losses."),
]

Size = Annotated[
    int | None, typer.Option(rich_help_panel=DATA, help="Side in pixels of what the network reads.")
]
Channels = Annotated[
    Literal["1", "3"] | None,
    typer.Option(rich_help_panel=DATA, help="Grey or colour, from scratch."),
]
Cache = Annotated[
    Literal["off", "ram", "disk"] | None,
    typer.Option(rich_help_panel=EXECUTION, help="Where decoded pixels are kept [default: ram]"),
]
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard", rich_help_panel=EXECUTION, help="Write the history for TensorBoard too."
    ),
]

FramingOption = Annotated[
    Literal["auto", "whole", "7/8", "2/3", "1/2", "whole+2/3"],
    typer.Option(
        rich_help_panel=DATA,
        help="How much of the shorter side is seen, around the centre; auto: what the training "
        "images ask for.",
    ),
]
FitOption = Annotated[
    Literal["crop", "pad", "squash"] | None,
    typer.Option(
        rich_help_panel=DATA,
        help="A longer side: cut its ends off, keep it all between borders, or squeeze it "
        "[default: crop]",
    ),
]
Reject = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA,
        metavar="SHARE",
        help="Share of images like the training images that may be answered with none of these, or "
        "off [default: 0.05]",
    ),
]
Positive = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DATA,
        metavar="CLASS",
        help="The class of which a recall is to be kept on new images.",
    ),
]
Recall = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=DATA,
        help="With --positive: the share of its images that are to be given it, such as 0.99.",
    ),
]
FindLr = Annotated[
    bool,
    typer.Option(
        "--find-lr",
        rich_help_panel=STEPS,
        help="Instead of training: try rising rates, and suggest one.",
    ),
]


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def arguments(context: typer.Context) -> dict[str, Any]:
    """What decides what is learnt, as keyword arguments of `training.train`: the options, and where
    they are not given what --config records."""
    options = context.params
    names = "model recipe weights task effort size framing fit seed groups on_bad engine".split()
    asked: dict[str, Any] = {name: options[name] for name in names}
    asked["reject"] = given_share(options["reject"])
    asked["channels"] = options["channels"] and int(options["channels"])
    asked["augment"] = given_augment(context)
    asked |= given_settings(context)
    if options["config"] is None:
        return asked

    from foveate.data.augment import PolicyOptions
    from foveate.errors import UsageError
    from foveate.training.recorded import read_arguments

    recorded = read_arguments(options["config"], options["weights"] is not None)
    if asked["recipe"] not in (None, recorded["recipe"]):
        raise UsageError(
            f"--config '{options['config']}' is of the recipe {recorded['recipe']}, not "
            f"{asked['recipe']}; leave --recipe out"
        )
    chosen = asked["augment"]
    if chosen is not None and chosen.policy is None and "augment" in recorded:
        recorded["augment"] = PolicyOptions(recorded["augment"], chosen.options)
    elif chosen is not None:
        recorded["augment"] = chosen
    # one of the two that is given takes the place of both
    if is_given(context, "framing") != is_given(context, "fit"):
        recorded |= {"framing": asked["framing"], "fit": asked["fit"]}
    for name, value in recorded.items():
        if name == "config" or not is_given(context, name):
            asked[name] = value
    return asked


def given_share(text: str | None) -> float | str | None:
    """What --reject says: a number where it is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def given_settings(context: typer.Context) -> dict[str, Any]:
    """The fields of `TrainConfig` that were given on the command line; epochs are counted from 1
    there."""
    from dataclasses import fields

    from foveate.errors import UsageError
    from foveate.training.config import TrainConfig

    names = [field.name for field in fields(TrainConfig)]
    given = {name: value for name in names if (value := context.params.get(name)) is not None}
    freeze = given.get("freeze")
    if isinstance(freeze, str) and freeze.isdecimal():
        given["freeze"] = int(freeze)
    if "unfreeze_at" in given:
        if given["unfreeze_at"] < 1:
            raise UsageError(f"unfreeze-at is an epoch, counted from 1, not {given['unfreeze_at']}")
        given["unfreeze_at"] -= 1
    return given
