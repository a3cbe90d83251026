"""foveate predict"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foveate.cli.console import TTA_HELP, Quiet, TerminalProgress, say
from foveate.cli.help import EXECUTION


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, and folders of images; - reads names, or an image, from standard input."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object an image.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(help="Write a new CSV instead of printing: a row an image, a column a class."),
    ] = None,
    sort_into: Annotated[
        Path | None, typer.Option(help="Link each image into a folder of its class below this one.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="With --sort-into: copy them.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option(help="Classify what is in a folder, and what comes, until Ctrl-C."),
    ] = None,
    cost: Annotated[
        Path | None,
        typer.Option(help="A CSV of what each mistake costs: answer what costs least."),
    ] = None,
    tta: Annotated[
        Literal["none", "mirror", "ten"], typer.Option(rich_help_panel=EXECUTION, help=TTA_HELP)
    ] = "none",
    threads: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=EXECUTION, help="Cores to use [default: all]"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Classify images: one line for each, with its prediction, or the error if it is unreadable."""
    from foveate.classifier import Classifier
    from foveate.cli.answers import Counted, CsvTable, Printed, SortedFolders, Taker
    from foveate.cli.images import STDIN, given_images, watched
    from foveate.errors import UsageError

    if bool(images) == (watch is not None):
        raise UsageError("name images or folders, or - for standard input, or a folder to --watch")
    if copy and sort_into is None:
        raise UsageError("--copy says how --sort-into sorts: give both")
    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    if cost is not None:
        classifier.decision = least_cost(classifier, cost)
    classes, several = classifier.classes, classifier.task == "multilabel"
    total: int | None = None
    batches: Iterable[Iterable[Any]]
    if watch is not None:
        batches = watched(watch)
    else:
        one, total = given_images(images or [])
        batches = [one]
        classifier.few = total == 1
    takers: list[Taker] = []
    if sort_into is not None:
        sources = [watch] if watch is not None else [Path(name) for name in images or []]
        takers.append(SortedFolders(sort_into, classes, copy, sources))
    if csv is not None:
        takers.append(CsvTable(csv, classes))
    if as_json or csv is None:
        at_once = watch is not None or images == [STDIN]
        takers.append(Printed(top, several, as_json, at_once))
    counted = Counted()
    # a bar takes longer to import than an image to predict: only where nothing else is shown
    with ExitStack() as stack:
        named = top
        advance: Callable[[], None] = no_step
        if csv is not None:
            named = len(classes)
            progress = stack.enter_context(TerminalProgress(quiet))
            if total is not None:
                progress.begin("images", total)
                advance = progress.advance
        for prediction in each(classifier, batches, named, tta):
            for taker in [*takers, counted]:
                taker.take(prediction)
            advance()
    for taker in takers:
        taker.close()
    if csv is not None and not as_json:
        unread = f", {counted.failed} of them unreadable" if counted.failed else ""
        say(f"{counted.read + counted.failed} images{unread} -> {csv}")
    counted.close()


def least_cost(classifier: Any, table: Path) -> Any:
    """The decision for the answer that costs least."""
    from dataclasses import replace

    from foveate.errors import UsageError
    from foveate.evaluation.costs import read_costs

    if classifier.task == "multilabel":
        raise UsageError("--cost is of one class an image, and this classifier gives labels")
    return replace(classifier.decision, costs=read_costs(table, classifier.classes))


def no_step() -> None:
    """Progress that nobody sees."""


def each(classifier: Any, batches: Iterable[Iterable[Any]], top: int, tta: str) -> Iterator[Any]:
    for batch in batches:
        yield from classifier.predict_each(batch, top, tta)
