"""Bursts and occasions, on vectors whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from foveate.audit.occasions import find_occasions

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
WIDTH = 64  # a quarter of it stands for the early stages


@pytest.fixture(autouse=True)
def a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.audit.occasions.EARLY", 0.25)


def vectors(
    labels: Labels, parts: list[tuple[Labels, float]], seed: int = 0, tight: float = 1.0
) -> Array:
    """A mean for each class; then a part for each number, with a deviation; in WIDTH dimensions."""
    rng = np.random.default_rng(seed)
    x = 4 * rng.normal(size=(labels.max() + 1, WIDTH))[labels]
    scale = np.where(labels == 0, tight, 1.0)[:, None]
    for numbers, deviation in parts:
        x += scale * deviation * rng.normal(size=(numbers.max() + 1, WIDTH))[numbers]
    return x.astype(np.float32)


def agreement(found: Labels, true: Labels) -> tuple[float, float]:
    """Recall and precision of pairs."""
    upper = np.triu_indices(len(found), 1)
    mine = (found[:, None] == found)[upper]
    real = (true[:, None] == true)[upper]
    return (mine & real).sum() / real.sum(), (mine & real).sum() / max(1, mine.sum())


@pytest.mark.parametrize("each", [20, 60, 150])
@pytest.mark.parametrize("tight", [1.0, 0.2])
def test_independent_images_are_no_group_however_tight_their_class(each: int, tight: float) -> None:
    labels = np.repeat(np.arange(4), each)
    alone = np.arange(len(labels))
    for seed in range(3):
        found = find_occasions(vectors(labels, [(alone, 1.0)], seed, tight), labels)
        assert len(np.unique(found.groups)) >= 0.98 * len(labels)
        assert not found.structured


def test_bursts_of_independent_things_are_found_and_no_more() -> None:
    """A third of the things was photographed four times."""
    sizes = np.where(np.arange(240) % 3 == 0, 4, 1)
    thing = np.repeat(np.arange(240), sizes)
    labels = thing % 4
    alone = np.arange(len(labels))
    found = find_occasions(vectors(labels, [(thing, 1.0), (alone, 0.3)]), labels)
    recall, precision = agreement(found.groups, thing)
    assert recall > 0.95 and precision > 0.95
    assert not found.structured


def test_of_images_that_nearly_all_came_in_bursts_the_occasions_are_looked_for() -> None:
    """Six occasions a class, on each five things, each photographed four times."""
    occasion = np.repeat(np.arange(24), 20)
    thing, labels = np.repeat(np.arange(120), 4), np.repeat(np.arange(4), 120)
    parts = [(occasion, 1.0), (thing, 0.7), (np.arange(480), 0.3)]
    found = find_occasions(vectors(labels, parts), labels)
    assert found.structured
    recall, precision = agreement(found.groups, occasion)
    assert recall > 0.6 and precision > 0.9
    assert agreement(found.bursts, thing) == (1, 1)


def test_of_occasions_without_bursts_too() -> None:
    occasion, labels = np.repeat(np.arange(32), 8), np.repeat(np.arange(4), 64)
    found = find_occasions(vectors(labels, [(occasion, 1.0), (np.arange(256), 0.4)]), labels)
    assert found.structured
    recall, precision = agreement(found.groups, occasion)
    # where occasions show this clearly, some of a class are joined: the figure is rather too low
    assert recall > 0.95 and precision > 0.6


def test_other_shots_that_pass_for_copies_count_as_bursts() -> None:
    occasion, labels = np.repeat(np.arange(24), 6), np.repeat(np.arange(4), 36)
    x = vectors(labels, [(occasion, 1.0), (np.arange(144), 1.0)])
    assert not find_occasions(x, labels).structured
    found = find_occasions(x, labels, np.arange(144) % 2 == 0)
    assert found.structured and len(np.unique(found.groups)) < 72


def test_groups_are_within_a_class_and_named_by_their_smallest_row() -> None:
    thing = np.repeat(np.arange(60), 3)
    labels = thing % 3
    found = find_occasions(vectors(labels, [(thing, 1.0), (np.arange(180), 0.1)]), labels)
    for numbers in (found.bursts, found.groups):
        assert (labels[numbers] == labels).all()
        assert (numbers <= np.arange(180)).all() and (numbers[numbers] == numbers).all()
    assert all(len({*found.groups[found.bursts == b]}) == 1 for b in np.unique(found.bursts))


def test_the_number_of_threads_changes_nothing() -> None:
    occasion, labels = np.repeat(np.arange(32), 8), np.repeat(np.arange(4), 64)
    x = vectors(labels, [(occasion, 1.0), (np.arange(256), 0.8)])
    one, three = (find_occasions(x, labels, threads=n) for n in (1, 3))
    assert (one.groups == three.groups).all() and (one.bursts == three.bursts).all()


def test_in_a_large_class_bursts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.audit.occasions.LARGE", 150)
    thing = np.concatenate([np.repeat(np.arange(60), 2), 60 + np.repeat(np.arange(90), 2)])
    labels = np.concatenate([np.zeros(120, np.int64), np.ones(180, np.int64)])
    found = find_occasions(vectors(labels, [(thing, 1.0), (np.arange(300), 0.2)]), labels)
    recall, precision = agreement(found.bursts, thing)
    assert recall > 0.9 and precision > 0.9


@pytest.mark.parametrize(
    "x",
    [
        np.ones((60, 16), np.float32),  # all images alike
        np.repeat(np.eye(3, 16, dtype=np.float32), 20, axis=0),  # each class one burst
        np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32),
    ],
)
def test_vectors_that_say_nothing_are_no_error(x: Array) -> None:
    found = find_occasions(x, np.repeat(np.arange(3), 20))
    assert found.groups.shape == (60,)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_of_few_images_nothing_can_be_said(n: int) -> None:
    found = find_occasions(np.zeros((n, 8), np.float32), np.zeros(n, np.int64))
    assert found.groups.tolist() == list(range(n))


def test_what_it_cannot_take_is_named() -> None:
    with pytest.raises(ValueError, match="expected"):
        find_occasions(np.zeros((3, 2), np.float32), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="finite"):
        find_occasions(np.full((3, 2), np.nan, np.float32), np.zeros(3, np.int64))
