"""The loss of several labels an image, against one written out; that of classes is in
test_trainer.py."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from foveate.training.losses import Objective, share_right


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_sum_of_each_labels_own(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4), torch.randint(0, 2, (6, 4))
    found, cost = Objective("multilabel", smoothing).loss(logits, targets)
    p, y = torch.sigmoid(logits), targets * (1 - smoothing) + smoothing / 2
    torch.testing.assert_close(cost, -(y * p.log() + (1 - y) * (1 - p).log()).sum())
    assert torch.equal(found, logits)


def test_mixed_labels_and_auxiliary_classifiers() -> None:
    outputs = namedtuple("outputs", "logits first")(torch.zeros(1, 2), torch.zeros(1, 2))
    _, cost = Objective("multilabel", auxiliary=0.5).loss(outputs, torch.tensor([[0.3, 1.0]]))
    assert float(cost) == pytest.approx(1.5 * 2 * np.log(2))


def test_right_is_every_label() -> None:
    logits, labels = (
        torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]),
        torch.tensor([[1, 0], [1, 0], [0, 0]]),
    )
    assert Objective("multilabel").right(logits, labels) == 2
    assert share_right(logits.numpy(), labels.numpy()) == pytest.approx(2 / 3)
    # a tie goes to the first
    assert share_right(logits.numpy(), np.array([0, 1, 1])) == pytest.approx(1 / 3)
    assert (
        Objective("multiclass").right(logits, torch.tensor([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]]))
        == 2
    )
