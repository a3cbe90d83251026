"""V1: limits of size, type and count; bounded memory. V2: what is malformed gets an answer, other
than 500."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from serving import Running, everything, part

from foveate.classifier import Classifier

SMALL = 20_000  # bytes of a request


@pytest.fixture(scope="module")
def small(served: Classifier) -> Iterator[Running]:
    """A server with low limits."""
    running = Running(served, body=SMALL, images=3, pixels=100_000, held=50_000, head_seconds=2)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def photo(photos: list[Path]) -> bytes:
    return min((path.read_bytes() for path in photos), key=len)


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 60 bytes that would be 900 million pixels."""
    data = bytearray(png(1, 1))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_v1_a_body_that_is_too_large_is_refused_before_it_is_sent(small: Running) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    with small.raw(head + b"Content-Length: 314572800\r\nConnection: close\r\n\r\n") as connection:
        found = everything(connection)
    assert found.startswith(b"HTTP/1.1 413") and b"20,000" in found


def test_v1_nor_is_one_read_whose_length_is_not_said(small: Running) -> None:
    def chunks() -> Iterator[bytes]:
        while True:
            yield bytes(5000)

    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    with small.raw(head + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        for chunk in chunks():
            try:
                connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            except OSError:
                break
            connection.settimeout(0.01)
            try:
                found = connection.recv(65536)
            except TimeoutError:
                continue
            assert found.startswith(b"HTTP/1.1 413")
            break


@pytest.mark.parametrize(
    ("status", "names", "kind", "body"),
    [
        (413, ["3"], "form", b"".join(part(f"{i}", b"x") for i in range(4)) + b"--edge--"),
        (413, ["20,000"], "image/png", bytes(SMALL + 1)),
        (415, ["multipart/form-data"], "application/json", b"{}"),
        (415, ["multipart/form-data"], "text/html; charset=utf-8", b"<svg>"),
        (422, ["image"], "image/png", b""),
        (422, ["known format"], "image/png", b"http://127.0.0.1/x.png"),
        (422, ["SVG"], "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        (422, ["400x300", "100,000"], "image/png", png(400, 300)),
        (422, ["pixels"], "image/png", bomb()),
        (422, ["boundary"], "multipart/form-data", b"x"),
        (422, ["malformed"], "form", b"x" * 100),
        (422, ["malformed"], "form", part("a", b"x")),
        (422, ["image"], "form", b"--edge--\r\n"),
        (422, ["malformed"], "form", b""),
        (422, ["'file'", "'image'"], "form", part("a", b"x", "image") + b"--edge--"),
        (422, ["'file'"], "form", b"--edge\r\nA: b\r\n\r\nx\r\n--edge--"),
        (422, ["malformed"], "form", b"--edge\r\nA\r\n\r\nx\r\n--edge--"),
        (422, ["malformed"], "form", b"--edge\r\n" + 9 * b"A: b\r\n" + b"\r\nx\r\n--edge--"),
        (422, ["malformed"], "multipart/form-data; boundary=" + 300 * "x", b"x"),
    ],
)
def test_v1_v2_what_is_refused(
    small: Running, status: int, names: list[str], kind: str, body: bytes
) -> None:
    kind = "multipart/form-data; boundary=edge" if kind == "form" else kind
    answer = small.image(body, kind=kind)
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert all(name in answer.json["detail"] for name in names), answer.json


def test_v1_compressed_bodies_are_not_unpacked(small: Running, photo: bytes) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    assert small.ask("POST", "/v1/predict", photo, headers).status == 415


@pytest.mark.parametrize("query", ["top=0", "top=-1", "top=x", "top=1.5", "top=", "tpo=3", "k=1"])
def test_v2_parameters_that_nobody_reads_are_refused(small: Running, photo: bytes, query) -> None:
    answer = small.image(photo, f"/v1/predict?{query}")
    assert answer.status == 422 and query.split("=")[0] in answer.json["detail"]


def test_v1_bytes_of_all_requests_are_bounded(small: Running, photo: bytes) -> None:
    """Two requests that do not end hold nearly all that may be held."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += b"Expect: 100-continue\r\nContent-Length: 19999\r\n\r\n"
    slow = [small.raw(head) for _ in range(2)]
    for connection in slow:
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(bytes(19_000))
    third = small.raw(head)
    assert third.recv(100).startswith(b"HTTP/1.1 100")
    while small.app.held.bytes < 38_000:
        assert small.ask("GET", "/healthz").status == 200
    third.sendall(bytes(19_000))
    found = third.recv(65536)
    assert found.startswith(b"HTTP/1.1 503") and b"retry-after" in found.lower()
    for connection in (*slow, third):
        connection.close()
    while small.app.held.bytes:
        assert small.ask("GET", "/healthz").status == 200
    assert small.image(photo).status == 200


def test_v1_a_body_that_ends_early_is_forgotten(small: Running, photo: bytes) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    for _ in range(5):
        small.raw(head + b"Content-Length: 10000\r\n\r\n" + photo[:5000]).close()
    assert small.image(photo).status == 200
    while small.app.held.bytes:
        assert small.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n\r\n\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without a host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n bad: x\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + 70_000 * b"x",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9, 8\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_v2_what_is_no_http_ends_with_400(small: Running, request_: bytes) -> None:
    with small.raw(request_) as connection:
        found = everything(connection)
    assert found.startswith(b"HTTP/1.1 4") and b"problem+json" in found, found
    assert b"content-security-policy" in found
    assert small.ask("GET", "/healthz").status == 200


def test_v2_mutated_requests_never_fail_the_server(small: Running, photo: bytes) -> None:
    rng = random.Random(0)
    body = part("a.jpg", photo[:3000]) + part("b.jpg", photo[:300]) + b"--edge--\r\n"
    statuses = set()
    for _ in range(300):
        mutated = bytearray(body)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(min(len(mutated), 400) if rng.random() < 0.7 else len(mutated))
            if rng.random() < 0.3:
                del mutated[at : at + rng.randint(1, 40)]
            else:
                mutated[at : at + rng.randint(0, 2)] = rng.choice(
                    [b"\r\n", b"--edge", b"\0", b'"', b":", b"=", b"\r\n--edge\r\n", b"\xff"]
                )
        kind = "multipart/form-data; boundary=edge"
        statuses.add(small.image(bytes(mutated), kind=kind).status)
    assert statuses <= {200, 413, 422} and 422 in statuses
    assert small.app.held.bytes == small.app.batcher.waiting == 0
    assert small.app.batcher.failures == 0


def test_v2_mutated_images_never_fail_the_server(small: Running, photo: bytes, draw_image) -> None:
    rng = random.Random(1)
    originals = [photo]
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        draw_image("noise", 5).resize((40, 30)).save(buffer, kind)
        originals.append(buffer.getvalue())
    for _ in range(150):
        mutated = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 8)):
            mutated[rng.randrange(min(len(mutated), 300))] = rng.randrange(256)
        assert small.image(bytes(mutated)).status in (200, 422)
    assert small.app.batcher.failures == 0
