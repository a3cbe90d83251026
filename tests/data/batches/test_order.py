"""Who sees what when: drawn from (seed, epoch) alone, and shared out without loss."""

from collections import Counter

import numpy as np
import pytest
import torch
from textbook import mix
from torch.nn import functional as F

from foveate.data.augment import Augment
from foveate.data.augment.mix import mixed
from foveate.data.augment.streams import batch_generator
from foveate.data.batches.order import Order, draw_order, draw_plan, part
from foveate.data.dataset import Dataset

PLAIN = Augment()
MIXING = {
    "mixup": Augment(mixup=0.4),
    "cutmix": Augment(cutmix=1.0),
    "both": Augment(mixup=0.4, cutmix=1.0),
}


def dataset(labels: list[int]) -> Dataset:
    n = len(labels)
    classes = tuple("abcdefgh"[: max(labels) + 1])
    return Dataset(
        "toy",
        "made",
        tuple(map(str, range(n))),
        np.array(labels),
        classes,
        ("train",) * n,
        ("",) * n,
        lambda i: b"",
    )


TOY = dataset([0] * 30 + [1] * 8 + [2] * 3)
ROWS = np.arange(41)


@pytest.mark.parametrize("n", [0, 1, 5, 12, 41])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_contiguous_and_equal_up_to_one(n: int, parts: int) -> None:
    parted = [list(range(n))[part(n, parts, i)] for i in range(parts)]
    assert [i for some in parted for i in some] == list(range(n))
    assert max(map(len, parted)) - min(map(len, parted)) <= 1


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_an_order_belongs_to_its_seed_and_epoch(sampling) -> None:
    orders = {
        (seed, epoch): draw_order(TOY, ROWS, sampling, seed, epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({order.rows.tobytes() for order in orders.values()}) == 9
    for (seed, epoch), order in orders.items():
        again = draw_order(TOY, ROWS, sampling, seed, epoch)
        assert np.array_equal(order.rows, again.rows) and np.array_equal(
            order.samples, again.samples
        )


def test_all_is_each_once_and_its_sample_its_row() -> None:
    rows = ROWS[::2]
    order = draw_order(TOY, rows, "all", 0, 0)
    assert sorted(order.rows) == list(rows)
    assert np.array_equal(order.rows, order.samples)


def test_balanced_is_each_class_alike_in_rounds() -> None:
    extra = Counter()
    for epoch in range(30):
        order = draw_order(TOY, ROWS, "balanced", 0, epoch)
        n = Counter(TOY.labels[order.rows].tolist())
        assert sorted(n.values()) == [13, 14, 14]
        extra[min(n, key=n.get)] += 1
        times = Counter(order.rows.tolist())
        assert {times[row] for row in range(38, 41)} <= {4, 5}
        assert {times[row] for row in range(30, 38)} <= {1, 2}
        assert {times[row] for row in range(30)} <= {0, 1}
        assert len(set(order.samples.tolist())) == len(ROWS)
        assert np.array_equal(order.samples % len(TOY), order.rows)
    assert set(extra) == {0, 1, 2}


def test_balanced_mixes_the_classes() -> None:
    labels = TOY.labels[draw_order(TOY, ROWS, "balanced", 0, 0).rows]
    assert (np.diff(labels) != 0).sum() > 15


def test_more_classes_than_images_asked_for() -> None:
    order = draw_order(TOY, np.array([0, 30]), "balanced", 0, 0)
    assert sorted(order.rows) == [0, 30]


def plans(augmentation: Augment, world: int, steps: int = 3, order: Order | None = None):
    order = order or draw_order(TOY, ROWS, "all", 0, 0)
    return [
        [
            draw_plan(TOY, order, augmentation, 12, 0, 0, step, steps, rank, world)
            for rank in range(world)
        ]
        for step in range(steps)
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("augmentation", [PLAIN, MIXING["both"]], ids=["plain", "mixing"])
def test_the_ranks_share_the_epoch(world: int, augmentation: Augment) -> None:
    order = draw_order(TOY, ROWS, "all", 0, 0)
    seen = []
    for step in plans(augmentation, world):
        own = [plan.rows[: plan.own] for plan in step]
        assert {plan.total for plan in step} == {sum(map(len, own))}
        assert max(map(len, own)) - min(map(len, own)) <= 1
        assert [plan.number for plan in step] == [len(seen)] * world
        seen.append(np.concatenate(own))
    assert np.array_equal(np.concatenate(seen), order.rows)
    assert {len(rows) for rows in seen} == {13, 14}


@pytest.mark.parametrize("world", [2, 3])
def test_mixing_alone_needs_images_of_others(world: int) -> None:
    assert all(len(plan.rows) == plan.own for step in plans(PLAIN, world) for plan in step)
    for step in plans(MIXING["both"], world):
        for plan in step:
            assert len(set(plan.rows)) == len(plan.rows) == len(plan.samples)
            assert plan.mixture is not None and len(plan.mixture.partner) == plan.own
            assert set(range(plan.own, len(plan.rows))) <= set(plan.mixture.partner)
        assert any(len(plan.rows) > plan.own for plan in step)


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_mixed_over_ranks_is_what_mix_makes_of_the_whole_batch(name: str, world: int) -> None:
    # of each row
    images = np.random.default_rng(0).integers(0, 256, (len(ROWS), 12, 12, 3), np.uint8)
    one_hot = F.one_hot(torch.from_numpy(TOY.labels), 3).float()
    changed = 0
    for number, step in enumerate(plans(MIXING[name], world, steps=6)):
        rows = np.concatenate([plan.rows[: plan.own] for plan in step])
        batch = torch.from_numpy(images[rows]).permute(0, 3, 1, 2)
        expected, targets = mix(batch, one_hot[rows], MIXING[name], batch_generator(0, 0, number))
        found = np.concatenate([mixed(images[plan.rows], plan.mixture) for plan in step])
        assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())
        assert torch.equal(torch.cat([plan.targets for plan in step]), targets)
        changed += not np.array_equal(found, images[rows])
    assert changed >= 5


def test_plain_targets_are_labels() -> None:
    for step in plans(PLAIN, 2):
        for plan in step:
            assert plan.targets.dtype == torch.int64
            assert plan.targets.tolist() == TOY.labels[plan.rows].tolist()
