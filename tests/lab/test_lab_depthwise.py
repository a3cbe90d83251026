"""What the experiment on depthwise convolutions takes for granted."""

import pytest
import torch

from foveate.lab.depthwise import CHANNELS, GROUPS, grouped, mobilenet, reach, units


def test_costs_of_mobilenet_are_those_of_the_papers_table_4() -> None:
    whole, *pairs = mobilenet()
    assert round(whole["MACs"] / 1e6) == 569 and round(whole["standard"] / 1e6, -1) == 4870
    assert len(pairs) == 13
    for pair in pairs:
        assert pair["ratio"] == pytest.approx(1 / pair["N"] + 1 / 9, rel=1e-12)


def test_without_a_shuffle_an_output_depends_on_its_own_group_only() -> None:
    own = torch.arange(CHANNELS) // (CHANNELS // GROUPS)
    assert torch.equal(reach(3, shuffle=False), own[:, None] == own)
    assert reach(3, shuffle=True).all()


def test_a_shuffle_costs_no_parameters() -> None:
    with_it, without = (grouped(shuffle, 1, 10).state_dict() for shuffle in (True, False))
    assert {k: v.shape for k, v in with_it.items()} == {k: v.shape for k, v in without.items()}


def test_only_the_shuffle_differs() -> None:
    shuffled, apart = units(1, shuffle=True), units(1, shuffle=False)
    apart.load_state_dict(shuffled.state_dict())
    x = torch.randn(2, CHANNELS, 4, 4)
    assert not torch.allclose(shuffled(x), apart(x))
    for unit in shuffled:
        # nn.Module.__getattr__ says Tensor or Module; it is a convolution
        unit.branch.groups = 1
    assert torch.equal(shuffled(x), apart(x))
