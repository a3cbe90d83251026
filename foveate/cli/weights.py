"""foveate weights check, foveate weights verify"""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, print_json, say
from foveate.cli.help import complete_weights

if TYPE_CHECKING:
    from foveate.weights.diagnosis import Diagnosis

app = typer.Typer(
    help="Check weights files and published figures.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A file of weights, whatever its name.")],
    save_as: Annotated[
        Path | None,
        typer.Option("--save-as", help="Also write it as this .safetensors file, under our names."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Take this set of tensors, where there are several: as in model_ema."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show a weights file's origin, the network it fits, problems and traps.

    Exit code 1 if it fits none.
    """
    from foveate.weights.diagnosis import convert, diagnose

    found = diagnose(file, key)
    if key is not None:
        file = Path(f"{file}#{key}")
    if save_as is not None and found.network is not None:
        convert(file, save_as, found)
    if as_json:
        saved = {"saved_as": str(save_as)} if save_as and found.network else {}
        print_json(asdict(found) | saved)
    else:
        show(found, file, save_as)
    if found.network is None:
        raise typer.Exit(1)


def show(found: "Diagnosis", file: Path, saved: Path | None) -> None:
    from foveate.weights.diagnosis import ORIGINS

    say(
        f"{found.file}: {found.bytes:,} bytes, {found.tensors} tensors, {found.parameters:,} "
        "parameters"
    )
    say(f"from     {ORIGINS[found.source]}")
    say(f"hash     {found.hash}")
    ends = f"{found.classes} classes, {found.channels} channels"
    if found.network is not None:
        twins = f"; so does {', '.join(found.twins)}" if found.twins else ""
        say(f"fits     {found.network}, {ends}{twins}")
        say(f"names    {found.naming}")
    elif found.nearest is None:
        say("fits     no network, and none is near")
    else:
        say(
            f"fits     no network; the nearest is {found.nearest}, with {found.failing} tensors "
            "that do not fit"
        )
    sections = {"problem": found.problems, "note": found.notes, "trap": found.traps}
    for kind, sentences in sections.items():
        for sentence in sentences:
            say(f"{kind:<8} {sentence}")
    if saved is not None:
        say(f"saved    {saved if found.network else 'nothing, since it fits no network'}")
    if found.network is not None:
        say(f"next     {next_step(found, file, saved)}")


def next_step(found: "Diagnosis", file: Path, saved: Path | None) -> str:
    """How to load the file, as a line that works."""
    usable = saved or (file if found.loads else None)
    if usable is not None:
        path = json.dumps(str(usable), ensure_ascii=False)
        return f'foveate.build("{found.network}", weights={path})'
    if found.finite:
        return f"foveate weights check {shlex.quote(str(file))} --save-as OUR.safetensors"
    return "none: its numbers are not finite; take a checkpoint from before the training failed"


@app.command()
def verify(
    name: Annotated[
        str,
        typer.Argument(
            help="Published weights, by the name in: foveate models",
            autocompletion=complete_weights,
        ),
    ],
    data: Annotated[str, typer.Argument(help="Labelled images of ImageNet's classes.")],
    weights: Annotated[
        Path | None, typer.Option(help="A file to measure in place of the published one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a published accuracy on labelled images.

    Exit code 1 if it is not in the 95 % interval.
    """
    from foveate import verification

    with TerminalProgress(quiet) as progress:
        found = verification.verify(name, data, weights, threads, progress)
    if as_json:
        rates = {"top1": found.top1, "top5": found.top5}
        judged = {key: asdict(rate) | {"agrees": rate.agrees} for key, rate in rates.items()}
        print_json(asdict(found) | judged | {"agrees": found.agrees})
    else:
        n, there = found.top1.n, found.classes
        say(f"{found.weights} on {found.data} ({found.split}): {n} images, {there} of 1000 classes")
        say(f"top-1    {found.top1}")
        say(f"top-5    {found.top5}")
        say(f"labels   {found.labels}")
        for file, reason in found.bad.items():
            say(f"bad      {file}: {reason}")
        for note in found.notes:
            say(f"note     {note}")
    if not found.agrees:
        raise typer.Exit(1)
