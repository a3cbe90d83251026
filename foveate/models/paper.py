"""What a paper's file says of itself, read from its docstring."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import nn


@dataclass(frozen=True)
class Paper:
    """The docstring of a paper's file, by its parts; each a paragraph without line breaks.

    Args:
        title: of the file: the network, and what is new about it.
        year: in which the paper appeared.
        reference: authors, title, venue, arXiv number.
        idea, input, output, names: as in the docstring.
        differences: lines of text, and (code, text) for what is marked D1, D2 ... in the file.
    """

    title: str
    year: int
    reference: str
    idea: str
    input: str
    output: str
    names: str
    differences: tuple[tuple[str, str], ...]


PARTS = ("Paper", "Idea", "Input", "Output", "Names")


def read_paper(builder: Callable[..., nn.Module]) -> Paper:
    """The paper whose file a builder is in.

    >>> from foveate.models import MODELS
    >>> read_paper(MODELS["resnet50"]).year
    2015
    """
    module = inspect.getmodule(builder)
    assert isinstance(module, ModuleType) and module.__doc__ is not None
    head, _, rest = module.__doc__.partition("\n\n")
    described, _, differences = rest.partition("\nDifferences from the paper")
    found = {}
    for part in PARTS:
        match = re.search(rf"^{part:7} (.*?)(?=^\S|\Z)", described, re.MULTILINE | re.DOTALL)
        assert match is not None, f"{module.__name__} does not say its {part}"
        found[part] = one_line(match[1])
    return Paper(
        title=head,
        year=module.YEAR,
        reference=found["Paper"],
        idea=found["Idea"],
        input=found["Input"],
        output=found["Output"],
        names=found["Names"],
        differences=tuple(read_differences(differences)),
    )


def read_differences(text: str) -> list[tuple[str, str]]:
    """("D1", what differs) for each that is listed, ("", sentence) for what is said between
    them."""
    _, _, text = text.partition(":")
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        listed = re.match(r"\s+(D\d+)\s+(.*)", line)
        if listed:
            found.append((listed[1], listed[2]))
        elif (
            line.startswith(" ")
            and found
            and (found[-1][0] or not found[-1][1].endswith((".", ":")))
        ):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")  # a line goes on
        elif (
            line.strip()
            and found
            and not found[-1][0]
            and not found[-1][1].endswith((":", "except:"))
        ):
            found[-1] = ("", f"{found[-1][1]} {line.strip()}")
        elif line.strip():
            found.append(("", line.strip()))
    return found


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
