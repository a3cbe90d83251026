"""Preprocess: how an image becomes a network's input.

It is saved with a run; training, evaluation, export and the server all use the run's.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.arguments import LARGEST, as_number, as_whole, shown, whole_number
from foveate.data.image import Levels, load_image, reduction
from foveate.errors import ArtefactError, UsageError

if TYPE_CHECKING:
    import torch

    from foveate.data.dataset import Dataset

Box = tuple[float, float, float, float]
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Fit = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = get_args(Fit)
# shares of the shorter side, one a view
FRAMINGS = {
    "whole": (1.0,),
    "7/8": (7 / 8,),
    "2/3": (2 / 3,),
    "1/2": (1 / 2,),
    "whole+2/3": (1.0, 2 / 3),
}
WHOLE = 0.99  # what is rounding of a share of 1
MARGIN = 8 / 7  # 256 pixels for 224, as published networks were trained
MOST = 8  # views: each adds the time of one to every prediction


@dataclass(frozen=True)
class View:
    """One square that is cut out of an image.

    Args:
        resize: pixels of the whole shorter side at the square's scale.
        crop: side of the square, pixels; at most `resize`. What of the shorter side is seen is
            crop / resize.
        stretch: with fit "crop", how much more of the longer side is squeezed into the square: 1
            keeps proportions, 1.12 shows 12 % more of the scene.
        interpolation: "bilinear" or "bicubic", both antialiased.
        fit: what happens to a longer side: "crop" cuts its ends off; "squash" squeezes all of it
            into the square; "pad" keeps all of it and its proportions, between borders of the mean
            colour. The latter two show the whole image.

    Raises:
        UsageError: a value is of a wrong type or out of its range, or fit contradicts the rest.
    """

    resize: int
    crop: int
    stretch: float = 1.0
    interpolation: str = "bicubic"
    fit: Fit = "crop"

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
        if self.fit not in FITS:
            raise UsageError(f"fit is {', '.join(FITS)}, not {self.fit!r}")
        if self.fit != "crop" and (self.crop != self.resize or self.stretch != 1):
            raise UsageError(
                f"fit {self.fit} shows the whole image: resize is crop, and stretch 1, not "
                f"{self.resize}, {self.crop} and {self.stretch}"
            )

    def window(self, width: int, height: int) -> Box:
        """The part of an image that is seen: (left, top, right, bottom), in its own pixels."""
        if self.fit != "crop":
            return 0, 0, width, height
        square = min(width, height) * self.crop / self.resize
        w = min(width, square * self.stretch) if width > height else square
        h = min(height, square * self.stretch) if height > width else square
        return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2

    @property
    def trained_on(self) -> float:
        """The share of both sides, around the centre, from which training crops are taken: a margin
        more than prediction sees, so that a crop can be moved; the whole of what is whole."""
        share = MARGIN * self.crop / self.resize
        return 1.0 if share > WHOLE else share

    def square(self, image: Image.Image, border: tuple[int, ...]) -> Image.Image:
        """An image -> its square, crop x crop.

        Args:
            border: the colour beside an image that is padded, one number a channel.
        """
        sampling = INTERPOLATIONS[self.interpolation]
        if self.fit != "pad":
            side = (self.crop, self.crop)
            return image.resize(side, sampling, box=self.window(*image.size))
        scale = self.crop / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        square = Image.new(image.mode, (self.crop, self.crop), border)
        corner = (self.crop - width) // 2, (self.crop - height) // 2
        square.paste(image.resize((width, height), sampling), corner)
        return square


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop the centre, normalise.

    The image is resized so that its shorter side has `resize` pixels, and the centre `crop` x
    `crop` is cut out; both in one step, straight from the image, so nothing outside the crop is
    computed. Values are scaled to [0, 1] before normalisation: (value - mean) / std.

    Args:
        resize, crop, stretch, interpolation, fit: of the first view, as of a `View`. On photos a
            small stretch gave better accuracy than either a tight crop or squeezing the whole
            image.
        channels: 3 (RGB) or 1 (grey).
        mean, std: one number a channel, for values in [0, 1].
        levels: of images with more than 8 bits a channel, the values that become 0 and 255; None,
            as ever with images of 8 bits, keeps the high byte of 16 bits. A run finds them in its
            training images (`foveate.data.levels`).
        more: further views of the same image, which the network reads side by side.

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
    fit: Fit = "crop"
    more: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        first = self.views[0]  # which checks its values
        object.__setattr__(self, "resize", first.resize)
        object.__setattr__(self, "crop", first.crop)
        more: Any = self.more
        if not isinstance(more, (tuple, list)) or any(not isinstance(view, View) for view in more):
            raise UsageError(f"more is further views, each a foveate.View, not {more!r}")
        if len(more) >= MOST:
            raise UsageError(f"a Preprocess has at most {MOST} views, not {len(more) + 1}")
        object.__setattr__(self, "more", tuple(more))
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

    @property
    def views(self) -> tuple[View, ...]:
        """All views, the first one first."""
        first = View(self.resize, self.crop, self.stretch, self.interpolation, self.fit)
        return first, *self.more

    @property
    def framing(self) -> str:
        """How much of the shorter side is seen, by its name; by numbers where it has none."""
        sides = [view.resize for view in self.views]
        for name, shares in FRAMINGS.items():
            if len(shares) == len(sides) and sides == [
                round(view.crop / share) for view, share in zip(self.views, shares, strict=True)
            ]:
                return name
        return "+".join(f"{view.crop / view.resize:.3g}" for view in self.views)

    def alone(self, view: View) -> "Preprocess":
        """The same with one view alone."""
        return replace(self, **asdict(view), more=())

    @property
    def numbers(self) -> int:
        """Numbers in all views of an image."""
        return sum(view.crop**2 for view in self.views) * self.channels

    def seen(self, width: int, height: int) -> float:
        """The share of an image's area that is in a view."""
        boxes = [view.window(width, height) for view in self.views]  # centred, one in the other
        areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
        return max(areas) / (width * height)

    def squares(self, image: Image.Image) -> tuple[NDArray[np.uint8], ...]:
        """An image -> each view's (crop, crop, channels), uint8: the input of an engine, which
        normalises."""
        return tuple(self.square(image, view) for view in self.views)

    def square(self, image: Image.Image, view: View) -> NDArray[np.uint8]:
        """One of `squares`."""
        if self.channels == 1:
            image = image.convert("L")
        border = tuple(round(255 * mean) for mean in self.mean)
        square = view.square(image, border)
        return np.asarray(square).reshape(view.crop, view.crop, self.channels)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The one of `squares`, of a Preprocess with one view.

        Raises:
            UsageError: it has several.
        """
        if self.more:
            raise UsageError(f"this Preprocess has {len(self.views)} views, and one is read here")
        return self.squares(image)[0]

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., H, W, C), uint8 -> (..., C, H, W), float32: the input of a network's `forward`."""
        scale, shift = self.scale_and_shift()
        return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) * scale + shift, -1, -3))

    def __call__(self, image: Image.Image) -> "torch.Tensor | tuple[torch.Tensor, ...]":
        """A PIL image -> (channels, crop, crop), float32, normalised: what a network reads; of
        several views one each.

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
        tensors = tuple(torch.from_numpy(self.normalise(square)) for square in self.squares(rgb))
        return tensors if self.more else tensors[0]

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
        """The same normalisation for another size, of the whole shorter side.

        Raises:
            UsageError: size is no whole number from 1 to 4096.
        """
        size = whole_number("size", size, 1, LARGEST)
        return replace(self, resize=size, crop=size, stretch=stretch, fit="crop", more=())

    def framed(self, framing: str = "whole", fit: Fit = "crop") -> "Preprocess":
        """The same, seeing other parts of an image.

        Args:
            framing: how much of the shorter side is seen, a key of FRAMINGS.
            fit: what happens to a longer side, as of a `View`.

        Raises:
            UsageError: no such framing or fit; a fit that shows the whole image, and a framing that
                does not; an image's side would have more than 4096 pixels.
        """
        if framing not in tuple(FRAMINGS):
            raise UsageError(f"no framing is called {framing!r}; expected {', '.join(FRAMINGS)}")
        if fit not in FITS:
            raise UsageError(f"fit is {', '.join(FITS)}, not {fit!r}")
        if fit != "crop" and framing != "whole":
            raise UsageError(
                f"fit {fit} shows the whole image, and framing {framing} a part of it: give one of "
                "the two"
            )
        stretch = self.stretch if fit == "crop" else 1.0
        views = [
            View(round(self.crop / share), self.crop, stretch, self.interpolation, fit)
            for share in FRAMINGS[framing]
        ]
        return replace(self, **asdict(views[0]), more=tuple(views[1:]))

    def to_dict(self) -> dict[str, Any]:
        """Without `levels`, `fit` and `more` where they say nothing: it is part of keys and cards
        that are older than they."""
        silent = {"levels": None, "fit": "crop", "more": ()}
        return {k: v for k, v in asdict(self).items() if k not in silent or v != silent[k]}

    @classmethod
    def from_dict(cls, value: Any) -> "Preprocess":
        """Read back what `to_dict` wrote; ArtefactError if it is anything else."""
        try:
            if set(value) | {"levels", "fit", "more"} != {field.name for field in fields(cls)}:
                raise KeyError("other fields than expected")
            colours = {
                key: tuple(float(number) for number in value[key]) for key in ("mean", "std")
            }
            levels = None
            if value.get("levels") is not None:
                black, white = value["levels"]
                levels = (float(black), float(white))
            return cls(
                **view_from(value),
                **colours,  # type: ignore[arg-type]  # tuples of floats, for mean and std alone
                channels=int(value["channels"]),
                levels=levels,
                more=tuple(View(**view_from(view)) for view in value.get("more", ())),
            )
        except UsageError as error:
            raise ArtefactError(f"not a Preprocess: {error}") from error
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ArtefactError(f"not a Preprocess: {value!r}") from error


def view_from(value: Any) -> dict[str, Any]:
    """The fields of a View that JSON gives back."""
    return {
        "resize": int(value["resize"]),
        "crop": int(value["crop"]),
        "stretch": float(value["stretch"]),
        "interpolation": str(value["interpolation"]),
        "fit": value.get("fit", "crop"),
    }


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


def decode_squares(
    data: bytes,
    name: str,
    preprocess: Preprocess,
    on_damage: Callable[[str], object] | None = None,
    on_image: Callable[[View, Image.Image], object] | None = None,
) -> tuple[NDArray[np.uint8], ...]:
    """An image's bytes -> each view's (crop, crop, channels), uint8; `on_damage` as for
    `load_image`; `on_image` is called with each view and the whole image that it is cut from.

    Prediction, evaluation and feature extraction all call it, so that they see the same pixels. A
    view's pixels do not depend on which others there are: one decode serves all views for which the
    file would be decoded at the same scale.
    """
    decoded: dict[int, Image.Image] = {}
    squares: list[NDArray[np.uint8]] = []
    for view in preprocess.views:
        scale = reduction(data, view.resize)
        image = decoded.get(scale)
        if image is None:
            image = load_image(data, name, view.resize, preprocess.levels, on_damage)
            if scale:
                decoded[scale] = image
        if on_image is not None:
            on_image(view, image)
        squares.append(preprocess.square(image, view))
    return tuple(squares)


def decode(
    data: bytes,
    name: str,
    preprocess: Preprocess,
    on_damage: Callable[[str], object] | None = None,
) -> NDArray[np.uint8]:
    """The same of one view: (crop, crop, channels), uint8."""
    image = load_image(data, name, preprocess.resize, preprocess.levels, on_damage)
    return preprocess.pixels(image)


def as_prediction_sees(dataset: "Dataset", preprocess: Preprocess) -> NDArray[np.uint8] | None:
    """All images of a built-in set as `decode` would return them; None if it would change them."""
    array = dataset.array(preprocess.channels, preprocess.crop)
    whole = preprocess.crop == preprocess.resize and not preprocess.more
    if array is None or array.shape[1] != array.shape[2] or not whole:
        return None
    return array
