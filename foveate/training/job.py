"""A training that is about to run: what was asked, what it may use, and what it works on."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.pixels import CacheKind
from foveate.data.policy import Augmentation
from foveate.data.preprocess import Preprocess
from foveate.progress import Progress
from foveate.runs import Run
from foveate.training.config import TrainConfig
from foveate.training.outcome import Clock
from foveate.training.ranks import Ranks

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """What was asked; `training.train` explains it."""

    recipe: Literal["finetune", "scratch"]
    model: str
    settings: dict[str, Any]
    augment: str | None
    parts: dict[str, Any]
    size: int | None
    channels: int | None
    seed: int
    on_bad: Literal["skip", "error"]
    engine: str


@dataclass(frozen=True)
class Means:
    """What does not change what is seen and learnt; sums that other numbers of threads share may differ in their last
    digit."""

    threads: int
    cache: CacheKind
    tensorboard: bool
    progress: Progress
    clock: Clock
    command: str


@dataclass
class Job:
    """A training that is about to run: `rows` are the readable pictures of each split."""

    run: Run
    ranks: Ranks
    request: Request
    means: Means
    config: TrainConfig
    dataset: Dataset
    rows: dict[str, Rows]
    preprocess: Preprocess
    policy: str
    augmentation: Augmentation
    about: dict[str, Any]  # provenance, for the card
    notes: list[str]
    bad: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """To a person, now, and into the log."""
        if self.ranks.first:
            self.means.progress.say(sentence)
            self.run.log(sentence)
