"""timm's networks: found by their names, with published weights if asked, read without running
code.

timm publishes weights at the Hugging Face Hub. Of each network's files `model.safetensors` alone is
taken, over https, never a pickle. No hash of it is published: the first fetch is trusted, as far as
https goes, and its SHA-256 is recorded and checked from then on. What huggingface's own cache holds
already is used from there. timm is an extra, imported when the first of its networks is named.
"""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.arguments import whole_number
from foveate.data.preprocess import INTERPOLATIONS, Preprocess
from foveate.errors import ArtefactError, MissingExtraError, UsageError, quoted
from foveate.progress import Progress
from foveate.storage import sha256
from foveate.weights.files import downloads, fetched_once
from foveate.weights.tensors import as_state_dict, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foveate.models.adapters import TimmNetwork

HUB = "https://huggingface.co"
FILE = "model.safetensors"
PREFIX = "timm."  # of a TimmNetwork's tensors, before timm's own names
SQUASHED = 100.0  # a stretch that shows the whole of images up to 100 times as long as high
MARGIN = 10**6  # bytes that a file may have beside its tensors


@dataclass(frozen=True)
class TimmWeights:
    """One published set of weights of timm's.

    Args:
        name: of the network and the set, as in timm: "resnet18.a1_in1k".
        repository, revision: at the Hugging Face Hub.
        licence: SPDX; "" if timm does not say.
        preprocess: what the weights were measured with.
    """

    name: str
    repository: str
    revision: str
    licence: str
    preprocess: Preprocess

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repository}/resolve/{self.revision}/{FILE}"

    @property
    def file(self) -> str:
        """Its name in Foveate's cache."""
        name = self.repository.removeprefix("timm/").replace("/", "--")
        return f"{name}{'' if self.revision == 'main' else f'@{self.revision}'}.safetensors"


def timm_network(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    pretrained: bool | str | os.PathLike[str] = False,
    progress: Progress | None = None,
) -> "TimmNetwork":
    """A convolutional network of timm.

    With weights, another `num_classes` gives the network a fresh head, and another `in_channels` an
    adapted first convolution; the rest keeps what it has learnt.

    Args:
        name: as in timm: "resnet18", or "resnet18.a1_in1k" with the name of a set of weights.
        num_classes: outputs; by default the weights'.
        in_channels: 3 for RGB, 1 for grey; by default the weights'.
        pretrained: False (random); True, the published ones, which are fetched once; or the path of
            a .safetensors or .pth file, under timm's names.
        progress: is informed of a download that takes more than two seconds.

    Raises:
        UsageError: no such network; it is no convolutional network; there are no such weights;
            num_classes or in_channels do not fit it.
        MissingExtraError: timm is not installed.
        ArtefactError: a weights file is missing, damaged, unsafe, or not the network's.
        FoveateError: the weights cannot be downloaded.

    >>> timm_network("resnet18", num_classes=10).head.out_features
    10
    """
    from foveate.models.surgery import replace_head, set_in_channels

    if num_classes is not None:
        num_classes = whole_number("num_classes", num_classes, 1)
    if in_channels is not None:
        in_channels = whole_number("in_channels", in_channels, 1)
    config = timm_config(name)
    if pretrained is False:
        return wrapped(create(name, num_classes, in_channels), name)
    if pretrained is True:
        module = with_published(name, timm_file(name, progress=progress))
    else:
        module = with_file(name, Path(pretrained))
    if num_classes is not None and config["num_classes"] == 0 and not module.num_classes:
        module.reset_classifier(num_classes)
    network = wrapped(module, name)
    if num_classes is not None and num_classes != len(network.head.weight):  # type: ignore[arg-type]
        replace_head(network, num_classes)
        network.timm.num_classes = num_classes
    if in_channels is not None and in_channels != network.in_channels:
        if network.folding != 1:
            raise UsageError(
                f"{quoted(name)} with weights reads {network.in_channels} channels only"
            )
        set_in_channels(network, in_channels)
    return network


def adapt(module: "nn.Module") -> "TimmNetwork":
    """A module that a user built with timm, as a network; UsageError if it cannot be one."""
    return wrapped(module, type(module).__name__)


def timm_weights(name: str) -> TimmWeights:
    """The published weights of a name.

    Raises:
        UsageError: no such network; there are none, or none as safetensors.
        MissingExtraError: timm is not installed.
    """
    config = timm_config(name)
    hub = config.get("hf_hub_id")
    file = config.get("hf_hub_filename") or FILE
    if not hub or file != FILE:
        if config.get("url") or hub:
            raise UsageError(
                f"the weights of {quoted(name)} are published as a pickle only, which could run "
                "code: "
                f"download {config.get('url') or f'{HUB}/{hub}'}, and give the path of the file"
            )
        others = tags(name)
        hint = f"there are: {', '.join(others)}" if others else "there are none in timm"
        raise UsageError(f"there are no published weights for {quoted(name)}; {hint}")
    repository, _, revision = str(hub).partition("@")
    return TimmWeights(
        name=full_name(config),
        repository=repository,
        revision=revision or "main",
        licence=config.get("license") or "",
        preprocess=timm_preprocess(config),
    )


def timm_file(name: str, fetch: bool = True, progress: Progress | None = None) -> Path:
    """The published file of a name on this machine: in Foveate's cache, in huggingface's, or
    fetched.

    Raises:
        UsageError: as `timm_weights`.
        MissingExtraError: timm is not installed.
        ArtefactError: it is not the file that was fetched first; huggingface's copy is damaged; it
            is not here and `fetch` is off.
        FoveateError: it cannot be downloaded.
    """
    from foveate.download import Remote

    weights = timm_weights(name)
    path = downloads() / weights.file
    if not path.is_file() and (found := in_hugging_face_cache(weights)) is not None:
        return checked(found)
    # twice what the network needs, in f32: its file may hold a little more than is read
    limit = 2 * 4 * numbers(name) + MARGIN
    return fetched_once(Remote(weights.url, "", limit, exact=False), path, fetch, progress)


def timm_preprocess(config: Mapping[str, Any]) -> Preprocess:
    """How timm shows images to a network in validation, as a Preprocess.

    A network that timm shows the whole image, squashed to a square (`crop_mode` "squash"), gets a
    stretch that does the same.

    Args:
        config: a module's `pretrained_cfg`.

    Raises:
        UsageError: an interpolation other than bilinear and bicubic; images that are not square; a
            padded border; numbers that no Preprocess has.

    >>> config = {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bicubic"}
    >>> timm_preprocess(config | {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}).resize
    235
    """
    channels, height, width = config["input_size"]
    interpolation, mode = config["interpolation"], config.get("crop_mode", "center")
    if interpolation not in INTERPOLATIONS:
        raise UsageError(
            f"timm shows this network images by the interpolation '{interpolation}'; expected "
            f"{' or '.join(INTERPOLATIONS)}"
        )
    if height != width or mode not in ("center", "squash"):
        raise UsageError(
            f"timm shows this network images of {height}x{width} (crop mode '{mode}'); expected a "
            "square, center or squash"
        )
    try:
        return Preprocess(
            resize=math.floor(height / config["crop_pct"]),
            crop=height,
            stretch=SQUASHED if mode == "squash" else 1.0,
            interpolation=interpolation,
            channels=channels,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


# Names


def library() -> Any:
    """timm itself."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            "networks of timm need the package timm: pip install 'foveate[timm]'"
        ) from error
    return timm


def timm_config(name: str) -> dict[str, Any]:
    """What timm knows of a network and its weights (its `pretrained_cfg`).

    Raises:
        UsageError: no such network, or no such weights; the message has the nearest names.
        MissingExtraError: timm is not installed.
    """
    timm = library()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see: timm.list_models()"
        raise UsageError(f"timm has no network called '{architecture}'; {hint}")
    if tag and name not in tags(name):
        raise UsageError(
            f"timm has no weights '{tag}' for {architecture}; it has "
            f"{', '.join(tags(name)) or 'none'}"
        )
    config = timm.models.get_pretrained_cfg(name)
    return {**config.to_dict(), "architecture": architecture}


def tags(name: str) -> list[str]:
    """The full names of the published weights of a network."""
    return list(library().list_models(f"{name.partition('.')[0]}.*", pretrained=True))


def full_name(config: Mapping[str, Any]) -> str:
    tag = config.get("tag")
    return f"{config['architecture']}.{tag}" if tag else str(config["architecture"])


# Files


def in_hugging_face_cache(weights: TimmWeights) -> Path | None:
    """The file that huggingface's own client has downloaded, if it has."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(weights.repository, FILE, revision=weights.revision)
    return Path(found) if isinstance(found, str) else None


def checked(path: Path) -> Path:
    """A file of huggingface's cache, which names the bytes of a large one by their SHA-256."""
    named = path.resolve().name
    if len(named) == 64 and named != (found := sha256(path)):
        raise ArtefactError(
            f"{quoted(path)} is damaged (SHA-256 {found}, expected {named}); delete it"
        )
    return path


def numbers(name: str) -> int:
    """How many a network's tensors hold."""
    import torch

    with torch.device("meta"):
        return sum(t.numel() for t in create(name).state_dict().values())


# Networks


def create(name: str, num_classes: int | None = None, in_channels: int | None = None) -> Any:
    """timm's module with random weights; UsageError if timm does not build it so."""
    given = {"num_classes": num_classes, "in_chans": in_channels}
    options = {key: value for key, value in given.items() if value is not None}
    try:
        return library().create_model(name, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        asked = ", ".join(f"{key}={value}" for key, value in options.items())
        raise UsageError(f"timm does not build {quoted(name)} with {asked}: {error}") from error


def wrapped(module: "nn.Module", name: str) -> "TimmNetwork":
    from foveate.models.adapters import adapt_timm

    try:
        return adapt_timm(module)
    except ValueError as error:
        raise UsageError(f"{quoted(name)} cannot be used: {error}") from error


def with_published(name: str, path: Path) -> Any:
    """timm's module with the tensors of its published file, which timm itself knows how to fit."""
    tensors = read_tensors(path)
    try:
        module = library().create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}
        )
    except (KeyError, RuntimeError) as error:
        raise ArtefactError(
            f"the tensors in {quoted(path.name)} are not {name}'s: {error}"
        ) from error
    module.pretrained_cfg.pop("state_dict", None)  # or they would be kept twice
    return module


def with_file(name: str, path: Path) -> Any:
    """timm's module with the tensors of a user's file, and as many classes and channels as they
    have."""
    import torch

    tensors = without_prefix(read_tensors(path))
    with torch.device("meta"):
        plain = create(name, num_classes=1)
        classes, channels = classes_and_channels(wrapped(plain, name), tensors)
        expected = create(name, classes, channels).state_dict()
    module = create(name, classes, channels)
    module.load_state_dict(as_state_dict(tensors, expected, path.name))
    return module


def without_prefix(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """A TimmNetwork's tensors under timm's own names; timm's are left as they are."""
    if not all(name.startswith(PREFIX) for name in tensors):
        return tensors
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def classes_and_channels(
    plain: "TimmNetwork", tensors: "dict[str, Tensor]"
) -> tuple[int | None, int | None]:
    """How many of each a file has, by its last layer and its first convolution."""
    from foveate.models.surgery import first_convolution

    head = tensors.get(f"{plain.head_path}.weight")
    convolution = first_convolution(plain.timm)
    name = next(name for name, module in plain.timm.named_modules() if module is convolution)
    first = tensors.get(f"{name}.weight")
    return (
        None if head is None else len(head) or None,
        None if first is None or first.ndim != 4 else first.shape[1] // plain.folding or None,
    )
