"""Finished runs laid over one another: curves, differences, and what one has right and another has
not, on the images that all of them judged."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.arguments import checked_path, option, shown
from foveate.classifier import Classifier
from foveate.comparison.folder import RESULT, SETTINGS
from foveate.comparison.judgement import Judged, best_of, differences, in_common, rivals_of
from foveate.comparison.rows import judged_of
from foveate.data.dataset import Dataset, listed
from foveate.data.layouts import as_dataset
from foveate.errors import DataError, UsageError, quoted
from foveate.machine import cores_to_use
from foveate.metrics import believed
from foveate.progress import Progress, bars
from foveate.report.answer import headline_of
from foveate.report.compared import summary_of_runs, write_overlay
from foveate.report.page import check_place
from foveate.report.run import REPORT, RunFiles, read_run
from foveate.report.texts import Lang, Texts, check_lang
from foveate.runs import is_absent
from foveate.storage import disk_errors, write_json

LEAST = 20  # images that all have judged: fewer say nothing
MOST_POINTS = 400  # of a curve
SPLITS = ("test", "out_of_fold")  # judged by a head or network that they had not shaped


def compare_runs(
    runs: Sequence[str | os.PathLike[str]],
    *,
    data: str | os.PathLike[str] | Dataset | None = None,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    lang: Lang = "en",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Lay finished runs of the same data over one another.

    Args:
        runs: their folders.
        data: the images, for the report to show; it is without them otherwise.
        out: a folder for `report.html` and `comparison.json`; none is written by default.
        threads: cores to use; all by default.
        lang: of the report: "en" or "zh".
        progress: is informed of how far it is; by default bars in a terminal or a notebook.

    Returns:
        runs, a row of each: model, recipe, its own figures, and `shared_accuracy`, that on the
        images that all of them judged; judged, how many these are; pairs, best (as `compare`
        returns them); apart, of the first run and each other one, the confusions that one has and
        the other has not, and the images that one alone has right; curves; said, the result in
        sentences; notes.

    Raises:
        UsageError: fewer than two; one twice; they have different classes.
        DataError: they judged too few images in common: their data are others.
        ArtefactError: one is no finished run, or is damaged.
    """
    if isinstance(runs, (str, os.PathLike)):
        raise UsageError(f"runs is a list of folders, not {shown(runs)}")
    folders = [checked_path("runs are paths of folders", run) for run in runs]
    check_lang(lang)
    threads = cores_to_use(threads)
    check_folders(folders)
    place = None if out is None else checked_path("out is the path of a folder", out)
    if place is not None:
        check_out(place)
    names = names_of(folders)
    with bars(progress) as shown_to:
        shown_to.begin("runs", len(folders))
        read = [read_run(folder) for folder in folders]
        classifiers = [Classifier.load(folder) for folder in folders]
        check_classes(folders, classifiers)
        judged = []
        for folder in folders:
            judged.append(judged_of(folder, SPLITS))
            shown_to.advance()
        shared = in_common(judged)
        if len(shared[0].keys) < LEAST:
            raise DataError(
                f"the runs are of different data: {len(shared[0].keys)} images with the same bytes "
                f"and label were judged by all of {listed(names)}, and {LEAST} are needed; compare "
                "runs that were trained on the same images"
            )
        shown_to.begin("differences", len(names) * (len(names) - 1) // 2)
        pairs = differences(names, shared, shown_to.advance)
        at, correction = best_of(shared)
        best = {
            "name": names[at],
            "correction": correction,
            "of": len(names),
            "accuracy": max(0.0, float(shared[at].right.mean()) - correction),
            "rivals": rivals_of(names[at], pairs),
        }
        found: dict[str, Any] = {
            "runs": [
                row_of_run(name, run, one)
                for name, run, one in zip(names, read, shared, strict=True)
            ],
            "judged": len(shared[0].keys),
            "pairs": pairs,
            "best": best,
            "apart": [
                apart(names[0], shared[0], name, other)
                for name, other in zip(names[1:], shared[1:], strict=True)
            ],
            "curves": curves_of(dict(zip(names, folders, strict=True))),
            "notes": notes_on(read, judged, shared),
        }
        found["said"] = [one.striptags() for one in summary_of_runs(found, Texts("en"))]
        if place is not None:
            with disk_errors(place):
                place.mkdir(parents=True, exist_ok=True)
            write_json(place / RESULT, found)
            dataset = None if data is None else as_dataset(data, classifiers[0].task)
            write_overlay(place / REPORT, found, dataset, lang, threads, shown_to)
    return found


def check_folders(folders: Sequence[Path]) -> None:
    """UsageError unless there are several different ones."""
    if len(folders) < 2:
        raise UsageError(f"two or more runs are compared, not {len(folders)}")
    there = [folder.resolve() for folder in folders]
    for folder, resolved in zip(folders, there, strict=True):
        if there.count(resolved) > 1:
            raise UsageError(f"the run {quoted(folder)} is named twice; name each once")


def check_out(place: Path) -> None:
    """UsageError unless the folder may be written to."""
    check_place(place / REPORT)
    with disk_errors(place):
        there = place.is_dir() and any(place.iterdir())
    if there and (is_absent(place / RESULT) or not is_absent(place / SETTINGS)):
        raise UsageError(
            f"{quoted(place)} exists and is no comparison of runs; choose another {option('out')}"
        )


def check_classes(folders: Sequence[Path], classifiers: Sequence[Classifier]) -> None:
    """UsageError unless all have the same classes, and one task."""
    first = classifiers[0]
    for folder, other in zip(folders[1:], classifiers[1:], strict=True):
        differing = sorted({*first.classes} ^ {*other.classes})
        if differing:
            raise UsageError(
                f"{quoted(folders[0])} and {quoted(folder)} have different classes: "
                f"{listed(differing)} are in one of them only"
            )
        if first.task != other.task:
            raise UsageError(
                f"{quoted(folders[0])} is {first.task}, and {quoted(folder)} is {other.task}"
            )


def names_of(folders: Sequence[Path]) -> list[str]:
    """The runs' names; their paths where two have one name."""
    names = [folder.resolve().name for folder in folders]
    return names if len({*names}) == len(names) else [str(folder) for folder in folders]


def row_of_run(name: str, run: RunFiles, shared: Judged) -> dict[str, Any]:
    """What a run says of itself."""
    metrics = run.metrics
    split = headline_of(metrics)
    figures = believed(metrics[split]) or {}
    return {
        "name": name,
        "run": str(run.folder),
        "model": metrics["model"],
        "recipe": metrics["recipe"],
        "effort": metrics.get("effort"),
        "framing": metrics.get("seen", {}).get("framing"),
        "split": split,
        "n": figures.get("n", 0),
        **{key: figures.get(key) for key in ("accuracy", "accuracy_ci95", "macro_f1", "ece")},
        "shared_accuracy": float(shared.right.mean()),
        "seconds": metrics["seconds"]["total"],
    }


def notes_on(
    read: Sequence[RunFiles], judged: Sequence[Judged], shared: Sequence[Judged]
) -> list[str]:
    """What a reader should know of the images that are compared."""
    notes = []
    if len({str(run.config.get("fingerprint", "")) for run in read}) > 1:
        notes.append(
            "the runs were not trained on the very same data: an image, a label, a split or a "
            "group is another one"
        )
    most = max(len(one.keys) for one in judged)
    if most > len(shared[0].keys):
        notes.append(
            f"compared are the {len(shared[0].keys)} images that all of them judged, of up to "
            f"{most} that one did"
        )
    return notes


def apart(first: str, one: Judged, second: str, other: Judged) -> dict[str, Any]:
    """Where two classifiers differ, on the same images in one order, of one seed.

    Returns:
        first, second: their names; only_first, only_second: the images that one alone has right,
        with the label and the other's answer; confusions: how often each takes a class for another
        one, where the two differ, the largest difference first.
    """
    here = [row for row, key in enumerate(one.keys) if key[0] == 0]
    one, other = one.select(here), other.select(here)

    def solved(by: Judged, but: Judged) -> list[dict[str, str]]:
        return [
            {"file": by.files[row], "label": by.labels[row], "answer": but.answers[row]}
            for row in (by.right & ~but.right).nonzero()[0].tolist()
        ]

    counts = [
        Counter(
            pair
            for pair, right in zip(
                zip(by.labels, by.answers, strict=True), by.right.tolist(), strict=True
            )
            if not right
        )
        for by in (one, other)
    ]
    confusions: list[dict[str, Any]] = [
        {"label": label, "answer": answer, "first": counts[0][pair], "second": counts[1][pair]}
        for pair in {**counts[0], **counts[1]}
        for label, answer in [pair]
        if counts[0][pair] != counts[1][pair]
    ]
    confusions.sort(key=lambda c: (-abs(c["first"] - c["second"]), c["label"], c["answer"]))
    return {
        "first": first,
        "second": second,
        "only_first": solved(one, other),
        "only_second": solved(other, one),
        "confusions": confusions,
    }


def curves_of(runs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """How each was learnt, by name: of a probe the log-loss by penalty, of others the validation
    loss by epoch; along, what the axis is; points; and kept, the place of what was kept."""
    found = {}
    for name, folder in runs.items():
        run = read_run(folder)
        if not run.history:
            continue
        history = run.history[:: -(-len(run.history) // MOST_POINTS)]
        probe = "penalty" in history[0]
        x, y = ("penalty", "log_loss") if probe else ("epoch", "validation_loss")
        found[name] = {
            "along": x,
            "points": [[row[x], row[y]] for row in history],
            "kept": run.metrics.get("penalty" if probe else "best_epoch"),
        }
    return found
