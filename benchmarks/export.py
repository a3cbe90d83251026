"""Exports: they agree with the classifier for the whole canon, and cost nothing beside the engines
themselves.

    python benchmarks/export.py canon [--networks resnet18,densenet121]
    python benchmarks/export.py latency [--networks resnet50] [--repeats 5]
    python benchmarks/export.py predict RUN PHOTOS [--repeats 5]

`canon`: each network with random weights whose batch-norms are settled, as a classifier, exported
by the command in each format, proven on 24 made photos; the largest difference of a probability.
`latency`: one image, f32, in one process, in turns: torch eager, ONNX Runtime and OpenVINO on the
network as their users convert it, and both on the exported file; medians.
`predict`: the folder to a CSV beside the engine alone on pixels that are decoded already; one
photo, cold, beside OpenVINO by hand; a process each, in turns; also in processor time, which other
work on the machine disturbs less.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, described, save
from PIL import Image
from torch import nn

from foveate.catalogue import CATALOGUE
from foveate.classifier import Classifier
from foveate.classifier.decision import Decision
from foveate.classifier.given import expand
from foveate.classifier.saving import make_card, write_classifier
from foveate.data.listing import images_below
from foveate.data.preprocess import Preprocess
from foveate.engine.conversion import to_graph
from foveate.engine.openvino import core, ov, read_graph
from foveate.export import export_classifier
from foveate.weights import build

TIMED = "resnet50 mobilenet_v2 efficientnet_b0 densenet121".split()
CLASSES = tuple(f"class {number}" for number in range(10))
BY_HAND = """
import sys
sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino as ov
from PIL import Image
model = ov.Core().compile_model(sys.argv[1], "CPU", {"PERFORMANCE_HINT": "LATENCY"})
side = model.input(0).partial_shape[1].get_length()
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB").resize((side, side)))
print(model(pixels[None])[0].argmax())
"""


def settled(name: str) -> tuple[nn.Module, Preprocess]:
    """A network with random weights that neither overflows nor dies out, and its preprocessing."""
    torch.manual_seed(0)
    network = build(name, len(CLASSES))
    side, grey = network.input_size, name.startswith("lenet")
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 1 if grey else 3, side, side))
    half = (0.5,) if grey else (0.5,) * 3
    return network.eval(), Preprocess(side, side, channels=len(half), mean=half, std=half)


def classifier_of(name: str, folder: Path) -> Classifier:
    network, preprocess = settled(name)
    tensors = {n: t.detach().clone().numpy() for n, t in network.state_dict().items()}
    card = make_card(
        form="network",
        recipe="scratch",
        model=name,
        mirror=False,
        temperature=1.0,
        divide=False,
        decision=Decision(),
        classes=CLASSES,
        preprocess=preprocess,
        about={"metrics": {}, "provenance": {}},
    )
    graph = to_graph(network, preprocess)
    return write_classifier(folder / "classifier", card, tensors, graph)


def photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(24):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 480)).save(folder / f"{number}.jpg")
    return folder


def canon(names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            given = photos(folder / "photos")
            classifier_of(name, folder)
            found[name] = {}
            for format in ("onnx", "openvino"):
                command = [sys.executable, "-m", "foveate", "export", scratch, "--json", "--quiet"]
                options = ["--format", format, "--images", str(given)]
                done = subprocess.run([*command, *options], capture_output=True, text=True)
                answer = json.loads(done.stdout)["proof"] if done.returncode == 0 else None
                found[name][format] = answer["difference"] if answer else done.stderr[-300:]
        print(name, found[name], flush=True)
    return found


def latency(names: list[str], repeats: int) -> dict[str, Any]:
    import onnxruntime

    found: dict[str, Any] = {}
    f32 = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            given = photos(folder / "photos")
            classifier = classifier_of(name, folder)
            onnx = export_classifier(classifier, format="onnx", images=given).folder
            graph = export_classifier(classifier, format="openvino", images=given).folder
            session = onnxruntime.InferenceSession(onnx / "model.onnx")
            exported = core().compile_model(read_graph(graph / "model.xml"), "CPU", f32)
        network, preprocess = settled(name)
        side = preprocess.crop
        pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        x = torch.from_numpy(preprocess.normalise(pixels))
        as_numpy = x.numpy()
        last = network.to(memory_format=torch.channels_last)
        converted = ov.convert_model(network, example_input=x)
        converted.reshape([1, 3, side, side])
        by_hand = core().compile_model(converted, "CPU", f32)
        contenders: dict[str, Callable[[], object]] = {
            "torch eager": lambda last=last, x=x: last(x),
            "OpenVINO by hand": lambda by_hand=by_hand, x=as_numpy: by_hand(x),
            "export, OpenVINO": lambda run=exported, x=pixels: run(x),
            "export, ONNX Runtime": lambda run=session.run, x=pixels: run(None, {"pixels": x}),
        }
        with torch.inference_mode():
            found[name] = {
                key: statistics.median(times)
                for key, times in in_turns(contenders, repeats).items()
            }
        print(name, found[name], flush=True)
    return found


def in_turns(
    contenders: dict[str, Callable[[], object]], repeats: int, each: int = 10
) -> dict[str, list[float]]:
    """Milliseconds a call."""
    times: dict[str, list[float]] = {key: [] for key in contenders}
    for turn in range(repeats + 1):  # the first is to warm up
        for key, call in contenders.items():
            for _ in range(each):
                start = time.perf_counter()
                call()
                if turn:
                    times[key].append(1000 * (time.perf_counter() - start))
    return times


def predict(run: Path, data: Path, repeats: int) -> dict[str, Any]:
    classifier, files = Classifier.load(run), images_below(data)[0]
    given = expand(files)
    pixels = [outcome for _, outcome in classifier.decoded(given, "none")]
    graph = classifier.folder / "engine.xml"
    rows: dict[str, list[tuple[float, float]]] = {}

    def engine() -> None:
        assert sum(1 for _ in classifier.engine.run(p[0][None] for p in pixels)) == len(files)

    def child(*command: object) -> None:
        subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as scratch:
        contenders: dict[str, Callable[[], object]] = {
            "the engine alone": engine,
            "foveate predict FOLDER --csv": lambda: child(
                *("-m", "foveate", "predict", run, data, "--csv"),
                Path(scratch) / f"{time.monotonic_ns()}.csv",
            ),
            "OpenVINO by hand, one photo, cold": lambda: child("-c", BY_HAND, graph, files[0]),
            "foveate predict PHOTO, cold": lambda: child("-m", "foveate", "predict", run, files[0]),
        }
        engine()
        for _ in range(repeats):
            for key, call in contenders.items():
                before = used()
                call()
                after = used()
                rows.setdefault(key, []).append((after[0] - before[0], after[1] - before[1]))
    found = {
        key: {"seconds": seconds, "processor": processor}
        for key, values in rows.items()
        for seconds, processor in [map(statistics.median, zip(*values, strict=True))]
    }
    print(json.dumps(found, indent=1))
    return {"images": len(files)} | found


def used() -> tuple[float, float]:
    """Seconds on the clock, and of the processor, by this process and those it has waited for."""
    kinds = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(kind.ru_utime + kind.ru_stime for kind in kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["canon", "latency", "predict"])
    parser.add_argument("given", nargs="*", type=Path)
    parser.add_argument("--networks")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    names = asked.networks.split(",") if asked.networks else None
    if asked.part == "canon":
        figures = canon(names or [*CATALOGUE])
    elif asked.part == "latency":
        figures = latency(names or TIMED, asked.repeats)
    else:
        figures = predict(*asked.given, asked.repeats)
    load = os.getloadavg()[0]
    report = described("export", "foveate torch openvino onnx onnxruntime numpy pillow")
    save(report | {"load": load, asked.part: figures}, RESULTS / f"export-{asked.part}.json")


if __name__ == "__main__":
    main()
