"""Experiments: each slide of a lecture on deep convolutional networks, run on real images.

    foveate lab                          the experiments
    foveate lab vanishing-gradient       one of them: a figure, a table, and what they show

Each experiment is a file that reads from top to bottom, built on torch and what `foveate` exports.
It has a `QUESTION`, its `MINUTES` in the quick and in the full form on two cores, and `run(bench)`,
which returns `Findings`.

    bench.py      what an experiment is given: images, a seed, and a memory of what is measured
    images.py     data sets as tensors
    learning.py   one loop that trains
    drawing.py    how figures look
    page.py       all findings on one HTML page
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from foveate.errors import UsageError


@dataclass(frozen=True)
class Slide:
    """An experiment, and the part of the lecture that it belongs to."""

    name: str
    part: str

    @property
    def module(self) -> ModuleType:
        """The experiment's file; loading it loads torch."""
        return import_module(f"foveate.lab.{self.name.replace('-', '_')}")


CLASSIC, RESIDUAL, MODERN, PRACTICE = (
    "classic networks",
    "residual networks",
    "other modern networks",
    "practice",
)
SLIDES = (  # in the order of the lecture
    Slide("lenet", CLASSIC),
    Slide("alexnet", CLASSIC),
    Slide("vgg", CLASSIC),
    Slide("vanishing-gradient", RESIDUAL),
    Slide("skip-connection", RESIDUAL),
    Slide("one-by-one", MODERN),
    Slide("inception-module", MODERN),
    Slide("dense-connectivity", MODERN),
    Slide("compound-scaling", MODERN),
    Slide("architecture-search", MODERN),
    Slide("depthwise", MODERN),
    Slide("receptive-field", MODERN),
    Slide("colour", PRACTICE),
    Slide("augmentation", PRACTICE),
    Slide("transfer", PRACTICE),
    Slide("lineage", PRACTICE),
    Slide("filters", PRACTICE),
)
LABS = {slide.name: slide for slide in SLIDES}


def find(name: str) -> Slide:
    """The experiment of that name.

    Raises:
        UsageError: there is none.
    """
    from difflib import get_close_matches

    if name in LABS:
        return LABS[name]
    near = get_close_matches(name.replace("_", "-"), LABS, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(LABS)}, and all"
    raise UsageError(f"no experiment is called '{name}': {hint}")
