"""int8: what is rounded, what it costs on images the judging head did not learn from, and when it
is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from exportable import odd_files, probe_of_views, small_classifier
from refusals import absent, refused

from foveate.classifier import Classifier
from foveate.errors import DataError, FoveateError, UsageError
from foveate.export import export_classifier
from foveate.export.int8 import COMPUTED, WEIGHTS, Judged, compare, right_of
from foveate.progress import Silent

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def kinds(path: Path) -> dict[str, int]:
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    return {kind: nodes.count(kind) for kind in set(nodes)}


@pytest.mark.slow
def test_a_probe_in_int8(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 72 images a point is less than one of them."""
    logger = logging.getLogger()
    before = [*logger.handlers], logger.level
    exact = export_classifier(trained, tmp_path / "f32", images=images)
    done = export_classifier(
        trained, tmp_path / "int8", images=images, int8=True, budget=5, progress=Silent()
    )
    assert ([*logger.handlers], logger.level) == before
    assert done.int8 is not None and done.int8.kind == COMPUTED and done.int8.images == 72
    assert done.int8.points <= 5 and done.int8.interval[0] <= done.int8.points
    assert done.bytes < 0.33 * exact.bytes and exact.int8 is None
    found, was = kinds(done.folder / "model.onnx"), kinds(exact.folder / "model.onnx")
    assert found["Conv"] == was["Conv"] and found["QuantizeLinear"] > 20
    assert "int8" in (done.folder / "README.md").read_text()
    assert done.to_dict()["int8"]["kind"] == COMPUTED

    sessions = [onnxruntime.InferenceSession(e.folder / "model.onnx") for e in (exact, done)]
    noise = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    one, other = (session.run(None, {"pixels": noise})[0] for session in sessions)
    assert other.shape == one.shape and 0 < np.abs(one - other).max() < 0.5

    # what costs more is computed in f32; then it is refused, with the figures
    def costs(before: object, after: object, budget: float, kind: str) -> object:
        right = np.ones(100)
        wrong = right.copy()
        wrong[: {COMPUTED: 7, WEIGHTS: 4}[kind]] = 0
        return compare(right, wrong, budget, kind)

    monkeypatch.setattr("foveate.export.int8.compare", costs)
    weights = export_classifier(trained, tmp_path / "w", images=images, int8=True, budget=4)
    assert weights.int8 is not None and weights.int8.kind == WEIGHTS
    assert weights.int8.points == pytest.approx(4) and weights.bytes < 0.33 * exact.bytes
    assert "QuantizeLinear" not in kinds(weights.folder / "model.onnx")
    with refused(FoveateError, "0.3 points", "7.00", "4.00", "int8"):
        export_classifier(trained, tmp_path / "none", images=images, int8=True)
    assert not (tmp_path / "none").exists()


@pytest.fixture
def run_of_network(tmp_path: Path, draw_folder: Callable[..., Path]) -> tuple[Path, Path]:
    """The run of a network as it is, with its training and validation splits; its images."""
    data = draw_folder(tmp_path / "data" / "train", 10)
    draw_folder(tmp_path / "data" / "validation", 20, first=50)
    classifier = small_classifier(tmp_path / "run")
    card = json.loads((classifier.folder / "card.json").read_text())
    card["classes"] = ["blob", "noise", "stripes"]
    (classifier.folder / "card.json").write_text(json.dumps(card))
    from foveate.data.layouts import load_dataset

    dataset = load_dataset(data.parent)
    files = {
        name: {"split": split, "sha256": digest[:16]}
        for name, split, digest in zip(dataset.files, dataset.splits, dataset.digests, strict=True)
    }
    (tmp_path / "run/data.json").write_text(json.dumps({"files": files, "groups": []}))
    return tmp_path / "run", data.parent


def test_a_network_as_it_is_is_judged_on_its_validation_split(
    run_of_network: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data = run_of_network
    done = export_classifier(run, tmp_path / "out", "mlflow", data, int8=True, budget=50)
    assert done.int8 is not None and done.int8.images == 60
    assert (done.folder / "MLmodel").is_file()
    with refused(DataError, "50", "images"):
        export_classifier(run, tmp_path / "o", images=data / "train", int8=True)


def test_a_probe_is_judged_by_heads_of_folds(tmp_path: Path) -> None:
    """Whose head has seen an image makes no difference to it: noise is not learnt by heart."""
    rng = np.random.default_rng(0)
    classifier = probe_of_views(tmp_path)
    labels = np.arange(240) % 3
    features = rng.normal(size=(240, 40)).astype(np.float32)
    right = right_of(classifier, Judged([], labels, np.arange(240)), features)
    assert right(None).mean() < 0.5
    features[:, :3] += 8 * np.eye(3, dtype=np.float32)[labels]
    right = right_of(classifier, Judged([], labels, np.arange(240)), features)
    assert right(None).mean() > 0.95
    turned = np.roll(features, 1, axis=1)
    assert right(turned).mean() < 0.6
    loss = compare(right(None), right(turned), 1.0, COMPUTED)
    assert loss.points == pytest.approx(100 * (loss.accuracy[0] - loss.accuracy[1]))
    with refused(DataError, "group"):
        right_of(classifier, Judged([], labels, np.zeros(240, np.int64)), features)


def test_bad_input(run_of_network: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = run_of_network
    given = ("--images", data)
    few = tmp_path / "ten"
    (few / "blob").mkdir(parents=True)
    (few / "noise").mkdir()
    for number, path in enumerate(sorted((data / "train").rglob("*.*"))[5:15]):
        path.rename(few / path.parent.name / f"{number}{path.suffix}")
    for code, names, arguments in [
        (2, ["onnx", "mlflow", "hub"], (*given, "--int8", "--format", "hub")),
        (2, ["--int8"], (*given, "--budget", "1")),
        (2, ["budget", "-1"], (*given, "--int8", "--budget", "-1")),
        (4, ["50", "--images"], ("--images", few, "--int8")),
    ]:
        done = foveate("export", run, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert not absent(" ".join(done.stderr.split()), *names), done.stderr
    with refused(UsageError, "int8", "yes"):
        export_classifier(run, int8="yes")


def test_without_data_json_it_says_so(tmp_path: Path) -> None:
    files = odd_files(tmp_path / "odd")
    for kind in ("cat", "dog"):
        (files / kind).mkdir()
    for number, path in enumerate(sorted(files.glob("*.*"))):
        path.rename(files / ("cat", "dog")[number % 2] / path.name)
    classifier = Classifier.load(small_classifier(tmp_path / "run").folder)
    with pytest.raises(FoveateError, match=r"data\.json"):
        export_classifier(classifier, tmp_path / "out", images=files, int8=True)
