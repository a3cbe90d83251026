"""foveate data audit"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
        typer.Option(
            "--strict",
            help="Exit with 1 if an image, or another shot of it, is in two splits, for CI.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for audit.json and groups.jpg, a picture of the groups."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """What makes an accuracy untrue: copies, bursts, leaks between splits, and what they cost.

    Found are photos that are there again, turned, mirrored, cropped, scaled or saved anew, photos
    that were taken together, those in two splits, and those with two labels.
    """
    from foveate.audit.inspection import inspect
    from foveate.data.layouts import load_dataset
    from foveate.machine import cores_to_use
    from foveate.storage import disk_errors
    from foveate.weights.starting_point import EMBEDDED, find_start

    dataset = load_dataset(data, task)
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
    with TerminalProgress(quiet) as progress:
        found = inspect(dataset, find_start(EMBEDDED), threads, progress)
        estimate = estimated(found, cores_to_use(threads))
    report = {"estimate": estimate, **found.to_dict()}
    if out is not None:
        write(found, report, out)
    if as_json:
        print_json(report)
    else:
        show(found, estimate)
    if strict and found.leaks():
        raise typer.Exit(1)


def estimated(found: "Audit", threads: int) -> dict[str, Any]:
    """What a probe of these images would say of itself, and what it would say among copies; or why
    it can say nothing."""
    import numpy as np

    from foveate.data.dataset import check_trainable
    from foveate.errors import DataError
    from foveate.training.honest import plan_judging, solve

    dataset, grouping = found.dataset, found.grouping
    learn = np.array([split != "test" for split in dataset.splits], bool)
    try:
        check_trainable(dataset)
        judging = plan_judging(dataset, grouping, learn, seed=0)
    except DataError as error:
        return {"honest": None, "among_copies": None, "why": str(error)}
    figures = solve(dataset, found.features, grouping, judging, 0, threads).figures
    keys = ("n", "groups", "accuracy", "accuracy_ci95", "unjudged", "why")
    honest = {key: figures[key] for key in keys if key in figures}
    return {"honest": honest, "among_copies": figures.get("among_copies")}


def write(found: "Audit", report: dict[str, Any], out: Path) -> None:
    from foveate.audit.sheet import draw_groups
    from foveate.storage import disk_errors, replacing, write_json

    picture = out / "groups.jpg"
    with disk_errors(out):
        write_json(out / "audit.json", report)
        sheet = draw_groups(found.dataset, found.grouping.groups)
        if sheet is None:
            picture.unlink(missing_ok=True)  # of an audit before
            return
        with replacing(picture) as temporary:
            sheet.save(temporary, "JPEG", quality=90)


def show(found: "Audit", estimate: dict[str, Any]) -> None:
    """The findings for people, the worst first."""
    dataset = found.dataset
    leaks, contradictions = found.leaks(), found.contradictions()
    if leaks:
        have = "has" if len(leaks) == 1 else "have"
        say(f"{counted(len(leaks), 'image')} {have} a copy or another shot in an earlier split")
        for row, of, kind in leaks[:SHOWN]:
            say(f"      {dataset.files[row]}  like  {dataset.files[of]}  ({kind})")
        say("      they are no test: remove them from one of the two")
    if contradictions:
        say(f"{counted(len(contradictions), 'pair')} of copies with two labels")
        for pair in contradictions[:SHOWN]:
            names = f"{dataset.files[pair.first]}  like  {dataset.files[pair.second]}"
            say(f"      {names}  ({pair.kind})")
        say("      keep the label that is right")
    alone = [name for name, n in found.classes().items() if n["groups"] == 1]
    if alone:
        say(f"{counted(len(alone), 'class', 'classes')} cannot be judged, being of one group")
        say(f"      {', '.join(alone[:SHOWN])}{' ...' if len(alone) > SHOWN else ''}")
        say("      add photos from another occasion")
    images = len(dataset)
    photos = images - sum(len(rows) - 1 for rows in found.copied())
    listed = found.grouping.listed(dataset)
    if photos < images:
        say(f"{counted(images, 'image')} of {counted(photos, 'photo')}")
    else:
        say(f"{counted(images, 'image')}: no copies were found")
    if listed:
        groups = images - sum(len(group["files"]) - 1 for group in listed)
        say(f"{counted(groups, 'group')}; the largest:")
        for group in listed[:SHOWN]:
            first, *others = group["files"]
            say(f"      {group['kind']:<9} {first}  and {len(others)} more  ({group['reason']})")
    for line in said(estimate):
        say(line)
    for name, reason in found.bad.items():
        say(f"bad   {name}: {reason}")
    for note in dataset.notes:
        say(f"note  {note}")


def counted(n: int, one: str, several: str = "") -> str:
    """A number and what it is of."""
    return f"{n} {one if n == 1 else several or one + 's'}"


def said(estimate: dict[str, Any]) -> list[str]:
    """What the accuracy would be, and what memory adds to it."""
    honest, among = estimate["honest"], estimate["among_copies"]
    if honest is None or honest["accuracy"] is None:
        why = estimate["why"] if honest is None else honest["why"]
        return [f"no accuracy can be estimated: {why}"]
    interval = honest["accuracy_ci95"]
    sure = "" if interval is None else " ({:.1f} to {:.1f})".format(*(100 * x for x in interval))
    lines = [f"a probe would be right in {100 * honest['accuracy']:.1f} %{sure} of new images"]
    if among and among["memory"] > 0:
        lines.append(
            f"      among copies of these it would be {100 * among['accuracy']:.1f} %: "
            f"{100 * among['memory']:.1f} points are memory"
        )
    return lines
