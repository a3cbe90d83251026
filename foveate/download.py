"""Verified downloads: https only, a size limit, the SHA-256, resumed when interrupted."""

import http.client
import os
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from foveate.errors import FoveateError
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
    """

    url: str
    sha256: str
    size: int
    exact: bool = True


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(remote: Remote, path: Path, progress: Progress | None = None) -> Path:
    """Download a file to `path`, unless it is there already.

    An interrupted download is resumed. The file gets its name only when its size and SHA-256 are
    right; a file at `path` with another size or SHA-256 is downloaded again.

    Args:
        remote: the file.
        path: destination.
        progress: receives a download that takes more than two seconds, in megabytes.

    Raises:
        FoveateError: no network; an HTTP error; the size or the hash is not the published one;
            FOVEATE_OFFLINE is set.
    """
    with disk_errors(path):  # the cache may be shut
        whole = path.is_file() and fits(path.stat().st_size, remote)
        if whole and sha256(path).startswith(remote.sha256):
            return path
    if os.environ.get("FOVEATE_OFFLINE"):
        raise FoveateError(
            f"'{path.name}' is not in the cache and FOVEATE_OFFLINE is set; unset it, or leave out "
            f"--offline, to download {remote.url}"
        )
    check_scheme(remote.url)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    meter = Meter(progress or Silent())
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                receive(remote, partial, meter)
                break
            except urllib.error.HTTPError as error:
                raise FoveateError(f"{remote.url} answered {error.code} {error.reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise FoveateError(
                        f"{remote.url} cannot be fetched: {error}; check the network"
                    ) from error
                time.sleep(0.2 * attempt)
        found = sha256(partial)
        if not found.startswith(remote.sha256):
            raise FoveateError(
                f"{remote.url} is not the published file: SHA-256 {found}, expected "
                f"{remote.sha256}; nothing was kept"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def receive(remote: Remote, partial: Path, meter: "Meter") -> None:
    """Append to `partial` until it is whole; OSError if the connection ends before."""
    # Without a hash nothing would detect that two parts are of different files: start again.
    done = partial.stat().st_size if partial.exists() and remote.sha256 else 0
    # some servers refuse urllib's default User-Agent
    headers = {"User-Agent": "foveate"} | ({"Range": f"bytes={done}-"} if done else {})
    request = urllib.request.Request(remote.url, headers=headers)
    opener = urllib.request.build_opener(HttpsOnly)
    with opener.open(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server ignores Range, and sends the whole file
            done = 0
        size = remote.size if remote.exact else announced(remote, answer, done)
        with disk_errors(partial), partial.open("ab" if done else "wb") as file:
            while block := answer.read(CHUNK):
                done += len(block)
                if done > size:
                    raise FoveateError(
                        f"{remote.url} is larger than the published {remote.size:,} bytes; stopped"
                    )
                file.write(block)
                meter.show(done, size)
    if done < size:
        raise ConnectionError(f"it ended after {done:,} of {size:,} bytes")


def announced(remote: Remote, answer: http.client.HTTPResponse, done: int) -> int:
    """The size of the whole file, from the Content-Length of the part that the server sends."""
    if answer.length is None:
        raise FoveateError(
            f"{remote.url} does not say how many bytes it has (Content-Length); nothing was kept"
        )
    if done + answer.length > remote.size:
        raise FoveateError(
            f"{remote.url} has {done + answer.length:,} bytes, more than the limit of "
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
