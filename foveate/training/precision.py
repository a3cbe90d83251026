"""f32 or bf16: decided from what the processor has, never from a timing, which could differ when a run is resumed."""

from pathlib import Path
from typing import Literal

import torch

PAYS = {"avx512_bf16", "amx_bf16"}  # instruction sets that multiply bf16 faster than f32


def choose_precision(wish: Literal["auto", "f32", "bf16"], device: str) -> Literal["f32", "bf16"]:
    """The precision of convolutions and linear layers in training; weights and their updates are always f32.

    Args:
        wish: what was asked.
        device: "cpu", "cuda" or "mps"; Apple's GPUs compute in f32.
    """
    if wish != "auto":
        return wish
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    return "bf16" if device == "cpu" and PAYS & instructions() else "f32"


def instructions() -> set[str]:
    """The CPU's instruction sets; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith(("flags", "Features")))
    return set(next(lines, []))
