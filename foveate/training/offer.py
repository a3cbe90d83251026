"""What a probe's owner may do next, and what it would cost here: one sentence, without importing torch."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from foveate.catalogue import CATALOGUE
from foveate.weights import find_weights

# multiply-accumulates of a step, as if all layers learnt, in parts of a matrix product's: benchmarks/pace.py
SHARES = {
    "AlexNet": 1.2,
    "DenseNet": 0.86,
    "EfficientNet": 0.34,
    "GoogLeNet": 0.73,
    "Inception": 0.9,
    "MobileNet": 0.35,
    "ResNet": 1.1,
    "ShuffleNet": 0.42,
    "SqueezeNet": 0.62,
    "VGG": 1.3,
}
BESIDES = 1.2  # the whole in parts of its steps: the probe before them, validation, loading; docs/LOG.md
BROUGHT = "on one set of photos it brought 0.5 to 3 points of accuracy"  # docs/LOG.md
SIDE = 1024  # of the matrices: far beyond the caches of a core, 10 ms


def finetune_offer(model: str, pictures: int, threads: int, epochs: int) -> str:
    """What `finetune` would cost on this processor in f32 (bf16 and GPUs take less), and what it may bring.

    Args:
        model: with published weights.
        pictures: to learn from.
        threads: to compute in.
        epochs: that it would take.
    """
    entry = CATALOGUE[find_weights(model).network]
    seconds = BESIDES * 3 * entry.macs * pictures * epochs / (SHARES[entry.family] * multiplying(threads))
    minutes = max(1, round(seconds / 60))
    return f"--recipe finetune lets the later stages learn on too: roughly {minutes} min on this processor; {BROUGHT}"


def multiplying(threads: int) -> float:
    """Multiply-accumulates a second in a product of f32 matrices, the best of three."""
    x = np.ones((SIDE, SIDE), dtype=np.float32)
    seconds = []
    with threadpool_limits(threads):
        for _ in range(4):
            begun = time.perf_counter()
            x @ x
            seconds.append(time.perf_counter() - begun)
    return SIDE**3 / min(seconds[1:])
