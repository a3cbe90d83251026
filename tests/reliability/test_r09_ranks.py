"""R9: two processes train like one; if one dies, the job ends."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import CONFIG, batches_of, drawn, plan_of, small, train, trainer_of

from foveate.training.lr_finder import LEAST, range_test

pytestmark = pytest.mark.usefixtures("warm_cache")

HERE = str(Path(__file__).parent)
STEPS = 24  # of a learning rate range test
PROGRAM = """
import atexit, os, signal, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pathlib import Path
import torch
from toy import CONFIG, Interrupted, batches_of, drawn, trainer_of, plan_of, small, train
from foveate.training.distributed import joined
from foveate.training.lr_finder import range_test

torch.set_num_threads(1)
STEPS = int(sys.argv[3])
THREADS = Path("/proc/self/task")


@atexit.register  # before the group is joined, so it is called after what ends that
def write_threads() -> None:
    there = [(thread / "comm").read_text().strip() for thread in THREADS.glob("*")]
    Path(sys.argv[2], f"threads-{os.environ['RANK']}").write_text(" ".join(there))


def one(way: str, out: Path, ranks) -> None:
    config = replace(CONFIG, accumulate=2) if way == "micro_batches" else CONFIG
    # rank 1 begins elsewhere, and is given what rank 0 has
    network = small(ranks.rank, norms=way.startswith("norms"))
    batches = batches_of(drawn(), config, rank=ranks.rank, world=ranks.world, threads=1)
    if way == "dies" and ranks.rank == 1:
        batches = Interrupted(batches, 5, lambda: os._exit(9))
    options = dict(config=config, ranks=ranks)
    if way == "norms, frozen":  # folded into the convolutions, as fine-tuning has them
        options["plan"] = replace(plan_of(network), frozen_norms=True)
        network.drop.p = 0.0  # ranks drop other numbers than one process
    if way == "rates":
        test = range_test(trainer_of(network, batches=batches, **options), STEPS)
        torch.save((network.state_dict(), test.losses, None), out / f"{ranks.rank}.pt")
        return
    if way == "norms, stopped":
        interrupt = lambda: ranks.first and os.kill(os.getpid(), signal.SIGINT)
        stopped = Interrupted(batches, 5, interrupt)
        try:
            train(network, out / "checkpoints", batches=stopped, **options)
        except KeyboardInterrupt:
            network = small(ranks.rank)
            fitted = train(network, out / "checkpoints", True, batches=batches, **options)
    else:
        fitted = train(network, out / "checkpoints", batches=batches, **options)
    losses = [r.loss for r in fitted.history]
    torch.save((network.state_dict(), losses, fitted.logits), out / f"{ranks.rank}.pt")


with joined() as ranks:
    for way in sys.argv[4:]:
        one(way, Path(sys.argv[2], way), ranks)
cycle = [ranks]
cycle.append(cycle)
del ranks, cycle  # as they are when a training has returned: only a cycle of references holds them
"""


def torchrun(folder: Path, *ways: str) -> subprocess.CompletedProcess[str]:
    """Several trainings in one job: starting two processes takes longer than such a training."""
    for way in ways:
        (folder / way).mkdir()
    (folder / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
    ]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(folder / "program.py"), HERE, str(folder), str(STEPS), *ways],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )


Saved = dict[str, list[tuple[dict[str, torch.Tensor], list[float], np.ndarray]]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """What each rank has in the end, by the way it was trained."""
    folder, ways = (
        tmp_path_factory.mktemp("ranks"),
        ("plain", "micro_batches", "norms", "norms, stopped", "norms, frozen", "rates"),
    )
    done = torchrun(folder, *ways)
    assert done.returncode == 0, done.stderr[-3000:]
    threads = [(folder / f"threads-{rank}").read_text() for rank in (0, 1)]
    assert not any("gloo" in names for names in threads)  # one could abort Python's shutdown
    return {
        way: [torch.load(folder / way / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
        for way in ways
    }


@pytest.mark.parametrize("way", ["plain", "micro_batches", "norms, frozen"])
def test_two_ranks_equal_one(way: str, saved: Saved) -> None:
    (first, losses, logits), (second, _, same_logits) = saved[way]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (logits == same_logits).all()

    alone = small(norms=way == "norms, frozen")
    alone.drop.p = 0.0
    plan = replace(plan_of(alone), frozen_norms=way == "norms, frozen")
    fitted = train(alone, batches=batches_of(drawn(), CONFIG), plan=plan)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-5)
    assert losses == pytest.approx([r.loss for r in fitted.history], rel=1e-4)


def test_rates_are_tried_by_two_as_by_one(saved: Saved) -> None:
    (_, losses, _), (_, same, _) = saved["rates"]
    alone = range_test(trainer_of(small(norms=False), batches=batches_of(drawn(), CONFIG)), STEPS)
    assert losses == same and len(losses) >= LEAST
    assert losses == pytest.approx(alone.losses, rel=1e-4)


def test_batch_norm_takes_statistics_from_each_ranks_part(saved: Saved) -> None:
    """As in docs/finetune.md: with batch statistics two ranks are close to one, but not equal."""
    first, second = (state for state, _, _ in saved["norms"])
    # running statistics were averaged
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = small()
    train(alone, batches=batches_of(drawn(), CONFIG))
    assert not torch.allclose(first["norm.running_mean"], alone.norm.running_mean, rtol=1e-4)


def test_statistics_of_each_rank_survive_an_interruption(saved: Saved) -> None:
    whole, stopped = saved["norms"][1][0], saved["norms, stopped"][1][0]
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = torchrun(tmp_path, "dies")
    assert done.returncode != 0 and time.monotonic() - begun < 120
    assert "exitcode  : 9" in done.stderr or "exitcode: 9" in done.stderr
    assert list((tmp_path / "dies/checkpoints").glob("epoch-0001*"))  # what was done is there
