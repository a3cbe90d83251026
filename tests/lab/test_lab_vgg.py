"""What is exact about two 3x3 convolutions and about VGG's table."""

import pytest
import torch
from torch import nn

from foveate.lab.vgg import KINDS, ONE, PAPER, TWO, block, column, network_of
from foveate.models import summarise


@pytest.mark.parametrize("width", [16, 64])
def test_blocks_see_5x5_and_cost_as_the_formula_says(width: int) -> None:
    for kind in KINDS:
        found = summarise(nn.Sequential(*block(kind, width, width)), (width, 12, 12))
        assert found.layers[-1].field == (5, 5) and found.shape == (width, 12, 12)
        taps, layers = (25, 1) if kind == ONE else (18, 2)
        assert found.parameters == taps * width**2 + layers * width
        assert found.macs == taps * width**2 * 12 * 12


@pytest.mark.parametrize("name", PAPER)
def test_columns_have_the_papers_parameters(name: str) -> None:
    with torch.device("meta"):
        network = column(name)
    summary = summarise(network)
    assert abs(summary.parameters / 1e6 - PAPER[name][0]) < 0.7
    assert summary.depth == {"A": 11, "B": 13, "C": 16, "D": 16, "E": 19}[name]
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((1, 1)) == (3 if name == "C" else 0)


def test_without_the_relu_between_two_3x3_are_one_linear_map() -> None:
    first, between, second, _ = block(KINDS[1], 2, 3)
    linear = nn.Sequential(first, between, second)
    x, y, zero = torch.rand(1, 2, 9, 9), torch.rand(1, 2, 9, 9), torch.zeros(1, 2, 9, 9)
    torch.testing.assert_close(linear(x + y), linear(x) + linear(y) - linear(zero))
    assert network_of(TWO, 3, 7)(torch.rand(2, 3, 28, 28)).shape == (2, 7)
