"""foveate report"""

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, complain, print_json, say
from foveate.cli.review import LearntFrom, learnt_images, source_of
from foveate.cli.settings import Language


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: LearntFrom = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Show more mistakes, and the images of what may be wrong with the data."
        ),
    ] = False,
    lang: Language = "en",
    out: Annotated[
        Path | None, typer.Option(help="The page [default: report.html in the run]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run anew: one HTML page that needs no network.

    It says how good the run is on new images, what it confuses, whether its percentages can be
    believed, and what is wrong with the data, and shows the worst mistakes. Without the images it
    says the same in words.
    """
    from foveate.machine import cores_to_use
    from foveate.report.run import REPORT, write_report

    place = run / REPORT if out is None else out
    with TerminalProgress(quiet) as progress:
        n = cores_to_use(threads)
        source = data or source_of(run)
        dataset = None if source is None else learnt_images(run, source)
        held = write_report(run, dataset, lang, full, place, n, progress)
    if dataset is None and not quiet:
        complain(
            "the images that the run was trained on are not in this folder: the report is without "
            "them; foveate report RUN DATA shows them"
        )
    if as_json:
        print_json({"report": str(place), "images": held})
    else:
        say(f"open  {place}")
