"""What a run learnt."""

from pathlib import Path


def tensors(run: Path) -> bytes:
    return (run / "classifier" / "model.safetensors").read_bytes()
