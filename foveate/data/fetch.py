"""Downloads that can be trusted: https, a size limit, the full SHA-256, resumed when cut, renamed when whole."""

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
from foveate.storage import disk_errors, sha256

TIMEOUT = 20  # seconds without a byte
ATTEMPTS = 4
CHUNK = 1 << 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # plain http is for tests on this machine only


@dataclass(frozen=True)
class Remote:
    """A file elsewhere.

    Args:
        url: https.
        sha256: of the whole file, hexadecimal.
        size: bytes.
    """

    url: str
    sha256: str
    size: int


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow a redirect only to where we would have gone ourselves."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(remote: Remote, path: Path) -> Path:
    """Bring a file to `path`, unless it is there and whole.

    A download that was cut goes on where it stopped. The file appears under its name only when its size and its
    SHA-256 are right; a file there that is not right is fetched again.

    Raises:
        FoveateError: no network; the server's answer; a size or a hash that is not the published one;
            FOVEATE_OFFLINE is set.
    """
    if path.is_file() and path.stat().st_size == remote.size and sha256(path) == remote.sha256:
        return path
    if os.environ.get("FOVEATE_OFFLINE"):
        raise FoveateError(
            f"'{path.name}' is not in the cache and FOVEATE_OFFLINE is set; unset it to download {remote.url}"
        )
    check_scheme(remote.url)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                receive(remote, partial)
                break
            except urllib.error.HTTPError as error:
                raise FoveateError(f"{remote.url} answered {error.code} {error.reason}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise FoveateError(f"{remote.url} cannot be fetched: {error}; check the network") from error
                time.sleep(0.2 * attempt)
        found = sha256(partial)
        if found != remote.sha256:
            raise FoveateError(
                f"{remote.url} is not the published file: SHA-256 {found}, expected {remote.sha256}; nothing was kept"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def receive(remote: Remote, partial: Path) -> None:
    """Append to `partial` until it has the published size; OSError if the connection ends before."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={done}-"} if done else {})
    opener = urllib.request.build_opener(HttpsOnly)
    with opener.open(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server does not resume: from the start
            done = 0
        with disk_errors(partial), partial.open("ab" if done else "wb") as file:
            while block := answer.read(CHUNK):
                done += len(block)
                if done > remote.size:
                    raise FoveateError(f"{remote.url} is larger than the published {remote.size:,} bytes; stopped")
                file.write(block)
    if done < remote.size:
        raise ConnectionError(f"it ended after {done:,} of {remote.size:,} bytes")


def check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise FoveateError(f"refused to download from {url}: only https is allowed")
