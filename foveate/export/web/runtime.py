"""onnxruntime-web: what runs a network in a browser, as its registry publishes it. It is fetched
once, when a page is first made, and kept in the cache."""

import tarfile
from pathlib import Path
from typing import NamedTuple

from foveate.download import Remote, fetch
from foveate.errors import ArtefactError, quoted
from foveate.progress import Progress
from foveate.storage import cache_root, disk_errors

VERSION = "1.30.0"
TARBALL = Remote(
    url=f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz",
    sha256="",
    size=33106585,
    sha512="ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61",
)
# the smallest of its builds, for the processor alone; the script holds the loader of the binary
SCRIPT = "package/dist/ort.wasm.bundle.min.mjs"
BINARY = "package/dist/ort-wasm-simd-threaded.wasm"


class WebRuntime(NamedTuple):
    """The script, an ES module, and the WebAssembly that it loads."""

    script: str
    binary: bytes


def tarball_path() -> Path:
    """Where the tarball is kept, or is to be put by hand."""
    return cache_root() / "runtimes" / f"onnxruntime-web-{VERSION}.tgz"


def web_runtime(progress: Progress | None = None) -> WebRuntime:
    """The runtime, downloaded if need be.

    Raises:
        FoveateError: it is not in the cache and cannot be downloaded; the message says where to put
            a file that was fetched elsewhere.
        ArtefactError: the tarball lacks a file.
    """
    return unpacked(fetch(TARBALL, tarball_path(), progress))


def unpacked(path: Path) -> WebRuntime:
    """What a page needs of a tarball."""
    found: dict[str, bytes] = {}
    with disk_errors(path), tarfile.open(path) as archive:
        for member in archive:
            if member.name in (SCRIPT, BINARY) and (file := archive.extractfile(member)):
                found[member.name] = file.read()
            if len(found) == 2:
                return WebRuntime(found[SCRIPT].decode(), found[BINARY])
    raise ArtefactError(f"{quoted(path)} does not hold {SCRIPT} and {BINARY}")
