"""The Python that others build on: images, networks and loops of one's own, each part alone."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader

import foveate
from foveate import Classifier, DataError, Dataset, ImageError, UsageError

pytestmark = pytest.mark.usefixtures("warm_features")

# Dataset


@pytest.fixture
def listed(images: Path) -> tuple[list[Path], list[str]]:
    paths = sorted((images / "train").rglob("*.*"))
    return paths, [path.parent.name for path in paths]


def test_a_dataset_of_lists(listed: tuple[list[Path], list[str]]) -> None:
    paths, labels = listed
    splits = ["val" if i % 4 == 0 else "train" for i in range(len(paths))]
    dataset = Dataset.of(paths, np.array(labels), splits, groups=range(len(paths)))
    assert len(dataset) == 72 and dataset.classes == ("blob", "noise", "stripes")
    assert repr(dataset) == "Dataset('dataset', 3 classes, 54 train, 18 validation)"
    image, label = dataset[0]
    assert image.mode == "RGB" and dataset.classes[label] == Path(dataset.files[0]).parent.name
    assert dataset[-1][1] == dataset[71][1]
    assert len(dataset.split("validation")) == 18
    again = pickle.loads(pickle.dumps(dataset))
    assert again.read(3) == dataset.read(3)


def test_labels_are_numbers_or_several(listed: tuple[list[Path], list[str]]) -> None:
    paths, _ = listed
    numbers = Dataset.of(paths, np.arange(72) % 11)
    assert numbers.classes[9:] == ("9", "10") and numbers.task == "multiclass"
    several = Dataset.of(paths, [["a", "b"], {"b"}, ()] * 24)
    assert several.task == "multilabel" and several.classes == ("a", "b")
    assert several[0][1].shape == (2,)
    assert several.torch()[0][1].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"paths": "photos"}, UsageError, ["paths", "str"]),
        ({"labels": 3}, UsageError, ["labels", "int"]),
        ({"labels": ["a"]}, UsageError, ["72", "1"]),
        ({"labels": [1.5] * 72}, UsageError, ["1.5"]),
        ({"labels": [None] * 72}, UsageError, ["None"]),
        ({"labels": [""] * 72}, UsageError, ["''"]),
        ({"splits": ["dev2"] * 72}, UsageError, ["dev2"]),
        ({"paths": [3] * 72}, UsageError, ["3"]),
        ({"paths": ["x.jpg"] * 72}, DataError, ["x.jpg"]),
        ({"paths": [f"{i}.jpg" for i in range(72)]}, DataError, ["72", "0.jpg"]),
    ],
)
def test_lists_that_do_not_fit(
    change: dict, error: type, words: list[str], listed: tuple[list[Path], list[str]]
) -> None:
    arguments = {"paths": listed[0], "labels": listed[1]} | change
    with pytest.raises(error) as caught:
        Dataset.of(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_no_row_of_a_dataset(listed: tuple[list[Path], list[str]]) -> None:
    dataset = Dataset.of(*listed)
    for wrong in (slice(2), "0", 1.0):
        with pytest.raises(UsageError):
            dataset[wrong]  # type: ignore[index]
    with pytest.raises(IndexError):
        dataset[72]
    with pytest.raises(UsageError, match="test"):
        dataset.split("test")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_in_torchs_dataloader(workers: int, images: Path) -> None:
    dataset = foveate.load_dataset(images).split("train")
    preprocess = foveate.Preprocess.of("efficientnet_lite0").at(32)
    loader = DataLoader(dataset.torch(preprocess), batch_size=16, num_workers=workers)
    x, y = next(iter(loader))
    assert x.shape == (16, 3, 32, 32) and x.dtype == torch.float32 and y.tolist() == [0] * 16
    expected = preprocess.normalise(preprocess.pixels(dataset[0][0]))
    assert np.array_equal(x[0].numpy(), expected)


@pytest.mark.parametrize("transform", ["standard", 5, foveate.Augment])
def test_what_is_no_transform(transform: object, images: Path) -> None:
    with refused(UsageError, "transform", repr(transform)):
        foveate.load_dataset(images).torch(transform)  # type: ignore[arg-type]


def test_preprocess_takes_pil_images_alone() -> None:
    with pytest.raises(UsageError, match="ndarray"):
        foveate.Preprocess(8, 8)(np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="resnet19"):
        foveate.Preprocess.of("resnet19")


# Features


@pytest.mark.usefixtures("cold_features")
def test_features_for_scikit_learn(images: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dataset = foveate.load_dataset(images)
    features = foveate.extract_features(dataset)
    train = np.array(dataset.splits) == "train"
    assert features.shape[0] == 96 and features.dtype == np.float32
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(features[train], dataset.labels[train])
    assert model.score(features[~train], dataset.labels[~train]) > 0.6
    assert np.array_equal(foveate.extract_features(images), features)  # from the cache


@pytest.mark.usefixtures("cold_features")
def test_features_of_a_network_of_ones_own(images: Path) -> None:
    torch.manual_seed(0)
    network = foveate.build("resnet20")
    dataset = foveate.load_dataset(images).split("test")
    first = foveate.extract_features(dataset, network)
    assert first.shape == (24, 208)
    torch.manual_seed(1)
    other = foveate.extract_features(dataset, foveate.build("resnet20"))
    assert not np.allclose(first, other)  # other weights, though the name is the same


@pytest.mark.parametrize(
    "arguments",
    [
        {"threads": 0},
        {"threads": -1},
        {"threads": "2"},
        {"size": 0},
        {"size": "64"},
        {"weights": "imagenet"},
        {"progress": False},
    ],
)
def test_what_extract_features_refuses(arguments: dict, images: Path) -> None:
    """Without a thread at work it would wait for the first image for ever."""
    ((name, value),) = arguments.items()
    with refused(UsageError, name, repr(value)):
        foveate.extract_features(images, **arguments)


@pytest.mark.parametrize(
    ("model", "words"), [(None, "NoneType"), (5, "int"), (nn.Linear, "Linear()")]
)
def test_features_of_what_is_no_network(model: object, words: str, images: Path) -> None:
    with refused(UsageError, "model", words):
        foveate.extract_features(images, model)


def test_features_with_the_weights_of_a_run(images: Path, trained: Path) -> None:
    """`train` alone goes on from a run."""
    with refused(UsageError, str(trained), "foveate.train"):
        foveate.extract_features(images, weights=trained)


@pytest.mark.usefixtures("cold_features")
def test_features_of_unreadable_images(tmp_path: Path, images: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    good = next((images / "test" / "blob").iterdir())
    dataset = Dataset.of([tmp_path / "bad.jpg", good], ["a", "b"])
    with pytest.raises(DataError, match=r"bad\.jpg"):
        foveate.extract_features(dataset, foveate.build("resnet20"), engine="torch")


# Classifier


@pytest.fixture(scope="module")
def clf(trained: Path) -> Classifier:
    return Classifier.load(trained)


@pytest.fixture(scope="module")
def photo(images: Path) -> Path:
    return images / "test" / "stripes" / "100.jpg"


@pytest.mark.precision
def test_one_image_in_every_form(clf: Classifier, photo: Path) -> None:
    image = foveate.load_image(photo)
    forms = [photo, str(photo), photo.read_bytes(), bytearray(photo.read_bytes()), image]
    forms += [np.asarray(image), io.BytesIO(photo.read_bytes())]
    found = [clf.predict(form) for form in forms]
    with photo.open("rb") as file:
        found.append(clf.predict(file))
    assert len({(p.label, round(p.probability, 6)) for p in found}) == 1
    assert found[7].file == str(photo)
    grey = np.asarray(image.convert("L"))
    assert clf.predict(grey) == clf.predict(grey[:, :, None])


@pytest.mark.precision
def test_many_images_in_every_form(clf: Classifier, photo: Path) -> None:
    array = np.asarray(foveate.load_image(photo))
    for many in ([photo, array], (photo, array), iter([photo, array]), np.stack([array, array])):
        assert [p.label for p in clf.predict(many)] == [clf.predict(photo).label] * 2
    assert clf.predict([]) == [] and clf.predict_proba([]).shape == (0, 3)
    assert [p.label for p in clf.predict(photo.parent)] == [
        p.label for p in clf.predict(sorted(photo.parent.iterdir()))
    ]


def test_images_are_taken_from_a_generator_as_they_are_needed(clf: Classifier, photo: Path) -> None:
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield photo

    predictions = clf.predict_each(endless())
    assert next(predictions).label and len(taken) < 10_000
    predictions.close()


@pytest.mark.precision
def test_predict_proba(clf: Classifier, images: Path, photo: Path, tmp_path: Path) -> None:
    dataset = foveate.load_dataset(images).split("test")
    found = clf.predict_proba(dataset[i][0] for i in range(len(dataset)))
    assert found.shape == (24, 3) and np.allclose(found.sum(axis=1), 1)
    accuracy = (found.argmax(axis=1) == dataset.labels).mean()
    assert accuracy == pytest.approx(clf.metrics["test"]["accuracy"], abs=1e-6)
    assert clf.predict_proba(photo).shape == (1, 3)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        clf.predict_proba([photo, tmp_path / "bad.jpg"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, ["int"]),
        (None, ["NoneType"]),
        (np.zeros((4, 4, 3)), ["float64"]),
        (np.zeros((4, 4, 4), np.uint8), ["(4, 4, 4)"]),
        (np.zeros((0, 4, 3), np.uint8), ["(0, 4, 3)"]),
        (torch.zeros(3, 8, 8), ["tensor", "permute"]),
        ([torch.zeros(3, 8, 8)], ["tensor"]),
        (io.StringIO("x"), ["binary"]),
    ],
)
def test_what_is_no_image(source: object, words: list[str], clf: Classifier) -> None:
    with pytest.raises(UsageError) as caught:
        clf.predict(source)
    assert all(word in str(caught.value) for word in words), caught.value


def test_loading_with_threads(trained: Path) -> None:
    assert Classifier.load(trained, threads=1).threads == 1
    for wrong in (0, 1.5, True, "2"):
        with pytest.raises(UsageError, match="threads"):
            Classifier.load(trained, threads=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="int"):
        Classifier.load(3)  # type: ignore[arg-type]
    assert repr(Classifier.load(trained)).startswith("Classifier(efficientnet_lite0, 3 classes")


def test_metrics(clf: Classifier, trained: Path, tmp_path: Path) -> None:
    assert clf.metrics["model"] == "efficientnet_lite0" and clf.metrics["out_of_fold"]["n"] == 72
    import shutil

    moved = shutil.copytree(trained / "classifier", tmp_path / "shipped")
    assert Classifier.load(moved).metrics["test"]["accuracy"] == clf.metrics["test"]["accuracy"]


@pytest.mark.precision
def test_threads_share_a_classifier(clf: Classifier, images: Path) -> None:
    photos = sorted((images / "test").rglob("*.*"))
    expected = [clf.predict(photo).probability for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda photo: clf.predict(photo).probability, photos))
    assert found == expected


@pytest.mark.precision
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_classifier_works_after_a_fork(engine: str, trained: Path, photo: Path, python) -> None:
    """K15: predict, fork, predict. In a process of its own, since threads are left behind."""
    # several threads of torch, which a fork leaves behind; the tests' own processes have one
    program = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads
import foveate.classifier
if sys.argv[3] == "torch":
    foveate.classifier.choose_engine = lambda: "torch"
    import torch
    assert torch.get_num_threads() == 2
clf = foveate.Classifier.load(sys.argv[1])
before = clf.predict(sys.argv[2])
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends a child that waits for ever
    after = clf.predict(sys.argv[2])
    kept = sys.argv[3] != "torch" or torch.get_num_threads() == 2
    close = abs(after.probability - before.probability) < 1e-4  # one thread sums in another order
    os._exit(0 if after.label == before.label and close and kept else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), clf.predict(sys.argv[2]) == before)
"""
    assert python(program, trained, photo, engine, OMP_NUM_THREADS="2").split() == ["0", "True"]


@pytest.mark.usefixtures("cold_features")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_networks_work_after_a_fork(images: Path, tmp_path: Path, python) -> None:
    """Building, augmenting, extracting and training in the child of a process that used torch."""
    program = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import torch
import foveate
torch.zeros(1 << 20).add(1).sum()  # starts torch's threads
child = os.fork()
if child == 0:
    signal.alarm(280)
    network = foveate.build("efficientnet_lite0", 3, weights="imagenet")
    foveate.freeze(network, "backbone", size=64)
    foveate.Augment("light", size=512)(np.zeros((600, 600, 3), np.uint8))
    foveate.extract_features(sys.argv[1], engine="torch", size=32)
    foveate.train(sys.argv[1], "lenet5", epochs=1, threads=2, out=sys.argv[2])
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    found = python(program, images, tmp_path / "run", OMP_NUM_THREADS="2")
    assert found.split() == ["0"]


# Networks


def test_list_models() -> None:
    assert len(foveate.list_models()) == 67
    assert foveate.list_models(family="ResNet", pretrained=True)[:2] == ["resnet18", "resnet34"]
    assert "resnet20" in foveate.list_models(family="resnet", pretrained=False)
    with pytest.raises(UsageError, match="ResNext"):
        foveate.list_models(family="ResNext")


def test_a_built_network_says_how_its_weights_expect_images(caplog) -> None:
    network = foveate.build("efficientnet_lite0", weights="imagenet")
    assert network.preprocess == foveate.Preprocess.of("efficientnet_lite0")
    assert not hasattr(foveate.build("resnet18"), "preprocess")
    grey = foveate.build("efficientnet_lite0", 10, 1, weights="imagenet")
    assert grey.preprocess.channels == 1 and grey.head.out_features == 10
    assert "fresh" in caplog.text and "1000" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": 3}, ["int"]),
        ({"num_classes": 0}, ["num_classes", "0"]),
        ({"num_classes": "10"}, ["num_classes", "'10'"]),
        ({"in_channels": True}, ["in_channels", "True"]),
        ({"weights": True}, ["weights", "True", "imagenet"]),
    ],
)
def test_what_build_refuses(arguments: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        foveate.build(**({"name": "resnet18"} | arguments))
    assert all(word in str(caught.value) for word in words), caught.value


# Nothing of the host process stays changed


def test_training_leaves_its_host_as_it_was(images: Path, tmp_path: Path) -> None:
    import random
    import warnings

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    threads, filters = torch.get_num_threads(), list(warnings.filters)
    states = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate()
    alive = threading.active_count()
    foveate.train(
        images, "lenet5", "scratch", epochs=1, batch_size=24, augment="none", out=tmp_path / "run"
    )
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.get_num_threads() == threads and set(filters) <= set(warnings.filters)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert threading.active_count() <= alive + 1


def test_a_second_ctrl_c_raises_keyboard_interrupt(images: Path, tmp_path: Path) -> None:
    """The first asks training to save and stop; the second is Python's own again."""
    program = """
import os, signal, sys, foveate
from foveate.training import trainer

def interrupt_twice(self, *_):
    os.kill(os.getpid(), signal.SIGINT)
    assert self.asked() == 130
    os.kill(os.getpid(), signal.SIGINT)

with trainer.stop_requests() as request:
    os.kill(os.getpid(), signal.SIGINT)
    print(request.code)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        import time; time.sleep(5)
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["130", "KeyboardInterrupt", "True"], done.stderr


# What train refuses


class Flat(nn.Module):
    """The lecture's kind of network: images to logits, and nothing else."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(400, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": 3}, ["data", "int", "Dataset.of"]),
        ({"data": ["a.jpg"]}, ["data", "list"]),
        ({"model": 3}, ["model", "int"]),
        ({"model": Flat}, ["Flat()"]),
        ({"model": Flat(), "recipe": "probe"}, ["Flat", "stages"]),
        ({"model": Flat(), "recipe": "finetune"}, ["Flat", "stages"]),
        ({"model": Flat(4), "recipe": "scratch"}, ["4", "3"]),
        ({"model": Flat(), "size": 40}, ["40"]),
        ({"model": Flat(), "freeze": 1}, ["freeze", "stages"]),
        ({"model": "lenet5", "recipe": "scratch", "epoch": 3}, ["'epoch'", "epochs"]),
        ({"model": "lenet5", "recipe": "scratch", "weights": "x.pth"}, ["weights", "scratch"]),
        ({"model": "lenet5", "weights": True}, ["weights", "True"]),
        ({"model": "lenet5", "recipe": "scratch", "config": {"epochs": 3}}, ["config", "dict"]),
        ({"model": "lenet5", "recipe": "scratch", "augment": "mild"}, ["mild", "standard"]),
        ({"model": "lenet5", "recipe": "scratch", "augment": 3}, ["3", "standard"]),
        ({"threads": 0}, ["threads", "0"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"recipe": "guess"}, ["guess", "finetune"]),
        ({"recipe": ""}, ["''", "finetune"]),
        ({"model": "lenet5", "recipe": "scratch", "size": "64"}, ["size", "'64'"]),
        ({"model": "lenet5", "recipe": "scratch", "size": 1.5}, ["size", "1.5"]),
        ({"model": "lenet5", "recipe": "scratch", "size": True}, ["size", "True"]),
        ({"model": "lenet5", "recipe": "scratch", "channels": 2}, ["channels", "2"]),
        ({"model": "lenet5", "recipe": "scratch", "channels": "3"}, ["channels", "'3'"]),
        ({"model": "lenet5", "recipe": "scratch", "channels": 0}, ["channels", "0"]),
        ({"out": 5}, ["out", "5"]),
        ({"out": b"run"}, ["out", "run"]),
        ({"resume": "yes"}, ["resume", "'yes'"]),
        ({"recipe": "finetune", "tensorboard": "no"}, ["tensorboard", "'no'"]),
        ({"progress": False}, ["progress", "False"]),
        ({"weights": "imagenet"}, ["weights", "imagenet"]),
    ],
)
def test_what_train_refuses(arguments: dict, words: list[str], images: Path, tmp_path) -> None:
    with pytest.raises(UsageError) as caught:
        foveate.train(**({"data": images, "out": tmp_path / "run"} | arguments))
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "run").exists()


def test_config_or_single_settings(images: Path, tmp_path: Path) -> None:
    config = foveate.TrainConfig(epochs=1, batch_size=24, warmup=0)
    with pytest.raises(UsageError, match="config"):
        foveate.train(images, "lenet5", "probe", config=config, out=tmp_path / "run")
    clf = foveate.train(images, "lenet5", "scratch", config=config, lr=0.02, out=tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (recorded["epochs"], recorded["lr"]) == (clf.metrics["epochs"], 0.02) == (1, 0.02)


# Networks of one's own


@pytest.mark.precision
def test_a_plain_module_from_scratch(images: Path, tmp_path: Path, python) -> None:
    torch.manual_seed(0)
    network = Flat()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    clf = foveate.train(
        images, network, epochs=2, batch_size=24, augment="none", out=tmp_path / "run"
    )
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())  # a copy learns
    assert clf.card["model"] == "module:Flat" and clf.preprocess.crop == 28
    assert clf.preprocess.channels == 1
    assert any("28" in note for note in clf.metrics["notes"])
    photo = images / "test" / "blob" / "100.jpg"
    expected = clf.predict(photo)
    loaded = Classifier.load(tmp_path / "run")
    rebuilt = loaded.network(Flat)
    x = loaded.preprocess(foveate.load_image(photo))[None]
    logits = rebuilt(x).detach().numpy()[0] / loaded.card["temperature"]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert probabilities.max() == pytest.approx(expected.probability, abs=0.02)
    with pytest.raises(UsageError, match="Flat"):
        loaded.network()
    if loaded.has_graph:  # predicts where neither its code nor torch is
        program = """
import sys, foveate
print(foveate.Classifier.load(sys.argv[1]).predict(sys.argv[2]).label, "torch" in sys.modules)
"""
        assert python(program, tmp_path / "run", photo).split() == [expected.label, "False"]


def test_without_openvino_a_plain_module_needs_its_code(images: Path, tmp_path: Path) -> None:
    clf = foveate.train(
        images,
        Flat(),
        epochs=1,
        batch_size=24,
        augment="none",
        engine="torch",
        out=tmp_path / "run",
    )
    photo = images / "test" / "blob" / "100.jpg"
    assert not clf.has_graph and clf.predict(photo).label
    assert any("code" in note for note in clf.metrics["notes"])
    loaded = Classifier.load(tmp_path / "run")
    with pytest.raises(UsageError, match="Flat"):
        loaded.predict(photo)
    assert loaded.network(Flat)(torch.zeros(1, 1, 28, 28)).shape == (1, 3)


@pytest.mark.slow
def test_a_network_that_was_built_here_is_known_by_its_name(images: Path, tmp_path: Path) -> None:
    options = {"epochs": 1, "batch_size": 24, "augment": "none", "size": 24}
    network = foveate.build("resnet20", num_classes=3)
    clf = foveate.train(images, network, **options, out=tmp_path / "known")
    assert clf.card["model"] == "resnet20" and clf.network().head.out_features == 3
    network.fc = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))  # not it any more
    clf = foveate.train(images, network, **options, out=tmp_path / "changed")
    assert clf.card["model"] == "module:CifarResNet"
    assert len(clf.predict_proba(images / "test")) == 24


@pytest.mark.precision
def test_fine_tuning_a_network_of_ones_own(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = foveate.models.resnet20()  # by its class: nobody said its name
    clf = foveate.train(
        images, network, "finetune", epochs=1, batch_size=24, freeze=1, out=tmp_path / "run"
    )
    assert clf.card["model"].startswith("module:") and clf.metrics["recipe"] == "finetune"
    photo = images / "test" / "blob" / "100.jpg"
    loaded = Classifier.load(tmp_path / "run")
    assert loaded.predict(photo) == clf.predict(photo)
    assert torch.equal(loaded.network(network).backbone.conv1.weight, network.conv1.weight)


@pytest.mark.slow
def test_timms_networks(images: Path, tmp_path: Path) -> None:
    """A module of timm's is probed; a name of timm's is trained from scratch; both are saved."""
    import timm

    torch.manual_seed(0)
    probed = foveate.train(
        images, timm.create_model("resnet10t", num_classes=3), "probe", out=tmp_path / "probe"
    )
    assert probed.card["form"] == "probe" and probed.metrics["out_of_fold"]["n"] == 72
    scratch = foveate.train(
        images,
        "timm:mobilenetv3_small_050",
        "scratch",
        size=32,
        epochs=1,
        batch_size=24,
        augment="none",
        out=tmp_path / "scratch",
    )
    assert scratch.card["model"] == "timm:mobilenetv3_small_050"
    photo = images / "test" / "blob" / "100.jpg"
    for run in ("probe", "scratch"):
        assert Classifier.load(tmp_path / run).predict(photo).label in probed.classes
    assert Classifier.load(tmp_path / "scratch").network().head.out_features == 3
    with pytest.raises(UsageError, match="resnet19"):
        foveate.train(images, "timm:resnet19", out=tmp_path / "none")


@pytest.mark.precision
def test_going_on_from_a_run(images: Path, trained: Path, tmp_path: Path) -> None:
    """A probe on the network that a run left: here the same frozen backbone."""
    clf = foveate.train(images, weights=trained, out=tmp_path / "run")
    was = Classifier.load(trained).metrics["test"]["accuracy"]
    assert clf.metrics["test"]["accuracy"] == pytest.approx(was, abs=0.05)
    assert clf.card["provenance"]["weights"].startswith("run ")


@pytest.mark.precision
def test_going_on_from_a_checkpoint_file(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(foveate.build("resnet20").state_dict(), tmp_path / "mine.pth")
    clf = foveate.train(images, "resnet20", weights=tmp_path / "mine.pth", out=tmp_path / "run")
    assert clf.metrics["recipe"] == "probe" and clf.card["model"] == "resnet20"
    loaded = Classifier.load(tmp_path / "run")
    photo = images / "test" / "blob" / "100.jpg"
    assert loaded.predict(photo) == clf.predict(photo)
    assert loaded.network().backbone.conv1.weight.shape[0] == 16
    with pytest.raises(foveate.ArtefactError, match=r"none\.pth"):
        foveate.train(images, "resnet20", weights=tmp_path / "none.pth", out=tmp_path / "other")
