"""What the search draws, and on what it is judged."""

import numpy as np
import torch

from foveate.lab.architecture_search import HELD, draw, held_out
from foveate.lab.bench import Bench
from foveate.lab.stages import macs


def test_candidates_are_as_wide_as_the_budget_allows():
    budget = 1_000_000
    plans = [draw(np.random.default_rng(seed), budget, 13, 1, 10) for seed in range(4)]
    assert all(0.85 * budget < macs(plan, 1, 10) <= budget for plan in plans)
    assert len(set(plans)) == 4


def test_the_search_never_sees_a_test_image(tmp_path):
    images = Bench(tmp_path).images("digits", side=8)
    part = held_out(images)
    assert len(part.test_x) == round(HELD * len(images.x))
    assert torch.equal(torch.cat([part.x, part.test_x]), images.x)
    assert torch.equal(torch.cat([part.y, part.test_y]), images.y)
