"""What the experiment on dense connectivity takes for granted."""

from pathlib import Path

import numpy as np
import torch

from foveate.lab.bench import Bench
from foveate.lab.dense_connectivity import dense, reading, swap


def test_swap_takes_some_channels_of_another_image() -> None:
    x = torch.arange(12.0).reshape(2, 6)
    found = swap(2, 4, torch.nn.Identity(), (x,))
    assert torch.equal(found[:, 2:4], x.flip(0)[:, 2:4])
    assert torch.equal(found[:, [0, 1, 4, 5]], x[:, [0, 1, 4, 5]])


def test_a_weight_of_nothing_is_not_read(tmp_path: Path) -> None:
    network = dense(4, 3, 10, 1)
    # nn.Module.__getattr__ says Tensor or Module: these are neither to mypy
    layers = list(network.features.denseblock2.values())
    first = layers[0].conv1.in_channels
    torch.nn.init.zeros_(layers[1].conv1.weight[:, :first])  # layer 2 reads layer 1 only
    found = np.array(reading(network, Bench(tmp_path).images(side=8)))
    assert found.shape == (3, 4, 4, 2)  # three layers and what follows, the input and three layers
    assert (found[1, 1, 0] == 0).all() and found[1, 1, 1, 1] != 0
    weights = found[..., 0]
    assert (np.triu(weights, 1) == 0).all() and (weights[:, 0, 0] == 1).all()
