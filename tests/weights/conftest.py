"""A local server of weights, and an entry of the table that points to it."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.torch import save_file
from torch import Tensor

from foveate import download, models
from foveate.storage import sha256
from foveate.weights import WEIGHTS, Weights
from foveate.weights.files import kept_file

NETWORK = "efficientnet_b0"


class Handler(BaseHTTPRequestHandler):
    """Serves one body under several names, each in its own way, and counts."""

    server: "WeightsServer"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body, whole = self.server.body, len(self.server.body)
        match self.path:
            case "/good":
                self.send(body, whole)
            case "/meet":  # waits until two have asked
                self.server.both.wait(20)
                self.send(body, whole)
            case "/cut":
                self.send(body[: whole // 2], whole)
            case "/corrupt":
                self.send(body[:-1] + bytes([body[-1] ^ 1]), whole)
            case "/larger":
                self.send(body + bytes(whole), 2 * whole)
            case "/endless":
                self.send(body, None)
            case "/stall":
                self.send(body[:1000], whole)
                self.server.stopped.wait(30)
            case "/redirect":
                self.send_response(302)
                self.send_header("Location", "http://example.com/good")
                self.end_headers()
            case _:
                self.send_error(404)

    def send(self, body: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):  # the client had enough
            pass


class WeightsServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.asked: list[str] = []
        self.stopped = threading.Event()
        self.both = threading.Barrier(2)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FOVEATE_OFFLINE", raising=False)
    monkeypatch.delenv("FOVEATE_MIRROR", raising=False)
    with WeightsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def publish(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Weights]:
    """(body, path, published digits of the hash) -> the entry of NETWORK, now at that path."""

    def point(body: bytes, path: str = "/good", digits: int = 8) -> Weights:
        server.body = body
        digest = hashlib.sha256(body).hexdigest()[:digits]
        entry = replace(WEIGHTS[NETWORK], url=server.url(path), sha256=digest, size=len(body))
        monkeypatch.setitem(WEIGHTS, NETWORK, entry)
        return entry

    return point


@pytest.fixture
def plant() -> Callable[..., dict[str, Tensor]]:
    """(key, tensors or None) -> the tensors, now in the cache as the key's converted weights."""

    def put(key: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        state = state or models.build(WEIGHTS[key].network).state_dict()
        path = kept_file(WEIGHTS[key])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path)
        path.with_suffix(".sha256").write_text(sha256(path) + "\n")
        return state

    return put
