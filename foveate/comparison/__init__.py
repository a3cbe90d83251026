"""Which network for these images: several are trained on the same splits and folds and put into one
table; or finished runs are laid over one another.

candidates.py   networks, efforts and framings, and what keeps one from being trained here
folder.py       where it happens, and where it goes on after an interruption
budget.py       seconds that each training is given
rows.py         what the runs of one candidate say of themselves
speed.py        latency and throughput, measured in turn
cost.py         MACs, parameters, bytes
judgement.py    which differences are more than chance, and what the best owes to luck
overlay.py      finished runs
"""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, Literal, cast

import numpy as np

from foveate.arguments import as_number, checked_path, shown, whole_number
from foveate.audit.groups import Grouping
from foveate.audit.inspection import find_groups_alike
from foveate.comparison.budget import Deadline, OverBudgetError
from foveate.comparison.candidates import (
    DONE,
    FAILED,
    OVER_BUDGET,
    TOO_LARGE,
    Candidate,
    candidates_of,
    obstacle,
)
from foveate.comparison.folder import RESULT, TABLE, Folder
from foveate.comparison.judgement import (
    Judged,
    best_of,
    differences,
    front,
    in_common,
    rivals_of,
)
from foveate.comparison.overlay import apart, compare_runs, curves_of
from foveate.comparison.rows import SPLIT, joined, judged_of, row_of, without_figures
from foveate.comparison.speed import TOGETHER, measure_speed
from foveate.data.dataset import Dataset, OnBad, Task, check_policy, check_trainable, learnable
from foveate.data.layouts import as_dataset
from foveate.errors import ArtefactError, ImageError, MissingExtraError, UsageError
from foveate.machine import cores_to_use, environment
from foveate.progress import Progress, bars
from foveate.report.compared import summary, write_comparison
from foveate.report.page import check_place
from foveate.report.run import REPORT
from foveate.report.texts import Lang, Texts, check_lang
from foveate.runs import numbered
from foveate.storage import replacing, write_json
from foveate.training import measure_epoch, train
from foveate.training.report import dataset_fingerprint

__all__ = ["compare", "compare_runs"]

Recipe = Literal["probe", "finetune"]
Rows = list[dict[str, Any]]
MOST_SEEDS = 100
COLUMNS = (  # of table.csv
    *("name", "model", "effort", "framing", "status", "reason", "split", "n", "groups"),
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_corrected", "test_accuracy"),
    *("macro_f1", "log_loss", "ece"),
    *("refused_own", "refused_unknown", "latency_ms", "throughput", "bytes", "macs"),
    *("parameters", "passes", "seconds", "seconds_cold", "epochs", "on_front"),
)


def compare(
    data: str | os.PathLike[str] | Dataset,
    models: Sequence[str],
    *,
    recipe: Recipe = "probe",
    efforts: Sequence[str] = (),
    framings: Sequence[str] = (),
    seeds: int = 1,
    seconds: float | None = None,
    out: str | os.PathLike[str] | None = None,
    task: Task | None = None,
    on_bad: OnBad | None = None,
    threads: int | None = None,
    lang: Lang = "en",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train several networks on the same images, splits and folds, and put them into one table.

    Groups, which decide splits and folds, are found once, by the embedded network, and shared.

    Args:
        data: as for `train`.
        models: names of networks, or `timm:NAME`. Nothing is downloaded: one whose weights are not
            on this machine is a row that says so.
        recipe: "probe", compared by their accuracy out of fold; or "finetune", by that on the test
            split.
        efforts, framings: of `train`: each network is trained at each of them.
        seeds: how many trainings of each; a figure is then their mean.
        seconds: that a training may take. As many epochs of fine-tuning as fit, by the time that a
            step takes, are done; a probe that is not finished is stopped, and its row says so.
        out: the folder; by default compare/NAME. What is finished there is not done again.
        task, on_bad: as for `train`.
        threads: cores to use; all by default.
        lang: of the report: "en" or "zh".
        progress: is informed of how far it is; by default bars in a terminal or a notebook.

    Returns:
        What comparison.json holds: settings, data, rows, one of each candidate (status, accuracy
        with its interval, calibration, refusals, speed, size, cost); pairs, their differences;
        best, the one that was right most often, its accuracy corrected for being the best of many,
        and those that cannot be told from it; choice, the fastest of these; said, the result in
        sentences; apart, images that the best alone has right, and its rival.

    Raises:
        UsageError: fewer than two candidates, one twice, a name that does not exist; another
            comparison in `out`.
        DataError: the data cannot be learnt from.
        FoveateError: the disk is full. What is finished stays.
    """
    if recipe not in SPLIT:
        raise UsageError(f"no recipe is compared as {recipe!r}; expected {', '.join(SPLIT)}")
    lists = {"models": models, "efforts": efforts, "framings": framings}
    for name, values in lists.items():
        listed = isinstance(values, Sequence) and not isinstance(values, str)
        if not listed or not all(isinstance(value, str) for value in values):
            raise UsageError(f"{name} is a list of names, not {shown(values)}")
    seeds = whole_number("seeds", seeds, 1, MOST_SEEDS)
    limit = as_number(seconds)
    if seconds is not None and (limit is None or not 0 < limit < float("inf")):
        raise UsageError(f"seconds is a number above 0, not {shown(seconds)}")
    check_policy(on_bad)
    check_lang(lang)
    threads = cores_to_use(threads)
    asked = candidates_of(models, recipe, efforts, framings)
    path = None if out is None else checked_path("out is the path of a folder", out)
    dataset = learnable(as_dataset(data, task))
    check_trainable(dataset)
    settings = {
        "data": dataset.name,
        "fingerprint": dataset_fingerprint(dataset),
        "task": dataset.task,
        "models": list(dict.fromkeys(one.model for one in asked)),
        "recipe": recipe,
        "efforts": list(efforts),
        "framings": list(framings),
        "seeds": seeds,
        "seconds": limit,
        "on_bad": on_bad,
    }
    path = path or Path("compare") / next(numbered(dataset.name)).name
    check_place(path / REPORT)
    with bars(progress) as shown_to, Folder.opened(path, settings) as folder:
        found = folder.result()
        if found is None or any(
            may_be_tried(row, one, recipe) for row, one in paired(found, asked)
        ):
            work = Work(folder, dataset, recipe, on_bad, threads, shown_to)
            found = work.done(asked)
            write_json(path / RESULT, found)
        write_table(path / TABLE, found["rows"])
        write_comparison(path / REPORT, found, dataset, lang, threads, shown_to)
    return found | {"folder": str(path)}


def paired(found: dict[str, Any], asked: list[Candidate]) -> list[tuple[dict[str, Any], Candidate]]:
    by_name = {candidate.name: candidate for candidate in asked}
    return [(row, by_name[row["name"]]) for row in found["rows"]]


def may_be_tried(row: dict[str, Any], candidate: Candidate, recipe: str) -> bool:
    """Whether a candidate that was not trained could be now."""
    if row["status"] in (DONE, OVER_BUDGET):
        return False
    return row["status"] == FAILED or obstacle(candidate, recipe) is None


class Work:
    """The trainings of a comparison, and what follows from them.

    Args:
        folder: of it.
        dataset: that all learn from.
        recipe, on_bad, threads, progress: as for `compare`.
    """

    def __init__(
        self,
        folder: Folder,
        dataset: Dataset,
        recipe: Recipe,
        on_bad: OnBad | None,
        threads: int,
        progress: Progress,
    ):
        self.folder, self.dataset, self.recipe = folder, dataset, recipe
        self.on_bad, self.threads, self.progress = on_bad, threads, progress
        self.seeds, self.seconds = folder.settings["seeds"], folder.settings["seconds"]

    def done(self, asked: list[Candidate]) -> dict[str, Any]:
        """Train each candidate, and judge them."""
        grouping: Grouping | None = None
        runs: dict[str, list[Path]] = {}
        rows: Rows = []
        failures: list[Exception] = []
        for number, candidate in enumerate(asked, 1):
            self.progress.say(f"{number} of {len(asked)}: {candidate.name}")
            hindered = obstacle(candidate, self.recipe)
            if hindered is None:
                grouping = grouping or find_groups_alike(self.dataset, self.threads, self.progress)
                try:
                    runs[candidate.name] = self.trained(candidate, grouping)
                except OverBudgetError as error:
                    hindered = OVER_BUDGET, str(error)
                except (UsageError, ArtefactError, MissingExtraError) as error:
                    hindered = FAILED, str(error)
                    failures.append(error)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    hindered = TOO_LARGE, "memory ran out while it was trained"
            if hindered is None:
                rows.append(row_of(candidate, self.recipe, runs[candidate.name]))
            else:
                self.progress.say(f"{candidate.name}: {hindered[0]}: {hindered[1]}")
                rows.append(without_figures(candidate, *hindered))
        if not runs and failures:  # all failed: the reason is not in the networks
            raise failures[0]
        return self.judged(rows, runs)

    def trained(self, candidate: Candidate, grouping: Grouping) -> list[Path]:
        """The runs of a candidate, one of each seed; those that are finished are not done again."""
        settings: dict[str, Any] = {}
        if self.recipe == "finetune" and self.seconds is not None:
            settings["epochs"] = self.epochs_of(candidate, grouping)
        typed = {"recipe": self.recipe} | candidate.asked | settings
        words = [f"--{key} {value}" for key, value in typed.items()]
        runs = []
        for seed in range(self.seeds):
            run = self.folder.run(candidate, seed)
            limit = None if self.recipe == "finetune" else self.seconds
            train(
                self.dataset,
                recipe=self.recipe,
                **candidate.asked,
                **settings,
                out=run,
                resume=run.is_dir(),
                seed=seed,
                groups=grouping,
                on_bad=self.on_bad,
                threads=self.threads,
                progress=Deadline(self.progress, limit),
                command=" ".join(["train", quote(self.dataset.name), *words, f"--seed {seed}"]),
            )
            runs.append(run)
        return runs

    def epochs_of(self, candidate: Candidate, grouping: Grouping) -> int:
        """How many epochs fit into the budget; decided once, so that a training can be resumed.

        Raises:
            OverBudgetError: not one does.
        """
        known = self.folder.epochs()
        if candidate.name not in known:
            each, most = measure_epoch(
                self.dataset,
                candidate.model,
                framing=cast(Any, candidate.framing or "auto"),
                groups=grouping,
                on_bad=self.on_bad,
                threads=self.threads,
                progress=self.progress,
            )
            if each > self.seconds:
                raise OverBudgetError(f"an epoch takes about {each:.0f} s")
            known |= {candidate.name: min(most, int(self.seconds / each))}
            self.folder.keep_epochs(known)
        return known[candidate.name]

    def judged(self, rows: Rows, runs: dict[str, list[Path]]) -> dict[str, Any]:
        """The result, from the rows and the runs."""
        speeds = (
            measure_speed(
                {name: of[0] for name, of in runs.items()},
                self.some_images(),
                self.threads,
                self.progress,
            )
            if runs
            else {}
        )
        for row in rows:
            if row["status"] == DONE:
                row |= speeds[row["name"]]
                row["seconds_cold"] = row["seconds"] + row["cached"] / row["throughput"]
        split = SPLIT[self.recipe]
        each: dict[str, Judged] = {
            name: joined([judged_of(run, (split,), seed) for seed, run in enumerate(of)])
            for name, of in runs.items()
        }
        found: dict[str, Any] = {
            "settings": self.folder.settings,
            "environment": environment(),
            "split": split,
            "rows": rows,
            "judged": 0,
            "pairs": [],
            "best": None,
            "choice": None,
            "apart": None,
            "curves": curves_of({name: of[0] for name, of in runs.items()}),
        }
        shared = in_common(list(each.values())) if each else []
        if shared and len(shared[0].keys):
            self.progress.begin("differences", len(each) * (len(each) - 1) // 2)
            found |= verdict(rows, list(each), shared, self.progress.advance)
        return found | {"said": [one.striptags() for one in summary(found, Texts("en"))]}

    def some_images(self) -> list[bytes]:
        """The bytes of a few images, spread over the set."""
        found = []
        for row in np.linspace(0, len(self.dataset) - 1, TOGETHER).astype(int).tolist():
            try:
                found.append(self.dataset.read(row))
            except ImageError:  # it is unreadable in every run
                continue
        return found


def is_out_of_memory(error: BaseException) -> bool:
    from foveate.training import memory

    return memory.is_out_of_memory(error) or "bad_alloc" in str(error)


def verdict(
    rows: Rows, names: list[str], shared: list[Judged], advance: Callable[[], None]
) -> dict[str, Any]:
    """Pairs, the best, the choice, and the images on which the best and its rival differ; rows get
    `on_front`, and the best one `accuracy_corrected`.

    Args:
        rows: all, by whose names the others go.
        names: of those that are done.
        shared: what each of these made of the same images.
        advance: called after each pair.
    """
    by_name = {row["name"]: row for row in rows}
    done = [by_name[name] for name in names]
    accuracies = [float(one.right.mean()) for one in shared]
    for row, there in zip(
        done, front(accuracies, [row["latency_ms"] for row in done]), strict=True
    ):
        row["on_front"] = there
    pairs = differences(names, shared, advance)
    at, correction = best_of(shared)
    row = by_name[names[at]]
    best = {"name": names[at], "correction": correction, "of": len(names)}
    for key in ("accuracy", "accuracy_ci95"):
        best[key] = less(row[key], correction)
    row["accuracy_corrected"] = best["accuracy"]
    rivals = rivals_of(names[at], pairs)
    best["rivals"] = rivals
    alike = [row, *(by_name[name] for name in rivals)]
    choice = min(alike, key=lambda row: row["latency_ms"])
    others = [i for i in range(len(names)) if i != at]
    found = {
        "judged": shared[0].images,
        "pairs": pairs,
        "best": best,
        "choice": {"name": choice["name"], "latency_ms": choice["latency_ms"]},
    }
    if others:
        second = max(others, key=lambda i: accuracies[i])
        found["apart"] = apart(names[at], shared[at], names[second], shared[second])
    return found


def less(value: Any, correction: float) -> Any:
    """A share, or both ends of an interval, with a correction taken off."""
    if isinstance(value, list):
        return [less(end, correction) for end in value]
    return None if value is None else max(0.0, value - correction)


def write_table(path: Path, rows: Rows) -> None:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        low, high = row.get("accuracy_ci95") or (None, None)
        test = row.get("test", {}).get("accuracy")
        more = {"accuracy_low": low, "accuracy_high": high, "test_accuracy": test}
        writer.writerow(row | more)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
