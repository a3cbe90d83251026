"""The machine: cores, instruction sets, free memory, devices, installed versions."""

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.arguments import whole_number

if TYPE_CHECKING:
    import torch


PACKAGES = "foveate torch torchvision openvino numpy pillow simplejpeg safetensors".split()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_to_use(threads: int | None, shared: bool = True) -> int:
    """As many as were asked for, if there are so many; by default all, shared by torchrun's
    processes here where they work at the same time.

    Raises:
        UsageError: threads is no whole number of at least 1. With none at work, whoever waits for
            them would wait for ever.
    """
    threads = None if threads is None else whole_number("threads", threads, 1)
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if shared else 1
    return min(threads, cores()) if threads else max(1, cores() // processes)


def environment() -> dict[str, Any]:
    """The machine and the versions, without host or user names."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "packages": {name: v for name in PACKAGES if (v := installed(name))},
    }


def installed(package: str) -> str:
    """The version of a package, or "" when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def instructions() -> set[str]:
    """The CPU's instruction sets; empty where the system does not list them.

    `FOVEATE_INSTRUCTIONS` overrides them, so that tests run as on another processor.
    """
    if named := os.environ.get("FOVEATE_INSTRUCTIONS"):
        return set(named.split())
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (
        line.split(":", 1)[1].split()
        for line in text.splitlines()
        if line.startswith(("flags", "Features"))
    )
    return set(next(lines, []))


def free_memory() -> int:
    """Bytes that this process can still allocate, within its control group's limit too.

    4 GiB where the system does not say; under torchrun, an equal share of each process.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        meminfo = Path("/proc/meminfo").read_text()
        found.append(1024 * int(meminfo.split("MemAvailable:")[1].split()[0]))
    groups = Path("/sys/fs/cgroup")
    for most, now, parts in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            limit, used = (int((groups / name).read_text()) for name in (most, now))
            with contextlib.suppress(OSError, ValueError):
                used -= reclaimable((groups / parts).read_text())
            found.append(max(0, limit - used))
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # set by torchrun
    return min(found, default=4 << 30) // processes


def reclaimable(stat: str) -> int:
    """Bytes of cached files in a control group's memory.stat; the system frees them when needed.

    >>> reclaimable("anon 5\\nactive_file 30\\ninactive_file 12\\n")
    42
    """
    numbers = dict(line.split() for line in stat.splitlines())
    return sum(int(numbers.get(name, 0)) for name in ("active_file", "inactive_file"))


def has_gpu() -> bool:
    """Whether torch finds a GPU. Without a driver it is not imported, which would take seconds."""
    driver = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    if not driver and (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def device() -> "torch.device":
    """The best device of torch: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
