"""foveate train"""

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from foveate.cli import augmentation, settings
from foveate.cli.console import (
    JSON_HELP,
    Quiet,
    TerminalProgress,
    clean,
    print_json,
    print_table,
    say,
)
from foveate.cli.help import DATA, EXECUTION, complete_data, complete_networks
from foveate.errors import UsageError

MOST_CLASSES = 25  # more would not fit a screen: the worst are shown
HEADLINES = {  # what figures are of, in the order in which they stand
    "out_of_fold": "out of fold",
    "validation": "validation",
    "test": "test",
    "new": "new images",
    "learnt_from": "learnt from",
}
NOTHING: dict[str, Any] = {"per_class": {}}  # where no split has a figure to be shown
MOST_BAD = 5  # unreadable images that are listed
# benchmarks/results/finetune.json
MEASURED = "; on two cores it took about 2 minutes per thousand images"
STOPPED = "stopped; finished epochs are kept: repeat the command, with --resume if its run is there"
STOPPED_PROBE = "stopped; what was computed is in the cache: repeat the command to go on"
LINES = 25  # of the rates that were tried


@augmentation.takes_augmentation
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of images, a CSV (path,label), or a built-in set (digits ...).",
            autocompletion=complete_data,
        ),
    ],
    recipe: Annotated[
        Literal["probe", "finetune", "scratch"] | None,
        typer.Option(
            help="A solved head on a frozen backbone; then the later stages learn on too; "
            "a random start [default: probe where there are published weights]",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A network; see: foveate models",
            autocompletion=complete_networks,
        ),
    ] = "efficientnet_lite0",
    effort: Annotated[
        Literal["fast", "best", "most"] | None,
        typer.Option(
            help="Of a probe. best: larger images, their mirror image, and each framing is tried; "
            "most: three backbones side by side.",
        ),
    ] = None,
    weights: settings.Weights = None,
    config: settings.Config = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder [default: runs/NAME]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run."),
    ] = False,
    lang: settings.Language = "en",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
    task: settings.Task = "multiclass",
    on_bad: Annotated[
        Literal["skip", "error"] | None,
        typer.Option(
            rich_help_panel=DATA,
            help="Unreadable images: skip and name them, however many, or stop, also at damaged "
            "ones [default: skip 5 % at most]",
        ),
    ] = None,
    corrections: settings.Corrections = None,
    size: settings.Size = None,
    framing: settings.FramingOption = "auto",
    fit: settings.FitOption = None,
    reject: settings.Reject = None,
    positive: settings.Positive = None,
    recall: settings.Recall = None,
    channels: settings.Channels = None,
    seed: Annotated[
        int,
        typer.Option(
            rich_help_panel=DATA,
            help="Seed of folds, splits, random starts, order and augmentation.",
        ),
    ] = 0,
    groups: Annotated[
        Literal["auto", "given", "none"],
        typer.Option(
            rich_help_panel=DATA,
            help="What stays on one side of a fold or split: copies, bursts and occasions, which "
            "are found, and the table's groups; only the table's; nothing.",
        ),
    ] = "auto",
    epochs: settings.Epochs = None,
    batch_size: settings.BatchSize = None,
    lr: settings.Lr = None,
    find_lr: settings.FindLr = False,
    optimizer: settings.Optimizer = None,
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
    progressive: settings.Progressive = None,
    auxiliary: settings.Auxiliary = None,
    augment: augmentation.Policy = None,
    engine: Annotated[
        Literal["auto", "openvino", "torch"],
        typer.Option(rich_help_panel=EXECUTION, help="What runs the network."),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=EXECUTION, help="Cores to use [default: all]"),
    ] = None,
    cache: settings.Cache = None,
    precision: settings.Precision = None,
    accumulate: settings.Accumulate = None,
    compile: settings.Compile = None,
    tensorboard: settings.Tensorboard = False,
) -> None:
    """Turn labelled images into a classifier, and measure it on images it did not learn from."""
    from foveate import training
    from foveate.report.run import REPORT

    # of the processes that torchrun started, the first one prints
    silent = int(os.environ.get("RANK", "0")) > 0
    if find_lr:
        probes = "effort reject positive recall"
        for (
            name
        ) in f"{probes} out resume lang groups on_bad corrections engine cache tensorboard".split():
            if settings.is_given(context, name):
                raise UsageError(
                    f"{name.replace('_', '-')} does not apply to --find-lr, which leaves no run"
                )
        try_rates(settings.arguments(context), data, threads, as_json, quiet, silent)
        return
    asked = settings.arguments(context)
    probe = (asked["recipe"] or training.choose_recipe(asked["model"], weights)) == "probe"
    if not probe:
        from foveate.training.memory import keep_freed_memory

        keep_freed_memory()
    with TerminalProgress(quiet, silent, STOPPED_PROBE if probe else STOPPED) as progress:
        classifier = training.train(
            data,
            **asked,
            positive=positive,
            recall=recall,
            corrections=corrections,
            out=out,
            resume=resume,
            threads=threads,
            cache=cache,
            tensorboard=tensorboard,
            lang=lang,
            progress=progress,
            command=typed(),
        )
    if silent:
        return
    metrics = classifier.metrics
    if as_json:
        print_json(metrics | {"run": str(classifier.run)})
    else:
        show(metrics, classifier.classes)
        say(f"run   {classifier.run}   ({metrics['seconds']['total']:.1f} s)")
        if (page := classifier.run / REPORT).is_file():
            say(f"open  {page}")
        say(f"next  foveate predict {quote(str(classifier.run))} IMAGE")
        if metrics.get("suspects"):
            say(f"look  foveate review {quote(str(classifier.run))} {quote(data)}")
        if metrics["recipe"] == "probe" and metrics["out_of_fold"]["accuracy"] != 1:
            cost = MEASURED if metrics["model"] == "efficientnet_lite0" else ""
            say(f"more  --recipe finetune lets the later stages learn on too{cost}")


def try_rates(
    asked: dict[str, Any],
    data: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    silent: bool,
) -> None:
    """`--find-lr`: the test instead of a training."""
    from foveate import training

    asked["recipe"] = asked["recipe"] or training.choose_recipe(asked["model"], asked["weights"])
    if asked["recipe"] == "probe":
        raise UsageError(
            "find-lr applies to the recipes finetune and scratch; a probe has no learning rate"
        )
    left_out = ("effort", "reject", "groups", "on_bad", "engine")
    applies = {name: asked[name] for name in asked if name not in left_out}
    with TerminalProgress(quiet, silent) as progress:
        test = training.find_lr(data, **applies, threads=threads, progress=progress)
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
    from foveate.data.dataset import listed
    from foveate.metrics import believed, worst_confusions

    there = [split for split in reversed(HEADLINES) if split in metrics]
    split = next((split for split in there if believed(metrics[split])), there[0])
    result = believed(metrics[split]) or NOTHING
    seen = {c: m for c, m in result["per_class"].items() if m["support"]}
    unseen = [c for c in result["per_class"] if c not in seen]
    rows = sorted(seen.items(), key=lambda item: item[1]["f1"])[:MOST_CLASSES]
    title = "the worst classes" if len(seen) > MOST_CLASSES else "each class, the worst first"
    columns = {"precision": "precision", "recall": "recall", "f1": "F1"}
    if "mean_average_precision" in result:
        columns["average_precision"] = "average precision"
    if rows:
        print_table(
            f"{title} ({HEADLINES[split]})",
            ["class", "images", *columns.values()],
            [[c, str(m["support"]), *(f"{m[key]:.2f}" for key in columns)] for c, m in rows],
        )
    if unseen:
        say(f"no images of {listed(unseen)}")
    for pair in worst_confusions(result["confusion"], classes) if "confusion" in result else []:
        say(f"{pair['n']:4} of {pair['of']:<4} {pair['true']} taken for {pair['predicted']}")
    say()
    for name, words in HEADLINES.items():
        if name in metrics:
            for line in headlines(words, metrics[name]):
                say(line)
    if "seen" in metrics:
        say(seen_line(metrics["seen"]))
    if metrics.get("rejection"):
        for line in refusal_lines(metrics["rejection"]):
            say(line)
    if "operating_point" in metrics:
        from foveate.cli.evaluate import point_lines

        for line in point_lines(metrics["operating_point"]):
            say(line)
    if "compared_with" in metrics:
        say(since(metrics["compared_with"]))
    say()
    show_notes(metrics["notes"], metrics["bad"], all_bad)


def show_notes(notes: list[str], bad: dict[str, str], all_bad: str) -> None:
    """Notes, and the first unreadable images; `all_bad` says where all of these are."""
    for note in notes:
        say(f"note  {note}")
    if bad:
        more = f", {MOST_BAD} of them here; {all_bad}" if len(bad) > MOST_BAD else ""
        say(f"note  unreadable and skipped: {len(bad)}{more}")
        for reason in list(bad.values())[:MOST_BAD]:
            say(f"      {clean(reason)}")


def seen_line(seen: dict[str, Any]) -> str:
    """What of an image is seen, and what a prediction costs."""
    share = f"{100 * seen['area']:.0f} % of an image's area (the median's)"
    times = f"{seen['passes']} passes" if seen["passes"] > 1 else "1 pass"
    backbones = set(seen["backbones"])
    through = f" through {len(backbones)} backbones" if len(backbones) > 1 else ""
    return f"{'sees':<12} {share}, {seen['framing']}: a prediction is {times}{through}"


def refusal_lines(rejection: dict[str, Any]) -> list[str]:
    """What is refused, as this run measured it."""
    from foveate.classifier.card import refusals

    kinds, foreign, false = refusals(rejection)
    return [f"{'refuses':<12} {kinds}", f"{'':<12} {foreign}", f"{'':<12} {false}"]


def since(compared: dict[str, Any]) -> str:
    """What has changed since the last run of the same data, in one line."""
    split, before = (compared[key].replace("_", " ") for key in ("split", "split_before"))
    where = split if split == before else f"{before} then, {split} now"
    on = f"on {compared['n']} images that both judged ({where})"
    better, worse = compared["newly_right"], compared["newly_wrong"]
    if not better and not worse:
        return f"since {compared['run']}: none newly right, none newly wrong, {on}"
    p = max(compared["p"], 1e-4)
    sign = "=" if p == compared["p"] else "<"
    verdict = "within noise" if compared["within_noise"] else "more than noise"
    return (
        f"since {compared['run']}: {100 * compared['before']:.1f} to {100 * compared['after']:.1f} "
        f"% {on}; {better} newly right, {worse} newly wrong: {verdict} (p {sign} {p:.2g})"
    )


def headlines(words: str, m: dict[str, Any]) -> list[str]:
    """One split: its figures, what they are about, and what they would be among copies."""
    if m["accuracy"] is None:
        return [f"{words:<12} nothing to say: {m['why']}"]
    if "without_copies" in m:
        if m["without_copies"] is None:
            return [f"{words:<12} no figure: {m['why']}"]
        what = f"without {m['copies']['n']} copies"
        with_them = f"with them, it would be {100 * m['accuracy']:.1f} %: {m['why']}"
        return [f"{headline(words, m['without_copies'])}, {what}", f"{'':<12} {with_them}"]
    lines = [headline(words, m)]
    if "accepted" in m:
        lines.append(f"{'':<12} {of_accepted(m['accepted'])}")
    among = m.get("among_copies", {"accuracy": 0.0})["accuracy"]
    if m["accuracy_ci95"] is not None and among > m["accuracy_ci95"][1]:
        new = "occasions" if m.get("groups", m["n"]) < m["n"] else "photos"
        lines.append(
            f"{'':<12} for new {new} like those in this folder; among copies of these images "
            f"it would be {100 * among:.1f} %"
        )
    if not m.get("trusted", True) and words == HEADLINES["out_of_fold"]:
        lines.append(f"{'':<12} not to be believed: {m['why']}")
    return lines


def of_accepted(found: dict[str, Any]) -> str:
    """What is answered, and how well."""
    if found["accuracy"] is None:
        return "all are refused"
    share, accuracy = 100 * found["share"], 100 * found["accuracy"]
    return f"{share:.1f} % are given a class, {accuracy:.1f} % of these the right one"


def headline(words: str, m: dict[str, Any]) -> str:
    """One split in one line."""
    if "mean_average_precision" in m:
        what, first = (
            "all labels right",
            f"mean average precision {m['mean_average_precision']:.3f}",
        )
    else:
        what, first = "accuracy", f"balanced {100 * m['balanced_accuracy']:.1f} %"
    rest = f"{first}, macro-F1 {m['macro_f1']:.3f}, ECE {m['ece']:.3f}"
    return f"{words:<12} {what} {100 * m['accuracy']:.1f} % ({interval_of(m)}) on {of(m)}; {rest}"


def interval_of(m: dict[str, Any]) -> str:
    """How sure an accuracy is."""
    if m["accuracy_ci95"] is None:
        return "too few to say how sure"
    low, high = m["accuracy_ci95"]
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def of(m: dict[str, Any]) -> str:
    """Of what it is."""
    groups = m.get("groups", m["n"])
    return f"{m['n']} images" + (f" in {groups} groups" if groups < m["n"] else "")
