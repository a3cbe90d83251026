"""The folder of a comparison: which settings it is of, and the runs that are finished.

settings.json     what was asked; other settings are refused here, but networks may be added
runs/             a run of each candidate and seed, as `train` leaves it
epochs.json       of a budget of seconds, how many epochs fit for each candidate
comparison.json   the result
table.csv         its rows
report.html       all of it for people
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate.arguments import option
from foveate.comparison.candidates import Candidate
from foveate.errors import ArtefactError, UsageError, quoted
from foveate.runs import Run, is_absent, read_json
from foveate.storage import disk_errors, read_object, write_json

SETTINGS, RESULT, TABLE, EPOCHS = "settings.json", "comparison.json", "table.csv", "epochs.json"
LOCK = ".lock"  # which `Run.alone` makes
FORM = {"settings": dict, "rows": [{"name": str, "status": str, "runs": [str]}], "said": [str]}


class Folder:
    """A comparison's folder, which this process alone writes.

    Args:
        path: of it.
        settings: what was asked.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path, self.settings = path, settings

    @classmethod
    @contextmanager
    def opened(cls, path: Path, settings: dict[str, Any]) -> Iterator["Folder"]:
        """Make it, or go on in it; no other process may meanwhile.

        Raises:
            UsageError: something else is there, or a comparison with other settings; another
                process is at work in it.
        """
        with disk_errors(path):
            there = {file.name for file in path.iterdir()} if path.is_dir() else set()
            if there - {LOCK} and is_absent(path / SETTINGS):
                raise UsageError(
                    f"{quoted(path)} exists and is no comparison; choose another {option('out')}"
                )
            path.mkdir(parents=True, exist_ok=True)
        with Run(path, fresh=False).alone():
            folder = cls(path, settings)
            folder.check()
            write_json(path / SETTINGS, settings)
            yield folder

    def check(self) -> None:
        """UsageError if the folder is of other settings."""
        if is_absent(self.path / SETTINGS):
            return
        before, now = read_json(self.path / SETTINGS), self.settings
        fixed = [key for key in {**before, **now} if key not in ("models", "data")]
        differing = sorted(key for key in fixed if before.get(key) != now.get(key))
        gone = [model for model in before.get("models", ()) if model not in now["models"]]
        if not differing and not gone:
            return
        was = [
            "other data" if key == "fingerprint" else f"{key} {before.get(key)}, now {now.get(key)}"
            for key in differing
        ]
        was += [f"{', '.join(map(str, gone))} too"] if gone else []
        raise UsageError(
            f"{quoted(self.path)} was begun with {' and '.join(was)}; repeat the settings, or "
            f"choose another {option('out')}"
        )

    def run(self, candidate: Candidate, seed: int) -> Path:
        """Where the run of a candidate and a seed is, or will be; what a process that was killed
        left of it before it could be resumed is removed."""
        name = candidate.folder + (f"-seed{seed}" if self.settings["seeds"] > 1 else "")
        path = self.path / "runs" / name
        if path.is_dir() and is_absent(path / "config.json"):
            shutil.rmtree(path)
        return path

    def result(self) -> dict[str, Any] | None:
        """What was found before with these very settings, if it is whole; or None."""
        try:
            found = read_object(self.path / RESULT, FORM)
        except ArtefactError:
            return None
        runs = (self.path / "runs" / run for row in found["rows"] for run in row["runs"])
        whole = all(Run(run, fresh=False).finished for run in runs)
        return found if whole and found["settings"] == self.settings else None

    def epochs(self) -> dict[str, int]:
        """How many epochs fit into the budget, by candidate, as far as that is known."""
        if is_absent(self.path / EPOCHS):
            return {}
        return read_json(self.path / EPOCHS, {str: int})

    def keep_epochs(self, epochs: dict[str, int]) -> None:
        write_json(self.path / EPOCHS, epochs)
