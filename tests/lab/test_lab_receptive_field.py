"""What the experiment on receptive fields takes for granted."""

import pytest
import torch

import foveate
from foveate.lab.receptive_field import Stack, spread, squared_gradient, theoretical


@pytest.mark.parametrize("depth", [1, 4])
def test_the_gradient_fills_the_theoretical_field_and_no_more(depth: int) -> None:
    stack = Stack(depth, 2, 1)
    for weight in stack.layers.parameters():
        torch.nn.init.ones_(weight)  # no path ends at a ReLU
    seen = squared_gradient(stack, torch.ones(1, 1, 84, 84)) > 0
    assert theoretical(stack, 1) == (2 * depth + 1, 1)
    assert seen[42 - depth : 43 + depth, 42 - depth : 43 + depth].all()
    assert seen.sum() == (2 * depth + 1) ** 2


def test_the_gradient_of_resnet20_stays_in_its_field() -> None:
    network = foveate.build("resnet20", num_classes=2, in_channels=1)
    field, stride = theoretical(network, 1)
    seen = squared_gradient(network, torch.randn(1, 1, 84, 84)) > 0
    assert (field, stride) == (81, 4)
    assert not seen[81:].any() and not seen[:, 81:].any()


def test_spread_is_four_standard_deviations() -> None:
    box = torch.zeros(9, 9)
    box[3:6, 3:6] = 1 / 9  # of variance 2/3 along each side
    assert spread(box.double()) == pytest.approx(4 * (2 / 3) ** 0.5)
