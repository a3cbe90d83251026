"""The Containerfile: what it installs is enough to serve, and what it promises is written in it."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FILE = (ROOT / "examples/Containerfile").read_text(encoding="utf-8")
INSTALLED = re.findall(r'"([a-z][\w.-]*)(>=[\d.]+)"', FILE)
# needed by training alone, so not in the image
ABSENT = ("torch", "torchvision", "scipy", "sklearn", "matplotlib", "timm", "onnx", "onnxruntime")


def test_it_installs_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    wanted = dict(re.match(r"([\w.-]+)(>=[\d.]+)", one).groups() for one in asked)
    assert INSTALLED and all(wanted[name] == version for name, version in INSTALLED)


def test_it_runs_without_rights_and_is_watched() -> None:
    lines = FILE.splitlines()
    assert next(line for line in lines if line.startswith("FROM")).endswith("-slim")
    assert lines.index("USER 10001") < next(
        i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    assert "HEALTHCHECK" in FILE and "/readyz" in FILE and "--read-only" in FILE
    assert "FOVEATE_TOKEN" not in re.sub(r"^#.*$", "", FILE, flags=re.MULTILINE)


def test_what_it_installs_is_enough(
    refusing: Path, photos: list[Path], python: Callable[..., str]
) -> None:
    program = f"""
import os, signal, sys, threading, urllib.request
from pathlib import Path
for name in {ABSENT}:
    sys.modules[name] = None
from foveate.cli import serve as verb
from foveate.server import connection

listen = connection.listen

def listen_and_ask(host, port):
    listener = listen(host, port)
    threading.Thread(target=ask, args=(listener.getsockname()[1],)).start()
    return listener

def ask(port):
    data = Path(sys.argv[2]).read_bytes()
    for path in ("predict", "explain"):
        request = urllib.request.Request(f"http://127.0.0.1:{{port}}/v1/{{path}}", data)
        request.add_header("Content-Type", "image/jpeg")
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(path, answer.status, answer.headers["Content-Type"])
    os.kill(os.getpid(), signal.SIGTERM)

connection.listen = listen_and_ask
verb.serve(Path(sys.argv[1]), port=0)
print("ended")
"""
    said = python(program, refusing, photos[0])
    assert "predict 200 application/json" in said and "explain 200 image/png" in said
    assert said.endswith("ended\n")
