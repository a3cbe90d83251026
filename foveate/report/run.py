"""The report of a run: one HTML file that says how good the run is, and shows its mistakes."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, quoted
from foveate.evaluation.point import POINT
from foveate.metrics import believed, reliability
from foveate.progress import Progress
from foveate.report import sections
from foveate.report.answer import believable, headline_of, how_good, percent
from foveate.report.calibration import Calibration, calibrate
from foveate.report.charts import reliability_curve
from foveate.report.explained import explain_mistakes
from foveate.report.page import damaged, thumbnails, write_page
from foveate.report.plots import CONFUSION, RELIABILITY, plot_confusion, plot_reliability
from foveate.report.texts import Texts, isolated
from foveate.runs import is_absent, read_json, read_lines, read_metrics
from foveate.storage import fingerprint

REPORT = "report.html"
WORST, WORST_FULL = 12, 60  # mistakes that are shown
SETS, IN_SET = 12, 4  # of the full report: suspects, copies and groups; and images of each


@dataclass(frozen=True)
class RunFiles:
    """What a finished run left, as its files have it; what an older version did not write is
    empty."""

    folder: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    env: dict[str, Any]
    data: dict[str, Any]
    review: dict[str, Any]
    plan: dict[str, Any] | None
    history: list[dict[str, Any]]
    predictions: list[dict[str, Any]]

    @property
    def classes(self) -> list[str]:
        return list(self.data["classes"])


def read_run(folder: Path) -> RunFiles:
    """The files of a finished run.

    Raises:
        ArtefactError: there is none; a file is missing or damaged.
    """
    if is_absent(folder / "metrics.json"):
        raise ArtefactError(f"{quoted(folder)} is not a finished run: it has no metrics.json")

    def beside(name: str) -> dict[str, Any]:
        return {} if is_absent(folder / name) else read_json(folder / name)

    data = read_json(folder / "data.json", {"classes": [str], "counts": {str: {str: int}}})
    return RunFiles(
        folder=folder,
        metrics=read_metrics(folder, len(data["classes"])),
        config=read_json(folder / "config.json"),
        env=beside("env.json"),
        data=data,
        review=beside("review.json"),
        plan=beside("plan.json") or None,
        history=read_lines(folder / "history.jsonl"),
        predictions=read_lines(folder / "predictions.jsonl"),
    )


def check_whole(run: RunFiles) -> None:
    """ArtefactError if predictions.jsonl has not a line for each image that was judged."""
    splits = ("out_of_fold", "validation", "test")
    n = sum(run.metrics[split]["n"] for split in splits if split in run.metrics)
    if len(run.predictions) != n:
        raise ArtefactError(
            f"{quoted(run.folder / 'predictions.jsonl')} has {len(run.predictions)} lines for the "
            f"{n} images that were judged: it is damaged; train again"
        )


class Shown(NamedTuple):
    """An image of a report, what is written below it, and of a mistake the answer."""

    file: str
    lines: list[Markup]
    answer: str = ""


class ShownSet(NamedTuple):
    """Images that belong together."""

    title: Markup
    images: list[Shown]


def write_report(
    folder: Path,
    dataset: Dataset | None,
    lang: str,
    full: bool,
    out: Path,
    threads: int,
    progress: Progress,
) -> int:
    """Write the report of a finished run; in its folder `confusion.png` and `reliability.png`, too.

    Args:
        folder: of the run.
        dataset: the images that it was trained on, by the same names; None where they are not
            there.
        lang: "en" or "zh".
        full: show more mistakes, and the images of what is wrong with the data.
        out: the HTML file.
        threads: cores to use.
        progress: is advanced with each thumbnail.

    Returns:
        How many images it holds.

    Raises:
        ArtefactError: there is no finished run; its files are damaged.
        UsageError: `out` is no HTML file, or one of others is there; no such language.
        FoveateError: it cannot be written.
    """
    t, run = Texts(lang), read_run(folder)
    check_whole(run)
    try:
        page, sets = contents(run, full, t)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(folder, error) from error
    if full and dataset is not None:
        answers = {shown.file: shown.answer for shown in sets[0].images[:WORST]}
        reasons, said = explain_mistakes(folder, dataset, answers, threads, progress, t)
        page |= {"reasons": reasons, "reasons_about": said}
    near = [other.file for one in page["reasons"].values() for other in one.near]
    files = list(dict.fromkeys([*(shown.file for one in sets for shown in one.images), *near]))
    images = {} if dataset is None else thumbnails(dataset, files, threads, progress)
    held = sum(bool(image) for image in images.values())
    write_page(out, t, page | {"images": images, "held": held, "gone": len(files) - held})
    if out.parent.resolve() == folder.resolve():
        draw_beside(out, run)
    return held


def draw_beside(out: Path, run: RunFiles) -> None:
    """The matrix and the curve as PNG files."""
    split = headline_of(run.metrics)
    found, calibration = believed(run.metrics[split]), calibration_of(run, split)
    if found is not None and "confusion" in found:
        plot_confusion(out.with_name(CONFUSION), found["confusion"], run.classes)
    if calibration is not None:
        plot_reliability(out.with_name(RELIABILITY), calibration.bins)


def contents(run: RunFiles, full: bool, t: Texts) -> tuple[dict[str, Any], list[ShownSet]]:
    """What the page says, and the images that it shows."""
    metrics, split = run.metrics, headline_of(run.metrics)
    found, calibration = believed(metrics[split]), calibration_of(run, split)
    table, more = sections.classes(run.data["counts"], found, t)
    mistakes = worst_mistakes(run, split, WORST_FULL if full else WORST, t)
    sets = [mistakes, *(wrong_data(run.review, run.data.get("groups", ()), t) if full else ())]
    name = quote(run.folder.name)
    return {
        "title": t("title", run=run.folder.resolve().name),
        "about": t(
            "about",
            images=sum(n for split in run.data["counts"].values() for n in split.values()),
            classes=len(run.classes),
            model=metrics["model"],
            recipe=metrics["recipe"],
        ),
        "metrics_digest": digest_of_metrics(run.folder),
        "reasons": {},
        "reasons_about": [],
        "answer": [
            how_good(split, metrics[split], run.classes, t),
            believable(found, calibration, metrics.get("rejection"), t),
        ],
        "figures": sections.figures(metrics, t),
        "beside": sections.beside_figures(metrics, t),
        "problems": sections.problems(metrics, run.data, run.review, t),
        "classes": table,
        "more_classes": more,
        "sets": sets[1:],
        "curves": sections.curves(run.history, metrics, t),
        "confusion": sections.confusions(found, run.classes, t),
        "mistakes": mistakes,
        "mistakes_about": t("mistakes_about", split=t(f"split_{split}")),
        "calibration": None if calibration is None else reliability_curve(calibration.bins, t),
        "refusal": sections.refusal(metrics.get("rejection"), t),
        "framing": sections.framing(metrics.get("seen"), t),
        "plan": sections.transfer(metrics, run.plan, t),
        "commands": [command_of(run), f"foveate verify {name}"],
        "reproduction": sections.reproduction(metrics, run.config, run.env, t),
        "notes": sections.notes(metrics["notes"]),
    }, sets


def command_of(run: RunFiles) -> str:
    """What was typed, as the log has it; or a command that trains in the same way."""
    try:
        with (run.folder / "log.txt").open(encoding="utf-8", errors="replace") as log:
            first = log.readline().strip()
    except OSError:
        first = ""
    config = quote(f"{run.folder.name}/config.json")
    return first if len(first) > len("foveate train") else f"foveate train DATA --config {config}"


def digest_of_metrics(folder: Path) -> str:
    """By which a report and the metrics that it was made of know each other; an operating point
    may be fixed later."""
    found = read_json(folder / "metrics.json")
    return fingerprint({key: value for key, value in found.items() if key != POINT})


def rows_of(run: RunFiles, split: str) -> list[dict[str, Any]]:
    """The predictions of a split, without those of copies of what was learnt from."""
    copies = {*run.metrics[split].get("copies", {}).get("files", ())}
    return [r for r in run.predictions if r["split"] == split and r["file"] not in copies]


def calibration_of(run: RunFiles, split: str) -> Calibration | None:
    """Of the answers of a split; None of labels, and where there are no answers."""
    rows = [row for row in rows_of(run, split) if "probability" in row]
    sure = np.array([row["probability"] for row in rows], np.float64)
    right = np.array([row["label"] == row["predicted"] for row in rows], bool)
    return calibrate(reliability(sure, right))


def worst_mistakes(run: RunFiles, split: str, most: int, t: Texts) -> ShownSet:
    """The wrong answers that were the surest."""
    wrong = [row for row in rows_of(run, split) if row["label"] != row["predicted"]]

    def sureness(row: dict[str, Any]) -> float:
        return float(row.get("probability", max(row.get("probabilities", {}).values(), default=0)))

    wrong.sort(key=lambda row: (-sureness(row), row["file"]))
    shown = []
    for row in wrong[:most]:
        if "probability" in row:
            p, of_label = percent(row["probability"]), percent(row["probability_of_label"])
            said = [t("taken_for", name=row["predicted"], p=p)]
            said.append(t("is_a", name=row["label"], p=of_label))
            shown.append(Shown(row["file"], said, row["predicted"]))
        else:
            none = t("no_label")
            said = [t("given_labels", name=row["predicted"] or none)]
            said.append(t("is_labels", name=row["label"] or none))
            shown.append(Shown(row["file"], said))
    return ShownSet(t("mistakes"), shown)


def wrong_data(found: dict[str, Any], groups: Iterable[dict[str, Any]], t: Texts) -> list[ShownSet]:
    """The images of what may be wrong with the data.

    Args:
        found: with suspects and contradictions, as review.json and audit.json have them.
        groups: those of data.json and audit.json.
    """
    suspects = [
        Shown(one["files"][0], [t("suggested", **sections.suspect_of(one, t))])
        for one in found.get("suspects", ())[:SETS]
    ]
    pairs = [
        Shown(file, [isolated(label)])
        for pair in found.get("contradictions", ())[:SETS]
        for file, label in zip(pair["files"], pair["labels"], strict=True)
    ]
    largest = [
        Shown(file, [sections.named(t, group["kind"], "kind_")])
        for group in islice(groups, SETS)
        for file in group["files"][:IN_SET]
    ]
    sets = ((t("suspects"), suspects), (t("contradictions"), pairs), (t("groups_shown"), largest))
    return [ShownSet(title, images) for title, images in sets if images]
