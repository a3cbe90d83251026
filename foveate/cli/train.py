"""foveate train"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli.console import JSON_HELP, TerminalProgress, clean, print_json, print_table, say

MOST_CLASSES = 25  # more would not fit a screen: the worst are shown


def train(
    data: Annotated[
        str, typer.Argument(help="A folder of pictures, a CSV (path,label), or a built-in set (digits ...).")
    ],
    model: Annotated[str, typer.Option(help="Pretrained network; see: foveate models")] = "efficientnet_lite0",
    effort: Annotated[
        Literal["fast", "best"], typer.Option(help="best: larger pictures and their mirror image, four times the cost.")
    ] = "fast",
    out: Annotated[Path | None, typer.Option(help="The run's folder [default: runs/NAME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    on_bad: Annotated[
        Literal["skip", "error"], typer.Option(help="Unreadable pictures: skip and name them (5 % at most), or stop.")
    ] = "skip",
    engine: Annotated[Literal["auto", "openvino", "torch"], typer.Option(help="What runs the network.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Turn labelled pictures into a classifier, and measure it on pictures it did not learn from."""
    from foveate import training
    from foveate.runs import Run

    with TerminalProgress() as progress:
        classifier = training.train(
            data,
            model=model,
            effort=effort,
            out=out,
            seed=seed,
            on_bad=on_bad,
            engine=engine,
            threads=threads,
            resume=resume,
            progress=progress,
            command=typed(),
        )
    metrics = Run(classifier.run, fresh=False).metrics
    if as_json:
        print_json(metrics | {"run": str(classifier.run)})
    else:
        show(metrics, classifier.classes)
        say(f"run   {classifier.run}   ({metrics['seconds']['total']:.1f} s)")
        say(f"next  foveate predict {classifier.run} PICTURE")


def typed() -> str:
    """The command as it was typed, with paths cut to their last part: it goes into an artefact that travels."""
    return " ".join(Path(word).name if "/" in word or "\\" in word else word for word in sys.argv[1:])


def show(metrics: dict[str, Any], classes: tuple[str, ...]) -> None:
    """The result for people: accuracy with its interval, each class, the worst confusions."""
    from foveate.metrics import worst_confusions

    split = "test" if "test" in metrics else "out_of_fold"
    result = metrics[split]
    rows = sorted(result["per_class"].items(), key=lambda item: item[1]["f1"])[:MOST_CLASSES]
    title = "the worst classes" if len(classes) > MOST_CLASSES else "each class, the worst first"
    print_table(
        f"{title} ({split.replace('_', ' ')})",
        ["class", "pictures", "precision", "recall", "F1"],
        [[c, str(m["support"]), *(f"{m[key]:.2f}" for key in ("precision", "recall", "f1"))] for c, m in rows],
    )
    for pair in worst_confusions(result["confusion"], classes):
        say(f"{pair['n']:4} of {pair['of']:<4} {pair['true']} taken for {pair['predicted']}")
    say()
    for name, words in (("out_of_fold", "out of fold"), ("test", "test")):
        if name in metrics:
            say(headline(words, metrics[name]))
    say()
    for note in metrics["notes"]:
        say(f"note  {note}")
    bad = metrics["bad"]
    if bad:
        say(
            f"note  {len(bad)} unreadable pictures were skipped; each is named in log.txt: {clean(next(iter(bad)))} ..."
        )


def headline(words: str, m: dict[str, Any]) -> str:
    """One split in one line."""
    low, high = m["accuracy_ci95"]
    rest = f"balanced {100 * m['balanced_accuracy']:.1f} %, macro-F1 {m['macro_f1']:.3f}, ECE {m['ece']:.3f}"
    return (
        f"{words:<12} accuracy {100 * m['accuracy']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}) on "
        f"{m['n']} pictures; {rest}"
    )
