import errno
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from refusals import absent, refused

from foveate import download as module
from foveate.download import Remote, check_scheme, fetch
from foveate.errors import FoveateError, UsageError

BODY = np.random.default_rng(0).bytes(300_000)
HASH = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers each path in its own way and keeps the Range header of every request."""

    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        self.server.paths.append(self.path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        first = len(self.server.asked) == 1
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        match self.path.replace(f"/127.0.0.1:{self.server.server_port}/good", ""):
            case "/good" | "/mirror" | "/mirror/deep":
                self.send(200, BODY)
            case "/cut-once":
                self.send(206, BODY[start:]) if asked else self.send(200, BODY, stop=100_000)
            case "/cut-always":
                self.send(206, BODY[start:], stop=1) if asked else self.send(200, BODY, stop=1000)
            case "/cut-and-no-range":
                self.send(200, BODY, stop=100_000 if first else None)
            case "/cut-then-wrong-rest":
                self.send(206, bytes(len(BODY) - start)) if asked else self.send(
                    200, BODY, stop=100_000
                )
            case "/no-length-and-short":
                self.send(200, BODY[:5000], length=False)
            case "/corrupt" | "/corrupt-mirror":
                self.send(200, BODY[:-1] + bytes([BODY[-1] ^ 1]))
            case "/more":
                self.send(200, BODY + b"x" * 1_000_000, length=False)
            case "/no-http":
                self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            case "/slow":
                self.send(200, BODY, stop=1000, then_wait=True)
            case "/silent":
                self.server.stopped.wait(30)
            case path if path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", path.removeprefix("/to?"))
                self.end_headers()
            case "/redirecting-mirror":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.end_headers()
            case path:
                self.send_error(int(path[1:]))

    def send(
        self,
        status: int,
        body: bytes,
        stop: int | None = None,
        length: bool = True,
        then_wait: bool = False,
    ) -> None:
        self.send_response(status)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body[:stop])
            if then_wait:
                self.wfile.flush()
                self.server.stopped.wait(30)
        except (BrokenPipeError, ConnectionResetError):  # the client had enough
            pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.stopped = threading.Event()

    def remote(self, path: str) -> Remote:
        return Remote(f"http://127.0.0.1:{self.server_port}{path}", HASH, len(BODY))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FOVEATE_OFFLINE", raising=False)
    monkeypatch.delenv("FOVEATE_MIRROR", raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "file.bin"


def left_behind(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir()) if path.parent.exists() else []


def test_a_good_server(server: Server, path: Path) -> None:
    assert fetch(server.remote("/good"), path) == path
    assert path.read_bytes() == BODY
    assert left_behind(path) == ["file.bin"]
    assert server.asked == [None]


def test_a_whole_file_is_not_fetched_again(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(server.remote("/good"), path)
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    assert fetch(server.remote("/404"), path) == path
    assert len(server.asked) == 1


@pytest.mark.parametrize("poison", [b"", BODY[:-1], BODY + b"x", BODY[:-1] + b"\0"])
def test_a_poisoned_file_is_fetched_again(server: Server, path: Path, poison: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(poison)
    fetch(server.remote("/good"), path)
    assert path.read_bytes() == BODY


def test_a_download_that_was_cut_goes_on(server: Server, path: Path) -> None:
    fetch(server.remote("/cut-once"), path)
    assert path.read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-"]
    assert left_behind(path) == ["file.bin"]


def test_a_server_that_does_not_resume_starts_again(server: Server, path: Path) -> None:
    fetch(server.remote("/cut-and-no-range"), path)
    assert path.read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "where,names,requests",
    [
        (
            "/cut-always",
            ["1,003 of 300,000 bytes", "network"],
            4,
        ),
        (
            "/no-length-and-short",
            ["5,000 of 300,000 bytes", "network"],
            4,
        ),
        (
            "/corrupt",
            ["not the published file", HASH],
            1,
        ),
        ("/cut-then-wrong-rest", ["not the published file", HASH], 2),
        ("/more", ["300,000 bytes"], 1),
        ("/404", ["404 Not Found"], 1),
        ("/500", ["500 Internal"], 1),
        ("/no-http", ["SSH-2.0"], 4),
    ],
)
def test_bad_servers(
    server: Server, path: Path, where: str, names: list[str], requests: int
) -> None:
    with refused(FoveateError, where, *names):
        fetch(server.remote(where), path)
    assert left_behind(path) == []
    assert len(server.asked) == requests


@pytest.mark.parametrize("where", ["/slow", "/silent"])
def test_a_server_that_stalls(
    server: Server, path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with refused(FoveateError, where, "timed out", "network"):
        fetch(server.remote(where), path)
    assert left_behind(path) == []


def test_a_server_that_is_not_there(path: Path) -> None:
    with Server() as server:
        remote = server.remote("/good")
    with refused(FoveateError, remote.url, "refused", "network"):
        fetch(remote, path)
    assert left_behind(path) == []


def test_a_bad_download_keeps_what_was_there(server: Server, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"older edition")
    with refused(FoveateError, "/corrupt", "not the published file"):
        fetch(server.remote("/corrupt"), path)
    assert path.read_bytes() == b"older edition"


def test_redirects_on_this_machine_are_followed(server: Server, path: Path) -> None:
    fetch(server.remote(f"/to?http://localhost:{server.server_port}/good"), path)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "target", ["http://example.com/good", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/good"]
)
def test_redirects_elsewhere_are_refused(server: Server, path: Path, target: str) -> None:
    with refused(FoveateError, target, "https"):
        fetch(server.remote(f"/to?{target}"), path)
    assert left_behind(path) == []


def test_a_redirect_to_a_file_is_refused(server: Server, path: Path) -> None:
    with refused(FoveateError, "302", "file:///etc/passwd"):
        fetch(server.remote("/to?file:///etc/passwd"), path)
    assert left_behind(path) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "/etc/passwd",
        "http://localhost@evil/",
    ],
)
def test_only_https(path: Path, url: str) -> None:
    with refused(FoveateError, url, "https"):
        fetch(Remote(url, HASH, 1), path)
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "url", ["https://example.com/x", "http://localhost/x", "http://127.0.0.1:80/", "http://[::1]/x"]
)
def test_schemes_that_are_fine(url: str) -> None:
    check_scheme(url)


def test_offline(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    remote = server.remote("/good")
    with refused(FoveateError, "'file.bin'", "FOVEATE_OFFLINE", "--offline", remote.url, str(path)):
        fetch(remote, path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another file")
    with refused(FoveateError, "not the published file", "FOVEATE_OFFLINE", "on a stick"):
        fetch(remote, path, by_hand="carry it on a stick")
    assert server.asked == []


# Mirrors


@pytest.mark.parametrize("folder", ["/mirror", "/mirror/", "/mirror/deep"])
def test_the_mirror_is_asked_first(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    host = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("FOVEATE_MIRROR", f"http://{host}{folder}")
    fetch(server.remote("/good"), path)
    assert path.read_bytes() == BODY
    assert server.paths == [f"{folder.rstrip('/')}/{host}/good"]
    assert server.authorizations == [None]


@pytest.mark.parametrize(
    ("folder", "cause"),
    [("/404", "404"), ("/500", "500"), ("/corrupt-mirror", HASH), ("/cut-always", "1,003")],
)
def test_what_the_mirror_lacks_comes_from_its_own_address(
    server: Server,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    folder: str,
    cause: str,
) -> None:
    monkeypatch.setenv("FOVEATE_MIRROR", f"http://127.0.0.1:{server.server_port}{folder}")
    fetch(server.remote("/good"), path)
    assert path.read_bytes() == BODY and left_behind(path) == ["file.bin"]
    assert server.paths[-1] == "/good" and server.asked[-1] is None  # from its beginning
    assert not absent(caplog.text, folder, cause)


def test_a_mirror_that_is_down(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as down:
        monkeypatch.setenv("FOVEATE_MIRROR", down.remote("").url)
    fetch(server.remote("/good"), path)
    assert path.read_bytes() == BODY


def test_where_both_fail_both_are_named(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("FOVEATE_MIRROR", f"http://{host}/mirror")
    both = [f"http://{host}/mirror/{host}/404 ", f"http://{host}/404 ", str(path)]
    with refused(FoveateError, "404", *both):
        fetch(server.remote("/404"), path)
    assert left_behind(path) == []


def test_plain_http_is_for_the_mirror_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_MIRROR", "http://127.0.0.1:1")
    with refused(FoveateError, "http://example.com/x", "https"):
        fetch(Remote("http://example.com/x", HASH, 1), path)


@pytest.mark.parametrize("folder", ["/mirror", "/redirecting-mirror", "/404"])
def test_credentials_are_sent_to_the_mirror_alone(
    server: Server,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    folder: str,
) -> None:
    host = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("FOVEATE_MIRROR", f"http://me:s%20cret@{host}{folder}")
    fetch(server.remote("/good"), path)
    assert server.authorizations[0] == "Basic bWU6cyBjcmV0"
    assert server.authorizations[1:] == [None] * (folder != "/mirror")
    assert "cret" not in caplog.text


@pytest.mark.parametrize(
    "prefix",
    [
        "mirror.lan/foveate",
        "file:///mnt/mirror",
        "http://",
        "http://mirror.lan:port",
        "http://mirror.lan/?file=",
        "http://mirror.lan/a b",
        "http://mirror.lan/ä",
        "http://[mirror",
        "http://me:secret@mirror.lan/#a",
        "http://me:sec/ret@mirror.lan",
    ],
)
def test_mirrors_that_are_no_address(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("FOVEATE_MIRROR", prefix)
    with pytest.raises(UsageError, match="FOVEATE_MIRROR") as raised:
        fetch(server.remote("/good"), path)
    assert "ret" not in str(raised.value)
    assert server.asked == [] and not path.parent.exists()


def test_a_full_disk_is_reported_and_not_retried(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def full(target: Path, mode: str = "r", **options: object) -> object:
        if target.suffix == ".partial":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(target, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with refused(FoveateError, str(path.parent), "disk is full"):
        fetch(server.remote("/good"), path)
    assert left_behind(path) == []
    assert len(server.asked) == 1


def test_an_interrupt_leaves_nothing(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.remote("/good"), path)
    assert left_behind(path) == []


def test_a_wrong_published_size_never_grows_the_file(server: Server, path: Path) -> None:
    with refused(FoveateError, "/good", "1,000 bytes"):
        fetch(replace(server.remote("/good"), size=1000), path)
    assert left_behind(path) == []


@pytest.mark.parametrize("digits", [0, 8, 64])
def test_a_size_that_is_a_limit(server: Server, path: Path, digits: int) -> None:
    remote = replace(
        server.remote("/good"), sha256=HASH[:digits], size=len(BODY) + 1000, exact=False
    )
    assert fetch(remote, path).read_bytes() == BODY
    assert fetch(remote, path) == path and server.asked == [None]
    assert left_behind(path) == ["file.bin"]


@pytest.mark.parametrize(
    ("where", "names", "requests"),
    [("/good", ["300,000", "299,999"], 1), ("/more", ["how many bytes"], 1)],
)
def test_a_size_that_is_a_limit_is_enforced(
    server: Server, path: Path, where: str, names: list[str], requests: int
) -> None:
    with refused(FoveateError, where, *names):
        fetch(replace(server.remote(where), size=len(BODY) - 1, exact=False), path)
    assert left_behind(path) == [] and len(server.asked) == requests


def test_the_beginning_of_a_hash_is_checked(server: Server, path: Path) -> None:
    with refused(FoveateError, "/good", HASH, "01234567"):
        fetch(replace(server.remote("/good"), sha256="01234567"), path)
    assert left_behind(path) == []


def test_a_download_goes_on_to_a_limit(server: Server, path: Path) -> None:
    """The rest is announced by its own length."""
    fetch(replace(server.remote("/cut-once"), size=len(BODY), exact=False), path)
    assert path.read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-"]


def test_without_a_hash_nothing_is_resumed(server: Server, path: Path) -> None:
    """Nothing would detect that the rest is of another file."""
    with refused(FoveateError, "100,000 of 300,000 bytes"):
        fetch(
            replace(server.remote("/cut-then-wrong-rest"), sha256="", size=len(BODY), exact=False),
            path,
        )
    assert server.asked == 4 * [None]


def test_progress_is_in_megabytes_and_only_after_a_while(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener:
        def __init__(self) -> None:
            self.reported: list[object] = []

        def begin(self, phase: str, total: int) -> None:
            self.reported.append((phase, total))

        def advance(self, n: int = 1) -> None:
            self.reported.append(n)

    quick, slow = Listener(), Listener()
    fetch(server.remote("/good"), path, quick)
    monkeypatch.setattr(module, "PATIENCE", -1)
    monkeypatch.setattr(module, "MB", 100_000)
    path.unlink()
    fetch(server.remote("/cut-once"), path, slow)
    assert quick.reported == []
    assert slow.reported == [("download (MB)", 3), 1, 1, 1]


def test_threads_that_fetch_the_same_file(server: Server, path: Path) -> None:
    failures: list[BaseException] = []

    def attempt(what: Callable[[], object]) -> None:
        try:
            what()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=attempt, args=(lambda: fetch(server.remote("/good"), path),))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() == BODY
    assert left_behind(path) == ["file.bin"]
