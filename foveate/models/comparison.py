"""Two networks side by side, stage by stage.

>>> from foveate.models import build
>>> old, new = (measure(name, build(name)) for name in ("lenet5_1998", "lenet5"))
>>> print(side_by_side(old, new).splitlines()[-1])
lenet5 has 1.03 times the parameters of lenet5_1998 and 1 times its MACs.
"""

from dataclasses import dataclass

from torch import nn

from foveate.models.summary import (
    Stage,
    Summary,
    by,
    in_units,
    sides,
    summarise,
    summarise_stages,
)

COLUMNS = ["output", "parameters", "MACs", "field"]
BETWEEN = " | "  # the two networks


@dataclass(frozen=True)
class Measured:
    """A network's totals and stages; the last one is the head."""

    name: str
    summary: Summary
    stages: tuple[Stage, ...]


def measure(name: str, network: nn.Module, size: tuple[int, int, int] | None = None) -> Measured:
    """What a network is made of.

    Args:
        name: of the network.
        network, size, and what it raises: as `summarise_stages`.
    """
    summary = summarise(network, size)
    return Measured(name, summary, summarise_stages(network, summary))


def ratios(first: Measured, second: Measured) -> dict[str, float]:
    """How many times the parameters, MACs and layers on the longest way the second has."""
    a, b = first.summary, second.summary
    return {
        "parameters": b.parameters / a.parameters,
        "macs": b.macs / a.macs,
        "depth": b.depth / a.depth,
    }


def side_by_side(first: Measured, second: Measured) -> str:
    """The table for people; its rows are stages, of which a network may have fewer."""
    count = max(len(first.stages), len(second.stages)) - 1  # but for the head
    names = ["", "image", *(f"stage {i + 1}" for i in range(count)), "head", "total"]
    halves = [[COLUMNS, *rows(network, count)] for network in (first, second)]
    tables = [columns(half) for half in halves]
    width = max(map(len, names))
    lines = [
        f"{name:<{width}}  {left}{BETWEEN}{right}".rstrip()
        for name, left, right in zip(names, *tables, strict=True)
    ]
    rule = "-" * max(map(len, lines))
    inner = len(tables[0][0])
    head = f"{'':<{width}}  {first.name:<{inner}}{BETWEEN}{second.name}"
    times = {
        what: f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"
        for what, ratio in ratios(first, second).items()
    }
    totals = (
        f"{second.name} has {times['parameters']} the parameters of {first.name} and "
        f"{times['macs']} its MACs."
    )
    return "\n".join([head, lines[0], rule, *lines[1:-1], rule, lines[-1], "", totals])


def rows(network: Measured, count: int) -> list[list[str]]:
    """The cells of a network: its image, `count` stages, the head, and all together."""
    *stages, head = network.stages
    missing = [["", "", "", ""]] * (count - len(stages))
    summary = network.summary
    total = [f"{summary.depth} deep", f"{summary.parameters:,}", in_units(summary.macs), ""]
    return [[by(summary.size), "", "", ""], *map(cells, stages), *missing, cells(head), total]


def cells(stage: Stage) -> list[str]:
    field = "" if stage.name == "head" else sides(stage.field, "global")
    return [by(stage.shape), f"{stage.parameters:,}", in_units(stage.macs), field]


def columns(table: list[list[str]]) -> list[str]:
    """Cells as lines of equal length: the first column is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
