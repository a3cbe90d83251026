"""A run's config.json as arguments: what is taken, what wins over it, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import foveate
from refusals import absent, refused

from foveate.data.augment import Augment
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, UsageError
from foveate.training.config import TrainConfig
from foveate.training.recorded import read_arguments

pytestmark = pytest.mark.usefixtures("warm_cache")

SMALL = "--recipe scratch --model resnet20 --size 24 --batch-size 24 --lr 0.02".split()
PROBE = {
    "data": "photos",
    "fingerprint": "00",
    "model": "efficientnet_lite0",
    "effort": "best",
    "seed": 3,
    "on_bad": "error",
    "engine": "torch",
    "task": "multiclass",
    "groups": "auto",
    "recipe": "probe",
}
TRAINING = TrainConfig(epochs=7, lr=0.02, head_lr=0.03)
AUGMENT = Augment("standard", rotation=15)
PIXELS = Preprocess(24, 24, channels=1, mean=(0.5,), std=(0.2,))
STEPS = {name: value for name, value in PROBE.items() if name != "effort"} | {
    "recipe": "scratch",
    "model": "resnet20",
    "order": "00",
    "images": {"train": 9},
    "policy": "standard",
    "augmentation": AUGMENT.to_dict(),
    "preprocess": PIXELS.to_dict(),
    "training": TRAINING.to_dict(),
}


def write(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_probes_config(tmp_path: Path) -> None:
    arguments = {"model", "effort", "seed", "groups", "on_bad", "engine", "task", "recipe"}
    found = read_arguments(write(tmp_path, PROBE), weights_given=False)
    older = {
        "framing": "whole",
        "fit": None,
        "reject": "off",
    }  # what a config that names none was trained with
    assert found == {name: PROBE[name] for name in arguments} | older
    (tmp_path / "newer").mkdir()
    newer = write(tmp_path / "newer", PROBE | {"framing": "2/3", "fit": "crop"})
    assert read_arguments(newer, False) == found | {"framing": "2/3", "fit": "crop"}
    assert read_arguments(tmp_path, False) == found  # the run's folder will do


def test_a_config_of_training_by_steps(tmp_path: Path) -> None:
    found = read_arguments(write(tmp_path, STEPS), weights_given=False)
    assert found["reject"] == "off"  # of an older version
    assert (found["config"], found["augment"]) == (TRAINING, AUGMENT)
    assert (found["size"], found["channels"]) == (24, 1)
    found = read_arguments(write(tmp_path, STEPS | {"recipe": "finetune"}), False)
    assert "channels" not in found  # the weights know


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (PROBE | {"flavour": "mild", "tempo": 1}, ["unknown flavour, tempo"]),
        ({k: v for k, v in PROBE.items() if k != "seed"}, ["missing seed"]),
        (STEPS | {"training": TRAINING.to_dict() | {"zeal": 1}}, ["unknown training.zeal"]),
        (STEPS | {"training": {"epochs": 3}}, ["missing", "training.lr"]),
        (STEPS | {"training": TRAINING.to_dict() | {"lr": "much"}}, ["lr", "'much'"]),
        (STEPS | {"training": 3}, ["damaged"]),
        (STEPS | {"preprocess": {}}, ["Preprocess"]),
        (STEPS | {"augmentation": {"spin": 1}}, ["Augment", "spin"]),
        (PROBE | {"recipe": "soup"}, ["'soup'", "finetune"]),
        ({}, ["recipe", "None"]),
    ],
)
def test_a_config_that_is_none(config: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    with refused(ArtefactError, *names):
        read_arguments(write(tmp_path, config), weights_given=False)


def test_what_the_command_line_cannot_bring(tmp_path: Path) -> None:
    with refused(UsageError, "Python", "module"):
        read_arguments(write(tmp_path, STEPS | {"model": "module:Mine"}), False)
    own = write(tmp_path, PROBE | {"weights": "run 00"})
    with refused(UsageError, "weights"):
        read_arguments(own, weights_given=False)
    assert read_arguments(own, weights_given=True)["model"] == "efficientnet_lite0"


@pytest.mark.slow
def test_a_run_is_repeated_on_other_data(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scratch: what the options said is what config.json brings, but what follows from the data;
    options beside it win."""
    monkeypatch.chdir(tmp_path)
    options = "--epochs 1 --rotation 15 --pca-colour 0.1 --warmup 0 --seed 5".split()
    done = foveate("train", images, *SMALL, *options, "--out", "first")
    assert done.returncode == 0, done.stderr
    done = foveate("train", images, "--config", "first/config.json", "--out", "second")
    assert done.returncode == 0, done.stderr
    first = read(Path("first/config.json"))
    assert read(Path("second/config.json")) == first

    shutil.copytree(images, "others")
    next(Path("others/train/blob").iterdir()).unlink()
    won = "--config first --lr 0.01 --hflip --seed 6".split()
    done = foveate("train", "others", *won, "--out", "third")
    assert done.returncode == 0, done.stderr
    third = read(Path("third/config.json"))
    assert (third["data"], third["seed"], third["images"]["train"]) == ("others", 6, 60)
    assert (third["training"]["lr"], third["training"]["head_lr"]) == (0.01, 0.01)
    assert third["training"]["batch_size"] == 24
    assert (third["augmentation"]["rotation"], third["augmentation"]["hflip"]) == (15, 0.5)
    assert third["augmentation"]["pca"] == first["augmentation"]["pca"]


@pytest.mark.parametrize(
    ("options", "code", "names"),
    [
        (("--config", "gone.json"), 5, ["no 'gone.json'", "config.json"]),
        (("--config", "odd"), 5, ["config.json", "tempo"]),
        (("--config", "probe", "--recipe", "finetune"), 2, ["--recipe", "probe", "finetune"]),
        (("--config", "probe", "--epochs", "3"), 2, ["epochs", "finetune"]),
        (("--config", "steps", "--optimizer", "adamw"), 2, ["optimizer", "lr", "weight-decay"]),
        (("--config", "steps", "--effort", "best"), 2, ["effort"]),
    ],
)
def test_refused_on_the_command_line(
    options: tuple[str, ...],
    code: int,
    names: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, config in (("odd", PROBE | {"tempo": 1}), ("probe", PROBE), ("steps", STEPS)):
        Path(name).mkdir()
        write(Path(name), config)
    done = foveate("train", images, *options)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert not absent(" ".join(done.stderr.split()), *names), done.stderr
    assert not Path("runs").exists()
