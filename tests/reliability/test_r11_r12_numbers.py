"""Running out of memory (R11), and numbers that are not finite (R12)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import absent, refused
from toy import CONFIG, batches_of, drawn, plan_of, same, small, train, trainer_of

from foveate.checkpoint import latest
from foveate.errors import FoveateError, UsageError
from foveate.training.distributed import Ranks
from foveate.training.losses import Objective
from foveate.training.memory import check_batches

pytestmark = pytest.mark.usefixtures("warm_cache")

PLAIN = replace(CONFIG, batch_size=13)
CPU = (
    "[enforce fail at alloc_cpu.cpp:113] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate"
)


class Narrow(torch.nn.Module):
    """A network on a machine that holds so many images and no more."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.most, self.error = small(norms=False), most, error

    @property
    def head(self) -> torch.nn.Module:
        return self.inner.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > self.most:
            raise self.error
        return self.inner(x)


@pytest.mark.parametrize(
    "error", [RuntimeError(CPU), MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")]
)
def test_r11_smaller_pieces_of_the_same_batch(error: Exception) -> None:
    wide, narrow = Narrow(99, error), Narrow(4, error)
    narrow.load_state_dict(wide.state_dict())
    train(wide, config=PLAIN)
    messages: list[str] = []
    trainer = trainer_of(narrow, config=PLAIN, log=messages.append)
    trainer.run()
    assert trainer.micro_batches == 4 and len(messages) == 2
    assert not absent(messages[-1], "memory", "4")
    for mine, its in zip(narrow.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)  # added up in another order


def test_r11_pieces_are_kept_when_resumed(tmp_path: Path) -> None:
    train(Narrow(4, MemoryError()), tmp_path, config=PLAIN)
    found = latest(tmp_path, print)
    assert found and found.about["micro_batches"] == 4


def test_r11_ends_when_a_single_image_is_too_much() -> None:
    network = Narrow(0, MemoryError())
    plan = replace(plan_of(network, PLAIN), frozen_norms=True)
    with refused(FoveateError, "memory", "1 images", "size"):
        train(network, config=PLAIN, plan=plan)
    # six pieces of 13 for batch-norm
    with refused(FoveateError, "memory", "3 images"):
        train(Narrow(0, MemoryError()), config=PLAIN)


def test_r11_other_errors_are_not_memory() -> None:
    with refused(RuntimeError, "mat1 and mat2"):
        train(Narrow(4, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), config=PLAIN)


def test_r11_ranks_do_not_shrink_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(Narrow(4, MemoryError()), config=PLAIN)
    batch = next(trainer.batches.epoch(0))
    trainer.ranks = Ranks(0, 2)
    with refused(FoveateError, "memory", "accumulate"):
        trainer.gradients(trainer.network, batch)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_r12_a_loss_that_is_no_number(poison: float, tmp_path: Path) -> None:
    network = small()
    train(small(), tmp_path / "whole", config=replace(CONFIG, epochs=1))
    batches = batches_of(drawn())
    trainer = trainer_of(network, tmp_path, batches=batches)
    objective = trainer.objective

    class Poisoned(Objective):
        def loss(self, outputs, targets):
            logits, total = objective.loss(outputs, targets)
            return logits, total * (poison if trainer.epoch == 1 and trainer.batch == 2 else 1)

    trainer.objective = Poisoned(objective.task)
    with pytest.raises(FoveateError) as caught:
        trainer.run()
    message = str(caught.value)
    assert not absent(message, "loss", "finite", "step 7", "epoch 2, batch 3, rate ", "lr")
    third = list(batches.epoch(1))[2]
    assert not absent(message, *third.names[:5])
    assert all(p.isfinite().all() for p in network.parameters())  # nothing was learnt from it
    found = latest(tmp_path, print)
    assert found and found.about["epoch"] == 1


def test_r12_a_gradient_that_is_no_number() -> None:
    network = small()
    network.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
    with refused(FoveateError, "gradient", "finite", "step 1", "epoch 1, batch 1"):
        train(network)


def test_r12_a_validation_that_is_no_number(tmp_path: Path) -> None:
    trainer = trainer_of(small(), tmp_path)
    judge = trainer.validate
    trainer.validate = lambda network: judge(network) * (float("nan") if trainer.epoch == 1 else 1)
    with refused(FoveateError, "validation", "epoch 2", "finite", "lr"):
        trainer.run()
    found = latest(tmp_path, print)
    assert found and found.about["epoch"] == 1


@pytest.mark.precision
def test_a_rate_that_throws_it_off(tmp_path: Path, images: Path) -> None:
    from foveate.training import train as train_images

    with refused(UsageError, "lr", "1e-09", "100", "1e+30"):
        train_images(images, "resnet20", "scratch", lr=1e30, out=tmp_path / "run")
    settings = {"lr": 100.0, "epochs": 8, "warmup": 0.0, "clip": 0.0, "optimizer": "sgd"}
    with refused(FoveateError, "finite", "lr"):
        train_images(images, "lenet5", "scratch", **settings, out=tmp_path / "run")


def test_a_batch_of_one_with_batch_norm() -> None:
    plan = plan_of(small())
    check_batches(plan, 2, CONFIG, 1)
    with refused(UsageError, "batch-norm", "one image"):
        check_batches(plan, 1, CONFIG, 1)
    frozen = replace(
        plan, parts=(replace(plan.parts[0], frozen=True, norms="frozen"),), unfreeze_at=2
    )
    check_batches(frozen, 1, replace(CONFIG, batch_size=1, epochs=2), 1)
    with refused(UsageError, "batch-norm"):
        check_batches(frozen, 1, replace(CONFIG, batch_size=1, epochs=3), 1)  # it thaws then


def test_same_seed_same_weights_whatever_the_loader_threads() -> None:
    one, many = small(), small()
    train(one, batches=batches_of(drawn(), threads=1))
    train(many, batches=batches_of(drawn(), threads=5, cache="off"))
    assert same(one, many)


def test_no_micro_batch_is_one_image_where_batches_differ() -> None:
    """Eight images in four micro-batches are pairs; of seven, one would be alone."""
    trainer = trainer_of(small(), config=replace(CONFIG, batch_size=8))
    trainer.micro_batches, sizes = 4, []
    trainer.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    trainer.plan.apply(trainer.network, 0)
    for batch in trainer.batches.epoch(0):
        trainer.gradients(trainer.network, batch)
    assert {len(batch.rows) for batch in trainer.batches.epoch(0)} == {7, 8}
    assert min(sizes) == 2
