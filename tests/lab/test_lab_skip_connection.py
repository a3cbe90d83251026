"""Of the experiment on skip connections, what is exact."""

import pytest
import torch

from foveate.lab.skip_connection import direction, sides
from foveate.models.resnet_cifar import Residual


def test_same_convolutions_keep_the_side_of_a_map() -> None:
    assert sides(padding=1) == [32] * 9 + [16] * 9 + [8] * 9
    assert sides(padding=0) == [28, 24, 20, 16, 12, 8, 4]  # four pixels less in each block


def test_a_sum_needs_equal_shapes() -> None:
    block = Residual(16, 16, stride=1)
    assert block(torch.zeros(2, 16, 32, 32)).shape == (2, 16, 32, 32)
    block.conv1.padding = block.conv2.padding = (0, 0)
    with pytest.raises(RuntimeError, match="28"):
        block(torch.zeros(2, 16, 32, 32))


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (10, 64)])
def test_a_direction_has_the_norm_of_each_filter(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape) * torch.arange(1.0, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))
    drawn = direction(weight)
    assert drawn.shape == weight.shape
    torch.testing.assert_close(drawn.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
