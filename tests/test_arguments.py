"""What the public Python API takes, and what it refuses: wrong types, empty text, numbers of other
libraries."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import torch
from refusals import absent, refused
from torch import nn

import foveate
from foveate import Classifier, DataError, Dataset, FoveateError, UsageError

pytestmark = pytest.mark.usefixtures("warm_features")


@pytest.fixture
def clf(trained: Path) -> Classifier:
    return Classifier.load(trained)


@pytest.fixture
def photo(images: Path) -> Path:
    return next((images / "test" / "blob").glob("*.jpg"))


@pytest.mark.parametrize(
    "call",
    [
        lambda clf, out: foveate.load_dataset(""),
        lambda clf, out: foveate.train("", "efficientnet_lite0", out=out),
        lambda clf, out: foveate.train("digits", weights="", out=out),
        lambda clf, out: foveate.train("digits", out=""),
        lambda clf, out: foveate.find_lr(""),
        lambda clf, out: foveate.extract_features(""),
        lambda clf, out: foveate.extract_features("digits", "resnet18", weights=""),
        lambda clf, out: foveate.evaluate(clf, ""),
        lambda clf, out: foveate.build("resnet18", weights=""),
        lambda clf, out: foveate.load_image(""),
        lambda clf, out: Classifier.load(""),
    ],
)
def test_the_empty_text_is_not_the_working_folder(
    call: Callable[[Classifier, Path], Any],
    clf: Classifier,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(images)
    with refused(UsageError, "''"):
        call(clf, tmp_path / "run")
    for images_given in ("", ["", ""]):
        with refused(DataError, "''"):
            clf.predict(images_given)


@pytest.mark.parametrize("source", [None, 5, [], b"photos", ["a"]])
def test_what_is_no_data(source: Any) -> None:
    with refused(UsageError, "data", type(source).__name__):
        foveate.load_dataset(source)


@pytest.mark.parametrize("source", [None, 5, []])
def test_what_is_no_file(source: Any) -> None:
    with refused(UsageError, "bytes", type(source).__name__):
        foveate.load_image(source)


def test_images_of_files(clf: Classifier, photo: Path) -> None:
    expected = foveate.load_image(photo)
    assert foveate.load_image(bytearray(photo.read_bytes())) == expected
    with photo.open("rb") as file:
        pass
    with refused(UsageError, "BufferedReader"):
        foveate.load_image(file)  # type: ignore[arg-type]
    with refused(UsageError, "closed"):
        clf.predict(file)
    for short_side in (0, "x"):
        with refused(UsageError, "short_side", repr(short_side)):
            foveate.load_image(photo, short_side=short_side)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, ["labels", "NoneType"]),
        ({"paths": None}, ["paths", "NoneType"]),
        ({"groups": "abc"}, ["groups", "str"]),
        ({"groups": 5}, ["groups", "int"]),
        ({"paths": np.array("x")}, ["paths", "ndarray"]),
        ({"labels": [["a"], 3]}, ["labels", "3"]),
        ({"name": 5}, ["name", "int"]),
    ],
)
def test_lists_of_a_wrong_kind(change: dict[str, Any], words: list[str], images: Path) -> None:
    paths = sorted((images / "test").rglob("*.jpg"))[:2]
    with refused(UsageError, *words):
        Dataset.of(**({"paths": paths, "labels": ["a", "b"]} | change))


def test_rows_that_are_selected(images: Path) -> None:
    dataset = foveate.load_dataset(images)
    tests = np.array([split == "test" for split in dataset.splits])
    assert dataset.select(tests).files == dataset.split("test").files
    assert dataset.select([3, 1]).files == (dataset.files[3], dataset.files[1])
    assert len(dataset.select([])) == 0
    for rows in ("x", [10**6], [-1], [1.5], 5, tests[:-1]):
        with refused(UsageError, "rows"):
            dataset.select(rows)


def test_predicting_a_dataset(clf: Classifier, images: Path) -> None:
    dataset = foveate.load_dataset(images).split("test")
    found = clf.predict(dataset)
    assert [p.file for p in found] == list(dataset.files)
    assert [p.label for p in found] == [p.label for p in clf.predict(images / "test")]
    assert clf.predict_proba(dataset).shape == (len(dataset), 3)


@pytest.mark.parametrize("call", [foveate.train, foveate.find_lr])
def test_a_dataset_has_a_task(call: Callable[..., Any], images: Path) -> None:
    dataset = foveate.load_dataset(images)
    with refused(UsageError, "task", "multilabel", "multiclass"):
        call(dataset, task="multilabel")


def test_evaluating_data_of_another_task(clf: Classifier, photo: Path) -> None:
    with refused(DataError, "multilabel"):
        foveate.evaluate(clf, Dataset.of([photo], [["a"]]))


# Networks


class Headless(nn.Module):
    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, groups=2)
        if head is not None:
            self.head = head


class Apart(nn.Module):
    @property
    def head(self) -> nn.Module:
        return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "n", "words"),
    [
        (None, 3, ["NoneType"]),
        ("resnet18", 3, ["str"]),
        (nn.Linear, 3, ["type"]),
        (Headless(), 3, ["Headless", "head"]),
        (Headless(nn.ReLU()), 3, ["ReLU"]),
        (Headless(nn.LazyLinear(3)), 3, ["lazy"]),
        (Apart(), 3, ["Apart", "head"]),
        *((Headless(nn.Linear(2, 2)), n, ["num_classes", repr(n)]) for n in ("3", 0, True, 1.5)),
    ],
)
def test_heads_that_cannot_be_replaced(network: Any, n: Any, words: list[str]) -> None:
    with refused(UsageError, *words):
        foveate.replace_head(network, n)


@pytest.mark.parametrize(
    ("network", "n", "words"),
    [
        (None, 3, ["NoneType"]),
        (nn.Linear(2, 2), 3, ["Linear", "convolution"]),
        (Headless(), 2, ["Headless", "groups"]),
        (nn.Sequential(nn.LazyConv2d(3, 3)), 2, ["lazy"]),
        *((nn.Sequential(nn.Conv2d(3, 4, 3)), n, ["channels", repr(n)]) for n in ("3", 0, True)),
    ],
)
def test_channels_that_cannot_be_set(network: Any, n: Any, words: list[str]) -> None:
    with refused(UsageError, *words):
        foveate.set_in_channels(network, n)


@pytest.mark.parametrize(
    ("module", "words"),
    [(5, ["int"]), ("resnet18", ["str"]), (nn.Linear, ["Linear"]), (lambda: 3, ["int"])],
)
def test_what_is_no_module(module: Any, words: list[str], clf: Classifier) -> None:
    with refused(UsageError, "torch.nn.Module", *words):
        clf.network(module)


@pytest.mark.slow
def test_going_on_from_a_classifiers_network(clf: Classifier, images: Path, tmp_path: Path) -> None:
    network = clf.network()
    assert network.preprocess == clf.preprocess and network.input_size == clf.preprocess.crop
    again = foveate.train(images, network, out=tmp_path / "run")
    assert again.card["model"] == clf.card["model"] and type(again.network()) is type(network)
    expected = clf.metrics["test"]["accuracy"]
    assert again.metrics["test"]["accuracy"] == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: foveate.build("timm:resnet18"), ["timm:resnet18", "train", "model="]),
        (lambda: foveate.build("rsnet18"), ["no network", "rsnet18", "resnet18"]),
        (lambda: foveate.train("digits", "rsnet18"), ["no network", "rsnet18", "resnet18"]),
        (lambda: foveate.train("digits", "rsnet18", "finetune"), ["no network", "resnet18"]),
        (lambda: foveate.extract_features("digits", "zzz"), ["no network", "zzz"]),
        (lambda: foveate.Preprocess.of("lenet5"), ["no pretrained weights", "lenet5"]),
    ],
)
def test_names_that_are_unknown(call: Callable[[], Any], words: list[str]) -> None:
    with refused(UsageError, *words):
        call()


# Numbers and switches


def test_whole_numbers_of_other_libraries(trained: Path) -> None:
    three = np.int64(3)
    config = foveate.TrainConfig(epochs=three, freeze=three, lr=np.float32(0.5))  # type: ignore[arg-type]
    assert repr(config) == repr(foveate.TrainConfig(epochs=3, freeze=3, lr=0.5))
    assert foveate.build("lenet5", num_classes=three).head.out_features == 3
    assert foveate.build("lenet5", num_classes=torch.tensor(3)).head.out_features == 3
    assert Classifier.load(trained, threads=np.int64(1)).threads == 1
    assert foveate.Preprocess(three, three) == foveate.Preprocess(3, 3)
    assert type(foveate.Preprocess(three, three).crop) is int
    augment = foveate.Augment("none", auto="rand", magnitude=three, size=three, hflip=np.float32(1))
    assert augment.to_dict() == foveate.Augment(auto="rand", magnitude=3, size=3, hflip=1).to_dict()


@pytest.mark.slow
def test_a_seed_of_numpys(images: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"epochs": np.int32(1), "batch_size": np.int64(24), "size": 28}
    clf = foveate.train(images, "lenet5", seed=np.int64(3), out=tmp_path / "run", **arguments)
    assert clf.metrics["seed"] == 3 and clf.metrics["epochs"] == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", True),
        ("epochs", 2.0),
        ("lr", float("nan")),
        ("lr", 10**400),
        ("lr", True),
        ("freeze", np.array([1, 2])),
        ("freeze", []),
        ("optimizer", np.array(["sgd", "adamw"])),
    ],
)
def test_settings_that_are_none(setting: str, value: Any) -> None:
    with refused(UsageError, setting):
        foveate.TrainConfig(**{setting: value})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda data: foveate.Augment().fit(data, preprocess=5), ["preprocess", "int"]),
        (lambda data: foveate.Augment().collate(0), ["num_classes", "0"]),
        (lambda data: foveate.Augment().collate("x"), ["num_classes", "'x'"]),
        (lambda data: foveate.list_models(pretrained="no"), ["pretrained", "'no'"]),
        (lambda data: foveate.extract_features(data, mirror="x"), ["mirror", "'x'"]),
        (lambda data: foveate.train(data, effort=[]), ["effort", "[]"]),
        (lambda data: foveate.train(data, command=5), ["command", "int"]),
    ],
)
def test_switches_and_the_like(
    call: Callable[[Dataset], Any], words: list[str], images: Path
) -> None:
    with refused(UsageError, *words):
        call(foveate.load_dataset(images))


# What a call leaves behind


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_cannot_be_made(images: Path) -> None:
    with refused(FoveateError, "/proc/nope/x"):
        foveate.train(images, "lenet5", out="/proc/nope/x")


@pytest.mark.slow
def test_no_thread_is_left_behind(images: Path, tmp_path: Path, python: Callable[..., str]) -> None:
    """Not TensorBoard's, nor one of tqdm's, whose hidden bars torch.export makes."""
    pytest.importorskip("tensorboard")
    program = """
import sys, threading, warnings
import foveate
warnings.simplefilter("ignore")
foveate.train(sys.argv[1], "lenet5", epochs=1, out=sys.argv[2], tensorboard=True)
print([thread.name for thread in threading.enumerate()])
"""
    assert python(program, images, tmp_path / "run").splitlines()[-1] == "['MainThread']"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_compiler_that_fails(images: Path, tmp_path: Path) -> None:
    """It is named, and a signal then ends the process as ever."""
    program = """
import os, signal, sys, time
import foveate
try:
    foveate.train(sys.argv[1], "lenet5", epochs=1, compile=True, out=sys.argv[2])
except foveate.FoveateError as error:
    print(error, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
    environment = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(images), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=200,
    )
    assert done.returncode == -15, done.stderr
    assert "torch.compile" in done.stdout and "compile" in done.stdout.splitlines()[-1]
    assert not (tmp_path / "run").exists()


# How messages spell options


def test_messages_spell_options_for_who_reads_them(images: Path) -> None:
    with refused(UsageError, "recipe='finetune'", "batch_size"):
        foveate.train(images, recipe="probe", batch_size=3)
    done = commands.foveate("train", images, "--recipe", "probe", "--batch-size", 3)
    assert done.returncode == 2
    assert not absent(" ".join(done.stderr.split()), "--recipe finetune", "batch-size")
