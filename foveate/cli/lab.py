"""foveate lab, foveate lab NAME"""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, print_json, print_table, say
from foveate.errors import UsageError


def complete_labs(incomplete: str) -> list[str]:
    from foveate.lab import LABS

    return [name for name in [*LABS, "all"] if name.startswith(incomplete)]


def lab(
    name: Annotated[
        str,
        typer.Argument(
            help="An experiment, or all; without it, what there is.", autocompletion=complete_labs
        ),
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes at most.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figure and the table [default: lab/NAME]")
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, or your photos [default: its own]")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn by chance.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment of the lecture: a figure, a table, and what they show.

    It goes on where it was interrupted, if it is called in the same way."""
    from foveate.lab import LABS, find

    if not name:
        if quick or out or data or seed:
            raise UsageError("which experiment? foveate lab lists them; all runs each")
        listing(as_json)
        return
    slides = list(LABS.values()) if name == "all" else [find(name)]
    folder = out or Path("lab") / ("" if name == "all" else name)
    found = []
    with TerminalProgress(quiet, stopped="stopped; the same command goes on from here") as progress:
        from foveate.lab.bench import Bench, run

        for slide in slides:
            module: Any = slide.module
            minutes = module.MINUTES[not quick]
            progress.say(f"{slide.name}: about {round(max(minutes, 0.1), 1):g} minutes")
            place = folder / slide.name if name == "all" else folder
            result = run(module, Bench(place, quick, data, seed, progress))
            found.append((place, result))
            if not as_json:
                show(result, place)
    if name == "all":
        from foveate.lab.page import write_page

        write_page(folder / "index.html", found)
    if as_json:
        results = [result | {"folder": str(place)} for place, result in found]
        page = {"labs": results, "page": str(folder / "index.html")}
        print_json(page if name == "all" else results[0])
    elif name == "all":
        say(f"all of them: {folder / 'index.html'}")


def listing(as_json: bool) -> None:
    """The experiments, in the order of the lecture."""
    from foveate.lab import LABS

    about = [
        {
            "lab": slide.name,
            "part": slide.part,
            "question": slide.module.QUESTION,
            "minutes": list(slide.module.MINUTES),
        }
        for slide in LABS.values()
    ]
    if as_json:
        print_json({"labs": about})
        return
    rows = [
        [one["lab"], one["part"], one["question"], *(f"{m:g}" for m in one["minutes"])]
        for one in about
    ]
    columns = ["lab", "part", "question", "quick, min", "full, min"]
    print_table("", columns, rows, left=3, spare=["part", "full, min", "quick, min"])
    say("one of them: foveate lab NAME --quick; all: foveate lab all --quick")


def show(result: dict[str, Any], folder: Path) -> None:
    say(result["question"])
    for sentence in result["seen"]:
        say(f"  {sentence}")
    if result["shown"] is False:
        say("  The effect did not appear here.")
    say(f"next  {result['change']}")
    say(f"figure  {folder / 'figure.png'}   ({result['seconds']:.1f} s, seed {result['seed']})")
