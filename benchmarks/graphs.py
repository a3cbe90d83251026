"""Every network of the canon as it is saved: does OpenVINO's graph give torch's logits, on real
photos?

    python benchmarks/graphs.py DATA [--networks resnet50,...] [--photos 8]

Random weights; batch-norm statistics are those of the photos, so that nothing dies out on the way.
Photos are shown at the network's own size, in f32, in batches of one, three and all. `gap` is the
largest difference of two logits, in parts of the largest logit; a network is wrong from
`foveate.training.saving.AGREE` on. The suite does the same for one network of each family, on small
noise (tests/reliability/test_r16_graphs.py).
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, described, save
from torch import nn

from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess, decode
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import OpenVinoEngine
from foveate.models import MODELS, build
from foveate.training.saving import AGREE


def compared(name: str, dataset: Any, rows: list[int]) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.device("meta"):
        shapeless: Any = build(name)
    side = shapeless.input_size
    channels = next(m.in_channels for m in shapeless.modules() if isinstance(m, nn.Conv2d))
    preprocess = Preprocess(
        side, side, channels=channels, mean=(0.45,) * channels, std=(0.23,) * channels
    )
    pixels = np.stack([decode(dataset.read(row), dataset.files[row], preprocess) for row in rows])
    network: Any = build(name, num_classes=5)
    x = torch.from_numpy(preprocess.normalise(pixels))
    with torch.no_grad():
        network.train()(x)
        expected = network.eval()(x).numpy()
    begun = time.perf_counter()
    graph = to_graph(network, preprocess)
    seconds = time.perf_counter() - begun
    gaps = []
    for n in sorted({1, min(3, len(rows)), len(rows)}):
        found = np.concatenate(list(OpenVinoEngine(graph.clone(), 2, "f32", n).run([pixels[:n]])))
        gaps.append(float(np.abs(found - expected[:n]).max() / np.abs(expected).max()))
    return {"gap": round(max(gaps), 8), "conversion_seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", default=",".join(MODELS))
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS / "graphs.json")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    rows = np.linspace(0, len(dataset) - 1, arguments.photos).round().astype(int).tolist()
    found = {}
    for name in arguments.networks.split(","):
        found[name] = compared(name, dataset, rows)
        print(f"{name:24}", found[name], file=sys.stderr, flush=True)
    wrong = [name for name, each in found.items() if each["gap"] >= AGREE]
    largest = max(each["gap"] for each in found.values())
    report = described("graphs", "foveate torch openvino")
    save(
        {**report, "photos": len(rows), "limit": AGREE, "wrong": wrong, "results": found},
        arguments.out,
    )
    print(f"{len(found)} networks, largest gap {largest:.2g}, wrong: {', '.join(wrong) or 'none'}")


if __name__ == "__main__":
    main()
