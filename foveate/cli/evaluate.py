"""foveate evaluate"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli.console import JSON_HELP, TTA_HELP, Quiet, TerminalProgress, print_json
from foveate.cli.help import complete_data
from foveate.cli.train import show


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Labelled images; of split folders, the test split.",
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
    """Measure a classifier on labelled images. Classes go by name."""
    from foveate import evaluation
    from foveate.classifier import Classifier

    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    with TerminalProgress(quiet) as progress:
        result = evaluation.evaluate(classifier, data, on_bad, progress, tta)
    if as_json:
        print_json(result | {"run": str(run)})
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
