"""foveate verify"""

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.console import JSON_HELP, Quiet, print_json, say

SHOWN = 20  # differences; --json has all


def verify(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Compute the numbers of a run again, without its images, and compare.

    From the predictions, the features in the cache and the saved head. It ends with 1 if anything
    differs.
    """
    from foveate.machine import cores_to_use
    from foveate.recomputation import verify_run

    found = verify_run(run, cores_to_use(threads))
    if as_json:
        print_json(found.to_dict())
    else:
        for what in found.verified if not quiet else ():
            say(f"same    {what}")
        for what, why in found.unverified.items() if not quiet else ():
            say(f"not     {what}: {why}")
        for one in found.differences[:SHOWN]:
            where = f" {one.where}" if one.where else ""
            was = "" if one.recorded is None and not one.where else f"{short(one.recorded)}, not "
            say(f"DIFFERS {one.file}{where}: {was}{short(one.computed)}")
        if len(found.differences) > SHOWN:
            say(f"        and {len(found.differences) - SHOWN} more; --json has all")
        say(verdict(found.same_kind, found.allowed, len(found.differences)))
    if found.differences:
        raise typer.Exit(1)


def short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def verdict(same_kind: bool, allowed: float, differences: int) -> str:
    """The result in a sentence."""
    if differences:
        return f"{differences} differences: these are not the numbers of that training"
    how = f"to {allowed:g}" if allowed else "to the bit"
    how += "" if same_kind else ": the machine is of another kind"
    return f"nothing differs of what could be computed again, {how}"
