"""A training of one second: coloured noise in four classes, a network with batch-norm, dropout."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foveate.data.augment import Augment
from foveate.data.batches import TrainingBatches, normalise
from foveate.data.batches.assembly import Batch
from foveate.data.dataset import Dataset
from foveate.data.preprocess import Preprocess
from foveate.progress import Silent
from foveate.training.config import SCRATCH, TrainConfig
from foveate.training.distributed import Ranks
from foveate.training.freezing import Part, Plan
from foveate.training.trainer import Fitted, Trainer

SIDE, CLASSES = 12, 4
PREPROCESS = Preprocess(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
CONFIG = replace(
    SCRATCH, epochs=3, batch_size=16, lr=0.05, head_lr=0.05, warmup=0.5, precision="f32"
)
AUGMENTATION = Augment("light", rotation=10.0, brightness=0.2, mixup=0.2)


class Small(nn.Module):
    """Two convolutions, a dropout and a linear layer."""

    def __init__(self, norms: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norms else nn.Identity()
        self.second = nn.Conv2d(8, 16, 3, stride=2)
        self.drop = nn.Dropout(0.2 if norms else 0.0)
        self.fc = nn.Linear(16, CLASSES)

    @property
    def head(self) -> nn.Module:
        return self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.fc(self.drop(torch.relu(self.second(x)).mean(dim=(2, 3))))


def small(seed: int = 0, norms: bool = True) -> Small:
    torch.manual_seed(seed)
    return Small(norms)


def plan_of(network: nn.Module, config: TrainConfig = CONFIG) -> Plan:
    names = tuple(name for name, _ in network.named_parameters())
    count = sum(p.numel() for p in network.parameters())
    return Plan((Part("all", names, count, 0, config.lr, False, "batch"),), -1, False)


def drawn(n: int = 52, seed: int = 0) -> Dataset:
    """Noise around a colour that the class decides."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    colours = rng.integers(60, 190, (CLASSES, 3))
    noise = rng.normal(0, 40, (n, SIDE, SIDE, 3))
    pixels = np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8)

    def read(i: int) -> bytes:
        return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels[i].tobytes()

    files = tuple(f"{label}/{i}.ppm" for i, label in enumerate(labels))
    names = tuple("abcd")
    return Dataset("drawn", "drawn", files, labels, names, ("train",) * n, ("",) * n, read)


def batches_of(dataset: Dataset, config: TrainConfig = CONFIG, **options: Any) -> TrainingBatches:
    rows = np.arange(len(dataset))
    return TrainingBatches(
        dataset, rows, PREPROCESS, AUGMENTATION, config.batch_size, seed=3, **options
    )


def trainer_of(
    network: nn.Module,
    folder: Path | None = None,
    config: TrainConfig = CONFIG,
    batches: Any = None,
    dataset: Dataset | None = None,
    ranks: Ranks | None = None,
    **options: Any,
) -> Trainer:
    dataset = dataset or drawn()
    validation = drawn(24, seed=5)
    pixels = np.stack(
        [np.frombuffer(validation.read(i)[-SIDE * SIDE * 3 :], np.uint8) for i in range(24)]
    )
    x = normalise(torch.from_numpy(pixels).view(24, SIDE, SIDE, 3).permute(0, 3, 1, 2), PREPROCESS)

    @torch.no_grad()
    def judge(net: nn.Module) -> np.ndarray:
        return net(x).numpy()

    ranks = ranks or Ranks()
    batches = batches or batches_of(dataset, config, rank=ranks.rank, world=ranks.world)
    return Trainer(
        network=network,
        plan=options.pop("plan", None) or plan_of(network, config),
        config=config,
        batches=batches,
        validate=judge,
        labels=validation.labels,
        preprocess=PREPROCESS,
        seed=1,
        ranks=ranks,
        progress=Silent(),
        folder=folder,
        **options,
    )


def train(
    network: nn.Module,
    folder: Path | None = None,
    resume: bool = False,
    **options: Any,
) -> Fitted:
    return trainer_of(network, folder, **options).run(resume)


class Interrupted:
    """Batches after so many of which something happens."""

    def __init__(self, batches: TrainingBatches, after: int, what: Any) -> None:
        self.batches, self.after, self.what, self.seen = batches, after, what, 0
        self.rows = batches.rows

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.batches.epoch(number, start):
            if self.seen == self.after:
                self.what()
            self.seen += 1
            yield batch


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same tensors, bit for bit."""
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
