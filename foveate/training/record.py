"""What the loop says about itself: an epoch's figures, and the end."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Record:
    """One epoch, as history.jsonl has it.

    Args:
        epoch: from 1; 0 is the state before the first.
        lr: rate of the last step, in parts of the highest.
        loss, accuracy: mean over the epoch's training pictures, as augmented, while the network was learning.
        validation_loss: log-loss in nats after calibration: what chooses the epoch that is kept.
        validation_accuracy: a fraction.
        gradient: mean norm of the gradient before clipping.
        seconds: training and validation.
        pictures_per_second: of the training.
        best: whether it was the best so far.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    gradient: float
    seconds: float
    pictures_per_second: float
    best: bool


@dataclass
class Sums:
    """Of an epoch, so far."""

    loss: float = 0.0
    right: float = 0.0
    gradient: float = 0.0
    pictures: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """What the loop leaves: the network holds the best epoch's weights.

    Args:
        history: a record an epoch.
        logits: (N, classes), of the validation pictures, from those weights.
        best: the epoch.
        stopped_early: validation did not get better any more.
    """

    history: tuple[Record, ...]
    logits: NDArray[np.float32]
    best: int
    stopped_early: bool
