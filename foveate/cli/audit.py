"""foveate data audit"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from foveate.cli import settings
from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, print_json, say

if TYPE_CHECKING:
    from foveate.audit.inspection import Audit
    from foveate.audit.suspects import Doubts, Gain
    from foveate.data.dataset import Dataset
    from foveate.progress import Progress

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
        typer.Option(
            help="A folder for report.html, audit.json, groups.jpg, an image of the groups, and "
            "faults.jpg, one of the bad images."
        ),
    ] = None,
    lang: settings.Language = "en",
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="A table of the labels that look wrong, with a column for corrections."
        ),
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option("--csv-all", help="A folder for tables of all else that is found."),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="A table of right labels, to be applied first."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """What makes an accuracy untrue: copies, bursts, leaks between splits, wrong labels, and what
    they cost.

    Found are photos that are there again, turned, mirrored, cropped, scaled or saved anew, photos
    that were taken together, those in two splits, those with two labels, and labels that look
    wrong; bad images, such as blurred or dark ones; and classes that look alike. No photo is moved
    or changed.
    """
    from foveate.audit.inspection import inspect
    from foveate.audit.tables import (
        check_findings,
        check_no_corrections,
        write_findings,
        write_suspects,
    )
    from foveate.data.corrections import Corrected, correct
    from foveate.data.layouts import load_dataset
    from foveate.machine import cores_to_use
    from foveate.report.audit import write_audit
    from foveate.report.page import check_place
    from foveate.report.run import REPORT
    from foveate.storage import disk_errors
    from foveate.weights.starting_point import EMBEDDED, find_start

    dataset = load_dataset(data, task)
    right = Corrected(dataset) if corrections is None else correct(dataset, corrections)
    if table is not None:
        check_no_corrections(table)  # before what takes time
    if tables is not None:
        check_findings(tables)
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        check_report(out)
        check_place(out / REPORT)
    with TerminalProgress(quiet) as progress:
        found = inspect(right.dataset, find_start(EMBEDDED), threads, progress)
        judged = judge(found, right.confirmed, cores_to_use(threads), progress)
    labels = judged.doubts.to_dict(found.dataset) | {"gains": [g.to_dict() for g in judged.gains]}
    report = {"estimate": judged.estimate, **labels, **found.to_dict(), "alike": judged.alike}
    if out is not None:
        write(found, report, out)
        with TerminalProgress(quiet) as progress:
            write_audit(out, found.dataset, report, lang, cores_to_use(threads), progress)
    if table is not None:
        suspects, gains = judged.doubts.suspects, judged.gains
        write_suspects(table, found.dataset, suspects, gains, right.said)
    if tables is not None:
        write_findings(tables, report)
    if as_json:
        print_json(report)
    else:
        show(found, judged, table)
    if strict and found.leaks():
        raise typer.Exit(1)


class Judged(NamedTuple):
    """What heads that saw half of the data say of the other: what a probe would say of itself, and
    what it would say among copies, or why it can say nothing; the labels that look wrong; and the
    classes that look alike."""

    estimate: dict[str, Any]
    doubts: "Doubts"
    gains: "list[Gain]"
    alike: list[dict[str, Any]]


def judge(found: "Audit", confirmed: frozenset[str], threads: int, progress: "Progress") -> Judged:
    """Solve a probe's head on the features of an audit."""
    import numpy as np

    from foveate.audit.classes import find_alike
    from foveate.audit.suspects import STEPS, Answers, Doubts, doubt_labels, measure_gains
    from foveate.data.dataset import check_trainable
    from foveate.errors import DataError
    from foveate.training.honest import plan_judging, solve

    dataset, grouping, features = found.dataset, found.grouping, found.features
    learn = np.array([split != "test" for split in dataset.splits], bool)
    try:
        check_trainable(dataset)
        judging = plan_judging(dataset, grouping, learn, seed=0)
    except DataError as error:
        nothing = {"honest": None, "among_copies": None, "why": str(error)}
        return Judged(nothing, Doubts((), tuple(found.contradictions()), str(error)), [], [])
    solved = solve(dataset, features, grouping, judging, 0, threads)
    figures = solved.figures
    keys = ("n", "groups", "accuracy", "accuracy_ci95", "unjudged", "why")
    honest = {key: figures[key] for key in keys if key in figures}
    estimate = {"honest": honest, "among_copies": figures.get("among_copies")}
    answers = Answers(judging.judged, solved.probabilities, judging.groups[judging.folds >= 0])
    doubts = doubt_labels(dataset, grouping, features, answers, figures, confirmed)
    progress.begin("gain of correcting", len(STEPS) + 2)
    gains = measure_gains(
        *(dataset, features, judging.rows, judging.folds, judging.groups, solved.head),
        *(doubts.suspects, threads, progress.advance),
    )
    alike = []
    if dataset.task == "multiclass" and not doubts.why:
        pairs = find_alike(answers.probabilities, dataset.labels[answers.rows], answers.groups)
        alike = [pair.to_dict(dataset.classes) for pair in pairs]
    return Judged(estimate, doubts, gains, alike)


SHEETS = ("groups.jpg", "faults.jpg")


def check_report(out: Path) -> None:
    """UsageError if an image of another's has a sheet's name: an audit leaves its audit.json."""
    from foveate.errors import UsageError, quoted

    there = [name for name in SHEETS if (out / name).exists()]
    if there and not (out / "audit.json").exists():
        raise UsageError(
            f"{quoted(out / there[0])} is there, and no audit of before; choose another --out"
        )


def write(found: "Audit", report: dict[str, Any], out: Path) -> None:
    from foveate.audit.groups import sets
    from foveate.audit.sheet import draw_rows
    from foveate.storage import disk_errors, replacing, write_json

    rows_of = sets(found.grouping.groups), [list(kind.rows) for kind in found.faults]
    sheets = dict(zip(SHEETS, rows_of, strict=True))
    with disk_errors(out):
        write_json(out / "audit.json", report)
        for name, rows in sheets.items():
            sheet = draw_rows(found.dataset, rows)
            if sheet is None:
                (out / name).unlink(missing_ok=True)  # of an audit before
                continue
            with replacing(out / name) as temporary:
                sheet.save(temporary, "JPEG", quality=90)


def show(found: "Audit", judged: Judged, table: Path | None) -> None:
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
    for line in labels_said(found.dataset, judged, table):
        say(line)
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
    show_faults(found)
    show_alike(judged.alike)
    for line in said(judged.estimate):
        say(line)
    for name, reason in found.bad.items():
        say(f"bad   {name}: {reason}")
    for note in dataset.notes:
        say(f"note  {note}")


def labels_said(dataset: "Dataset", judged: Judged, table: Path | None) -> list[str]:
    """The labels that look wrong, and what correcting them would gain."""
    from foveate.audit.suspects import suspect_line

    suspects = judged.doubts.suspects
    if judged.doubts.why:
        return [f"no label can be called wrong: {judged.doubts.why}"]
    if not suspects:
        return []
    looks = "label" if len(suspects) == 1 else "labels"
    lines = [f"{len(suspects)} {looks} may be wrong"]
    for suspect in suspects[:SHOWN]:
        like = f"  like {dataset.files[suspect.agree[0]]}" if suspect.agree else ""
        lines.append(f"      {suspect_line(dataset, suspect)}{like}")
    for gain in judged.gains:
        which = "all of them" if gain.first == len(suspects) else f"the first {gain.first}"
        lines.append(f"      correcting {which}: {gain_said(gain)}")
    where = "write a class, ok or remove into the table's last column, then foveate train "
    more = "--csv FILE makes a table of them: " if table is None else ""
    return [*lines, f"      {more}{where}--corrections {'FILE' if table is None else table}"]


def gain_said(gain: "Gain") -> str:
    """What a correction brings, in words."""
    if gain.interval is None:
        return "too few groups of other images to measure a gain"
    low, high = (100 * x for x in gain.interval)
    points = f"{100 * gain.accuracy:+.1f} points ({low:+.1f} to {high:+.1f})"
    on = f"on {gain.judged} images that are not suspected, log-loss {gain.log_loss:+.3f}"
    return f"at most {points} {on}" if gain.measurable else f"no measurable gain: {points} {on}"


def show_faults(found: "Audit") -> None:
    """The bad images, a kind at a time, and what to do with them."""
    from foveate.audit.quality import KINDS

    for faults in found.faults:
        names = [found.dataset.files[row] for row in faults.rows]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        say(f"{counted(len(names), 'image')}: {faults.said()}")
        say(f"      {', '.join(names[:SHOWN])}{more}")
        say(f"      {KINDS[faults.kind].remedy}")


def show_alike(alike: list[dict[str, Any]]) -> None:
    """The classes that look alike, and what to do with them."""
    for pair in alike[:SHOWN]:
        (a, b), taken = pair["classes"], pair["taken_for_the_other"]
        now, merged = 100 * pair["accuracy"], 100 * pair["accuracy_if_merged"]
        say(
            f"{a} and {b} look alike: {100 * taken[0]:.0f} % of {a} are taken for {b}, "
            f"{100 * taken[1]:.0f} % of {b} for {a}"
        )
        say(
            "      merge them, if you need not tell them apart (accuracy out of fold "
            f"{now:.1f} %, merged {merged:.1f} %), or add images that tell them apart"
        )


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
