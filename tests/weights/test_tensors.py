"""Weights from a user's own files: no code runs, every misfit is named, any writer is read."""

import io
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import absent, refused
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from foveate import models
from foveate.errors import ArtefactError, FoveateError
from foveate.weights import build
from foveate.weights.tensors import read_held, read_tensors

NETWORK, LITE0 = "efficientnet_b0", "efficientnet_lite0"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A fine-tuned network of five classes."""
    torch.manual_seed(0)
    return models.build(NETWORK, 5).eval()


@pytest.fixture
def state(network: nn.Module) -> State:
    return OrderedDict(network.state_dict())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def same(built: nn.Module, network: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(built.eval()(x), network(x))


# What fits


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_formats(form: str, network: nn.Module, state: State, x: Tensor, tmp_path: Path) -> None:
    path = tmp_path / ("mine.safetensors" if form == "safetensors" else "mine.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    built = build(NETWORK, weights=path)
    assert built.head.out_features == 5  # as many as the file has
    assert same(built, network, x)
    assert same(build(NETWORK, weights=str(path), num_classes=5, in_channels=3), network, x)


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def averaged(state: State) -> State:
    """As torch's AveragedModel keeps it."""
    return {"n_averaged": torch.tensor(3)} | prefixed("module", state)


PLAIN_DATA = {
    "args": Namespace(lr=0.1, out=Path("runs"), inner=Namespace(a=(1, 2))),
    "best": np.float64(0.9),
    "each": np.zeros(3),
    "names": np.array(["a", None], dtype=object),
    "counts": defaultdict(list, a=[1]),
    "last": deque([0.5, 0.6], maxlen=9),
    "when": datetime(2026, 1, 1, tzinfo=UTC),
    "torch": torch.__version__,
    "classes": frozenset("ab"),
}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 3, "best": 0.9, "optimizer": {"lr": 0.1}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"model": {"state_dict": s}} and {"state_dict": {"model": s}},
        lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {
            k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in s.items()
        },
        lambda s: {k: v for k, v in s.items() if "num_batches_tracked" not in k},
        lambda s: dict(reversed(s.items())),
        lambda s: {"epoch": 1, "model_state_dict": s, "optimizer_state_dict": {"state": {}}},
        lambda s: {"net": {"weights": {"params": s}}},
        lambda s: {"ema": s},
        lambda s: {"state_dict_ema": zeros(s), "state_dict": s},
        lambda s: {"model_ema": averaged(zeros(s)), "model": s},
        lambda s: averaged(s),
        lambda s: {f"model.{k}": v for k, v in s.items()} | {"criterion.weight": torch.ones(5)},
        lambda s: {"state_dict": {f"model.net.{k}": v for k, v in s.items()}},
        lambda s: prefixed("teacher", zeros(s)) | prefixed("student", s),
        lambda s: s | {"total_ops": torch.ones(1), "features.0.total_params": torch.ones(1)},
        lambda s: {"state_dict": s, "args": PLAIN_DATA},
        lambda s: s | {"epoch": 3},
    ],
    ids=(
        "state_dict model module compiled nested parameters double channels_last uncounted reversed"
        " tutorial deep ema ema_beside model_ema averaged lightning twice teacher profiled plain"
        " among"
    ).split(),
)
def test_what_training_scripts_leave(
    wrap: Callable[[State], object], network: nn.Module, state: State, x: Tensor, tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "mine.pth")
    built = build(NETWORK, weights=tmp_path / "mine.pth")
    assert same(built, network, x)
    assert all(
        t.is_contiguous() and t.dtype in (torch.float32, torch.int64)
        for t in built.state_dict().values()
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_data_beside_the_tensors_is_never_made(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Namespace, "__init__", lambda *_, **__: pytest.fail("it was made"))
    content = {"a": torch.zeros(1), "args": Namespace.__new__(Namespace), "n": np.float32(1)}
    torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
    before = set(torch.serialization.get_safe_globals())
    held = read_held(tmp_path / "x")
    assert list(held.tensors) == ["a"] and held.beside == ("args", "n")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("name", ["best.pth.tar", "last.ckpt", "pytorch_model.bin", "w", "a#b.pth"])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_any_file_is_a_file(
    form: str,
    name: str,
    network: nn.Module,
    state: State,
    x: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(state, name) if form == "safetensors" else torch.save(state, name)
    assert same(build(NETWORK, weights=name), network, x)  # as text, relative
    assert same(build(NETWORK, weights=Path(name)), network, x)


def test_a_set_is_chosen_by_its_key(
    network: nn.Module, state: State, x: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.pth"
    torch.save({"model": zeros(state), "model_ema": averaged(state), "optimizer": {}}, path)
    assert same(build(NETWORK, weights=f"{path}#model_ema"), network, x)
    assert not absent(caplog.text, "n_averaged") and "last.pth#" not in caplog.text.split("n_av")[1]
    assert not build(NETWORK, weights=path).head.weight.any()
    assert not absent(caplog.text, "last.pth#model_ema")  # it is said that there is another
    with refused(ArtefactError, "last.pth", "'ema'", "'model'", "'model_ema'"):
        build(NETWORK, weights=f"{path}#ema")
    torch.save(prefixed("student", zeros(state)) | prefixed("teacher", state), path)
    assert same(build(NETWORK, weights=f"{path}#teacher"), network, x)
    held = read_held(path)
    assert (held.key, len(held.tensors), held.sets) == ("", 2 * len(state), {})


def test_what_is_left_is_said(state: State, tmp_path: Path, caplog: Any) -> None:
    torch.save(prefixed("net", state) | {"loss.weight": torch.ones(5)}, tmp_path / "x.ckpt")
    build(NETWORK, weights=tmp_path / "x.ckpt")
    assert not absent(caplog.text, "x.ckpt", "'loss.weight'")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(
    dtype: torch.dtype, network: nn.Module, state: State, x: Tensor, tmp_path: Path
) -> None:
    save_file(
        {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()},
        tmp_path / "half.safetensors",
    )
    built = build(NETWORK, weights=tmp_path / "half.safetensors").eval()
    assert all(p.dtype == torch.float32 for p in built.parameters())
    assert torch.equal(built.head.weight, network.head.weight.to(dtype).float())


def test_another_number_of_classes_or_channels_is_given_by_surgery(
    state: State, x: Tensor, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "mine.pth")
    built = build(NETWORK, weights=tmp_path / "mine.pth", num_classes=7, in_channels=1)
    assert built.head.out_features == 7
    assert built.eval()(x[:, :1]).shape == (2, 7)
    kept = {
        name
        for name, tensor in built.state_dict().items()
        if torch.equal(tensor, state.get(name, torch.zeros(())))
    }
    assert set(state) - kept == {"features.0.0.weight", "classifier.1.weight", "classifier.1.bias"}


def test_grey_networks(tmp_path: Path) -> None:
    torch.save(models.build(NETWORK, 3, 1).state_dict(), tmp_path / "grey.pth")
    built = build(NETWORK, weights=tmp_path / "grey.pth")
    assert built.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 3)


def test_published_names_are_known(tmp_path: Path) -> None:
    """Lite's own file, and DenseNet's dotted names, in a user's hands."""
    from foveate.weights import WEIGHTS, source_file

    published = source_file(WEIGHTS[LITE0])
    torch.manual_seed(0)
    first = build(LITE0, weights="imagenet").state_dict()
    assert all(
        torch.equal(t, first[name])
        for name, t in build(LITE0, weights=published).state_dict().items()
    )


def test_densenets_dotted_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = get_model("densenet121", weights=None).eval()
    inverse = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
    dotted = {inverse.sub(r"\1.\2.", name): tensor for name, tensor in theirs.state_dict().items()}
    assert "features.denseblock2.denselayer12.norm.2.running_var" in dotted
    torch.save(dotted, tmp_path / "dense.pth")
    x = torch.randn(1, 3, 64, 64)
    assert same(build("densenet121", weights=tmp_path / "dense.pth"), theirs, x)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_have_the_files_classes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"aux_logits": True, "init_weights": False}
    theirs = get_model(name, weights=None, num_classes=4, **options)
    torch.save(theirs.state_dict(), tmp_path / "aux.pth")
    built = build(name, weights=tmp_path / "aux.pth")
    assert all(torch.equal(t, theirs.state_dict()[key]) for key, t in built.state_dict().items())
    assert [built.get_submodule(path).out_features for path in built.AUXILIARY] == len(
        built.AUXILIARY
    ) * [4]
    other = build(name, weights=tmp_path / "aux.pth", num_classes=6)
    assert [other.get_submodule(path).out_features for path in other.AUXILIARY] == len(
        other.AUXILIARY
    ) * [6]


# What does not


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with refused(ArtefactError, name, ".pth", ".safetensors"):
        build(NETWORK, weights=tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.pth").mkdir()
    with refused(ArtefactError, "x.pth"):
        build(NETWORK, weights=tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda s: s.pop("classifier.1.bias"), ["1 missing: classifier.1.bias"]),
        (
            lambda s: s.pop("classifier.1.weight"),
            ["1 missing: classifier.1.weight", "classifier.1.bias (5, expected 1000)"],
        ),
        (lambda s: s.pop("features.0.0.weight"), ["1 missing: features.0.0.weight"]),
        (lambda s: s.update(extra=torch.zeros(2)), ["1 unexpected: extra"]),
        (
            lambda s: s.update({"features.0.0.weight": torch.zeros(32, 3, 5, 5)}),
            ["shape", "features.0.0.weight (32x3x5x5, expected 32x3x3x3)"],
        ),
        (
            lambda s: s.update({"classifier.1.bias": torch.zeros(5, dtype=torch.int32)}),
            ["classifier.1.bias (5 torch.int32, expected 5)"],
        ),
        (
            lambda s: s.update({"classifier.1.bias": torch.zeros(5, dtype=torch.complex64)}),
            ["classifier.1.bias (5 torch.complex64, expected 5)"],
        ),
        (
            lambda s: s.update({"classifier.1.bias": torch.zeros(6)}),
            ["classifier.1.bias (6, expected 5)"],
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.zeros(0, 1280)}),
            ["classifier.1.weight (0x1280, expected 1000x1280)"],
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.zeros(())}),
            ["classifier.1.weight (one number, expected 1000x1280)"],
        ),
    ],
    ids="bias head stem extra kernel integer complex bias-shape no-classes scalar".split(),
)
def test_misfits_are_named(
    change: Callable[[State], object], names: list[str], state: State, tmp_path: Path
) -> None:
    change(state)
    torch.save(state, tmp_path / "mine.pth")
    with refused(ArtefactError, "mine.pth", "360", *names):
        build(NETWORK, weights=tmp_path / "mine.pth")


def test_of_many_misfits_a_few_are_named(state: State, tmp_path: Path) -> None:
    torch.save(models.build("efficientnet_b2").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ArtefactError) as caught:
        build(NETWORK, weights=tmp_path / "other.pth")
    said = str(caught.value)
    assert not absent(said, "other.pth", "unexpected", "...", "foveate weights check")
    assert len(said) < 1200


class Evil:
    """Leaves a marker when it is unpickled the plain way."""

    marker = ""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.marker),)  # type: ignore[return-value]


class EvilSystem(Evil):
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


class EvilEval(Evil):
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({self.marker!r}, 'w')",)


def hostile(kind: str, thing: object, state: State) -> bytes:
    file = io.BytesIO()
    match kind:
        case "plain pickle":
            return pickle.dumps(thing)
        case "old pickle":
            return pickle.dumps(thing, protocol=0)
        case "zip":
            torch.save(thing, file)
        case "legacy":
            torch.save(thing, file, _use_new_zipfile_serialization=False)
        case "beside the tensors":
            torch.save({"state_dict": state, "config": thing}, file)
        case "among the tensors":
            torch.save(state | {"extra": thing}, file)
        case "in a module":
            module = nn.Linear(2, 2)
            module.thing = thing
            torch.save(module, file)
    return file.getvalue()


KINDS = [
    "plain pickle",
    "old pickle",
    "zip",
    "legacy",
    "beside the tensors",
    "among the tensors",
    "in a module",
]


@pytest.mark.parametrize("name", ["mine.pth", "mine.pt", "mine.bin", "mine.safetensors"])
@pytest.mark.parametrize("evil", [Evil, EvilSystem, EvilEval])
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_runs_code(
    kind: str,
    evil: type[Evil],
    name: str,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a user may have set it in a profile
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    evil.marker = str(tmp_path / "marker")
    small = {"a": torch.zeros(1)}
    (tmp_path / name).write_bytes(hostile(kind, evil(), small))
    with refused(ArtefactError, name, "damaged"):
        build(NETWORK, weights=tmp_path / name)
    assert not (tmp_path / "marker").exists()


def test_the_marker_would_appear(tmp_path: Path) -> None:
    """The tests above can fail: unpickled without precautions, each of these does run."""
    for i, evil in enumerate((Evil, EvilSystem, EvilEval)):
        evil.marker = str(tmp_path / f"marker{i}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file that nobody closed
            pickle.loads(pickle.dumps(evil()))
        assert Path(evil.marker).exists()


class Settings:
    """Of a user's own, so that nothing is known about it."""


def test_the_remedy_is_named(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state, "args": Settings()}, tmp_path / "mine.pth")
    with refused(ArtefactError, "mine.pth", "Settings", "torch.save(network.state_dict(), FILE)"):
        build(NETWORK, weights=tmp_path / "mine.pth")


def test_only_the_reason_is_named(tmp_path: Path) -> None:
    """Torch adds how to allow what may run code."""
    torch.save(nn.Linear(2, 2), tmp_path / "mine.pth")
    with pytest.raises(ArtefactError) as caught:
        build(NETWORK, weights=tmp_path / "mine.pth")
    assert "Linear)" in str(caught.value) and "safe_globals" not in str(caught.value)


def scripted(path: Path, state: State) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its makers call it old
        torch.jit.script(nn.ReLU()).save(path)


def packed(path: Path, state: State) -> None:
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as parts, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for part in parts.infolist():
            bomb.writestr(part.filename, parts.read(part))


def cut(path: Path, state: State) -> None:
    torch.save(state, path)
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (lambda path, s: path.write_bytes(b""), ["empty"]),
        (lambda path, s: path.write_bytes(b"version https://git-lfs.github.com/"), ["LFS"]),
        (lambda path, s: path.write_bytes(b"<!DOCTYPE html>\n"), ["web page"]),
        (lambda path, s: path.write_bytes(b"\xff\xd8\xff\xe0"), ["image"]),
        (lambda path, s: path.write_bytes(b"garbage garbage"), ["damaged", "operand 103"]),
        (lambda path, s: path.write_bytes(b"PK\x03\x04" + bytes(100)), ["damaged"]),
        (lambda path, s: path.write_bytes(bytes(1000)), ["damaged"]),
        (cut, ["damaged"]),
        (scripted, ["TorchScript", "more than tensors", "torch.jit.load(FILE)"]),
        (packed, ["unpack to 4,000,", "bytes"]),
        (
            lambda path, s: torch.save(nn.Linear(2, 2), path),
            ["more than tensors", "torch.nn.modules.linear.Linear"],
        ),
        (lambda path, s: torch.save(torch.zeros(3), path), ["no state_dict"]),
        (lambda path, s: torch.save([s], path), ["no state_dict"]),
        (lambda path, s: torch.save({}, path), ["no state_dict"]),
        (lambda path, s: torch.save({"model": {}}, path), ["no state_dict"]),
        (lambda path, s: torch.save({"weights": [s]}, path), ["no state_dict"]),
        (lambda path, s: torch.save({1: torch.zeros(2)}, path), ["no state_dict"]),
        (
            lambda path, s: torch.save(
                s | {"classifier.1.weight": torch.zeros(1).expand(10**12, 1280)}, path
            ),
            ["every number", "'classifier.1.weight'"],
        ),
        (
            lambda path, s: torch.save(s | {"classifier.1.bias": torch.ones(5).to_sparse()}, path),
            ["every number", "'classifier.1.bias'", "sparse"],
        ),
        (
            lambda path, s: torch.save(
                s | {"classifier.1.bias": torch.ones(5, device="meta")}, path
            ),
            ["every number", "'classifier.1.bias'"],
        ),
    ],
)
def test_damaged_and_impossible_files(
    write: Callable[[Path, State], object], names: list[str], state: State, tmp_path: Path
) -> None:
    write(tmp_path / "x.pth", state)
    with refused(ArtefactError, "x.pth", *names):
        build(NETWORK, weights=tmp_path / "x.pth")


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 100, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"]
)
def test_damaged_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with refused(
        ArtefactError, "x.safetensors", "safetensors" if content[:1] != b"\x02" else "state_dict"
    ):
        build(NETWORK, weights=tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_fuzzed_files_give_only_our_errors(suffix: str, tmp_path: Path) -> None:
    path, rng = tmp_path / f"x{suffix}", torch.Generator().manual_seed(0)
    state = {"a": torch.arange(20.0), "b": torch.zeros(2, 3)}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    good = path.read_bytes()
    read = 0
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(int(torch.randint(1, 6, (), generator=rng))):
            bad[int(torch.randint(len(bad), (), generator=rng))] = int(
                torch.randint(256, (), generator=rng)
            )
        path.write_bytes(bad)
        try:
            read_tensors(path)
            read += 1
        except FoveateError:
            pass
    assert read < 300
