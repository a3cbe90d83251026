"""The trainer beside a plain loop of ten lines; losses by hand."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from toy import CONFIG, PREPROCESS, batches_of, drawn, plan_of, small, trainer_of

from foveate.data.batches import normalise
from foveate.models import build
from foveate.training.losses import auxiliary
from foveate.training.memory import is_out_of_memory
from foveate.training.optim import rate_factor
from foveate.training.trainer import step_seed

pytestmark = pytest.mark.usefixtures("warm_cache")
PLAIN = replace(CONFIG, label_smoothing=0.1, clip=0.5, weight_decay=1e-3)


def plain(network: nn.Module, weights: torch.Tensor | None = None, epochs: int = 3) -> list[float]:
    """What everybody writes."""
    decays = [[p for p in network.parameters() if (p.ndim > 1) == d] for d in (True, False)]
    groups = [
        {"params": decays[0], "weight_decay": 1e-3},
        {"params": decays[1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    batches = batches_of(drawn())
    losses = []
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for batch in batches.epoch(epoch):
            step = epoch * len(batches) + batch.number
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * rate_factor("cosine", step, 12, 2.0)
            torch.manual_seed(step_seed(1, epoch, batch.number, 0))
            optimizer.zero_grad()
            logits = network(normalise(batch.pixels, PREPROCESS))
            loss = (
                F.cross_entropy(
                    logits, batch.targets, weights, reduction="sum", label_smoothing=0.1
                )
                / batch.total
            )
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            total += float(loss.detach()) * batch.total
        losses.append(total / len(batches.rows))
    return losses


@pytest.mark.parametrize("weights", [None, (0.5, 1.5, 1.0, 1.0)], ids=["all the same", "weighted"])
def test_it_is_the_plain_loop(weights: tuple[float, ...] | None) -> None:
    one, two = small(), small()
    trainer = trainer_of(one, config=PLAIN, class_weights=weights)
    trainer.run_epochs = None  # type: ignore[attr-defined]
    losses: list[float] = []
    states: list[dict[str, Any]] = []
    trainer.on_epoch = lambda record: (losses.append(record.loss), states.append(record.__dict__))
    keep = trainer.keep_if_best
    # the last one
    trainer.keep_if_best = lambda record: keep(replace(record, best=True))  # type: ignore[method-assign]
    trainer.run()
    expected = plain(two, None if weights is None else torch.tensor(weights))
    assert losses == pytest.approx(expected, rel=1e-5)
    for mine, its in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-7)


def test_micro_batches_are_the_whole_batch() -> None:
    whole, cut = small(norms=False), small(norms=False)
    trainer_of(whole, config=CONFIG).run()
    trainer_of(cut, config=replace(CONFIG, accumulate=4)).run()
    for mine, its in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_auxiliary_classifiers_count_for_a_part() -> None:
    torch.manual_seed(0)
    network = build("googlenet", num_classes=4)
    trainer = trainer_of(small())
    targets = torch.tensor([1, 3])
    outputs = network.train()(torch.randn(2, 3, 64, 64))
    assert len(auxiliary(outputs)) == 2
    logits, cost = trainer.objective.loss(outputs, targets)
    parts = [
        F.cross_entropy(o, targets, reduction="sum") for o in (outputs.logits, *auxiliary(outputs))
    ]
    torch.testing.assert_close(cost, parts[0] + 0.3 * (parts[1] + parts[2]))
    assert torch.equal(logits, outputs.logits)


def test_the_best_epoch_is_what_is_left() -> None:
    network = small()
    trainer = trainer_of(network)
    states: list[dict[str, torch.Tensor]] = []
    trainer.on_epoch = lambda record: states.append(
        {n: t.clone() for n, t in network.state_dict().items()}
    )
    fitted = trainer.run()
    best = min(fitted.history, key=lambda r: r.validation_loss)
    assert fitted.best == best.epoch
    assert all(torch.equal(t, states[best.epoch - 1][n]) for n, t in network.state_dict().items())
    assert not network.training


def test_the_start_may_be_the_best() -> None:
    network = small()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    trainer = trainer_of(network, start_counts=True, config=replace(CONFIG, epochs=1))
    judged = iter([(0.1, 0.9), (0.5, 0.5)])
    trainer.validated = lambda: (*next(judged), trainer.validate(network.eval()))  # type: ignore[method-assign]
    fitted = trainer.run()
    assert fitted.best == 0
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_patience() -> None:
    network = small()
    trainer = trainer_of(network, config=replace(CONFIG, epochs=50, patience=2))
    judged = iter([0.5, 0.4, 0.45, 0.41, 0.3])
    trainer.validated = lambda: (next(judged), 0.5, trainer.validate(network.eval()))  # type: ignore[method-assign]
    fitted = trainer.run()
    assert fitted.stopped_early and fitted.best == 2 and len(fitted.history) == 4


def test_bf16_keeps_weights_in_f32() -> None:
    network = small()
    fitted = trainer_of(network, config=replace(CONFIG, precision="bf16")).run()
    assert all(p.dtype == torch.float32 for p in network.parameters())
    f32 = trainer_of(small()).run()
    assert fitted.history[0].loss == pytest.approx(f32.history[0].loss, rel=0.03)
    assert fitted.history[0].loss != f32.history[0].loss


def test_compiled_is_the_same() -> None:
    one, two = small(norms=False), small(norms=False)
    short = replace(CONFIG, epochs=1)
    trainer_of(one, config=replace(short, compile=True)).run()
    trainer_of(two, config=short).run()
    for mine, its in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_images_grow() -> None:
    """Progressive resizing: each epoch's batches have their own size, and no buffer of another
    one's is used."""
    sizes: list[tuple[int, ...]] = []
    trainer = trainer_of(
        small(), batches=batches_of(drawn(), size=lambda epoch: (8, 10, 12)[epoch])
    )
    given = trainer.input

    def noted(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(pixels.shape[2:]))
        return given(pixels)

    trainer.input = noted
    fitted = trainer.run()
    assert list(dict.fromkeys(sizes)) == [(8, 8), (10, 10), (12, 12)] and len(fitted.history) == 3


def test_what_thaws_learns() -> None:
    network = small()
    config = replace(CONFIG, epochs=2)
    names = tuple(n for n, _ in network.named_parameters())
    still, moving = (
        tuple(n for n in names if n.startswith("conv.")),
        tuple(n for n in names if not n.startswith("conv.")),
    )
    whole = plan_of(network, config)
    part = whole.parts[0]
    plan = replace(
        whole,
        parts=(
            replace(part, name="stage 1", names=still, frozen=True),
            replace(part, name="rest", names=moving),
        ),
        unfreeze_at=1,
    )
    trainer = trainer_of(network, config=config, plan=plan)
    weights = [network.conv.weight.detach().clone()]
    trainer.on_epoch = lambda record: weights.append(network.conv.weight.detach().clone())
    trainer.run()
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("x"), False),
    ],
)
def test_errors_that_mean_too_little_memory(error: BaseException, memory: bool) -> None:
    assert is_out_of_memory(error) == memory


def test_the_average_is_what_is_judged_and_kept() -> None:
    trainer = trainer_of(small(), config=replace(CONFIG, epochs=1, ema=0.9))
    judged = []
    judge = trainer.validate
    trainer.validate = lambda network: judged.append(network) or judge(network)
    fitted = trainer.run()
    assert judged[0] is trainer.ema.network and fitted.best == 1
    kept, average = trainer.network.state_dict(), trainer.ema.network.state_dict()
    assert all(torch.equal(kept[name], average[name]) for name in average)
