"""V3: slow clients time out and others are served. V4: overload gives 503 with Retry-After and
recovers; a graceful stop loses no accepted request."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import LIMIT, Running, everything

from foveate.classifier import Classifier

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
WAIT = b"Expect: 100-continue\r\n"  # the server says when it begins to read

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def photo(photos: list[Path]) -> bytes:
    return photos[0].read_bytes()


def length(data: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(data)


class Gate:
    """Lets the engine begin a batch only when it is opened; notes what each batch was.

    Args:
        running: whose engine.
    """

    def __init__(self, running: Running, patch: pytest.MonkeyPatch):
        self.opened, self.batches = threading.Event(), list[int]()
        self.app = running.app
        outcomes = self.app.classifier.outcomes

        def gated(images: Any) -> Iterator[Any]:
            assert self.opened.wait(LIMIT)
            images = list(images)
            self.batches.append(len(images))
            yield from outcomes(images)

        patch.setattr(self.app.classifier, "outcomes", gated)

    def until(self, decoded: int) -> None:
        """Wait until so many images are decoded and not yet with the engine."""
        while len(self.app.batcher.ready) < decoded:
            assert self.app.batcher.alive


class Asked(threading.Thread):
    """A request for each image, in a thread."""

    def __init__(self, running: Running, photo: bytes):
        super().__init__()
        self.running, self.photo, self.status = running, photo, 0
        self.start()

    def run(self) -> None:
        self.status = self.running.image(self.photo).status


def test_v3_slow_clients_end_and_others_are_served(serve: Serve, photo: bytes) -> None:
    server = serve(head_seconds=0.3, body_seconds=0.3)
    silent, slow_head = server.raw(), server.raw(b"GET / HTTP/1.1\r\nHost:")
    slow_body = server.raw(HEAD + length(photo) + photo[:100])
    assert server.image(photo).status == 200
    assert everything(silent) == everything(slow_head) == b""
    found = everything(slow_body)
    assert found.startswith(b"HTTP/1.1 408") and b"0.3 seconds" in found
    for connection in (silent, slow_head, slow_body):
        connection.close()
    # the second request of a connection, too
    with server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as second:
        found = b""
        while b"alive" not in found:
            found += second.recv(1000)
        second.sendall(b"GET /healthz HT")
        assert b"HTTP" not in everything(second)


def test_v3_a_client_that_never_reads_is_left(serve: Serve, photo: bytes) -> None:
    server = serve(write_seconds=0.3)
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(LIMIT)
        greedy.connect(("127.0.0.1", server.port))
        ask = b"GET /page/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        try:
            while True:  # until the server reads no more, and then has enough of it
                greedy.sendall(ask)
                assert server.image(photo).status == 200
        except OSError as error:
            assert not isinstance(error, TimeoutError)
    assert server.image(photo).status == 200


def test_v4_all_that_waits_is_one_batch(
    refusing: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Running(Classifier.load(refusing, 1))  # whose engine has one stream
    gate = Gate(server, monkeypatch)
    asked = [Asked(server, photo) for _ in range(7)]
    gate.until(7)
    gate.opened.set()
    for one in asked:
        one.join(LIMIT)
    server.stop()
    assert [one.status for one in asked] == [200] * 7 and gate.batches == [7]


def test_v4_with_many_clients_each_gets_its_own_answer(server: Running, photos: list[Path]) -> None:
    data = [path.read_bytes() for path in photos]
    alone = [server.image(one).json["predictions"] for one in data]
    with ThreadPoolExecutor(16) as pool:
        each = pool.map(server.image, data * 10)
    assert [answer.json["predictions"] for answer in each] == alone * 10


def test_v4_overload_is_refused_and_passes(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(waiting=4)
    gate = Gate(server, monkeypatch)
    asked = [Asked(server, photo) for _ in range(4)]
    gate.until(4)
    more = server.image(photo)
    assert more.status == 503 and 1 <= int(more.headers["Retry-After"]) <= 60
    assert server.ask("GET", "/readyz").status == 503
    assert server.ask("GET", "/healthz").status == 200
    gate.opened.set()
    for one in asked:
        one.join(LIMIT)
    assert [one.status for one in asked] == [200] * 4
    assert server.image(photo).status == server.ask("GET", "/readyz").status == 200


def test_v4_explanations_wait_in_a_line_of_their_own(
    serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(server.app, "slow_waiting", 4)
    answer = server.image(photo, "/v1/explain")
    assert answer.status == 503 and "Retry-After" in answer.headers
    assert server.image(photo).status == 200


def test_v4_connections_are_bounded(serve: Serve, photo: bytes) -> None:
    server = serve(connections=3)
    held = [server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)]
    assert all(one.recv(100).startswith(b"HTTP/1.1 200") for one in held)
    with server.raw() as fourth:
        found = everything(fourth)
    assert found.startswith(b"HTTP/1.1 503") and b"retry-after" in found.lower()
    for one in held:
        one.close()
    while server.server.server_state.connections:
        assert server.thread.is_alive()
    assert server.image(photo).status == 200


def test_v4_an_engine_that_fails_fails_its_batch_alone(
    serve: Serve, photo: bytes, refusing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def broken(images: Any) -> Iterator[Any]:
        list(images)
        raise RuntimeError(f"{refusing}/classifier is broken")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(server.app.classifier, "outcomes", broken)
        answer = server.image(photo)
    assert answer.status == 500 and str(refusing) not in answer.body.decode()
    assert server.image(photo).status == 200 and server.app.batcher.failures == 1


@pytest.mark.slow
def test_v4_ten_thousand_connections_in_turn(serve: Serve, photo: bytes) -> None:
    server = serve()
    for _ in range(10_000):
        with server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert server.image(photo).status == 200


@contextmanager
def started(*arguments: object, **environment: str) -> Iterator[tuple[Any, int]]:
    """`foveate serve ARGUMENTS` in a process of its own, and its port."""
    words = [sys.executable, "-m", "foveate", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert "http://127.0.0.1:" in line, line + process.stderr.read()
        yield process, int(line.rsplit(":", 1)[1].strip(" /\n"))
    finally:
        process.kill()
        process.communicate()


def begun(port: int, photo: bytes) -> socket.socket:
    """A request that the server has accepted, and of which half is there."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    connection.sendall(HEAD + WAIT + length(photo))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    connection.sendall(photo[:1000])
    return connection


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_v4_a_graceful_stop_answers_what_it_has_accepted(
    refusing: Path, photo: bytes, sign: signal.Signals
) -> None:
    with started(refusing) as (process, port):
        connections = [begun(port, photo) for _ in range(5)]
        idle = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        process.send_signal(sign)
        assert everything(idle) == b""  # it is stopping
        idle.close()
        for connection in connections:
            connection.sendall(photo[1000:])
        answers = [everything(connection) for connection in connections]
        for connection in connections:
            connection.close()
        assert all(one.startswith(b"HTTP/1.1 200") and b'"label"' in one for one in answers)
        assert process.wait(LIMIT) == 0 and process.stderr.read() == ""
    assert refuses(port)


def test_v4_a_second_signal_ends_it_at_once(refusing: Path, photo: bytes) -> None:
    with started(refusing) as (process, port):
        connection = begun(port, photo)
        idle = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        process.send_signal(signal.SIGTERM)
        assert everything(idle) == b""
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 143
        connection.close()
        idle.close()
