"""fashion-mnist: LeNet-5 to 90 % on the test images, beside the usual PyTorch example loop; and
ResNet-20's accuracy.

    python benchmarks/fashion.py [--contenders usual,foveate,resnet20] [--repeats 5]

  usual     the loop of PyTorch's MNIST example with this LeNet-5: ToTensor + Normalize, a worker,
            batches of 64, Adadelta at rate 1, times 0.7 an epoch, the test images judged after
            each; ends when they are at 90 %
  foveate   `foveate train fashion-mnist --model lenet5` with the settings below: the whole command,
            graph and report included; its test accuracy has to reach 90 %
  resnet20  `foveate train fashion-mnist --model resnet20`, once: accuracy and minutes

The images are those of Debian's package dataset-fashion-mnist. Seconds are wall time of a process,
import included.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, described, save

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
LENET = "--epochs 5 --batch-size 128 --optimizer sgd --lr 0.15".split()
LENET += "--schedule one-cycle --augment none".split()
RESNET = "--epochs 30 --batch-size 128 --lr 0.2 --schedule one-cycle".split()


def usual() -> float:
    """Seconds of training do not matter: the caller measures the process. Returns the accuracy it
    ended with."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torchvision import transforms

    from foveate.models import build

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))]
    )

    class Fashion(torch.utils.data.Dataset[Any]):
        """As torchvision.datasets.FashionMNIST gives its images: one by one, by way of Pillow."""

        def __init__(self, stem: str) -> None:
            raw = gzip.decompress((DEBIAN / f"{stem}-images-idx3-ubyte.gz").read_bytes())
            self.images = torch.from_numpy(
                np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).copy()
            )
            raw = gzip.decompress((DEBIAN / f"{stem}-labels-idx1-ubyte.gz").read_bytes())
            self.labels = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype(np.int64))

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            from PIL import Image

            return transform(Image.fromarray(self.images[i].numpy())), int(self.labels[i])

    torch.manual_seed(1)
    train = torch.utils.data.DataLoader(Fashion("train"), 64, shuffle=True, num_workers=1)
    test = torch.utils.data.DataLoader(Fashion("t10k"), 1000, num_workers=1)
    network: nn.Module = build("lenet5")
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
    accuracy = 0.0
    for _ in range(14):
        network.train()
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = sum(int((network(x).argmax(1) == y).sum()) for x, y in test)
        accuracy = right / 10_000
        schedule.step()
        if accuracy >= 0.9:
            break
    return accuracy


def foveate(model: str, options: list[str]) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "foveate",
            "train",
            "fashion-mnist",
            "--model",
            model,
            "--recipe",
            "scratch",
        ]
        command += [*options, "--out", f"{scratch}/run", "--json"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        return float(json.loads(done.stdout)["test"]["accuracy"])


def run_one(contender: str) -> float:
    if contender == "usual":
        return usual()
    return foveate("lenet5", LENET) if contender == "foveate" else foveate("resnet20", RESNET)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", default="usual,foveate,resnet20")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "fashion.json")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run_one(arguments.only)))
        return
    chosen = arguments.contenders.split(",")
    seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in chosen}
    for repeat in range(arguments.repeats):
        for contender in chosen:
            if contender == "resnet20" and repeat:
                continue
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, __file__, "--only", contender],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            seconds = time.perf_counter() - begun
            seen[contender].append(
                {"seconds": round(seconds, 2), "accuracy": float(done.stdout.splitlines()[-1])}
            )
            print(
                f"{repeat + 1}/{arguments.repeats}  {contender:9}",
                seen[contender][-1],
                file=sys.stderr,
                flush=True,
            )
    medians = {c: statistics.median(r["seconds"] for r in results) for c, results in seen.items()}
    report = {
        **described("fashion", "foveate torch torchvision pillow"),
        "settings": {"foveate": LENET, "resnet20": RESNET},
        "results": seen,
        "median_seconds": medians,
        "usual_to_foveate": round(medians["usual"] / medians["foveate"], 2)
        if {"usual", "foveate"} <= set(seen)
        else None,
    }
    save(report, arguments.out)
    print(medians, report["usual_to_foveate"])


if __name__ == "__main__":
    main()
