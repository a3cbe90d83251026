"""What a network of a random start reads: size and channels, and the images' own mean and
deviation. What starts from weights reads what these have learnt to read."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from foveate import models
from foveate.arguments import LARGEST, whole_number
from foveate.catalogue import CATALOGUE
from foveate.data.dataset import Dataset, evenly_spaced
from foveate.data.image import Levels, load_image
from foveate.data.levels import find_levels
from foveate.data.preprocess import Fit, Preprocess, colours_or_grey
from foveate.data.workers import decode_ahead
from foveate.errors import DataError, ImageError, UsageError, quoted
from foveate.features import shown
from foveate.models.adapters import inspect_module
from foveate.progress import Progress
from foveate.training.framing import AUTO, Trial, area_note, area_seen, choose_view
from foveate.weights import usage_errors
from foveate.weights.starting_point import OWN, TIMM

if TYPE_CHECKING:
    from foveate.training.setup import Request

INSPECTED = 500  # images whose size and colours are looked at, evenly spaced
SMALL = 64  # networks for images up to this side are shown smaller ones as they are

Rows = NDArray[np.int64]


class Seen(NamedTuple):
    """What images are like.

    Args:
        grey: all of them.
        short_side: the median's, pixels.
        mean, std: of red, green and blue, from 0 to 1, over all pixels.
    """

    grey: bool
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def choose_preprocess(
    dataset: Dataset, rows: Rows, request: "Request", threads: int, progress: Progress
) -> tuple[Preprocess, list[str], list[Trial]]:
    """How images are shown to the network, a sentence where something was inferred, and what
    framings were tried."""
    levels = find_levels(dataset, rows, threads)
    preprocess, notes = choose_size(dataset, rows, request, levels.levels, threads)
    # also in place of those of a run that it goes on from: they were of other images
    preprocess = replace(preprocess, levels=levels.levels)
    framing: str = request.framing
    fit: Fit = request.fit or "crop"
    tried: list[Trial] = []
    if framing == AUTO and request.start is not None and fit == "crop":
        framing, fit, tried = choose_part(dataset, rows, request, preprocess, threads, progress)
    preprocess = preprocess.framed("whole" if framing == AUTO else framing, fit)
    notes += [levels.note] if levels.note else []
    area = area_seen(dataset, rows, preprocess)
    notes += [note] if (note := area_note(area, framing, fit)) else []
    return preprocess, notes, tried


def choose_part(
    dataset: Dataset,
    rows: Rows,
    request: "Request",
    whole: Preprocess,
    threads: int,
    progress: Progress,
) -> tuple[str, Fit, list[Trial]]:
    """The framing and the fit that a sample of the training images asks for."""
    assert request.start is not None
    asked = (request.start, whole, request.engine, threads, progress, request.seed)
    name, tried = choose_view(dataset, rows, *asked, squash=request.fit is None)
    return ("whole", "squash", tried) if name == "squash" else (name, "crop", tried)


def choose_size(
    dataset: Dataset, rows: Rows, request: "Request", levels: Levels | None, threads: int
) -> tuple[Preprocess, list[str]]:
    """Size, channels and normalisation."""
    size, channels = request.size, request.channels
    size = None if size is None else whole_number("size", size, 1, LARGEST)
    channels = None if channels is None else colours_or_grey(channels)
    if request.start is not None:
        own = request.start.preprocess
        if channels not in (None, own.channels):
            raise UsageError(
                f"channels applies to the recipe scratch: these weights read {own.channels}"
            )
        preprocess = shown(own)
        return (preprocess if size is None else preprocess.at(size, preprocess.stretch)), []
    seen = inspect_images(dataset, rows, levels, threads)
    if request.module is not None:
        with usage_errors():
            taken = inspect_module(
                request.module,
                len(dataset.classes),
                channels=channels,
                size=size,
                image_side=seen.short_side,
            )
        note = f"{request.model.removeprefix(OWN)} reads {taken.text}"
        return normalised_as(seen, taken.size, taken.channels), [note]
    if request.model.startswith(TIMM):
        from foveate.weights.timm import timm_network

        with torch.device("meta"):
            network: Any = timm_network(request.model.removeprefix(TIMM))
        smallest, own_size = int(network.min_size), int(network.input_size)
    else:
        with torch.device("meta"):
            smallest = int(models.build(request.model).min_size)  # type: ignore[arg-type]
        own_size = CATALOGUE[request.model].input_size
    if size is None:  # small images are shown as they are to networks for small images
        small = max(smallest, min(own_size, seen.short_side))
        size = small if own_size <= SMALL else own_size
    return normalised_as(seen, size, channels or (1 if seen.grey else 3)), []


def normalised_as(seen: Seen, size: int, channels: int) -> Preprocess:
    """Whole images at a size, normalised by their own mean and deviation."""
    if channels == 3:
        return Preprocess(size, size, mean=seen.mean, std=seen.std)
    mean, std = (round(float(np.mean(numbers)), 4) for numbers in (seen.mean, seen.std))
    return Preprocess(size, size, channels=channels, mean=(mean,), std=(std,))


def inspect_images(dataset: Dataset, rows: Rows, levels: Levels | None, threads: int) -> Seen:
    """What INSPECTED of the images are like; those that cannot be read are passed over.

    Raises:
        DataError: none can be read.
    """
    sides: list[int] = []
    sums: list[NDArray[np.float64]] = []
    grey = True

    def small(row: int) -> NDArray[np.uint8]:
        image = load_image(dataset.read(row), dataset.files[row], levels=levels)
        sides.append(min(image.size))
        image.thumbnail((SMALL, SMALL))
        return np.asarray(image)

    chosen = evenly_spaced(rows, INSPECTED)
    as_read = Preprocess(SMALL, SMALL)
    name = dataset.files.__getitem__
    reasons: list[str] = []
    for _, pixels in decode_ahead([int(row) for row in chosen], small, name, as_read, threads):
        if isinstance(pixels, ImageError):
            reasons.append(str(pixels))
            continue
        grey = grey and bool((pixels == pixels[:, :, :1]).all())
        values = pixels.reshape(-1, 3) / 255
        sums.append(np.stack([values.mean(axis=0), (values**2).mean(axis=0)]))
    if not sums:
        first = "\n  ".join(reasons[:5])
        raise DataError(
            f"none of the training images of {quoted(dataset.name)} can be read:\n  {first}"
        )
    mean, square = np.mean(sums, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    colours = tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
    return Seen(grey, int(np.median(sides)), *colours)
