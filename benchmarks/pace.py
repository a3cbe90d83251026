"""What a fine-tuning step costs, network by network, beside a plain matrix product on the same cores.

    python benchmarks/pace.py [--networks resnet50,...] [--repeats 3]

For every network with published weights (random ones here; the time is the same): its probe, the plan of the recipe
finetune, frozen batch-norms folded, forward and backward of a batch at the weights' own size, in f32.
`share` is how many multiply-accumulates a second that is, had all of the network learnt, in parts of what
`foveate.training.offer.multiplying` measures at the same minute. The medians by family are `offer.SHARES`.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import RESULTS, described, save
from torch.nn import functional as F

from foveate.catalogue import CATALOGUE
from foveate.data.loader import cores
from foveate.models import build
from foveate.training.config import FINETUNE
from foveate.training.folding import folded
from foveate.training.memory import memory_kept
from foveate.training.offer import multiplying
from foveate.transfer import Probe, make_plan
from foveate.weights import WEIGHTS

FEW = 4  # large pictures at once


def step_of(name: str, pictures: int) -> Any:
    """A function that takes one step of fine-tuning."""
    torch.manual_seed(0)
    size = (3, *(WEIGHTS[name].preprocess.crop,) * 2)
    backbone: Any = build(WEIGHTS[name].network)
    with torch.device("meta"):
        maps = build(WEIGHTS[name].network).stages(torch.empty(1, *size))
    probe = Probe(backbone, sum(m.shape[1] for m in maps), 10)
    config = FINETUNE
    plan = make_plan(
        probe,
        size,
        config.freeze,
        config.lr,
        config.head_lr,
        config.layer_decay,
        frozen_norms=config.batch_norm == "frozen",
    )
    plan.apply(probe, 0)
    network: Any = folded(probe, size)
    network.to(memory_format=torch.channels_last)
    x = torch.rand(pictures, *size).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(pictures, dtype=torch.int64)

    def step() -> None:
        torch.autograd.backward(F.cross_entropy(network(x), targets))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(name for name, w in WEIGHTS.items() if name == w.network))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "pace.json")
    arguments = parser.parse_args()
    torch.set_num_threads(cores())
    results: dict[str, Any] = {}
    families: dict[str, list[float]] = {}
    for name in arguments.networks.split(","):
        entry, side = CATALOGUE[WEIGHTS[name].network], WEIGHTS[name].preprocess.crop
        pictures = FINETUNE.batch_size if side < 300 else FEW
        step = step_of(name, pictures)
        turns = []
        with memory_kept():
            step()  # makes room
            for _ in range(arguments.repeats):
                pace, begun = multiplying(cores()), time.perf_counter()
                step()
                turns.append((time.perf_counter() - begun, pace))
        seconds = median(s for s, _ in turns) / pictures
        share = median(3 * entry.macs * pictures / s / pace for s, pace in turns)
        results[name] = {"pictures": pictures, "seconds_a_picture": round(seconds, 4), "share": round(share, 3)}
        families.setdefault(entry.family, []).append(share)
        print(f"{name:22}{entry.family:14}", results[name], file=sys.stderr, flush=True)
    shares = {family: float(f"{median(found):.2g}") for family, found in families.items()}
    report = described("pace", "foveate torch numpy")
    save({**report, "shares": shares, "results": results}, arguments.out)
    print(shares)


if __name__ == "__main__":
    main()
