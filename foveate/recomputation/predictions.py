"""The figures of a run, counted again from its predictions and its probabilities of all classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.data.dataset import BETWEEN
from foveate.evaluation.operating import Target
from foveate.evaluation.point import POINT, fixed
from foveate.recomputation.comparison import Verification
from foveate.report.run import RunFiles
from foveate.runs import PROBABILITIES, is_absent
from foveate.storage import check_regular, unreadable

HALF_PRECISE = 1e-5  # of figures of probabilities that are kept in f32
SPLITS = ("out_of_fold", "validation", "test")
OF_GROUPS = ("accuracy_ci95",)  # which is counted over groups of images

Probabilities = dict[str, NDArray[np.float32]]


def read_probabilities(run: RunFiles) -> Probabilities | None:
    """Those of each split; None where an older version kept none.

    Raises:
        ArtefactError: the file is damaged.
    """
    path = run.folder / PROBABILITIES
    if is_absent(path):
        return None
    try:
        return load(check_regular(path).read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise unreadable(path, error) from error


def verify_predictions(run: RunFiles, card: dict[str, Any], found: Verification) -> None:
    """Each split's answers and figures."""
    kept = read_probabilities(run)
    if kept is None:
        if "links" in run.data:  # written since probabilities are
            found.wrong(PROBABILITIES, "it is missing")
        else:
            found.unverified["metrics.json, from the probabilities"] = "an older version kept none"
        return
    decision = Decision(None if card["thresholds"] is None else tuple(card["thresholds"]))
    there = [split for split in SPLITS if split in run.metrics]
    found.compare(PROBABILITIES, f"{PROBABILITIES}: splits", sorted(kept), sorted(there))
    for split in there:
        rows = [row for row in run.predictions if row["split"] == split]
        p, figures = kept[split].astype(np.float64), run.metrics[split]
        verify_answers(run, split, rows, p, decision, found)
        verify_figures(run, split, figures, rows, p, decision, found)
        if rest := figures.get("without_copies"):
            copies = {*figures["copies"]["files"]}
            kept_rows = [i for i, row in enumerate(rows) if row["file"] not in copies]
            rows = [rows[i] for i in kept_rows]
            verify_figures(run, split, rest, rows, p[kept_rows], decision, found)
    if POINT in run.metrics:
        point = run.metrics[POINT]
        [(kind, asked)] = point["asked"].items()
        again = fixed(Classifier.load(run.folder), Target(point["positive"], kind, asked))
        found.compare(f"metrics.json {POINT}", "metrics.json: the operating point", point, again)


def verify_answers(
    run: RunFiles,
    split: str,
    rows: list[dict[str, Any]],
    p: NDArray[np.float64],
    decision: Decision,
    found: Verification,
) -> None:
    """That predictions.jsonl says what the probabilities say."""
    place = {name: c for c, name in enumerate(run.classes)}
    recorded, computed = [], []
    for row, each, given in zip(rows, p, decision.answers(p), strict=True):
        keys = ("predicted", "probability", "probability_of_label", "probabilities")
        recorded.append({key: row[key] for key in keys if key in row})
        answer: dict[str, Any] = {
            "predicted": BETWEEN.join(run.classes[c] for c in np.flatnonzero(given))
        }
        if "probabilities" in row:
            answer["probabilities"] = {c: float(each[place[c]]) for c in row["probabilities"]}
        else:
            answer["probability"] = float(each.max())
            answer["probability_of_label"] = float(each[place[row["label"]]])
        computed.append(answer)
    name = f"predictions.jsonl: answers of {split}, from {PROBABILITIES}"
    found.compare(f"predictions.jsonl {split}", name, recorded, computed, 1e-6)


def verify_figures(
    run: RunFiles,
    split: str,
    figures: dict[str, Any],
    rows: list[dict[str, Any]],
    p: NDArray[np.float64],
    decision: Decision,
    found: Verification,
) -> None:
    """The figures of a split but for those that take groups."""
    if figures["accuracy"] is None:
        found.compare(f"metrics.json {split}", f"metrics.json: {split}", figures["n"], len(rows))
        return
    place = {name: c for c, name in enumerate(run.classes)}
    if decision.thresholds is None:
        labels = np.array([place[row["label"]] for row in rows], np.int64)
    else:
        labels = np.zeros(p.shape, np.int64)
        for i, row in enumerate(rows):
            labels[i, [place[name] for name in row["label"].split(BETWEEN) if name]] = 1
    counted = decision.summarise(p, labels, tuple(run.classes))
    counted = {key: value for key, value in counted.items() if key not in OF_GROUPS}
    if "selection" in figures:  # the accuracy is that of a choice among heads, less its correction
        del counted["accuracy"]
    recorded = {key: figures[key] for key in counted}
    name = f"metrics.json: {split}, from {PROBABILITIES}"
    found.compare(f"metrics.json {split}", name, recorded, counted, HALF_PRECISE)


def verify_data(run: RunFiles, found: Verification) -> None:
    """That data.json, the predictions and metrics.json are of the same images."""
    files, classes = run.data["files"], run.classes
    counted = {name: dict.fromkeys(classes, 0) for name in run.data["counts"]}
    for file in files.values():
        labels = file["label"] if isinstance(file["label"], list) else [file["label"]]
        for label in labels:
            counted[file["split"]][classes[label]] += 1
    found.compare(
        "data.json counts", "data.json: images of each class", run.data["counts"], counted
    )
    recorded = [[row["file"], row["sha256"], row["label"]] for row in run.predictions]
    expected = []
    for row in run.predictions:
        file = files.get(row["file"], {"sha256": None, "label": []})
        labels = file["label"] if isinstance(file["label"], list) else [file["label"]]
        expected.append([row["file"], file["sha256"], BETWEEN.join(classes[c] for c in labels)])
    found.compare("predictions.jsonl", "predictions.jsonl: files and labels", recorded, expected)
    said = {key: run.data[key] for key in ("bad", "notes")}
    found.compare("data.json", "data.json: notes", said, {k: run.metrics[k] for k in said})


def verify_history(run: RunFiles, found: Verification) -> None:
    """Which epoch, or which penalty, was the best."""
    history, metrics = run.history, run.metrics
    if metrics["recipe"] == "probe":
        best = min(history, key=lambda row: row["log_loss"])["penalty"]
        found.compare("history.jsonl", "history.jsonl: penalty", metrics["penalty"], best)
        return
    best_loss, flags = float("inf"), []
    for row in history:
        flags.append(row["validation_loss"] < best_loss)
        best_loss = min(best_loss, row["validation_loss"])
    recorded = {
        "best": [row["best"] for row in history],
        "epochs": metrics["epochs"],
        "best_epoch": metrics["best_epoch"],
    }
    computed = {
        "best": flags,
        "epochs": sum(row["epoch"] > 0 for row in history),
        "best_epoch": max(row["epoch"] for row, best in zip(history, flags, strict=True) if best),
    }
    found.compare("history.jsonl", "history.jsonl: the epoch that is kept", recorded, computed)
