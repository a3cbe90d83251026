"""What mistakes cost: a table of the user's, the answers that cost least, and what these bring.

true,shirt,dress      a row is the true class, a column the answer
shirt,0,1
dress,5,0
"""

import math
import os
from typing import Any

import numpy as np

from foveate.arguments import checked_path
from foveate.classifier.decision import Decision
from foveate.data.dataset import listed
from foveate.data.layouts import composed
from foveate.data.tables import records
from foveate.errors import DataError, quoted
from foveate.evaluation.intervals import Weights, resampled
from foveate.metrics import Floats, Ints, confusion_matrix

Costs = tuple[tuple[float, ...], ...]


def read_costs(path: str | os.PathLike[str], classes: tuple[str, ...]) -> Costs:
    """A table of costs in the order of the classes.

    Args:
        path: of a CSV with a row for each true class and a column for each answer; one of neither
            is taken for a name of the corner.
        classes: of the classifier.

    Returns:
        costs[true][answer].

    Raises:
        DataError: it cannot be read; a class is missing, or there twice, or none of the
            classifier's; a cell is no finite number; what is right costs more than what is wrong.
    """
    table = checked_path("costs is the path of a CSV", path)
    if not table.is_file():
        raise DataError(f"there is no table {quoted(table)}")
    lines = list(records(table))
    if not lines:
        raise DataError(f"{quoted(table)} is empty; expected a row and a column for each class")
    (_, header), rows = lines[0], [(number, cells) for number, cells in lines[1:] if any(cells)]
    columns = [composed(cell.strip()) for cell in header[1:]]
    names = [composed(cells[0].strip()) for _, cells in rows]
    wanted = [composed(name) for name in classes]
    for what, found in (("column", columns), ("row", names)):
        missing = [name for name in wanted if name not in found]
        strange = [name for name in found if name not in wanted]
        twice = [name for name in wanted if found.count(name) > 1]
        for problem, which in (("lacks", missing), ("has", strange), ("has twice", twice)):
            if which:
                hint = "" if which is not strange else f"; the classes are {listed(wanted, 20)}"
                raise DataError(f"{quoted(table)} {problem} the {what} {listed(which)}{hint}")
    place = {name: i for i, name in enumerate(columns)}
    cells_of = dict(zip(names, rows, strict=True))

    def cost(true: str, answer: str) -> float:
        number, cells = cells_of[true]
        cell = cells[1 + place[answer]].strip() if 1 + place[answer] < len(cells) else ""
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{quoted(table)}, line {number}: the cost of taking {true} for {answer} is "
                f"{cell!r}; expected a number"
            )
        return value

    costs = tuple(tuple(cost(true, answer) for answer in wanted) for true in wanted)
    for true, row in enumerate(costs):
        if row[true] > min(row):
            cheaper = wanted[row.index(min(row))]
            raise DataError(
                f"{quoted(table)}: of {wanted[true]} the right answer costs {row[true]:g} and "
                f"{cheaper} {min(row):g}; rows are the true classes, columns the answers"
            )
    return costs


def weigh(
    costs: Costs, probabilities: Floats, labels: Ints, answers: Ints, groups: Ints
) -> dict[str, Any]:
    """What the answers that cost least bring.

    Args:
        costs: from `read_costs`.
        probabilities: (N, classes), calibrated.
        labels: (N,)
        answers: (N,), without regard to costs.
        groups: (N,)

    Returns:
        before and after, the mean cost of an image's answer, without and with regard to costs;
        saved, their difference, with saved_ci95; changed, how many answers are others; accuracy and
        confusion of these.
    """
    table = np.array(costs)
    cheapest = Decision(costs=costs).chosen(probabilities)
    before, after = table[labels, answers], table[labels, cheapest]
    saved = before - after

    def figures(weights: Weights) -> dict[str, float]:
        return {"saved_ci95": float(saved @ weights / weights.sum())}

    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "saved": float(saved.mean()),
        **resampled(figures, groups),
        "changed": int((cheapest != answers).sum()),
        "accuracy": float((cheapest == labels).mean()),
        "confusion": confusion_matrix(labels, cheapest, len(costs)).tolist(),
    }
