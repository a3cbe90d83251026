"""foveate predict"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from foveate.cli.console import TTA_HELP, Quiet, complain, print_json, say


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    images: Annotated[list[str], typer.Argument(help="Images, and folders of images.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    tta: Annotated[Literal["none", "mirror", "ten"], typer.Option(help=TTA_HELP)] = "none",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object an image.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Classify images: one line for each, with its prediction, or the error if it is unreadable."""
    from foveate.classifier import Classifier
    from foveate.data.dataset import BETWEEN
    from foveate.data.listing import images_below, present
    from foveate.errors import DataError, quoted

    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    # Path("") is the working folder: an empty name comes of a variable that is not set
    absent = [quoted(name) for name in images if not (name and present(Path(name)))]
    if absent:
        raise DataError(f"no such file or folder: {', '.join(absent)}")
    files: list[str | Path] = []
    for name in images:
        if Path(name).is_dir():
            below, notes = images_below(Path(name))
            files += below
            for note in notes:
                complain(f"note: {quoted(name)}: {note}")
        else:
            files.append(name)
    several = classifier.task == "multilabel"
    read = failed = 0
    for prediction in classifier.predict_each(files, top, tta):
        if as_json:
            print_json(prediction.to_dict())
        elif prediction.error:
            complain(prediction.error)
        else:
            top_labels = "  ".join(f"{label} {100 * p:.1f} %" for label, p in prediction.top)
            given = f"  {BETWEEN.join(prediction.labels) or '(none)'} "
            say(f"{prediction.file}{given if several else ''}  {top_labels}")
        read, failed = read + (not prediction.error), failed + bool(prediction.error)
    if failed and not read:
        raise DataError(f"none of the {failed} images could be read")
