"""What callers hand in: whole numbers, numbers, paths and switches, taken as they come or refused
with what is taken; and how a message spells an option."""

import operator
import os
from numbers import Real
from pathlib import Path
from typing import Any

from foveate.errors import UsageError

LARGEST = 4096  # side of an image that may be asked for, pixels


def as_whole(value: Any) -> int | None:
    """A whole number of any library as an int; None if it is none. A bool is none.

    >>> as_whole(3), as_whole(3.0), as_whole(True)
    (3, None, None)
    """
    if type(value) is int:
        return value
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number from `least` to `most`, as an int.

    Raises:
        UsageError: it is anything else.
    """
    number = as_whole(value)
    if number is None or number < least or (most is not None and number > most):
        highest = "2^63 - 1" if most == 2**63 - 1 else most
        span = f"of at least {least}" if most is None else f"from {least} to {highest}"
        raise UsageError(f"{name} must be a whole number {span}, not {shown(value)}")
    return number


def as_number(value: Any) -> int | float | None:
    """A number of any library as an int or a float; None if it is none. A bool is none."""
    if (whole := as_whole(value)) is not None:
        return whole
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value)


def checked_path(what: str, value: Any) -> Path:
    """A path that was handed in.

    Args:
        what: what it is the path of, for the message: "data is a folder or a CSV".
        value: text or a Path.

    Raises:
        UsageError: it is of another type, or the empty text, which would be the working folder.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(path, str):
        raise UsageError(f"{what}, not {shown(value)} ({type(value).__name__})")
    if not path:
        raise UsageError(f"{what}, not the empty text ''; the working folder is '.'")
    return Path(path)


def check_switch(name: str, value: Any) -> None:
    """UsageError for a switch that is neither on nor off: any text, "no" too, would be on."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {shown(value)}")


ON_THE_COMMAND_LINE = False  # the command line sets it, in its own process


def option(name: str, value: Any = None) -> str:
    """An option and its value in a message, as who reads it spells them: the command line or
    Python.

    >>> option("on_bad", "skip"), option("lr")
    ("on_bad='skip'", 'lr')
    """
    if not ON_THE_COMMAND_LINE:
        return name if value is None else f"{name}={value!r}"
    spelt = f"--{spoken(name)}"
    return spelt if value is None or value is True else f"{spelt} {value}"


def spoken(name: str) -> str:
    """A setting's name in a message: on the command line with hyphens."""
    return name.replace("_", "-") if ON_THE_COMMAND_LINE else name


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
