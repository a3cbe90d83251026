"""Resume after an epoch (R1), within one (R2), with other settings (R3), when finished (R4)."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refused
from toy import CONFIG, Interrupted, batches_of, drawn, same, small, train, trainer_of

from foveate.checkpoint import latest
from foveate.data.augment import Augment
from foveate.errors import ArtefactError, UsageError
from foveate.training import train as train_images
from foveate.training.freezing import Part, Plan

FORMS = {
    "plain": CONFIG,
    "adamw, average, smoothing": replace(
        CONFIG, optimizer="adamw", lr=1e-2, ema=0.9, label_smoothing=0.1, clip=1.0
    ),
    "pieces, one-cycle": replace(CONFIG, accumulate=3, schedule="one-cycle", warmup=0.0),
}


def interrupt(code: int = signal.SIGINT):
    return lambda: os.kill(os.getpid(), code)


@pytest.mark.parametrize("after", [5, 10], ids=["R2: before the thaw", "R2: after it"])
def test_an_interrupted_fine_tuning_changes_nothing(after: int, tmp_path: Path) -> None:
    """With frozen statistics, an average, and a part that is unfrozen in the second epoch."""
    config = replace(CONFIG, ema=0.9, batch_norm="frozen", freeze=1, unfreeze_at=1)
    names = [name for name, _ in small().named_parameters()]
    early, late = (
        tuple(n for n in names if n.startswith(("conv", "norm")) == first)
        for first in (True, False)
    )
    plan = Plan(
        (
            Part("early", early, 1, 0, 0.02, True, "frozen"),
            Part("late", late, 1, 0, 0.05, False, ""),
        ),
        1,
        True,
    )
    options = {"config": config, "plan": plan, "start_counts": True}
    whole = small()
    expected = train(whole, **options)
    assert [r.epoch for r in expected.history] == [0, 1, 2, 3]

    batches = Interrupted(batches_of(drawn(), config), after, interrupt())
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, batches=batches, **options)
    again = small()
    assert train(again, tmp_path, resume=True, **options).best == expected.best
    assert same(again, whole)


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "after", [4, 5, 10, 1], ids=["R1: the end of an epoch", "R2: the first batch", "R2: late", "R2"]
)
def test_an_interruption_changes_nothing(config, after: int, tmp_path: Path) -> None:
    """An epoch has four batches of thirteen images, augmented, mixed and dropped out."""
    whole = small()
    expected = train(whole, config=config)

    network = small()
    batches = Interrupted(batches_of(drawn(), config), after, interrupt())
    with pytest.raises(KeyboardInterrupt):
        train(network, tmp_path, config=config, batches=batches)
    again = small(seed=8)  # whatever it starts from
    found = train(again, tmp_path, resume=True, config=config)
    assert same(again, whole)
    assert [r.epoch for r in found.history] == [1, 2, 3]
    for mine, its in zip(found.history, expected.history, strict=True):
        assert replace(mine, seconds=0, images_per_second=0) == replace(
            its, seconds=0, images_per_second=0
        )


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    whole = small()
    train(whole)
    for attempt in range(20):
        batches = Interrupted(batches_of(drawn()), 1, interrupt())
        try:
            network = small(seed=9 if attempt else 0)
            train(network, tmp_path, resume=True, batches=batches)
            break
        except KeyboardInterrupt:
            continue
    assert same(network, whole)


@pytest.mark.parametrize(
    ("code", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)], ids=["R7", "R8"]
)
def test_signals_save_and_exit(code: int, exit_code: int, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        train(small(), tmp_path, batches=Interrupted(batches_of(drawn()), 6, interrupt(code)))
    assert caught.value.code == exit_code
    found = latest(tmp_path, print)
    assert found and (found.about["epoch"], found.about["batch"]) == (1, 3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_it_at_once(tmp_path: Path, python) -> None:
    program = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from toy import Interrupted, batches_of, drawn, small, train

def twice():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)

child = os.fork()
if not child:
    train(small(), Path(sys.argv[2]), batches=Interrupted(batches_of(drawn()), 2, twice))
_, status = os.waitpid(child, 0)
print(os.WTERMSIG(status), len(list(Path(sys.argv[2]).glob("*"))))
"""
    assert python(program, Path(__file__).parent, tmp_path).split() == ["15", "0"]


def test_r4_a_finished_training_is_left_as_it_is(tmp_path: Path) -> None:
    network = small()
    first = train(network, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    again = small(seed=4)
    second = train(again, tmp_path, resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert same(again, network) and second.history == first.history


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, batches=Interrupted(batches_of(drawn()), 2, interrupt()))
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 4))
    other.head = other[1]  # type: ignore[assignment]
    with refused(ArtefactError, "another network", "train"):
        train(other, tmp_path, resume=True)


def test_nothing_to_resume_is_a_start(tmp_path: Path) -> None:
    whole, network = small(), small()
    train(whole)
    train(network, tmp_path / "new", resume=True)
    assert same(network, whole)


@pytest.mark.slow
def test_r3_other_settings_are_refused_each_by_its_name(tmp_path: Path, images: Path) -> None:
    options = {"recipe": "scratch", "model": "resnet20", "size": 16, "out": tmp_path / "run"}
    settings = {"epochs": 1, "batch_size": 24}
    train_images(images, **options, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        train_images(
            images,
            **options,  # type: ignore[arg-type]
            epochs=2,
            batch_size=24,
            clip=2.0,
            augment=Augment("light", rotation=5.0),
            seed=1,
            resume=True,
        )
    for change in (
        "training.epochs 1, now 2",
        "training.clip 0.0, now 2.0",
        "augmentation.rotation 0.0, now 5.0",
        "seed 0",
    ):
        assert change in str(caught.value)
    assert "batch_size" not in str(caught.value)


def test_within_an_epoch_too_the_state_is_saved_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.training.trainer.SAVE_EVERY", 0.0)

    def crash() -> None:
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        train(small(), tmp_path, batches=Interrupted(batches_of(drawn()), 6, crash))
    found = latest(tmp_path, print)
    assert found and found.about["epoch"] == 1 and found.about["batch"] >= 1


def test_a_loop_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    network = small()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer_of(network).run()
    assert torch.equal(torch.rand(3), expected)
