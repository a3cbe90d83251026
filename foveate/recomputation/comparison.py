"""What was recorded beside what was computed again."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError

TOLERANCE = 1e-3  # between numbers that machines of two kinds computed


@dataclass(frozen=True)
class Difference:
    """A number or a file that is not what it should be.

    Args:
        file: of the run.
        where: in it; "" is the whole file.
        recorded: what is there.
        computed: what should be there, or what is wrong.
    """

    file: str
    where: str
    recorded: Any
    computed: Any


@dataclass
class Verification:
    """What was computed again.

    Args:
        run: its folder.
        same_kind: whether this machine is of the kind that the run was trained on.
        verified: what is as recorded.
        differences: what is not.
        unverified: what could not be computed again, and why.
        largest: the largest difference between numbers that are taken for the same.
        allowed: the largest difference that was allowed.
    """

    run: Path
    same_kind: bool = True
    verified: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unverified: dict[str, str] = field(default_factory=dict)
    largest: float = 0.0
    allowed: float = 0.0

    @property
    def tolerance(self) -> float:
        """Between two numbers that are taken for the same."""
        return 0.0 if self.same_kind else TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": str(self.run),
            "same": not self.differences,
            "same_kind_of_machine": self.same_kind,
            "tolerance": self.allowed,
            "largest_difference": self.largest,
            "verified": self.verified,
            "differences": [asdict(one) for one in self.differences],
            "unverified": self.unverified,
        }

    def compare(
        self, file: str, name: str, recorded: Any, computed: Any, tolerance: float | None = None
    ) -> None:
        """Note whether two values are the same, as JSON has them.

        Args:
            file: of the run.
            name: of what is compared, for people.
            tolerance: of its numbers; by default what the two kinds of machine ask for.
        """

        def near(difference: float) -> None:
            self.largest = max(self.largest, difference)

        allowed = self.tolerance if tolerance is None else tolerance
        self.allowed = max(self.allowed, allowed)
        before, now = json.loads(json.dumps([recorded, computed]))
        found = [Difference(file, *one) for one in unequal("", before, now, allowed, near)]
        self.differences += found
        if not found:
            self.verified.append(name)

    def wrong(self, file: str, what: str) -> None:
        """Note a file that is not what it should be."""
        self.differences.append(Difference(file, "", None, what))

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Note a file that cannot be read, or lacks what it should hold."""
        try:
            yield
        except FoveateError as error:
            self.wrong(file, str(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.wrong(file, f"it is damaged ({error!r})")


def unequal(
    where: str, recorded: Any, computed: Any, tolerance: float, near: Callable[[float], object]
) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ by more than a tolerance, and both there; `near` is given what
    smaller differences there are.

    >>> list(unequal("", {"a": [1, 2.0]}, {"a": [1, 2.5]}, 0.1, print))
    0
    [('a[1]', 2.0, 2.5)]
    """
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in dict.fromkeys([*recorded, *computed]):
            inner = f"{where}.{key}" if where else key
            yield from unequal(inner, recorded.get(key), computed.get(key), tolerance, near)
    elif isinstance(recorded, list) and isinstance(computed, list):
        if len(recorded) != len(computed):
            yield f"{where} (entries)", len(recorded), len(computed)
            return
        for i, (before, now) in enumerate(zip(recorded, computed, strict=True)):
            yield from unequal(f"{where}[{i}]", before, now, tolerance, near)
    elif is_number(recorded) and is_number(computed):
        difference = abs(recorded - computed)
        if difference <= tolerance * max(1.0, abs(computed)):
            near(difference)
        else:
            yield where, recorded, computed
    elif recorded != computed:
        yield where, recorded, computed


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
