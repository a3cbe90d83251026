"""foveate train"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli import augmentation, settings
from foveate.cli.console import JSON_HELP, TerminalProgress, clean, print_json, print_table, say
from foveate.errors import UsageError

MOST_CLASSES = 25  # more would not fit a screen: the worst are shown
MOST_BAD = 5  # unreadable images that are listed
FINETUNE = (  # measured: benchmarks/results/finetune.json
    "--recipe finetune lets the later stages learn on too; with efficientnet_lite0 on two cores it "
    "takes about 2 minutes per thousand images"
)
LINES = 25  # of the rates that were tried


@augmentation.takes_augmentation
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images, a CSV (path,label), or a built-in set (digits ...)."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A network; see: foveate models")
    ] = "efficientnet_lite0",
    recipe: Annotated[
        Literal["probe", "finetune", "scratch"] | None,
        typer.Option(
            help="A solved head on a frozen backbone; then the later stages learn on too; "
            "a random start [default: probe where there are published weights]"
        ),
    ] = None,
    weights: settings.Weights = None,
    task: settings.Task = "multiclass",
    effort: Annotated[
        Literal["fast", "best"] | None,
        typer.Option(
            help="Of a probe. best: larger images and their mirror image, about twice the cost."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder [default: runs/NAME]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of folds, splits, random starts, order and augmentation.")
    ] = 0,
    on_bad: Annotated[
        Literal["skip", "error"] | None,
        typer.Option(
            help="Unreadable images: skip and name them, however many, or stop, also at damaged "
            "ones [default: skip 5 % at most]"
        ),
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "torch"], typer.Option(help="What runs the network.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    epochs: settings.Epochs = None,
    batch_size: settings.BatchSize = None,
    accumulate: settings.Accumulate = None,
    optimizer: settings.Optimizer = None,
    lr: settings.Lr = None,
    head_lr: settings.HeadLr = None,
    layer_decay: settings.LayerDecay = None,
    momentum: settings.Momentum = None,
    weight_decay: settings.WeightDecay = None,
    schedule: settings.Schedule = None,
    warmup: settings.Warmup = None,
    label_smoothing: settings.LabelSmoothing = None,
    clip: settings.Clip = None,
    ema: settings.Ema = None,
    patience: settings.Patience = None,
    freeze: settings.Freeze = None,
    unfreeze_at: settings.UnfreezeAt = None,
    batch_norm: settings.BatchNorm = None,
    balance: settings.Balance = None,
    precision: settings.Precision = None,
    compile: settings.Compile = None,
    progressive: settings.Progressive = None,
    auxiliary: settings.Auxiliary = None,
    size: settings.Size = None,
    channels: settings.Channels = None,
    cache: settings.Cache = None,
    tensorboard: settings.Tensorboard = False,
    find_lr: settings.FindLr = False,
    augment: augmentation.Policy = None,
) -> None:
    """Turn labelled images into a classifier, and measure it on images it did not learn from."""
    from foveate import training

    # of the processes that torchrun started, the first one prints
    silent = int(os.environ.get("RANK", "0")) > 0
    if find_lr:
        for name in ("effort", "out", "resume", "on_bad", "engine", "cache", "tensorboard"):
            source = context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE":
                raise UsageError(
                    f"{name.replace('_', '-')} does not apply to --find-lr, which leaves no run"
                )
        try_rates(context, data, model, recipe, task, seed, threads, as_json, silent)
        return
    given = settings.given_settings(context)
    if (recipe or training.choose_recipe(model, weights)) != "probe":
        from foveate.training.memory import keep_freed_memory

        keep_freed_memory()
    with TerminalProgress(silent) as progress:
        classifier = training.train(
            data,
            model,
            recipe,
            weights=weights,
            task=task,
            effort=effort,
            augment=augmentation.given_augment(context),
            size=size,
            channels=None if channels is None else 1 if channels == "1" else 3,
            out=out,
            resume=resume,
            seed=seed,
            on_bad=on_bad,
            engine=engine,
            threads=threads,
            cache=cache,
            tensorboard=tensorboard,
            progress=progress,
            command=typed(),
            **given,
        )
    if silent:
        return
    metrics = classifier.metrics
    if as_json:
        print_json(metrics | {"run": str(classifier.run)})
    else:
        show(metrics, classifier.classes)
        say(f"run   {classifier.run}   ({metrics['seconds']['total']:.1f} s)")
        say(f"next  foveate predict {classifier.run} IMAGE")
        if metrics["recipe"] == "probe":
            say(f"more  {FINETUNE}")


def try_rates(
    context: typer.Context,
    data: str,
    model: str,
    recipe: Literal["probe", "finetune", "scratch"] | None,
    task: Literal["multiclass", "multilabel"],
    seed: int,
    threads: int | None,
    as_json: bool,
    silent: bool,
) -> None:
    """`--find-lr`: the test instead of a training."""
    from foveate import training

    recipe = recipe or training.choose_recipe(model, context.params["weights"])
    if recipe == "probe":
        raise UsageError(
            "find-lr applies to the recipes finetune and scratch; a probe has no learning rate"
        )
    given = context.params
    with TerminalProgress(silent) as progress:
        test = training.find_lr(
            data,
            model,
            recipe,
            weights=given["weights"],
            task=task,
            augment=augmentation.given_augment(context),
            size=given["size"],
            channels=given["channels"] and (1 if given["channels"] == "1" else 3),
            seed=seed,
            threads=threads,
            progress=progress,
            **settings.given_settings(context),
        )
    if silent:
        return
    if as_json:
        print_json(
            {"suggestion": test.suggestion, "rates": list(test.rates), "losses": list(test.losses)}
        )
        return
    lowest, highest = min(test.losses), max(test.losses)
    for rate, loss in list(zip(test.rates, test.losses, strict=True))[
        :: max(1, len(test.rates) // LINES)
    ]:
        bar = "#" * round(40 * (loss - lowest) / max(highest - lowest, 1e-9))
        say(f"{rate:9.2g}  {loss:7.3f}  {bar}")
    say(f"next  the same command with --lr {test.suggestion:g} instead of --find-lr")


def typed() -> str:
    """The command as it was typed, with paths cut to their last part: it goes into an artefact that
    travels."""
    return " ".join(
        Path(word).name if "/" in word or "\\" in word else word for word in sys.argv[1:]
    )


def show(
    metrics: dict[str, Any], classes: tuple[str, ...], all_bad: str = "log.txt names all"
) -> None:
    """The result for people: accuracy with its interval, each class, the worst confusions;
    `all_bad` says where the unreadable images are that find no room."""
    from foveate.metrics import worst_confusions

    split = next(split for split in ("test", "out_of_fold", "validation") if split in metrics)
    result = metrics[split]
    rows = sorted(result["per_class"].items(), key=lambda item: item[1]["f1"])[:MOST_CLASSES]
    title = "the worst classes" if len(classes) > MOST_CLASSES else "each class, the worst first"
    columns = {"precision": "precision", "recall": "recall", "f1": "F1"}
    if "mean_average_precision" in result:
        columns["average_precision"] = "average precision"
    print_table(
        f"{title} ({split.replace('_', ' ')})",
        ["class", "images", *columns.values()],
        [[c, str(m["support"]), *(f"{m[key]:.2f}" for key in columns)] for c, m in rows],
    )
    for pair in worst_confusions(result["confusion"], classes) if "confusion" in result else []:
        say(f"{pair['n']:4} of {pair['of']:<4} {pair['true']} taken for {pair['predicted']}")
    say()
    for name, words in (
        ("out_of_fold", "out of fold"),
        ("validation", "validation"),
        ("test", "test"),
    ):
        if name in metrics:
            say(headline(words, metrics[name]))
    say()
    for note in metrics["notes"]:
        say(f"note  {note}")
    bad = metrics["bad"]
    if bad:
        more = f", {MOST_BAD} of them here; {all_bad}" if len(bad) > MOST_BAD else ""
        say(f"note  unreadable and skipped: {len(bad)}{more}")
        for reason in list(bad.values())[:MOST_BAD]:
            say(f"      {clean(reason)}")


def headline(words: str, m: dict[str, Any]) -> str:
    """One split in one line."""
    low, high = m["accuracy_ci95"]
    if "mean_average_precision" in m:
        what, first = (
            "all labels right",
            f"mean average precision {m['mean_average_precision']:.3f}",
        )
    else:
        what, first = "accuracy", f"balanced {100 * m['balanced_accuracy']:.1f} %"
    rest = f"{first}, macro-F1 {m['macro_f1']:.3f}, ECE {m['ece']:.3f}"
    return (
        f"{words:<12} {what} {100 * m['accuracy']:.1f} % (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f}) on "
        f"{m['n']} images; {rest}"
    )
