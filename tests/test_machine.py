"""Cores, instruction sets, memory and devices, from the system's files."""

import json
import platform
from pathlib import Path

import pytest
from refusals import refused

from foveate import machine
from foveate.errors import UsageError
from foveate.machine import (
    PACKAGES,
    cores,
    cores_to_use,
    cpu_name,
    environment,
    free_memory,
    installed,
    instructions,
)
from foveate.progress import Progress, Silent


def test_cores_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert [cores_to_use(n) for n in (None, 1, 3, 64)] == [4, 1, 3, 4]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores_to_use(None) == 2


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True])
def test_a_number_of_threads_that_is_none(threads: object) -> None:
    with refused(UsageError, "threads", repr(threads)):
        cores_to_use(threads)  # type: ignore[arg-type]


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores() >= 1
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert cores() == 1


def test_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = free_memory()
    assert everything > 10 << 20
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory() == pytest.approx(everything / 4, rel=0.5)
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 800 kB\n"}
    groups = "/sys/fs/cgroup/"
    monkeypatch.delenv("LOCAL_WORLD_SIZE")

    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert free_memory() == 800 << 10
    files |= {groups + "memory.max": "max\n", groups + "memory.current": "5\n"}
    assert free_memory() == 800 << 10
    files |= {groups + "memory.max": "1000\n"}
    assert free_memory() == 995
    files |= {groups + "memory.stat": "anon 1\nactive_file 1\ninactive_file 2\nfile 3\n"}
    assert free_memory() == 998  # cached files are freed when memory is needed
    files |= {
        groups + "memory/memory.limit_in_bytes": "600\n",
        groups + "memory/memory.usage_in_bytes": "700\n",
    }
    assert free_memory() == 0
    files.clear()
    assert free_memory() == 4 << 30


def test_instructions_where_the_system_does_not_list_them(monkeypatch):
    def refuse(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.delenv("FOVEATE_INSTRUCTIONS", raising=False)
    monkeypatch.setattr(Path, "read_text", refuse)
    assert instructions() == set()
    monkeypatch.setenv("FOVEATE_INSTRUCTIONS", "avx2 avx512_bf16")
    assert instructions() == {"avx2", "avx512_bf16"}


def test_environment_names_the_machine_and_not_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "grace-hopper")
    found = environment()
    assert set(found) == {"python", "system", "cpu", "cores", "packages"}
    assert found["python"] == platform.python_version()
    assert set(found["packages"]) <= set(PACKAGES) and "numpy" in found["packages"]
    text = json.dumps(found)
    assert all(
        private not in text
        for private in ("grace-hopper", platform.node(), str(Path.home()))
        if private
    )


def test_installed() -> None:
    import numpy

    assert installed("numpy") == numpy.__version__
    assert installed("no-such-package-anywhere") == ""


@pytest.mark.parametrize(
    "cpuinfo,expected",
    [
        (
            "processor : 0\nmodel name\t: Abacus: 3000 @ 2 Hz\nmodel name : other\n",
            "Abacus: 3000 @ 2 Hz",
        ),
        ("processor : 0\n", "beads"),
        (None, "beads"),
    ],
)
def test_cpu_name(monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, expected: str) -> None:
    def read_text(_: Path) -> str:
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(machine.platform, "processor", lambda: "beads")
    assert cpu_name() == expected
    if expected == "beads":
        monkeypatch.setattr(machine.platform, "processor", lambda: "")
        monkeypatch.setattr(machine.platform, "machine", lambda: "wood")
        assert cpu_name() == "wood"


def test_silent_progress_hears_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    progress.begin("features", 3)
    progress.advance()
    progress.advance(2)
    assert capsys.readouterr() == ("", "")
