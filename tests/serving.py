"""Servers in threads of this process, and what tests send them."""

import http.client
import json
import socket
import threading
from typing import Any, NamedTuple

from foveate.classifier import Classifier
from foveate.server.app import App
from foveate.server.connection import http_server, listen
from foveate.server.settings import Settings

LIMIT = 60  # seconds after which a test fails rather than hangs


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A server that listens, in a thread."""

    def __init__(self, classifier: Classifier, **settings: Any):
        self.app = App(classifier, Settings(**settings))
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = http_server(self.app)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def image(self, data: bytes, path: str = "/v1/predict", kind: str = "image/jpeg") -> Answer:
        return self.ask("POST", path, data, {"Content-Type": kind})

    def files(self, *files: tuple[str, bytes], path: str = "/v1/predict") -> Answer:
        body = b"".join(part(name, data) for name, data in files) + b"--edge--\r\n"
        return self.ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=edge"})

    def raw(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        connection.sendall(data)
        return connection

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        self.app.close()
        assert (self.app.held.bytes, self.app.batcher.waiting) == (0, 0)


def part(name: str, data: bytes, field: str = "file") -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    found = b""
    try:
        while some := connection.recv(65536):
            found += some
    except ConnectionResetError:
        pass
    return found
