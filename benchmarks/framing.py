"""What choosing a framing, several views and several backbones bring, and what they cost.

    python benchmarks/framing.py CLOTHING [--produce PRODUCE [--final]]

  clothing   each effort in a process and a cache of its own: seconds, what was chosen, and the
             figures out of fold and of the test
  produce    the same, without `most`; its test comes from other visits, and is opened with --final
             only, which appends to the log beside the results
  long       made images of 640x120 and 120x640 whose class shows at one end, with `auto`, and cut

The probe fast is run three times, and its median is what the others' seconds are compared with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, described, save
from numpy.typing import NDArray
from PIL import Image

EFFORTS = ("fast", "best", "most")
REPEATS = 3


def run(data: Path, *options: str) -> dict[str, Any]:
    """A training in a process and a cache of its own: its metrics, without a test's figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "foveate", "train", str(data), "--json", "--quiet"]
        done = subprocess.run(
            [*command, *options, "--out", f"{folder}/run"],
            env=os.environ | {"FOVEATE_CACHE": f"{folder}/cache"},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Accuracy and log-loss of a split."""
    return {key: round(metrics[key], 4) for key in ("accuracy", "log_loss", "ece")}


def summary(metrics: dict[str, Any], test: bool) -> dict[str, Any]:
    seen = metrics["seen"]
    found = {
        "seconds": metrics["seconds"],
        "out_of_fold": figures(metrics["out_of_fold"]),
        "framing": seen["framing"],
        "passes": seen["passes"],
        "backbones": seen["backbones"],
        "tried": seen["tried"],
    }
    return found | ({"test": figures(metrics["test"])} if test else {})


def clothing(data: Path) -> dict[str, Any]:
    fast = [run(data) for _ in range(REPEATS)]
    seconds = float(np.median([m["seconds"]["total"] for m in fast]))
    found: dict[str, Any] = {"fast": summary(fast[-1], test=True) | {"median_seconds": seconds}}
    for effort in EFFORTS[1:]:
        found[effort] = summary(run(data, "--effort", effort), test=True)
        found[effort]["times_fast"] = round(found[effort]["seconds"]["total"] / seconds, 2)
        show(effort, found[effort])
    return found


def produce(data: Path, final: bool) -> dict[str, Any]:
    found = {}
    for effort in EFFORTS[:2]:
        metrics = run(data, "--effort", effort)
        found[effort] = summary(metrics, test=final)
        if final:
            log_opening(metrics, effort)
        show(effort, found[effort])
    return found


def log_opening(metrics: dict[str, Any], effort: str) -> None:
    """A line on what was seen of the test that nothing may be chosen by."""
    said, test = metrics["out_of_fold"], metrics["test"]
    line = (
        f"{time.strftime('%Y-%m-%d')}  said {said['accuracy']:.4f}  test {test['accuracy']:.4f}  "
        f"ECE {said['ece']:.4f} and {test['ece']:.4f}  (effort {effort}, framing "
        f"{metrics['seen']['framing']})\n"
    )
    with (RESULTS / "produce-test.log").open("a") as file:
        file.write(line)


def long_images(each: int = 60) -> dict[str, Any]:
    """Four classes of stripes at one end of a long image."""
    found = {}
    for name, shape in (("640x120", (120, 640)), ("120x640", (640, 120))):
        with tempfile.TemporaryDirectory() as folder:
            draw_long(Path(folder), shape, each)
            for how, options in (("auto", []), ("whole", ["--framing", "whole"])):
                metrics = run(Path(folder), *options)
                found[f"{name} {how}"] = summary(metrics, test=False)
                found[f"{name} {how}"]["notes"] = metrics["notes"]
                show(f"{name} {how}", found[f"{name} {how}"])
    return found


def draw_long(folder: Path, shape: tuple[int, int], each: int) -> None:
    rng = np.random.default_rng(0)
    side = min(shape)
    y, x = np.mgrid[:side, :side]
    waves = [np.sin(x / 3), np.sin(y / 3), np.sin((x + y) / 4), np.sin((x - y) / 4)]
    for kind, wave in enumerate(waves):
        (folder / "abcd"[kind]).mkdir()
        for i in range(each):
            pixels: NDArray[Any] = rng.normal(128, 30, (*shape, 3))
            pixels[:side, :side] += 60 * wave[:, :, None]
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image = image.transpose(Image.Transpose.ROTATE_180) if i % 2 else image
            image.save(folder / "abcd"[kind] / f"{i}.jpg", quality=90)


def show(name: str, found: dict[str, Any]) -> None:
    line = f"{name:<14} {found['framing']:<12} out of fold {found['out_of_fold']}"
    print(f"{line}  {found.get('test', '')}  {found['seconds']['total']:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clothing", type=Path)
    parser.add_argument("--produce", type=Path)
    parser.add_argument("--final", action="store_true", help="open produce's test, and log it")
    parser.add_argument("--out", type=Path, default=RESULTS / "framing.json")
    asked = parser.parse_args()
    report = described("framing", "foveate numpy openvino")
    report |= {"date": time.strftime("%Y-%m-%d"), "results": {"long": long_images()}}
    report["results"]["clothing"] = clothing(asked.clothing)
    if asked.produce:
        report["results"]["produce"] = produce(asked.produce, asked.final)
    save(report, asked.out)
