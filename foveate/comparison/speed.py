"""How fast classifiers answer on this machine, measured in turn: whatever else the machine does
then slows all of them down alike."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from foveate.classifier import Classifier
from foveate.progress import Progress

ROUNDS = 5
ALONE = 10  # images that are answered one by one, a round
TOGETHER = 32  # images that are answered together, a round


def measure_speed(
    runs: Mapping[str, Path], images: Sequence[bytes], threads: int, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Latency and throughput of each run's classifier, from an image's bytes to its answer:
    decoding, resizing, network and refusal.

    Each of the ROUNDS loads each classifier once, so that no more than one is in memory.

    Args:
        runs: folders, by name.
        images: files, as bytes; they are taken again where they are too few.
        threads: cores to use.
        progress: is advanced with each round of each.

    Returns:
        By name: latency_ms, the median of the rounds' medians; latency_ms_range, of the rounds'
        medians; throughput, images a second, the median.
    """
    few = [images[i % len(images)] for i in range(ALONE)]
    many = [images[i % len(images)] for i in range(TOGETHER)]
    alone: dict[str, list[float]] = {name: [] for name in runs}
    together: dict[str, list[float]] = {name: [] for name in runs}
    progress.begin("speed", ROUNDS * len(runs))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            classifier = Classifier.load(run, threads)
            classifier.predict(few)  # makes the engine ready, and whatever it does only once
            taken = []
            for image in few:
                begun = time.perf_counter()
                classifier.predict(image)
                taken.append(time.perf_counter() - begun)
            alone[name].append(1000 * median(taken))
            begun = time.perf_counter()
            classifier.predict(many)
            together[name].append(len(many) / (time.perf_counter() - begun))
            progress.advance()
    return {
        name: {
            "latency_ms": round(median(alone[name]), 3),
            "latency_ms_range": [round(min(alone[name]), 3), round(max(alone[name]), 3)],
            "throughput": round(median(together[name]), 2),
        }
        for name in runs
    }
