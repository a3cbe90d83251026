"""Fine-tuning beside the probe of the same backbone, on the same test images, over seeds.

    python benchmarks/finetune.py DATA [--seeds 0,1,2] [--options "--epochs 5"]

The images of the test split are judged by both; a pair in which one is right and the other wrong
counts for the one. For each seed McNemar's exact test gives the probability of a difference as
large by chance. Seeds share the test images, so their pairs are not independent: over all seeds
each image counts once, with the sum of its differences, whose sign would be either with equal
probability if both recipes were equally good (an exact sign-flip test).
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from machine import RESULTS, described, save


def judged(data: Path, options: list[str], scratch: str) -> tuple[dict[str, bool], dict[str, Any]]:
    """Whether each test image was right, and the metrics."""
    command = [
        sys.executable,
        "-m",
        "foveate",
        "train",
        str(data),
        "--out",
        f"{scratch}/run",
        "--json",
        *options,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    lines = (Path(scratch) / "run" / "predictions.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    return {row["file"]: row["label"] == row["predicted"] for row in rows}, json.loads(done.stdout)


def mcnemar(better: int, worse: int) -> float:
    """Two-sided exact probability of a difference as large, if both were equally good."""
    n, most = better + worse, max(better, worse)
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    return min(1.0, 2 * tail)


def sign_flip(differences: list[int]) -> float:
    """Two-sided exact probability of a sum as far from 0, if each difference were as likely its
    opposite.

    >>> sign_flip([1, 1, 1, 0])  # of eight signs two give a sum of 3 or -3
    0.25
    """
    ways = Counter({0: 1})
    for d in differences:
        ways = sum(
            (Counter({total + sign * d: n for total, n in ways.items()}) for sign in (1, -1)),
            Counter(),
        )
    seen = abs(sum(differences))
    return sum(n for total, n in ways.items() if abs(total) >= seen) / 2 ** len(differences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--options", default="", help="of foveate train --recipe finetune")
    parser.add_argument("--out", type=Path, default=RESULTS / "finetune.json")
    arguments = parser.parse_args()
    results = []
    differences: Counter[str] = Counter()
    for seed in arguments.seeds.split(","):
        found = {}
        for recipe in ("probe", "finetune"):
            options = ["--recipe", recipe, "--seed", seed]
            options += shlex.split(arguments.options) if recipe == "finetune" else []
            with tempfile.TemporaryDirectory() as scratch:
                found[recipe] = judged(arguments.data, options, scratch)
        probe, tuned = found["probe"][0], found["finetune"][0]
        better = sum(tuned[name] and not probe[name] for name in probe)
        worse = sum(probe[name] and not tuned[name] for name in probe)
        differences.update({name: tuned[name] - probe[name] for name in probe})
        results.append(
            {
                "seed": int(seed),
                **{
                    r: {k: m["test"][k] for k in ("accuracy", "log_loss", "ece", "n")}
                    for r, (_, m) in found.items()
                },
                "minutes": round(found["finetune"][1]["seconds"]["total"] / 60, 1),
                "best_epoch": found["finetune"][1]["best_epoch"],
                "better": better,
                "worse": worse,
                "p": round(mcnemar(better, worse), 4),
            }
        )
        print(results[-1], flush=True)
    report = {
        **described("finetune", "foveate torch torchvision openvino pillow"),
        "options": arguments.options,
        "results": results,
        "over_seeds": {
            "better": sum(d > 0 for d in differences.values()),
            "worse": sum(d < 0 for d in differences.values()),
            "sum": sum(differences.values()),
            "p": float(f"{sign_flip(list(differences.values())):.2g}"),
        },
    }
    print(report["over_seeds"])
    save(report, arguments.out)


if __name__ == "__main__":
    main()
