"""The loss, and how often the answers were right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from foveate.data.dataset import Task


@dataclass(frozen=True)
class Objective:
    """Cross-entropy; of several labels an image the sum of each label's own.

    Args:
        task: "multiclass" or "multilabel".
        label_smoothing: share of each label that is spread: over all classes, or over a label's yes
            and no.
        auxiliary: weight of each auxiliary classifier's loss.
        weights: (classes,), how much an image of each class counts; None is all the same.
    """

    task: Task
    label_smoothing: float = 0.0
    auxiliary: float = 0.3
    weights: Tensor | None = None

    def loss(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and the loss, summed over the images.

        Args:
            outputs: logits, (N, classes), or a NamedTuple of them and auxiliary classifiers'.
            targets: (N,), classes; or (N, classes), each one's share of the image, or each label's.
        """
        heads = [outputs] if isinstance(outputs, Tensor) else [outputs.logits, *auxiliary(outputs)]
        losses = [self.cross_entropy(head.float(), targets) for head in heads]
        total = losses[0]
        for loss in losses[1:]:
            total = total + self.auxiliary * loss
        return heads[0].detach(), total

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        if self.task == "multiclass":
            return F.cross_entropy(
                logits, targets, self.weights, reduction="sum", label_smoothing=smoothing
            )
        smooth = targets.float() * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smooth, reduction="sum")

    def right(self, logits: Tensor, targets: Tensor) -> int:
        """In how many images the best guess is right, or every label is on its side of one half."""
        if self.task == "multilabel":
            return int(((logits > 0) == (targets > 0.5)).all(dim=1).sum())
        return int(
            (logits.argmax(1) == (targets if targets.ndim == 1 else targets.argmax(1))).sum()
        )


def auxiliary(outputs: Any) -> list[Tensor]:
    """The auxiliary classifiers' logits in a network's NamedTuple."""
    return [
        value for name, value in outputs._asdict().items() if name != "logits" and value is not None
    ]


def share_right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """As `Objective.right`, of all images, a fraction."""
    task: Task = "multilabel" if labels.ndim == 2 else "multiclass"
    return Objective(task).right(torch.from_numpy(logits), torch.from_numpy(labels)) / len(labels)
