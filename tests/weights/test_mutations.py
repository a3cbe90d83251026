"""Weights files with a mutation each: all are read, or refused with an error of ours, at once."""

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from foveate.errors import ArtefactError
from foveate.models import build as build_random
from foveate.weights import build
from foveate.weights.diagnosis import diagnose

NETWORK = "resnet20"
BIAS = "fc.bias"
FIRST = "conv1.weight"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return build_random(NETWORK).state_dict()


def quantised(values: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it old
        return torch.quantize_per_tensor(values, 0.1, 0, torch.quint8)


def sparse_rows(values: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it new
        return values.to_sparse_csr()


def bits(dtype: torch.dtype, n: int = 10) -> Tensor:
    return torch.zeros(n, dtype=torch.uint8).view(dtype)


def nested(state: State, levels: int) -> Any:
    return state if levels == 0 else {"inner": nested(state, levels - 1)}


def endless() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content |= {str(i): content for i in range(20)}
    return content


# What is saved in place of the state_dict. True: the network is read from it.
CONTENTS: dict[str, tuple[Callable[[State], Any], bool]] = {
    "as it is": (lambda s: s, True),
    "nested thrice": (lambda s: nested(s, 3), True),
    "nested too deep": (lambda s: nested(s, 12), False),
    "a list of it": (lambda s: [s], False),
    "a tuple of it": (lambda s: (s, 1), False),
    "in a list below": (lambda s: {"models": [s]}, False),
    "nothing": (lambda s: None, False),
    "a number": (lambda s: 3.5, False),
    "a tensor": (lambda s: s[FIRST], False),
    "a text": (lambda s: "weights", False),
    "no tensors": (lambda s: {"epoch": 3}, False),
    "empty dictionaries": (lambda s: {"state_dict": {}, "model": {"net": {}}}, False),
    "dictionaries in themselves": (lambda s: endless(), False),
    "numbers for names": (lambda s: dict(enumerate(s.values())), False),
    "pairs for names": (lambda s: {(k, 0): v for k, v in s.items()}, False),
    "an empty name": (lambda s: s | {"": torch.zeros(1)}, False),
    "a dot for a name": (lambda s: s | {".": torch.zeros(1)}, False),
    "a long name": (lambda s: s | {"x" * 10**5: torch.zeros(1)}, False),
    "names of control characters": (lambda s: {f"\x1b[2J\n{k}": v for k, v in s.items()}, False),
    "names of surrogates": (lambda s: {f"{k}\ud800": v for k, v in s.items()}, False),
    "lists among the tensors": (lambda s: s | {"classes": ["a"], "epoch": 1}, True),
    "a list for a tensor": (lambda s: s | {BIAS: s[BIAS].tolist()}, False),
    "None for a tensor": (lambda s: s | {BIAS: None}, False),
    "quantised": (lambda s: s | {BIAS: quantised(s[BIAS])}, False),
    "all quantised": (lambda s: {k: quantised(v.float()) for k, v in s.items()}, False),
    "float4": (lambda s: s | {BIAS: bits(torch.float4_e2m1fn_x2)}, False),
    "float8": (lambda s: s | {BIAS: bits(torch.float8_e4m3fn)}, True),
    "float8 of another kind": (lambda s: s | {BIAS: bits(torch.float8_e5m2fnuz)}, True),
    "float8 of powers": (lambda s: s | {BIAS: bits(torch.float8_e8m0fnu)}, True),
    "half": (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, True),
    "integers": (lambda s: s | {BIAS: torch.zeros(10, dtype=torch.int32)}, False),
    "complex": (lambda s: s | {BIAS: torch.zeros(10, dtype=torch.complex64)}, False),
    "truths": (lambda s: s | {BIAS: torch.zeros(10, dtype=torch.bool)}, False),
    "NaN": (lambda s: s | {BIAS: torch.full((10,), torch.nan)}, False),
    "infinity": (lambda s: s | {"bn1.running_var": torch.full((16,), torch.inf)}, False),
    "too large for float32": (
        lambda s: s | {BIAS: torch.full((10,), 1e300, dtype=torch.float64)},
        False,
    ),
    "meta": (lambda s: s | {BIAS: torch.zeros(10, device="meta")}, False),
    "all meta": (lambda s: {k: v.to("meta") for k, v in s.items()}, False),
    "sparse": (lambda s: s | {BIAS: torch.ones(10).to_sparse()}, False),
    "sparse rows": (lambda s: s | {"fc.weight": sparse_rows(torch.ones(10, 64))}, False),
    "expanded": (lambda s: s | {BIAS: torch.zeros(1).expand(10)}, False),
    "expanded beyond memory": (lambda s: s | {BIAS: torch.zeros(1).expand(10**12, 9)}, False),
    "overlapping": (
        lambda s: {
            f"{i}.weight": torch.ones(10**5).as_strided((10**5 - i,), (1,)) for i in range(9)
        },
        False,
    ),
    "one storage for many": (lambda s: dict.fromkeys(map(str, range(999)), s["fc.weight"]), False),
    "tied": (lambda s: s | {"layer1.0.bn1.weight": s["bn1.weight"]}, True),
    "transposed": (lambda s: s | {"fc.weight": s["fc.weight"].t().contiguous().t()}, True),
    "another shape": (lambda s: s | {FIRST: torch.zeros(16, 3, 5, 5)}, False),
    "no classes": (lambda s: s | {"fc.weight": torch.zeros(0, 64), BIAS: torch.zeros(0)}, False),
    "no channels": (lambda s: s | {FIRST: torch.zeros(16, 0, 3, 3)}, False),
    "many classes": (
        lambda s: s | {"fc.weight": torch.zeros(10**4, 64), BIAS: torch.zeros(10**4)},
        True,
    ),
    "many dimensions": (lambda s: s | {FIRST: torch.zeros((1,) * 60)}, False),
    "one number": (lambda s: s | {FIRST: torch.zeros(())}, False),
    "all empty": (lambda s: {k: torch.zeros(0) for k in s}, False),
    "thousands of empty ones": (lambda s: {f"x.{i}": torch.zeros(0) for i in range(3000)}, False),
    "a module": (lambda s: nn.Linear(2, 2), False),
    "a parameter": (lambda s: s | {BIAS: nn.Parameter(s[BIAS])}, True),
    "a subclass of tensors": (lambda s: s | {BIAS: nn.Buffer(s[BIAS])}, True),
    "other networks' names": (lambda s: {f"features.{k}": v for k, v in s.items()}, True),
    "two of each": (lambda s: s | {f"copy.{k}": v for k, v in s.items()}, False),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(name: str, state: State, tmp_path: Path) -> None:
    mutate, reads = CONTENTS[name]
    torch.save(mutate(dict(state)), path := tmp_path / "x.pth")
    check(path, reads)


def check(path: Path, reads: bool) -> None:
    """`build` and `diagnose` agree, and refuse with one class of error."""
    try:
        loads = diagnose(path).loads
    except ArtefactError:
        loads = False
    assert loads == reads
    if reads:
        build(NETWORK, weights=path)
    else:
        with pytest.raises(ArtefactError):
            build(NETWORK, weights=path)


def header(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A .safetensors file with another header."""
    n = struct.unpack("<Q", content[:8])[0]
    changed = change(content[8 : 8 + n])
    return struct.pack("<Q", len(changed)) + changed + content[8 + n :]


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "a length alone": lambda b: b[:8],
    "a brace alone": lambda b: b[:9],
    "half": lambda b: b[: len(b) // 2],
    "a byte less": lambda b: b[:-1],
    "a byte more": lambda b: b + b"\0",
    "a length beyond the file": lambda b: struct.pack("<Q", 2**62) + b[8:],
    "no JSON": lambda b: header(b, lambda h: b"{" + b"[" * 10**5),
    "an unknown type": lambda b: header(b, lambda h: h.replace(b'"F32"', b'"F99"', 1)),
    "a type of half a byte": lambda b: header(b, lambda h: h.replace(b'"F32"', b'"F4"', 1)),
    "offsets beyond the file": lambda b: header(b, lambda h: h.replace(b"[0,", b"[9,", 1)),
    "a negative shape": lambda b: header(b, lambda h: h.replace(b"[10]", b"[-9]", 1)),
    "a text for a header": lambda b: header(b, lambda h: b'{"a":"b"}'),
    "compressed": lambda b: b"\x1f\x8b\x08" + b,
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_of_safetensors(name: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(BYTES[name](save(state)))
    check(path, reads=False)


def test_more_tensors_than_any_network_has(tmp_path: Path) -> None:
    save_file({f"{i}": torch.zeros(0) for i in range(20_001)}, tmp_path / "x.safetensors")
    check(tmp_path / "x.safetensors", reads=False)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")  # opening it would wait for ever
    check(tmp_path / "x.pth", reads=False)
