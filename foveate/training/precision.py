"""f32 or bf16: decided from what the processor has, never from a timing, which could differ when a run is resumed."""

from typing import Literal

import torch

from foveate.runs import instructions

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
