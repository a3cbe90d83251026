"""Verified downloads: https only, a size limit, the hash, resumed when interrupted.

A mirror ($FOVEATE_MIRROR, a URL prefix) is asked before the published address. It has a file under
the host and the path of its URL:

    https://download.pytorch.org/models/resnet18-f37072fd.pth
    PREFIX/download.pytorch.org/models/resnet18-f37072fd.pth

since file names alone are not unique (MNIST and Fashion-MNIST have the same four, and at the
Hugging Face Hub each is model.safetensors), and since `wget -x` creates these folders. A mirror may
be plain http: whoever sets the variable trusts it, and sizes and hashes are checked all the same.
"""

import base64
import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from foveate.errors import FoveateError, UsageError, quoted
from foveate.progress import Progress, Silent
from foveate.storage import disk_errors, sha256

TIMEOUT = 20  # seconds without a byte
ATTEMPTS = 4
CHUNK = 1 << 16
PATIENCE = 2  # seconds before a download shows its progress
MB = 10**6
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # plain http is for tests on this machine only


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        url: https.
        sha256: of the file, hexadecimal: whole, its first digits, or "" if none is published.
        size: in bytes; the upper limit if not `exact`. The server must then send a Content-Length.
        exact: whether `size` is the file's exact size.
        sha512: of the file, where that is what is published; "" if it is not.
    """

    url: str
    sha256: str
    size: int
    exact: bool = True
    sha512: str = ""

    def mismatch(self, path: Path) -> str:
        """What hash a file has instead of the published one; "" of the published file."""
        if not (found := sha256(path)).startswith(self.sha256):
            return f"SHA-256 {found}, expected {self.sha256}"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha512").hexdigest() if self.sha512 else ""
        return f"SHA-512 {found}, expected {self.sha512}" if found != self.sha512 else ""


class UnavailableError(Exception):
    """An address does not give the published file; `fetch` asks the next one."""


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        try:
            check_scheme(newurl)
        except FoveateError as error:
            raise UnavailableError(str(error)) from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(remote: Remote, path: Path, progress: Progress | None = None, by_hand: str = "") -> Path:
    """Download a file to `path`, unless it is there already.

    An interrupted download is resumed. The file gets its name only when its size and hash are
    right; a file at `path` with another size or hash is downloaded again.

    Args:
        remote: the file.
        path: destination.
        progress: receives a download that takes more than two seconds, in megabytes.
        by_hand: what to do with a file that was downloaded elsewhere, for the message of an error;
            by default, to save it at `path`.

    Raises:
        FoveateError: no network; an HTTP error; the size or the hash is not the published one;
            FOVEATE_OFFLINE is set.
        UsageError: FOVEATE_MIRROR is not a URL prefix.
    """
    if is_published(path, remote):
        return path
    by_hand = f"download {remote.url} elsewhere and " + (by_hand or f"save it as {quoted(path)}")
    if os.environ.get("FOVEATE_OFFLINE"):
        problem = "is not the published file" if path.exists() else "is not in the cache"
        raise FoveateError(
            f"{quoted(path.name)} {problem} and FOVEATE_OFFLINE is set; unset it, or leave out "
            f"--offline; or {by_hand}"
        )
    check_scheme(remote.url)
    sources = [*mirrored(remote.url), (remote.url, {})]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    meter = Meter(progress or Silent())
    failures: list[str] = []  # kept exceptions would keep their sockets open
    for url, headers in sources:
        if failures:
            logging.getLogger("foveate").warning("%s; trying %s", failures[-1], url)
        try:
            download(url, headers, remote, partial, meter)
            partial.replace(path)
            return path
        except UnavailableError as error:
            failures.append(str(error))
        finally:  # nothing of one server is continued with another's
            partial.unlink(missing_ok=True)
    raise FoveateError(f"{'; '.join(failures)}; or {by_hand}")


def is_published(path: Path, remote: Remote) -> bool:
    """Whether a file is there and is, by its size and hash, the published one."""
    with disk_errors(path):  # the cache may be shut
        whole = path.is_file() and fits(path.stat().st_size, remote)
        return whole and not remote.mismatch(path)


def mirrored(url: str) -> list[tuple[str, dict[str, str]]]:
    """The URL at the mirror, without credentials, and the header that has them; none if no mirror
    is set."""
    prefix = os.environ.get("FOVEATE_MIRROR", "")
    if not prefix:
        return []
    try:
        parts = urlsplit(prefix)
        _ = parts.port  # a ValueError if it is no number
        valid = parts.scheme in ("http", "https") and parts.hostname is not None
        valid &= not (parts.query or parts.fragment) and prefix.isascii() and prefix.isprintable()
        valid &= " " not in prefix
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"FOVEATE_MIRROR ({prefix.rpartition('@')[2]!r}) is not the beginning of a URL, such "
            "as https://mirror.lan/foveate"
        )
    credentials, _, host = parts.netloc.rpartition("@")
    headers = {}
    if credentials:
        encoded = base64.b64encode(unquote(credentials).encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    original = urlsplit(url)
    folder = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    return [(f"{folder}/{original.netloc}{original.path}", headers)]


def download(
    url: str, headers: dict[str, str], remote: Remote, partial: Path, meter: "Meter"
) -> None:
    """Download to `partial`, and check it; UnavailableError if that is not the published file."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            receive(url, headers, remote, partial, meter)
            break
        except urllib.error.HTTPError as error:
            raise UnavailableError(f"{url} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise UnavailableError(
                    f"{url} cannot be fetched: {error}; check the network"
                ) from error
            time.sleep(0.2 * attempt)
    if wrong := remote.mismatch(partial):
        raise UnavailableError(f"{url} is not the published file: {wrong}; nothing was kept")


def receive(
    url: str, headers: dict[str, str], remote: Remote, partial: Path, meter: "Meter"
) -> None:
    """Append to `partial` until it is whole; OSError if the connection ends before."""
    hashed = remote.sha256 or remote.sha512
    # Without a hash nothing would detect that two parts are of different files: start again.
    done = partial.stat().st_size if partial.exists() and hashed else 0
    request = urllib.request.Request(url)
    request.add_header("User-Agent", "foveate")  # some servers refuse urllib's default
    if done:
        request.add_header("Range", f"bytes={done}-")
    for name, value in headers.items():  # credentials: not for the server of a redirect
        request.add_unredirected_header(name, value)
    opener = urllib.request.build_opener(HttpsOnly)
    with opener.open(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server ignores Range, and sends the whole file
            done = 0
        size = remote.size if remote.exact else announced(url, remote, answer, done)
        with disk_errors(partial), partial.open("ab" if done else "wb") as file:
            while block := answer.read(CHUNK):
                done += len(block)
                if done > size:
                    raise UnavailableError(
                        f"{url} is larger than the published {remote.size:,} bytes; stopped"
                    )
                file.write(block)
                meter.show(done, size)
    if done < size:
        raise ConnectionError(f"it ended after {done:,} of {size:,} bytes")


def announced(url: str, remote: Remote, answer: http.client.HTTPResponse, done: int) -> int:
    """The size of the whole file, from the Content-Length of the part that the server sends."""
    if answer.length is None:
        raise UnavailableError(
            f"{url} does not say how many bytes it has (Content-Length); nothing was kept"
        )
    if done + answer.length > remote.size:
        raise UnavailableError(
            f"{url} has {done + answer.length:,} bytes, more than the limit of "
            f"{remote.size:,}; stopped"
        )
    return done + answer.length


def fits(size: int, remote: Remote) -> bool:
    return size == remote.size if remote.exact else size <= remote.size


class Meter:
    """Reports the megabytes of a download, once it has taken PATIENCE seconds."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.begun = time.monotonic()
        self.reported: int | None = None  # megabytes; None before the first report

    def show(self, done: int, size: int) -> None:
        if self.reported is None and time.monotonic() - self.begun > PATIENCE:
            self.progress.begin("download (MB)", -(-size // MB))
            self.reported = 0
        if self.reported is not None and (new := -(-done // MB) - self.reported) > 0:
            self.progress.advance(new)
            self.reported += new


def check_scheme(url: str) -> None:
    """FoveateError unless the URL is https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise FoveateError(f"refused to download from {url}: only https is allowed")
