"""`foveate verify`: what a run recorded is computed again, and damage of any file is found."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from refusals import refused
from safetensors.numpy import load_file, save_file

from foveate.errors import ArtefactError
from foveate.recomputation import verify_run
from foveate.recomputation.comparison import Verification


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged; its features are not in this test's cache."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def known(run: Path, backbone_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the features that it was solved on."""
    monkeypatch.setenv("FOVEATE_CACHE", str(backbone_cache))
    return run


def change(path: Path, edit: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def vouched_for(run: Path, file: str) -> None:
    """As who changes a file of the classifier would: the card has its new hash."""
    digest = hashlib.sha256((run / "classifier" / file).read_bytes()).hexdigest()
    change(run / "classifier/card.json", lambda card: card["files"].update({file: digest}))


def places(found: Verification) -> list[str]:
    return [f"{one.file} {one.where}" for one in found.differences]


def test_a_run_is_computed_again_to_the_bit(known: Path) -> None:
    found = verify_run(known)
    assert not found.differences and found.same_kind and found.largest < 1e-5
    assert {"predictions.jsonl", "review.json", "history.jsonl"} <= {*found.verified}
    assert "classifier/model.safetensors: tensors" in found.verified
    assert {"metrics.json seen.area", "metrics.json seconds"} <= {*found.unverified}


def test_small_changes_are_found_from_features(known: Path) -> None:
    """In one run, since each is solved anew."""

    def nudge(metrics: dict[str, Any]) -> None:
        metrics["test"]["log_loss"] += 1e-9
        metrics["out_of_fold"]["accuracy_ci95"][0] += 1e-9
        metrics["seen"]["tried"][0]["log_loss"] += 1e-4

    change(known / "metrics.json", nudge)
    head = load_file(known / "classifier/model.safetensors")
    head["linear.weight"][1, 7] += np.float32(1e-3)
    save_file(head, known / "classifier/model.safetensors")
    vouched_for(known, "model.safetensors")
    change(known / "data.json", lambda data: data["groups"].append({"files": []}))
    change(known / "review.json", lambda review: review["suspects"].append({}))
    found = places(verify_run(known))
    for place in ("test log_loss", "out_of_fold accuracy_ci95[0]", "tried[0].log_loss"):
        assert any(place in one for one in found), place
    for place in ("linear.weight[1, 7]", "data.json groups", "review.json"):
        assert any(place in one for one in found), place


def test_another_machine_may_differ_in_the_last_digits(known: Path) -> None:
    change(known / "env.json", lambda env: env.update(cpu="another"))
    change(
        known / "classifier/card.json",
        lambda card: card["provenance"]["environment"].update(cpu="another"),
    )
    change(
        known / "metrics.json", lambda m: m["test"].update(log_loss=m["test"]["log_loss"] + 1e-6)
    )
    (known / "report.html").unlink()  # of other metrics
    found = verify_run(known)
    assert not found.same_kind and not found.differences and found.largest >= 9e-7
    change(known / "metrics.json", lambda m: m["test"].update(log_loss=m["test"]["log_loss"] + 0.1))
    assert any("log_loss" in place for place in places(verify_run(known)))


DAMAGES: dict[str, tuple[str, Callable[[str], str]]] = {
    "a count": ("metrics.json", lambda text: text.replace('"n": 24', '"n": 25')),
    "cut": ("metrics.json", lambda text: text[:-40]),
    "a label": ("predictions.jsonl", lambda text: text.replace('"blob"', '"noise"', 1)),
    "a line": ("predictions.jsonl", lambda text: text.split("\n", 1)[1]),
    "a hash": ("data.json", lambda text: text.replace('"sha256": "', '"sha256": "0', 1)),
    "a split": ("data.json", lambda text: text.replace('"split": "test"', '"split": "train"', 1)),
    "a penalty": ("history.jsonl", lambda text: text.replace('"log_loss": ', '"log_loss": -', 1)),
    "a seed": ("config.json", lambda text: text.replace('"seed": 0', '"seed": 1')),
    "a version": ("env.json", lambda text: text.replace('"python": "', '"python": "9')),
    "the page": ("report.html", lambda text: text.replace("<b>", "<b>1")),
    "a class": ("classifier/card.json", lambda text: text.replace('"blob"', '"blot"', 1)),
    "a temperature": (
        "classifier/card.json",
        lambda t: t.replace('"temperature": ', '"temperature": 1'),
    ),
    "a sentence": ("classifier/README.md", lambda text: text.replace("%", "", 1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_any_file_is_found(run: Path, damage: str) -> None:
    file, edit = DAMAGES[damage]
    before = (run / file).read_text()
    (run / file).write_text(edit(before))
    assert (run / file).read_text() != before
    assert verify_run(run).differences


@pytest.mark.parametrize(
    "file", ["classifier/model.safetensors", "classifier/engine.bin", "confusion.png"]
)
def test_a_changed_byte_is_found(run: Path, file: str) -> None:
    data = bytearray((run / file).read_bytes())
    data[len(data) // 2] ^= 1
    (run / file).write_bytes(data)
    assert any(Path(file).name in f"{one}" for one in verify_run(run).differences)


def test_without_features_it_says_what_is_not_known(run: Path) -> None:
    found = verify_run(run)
    assert not found.differences
    assert any("cache" in why for why in found.unverified.values())
    assert "predictions.jsonl" not in found.verified


def test_verify_from_the_command_line(run: Path, tmp_path: Path) -> None:
    done = foveate("verify", run, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["same"] and not said["differences"] and said["verified"]
    change(run / "metrics.json", lambda metrics: metrics["test"].update(accuracy=0.125))
    done = foveate("verify", run)
    assert done.returncode == 1 and "test accuracy" in done.stdout and "0.125" in done.stdout
    assert foveate("verify", tmp_path).returncode == 5


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with refused(ArtefactError, "metrics.json"):
        verify_run(tmp_path)
