"""foveate evaluate"""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foveate.cli.console import (
    JSON_HELP,
    TTA_HELP,
    Quiet,
    TerminalProgress,
    print_json,
    print_table,
    say,
)
from foveate.cli.help import DATA, EXECUTION, complete_data
from foveate.cli.settings import Language
from foveate.cli.train import MOST_CLASSES, interval_of, of, show, show_notes
from foveate.errors import UsageError

if TYPE_CHECKING:
    from foveate.classifier import Classifier

OFF = "off"
MOST_SLICES = 8  # that are shown
COVERED = (0.9, 0.8, 0.5)  # of the images: what the surest answers are worth


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    data: Annotated[
        str | None,
        typer.Argument(
            help="Labelled images; of split folders, the test split. Or images without labels: a "
            "folder of nothing but images, or a CSV with the column path. Left out: what the run "
            "held back.",
            autocompletion=complete_data,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="How well this class is told from all others; off takes a threshold back.",
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="With --positive: give it, from now on, from the probability that keeps this "
            "share of its images, such as 0.99, on new ones too."
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            help="With --positive: the same for the share of its own among the images that are "
            "given it."
        ),
    ] = None,
    cost: Annotated[
        Path | None,
        typer.Option(help="A CSV of what each mistake costs: rows the classes, columns answers."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN_B", help="Another run, on the same images.")
    ] = None,
    groups: Annotated[
        Literal["auto", "given", "none"],
        typer.Option(
            rich_help_panel=DATA, help="Which images count as one in intervals: as for train."
        ),
    ] = "auto",
    on_bad: Annotated[
        Literal["skip", "error"] | None,
        typer.Option(
            rich_help_panel=DATA,
            help="Unreadable images: skip and name them, however many, or stop, also at damaged "
            "ones [default: skip 5 % at most]",
        ),
    ] = None,
    tta: Annotated[
        Literal["none", "mirror", "ten"], typer.Option(rich_help_panel=EXECUTION, help=TTA_HELP)
    ] = "none",
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.html, and confusion.png beside it.")
    ] = None,
    lang: Language = "en",
    threads: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=EXECUTION, help="Cores to use [default: all]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a classifier on labelled images, or predict its accuracy on images without labels.
    Classes go by name."""
    from foveate import evaluation
    from foveate.classifier import Classifier
    from foveate.report.page import check_place
    from foveate.report.plots import CONFUSION, RELIABILITY, check_figure
    from foveate.report.run import REPORT

    classifier = Classifier.load(run)
    if threads:
        classifier.threads = min(threads, classifier.threads)
    if out is not None:
        check_place(out / REPORT)  # before what takes time
        check_figure(out / CONFUSION)
        check_figure(out / RELIABILITY)
    fixes = (recall, precision) != (None, None)
    forgets = positive == OFF and OFF not in classifier.classes and not fixes
    if forgets:
        classifier, positive = evaluation.decided(classifier, None), None
    with TerminalProgress(quiet) as progress:
        result = evaluation.evaluate(
            classifier,
            data,
            on_bad,
            progress,
            tta,
            groups=groups,
            positive=positive,
            recall=recall,
            precision=precision,
            cost=cost,
            against=None if against is None else Classifier.load(against),
        )
    if out is not None:
        leave_page(out, run, classifier, result, lang)
    if fixes:
        evaluation.fix_point(classifier, positive, recall=recall, precision=precision)
    if forgets:
        evaluation.forget_point(classifier)
    if as_json:
        print_json(result | {"run": str(run)})
    elif "predicted" in result:
        show_predicted(result)
    else:
        show(
            parts(result) | {"notes": [], "bad": {}},
            classifier.classes,
            "--json names all",
        )
        for line in [*more_lines(result), *asked_lines(result, run)]:
            say(line)
        say()
        show_notes(result["notes"], result["bad"], "--json names all")


def parts(result: dict[str, Any]) -> dict[str, Any]:
    """The figures by what they are of: a test is of new images alone."""
    if not result["learnt_from"]["n"]:
        split = result["split"] if result["data"] is None else "test"
        return {split: result}
    return {"learnt_from": result} if result["new"] is None else {"new": result["new"]}


def more_lines(result: dict[str, Any]) -> list[str]:
    """What is known beside the accuracy, and where it differs."""
    m = result["new"] or result
    said = []
    if m.get("macro_f1_ci95"):
        f1, ece = m["macro_f1_ci95"], m["ece_ci95"]
        said = [f"macro-F1 {f1[0]:.3f} to {f1[1]:.3f}", f"ECE {ece[0]:.3f} to {ece[1]:.3f}"]
    if "top5_accuracy" in m:
        said.append(f"top-5 {100 * m['top5_accuracy']:.1f} %")
    lines = [f"{'':<12} 95 %: {', '.join(said)}"] if said else []
    if "before_calibration" in m:
        before = m["before_calibration"]
        lines.append(
            f"{'calibrated':<12} ECE {m['ece']:.3f}, before {before['ece']:.3f}; log-loss "
            f"{m['log_loss']:.3f}, before {before['log_loss']:.3f}"
        )
    if m.get("risk_coverage"):
        points = [min(m["risk_coverage"], key=lambda p: abs(p["coverage"] - c)) for c in COVERED]
        surest = ", ".join(
            f"{100 * p['accuracy']:.1f} % of the surest {100 * p['coverage']:.0f} %" for p in points
        )
        lines.append(f"{'right':<12} {surest}")
    differing = [one for one in result["slices"] if one["differs"]]
    for one in differing[:MOST_SLICES]:
        side = "worse" if one["accuracy"] < one["others"] else "better"
        lines.append(
            f"{side:<12} {one['by']} {one['value']}: {100 * one['accuracy']:.1f} % of {of(one)}, "
            f"elsewhere {100 * one['others']:.1f} % (p {max(one['p'], 1e-4):.2g})"
        )
    if result["slices"] and not differing:
        by = ", ".join(dict.fromkeys(one["by"] for one in result["slices"]))
        lines.append(f"{'even':<12} no slice differs beyond noise ({by})")
    return lines


def asked_lines(result: dict[str, Any], run: Path) -> list[str]:
    """The answers to what was asked beside the figures."""
    lines = []
    if "ranking" in result:
        m = result["ranking"]
        lines.append(
            f"{m['positive']:<12} AUROC {m['auroc']:.4f}{span(m['auroc_ci95'], 4)}, average "
            f"precision {m['average_precision']:.4f}{span(m['average_precision_ci95'], 4)}, on "
            f"{m['positives']} images of it among {m['n']}"
        )
    if "operating_point" in result:
        lines += point_lines(result["operating_point"])
        lines.append(
            f"{'':<12} foveate predict {quote(str(run))} answers by it; foveate evaluate "
            f"{quote(str(run))} --positive {OFF} takes it back"
        )
    if "costs" in result:
        m = result["costs"]
        lines.append(
            f"{'costs':<12} {m['before']:.4g} an image; {m['after']:.4g} by the answers that cost "
            f"least, which saves {m['saved']:.4g}{span(m['saved_ci95'], 4)}; {m['changed']} "
            f"answers are others, accuracy {100 * m['accuracy']:.1f} %"
        )
    if "against" in result:
        lines += against_lines(result["against"])
    return lines


def point_lines(point: dict[str, Any]) -> list[str]:
    """An operating point: what was asked, what is to be expected, what was measured."""
    (kind, asked), expected = next(iter(point["asked"].items())), point["expected"]
    lines = [
        f"{point['positive']:<12} from a probability of {point['threshold']:.4g} on, for a {kind} "
        f"of {100 * asked:g} %",
        f"{'':<12} on as many new images ({expected['n']}), expect {100 * expected['low']:.1f} to "
        f"{100 * expected['high']:.1f} %",
    ]
    if not point["kept"]:
        lines.append(f"{'':<12} not promised: {point['why']}")
    where = {"measured": point["split"].replace("_", " "), "on_test": "test", "on_these": "here"}
    for key, name in where.items():
        if key in point:
            m = point[key]
            figures = ", ".join(
                f"{what} {100 * m[what]:.1f} %{span(m[f'{what}_ci95'], 1, 100)}"
                for what in ("recall", "precision")
                if m[what] is not None
            )
            lines.append(
                f"{'':<12} {name}: {figures}; {m['given']} of {m['n']} images are given it"
            )
    return lines


def against_lines(m: dict[str, Any]) -> list[str]:
    """Which of two classifiers is better, in a plain sentence."""
    accuracies = f"{100 * m['accuracy']:.1f} % against {100 * m['other_accuracy']:.1f} %"
    p = f"p {max(m['p'], 1e-4):.2g}"
    sure = span(m["difference_ci95"], 1, 100)
    enough = ""
    if m["verdict"] == "not distinguishable":
        verdict = f"not distinguishable from {m['run']} on this many images"
        enough = "; no number of images would show a difference, there is none"
        if m["needed"] is not None:
            enough = f"; {m['needed']} images would show a difference of this size"
    else:
        verdict = f"{m['verdict']} than {m['run']}"
    return [
        f"{'against':<12} {verdict}: {accuracies} of {of(m)}{enough}",
        f"{'':<12} difference {100 * m['difference']:+.1f} points{sure}, {m['newly_right']} right "
        f"here alone, {m['newly_wrong']} there alone ({p}); log-loss "
        f"{m['log_loss_difference']:+.3f}{span(m['log_loss_difference_ci95'], 3)}",
    ]


def span(interval: list[float] | None, digits: int, times: float = 1) -> str:
    """An interval in brackets, after a figure.

    >>> span([0.91, 0.957], 1, 100)
    ' (91.0 to 95.7)'
    """
    if interval is None:
        return ""
    low, high = (times * end for end in interval)
    return f" ({low:.{digits}f} to {high:.{digits}f})"


def leave_page(
    out: Path, run: Path, classifier: "Classifier", result: dict[str, Any], lang: str
) -> None:
    """Write the report of an evaluation."""
    from foveate.report.measured import write_evaluation

    if "predicted" in result:
        raise UsageError(
            "--out is for a report of labelled images, and these have no labels: leave it out"
        )
    rejection = classifier.card.get("rejection")
    name = run.resolve().name
    write_evaluation(out, name, parts(result), result, classifier.classes, rejection, lang)


def show_predicted(result: dict[str, Any]) -> None:
    """What to expect of images without labels, for people."""
    m, bad = result["predicted"], result["bad"]
    if m["n"]:
        counts = sorted(m["answers"].items(), key=lambda item: -item[1])
        rows = [[c, str(n), f"{100 * n / m['n']:.1f}"] for c, n in counts[:MOST_CLASSES] if n]
        print_table("taken for each class", ["class", "images", "%"], rows)
        say()
    what = f"on {of(m)} without labels"
    if m["accuracy"] is None:
        say(f"{'expected':<12} no figure {what}: {m['why']}")
    else:
        say(f"{'expected':<12} accuracy {100 * m['accuracy']:.1f} % ({interval_of(m)}) {what}")
        side = "farther from" if m["farther"] >= 0 else "nearer to"
        say(
            f"{'':<12} they are {100 * abs(m['farther']):.0f} % {side} the training images than "
            f"those it was judged on, on the average; {100 * m['unlike']:.0f} % are unlike those"
        )
    say()
    show_notes(result["notes"], bad, "--json names all")
