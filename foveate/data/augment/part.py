"""Part: one augmentation, in one class: its options, its random numbers, its pixels, its
description.

A new augmentation is a frozen dataclass derived from `ImagePart`, in a file of its own, and its
name in `PARTS` (`augment/__init__.py`). The keyword arguments of `Augment`, the options of the
command line, the checks, `describe`, and what a run saves follow from it. Its fields are its
options:

    @dataclass(frozen=True)
    class Posterize(ImagePart):
        posterize: int = number(8, 1, 8, "bits", "Bits that are kept of each colour.", whole=True)
        ...

Nothing here imports torch or numpy when it is loaded: the command line reads the options of all
parts before it knows what is asked.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foveate.arguments import as_number, shown
from foveate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from foveate.data.augment.streams import Numbers

ON = "on"  # for `needs`: any value that switches the other option on


class Option(ABC):
    """What an option of a part takes, and how it is explained: a `Number`, a `Choice` or a `Pair`.

    Args:
        help: a sentence or two, for the command line.
        needs: another option and the value it must have (or ON) for this one to matter.
        coloured: whether it changes nothing in an image of one channel.
    """

    def __init__(self, help: str, needs: tuple[str, str] | None, coloured: bool = False):
        self.help, self.needs, self.coloured = help, needs, coloured

    @abstractmethod
    def check(self, name: str, value: Any) -> Any:
        """The value, numbers as Python has them; UsageError unless the option takes it."""

    @property
    @abstractmethod
    def type(self) -> Any:
        """Of the values, for the command line."""


class Number(Option):
    """A number from `low` to `high` of some `unit`.

    `flag`: the command line takes yes or no, and this is what yes stands for.
    """

    def __init__(
        self,
        help: str,
        needs: tuple[str, str] | None,
        coloured: bool,
        *,
        low: float,
        high: float,
        unit: str,
        whole: bool,
        flag: float | None,
    ):
        super().__init__(help, needs, coloured)
        self.low, self.high, self.unit, self.whole, self.flag = low, high, unit, whole, flag

    def check(self, name: str, value: Any) -> Any:
        number = as_number(value)
        if number is None or not self.low <= number <= self.high:
            raise UsageError(
                f"{name} must be from {self.low:g} to {self.high:g} ({self.unit}), not "
                f"{shown(value)}"
            )
        if self.whole and not isinstance(number, int):
            raise UsageError(f"{name} must be a whole number, not {shown(value)}")
        return number

    @property
    def type(self) -> Any:
        return bool if self.flag is not None else int if self.whole else float


class Choice(Option):
    """One of some names."""

    def __init__(self, help: str, needs: tuple[str, str] | None, choices: tuple[str, ...]):
        super().__init__(help, needs)
        self.choices = choices

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in self.choices:
            raise UsageError(f"{name} must be one of {', '.join(self.choices)}, not {value!r}")
        return value

    @property
    def type(self) -> Any:
        return Literal[self.choices]


class Pair(Option):
    """Two numbers, from and to, above 0 and up to `most`."""

    def __init__(self, help: str, needs: tuple[str, str] | None, most: float):
        super().__init__(help, needs)
        self.most = most

    def check(self, name: str, value: Any) -> Any:
        numbers = tuple(map(as_number, value)) if isinstance(value, tuple) else ()
        pair = [number for number in numbers if number is not None]
        if len(numbers) != 2 or len(pair) != 2 or not 0 < pair[0] <= pair[1] <= self.most:
            raise UsageError(
                f"{name} must be two numbers above 0 and up to {self.most:g}, the smaller first, "
                f"not {value!r}"
            )
        return tuple(pair)

    @property
    def type(self) -> Any:
        return tuple[float, float]


def number(
    default: float,
    low: float,
    high: float,
    unit: str,
    help: str,
    *,
    whole: bool = False,
    flag: float | None = None,
    needs: tuple[str, str] | None = None,
    coloured: bool = False,
) -> Any:
    """A field that is a `Number`."""
    option = Number(help, needs, coloured, low=low, high=high, unit=unit, whole=whole, flag=flag)
    return field(default=default, metadata={"option": option})


def choice(
    default: str, choices: tuple[str, ...], help: str, *, needs: tuple[str, str] | None = None
) -> Any:
    """A field that is a `Choice`."""
    return field(default=default, metadata={"option": Choice(help, needs, choices)})


def pair(
    default: tuple[float, float], most: float, help: str, *, needs: tuple[str, str] | None = None
) -> Any:
    """A field that is a `Pair`."""
    return field(default=default, metadata={"option": Pair(help, needs, most)})


@dataclass(frozen=True)
class Part(ABC):
    """One augmentation and its options, a frozen dataclass. Off by default.

    `recorded`: runs were saved before parts could be added. The parts of that time have places in
    an image's vector of random numbers (`Numbers`), and their options are always saved; a later
    part leaves this False, draws from a stream of its own, and its options are saved where it is
    on. So it changes neither the numbers of the others nor the settings of runs without it.
    """

    recorded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, option in self.options().items():
            object.__setattr__(self, name, option.check(name, getattr(self, name)))

    @classmethod
    def options(cls) -> "Mapping[str, Option]":
        """Of the part, by name, in order."""
        return options_of(cls)

    @property
    @abstractmethod
    def on(self) -> bool:
        """Whether it does anything."""

    @abstractmethod
    def describe(self) -> list[str]:
        """What it does, in phrases, if it is on."""


@cache
def options_of(cls: type[Part]) -> "Mapping[str, Option]":
    found = {f.name: f.metadata["option"] for f in fields(cls) if "option" in f.metadata}
    return MappingProxyType(found)


class ImagePart(Part):
    """An augmentation of one image at a time; `Mix` alone is one of batches.

    `uniforms`, `normals`: the places of a recorded part among the image's random numbers.

    `planes`: whether it works on float32, (C, size, size), values from 0 to 255, instead of uint8.
    Parts that do so stand beside each other, and their result is rounded once.
    """

    uniforms: ClassVar[slice] = slice(0, 0)
    normals: ClassVar[slice] = slice(0, 0)
    planes: ClassVar[bool] = False

    @abstractmethod
    def draw(self, numbers: "Numbers", shape: tuple[int, ...], size: int) -> Any:
        """What happens to one image, or None if nothing does. Called only where the part is on.

        Args:
            numbers: the image's random numbers; a part that is not recorded takes
                `numbers.of("its name")`, a generator of its own.
            shape: (H, W, C), of the image before the crop.
            size: side in pixels of the square that the crop makes.
        """

    @abstractmethod
    def render(self, x: "Tensor", drawn: Any) -> "Tensor":
        """(C, size, size) -> the same shape and type, as `draw` has decided. It may write over
        `x`."""
