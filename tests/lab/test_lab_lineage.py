"""The chart's networks, sizes and front."""

import pytest

from foveate.catalogue import CATALOGUE
from foveate.lab.bench import Bench
from foveate.lab.lineage import NETWORKS, TOP, cost, front, start


def test_networks_are_in_the_order_of_their_years():
    years = [CATALOGUE[name].year for name in NETWORKS]
    assert years == sorted(years)


@pytest.mark.parametrize(("name", "side"), [("lenet5", 28), ("squeezenet1_1", 32), ("nin", 39)])
def test_images_have_32_pixels_or_what_a_network_reads(name, side, tmp_path):
    images = Bench(tmp_path).images("digits", side=64, most=64)
    network, found = start(name, images)
    assert found == side and network.head is not None
    row = cost(name, images)
    assert row["pixels here"] == side
    assert row["MACs"] == CATALOGUE[name].macs and row["parameters here"] < row["parameters"] * 1.01


def test_front_leaves_out_what_fewer_macs_beat():
    names, macs, tops = "abcd", (1, 2, 3, 4), (50.0, None, 49.0, 70.0)
    rows = [{"network": n, "MACs": m, TOP: t} for n, m, t in zip(names, macs, tops, strict=True)]
    assert front(rows) == "a, d"
