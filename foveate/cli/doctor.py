"""foveate doctor"""

from typing import Annotated, Any

import typer

from foveate.cli.console import JSON_HELP, print_json, say

# the instruction sets that decide how fast networks run
INSTRUCTIONS = "avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8 asimd bf16".split()


def doctor(as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """Show this machine's cores, instruction sets, engines, GPU and cache."""
    found = examine()
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        say(f"{name:<13} {value}")


def examine() -> dict[str, Any]:
    """The entries of the report."""
    from foveate.data.image import DECODER
    from foveate.engine import choose_engine
    from foveate.machine import environment, has_gpu, installed, instructions
    from foveate.storage import cache_root, cache_size

    machine, flags = environment(), instructions()
    engine = choose_engine()
    engines = {"torch": installed("torch") or "missing"}
    if installed("openvino"):
        from foveate.engine.openvino import core, precision

        core()
        engines["openvino"] = f"{installed('openvino')} ({precision()})"
    else:
        engines["openvino"] = "missing (pip install openvino)"
    return {
        "foveate": machine["packages"]["foveate"],
        "python": machine["python"],
        "system": machine["system"],
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "gpu": "found by torch" if has_gpu() else "none",
        "engine": engine,
        "engines": engines,
        "decoder": DECODER,
        "cache": f"{cache_root()} ({sum(cache_size().values()) / 1e6:.0f} MB)",
    }
