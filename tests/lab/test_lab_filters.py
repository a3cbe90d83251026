"""What a filter is called, on filters of which it is known."""

import torch

from foveate.lab.filters import criteria

EDGE = torch.tensor([[1.0, 0.0, -1.0]] * 3)
GREY, RED_GREEN = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, 0.0])


def filters(*made: torch.Tensor) -> torch.Tensor:
    return torch.stack(made)


def test_a_product_is_one_pattern_in_one_colour() -> None:
    edge = GREY[:, None, None] * EDGE
    mixed = torch.stack([EDGE, EDGE.T, torch.eye(3)])  # another pattern in each colour
    share = criteria(filters(edge, mixed))["share"]
    assert torch.isclose(share[0], torch.tensor(1.0)) and share[1] < 0.8


def test_colours_of_both_signs_are_opponent() -> None:
    made = [colour[:, None, None] * EDGE for colour in (GREY, -GREY, RED_GREEN)]
    assert criteria(filters(*made))["opponent"].tolist() == [False, False, True]


def test_an_edge_has_a_direction_and_a_blur_has_none() -> None:
    blur, spot = torch.ones(3, 3), torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    made = [GREY[:, None, None] * pattern for pattern in (EDGE, EDGE.T, spot)]
    assert criteria(filters(*made))["oriented"].tolist() == [True, True, False]
    faint = filters(made[0], 1e-5 * GREY[:, None, None] * blur)
    assert criteria(faint)["working"].tolist() == [True, False]
