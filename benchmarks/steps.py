"""Fine-tuning steps, loading included: Foveate beside the loop that everybody writes, with the same
weights.

    python benchmarks/steps.py DATA [--networks efficientnet_lite0,resnet18]
        [--repeats 5] [--steps 12]

  usual     ImageFolder, RandomResizedCrop + flip, DataLoader with 2 workers; the whole network in
            eager f32, NCHW; AdamW; every layer learns, batch-norm in training
  all       foveate's trainer, every layer learning (--freeze none), its own precision and memory
            format, images kept
  finetune  foveate's recipe as it is

Networks start from random weights: a step costs the same. Every contender is a process of its own,
contenders take turns within a repeat; the first two steps are not counted. Foveate's keep freed
memory, as `foveate train` does. `overhead` is foveate's trainer beside the same steps without it:
the same network, batches ready in memory, forward, backward, clip, optimiser, average.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, described, save

CONTENDERS = ("usual", "all", "finetune")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, WARM = 32, 2


def usual(name: str, data: Path, steps: int) -> float:
    """Images a second."""
    import timm
    import torch
    from torchvision import datasets, transforms

    network = timm.create_model(
        {"efficientnet_lite0": "tf_efficientnet_lite0"}.get(name, name), num_classes=10
    )
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = datasets.ImageFolder(data / "train", transform)
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=2)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    network.train()
    begun, seen = 0.0, 0
    for number, (x, y) in enumerate(loader):
        if number == WARM:
            begun = time.perf_counter()
        if number == WARM + steps:
            break
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        seen += len(x) if number >= WARM else 0
    return seen / (time.perf_counter() - begun)


def make_trainer(name: str, data: Path, freeze: Any) -> Any:
    """Foveate's trainer as `finetune` makes it."""
    from dataclasses import replace

    import numpy as np

    from foveate import models
    from foveate.data.augment import Augment
    from foveate.data.batches import TrainingBatches
    from foveate.data.layouts import load_dataset
    from foveate.data.preprocess import Preprocess
    from foveate.probe import Probe
    from foveate.progress import Silent
    from foveate.training.config import FINETUNE
    from foveate.training.distributed import Ranks
    from foveate.training.freezing import make_plan
    from foveate.training.setup import choose_precision
    from foveate.training.trainer import Trainer

    config = replace(FINETUNE, precision=choose_precision("auto", "cpu"))
    if freeze is not None:
        config = replace(config, freeze=freeze)
    dataset = load_dataset(data)
    rows = np.flatnonzero([split == "train" for split in dataset.splits])
    backbone = models.build(name)
    width = {"efficientnet_lite0": 3632, "resnet18": 1856}[name]
    network = Probe(backbone, width, len(dataset.classes))
    rates = (config.lr, config.head_lr, config.layer_decay)
    plan = make_plan(network, (3, 224, 224), config.freeze, *rates, frozen_norms=True)
    preprocess = Preprocess(224, 224, mean=MEAN, std=STD)
    batches = TrainingBatches(
        dataset, rows, preprocess, Augment("standard", crop_area=(0.08, 1.0)), BATCH
    )
    return Trainer(
        network, plan, config, batches, lambda net: None, rows, preprocess, 0, Ranks(), Silent()
    )


def foveate(name: str, data: Path, steps: int, freeze: Any) -> float:
    trainer = make_trainer(name, data, freeze)
    trainer.plan.apply(trainer.network, 0)
    module = trainer.module_of(0)
    begun, seen = 0.0, 0
    for number, batch in enumerate(trainer.batches.epoch(0)):
        if number == WARM:
            begun = time.perf_counter()
        if number == WARM + steps:
            break
        trainer.step(module, batch)
        seen += len(batch.rows) if number >= WARM else 0
    return seen / (time.perf_counter() - begun)


def overhead(name: str, data: Path, steps: int) -> float:
    """Seconds of the trainer's step as a multiple of a bare one's, taken in turns."""
    import itertools

    import torch

    from foveate.data.batches import normalise

    trainer = make_trainer(name, data, None)
    config = trainer.config
    trainer.plan.apply(trainer.network, 0)
    network = trainer.module_of(0)
    batches = list(itertools.islice(trainer.batches.epoch(0), 4))
    inputs = torch.empty(0)
    learning = [p for p in network.parameters() if p.requires_grad]

    def bare(batch: Any) -> None:
        nonlocal inputs
        trainer.optimizer.zero_grad()
        inputs = normalise(
            batch.pixels, trainer.preprocess, inputs if len(inputs) == len(batch.rows) else None
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            logits = network(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, config.clip)
        trainer.optimizer.step()
        trainer.ema.update(network)
        loss.item()

    seconds: dict[str, list[float]] = {"trainer": [], "bare": []}
    for number in range(WARM + steps):
        order = ("trainer", "bare") if number % 2 else ("bare", "trainer")
        for which in order:
            begun = time.perf_counter()
            batch = batches[number % 4]
            if which == "trainer":
                trainer.step(network, batch)
            else:
                bare(batch)
            if number >= WARM:
                seconds[which].append(time.perf_counter() - begun)
    return statistics.median(seconds["trainer"]) / statistics.median(seconds["bare"])


def run_one(contender: str, name: str, data: Path, steps: int) -> float:
    if contender == "usual":
        return usual(name, data, steps)
    from foveate.training.memory import keep_freed_memory

    keep_freed_memory()
    if contender == "overhead":
        return overhead(name, data, 3 * steps)
    return foveate(name, data, steps, "none" if contender == "all" else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", default="efficientnet_lite0,resnet18")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS / "steps.json")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run_one(*arguments.only, arguments.data, arguments.steps)))
        return

    def measure(contender: str, name: str) -> float:
        command = [sys.executable, __file__, str(arguments.data), "--only", contender, name]
        command += ["--steps", str(arguments.steps)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True
        )
        return float(done.stdout.splitlines()[-1])

    report: dict[str, Any] = {
        **described("steps", "foveate torch torchvision timm pillow"),
        "batch": BATCH,
        "results": {},
    }
    for name in arguments.networks.split(","):
        seen: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
        for repeat in range(arguments.repeats):
            for contender in CONTENDERS:
                seen[contender].append(round(measure(contender, name), 2))
                print(
                    f"{repeat + 1}/{arguments.repeats}  {name:20} {contender:9} "
                    f"{seen[contender][-1]}",
                    file=sys.stderr,
                )
        medians = {c: statistics.median(rates) for c, rates in seen.items()}
        report["results"][name] = {
            "images_per_second": seen,
            "ratio_to_usual": {c: round(medians[c] / medians["usual"], 2) for c in CONTENDERS},
            "loop_overhead": round(measure("overhead", name), 4),
        }
        print(
            name,
            medians,
            report["results"][name]["ratio_to_usual"],
            report["results"][name]["loop_overhead"],
        )
    save(report, arguments.out)


if __name__ == "__main__":
    main()
