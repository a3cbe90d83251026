"""A new augmentation is one class: options, command line, checks, description and what is saved
follow from it, and the random numbers of the others stay."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import typer
from photos import photo
from refusals import refused
from torch import Tensor
from typer.testing import CliRunner

from foveate.cli.augmentation import Policy, given_parts, takes_augmentation
from foveate.data import augment as package
from foveate.data.augment import PARTS, Augment
from foveate.data.augment.part import ImagePart, number
from foveate.data.augment.streams import Numbers, generator, named
from foveate.errors import UsageError


@dataclass(frozen=True)
class Posterize(ImagePart):
    """Keep some bits of each colour: a part as somebody might add it.

    Args:
        posterize: bits that are left out at most, 0 to 7.
    """

    posterize: int = number(0, 0, 7, "bits", "Bits that are left out, at most.", whole=True)

    @property
    def on(self) -> bool:
        return self.posterize > 0

    def describe(self) -> list[str]:
        return [f"up to {self.posterize} bits left out"]

    def draw(self, numbers: Numbers, shape: tuple[int, ...], size: int) -> int | None:
        return int(numbers.of("posterize").integers(self.posterize + 1)) or None

    def render(self, x: Tensor, drawn: int) -> Tensor:
        return x >> drawn << drawn


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before erasing: in the middle of the others."""
    monkeypatch.setattr(package, "PARTS", (*PARTS[:-2], Posterize, *PARTS[-2:]))
    monkeypatch.setattr("foveate.cli.augmentation.PARTS", package.PARTS)


def test_its_option_is_checked_and_described(added: None) -> None:
    augment = Augment("light", posterize=3)
    assert repr(augment) == "Augment('light', posterize=3)" and augment.posterize == 3
    assert augment.describe()[-1] == "up to 3 bits left out"
    for value in (8, 2.5, "3"):
        with refused(UsageError, "posterize"):
            Augment(posterize=value)
    with refused(UsageError, "'posterise'", "posterize"):
        Augment(posterise=3)


def test_it_does_its_own_thing(added: None) -> None:
    plain, coarse = Augment(size=40), Augment(size=40, posterize=7)
    lost = set()
    for i in range(60):
        before, after = plain.at(1, 2, i)(photo()), coarse.at(1, 2, i)(photo())
        bits = int(generator_of_its_own(1, 2, i).integers(8))
        assert torch.equal(after, before >> bits << bits)
        lost.add(bits)
    assert lost == set(range(8))


def generator_of_its_own(seed: int, epoch: int, index: int) -> np.random.Generator:
    counter = np.array([0, named("posterize"), 0, index], np.uint64)
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def test_the_others_draw_what_they_drew(added: None) -> None:
    both = Augment("strong", rotation=10, erasing=1.0, posterize=7)
    for i in range(10):
        steps = both.draw(0, 0, i, (50, 70, 3), 40)
        others = [(type(p), str(what)) for p, what in steps if not isinstance(p, Posterize)]
        alone = both.replace(posterize=0).draw(0, 0, i, (50, 70, 3), 40)
        assert others == [(type(part), str(what)) for part, what in alone]
        # its stream is neither theirs nor a part of it
        own = generator_of_its_own(0, 0, i).random(100)
        assert not set(own) & set(generator(0, 0, i).random(100))


def test_it_is_saved_where_it_is_on_and_old_runs_are_read(added: None) -> None:
    old = Augment("strong").to_dict()
    assert "posterize" not in old and Augment.from_dict(old) == Augment("strong")
    new = Augment("strong", posterize=3)
    assert new.to_dict() == {**old, "posterize": 3}
    assert Augment.from_dict(json.loads(json.dumps(new.to_dict()))) == new


def test_it_is_on_the_command_line(added: None) -> None:
    app, found = typer.Typer(rich_markup_mode=None), []

    @app.command()
    @takes_augmentation
    def command(context: typer.Context, augment: Policy = None) -> None:
        found.append(Augment(augment or "none", **given_parts(context)))

    done = CliRunner().invoke(app, ["--augment", "light", "--posterize", "3", "--no-hflip"])
    assert done.exit_code == 0, done.output
    assert found == [Augment("light", posterize=3, hflip=0.0)]
    assert "Bits that are left out" in CliRunner().invoke(app, ["--help"]).output


def test_without_it_there_is_no_such_option() -> None:
    with refused(UsageError, "'posterize'"):
        Augment(posterize=3)
