"""Two networks side by side."""

import torch

from foveate import models
from foveate.models.comparison import Measured, measure, ratios, side_by_side


def measured(name: str) -> Measured:
    with torch.device("meta"):
        return measure(name, models.build(name))


def test_table_fits_and_adds_up() -> None:
    first, second = measured("vgg16"), measured("efficientnet_lite4")
    lines = side_by_side(first, second).splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line.split()[0] for line in lines if line and "|" in line][2:]
    assert rows == [
        "image",
        *"stage stage stage stage stage stage stage stage".split(),
        "head",
        "total",
    ]
    for one in (first, second):
        assert sum(stage.parameters for stage in one.stages) == one.summary.parameters
        assert sum(stage.macs for stage in one.stages) == one.summary.macs
    assert ratios(first, second)["parameters"] == 13_006_568 / 138_357_544


def test_each_network_has_its_own_half() -> None:
    lines = side_by_side(measured("alexnet"), measured("lenet5")).splitlines()
    assert len({line.index("|") for line in lines if "|" in line}) == 1
    assert lines[-1].startswith("lenet5 has 0.00101 times the parameters of alexnet")
