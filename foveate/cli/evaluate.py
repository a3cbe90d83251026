"""foveate evaluate"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli.console import (
    JSON_HELP,
    TTA_HELP,
    Quiet,
    TerminalProgress,
    print_json,
    print_table,
    say,
)
from foveate.cli.help import complete_data
from foveate.cli.train import MOST_CLASSES, interval_of, of, show, show_notes


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Labelled images; of split folders, the test split. Or images without labels: a "
            "folder of nothing but images, or a CSV with the column path.",
            autocompletion=complete_data,
        ),
    ],
    on_bad: Annotated[
        Literal["skip", "error"] | None,
        typer.Option(
            help="Unreadable images: skip and name them, however many, or stop, also at damaged "
            "ones [default: skip 5 % at most]"
        ),
    ] = None,
    tta: Annotated[Literal["none", "mirror", "ten"], typer.Option(help=TTA_HELP)] = "none",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a classifier on labelled images, or predict its accuracy on images without labels.
    Classes go by name."""
    from foveate import evaluation
    from foveate.classifier import Classifier

    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    with TerminalProgress(quiet) as progress:
        result = evaluation.evaluate(classifier, data, on_bad, progress, tta)
    if as_json:
        print_json(result | {"run": str(run)})
    elif "predicted" in result:
        show_predicted(result)
    else:
        show(
            parts(result) | {"notes": result["notes"], "bad": result["bad"]},
            classifier.classes,
            "--json names all",
        )


def parts(result: dict[str, Any]) -> dict[str, Any]:
    """The figures by what they are of: a test is of new images alone."""
    if not result["learnt_from"]["n"]:
        return {"test": result}
    return {"learnt_from": result} if result["new"] is None else {"new": result["new"]}


def show_predicted(result: dict[str, Any]) -> None:
    """What to expect of images without labels, for people."""
    m, bad = result["predicted"], result["bad"]
    if m["n"]:
        counts = sorted(m["answers"].items(), key=lambda item: -item[1])
        rows = [[c, str(n), f"{100 * n / m['n']:.1f}"] for c, n in counts[:MOST_CLASSES] if n]
        print_table("taken for each class", ["class", "images", "%"], rows)
        say()
    what = f"on {of(m)} without labels"
    if m["accuracy"] is None:
        say(f"{'expected':<12} no figure {what}: {m['why']}")
    else:
        say(f"{'expected':<12} accuracy {100 * m['accuracy']:.1f} % ({interval_of(m)}) {what}")
        side = "farther from" if m["farther"] >= 0 else "nearer to"
        say(
            f"{'':<12} they are {100 * abs(m['farther']):.0f} % {side} the training images than "
            f"those it was judged on, on the average; {100 * m['unlike']:.0f} % are unlike those"
        )
    say()
    show_notes(result["notes"], bad, "--json names all")
