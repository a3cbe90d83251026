"""foveate data audit"""

from typing import TYPE_CHECKING, Annotated

import typer

from foveate.cli import settings
from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, print_json, say

if TYPE_CHECKING:
    from foveate.audit.inspection import Audit

SHOWN = 5  # of each kind of finding; --json has all


def audit(
    data: settings.Data,
    task: settings.Task = "multiclass",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 1 if an image is in two splits, for CI."),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Find copies: the same photo turned, mirrored, cropped, scaled or saved again.

    Named are those in two splits, those with two labels, and how many photos there really are.
    """
    from foveate.audit.inspection import inspect
    from foveate.data.layouts import load_dataset
    from foveate.weights.starting_point import EMBEDDED, find_start

    dataset = load_dataset(data, task)
    with TerminalProgress(quiet) as progress:
        found = inspect(dataset, find_start(EMBEDDED), threads, progress)
    if as_json:
        print_json(found.to_dict())
    else:
        show(found)
    if strict and found.leaks():
        raise typer.Exit(1)


def show(found: "Audit") -> None:
    """The findings for people, the worst first."""
    dataset = found.dataset
    leaks, contradictions, sets = found.leaks(), found.contradictions(), found.copied()
    if leaks:
        have = "1 image has" if len(leaks) == 1 else f"{len(leaks)} images have"
        say(f"{have} a copy in a split before their own: they are no test")
        for row, of, kind in leaks[:SHOWN]:
            say(f"      {dataset.files[row]}  is  {dataset.files[of]}  ({kind})")
        say("      remove them from one of the two")
    if contradictions:
        have = "1 pair" if len(contradictions) == 1 else f"{len(contradictions)} pairs"
        say(f"{have} of copies with two labels")
        for pair in contradictions[:SHOWN]:
            names = f"{dataset.files[pair.first]}  is  {dataset.files[pair.second]}"
            say(f"      {names}  ({pair.kind})")
        say("      keep the one that is right")
    copies = sum(len(rows) - 1 for rows in sets)
    photos = f"{len(dataset) - len(found.bad)} images are {len(dataset) - len(found.bad) - copies}"
    if sets:
        say(f"{photos} photos, of which {len(sets)} are there more than once")
        for group in found.to_dict()["groups"][:SHOWN]:
            first, *others = group["files"]
            say(f"      {first}  and {len(others)} more  ({group['reason']})")
    else:
        say(f"{photos} photos: no copies were found")
    for name, reason in found.bad.items():
        say(f"bad   {name}: {reason}")
    for note in dataset.notes:
        say(f"note  {note}")
