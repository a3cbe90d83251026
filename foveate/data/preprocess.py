"""Preprocess: how an image becomes a network's input.

It is saved with a run; training, evaluation, export and the server all use the run's.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import LARGEST, as_number, as_whole, shown, whole_number
from foveate.data.image import Levels, load_image
from foveate.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    import torch

    from foveate.data.dataset import Dataset

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop the centre, normalise.

    The image is resized so that its shorter side has `resize` pixels, and the centre `crop` x
    `crop` is cut out; both in one step, straight from the image, so nothing outside the crop is
    computed. Values are scaled to [0, 1] before normalisation: (value - mean) / std.

    Args:
        resize: shorter side after the resize, pixels.
        crop: side of the network's square input, pixels; at most `resize`.
        stretch: how much more of the longer side is squeezed into the square: 1 keeps proportions,
            1.12 shows 12 % more of the scene. On photos a small stretch gave better accuracy than
            either a tight crop or squeezing the whole image.
        interpolation: "bilinear" or "bicubic", both antialiased.
        channels: 3 (RGB) or 1 (grey).
        mean, std: one number a channel, for values in [0, 1].
        levels: of images with more than 8 bits a channel, the values that become 0 and 255; None,
            as ever with images of 8 bits, keeps the high byte of 16 bits. A run finds them in its
            training images (`foveate.data.levels`).

    Raises:
        UsageError: a value is of a wrong type or out of its range, or mean or std does not have one
            number a channel; the message names it.
    """

    resize: int
    crop: int
    stretch: float = 1.0
    interpolation: str = "bicubic"
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    levels: Levels | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            side = whole_number(name, getattr(self, name), 1, LARGEST)
            object.__setattr__(self, name, side)
        if self.crop > self.resize:
            raise UsageError(f"crop is at most resize, which is {self.resize}, not {self.crop}")
        if not (is_number(self.stretch) and self.stretch >= 1):
            raise UsageError(f"stretch is a number of at least 1, not {self.stretch!r}")
        if self.interpolation not in tuple(INTERPOLATIONS):  # a tuple also takes what has no hash
            known = " or ".join(INTERPOLATIONS)
            raise UsageError(f"interpolation is {known}, not {self.interpolation!r}")
        object.__setattr__(self, "channels", colours_or_grey(self.channels))
        for name in ("mean", "std"):
            object.__setattr__(self, name, self.a_number_each(name))
        if min(self.std) <= 0:
            raise UsageError(f"std is above 0 for each channel, not {self.std}")
        if self.levels is not None:
            levels: Any = self.levels
            pair = isinstance(levels, (tuple, list)) and all(is_number(n) for n in levels)
            if not pair or len(levels) != 2 or levels[0] >= levels[1]:
                raise UsageError(f"levels is two numbers, the lower first, or None, not {levels!r}")
            object.__setattr__(self, "levels", (as_number(levels[0]), as_number(levels[1])))

    def a_number_each(self, name: str) -> tuple[float, ...]:
        """`mean` or `std`, given as any sequence, as a tuple: it is hashed and written as JSON."""
        value: Any = getattr(self, name)
        numbers = value.tolist() if isinstance(value, np.ndarray) else value
        fits = isinstance(numbers, (tuple, list)) and all(is_number(n) for n in numbers)
        if not fits or len(numbers) != self.channels:
            raise UsageError(
                f"{name} has one number for each of {self.channels} channels, not {value!r}"
            )
        return tuple(n if type(n) is int else float(n) for n in numbers)

    def window(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image inside the crop: (left, top, right, bottom), in its own pixels."""
        square = min(width, height) * self.crop / self.resize
        w = min(width, square * self.stretch) if width > height else square
        h = min(height, square * self.stretch) if height > width else square
        return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image -> (crop, crop, channels), uint8: the input of an engine, which normalises."""
        if self.channels == 1:
            image = image.convert("L")
        box = self.window(*image.size)
        small = image.resize((self.crop, self.crop), INTERPOLATIONS[self.interpolation], box=box)
        return np.asarray(small).reshape(self.crop, self.crop, self.channels)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., H, W, C), uint8 -> (..., C, H, W), float32: the input of a network's `forward`."""
        scale, shift = self.scale_and_shift()
        return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) * scale + shift, -1, -3))

    def __call__(self, image: Image.Image) -> "torch.Tensor":
        """A PIL image -> (channels, crop, crop), float32, normalised: what a network reads.

        It takes the image's orientation and transparency into account as `load_image` does, so it
        may be the `transform` of a torchvision dataset.

        Raises:
            UsageError: it is no PIL image.
        """
        import torch

        from foveate.data.image import upright_rgb

        if not isinstance(image, Image.Image):
            raise UsageError(
                f"Preprocess takes a PIL image, not {type(image).__name__}; foveate.load_image "
                "reads files"
            )
        rgb = upright_rgb(image, "(image)", self.levels)
        return torch.from_numpy(self.normalise(self.pixels(rgb)))

    @classmethod
    def of(cls, name: str) -> "Preprocess":
        """How the published weights of a network expect images.

        Args:
            name: a key of `foveate.weights.WEIGHTS`, such as "resnet18".

        Raises:
            UsageError: there are no published weights of that name.

        >>> Preprocess.of("resnet18").crop
        224
        """
        from foveate.weights import find_weights

        if not isinstance(name, str):
            raise UsageError(
                f"Preprocess.of takes a network's name, not {type(name).__name__}; a network that "
                "was built with weights has its own, network.preprocess"
            )
        return find_weights(name).preprocess

    def with_channels(self, channels: int) -> "Preprocess":
        """The same for grey images (1) or colour (3): a grey mean is that of the colours."""
        if channels == self.channels:
            return self
        if channels == 1:
            mean, std = (float(np.mean(numbers)) for numbers in (self.mean, self.std))
            return replace(self, channels=1, mean=(mean,), std=(std,))
        return replace(self, channels=channels, mean=self.mean * channels, std=self.std * channels)

    def scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(channels,) each: pixels * scale + shift equals (pixels / 255 - mean) / std."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def at(self, size: int, stretch: float = 1.0) -> "Preprocess":
        """The same normalisation for another size, without a crop along the shorter side.

        Raises:
            UsageError: size is no whole number from 1 to 4096.
        """
        size = whole_number("size", size, 1, LARGEST)
        return replace(self, resize=size, crop=size, stretch=stretch)

    def to_dict(self) -> dict[str, Any]:
        """Without `levels` where there are none: it is part of keys and cards older than they."""
        return {k: v for k, v in asdict(self).items() if k != "levels" or v is not None}

    @classmethod
    def from_dict(cls, value: Any) -> "Preprocess":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            if set(value) | {"levels"} != {field.name for field in fields(cls)}:
                raise KeyError("other fields than expected")
            sizes = {key: int(value[key]) for key in ("resize", "crop", "channels")}
            colours = {
                key: tuple(float(number) for number in value[key]) for key in ("mean", "std")
            }
            stretch, interpolation = float(value["stretch"]), str(value["interpolation"])
            levels = None
            if value.get("levels") is not None:
                black, white = value["levels"]
                levels = (float(black), float(white))
            return cls(
                **sizes,  # type: ignore[arg-type]
                **colours,  # type: ignore[arg-type]
                stretch=stretch,
                interpolation=interpolation,
                levels=levels,
            )
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ArtefactError(f"not a Preprocess: {value!r}") from error


def colours_or_grey(channels: Any) -> int:
    """3 or 1; UsageError if it is neither."""
    number = as_whole(channels)
    if number not in (1, 3):
        raise UsageError(f"channels must be 1 for grey or 3 for colour, not {shown(channels)}")
    return number


def is_number(value: object) -> bool:
    """Whether it is an ordinary number, neither infinite nor NaN; a bool is none."""
    number = as_number(value)
    return number is not None and abs(number) < math.inf


def decode(
    data: bytes,
    name: str,
    preprocess: Preprocess,
    on_damage: Callable[[str], object] | None = None,
    on_image: Callable[[Image.Image], object] | None = None,
) -> NDArray[np.uint8]:
    """An image's bytes -> (crop, crop, channels), uint8; `on_damage` as for `load_image`;
    `on_image` is called with the whole image, its shorter side at least `resize` if it has as much.

    Prediction, evaluation and feature extraction all call it, so that they see the same pixels.
    """
    image = load_image(data, name, preprocess.resize, preprocess.levels, on_damage)
    if on_image is not None:
        on_image(image)
    return preprocess.pixels(image)


def as_prediction_sees(dataset: "Dataset", preprocess: Preprocess) -> NDArray[np.uint8] | None:
    """All images of a built-in set as `decode` would return them; None if it would change them."""
    array = dataset.array(preprocess.channels, preprocess.crop)
    if array is None or array.shape[1] != array.shape[2] or preprocess.crop != preprocess.resize:
        return None
    return array
