"""Every experiment shows its effect in the quick form, with a seed that the benchmark has not."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from foveate.lab import LABS
from foveate.lab.bench import Bench, run

SEED = 11
LINES = 150  # of an experiment's file: a student reads it from top to bottom
FAST = {"vanishing-gradient", "vgg"}  # the others take more than five seconds


def marked(name: str) -> Any:
    return name if name in FAST else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in LABS])
def test_shows_its_effect(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = LABS[name].module
    found = run(module, Bench(tmp_path, seed=SEED))
    with capsys.disabled():
        print(f"\n{name}: {found['seconds']} s, seed {SEED}")
    assert found["shown"] is not False, found["seen"]
    assert len(found["seen"]) == 3 and all(s.endswith((".", "!")) for s in found["seen"])
    assert found["change"].endswith((".", "?")) and module.QUESTION.endswith("?")
    assert 0 < module.MINUTES[0] <= 2 and module.MINUTES[0] <= module.MINUTES[1]
    for kind in ("png", "svg"):
        assert (tmp_path / f"figure.{kind}").stat().st_size > 5000
    assert json.loads((tmp_path / "findings.json").read_text()) == found
    with (tmp_path / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"]) > 0
    assert not (tmp_path / "measured.json").exists()


@pytest.mark.parametrize("name", LABS)
def test_a_student_reads_it_from_top_to_bottom(name: str) -> None:
    file = Path(str(LABS[name].module.__file__))
    assert len(file.read_text().splitlines()) <= LINES
