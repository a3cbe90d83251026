"""Surgery on any network's ends."""

import pytest
import torch
from torch import nn

from foveate import models
from foveate.models import MODELS
from foveate.models.surgery import drop_head


@pytest.mark.parametrize("name", MODELS)
def test_drop_head_leaves_the_backbone(name: str) -> None:
    with torch.device("meta"):
        network = models.build(name, num_classes=5).eval()
    head = network.head
    before = {id(p) for p in network.parameters()}
    x = torch.zeros(1, 3, 64, 64, device="meta")
    assert drop_head(network) is network
    assert {id(p) for p in network.parameters()} == before - {id(p) for p in head.parameters()}
    assert network(x).shape == network.embed(x).shape == (1, head.in_features)
    assert isinstance(network.head, nn.Identity)


def test_drop_head_then_forward_is_embed() -> None:
    network = drop_head(models.build("efficientnet_lite0", num_classes=5).eval())
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(network(x), network.embed(x))


def test_a_head_that_is_no_part_of_its_network() -> None:
    class Odd(nn.Module):
        @property
        def head(self) -> nn.Module:
            return nn.Linear(1, 1)

    with pytest.raises(AssertionError, match="the head is not a submodule of its network"):
        drop_head(Odd())
