"""The last run of the same data, and whether a new one is better: on the images that both judged.

Images are the same if their bytes are, so files may be renamed, added and taken away in between.
Each was judged by a head or network that had not learnt from it, in both runs: in a test split, in
a fold, or in a validation split, which also chose the epoch that is kept.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError
from foveate.evaluation.pairs import NOISE, sign_flip
from foveate.runs import Run, read_json, read_lines

LEAST = 20  # images in common: fewer say nothing

KEYS = ("split", "sha256", "label", "predicted")

Rows = list[dict[str, Any]]  # of predictions.jsonl


def compare_with_last(run: Run, dataset: Dataset, rows: Rows) -> dict[str, Any]:
    """What metrics.json says of the last run of the same data.

    Args:
        run: the new one. The last one lies beside it.
        dataset: its images, with their groups.
        rows: its predictions.

    Returns:
        `{"compared_with": {run, split, split_before, n, before, after, newly_right, newly_wrong, p,
        within_noise}}`, or nothing where no such run is finished, or the two have judged too few
        images in common, by their bytes and label. `before` and `after` are accuracies on these n
        images; p is that of `sign_flip` over groups of images.
    """
    last = last_run(run)
    if last is None:
        return {}
    before, after = by_split(read_rows(last)), by_split(rows)
    # the same split in both, if there is one; then the more images the better
    pairs = [
        (old == new, n, new, old)
        for old in before
        for new in after
        if (n := len(before[old].keys() & after[new].keys())) >= LEAST
    ]
    if not pairs:
        return {}
    _, n, new, old = max(pairs)
    now, then = after[new], before[old]
    keys = [key for key in now if key in then]
    right_then = np.array([right(then[key]) for key in keys])
    right_now = np.array([right(now[key]) for key in keys])
    change = right_now.astype(np.int64) - right_then
    if any(dataset.groups):  # duplicates are one image here already
        group = dict(zip(dataset.files, dataset.grouping().tolist(), strict=True))
        _, member = np.unique([group[now[key]["file"]] for key in keys], return_inverse=True)
        p = sign_flip(np.bincount(member, weights=change))
    else:
        p = sign_flip(change)
    compared = {
        "run": last.name,
        "split": new,
        "split_before": old,
        "n": n,
        "before": float(right_then.mean()),
        "after": float(right_now.mean()),
        "newly_right": int((change > 0).sum()),
        "newly_wrong": int((change < 0).sum()),
        "p": p,
        "within_noise": p >= NOISE,
    }
    return {"compared_with": compared}


def last_run(run: Run) -> Path | None:
    """The youngest finished run beside this one whose data have the same name and task."""
    mine = read_json(run.folder / "config.json")
    finished = []
    for name in names_in(run.folder.parent):
        folder = run.folder.parent / name
        try:
            finished.append(((folder / "metrics.json").stat().st_mtime_ns, folder))
        except OSError:  # no run, or not finished
            continue
    for _, folder in sorted(finished, reverse=True):
        try:
            theirs = read_json(folder / "config.json")
        except ArtefactError:
            continue
        same = all(theirs.get(key) == mine[key] for key in ("data", "task"))
        if same and folder.name != run.folder.name:
            return folder
    return None


def names_in(folder: Path) -> list[str]:
    """What lies in a folder; nothing if it may not be listed."""
    try:
        return os.listdir(folder)  # noqa: PTH208  # thousands may lie there: names are enough
    except OSError:
        return []


def read_rows(folder: Path) -> Rows:
    """A run's predictions; none if they are gone or damaged."""
    try:
        rows = read_lines(folder / "predictions.jsonl")
    except ArtefactError:
        return []
    return [row for row in rows if all(isinstance(row.get(key), str) for key in KEYS)]


def by_split(rows: Rows) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    """{split: {(bytes, label): row}}; of duplicates one."""
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["split"], {})[row["sha256"], row["label"]] = row
    return found


def right(row: dict[str, Any]) -> bool:
    """Whether an image got its class, or all its labels."""
    return bool(row["label"] == row["predicted"])
