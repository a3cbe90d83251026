"""The canon beside torchvision: the same network, weights and images; forward, training step and
peak memory.

    python benchmarks/networks.py [--networks resnet18,densenet121] [--repeats 5] [--batch 8]

Times are taken in one process, the two libraries in turns, A B B A, so that what disturbs one
disturbs the other; the ratio is that of their medians. A training step is forward, cross-entropy
(auxiliary heads included) and backward. Memory is the peak of a process of its own during two
training steps, less what the process held before the first. `densenet121+saving` is the
memory-saving forward beside torchvision's ordinary one.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from machine import RESULTS, described, save
from torch import Tensor, nn

from foveate import models

NETWORKS = (
    "alexnet vgg11 vgg11_bn googlenet inception_v3 resnet18 resnet50 squeezenet1_0 squeezenet1_1 "
    "densenet121 densenet121+saving mobilenet_v2 mobilenet_v3_small mobilenet_v3_large "
    "shufflenet_v2_x1_0 efficientnet_b0"
).split()


def ours(name: str) -> nn.Module:
    plain, _, saving = name.partition("+")
    return models.recompute(models.build(plain)) if saving else models.build(plain)


def theirs(name: str) -> nn.Module:
    name = name.partition("+")[0]
    options = {"transform_input": False, "init_weights": False, "aux_logits": True}
    return getattr(torchvision.models, name)(
        **(options if name in ("googlenet", "inception_v3") else {})
    )


def images(name: str, batch: int) -> Tensor:
    side = 299 if name == "inception_v3" else 224
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def forward(network: nn.Module, x: Tensor) -> None:
    network.eval()
    with torch.no_grad():
        network(x)


def step(network: nn.Module, x: Tensor) -> None:
    network.train()
    network.zero_grad()
    out = network(x)
    labels = torch.arange(len(x)) % 1000
    heads = [out] if isinstance(out, Tensor) else [o for o in out if o is not None]
    torch.stack([nn.functional.cross_entropy(o, labels) for o in heads]).sum().backward()


def seconds(act: Callable[[nn.Module, Tensor], None], network: nn.Module, x: Tensor) -> float:
    begun = time.perf_counter()
    act(network, x)
    return time.perf_counter() - begun


def side_by_side(name: str, batch: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    a, b, x = ours(name), theirs(name), images(name, batch)
    a.load_state_dict(b.state_dict())
    found = {}
    for label, act in (("forward", forward), ("step", step)):
        act(a, x)
        act(b, x)
        mine, other = [], []
        for _ in range(repeats):
            mine.append(seconds(act, a, x))
            other += [seconds(act, b, x), seconds(act, b, x)]
            mine.append(seconds(act, a, x))
        found[f"{label}_s"] = round(statistics.median(mine), 4)
        found[f"{label}_torchvision_s"] = round(statistics.median(other), 4)
        found[f"{label}_ratio"] = round(statistics.median(mine) / statistics.median(other), 3)
    return found


def resident() -> int:
    """Bytes this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak(name: str, library: str, batch: int) -> int:
    """Bytes that two training steps need beyond what the process held before."""
    network, x = (ours if library == "foveate" else theirs)(name), images(name, batch)
    before = resident()
    step(network, x)
    step(network, x)
    return highest() - before


def highest() -> int:
    """The most bytes this process ever held. Not `ru_maxrss`, which a process inherits from the one
    that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peaks(name: str, batch: int) -> dict[str, float]:
    found = {}
    for library in ("foveate", "torchvision"):
        command = [
            sys.executable,
            __file__,
            "--peak",
            library,
            "--networks",
            name,
            "--batch",
            str(batch),
        ]
        # Without it glibc keeps freed blocks of middling size, and the peak is that of its habits,
        # not of the network.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        found[library] = int(
            subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout
        )
    return {
        "peak_mb": found["foveate"] >> 20,
        "peak_torchvision_mb": found["torchvision"] >> 20,
        "peak_ratio": round(found["foveate"] / found["torchvision"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "networks.json")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.networks, arguments.peak, arguments.batch))
        return

    results = {}
    print(
        f"{'network':22} {'forward':>9} {'step':>9} {'memory':>9}   ratio to torchvision, below 1 "
        "is better"
    )
    for name in arguments.networks.split(","):
        found = side_by_side(name, arguments.batch, arguments.repeats) | peaks(
            name, arguments.batch
        )
        results[name] = found
        print(
            f"{name:22} {found['forward_ratio']:9.3f} {found['step_ratio']:9.3f} "
            f"{found['peak_ratio']:9.3f}",
            flush=True,
        )
    report = {
        **described("networks", "foveate torch torchvision"),
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "results": results,
    }
    save(report, arguments.out)


if __name__ == "__main__":
    main()
