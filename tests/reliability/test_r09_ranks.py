"""R9: two processes are one; one that dies ends the job."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy import CONFIG, batches_of, drawn, small, train

HERE = str(Path(__file__).parent)
PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pathlib import Path
import torch
from toy import CONFIG, Interrupted, batches_of, drawn, small, train
from foveate.training.ranks import joined

torch.set_num_threads(1)
out, way = Path(sys.argv[2]), sys.argv[3]
with joined() as ranks:
    config = replace(CONFIG, accumulate=2) if way == "pieces" else CONFIG
    network = small(ranks.rank, norms=way.startswith("norms"))  # rank 1 begins elsewhere, and is given what rank 0 has
    batches = batches_of(drawn(), config, rank=ranks.rank, world=ranks.world, threads=1)
    if way == "dies" and ranks.rank == 1:
        batches = Interrupted(batches, 5, lambda: os._exit(9))
    options = dict(config=config, ranks=ranks)
    if way == "norms, stopped":
        stopped = Interrupted(batches, 5, lambda: ranks.first and os.kill(os.getpid(), signal.SIGINT))
        try:
            train(network, out / "checkpoints", batches=stopped, **options)
        except KeyboardInterrupt:
            network = small(ranks.rank)
            fitted = train(network, out / "checkpoints", True, batches=batches, **options)
    else:
        fitted = train(network, out / "checkpoints", batches=batches, **options)
    torch.save((network.state_dict(), [r.loss for r in fitted.history], fitted.logits), out / f"{ranks.rank}.pt")
"""


def torchrun(tmp_path: Path, way: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(tmp_path / "program.py"), HERE, str(tmp_path), way],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )


@pytest.mark.parametrize("way", ["plain", "pieces"])
def test_two_ranks_equal_one(way: str, tmp_path: Path) -> None:
    done = torchrun(tmp_path, way)
    assert done.returncode == 0, done.stderr[-3000:]
    (first, losses, logits), (second, _, same_logits) = (
        torch.load(tmp_path / f"{r}.pt", weights_only=False) for r in (0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (logits == same_logits).all()

    alone = small(norms=False)
    fitted = train(alone, batches=batches_of(drawn(), CONFIG))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-5)
    assert losses == pytest.approx([r.loss for r in fitted.history], rel=1e-4)


def test_batch_norm_takes_statistics_from_each_ranks_part(tmp_path: Path) -> None:
    """The difference that docs/train.md states: with batch statistics two ranks are near one, not equal."""
    done = torchrun(tmp_path, "norms")
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=False)[0] for r in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)  # running statistics were averaged
    alone = small()
    train(alone, batches=batches_of(drawn(), CONFIG))
    assert not torch.allclose(first["norm.running_mean"], alone.norm.running_mean, rtol=1e-4)


def test_statistics_of_each_rank_survive_an_interruption(tmp_path: Path) -> None:
    for folder, way in (("whole", "norms"), ("stopped", "norms, stopped")):
        (tmp_path / folder).mkdir()
        done = torchrun(tmp_path / folder, way)
        assert done.returncode == 0, done.stderr[-3000:]
    whole, stopped = (torch.load(tmp_path / folder / "1.pt", weights_only=False)[0] for folder in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_rank_that_dies_ends_the_job(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = torchrun(tmp_path, "dies")
    assert done.returncode != 0 and time.monotonic() - begun < 120
    assert "exitcode  : 9" in done.stderr or "exitcode: 9" in done.stderr
    assert list((tmp_path / "checkpoints").glob("epoch-0001*"))  # what was done is there
