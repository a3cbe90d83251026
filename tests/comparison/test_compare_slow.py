"""Two networks end to end, by either recipe; and a signal in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.comparison import compare
from foveate.progress import Silent

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_features")]

NETWORKS = ["efficientnet_lite0", "efficientnet_lite1"]


def data_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    runs = [Path(found["folder"]) / "runs" / row["runs"][0] for row in found["rows"]]
    return [json.loads((run / "data.json").read_text()) for run in runs]


def test_two_networks_have_the_same_folds(images: Path, tmp_path: Path) -> None:
    found = compare(images, NETWORKS, out=tmp_path / "out", seeds=2, progress=Silent())
    first, second = data_of(found)
    assert first["files"] == second["files"] and first["links"] == second["links"]
    assert [row["status"] for row in found["rows"]] == ["done", "done"]
    assert found["judged"] == 72 and found["pairs"][0]["n"] == 2 * 72
    assert found["pairs"][0]["groups"] <= 72
    small, large = found["rows"]
    assert small["macs"] < large["macs"] and small["bytes"] < large["bytes"]
    for row in found["rows"]:
        by_seed = row["accuracy_by_seed"]
        assert len(by_seed) == 2 and row["accuracy"] == pytest.approx(sum(by_seed) / 2)
        assert row["test"]["n"] == 24


def test_fine_tuning_within_a_budget(draw_folder: Callable[..., Path], tmp_path: Path) -> None:
    few = draw_folder(tmp_path / "few", 12, kinds=("blob", "stripes"))
    asked: dict[str, Any] = {"recipe": "finetune", "progress": Silent()}
    models = [NETWORKS[0], "lenet5"]
    found = compare(few, models, out=tmp_path / "out", seconds=600, **asked)
    epochs = json.loads((tmp_path / "out/epochs.json").read_text())
    row, other = found["rows"]
    assert epochs == {NETWORKS[0]: row["epochs"]} and 1 <= row["epochs"] <= 5
    assert (row["status"], row["split"], other["status"]) == ("done", "test", "no weights")
    (data,) = data_of(found | {"rows": [row]})
    splits = [one["split"] for one in data["files"].values()]
    assert found["judged"] == splits.count("test") > 0
    assert {curve["along"] for curve in found["curves"].values()} == {"epoch"}


def test_a_signal_between_two_networks(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", str(images), "--models", ",".join(NETWORKS), "--out", str(out)]
    command = [sys.executable, "-m", "foveate", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = out / "runs/efficientnet_lite0/metrics.json"
    while not first.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "repeat the command" in said
    assert not (out / "comparison.json").exists()
    finished = first.stat().st_mtime_ns
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == finished
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"done"}
