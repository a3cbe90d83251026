"""foveate advise"""

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, clean, print_json, say
from foveate.cli.review import LearntFrom, learnt_images, source_of

MOST = 4  # classes that are named


def advise(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: LearntFrom = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Say what would help a probe most: more images, corrected labels, another framing or backbone.

    Each gain is measured on the run's own folds, from the features in the cache; framings and
    backbones on a sample of the images. That nothing helps is an answer too.
    """
    from foveate import advice

    source = data or source_of(run)
    with TerminalProgress(quiet) as progress:
        dataset = None if source is None else learnt_images(run, source)
        found = advice.advise(
            run, dataset, source=source or "DATA", threads=threads, progress=progress
        )
    if as_json:
        print_json(found.to_dict())
        return
    say(f"{100 * found.accuracy:.1f} % on new images, learnt from {found.images}")
    say(clean(found.verdict))
    say("")
    for one in found.suggestions:
        gain = f"{'not measured':<24}"
        if one.gain is not None and one.interval is not None:
            low, high = (100 * end for end in one.interval)
            gain = f"{100 * one.gain:+5.1f} ({low:+5.1f} to {high:+5.1f})".ljust(24)
        minutes = "" if one.minutes is None else f"; {one.minutes:g} minutes"
        say(f"{gain} {clean(one.name)}: {clean(one.what)}{minutes}")
        say(f"{'':<24} {clean(one.command)}")
        if one.classes:
            most = ", ".join(
                f"{clean(c)} {100 * s:.0f} %" for c, s in [*one.classes.items()][:MOST]
            )
            say(f"{'':<24} of the gain: {most}")
    say("")
    say("gains are points of accuracy, with intervals of 80 %, drawn towards nothing for being the")
    say("best of several")
    for what, why in found.not_tried.items():
        say(f"not tried  {what}: {clean(why)}")
