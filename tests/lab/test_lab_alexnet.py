"""What is exact about AlexNet's parameters, and the small network of its shape."""

import torch
from torch import nn

from foveate.lab.alexnet import ACTIVATIONS, SUITED, XAVIER, rank, small, weighted
from foveate.models import alexnet_one_tower


def test_layers_hold_all_parameters_and_have_the_lectures_shapes() -> None:
    with torch.device("meta"):
        layers = weighted(alexnet_one_tower())
    assert sum(row.parameters for row in layers) == 62_378_344
    assert [row.shape[0] for row in layers] == [96, 256, 384, 384, 256, 4096, 4096, 1000]
    assert layers[5].parameters == 9216 * 4096 + 4096


def test_small_network_has_five_convolutions_and_three_linear_layers() -> None:
    for activation, kind in ACTIVATIONS.items():
        torch.manual_seed(0)
        plain = small(activation, XAVIER, 3, 7)
        torch.manual_seed(0)
        scaled = small(activation, SUITED, 3, 7)
        kinds = [type(m) for m in plain if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert kinds == [nn.Conv2d] * 5 + [nn.Linear] * 3
        assert sum(isinstance(m, kind) for m in plain) == 7
        assert plain(torch.rand(2, 3, 28, 28)).shape == (2, 7)
        gain = {"sigmoid": 4, "tanh": 5 / 3, "ReLU": 2**0.5}[activation]
        torch.testing.assert_close(scaled[0].weight, plain[0].weight * gain)


def test_sooner_at_the_target_ranks_first_then_the_smaller_error() -> None:
    assert rank([50, 9]) < rank([50, 20, 9]) < rank([50, 20, 11]) < rank([12]) < rank([50, 90])
