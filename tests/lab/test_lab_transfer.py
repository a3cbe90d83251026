"""The three steps of transfer learning."""

import torch

from foveate.lab.transfer import features, three_steps


def test_the_head_alone_learns_and_reads_what_is_computed_once() -> None:
    network = three_steps(3)
    learns = [name for name, p in network.named_parameters() if p.requires_grad]
    assert all(network.get_parameter(name) in set(network.head.parameters()) for name in learns)
    assert len(learns) == len(list(network.head.parameters())) == 2

    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network.head(features(network, x)), network.eval()(x), atol=1e-6)
