"""The rule's arithmetic, and four networks of the same work."""

import pytest
import torch

from foveate.lab.bench import Bench
from foveate.lab.compound_scaling import LAYERS, RULE, TIMES, WAYS, grown, published, scaled
from foveate.lab.stages import Plan, build, interval, macs
from foveate.models.efficientnet import VARIANTS


def test_the_base_is_what_nothing_is_multiplied_in():
    base = grown(1, 1, 1)
    assert base == Plan((8, 16, 32), (2, 2, 2), 10) and sum(base.layers) == LAYERS
    assert grown(10 / 6, 1, 1).layers == (3, 3, 4)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_multiplies_the_work_by_what_the_rule_says(way):
    depth, width, resolution = WAYS[way](2)
    wanted = RULE if way == "compound" else 2
    assert depth * width**2 * resolution**2 == pytest.approx(wanted)


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_are_of_nearly_the_same_work(way, tmp_path):
    images = Bench(tmp_path).images("digits", side=8)
    base = macs(grown(1, 1, 1), 1, 10)
    assert macs(scaled(way, images), 1, 10) == pytest.approx(TIMES * base, rel=0.1)


def test_macs_by_hand():
    plan = Plan((2, 3, 5), (1, 1, 2), 8, (3, 5, 1))
    by_hand = 64 * 9 * 2 + 16 * 25 * 2 * 3 + 4 * (3 * 5 + 5 * 5) + 5 * 7
    assert macs(plan, 1, 7) == by_hand
    assert build(plan, 1, 7)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_published_networks_grow_near_two_to_the_phi():
    rows = published()
    assert [row["network"] for row in rows] == list(VARIANTS)
    for row in rows[2:]:  # of B1 the layers' rounding is most of what it costs
        assert 0.8 * RULE ** row["phi"] < row["MACs"] / rows[0]["MACs"] < 1.4 * 2 ** row["phi"]


def test_interval_holds_the_difference():
    low, high = interval([1.0, 1.1, 1.2], [0.0, 0.1, 0.2])
    assert low < 1 < high
