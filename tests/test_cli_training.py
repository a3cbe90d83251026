"""`foveate train` by steps, as a user meets it: options, signals, resume, torchrun."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import foveate
from refusals import absent

from foveate.weights import build

pytestmark = pytest.mark.usefixtures("warm_cache")

RESNET = "--recipe scratch --model resnet20 --size 24 --batch-size 16 --lr 0.05".split()


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_a_training_is_described_shown_and_saved(images: Path) -> None:
    options = "--epochs 2 --freeze 1 --unfreeze-at 2 --rotation 15 --pca-colour 0.1".split()
    done = foveate("train", images, *RESNET, *options, "--out", "run")
    assert done.returncode == 0, done.stderr
    names = ["scratch", "resnet20", "3x24x24", "stage 1", "epoch 2", "0.05", "15°", "PCA", "loss"]
    assert not absent(done.stderr, *names), done.stderr
    names = ["validation", "test", "accuracy", "foveate predict run"]
    assert not absent(done.stdout, *names), done.stdout
    config = json.loads(Path("run/config.json").read_text())
    # fitted on these images, and kept
    assert len(config["augmentation"]["pca"]["eigenvalues"]) == 3
    training = config["training"]
    assert (training["freeze"], training["unfreeze_at"]) == (1, 1)  # counted from 0
    measured = foveate("evaluate", "run", images, "--tta", "mirror", "--json")
    assert json.loads(measured.stdout)["n"] == 24
    predicted = foveate("predict", "run", images / "test/blob/100.jpg", "--tta", "ten")
    assert predicted.returncode == 0, predicted.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--epochs", 0), ["epochs", "1 to 100000", "not 0"]),
        (("--lr", "1e30"), ["lr", "1e-09 to 100", "not 1e+30"]),
        (("--freeze", 99), ["freeze 99", "0 to 3"]),
        (("--freeze", "all"), ["freeze", "none", "early", "backbone", "'all'"]),
        (("--freeze", 1, "--unfreeze-at", 0), ["unfreeze-at", "from 1", "not 0"]),
        (("--unfreeze-at", 2), ["unfreeze-at", "frozen"]),
        (("--batch-size", 1), ["batch-norm"]),
        (("--effort", "best"), ["effort", "probe"]),
        (("--progressive", "0.1"), ["progressive", "0.25 to 1"]),
        (("--magnitude", 3), ["magnitude", "'rand'"]),
        (("--lr", 0), ["lr", "1e-09 to 100", "not 0"]),
        (("--size", 5000), ["size", "1 to 4096", "not 5000"]),
        (("--find-lr",), ["out", "--find-lr"]),
        (
            ("--recipe", "probe", "--model", "efficientnet_lite0", "--mixup", 0),
            ["mixup", "finetune", "scratch"],
        ),
    ],
)
def test_what_is_refused(options: tuple[object, ...], names: list[str], images: Path) -> None:
    done = foveate("train", images, *RESNET, *options, "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert not absent(" ".join(done.stderr.split()), *names), done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("run").exists()


def test_images_below_the_networks_minimum(images: Path) -> None:
    done = foveate(
        "train", images, "--recipe", "scratch", "--model", "alexnet", "--size", 32, "--out", "run"
    )
    assert done.returncode == 2 and not absent(done.stderr, "63x63", "--size")


COMMAND = (*RESNET, "--epochs", "16", "--out", "run")


def wait_for_epoch(number: int, process: "subprocess.Popen[Any]") -> None:
    """Until a training has saved an epoch, or has ended."""
    for _ in range(6000):
        if any(Path("run/checkpoints").glob(f"epoch-{number:04}*")) or process.poll() is not None:
            break
        time.sleep(0.01)


def interrupted(images: Path, sent: signal.Signals) -> tuple[int, str, str]:
    """A training that gets a signal after its second epoch: exit code, and what it wrote on both
    streams."""
    process = subprocess.Popen(
        [sys.executable, "-m", "foveate", "train", str(images), *COMMAND],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_epoch(2, process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)], ids=["R7 term", "R8"]
)
def test_a_signal_has_its_exit_code(sent: signal.Signals, code: int, images: Path) -> None:
    found, out, err = interrupted(images, sent)
    assert (found, out) == (code, ""), err
    assert "--resume" in err and any(Path("run/checkpoints").iterdir())


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_to_the_same_classifier() -> None:
    """From random weights, so that fine-tuning beats its probe, and a killed epoch is kept."""
    torch.manual_seed(0)
    torch.save(build("lenet5").state_dict(), "random.pth")
    command = [sys.executable, "-m", "foveate", "train", "digits", "--recipe", "finetune"]
    command += "--model lenet5 --weights random.pth --epochs 6 --lr 0.01 --json --out".split()

    def best_epoch(*options: str) -> int:
        return json.loads(subprocess.check_output([*command, *options], text=True))["best_epoch"]

    whole = best_epoch("whole")
    assert whole > 0  # of the probe
    for epoch, resume in ((1, ()), (2, ("--resume",)), (4, ("--resume",))):  # killed after each
        killed = subprocess.Popen([*command, "run", *resume], stderr=subprocess.DEVNULL)
        wait_for_epoch(epoch, killed)
        killed.kill()
        assert killed.wait(60) == -signal.SIGKILL
    assert best_epoch("run", "--resume") == whole
    tensors = "classifier/model.safetensors"
    assert Path("run", tensors).read_bytes() == Path("whole", tensors).read_bytes()


@pytest.mark.slow
def test_r7_a_signal_saves_and_resume_goes_on(images: Path) -> None:
    code, out, err = interrupted(images, signal.SIGINT)
    assert (code, out) == (130, ""), err
    assert "--resume" in err
    done_before = len(Path("run/history.jsonl").read_text().splitlines())

    failed = foveate("train", images, *COMMAND)
    assert failed.returncode == 2 and not absent(failed.stderr, "run", "--resume")
    failed = foveate("train", images, *COMMAND, "--epochs", "50", "--resume")
    assert failed.returncode == 2 and "training.epochs 16, now 50" in failed.stderr
    done = foveate("train", images, *COMMAND, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert 2 <= done_before < 16 and json.loads(done.stdout)["epochs"] == 16
    again = foveate("train", images, *COMMAND, "--resume", "--json")
    assert again.returncode == 0 and again.stdout == done.stdout


@pytest.mark.slow
def test_find_lr(images: Path) -> None:
    options = (*RESNET, "--optimizer", "adamw", "--find-lr")
    done = foveate("train", images, *options, "--json")
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout)
    assert found["rates"][0] <= found["suggestion"] <= found["rates"][-1]
    assert not Path("runs").exists()
    failed = foveate("train", images, "--find-lr", "--recipe", "probe")
    assert failed.returncode == 2 and not absent(failed.stderr, "find-lr", "finetune", "scratch")


@pytest.mark.slow
def test_torchrun_is_the_same_command(images: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += "--rdzv-backend c10d --rdzv-endpoint localhost:0 -m".split()
    options = "--recipe scratch --model lenet5 --epochs 2 --batch-size 64 --augment none".split()
    # in bf16 a sum that two processes share is rounded otherwise, by more than is allowed here
    options += ["--precision", "f32", "--json"]
    done = subprocess.run(
        [*torchrun, "foveate", "train", "digits", *options, "--out", "two"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads(done.stdout)  # one object: only rank 0 prints
    one = json.loads(foveate("train", "digits", *options, "--out", "one").stdout)
    histories = [
        [json.loads(line) for line in Path(run, "history.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    for a, b in zip(*histories, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-2)
    assert two["test"]["accuracy"] == pytest.approx(one["test"]["accuracy"], abs=0.02)
