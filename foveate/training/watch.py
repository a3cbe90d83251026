"""Watching a training: a sentence when it looks wrong, and its figures for TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import listed
from foveate.errors import MissingExtraError
from foveate.training.record import Record

GAP = 0.15  # between training and validation accuracy: more is knowing by heart
FEW = 3  # epochs from which a trend can be told


def remarks(
    history: tuple[Record, ...],
    given: NDArray[np.bool_],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    stopped_early: bool,
) -> list[str]:
    """What looks wrong about a training that has ended, each with what to do about it.

    Args:
        history: its records; one of epoch 0 is the state before it.
        given: (N, classes), what the network that is kept makes of the validation pictures.
        labels: (N,), theirs; or (N, classes), 0 or 1.
        classes: names.
        stopped_early: by its patience.
    """
    notes = []
    epochs = [r for r in history if r.epoch > 0]
    first, last = epochs[0], epochs[-1]
    best = max((r for r in history if r.best), key=lambda r: r.epoch)
    chance = float(np.unique(labels, axis=0, return_counts=True)[1].max() / len(labels))
    if len(epochs) >= FEW and last.loss > 1.05 * first.loss:
        notes.append(f"the training loss rose, from {first.loss:.3f} to {last.loss:.3f}: lower --lr")
    elif len(epochs) >= FEW and max(r.validation_accuracy for r in epochs) <= chance + 0.02:
        notes.append(
            f"nothing was learnt: validation accuracy never passed {chance:.0%}, the share of the commonest answer; "
            "try a lower --lr, or --find-lr"
        )
    if best.epoch == 0:
        notes.append("no epoch was better than the probe that fine-tuning began with, so the probe is what is kept")
    elif len(epochs) - best.epoch >= FEW and last.accuracy - last.validation_accuracy > GAP:
        notes.append(
            f"it overfits: after epoch {best.epoch} validation got worse while training accuracy rose to "
            f"{last.accuracy:.0%}; epoch {best.epoch} is kept. A stronger --augment or more pictures help"
        )
    elif best is last and not stopped_early and len(epochs) >= FEW:
        notes.append("the last epoch was the best: more --epochs may bring more")
    there = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    never = [name for name, missed in zip(classes, there.any(axis=0) & ~given.any(axis=0), strict=True) if missed]
    if never:
        remedy = "" if labels.ndim == 2 else "; if they are rare, try --balance sampling"
        notes.append(f"never predicted on validation: {listed(never)}{remedy}")
    return notes


class Listener:
    """Hears of each epoch and, if asked, writes it where TensorBoard looks: the folder `tensorboard` of the run.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Path, tensorboard: bool):
        self.writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError("TensorBoard is not installed: pip install 'foveate[track]'") from error
            self.writer = SummaryWriter(str(run / "tensorboard"))

    def hear(self, record: Record) -> None:
        if self.writer is None:
            return
        judged = {"loss/validation": record.validation_loss, "accuracy/validation": record.validation_accuracy}
        learnt = {
            "loss/training": record.loss,
            "accuracy/training": record.accuracy,
            "rate": record.lr,
            "gradient": record.gradient,
            "pictures_per_second": record.pictures_per_second,
        }
        for name, value in {**judged, **(learnt if record.epoch else {})}.items():  # nothing is learnt before epoch 1
            self.writer.add_scalar(name, value, record.epoch)
        self.writer.flush()
