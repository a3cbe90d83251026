"""Runs: the folder that one training leaves. Never overwritten, never mixed with another."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from foveate.arguments import option
from foveate.errors import ArtefactError, UsageError, quoted
from foveate.machine import environment
from foveate.storage import disk_errors, encode, read_object, unreadable, write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


PROBABILITIES = "probabilities.safetensors"
LONGEST = 200  # bytes of a run's name: systems allow 255, and a number follows


class Run:
    """A run's folder.

    config.json    what was asked, resolved        metrics.json     how good it is; written last
    env.json       machine and versions            predictions.jsonl  each evaluated image
    data.json      classes, splits by file         classifier/      what to keep
    history.jsonl  one line per epoch, or penalty  log.txt          messages of the run
    checkpoints/   until it has ended              plan.json        which layers learn, at which
                   rate                            review.json      labels that look wrong
    report.html    all of this for people  confusion.png    and reliability.png, for slides
    probabilities.safetensors  all classes' probabilities of each line of predictions.jsonl
    corrections.csv  the table of labels that was applied
    """

    def __init__(self, folder: Path, fresh: bool):
        self.folder = folder
        self.fresh = fresh  # made by this process

    @classmethod
    def open(cls, out: Path | None, name: str, config: dict[str, Any], resume: bool) -> "Run":
        """Make a new folder, or go on in one that was interrupted.

        Args:
            out: the folder; by default runs/NAME, or runs/NAME-2 ... if that is taken.
            config: what was asked; a resumed run must ask the same, but for the data's name: its
                fingerprint says whether they are the same.
            resume: go on in `out`.

        Raises:
            UsageError: the folder exists and resume is off; resume with other settings.
            ArtefactError: resume where there is no run.
        """
        data_print = str(config.get("fingerprint", ""))
        folder = cls.resumed(out, name, data_print) if resume else out or unused(name)
        if resume:
            before, now = settings_of(folder), flat(config)
            differing = sorted(
                key for key in {*now, *before} - {"data"} if now.get(key) != before.get(key)
            )
            if differing:
                was = ", ".join(
                    f"{key} {before.get(key)!r}, now {now.get(key)!r}"
                    for key in differing
                    if key != "fingerprint"
                )
                others = ["other data: an image, a label, a split or a group is another one"]
                others = (others if "fingerprint" in differing else []) + (
                    [f"other settings ({was})"] if was else []
                )
                raise UsageError(
                    f"{quoted(folder)} was begun with {', and '.join(others)}; repeat them, or "
                    f"choose another {option('out')}"
                )
            return cls(folder, fresh=False)
        with disk_errors(folder):
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UsageError(
                    f"{quoted(folder)} would lie below a file; choose another {option('out')}"
                ) from error
            try:
                folder.mkdir()
            except FileExistsError as error:
                raise UsageError(
                    f"{quoted(folder)} exists; choose another {option('out')}, or "
                    f"{option('resume', True)} to go on with it"
                ) from error
        run = cls(folder, fresh=True)
        with run.kept_if_whole():
            run.write("config.json", config)
            run.write("env.json", environment())
        return run

    @classmethod
    def resumed(cls, out: Path | None, name: str, fingerprint: str) -> Path:
        """The folder that `open` would resume: `out`, the youngest of this name, or, where the
        data's folder was renamed since, the youngest of the same data."""
        return out or last(name, fingerprint)

    @property
    def finished(self) -> bool:
        return (self.folder / "metrics.json").is_file() and (
            self.folder / "classifier" / "card.json"
        ).is_file()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @contextlib.contextmanager
    def kept_if_whole(self) -> Iterator[None]:
        """Remove the folder again if what follows fails or is interrupted: what took time is in the
        cache.

        A folder with a checkpoint stays: the training can go on from there.
        """
        try:
            yield
        except BaseException:
            if self.fresh and not any(self.checkpoints.glob("epoch-*")):
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a training that is finished: a finished run is never resumed,
        and they are several times as large as all else."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out of this folder; a process that was killed holds no lock.

        Raises:
            UsageError: another process does.
        """
        if fcntl is None:  # Windows
            yield
            return
        with disk_errors(self.folder), (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"another process is training in {quoted(self.folder)}; wait, or choose "
                    f"another {option('out')}"
                ) from error
            yield

    def write(self, name: str, value: Any) -> None:
        write_json(self.folder / name, value)

    def write_lines(self, name: str, values: list[dict[str, Any]]) -> None:
        """One JSON value a line, the file written anew."""
        with disk_errors(self.folder / name):
            text = "".join(encode(value) + "\n" for value in values)
            (self.folder / name).write_text(text, encoding="utf-8")

    def write_arrays(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Arrays by their names, as safetensors."""
        with disk_errors(self.folder / name):
            whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
            (self.folder / name).write_bytes(save(whole))

    def keep_table(self, table: bytes | None) -> None:
        """Keep the corrections that were applied; None is none."""
        if table is not None:
            with disk_errors(self.folder):
                (self.folder / "corrections.csv").write_bytes(table)

    def log(self, sentence: str) -> None:
        with (
            disk_errors(self.folder),
            (self.folder / "log.txt").open("a", encoding="utf-8", errors="replace") as file,
        ):
            file.write(sentence + "\n")


def flat(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their whole names.

    >>> flat({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= (
            flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
        )
    return found


def unused(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that does not exist."""
    return next(folder for folder in numbered(name) if not folder.exists())


def last(name: str, fingerprint: str = "") -> Path:
    """The youngest of runs/NAME, runs/NAME-2 ...; or of all that have this fingerprint, if that one
    has another. ArtefactError when there is none."""
    taken = list(takewhile(Path.exists, numbered(name)))
    if taken and (not fingerprint or fingerdata_print(taken[-1]) in (fingerprint, "")):
        return taken[-1]
    others = [run for run in Path("runs").glob("*") if fingerdata_print(run) == fingerprint != ""]
    if others:
        return max(others, key=lambda run: ((run / "config.json").stat().st_mtime, run))
    if taken:
        return taken[-1]
    raise ArtefactError(
        f"there is no run {quoted(unused(name))} to resume; leave {option('resume', True)} out"
    )


def settings_of(run: Path) -> dict[str, Any]:
    """What a run was asked, by whole names; ArtefactError if its config.json is not one."""
    path = run / "config.json"
    try:
        return flat(read_json(path))
    except RecursionError as error:
        raise unreadable(path, error) from error


def fingerdata_print(run: Path) -> str:
    """Of the data that a run was asked to learn from; "" where that is not known."""
    try:
        return str(settings_of(run).get("fingerprint", ""))
    except ArtefactError:
        return ""


def numbered(name: str) -> Iterator[Path]:
    """runs/NAME, runs/NAME-2, runs/NAME-3 ... with what is odd in a file name replaced, and cut to
    what any system allows."""
    plain = (
        re.sub(r"[^\w.-]+", "-", name).encode("utf-8", "ignore")[:LONGEST].decode(errors="ignore")
    )
    base = Path("runs") / (plain.strip("-.") or "run")
    yield base
    yield from (base.with_name(f"{base.name}-{n}") for n in count(2))


def read_json(path: Path, form: Any = None) -> dict[str, Any]:
    """A JSON object from a run.

    Args:
        path: of the file.
        form: of the object, as `storage.check` takes it; any by default.

    Raises:
        ArtefactError: it is missing, may not be read, or is of another form.
    """
    if is_absent(path):
        raise ArtefactError(f"{quoted(path.parent)} is no run (no {path.name} there)")
    return read_object(path, {} if form is None else form)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a run's file that has one a line; ArtefactError if it is none."""
    try:
        lines = path.read_text(encoding="utf-8").strip().split("\n")
        # in half the time of line by line
        rows = json.loads("[" + ",".join(line for line in lines if line) + "]")
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not all(isinstance(row, dict) for row in rows):
        raise unreadable(path, ValueError("expected a JSON object a line"))
    return rows


def is_absent(path: Path) -> bool:
    try:
        return not path.exists()
    except PermissionError:  # it may be there: reading it has the reason
        return False
    except (OSError, ValueError):  # a name that is too long, or impossible
        return True


FIGURES: dict[Any, Any] = {  # of one split in metrics.json: what is read back
    "n": int,
    "accuracy": (None, float),  # None where nothing could be judged
    "accuracy_ci95": (None, [float]),
    "groups?": int,
    "macro_f1": (None, float),
    "ece": (None, float),
    "per_class": {str: {"precision": float, "recall": float, "f1": float, "support": int}},
    "confusion?": [[int]],
    "balanced_accuracy?": (None, float),
    "mean_average_precision?": (None, float),
}
SPLIT = FIGURES | {
    "why?": str,
    "copies?": {"n": int},
    "without_copies?": (None, FIGURES),
    "among_copies?": {"accuracy": float},
}
SPLITS = ("test", "out_of_fold", "validation")
METRICS = {
    "model": str,
    "recipe": str,
    "seconds": {"total": float, str: float},
    "bad": {str: str},
    "notes": [str],
    **{f"{split}?": SPLIT for split in SPLITS},
}


HEX = 16  # digits of an image's SHA-256 that a run's files have: enough to find it again
DATA = {"files": {str: {"split": str, "sha256?": str}}}


class Seen(NamedTuple):
    """The images of a run, by the first HEX digits of their SHA-256.

    Args:
        learnt: the names of those that it learnt from, or chose by: all but the test split's, and
            of that those which are copies of others.
        judged: the others, which it was judged on.
    """

    learnt: dict[str, str]
    judged: set[str]


def read_seen(run: Path) -> Seen:
    """The images of a run; none where data.json is missing, or of a version without hashes.

    Raises:
        ArtefactError: data.json is damaged.
    """
    path = run / "data.json"
    if is_absent(path):
        return Seen({}, set())
    files = read_json(path, DATA)["files"]
    copies: list[str] = []
    if not is_absent(run / "metrics.json"):
        test = read_json(run / "metrics.json", {"test?": {"copies?": {"files": [str]}}}).get("test")
        copies = (test or {}).get("copies", {}).get("files", [])
    copied, learnt, judged = {*copies}, {}, set()
    for name, file in files.items():
        if "sha256" not in file:
            continue
        if file["split"] != "test" or name in copied:
            learnt[file["sha256"]] = name
        else:
            judged.add(file["sha256"])
    return Seen(learnt, judged - learnt.keys())


def read_metrics(run: Path, classes: int) -> dict[str, Any]:
    """A run's metrics.json, checked; ArtefactError if it is not what a run writes.

    Args:
        run: its folder.
        classes: how many its classifier has.
    """
    path = run / "metrics.json"
    found = read_json(path, METRICS)
    there = [found[split] for split in SPLITS if split in found]
    parts = [split["without_copies"] for split in there if split.get("without_copies")]
    if not there or not all(is_whole(split, classes) for split in [*there, *parts]):
        raise unreadable(path, ValueError("its splits are not complete"))
    return found


def is_whole(split: dict[str, Any], classes: int) -> bool:
    """Whether the figures of a split go together, so that they can be shown."""
    first = split.get("balanced_accuracy", split.get("mean_average_precision"))
    if split["accuracy"] is None:
        return "why" in split
    return (
        None not in (first, split["macro_f1"], split["ece"])
        and (split["accuracy_ci95"] is None or len(split["accuracy_ci95"]) == 2)
        and ("copies" in split) == ("without_copies" in split)
        and ("without_copies" not in split or "why" in split)
        and [len(row) for row in split.get("confusion", [[0] * classes] * classes)]
        == [classes] * classes
    )
