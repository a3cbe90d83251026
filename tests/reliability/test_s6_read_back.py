"""S6: whatever is read back is checked: other files, types and numbers give only our errors."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused
from safetensors.numpy import load_file, save_file
from toy import small, train, trainer_of

from foveate.checkpoint import latest, save_best, save_checkpoint, write
from foveate.classifier import Classifier
from foveate.classifier.card import read_card
from foveate.errors import ArtefactError, FoveateError, UsageError
from foveate.runs import Run, read_json, read_metrics
from foveate.storage import check, check_regular, is_of, read_bytes, sha256, write_json

pytestmark = pytest.mark.usefixtures("warm_cache")

ODD = [
    *(None, True, -1, 0, 1.5, 10**20, 1e300, float("inf"), float("nan"), "", "../x", "\ud800"),
    *("a\0b", [], {}, [[]], {"a": 1}, [None], "x" * 300),
]


def mutate(value: Any, rng: random.Random) -> Any:
    """One random change somewhere in a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return [*value[:i], *([] if rng.random() < 0.3 else [mutate(value[i], rng)]), *value[i:]]
    return rng.choice(ODD)


def corpus(value: Any, n: int = 40) -> list[Any]:
    """The same mutations at every run."""
    found = []
    for seed in range(n):
        rng, mutant = random.Random(seed), value
        for _ in range(rng.choice([1, 1, 2, 3])):
            mutant = mutate(mutant, rng)
        found.append(mutant)
    return found


def survives(act: Callable[[], object]) -> bool:
    """Whether it is refused; any error that is not ours goes through."""
    try:
        act()
    except FoveateError as error:
        assert str(error)
        return True
    return False


# What is read, and from where


def test_a_form_says_the_first_place_that_differs() -> None:
    form = {"a": int, "b?": [float], "c": (None, str), "d": {str: bool}}
    good = {"a": 1, "c": None, "d": {"x": True}, "more": object()}
    check(good, form)
    check(good | {"b": [1, 2.5], "c": "x"}, form)
    for changed, names in (
        ({"a": 1.0}, ["a is 1.0", "whole number"]),
        ({"a": True}, ["a is true"]),
        ({"b": [0, float("nan")]}, ["b[1] is NaN", "finite"]),
        ({"b": [10**400]}, ["b[0]", "finite"]),
        ({"b": {}}, ["b is {}", "list"]),
        ({"c": 3}, ["c is 3", "text"]),
        ({"d": {"x": 1}}, ["d.x is 1"]),
        ({"d": []}, ["d is []", "object"]),
    ):
        with refused(ValueError, *names):
            check(good | changed, form)
    with refused(ValueError, "a is missing"):
        check({"c": None, "d": {}}, form)
    assert not is_of([], form)


@pytest.mark.parametrize("kind", ["pipe", "folder", "none"])
def test_only_a_regular_file_is_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)  # to open it would wait for ever
    elif kind == "folder":
        path.mkdir()
    for read in (read_bytes, check_regular, sha256):
        with pytest.raises(OSError, match=r"x\.json"):
            read(path)
    with pytest.raises(ArtefactError) as caught:
        read_json(path)
    assert "x.json" in str(caught.value)


# A run's files


CONFIG = {"data": "a", "fingerprint": "0", "seed": 0, "training": {"lr": 0.1, "epochs": 3}}


def test_a_configuration(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", "photos", CONFIG, resume=False)
    for mutant in [*corpus(CONFIG), {"a": json.loads("[" * 900 + "]" * 900)}]:
        (tmp_path / "run" / "config.json").write_text(json.dumps(mutant))
        survives(lambda: Run.open(tmp_path / "run", "photos", CONFIG, resume=True))


SPLIT = {
    **{"n": 4, "accuracy": 0.5, "accuracy_ci95": [0.1, 0.9], "macro_f1": 0.5, "ece": 0.1},
    **{"balanced_accuracy": 0.5, "confusion": [[1, 1], [1, 1]]},
    "per_class": {c: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2} for c in "ab"},
}
METRICS = {
    **{"model": "m", "recipe": "probe", "seconds": {"total": 1.0}, "bad": {}, "notes": ["x"]},
    "test": SPLIT,
}


def test_metrics(tmp_path: Path) -> None:
    """What passes can be shown."""
    from foveate.cli.train import show

    write_json(tmp_path / "metrics.json", METRICS)
    assert read_metrics(tmp_path, 2) == METRICS
    turned_down = 0
    for mutant in corpus(METRICS, 60):
        (tmp_path / "metrics.json").write_text(json.dumps(mutant))
        try:
            found = read_metrics(tmp_path, 2)
        except ArtefactError:
            turned_down += 1
        else:
            show(found, ("a", "b"))
    assert turned_down > 20
    write_json(tmp_path / "metrics.json", METRICS)
    with refused(ArtefactError, "metrics.json'", "splits"):
        read_metrics(tmp_path, 3)


# A classifier


@pytest.fixture(scope="module")
def small_classifier(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained one's card with a head alone, so that its hash takes no time."""
    folder = tmp_path_factory.mktemp("small") / "classifier"
    folder.mkdir()
    tensors = load_file(trained / "classifier" / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n.startswith("linear")}, folder / "m")
    (folder / "m").rename(folder / "model.safetensors")
    card = json.loads((trained / "classifier" / "card.json").read_text())
    card["files"] = {"model.safetensors": sha256(folder / "model.safetensors")}
    write_json(folder / "card.json", card)
    return folder


def test_a_card(small_classifier: Path) -> None:
    card = read_card(small_classifier)
    turned_down = 0
    for mutant in [*corpus(card, 60), card | {"classes": ["", "b", "c"]}, card | {"files": []}]:
        (small_classifier / "card.json").write_text(json.dumps(mutant))
        turned_down += survives(lambda: Classifier.load(small_classifier).metrics)
    write_json(small_classifier / "card.json", card)
    assert turned_down > 20


def test_a_graph_beside_the_card_is_not_used(trained: Path, tmp_path: Path, images: Path) -> None:
    """Of a classifier without a graph, beside which somebody puts one."""
    folder = tmp_path / "classifier"
    shutil.copytree(trained / "classifier", folder)
    card = json.loads((folder / "card.json").read_text())
    graph = {name: card["files"].pop(name) for name in ("engine.xml", "engine.bin")}
    write_json(folder / "card.json", card)
    classifier = Classifier.load(folder)
    assert not classifier.has_graph
    assert type(classifier.engine).__name__ == "TorchEngine"
    card["files"]["engine.xml"] = graph["engine.xml"]
    write_json(folder / "card.json", card)
    with refused(ArtefactError, "card.json'", "engine.bin"):
        Classifier.load(folder)


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "engine.xml"])
def test_a_pipe_in_a_classifier(name: str, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "classifier", tmp_path / "classifier"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with refused(ArtefactError, f"{name}'"):
        Classifier.load(folder)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_numbers_that_are_not_finite_are_no_answer(
    engine: str, trained: Path, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        batch = 1

        def run(self, batches: Any) -> Any:
            for pixels in batches:
                yield np.full((len(pixels), 3), np.nan, np.float32)

    image = next((images / "test").rglob("*.jpg"))
    classifier = Classifier.load(trained)
    if engine == "openvino":
        monkeypatch.setattr(Classifier, "engine", Broken())
    else:  # tensors whose hash fits
        folder = Path(shutil.copytree(trained / "classifier", tmp_path / "classifier"))
        tensors = load_file(folder / "model.safetensors")
        tensors[next(name for name in tensors if name.endswith("weight"))].flat[0] = np.nan
        save_file(tensors, folder / "model.safetensors")
        card = json.loads((folder / "card.json").read_text())
        card["files"] = {"model.safetensors": sha256(folder / "model.safetensors")}
        write_json(folder / "card.json", card)
        classifier = Classifier.load(folder)
    with refused(ArtefactError, "finite", str(classifier.folder)):
        classifier.predict(image)


def graphs() -> dict[str, Any]:
    """Graphs that are none of ours, by what is odd about them."""
    from foveate.engine.openvino import ov

    ops = ov.opset13
    found = {}

    def pixels(shape: Any = (-1, 8, 8, 3), kind: Any = np.uint8) -> Any:
        return ops.parameter(ov.PartialShape(list(shape)), kind)

    def mean(x: Any, axes: tuple[int, ...] = (1, 2)) -> Any:
        return ops.reduce_mean(ops.convert(x, "f32"), ops.constant(np.array(axes)))

    x = pixels()
    found["whole"] = ov.Model([ops.result(mean(x))], [x], "")
    x, y = pixels(), pixels()
    found["two inputs"] = ov.Model([ops.result(mean(ops.concat([x, y], axis=0)))], [x, y], "")
    x = pixels()
    found["two outputs"] = ov.Model([ops.result(mean(x)), ops.result(mean(x))], [x], "")
    x = pixels((-1, -1, -1, -1))
    found["dynamic"] = ov.Model([ops.result(mean(x))], [x], "")
    x = ops.parameter(ov.PartialShape.dynamic(), np.uint8)
    found["no rank"] = ov.Model([ops.result(ops.convert(x, "f32"))], [x], "")
    x = pixels(kind=np.float32)
    found["float pixels"] = ov.Model([ops.result(mean(x))], [x], "")
    x = pixels()
    found["maps"] = ov.Model([ops.result(mean(x, (1,)))], [x], "")
    x = pixels()
    found["whole numbers"] = ov.Model([ops.result(ops.convert(mean(x), "i32"))], [x], "")
    x = ops.parameter(ov.PartialShape([-1, 8, 8, 3]), ov.Type.string)
    found["texts"] = ov.Model([ops.result(ops.shape_of(x))], [x], "")
    x = pixels()
    found["a row for all"] = ov.Model(
        [ops.result(ops.reduce_mean(mean(x), ops.constant(np.array([0])), keep_dims=True))], [x], ""
    )
    return found


def test_a_graph_is_one_of_ours(tmp_path: Path) -> None:
    from foveate.engine.openvino import OpenVinoEngine, read_graph, save_graph

    images = [np.zeros((n, 8, 8, 3), np.uint8) for n in (3, 1)]
    path = tmp_path / "engine.xml"

    def run() -> list[Any]:
        return list(OpenVinoEngine(path, 1).run(images))

    for name, graph in graphs().items():
        save_graph(graph, path)
        if name == "whole":
            assert [rows.shape for rows in run()] == [(3, 3), (1, 3)]
        else:
            with refused(ArtefactError, "engine.xml'"):
                run()
    save_graph(graphs()["whole"], path)
    good, turned_down = path.read_text(), 0
    for old, new in (
        ('type="Result"', 'type="Nothing"'),
        ("<layers>", "<layers><layer/>"),
        ('precision="U8"', 'precision="STRING"'),
        ('element_type="u8"', 'element_type="string"'),
        ("</net>", ""),
        (good[good.index("<edges>") : good.index("</edges>")], "<edges>"),
        (good, ""),
    ):
        assert old in good, old
        path.write_text(good.replace(old, new))
        turned_down += survives(run)
    assert turned_down > 4
    path.write_text(good)
    (tmp_path / "engine.bin").unlink()
    os.mkfifo(tmp_path / "engine.bin")
    with refused(ArtefactError, "engine.xml'"):
        read_graph(path)


# Checkpoints


def test_a_checkpoints_metadata(tmp_path: Path) -> None:
    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, on_epoch=stop)
    found = latest(tmp_path, print)
    assert found
    turned_down = 0
    for i, mutant in enumerate([*corpus(found.about, 60), found.about | {"best": "../x"}]):
        if not isinstance(mutant, dict):
            mutant = {"about": mutant}
        folder = tmp_path / str(i)
        folder.mkdir()
        for path in tmp_path.glob("best-*"):
            shutil.copy(path, folder)
        write(folder, "epoch-0001-batch-000000", found.tensors, mutant)
        trainer = trainer_of(small(1), folder)
        turned_down += survives(lambda trainer=trainer: trainer.restore(trainer.found()))
    assert turned_down > 30
    other = found.best | {next(iter(found.best)): torch.zeros(1)}
    folder = tmp_path / "other"
    name = save_best(folder, 1, other)
    save_checkpoint(folder, 1, 0, found.tensors, found.about, name)
    with refused(ArtefactError, "epoch-0001", "another network"):
        train(small(), folder, resume=True)


def test_other_settings_are_still_a_usage_error(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", "photos", CONFIG, resume=False)
    with refused(UsageError, "seed 0, now 1"):
        Run.open(tmp_path / "run", "photos", CONFIG | {"seed": 1}, resume=True)
