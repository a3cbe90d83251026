"""V5: loopback by default; the token in constant time; no CORS, no URL fetch, the host checked,
security headers, no paths in errors."""

import hmac
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import foveate
from serving import Answer, Running, everything, part

from foveate.server.settings import Settings

TOKEN = "s3cret-töken"
Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def photo(photos: list[Path]) -> bytes:
    return photos[0].read_bytes()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}".encode().decode("latin-1")}


def test_v5_every_answer_has_the_headers_and_none_lets_others_read(
    server: Running, photo: bytes, refusing: Path
) -> None:
    answers = [
        *(server.ask("GET", path) for path in ("/", "/docs", "/v1/model", "/healthz", "/nothing")),
        *(server.ask(method, "/v1/predict") for method in ("GET", "OPTIONS", "TRACE")),
        server.image(photo),
        server.image(b"none"),
        server.image(photo, "/v1/explain"),
        server.ask("GET", "/healthz", headers={"Host": "evil.example"}),
        server.ask("OPTIONS", "/v1/predict", headers={"Origin": "http://evil.example"}),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, answer
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Server" not in answer.headers and "Set-Cookie" not in answer.headers
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert str(refusing.parent).encode() not in answer.body
    assert {answer.status for answer in answers} == {200, 403, 404, 405, 421, 422}


@pytest.mark.parametrize(
    ("host", "local", "remote"),
    [
        ("localhost", True, True),
        ("LOCALHOST:8000", True, True),
        ("127.0.0.1", True, True),
        ("[::1]:80", True, True),
        ("photos.example:8000", True, True),  # allowed by name
        ("10.1.2.3:8000", False, True),
        ("[fe80::1]", False, True),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("127.0.0.1.evil.example", False, False),
        ("localhost:80@evil.example", False, False),
        ("", False, False),
    ],
)
def test_v5_only_our_own_names_are_answered(host: str, local: bool, remote: bool) -> None:
    from foveate.server.security import is_ours

    hosts = (*Settings().hosts, "photos.example")
    assert is_ours(host, Settings(hosts=hosts)) == local
    assert is_ours(host, Settings(hosts=hosts, any_address=True)) == remote


def test_v5_pages_from_elsewhere_may_not_ask(server: Running, photo: bytes) -> None:
    own = f"http://127.0.0.1:{server.port}"

    def asked(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return server.ask(
            "POST", "/v1/predict", photo, {"Content-Type": "image/png"} | named
        ).status

    assert asked() == asked(Origin=own) == asked(Origin=own, Sec_Fetch_Site="same-origin") == 200
    others = ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}")
    assert {asked(Origin=one) for one in others} == {403}
    assert asked(Sec_Fetch_Site="cross-site") == 403


def test_v5_the_token(serve: Serve, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(token=TOKEN)
    compared: list[tuple[bytes, bytes]] = []
    constant = hmac.compare_digest

    def noted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return constant(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)

    def asked(headers: dict[str, str], path: str = "/v1/model") -> Answer:
        return server.ask("GET", path, headers=headers)

    assert asked(bearer(TOKEN)).status == 200
    wrong = [TOKEN[:-1] + "x", TOKEN[:-1], TOKEN + "x", "", TOKEN.upper()]
    for headers in [{}, *map(bearer, wrong), {"Authorization": f"Basic {TOKEN.encode()!r}"}]:
        answer = asked(headers)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN.encode() not in answer.body
    assert len(compared) == 8 and {other for _, other in compared} == {TOKEN.encode()}
    assert asked({}, "/metrics").status == 401
    post = server.ask("POST", "/v1/predict", photo, {"Content-Type": "image/jpeg"})
    assert post.status == 401
    for path in ("/", "/page/page.js", "/docs", "/healthz", "/readyz"):
        answer = asked({}, path)
        assert answer.status == 200 and b"stripes" not in answer.body


def test_v5_what_is_refused_is_not_read(serve: Serve) -> None:
    """Without the token no body is read."""
    server = serve(token=TOKEN)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    with server.raw(head + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_v5_addresses_are_not_fetched(server: Running) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.jpg"
        files = part(url, url.encode()) + part(f"file://{__file__}", b"") + b"--edge--"
        answer = server.image(files, kind="multipart/form-data; boundary=edge")
        assert all("error" in row for row in answer.json["predictions"])
        assert server.image(b"", f"/v1/predict?url={url}").status == 422
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_v5_it_listens_to_this_machine_alone(server: Running) -> None:
    assert server.listener.getsockname()[0] == "127.0.0.1"
    from typer.main import get_command

    from foveate.cli import app

    options = {p.name: p.default for p in get_command(app).get_command(None, "serve").params}
    assert options["host"] == "127.0.0.1" and options["token"] is None


@pytest.mark.parametrize(
    ("code", "names", "arguments"),
    [
        (2, ["0.0.0.0", "--token"], ["--host", "0.0.0.0"]),
        (2, ["nowhere.invalid"], ["--host", "nowhere.invalid"]),
        (2, ["--max-images", "--max-waiting"], ["--max-images", "9", "--max-waiting", "8"]),
    ],
)
def test_v5_what_the_command_refuses(
    refusing: Path, code: int, names: list[str], arguments: list[str]
) -> None:
    done = foveate("serve", refusing, "--port", "0", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert all(name in done.stderr for name in names), done.stderr


def test_v5_a_port_in_use_is_said(refusing: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = foveate("serve", refusing, "--port", port)
    assert done.returncode == 1 and str(port) in done.stderr and "--port" in done.stderr


def test_v5_a_missing_extra_is_said(refusing: Path, python: Callable[..., str]) -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from foveate.errors import MissingExtraError\n"
        "from foveate.cli.serve import serve\n"
        "try: serve(sys.argv[1])\n"
        "except MissingExtraError as error: print(error)"
    )
    assert "pip install 'foveate[serve]'" in python(program, refusing)


def test_v5_nothing_is_said_of_what_is_no_http(server: Running, refusing: Path) -> None:
    with server.raw(b"\0\r\n\r\n") as connection:
        found = everything(connection)
    assert b"400" in found and str(refusing.parent).encode() not in found
    assert b"uvicorn" not in found.lower()
