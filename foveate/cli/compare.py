"""foveate compare DATA --models ..., foveate compare RUN RUN ..."""

from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foveate.arguments import option
from foveate.cli.console import (
    JSON_HELP,
    Quiet,
    TerminalProgress,
    print_json,
    print_table,
    say,
)
from foveate.cli.help import DATA, EXECUTION, complete_data
from foveate.cli.settings import Language
from foveate.errors import FoveateError, UsageError

if TYPE_CHECKING:
    from foveate.data.dataset import Dataset

STOPPED = "stopped; what is finished is kept: repeat the command to go on"
SHOWN = 12  # pairs that are listed; the report and --json have all


def compare(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA | RUN RUN ...",
            help="Images, as for train, with --models; or two or more finished runs.",
            autocompletion=complete_data,
        ),
    ],
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Networks to train on the images: resnet18,mobilenet_v2,timm:NAME [default, with "
            "--efforts or --framings: efficientnet_lite0]",
        ),
    ] = None,
    recipe: Annotated[
        Literal["probe", "finetune"],
        typer.Option(help="How each is trained; see: foveate train --help"),
    ] = "probe",
    efforts: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Of a probe: fast, best, most.")
    ] = None,
    framings: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="What of an image is seen: whole,7/8,2/3 ..."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(help="That each training may take [default: no limit]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of runs, table and report [default: compare/NAME]"),
    ] = None,
    lang: Language = "en",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
    images: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DATA,
            help="Of runs: the images that they were trained on, for the report [default: those of "
            "their name, here]",
        ),
    ] = None,
    task: Annotated[
        Literal["multiclass", "multilabel"] | None,
        typer.Option(
            rich_help_panel=DATA,
            help="One class per image, the default; or any number of labels, from a CSV.",
        ),
    ] = None,
    on_bad: Annotated[
        Literal["skip", "error"] | None,
        typer.Option(
            rich_help_panel=DATA,
            help="Unreadable images: skip and name them, however many, or stop, also at damaged "
            "ones [default: skip 5 % at most]",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=EXECUTION, help="Cores to use [default: all]"),
    ] = None,
) -> None:
    """Train several networks on the same images, and say which are better beyond chance; or lay
    finished runs over one another.

    It goes on where it was interrupted, if it is called in the same way. Nothing is downloaded.
    """
    of_training = {
        "efforts": efforts,
        "framings": framings,
        "seconds": seconds,
        "task": task,
        "on_bad": on_bad,
        "seeds": seeds if seeds != 1 else None,
        "recipe": recipe if recipe != "probe" else None,
    }
    if models is None and (efforts or framings):
        models = "efficientnet_lite0"
    if models is None:
        given = [option(name) for name, value in of_training.items() if value is not None]
        if given:
            raise UsageError(
                f"{', '.join(given)}: this is of networks to be trained; name them with --models"
            )
        of_runs(sources, images, out, lang, as_json, quiet, threads)
        return
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} data sets are given, and networks are compared on one; a table with a "
            "column split, or split folders, make one set of several parts"
        )
    if images is not None:
        raise UsageError("--images is of runs; the data are at hand here")
    from foveate import comparison

    with TerminalProgress(quiet, stopped=STOPPED) as progress:
        found = comparison.compare(
            sources[0],
            split(models),
            recipe=recipe,
            efforts=split(efforts),
            framings=split(framings),
            seeds=seeds,
            seconds=seconds,
            out=out,
            task=task,
            on_bad=on_bad,
            threads=threads,
            lang=lang,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    show(found)
    say(f"open  {Path(found['folder']) / 'report.html'}")


def split(names: str | None) -> list[str]:
    """What commas separate.

    >>> split("resnet18, mobilenet_v2"), split(None)
    (['resnet18', 'mobilenet_v2'], [])
    """
    return [name.strip() for name in names.split(",") if name.strip()] if names else []


def of_runs(
    sources: list[str],
    images: str | None,
    out: Path | None,
    lang: Any,
    as_json: bool,
    quiet: bool,
    threads: int | None,
) -> None:
    """The second form: finished runs."""
    from foveate import comparison

    runs = [Path(source) for source in sources]
    no_runs = [run for run in runs if not (run / "config.json").exists()]
    if len(no_runs) == len(runs):
        raise UsageError(
            "images need the names of networks, and runs are two or more: foveate compare "
            f"{quote(sources[0])} --models efficientnet_lite0,efficientnet_lite1"
        )
    out = out or Path("compare") / "-".join(run.resolve().name for run in runs)[:100]
    with TerminalProgress(quiet) as progress:
        found = comparison.compare_runs(
            runs,
            data=images if images is not None or no_runs else images_beside(runs[0]),
            out=out,
            threads=threads,
            lang=lang,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    columns = ["run", "network", "recipe", "shared", "own", "macro-F1", "ECE", "seconds"]
    print_table(
        f"on {found['judged']} images that all of them judged",
        columns,
        [
            [
                row["name"],
                row["model"],
                row["recipe"],
                percent(row["shared_accuracy"]),
                percent(row["accuracy"]),
                number(row["macro_f1"], ".3f"),
                number(row["ece"], ".3f"),
                number(row["seconds"], ".1f"),
            ]
            for row in found["runs"]
        ],
        left=3,
    )
    show_pairs(found["pairs"])
    for one in found["apart"]:
        say(
            f"{one['first']} alone has {len(one['only_first'])} images right, {one['second']} "
            f"alone {len(one['only_second'])}"
        )
    say()
    for sentence in found["said"]:
        say(sentence)
    for note in found["notes"]:
        say(f"note  {note}")
    say(f"open  {out / 'report.html'}")


def images_beside(run: Path) -> "Dataset | None":
    """The images of a run's name, if they are here and can be listed."""
    from foveate.cli.review import learnt_images, source_of

    with suppress(FoveateError):
        source = source_of(run)
        return None if source is None else learnt_images(run, source)
    return None


def show(found: dict[str, Any]) -> None:
    """The table of networks, the differences, and the result in sentences."""
    done = [row for row in found["rows"] if row["status"] == "done"]
    done.sort(key=lambda row: -(row["accuracy"] or 0))
    columns = ["network", "accuracy", "95 %", "macro-F1", "ECE", "ms", "images/s", "MB", "G MACs"]
    rows = [
        [
            row["name"] + (" *" if row.get("on_front") else ""),
            percent(row["accuracy"]),
            span(row["accuracy_ci95"]),
            number(row["macro_f1"], ".3f"),
            number(row["ece"], ".3f"),
            number(row["latency_ms"], ".1f"),
            number(row["throughput"], ".0f"),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['macs'] / 1e9:.2f}",
            number(row["seconds_cold"], ".1f"),
        ]
        for row in done
    ]
    if rows:
        title = f"{found['split'].replace('_', ' ')}; * none is both as accurate and as fast"
        spare = ["macro-F1", "G MACs", "MB", "images/s"]
        print_table(title, [*columns, "s to train"], rows, spare=spare)
    show_pairs(found["pairs"])
    say()
    for sentence in found["said"]:
        say(sentence)
    for row in found["rows"]:
        if row["status"] != "done":
            say(f"{row['status']}: {row['name']}: {row['reason']}")


def show_pairs(pairs: list[dict[str, Any]]) -> None:
    """Which differ, the surest first."""
    for pair in pairs[:SHOWN]:
        p = max(pair["p_corrected"], 1e-4)
        say(
            f"{pair['first']} against {pair['second']}: {100 * pair['difference']:+.1f} points"
            f"{sure(pair['difference_ci95'])}, p {p:.2g}: {pair['verdict']}"
        )
    if len(pairs) > SHOWN:
        say(f"and {len(pairs) - SHOWN} more pairs; the report and --json have all")


def sure(interval: list[float] | None) -> str:
    if interval is None:
        return ""
    return f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def span(interval: list[float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
