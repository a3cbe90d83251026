"""`foveate train` by steps, as a user meets it: options, signals, resume, torchrun."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import foveate

RESNET = (
    "--recipe",
    "scratch",
    "--model",
    "resnet20",
    "--size",
    "24",
    "--batch-size",
    "16",
    "--lr",
    "0.05",
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_training_is_told_shown_and_saved(images: Path) -> None:
    options = (
        "--epochs",
        2,
        "--freeze",
        1,
        "--unfreeze-at",
        2,
        "--rotation",
        15,
        "--pca-colour",
        "0.1",
    )
    done = foveate("train", images, *RESNET, *options, "--out", "run")
    assert done.returncode == 0, done.stderr
    for words in (
        "scratch of resnet20, 3x24x24",
        "stage 1",
        "from epoch 2 on, at 0.05",
        "parameters learn",
        "rotated by up to 15°",
        "epoch   2  loss",
    ):
        assert words in done.stderr
    assert "PCA colour of the training images, sigma 0.1" in done.stderr
    for words in ("validation   accuracy", "test         accuracy", "next  foveate predict run"):
        assert words in done.stdout
    config = json.loads(Path("run/config.json").read_text())
    # fitted on these images, and kept
    assert len(config["augmentation"]["pca"]["eigenvalues"]) == 3
    assert (config["training"]["freeze"], config["training"]["unfreeze_at"]) == (
        1,
        1,
    )  # which counts from 0
    measured = foveate("evaluate", "run", images, "--tta", "mirror", "--json")
    assert json.loads(measured.stdout)["n"] == 24
    assert (
        foveate("predict", "run", images / "test" / "blob" / "100.jpg", "--tta", "ten").returncode
        == 0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", 0), "epochs must be a whole number from 1 to 100000, not 0"),
        (("--lr", "1e30"), "lr must be a number from 1e-09 to 100, not 1e+30"),
        (("--freeze", 99), "cannot freeze 99 stages: the network has 3; give 0 to 3"),
        (("--freeze", "all"), "freeze must be none, early, backbone or a number of stages"),
        (("--freeze", 1, "--unfreeze-at", 0), "unfreeze-at is an epoch, counted from 1, not 0"),
        (("--unfreeze-at", 2), "unfreeze-at applies where something is frozen"),
        (("--batch-size", 1), "batch-norm takes statistics from a batch"),
        (("--effort", "best"), "effort applies to the recipe probe"),
        (("--progressive", "0.1"), "progressive must be a number from 0.25 to 1"),
        (("--magnitude", 3), "magnitude applies to auto 'rand' alone"),
        (("--lr", 0), "lr must be a number from 1e-09 to 100, not 0"),
        (("--size", 5000), "size must be a whole number from 1 to 4096, not 5000"),
        (("--find-lr",), "out does not apply to --find-lr, which leaves no run"),
        (
            ("--recipe", "probe", "--model", "efficientnet_lite0", "--mixup", 0),
            "mixup: this applies to the recipes",
        ),
    ],
)
def test_what_is_refused(options: tuple[object, ...], words: str, images: Path) -> None:
    done = foveate("train", images, *RESNET, *options, "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert not Path("run").exists()


def test_images_below_the_networks_minimum(images: Path) -> None:
    done = foveate(
        "train", images, "--recipe", "scratch", "--model", "alexnet", "--size", 32, "--out", "run"
    )
    assert done.returncode == 2 and "at least 63x63 pixels" in done.stderr


COMMAND = (*RESNET, "--epochs", "16", "--out", "run")


def interrupted(images: Path, sent: signal.Signals) -> tuple[int, str, str]:
    """A training that gets a signal after its second epoch: exit code, and what it said on both
    streams."""
    process = subprocess.Popen(
        [sys.executable, "-m", "foveate", "train", str(images), *COMMAND],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3000):
        if any(Path("run/checkpoints").glob("epoch-0002*")) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(sent)
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)], ids=["R7 term", "R8"]
)
def test_a_signal_has_its_exit_code(sent: signal.Signals, code: int, images: Path) -> None:
    found, out, said = interrupted(images, sent)
    assert (found, out) == (code, ""), said
    assert "a run with --resume" in said and any(Path("run/checkpoints").iterdir())


def test_r7_a_signal_saves_and_resume_goes_on(images: Path) -> None:
    code, out, said = interrupted(images, signal.SIGINT)
    assert (code, out) == (130, ""), said
    assert "a run with --resume" in said
    done_before = len(Path("run/history.jsonl").read_text().splitlines())

    refused = foveate("train", images, *COMMAND)
    assert refused.returncode == 2 and "--resume to go on with it" in refused.stderr
    refused = foveate("train", images, *COMMAND, "--epochs", "50", "--resume")
    assert refused.returncode == 2 and "training.epochs 16, now 50" in refused.stderr
    done = foveate("train", images, *COMMAND, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert 2 <= done_before < 16 and json.loads(done.stdout)["epochs"] == 16
    again = foveate("train", images, *COMMAND, "--resume", "--json")
    assert again.returncode == 0 and again.stdout == done.stdout


def test_rates_are_tried(images: Path) -> None:
    options = (*RESNET, "--optimizer", "adamw", "--find-lr")
    done = foveate("train", images, *options, "--json")
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout)
    assert found["rates"][0] <= found["suggestion"] <= found["rates"][-1]
    assert not Path("runs").exists()
    refused = foveate("train", images, "--find-lr", "--recipe", "probe")
    assert (
        refused.returncode == 2
        and "find-lr applies to the recipes finetune and scratch" in refused.stderr
    )


def test_torchrun_is_the_same_command(images: Path) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
    ]
    torchrun += ["--rdzv-endpoint", "localhost:0", "-m"]
    options = [
        "--recipe",
        "scratch",
        "--model",
        "lenet5",
        "--epochs",
        "2",
        "--batch-size",
        "64",
        "--json",
        "--augment",
        "none",
        # in bf16 a sum that two processes share is rounded otherwise, by more than is allowed here
        "--precision",
        "f32",
    ]
    done = subprocess.run(
        [*torchrun, "foveate", "train", "digits", *options, "--out", "two"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads(done.stdout)  # one object: rank 0 alone speaks
    one = json.loads(foveate("train", "digits", *options, "--out", "one").stdout)
    histories = [
        [json.loads(line) for line in Path(run, "history.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    for a, b in zip(*histories, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-2)
    assert two["test"]["accuracy"] == pytest.approx(one["test"]["accuracy"], abs=0.02)
