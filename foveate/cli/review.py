"""foveate review"""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, complain, print_json, say
from foveate.cli.help import complete_data

if TYPE_CHECKING:
    from foveate.data.dataset import Dataset

LearntFrom = Annotated[
    str | None,
    typer.Argument(
        help="The images that it was trained on [default: those of the run's name, here]",
        autocompletion=complete_data,
    ),
]


def review(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: LearntFrom = None,
    out: Annotated[
        Path | None, typer.Option(help="The sheet [default: review.html in the run]")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="How many labels are shown.")] = 100,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Show the labels of a run that may be wrong, and its surest mistakes, on one page.

    The page needs no network. What is decided there is downloaded as a table, for foveate train
    --corrections. No photo is moved or changed.
    """
    from foveate.errors import UsageError, quoted
    from foveate.machine import cores_to_use
    from foveate.report.review import SHEET, summary, write_review
    from foveate.runs import settings_of

    data = data or source_of(run)
    if data is None:
        name = str(settings_of(run).get("data") or "")
        raise UsageError(
            f"{quoted(name)}, on which {quoted(run)} was trained, is not in this folder: give "
            f"its images, foveate review {quote(str(run))} DATA"
        )
    dataset = learnt_images(run, data)
    place = run / SHEET if out is None else out
    with TerminalProgress(quiet) as progress:
        again = f"foveate train {quote(data)}"
        again += " --task multilabel" if dataset.task == "multilabel" else ""
        n = cores_to_use(threads)
        found = write_review(run, dataset, place, again, most, n, progress)
    if as_json:
        print_json(
            {
                "sheet": str(place),
                "suspects": found.found,
                "shown": len(found.suspects),
                "contradictions": len(found.contradictions),
                "mistakes": len(found.mistakes),
                "why_no_suspects": found.why or None,
            }
        )
        return
    say(summary(found))
    say(f"open  {place}")


def source_of(run: Path) -> str | None:
    """The images of a run's name, if they are here."""
    from foveate.data.builtin import BUILTIN
    from foveate.runs import settings_of

    name = str(settings_of(run).get("data") or "")
    named = (source for source in (name, f"{name}.csv") if name)

    def is_there(source: str) -> bool:
        folder = Path(source)  # a run may lie there by the name of its data
        return source in BUILTIN or (folder.exists() and not (folder / "config.json").exists())

    return next(filter(is_there, named), None)


def learnt_images(run: Path, data: str) -> "Dataset":
    """Images as the run was trained on them; what is missing of them is said.

    Raises:
        DataError: they are others.
    """
    from foveate.data.layouts import load_dataset
    from foveate.errors import DataError, quoted
    from foveate.runs import is_absent, read_json, settings_of

    several = settings_of(run).get("task") == "multilabel"
    dataset = load_dataset(data, "multilabel" if several else "multiclass")
    table = run / "data.json"
    names = [] if is_absent(table) else [*read_json(table, {"files": dict})["files"]]
    there = {*dataset.files}
    lacking = [name for name in names if name not in there]
    if names and len(lacking) == len(names):
        raise DataError(
            f"none of the images of {quoted(run)}, {len(names)} in all, is in {quoted(data)}: name "
            "those that it was trained on"
        )
    if lacking:
        complain(
            f"{len(lacking)} of the {len(names)} images of the run are not in {data}, such as "
            f"{lacking[0]}"
        )
    return dataset
