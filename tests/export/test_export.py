"""Exports: proven on files that are decoded in every way, whatever the classifier; refused where
they cannot be."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from exportable import CLASSES, odd_files, probe_of_views, small_classifier, viewed
from PIL import Image
from refusals import absent, refused

import foveate as package
from foveate.classifier import Classifier
from foveate.data.preprocess import Preprocess, View
from foveate.errors import ArtefactError, DataError, MissingExtraError, UsageError
from foveate.export import Format, export_classifier
from foveate.export.proof import TOLERANCE

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_files(tmp_path_factory.mktemp("files") / "odd")


def answers(program: Path, *arguments: object) -> list[dict[str, object]]:
    """What predict.py prints in a process of its own."""
    command = [sys.executable, "-I", str(program), "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


TWO = "two views, mirrored"
GREY = Preprocess(28, 28, channels=1, mean=(0.4,), std=(0.3,))
KINDS = {
    "a network": lambda folder: small_classifier(folder),
    "stretched": lambda folder: small_classifier(
        folder, preprocess=viewed(stretch=1.2, interpolation="bilinear")
    ),
    "the centre": lambda folder: small_classifier(folder, preprocess=viewed(resize=48)),
    "padded": lambda folder: small_classifier(folder, preprocess=viewed("pad")),
    "squashed": lambda folder: small_classifier(folder, preprocess=viewed("squash")),
    "grey": lambda folder: small_classifier(folder, "lenet5", GREY),
    "levels": lambda folder: small_classifier(folder, preprocess=viewed(levels=(500.0, 40000.0))),
    "several labels": lambda folder: small_classifier(folder, thresholds=(0.2, 0.5, 0.4)),
    "divided": lambda folder: small_classifier(folder, "lenet5_1998", GREY, temperature=1.7),
    TWO: probe_of_views,
    "without a graph": lambda folder: small_classifier(folder, graph=False),
    "views without a graph": lambda folder: probe_of_views(folder, graph=False),
}


NETWORKS = {
    "onnx": {"model.onnx"},
    "openvino": {"model.xml", "model.bin"},
    "torch": {"model.pt2"},
    "mlflow": {"model.onnx", "MLmodel", "python_env.yaml", "requirements.txt"},
}
QUICK = (("onnx", "a network"), ("openvino", "divided"), ("onnx", TWO))
PAIRS = [("onnx", kind) for kind in KINDS]
PAIRS += [(format, kind) for format in ("openvino", "torch") for kind in ("several labels", TWO)]
PAIRS += [("openvino", "levels"), ("openvino", "divided"), ("torch", "divided"), ("mlflow", TWO)]


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow, id=" ".join(pair))
        for pair in PAIRS
    ],
)
def test_the_program_says_what_the_classifier_says(
    format: Format, kind: str, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "f32")
    classifier = KINDS[kind](tmp_path / "run")
    done = export_classifier(classifier, tmp_path / "out", format, files)
    assert done.proof.images == len(list(files.iterdir())) and not done.proof.unread
    assert done.proof.difference <= TOLERANCE
    network = NETWORKS[format]
    assert {f.name for f in done.folder.iterdir()} == network | {
        "metadata.json",
        "README.md",
        "predict.py",
    }
    assert set(done.files) == network | {"metadata.json"} and done.bytes == sum(
        (done.folder / name).stat().st_size for name in done.files
    )

    found = answers(done.folder / "predict.py", *sorted(files.iterdir()))
    expected = classifier.predict(sorted(files.iterdir()), top=len(CLASSES))
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["file"] == ours.file and set(theirs["labels"]) == set(ours.labels)
        assert theirs["probabilities"] == pytest.approx(dict(ours.top), abs=TOLERANCE)
    assert len({str(row["probabilities"]) for row in found}) > 5


def test_onnx_runtime_alone_reads_all_that_it_needs(tmp_path: Path, files: Path) -> None:
    classifier = small_classifier(tmp_path / "run", thresholds=(0.2, 0.5, 0.4))
    folder = export_classifier(classifier, tmp_path / "out", images=files).folder
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    said = {key: json.loads(value) for key, value in about.items()}
    assert said["foveate.classes"] == list(CLASSES)
    assert said["foveate.thresholds"] == [0.2, 0.5, 0.4]
    assert Preprocess.from_dict(said["foveate.preprocess"]) == classifier.preprocess
    assert said["foveate.provenance"] == {"model": "nin_cifar", "command": "train photos"}
    assert said["foveate.sha256"] == classifier.card["files"]["model.safetensors"]
    assert {
        f"foveate.{k}": v for k, v in json.loads((folder / "metadata.json").read_text()).items()
    } == said
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.type) == ("pixels", "tensor(uint8)")
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    rows = session.run(["probabilities"], {"pixels": many})[0]
    for image, row in zip(many, rows, strict=True):
        alone = session.run(None, {"pixels": image[None]})[0][0]
        np.testing.assert_allclose(row, alone, atol=1e-6)


def test_the_folder_of_the_hub_is_a_classifier(tmp_path: Path, files: Path) -> None:
    classifier = small_classifier(tmp_path / "run", thresholds=(0.2, 0.5, 0.4))
    card = json.loads((classifier.folder / "card.json").read_text())
    card["metrics"] = {"test": {"n": 90, "accuracy": 0.9, "accuracy_ci95": None, "macro_f1": 0.8}}
    card["metrics"]["test"]["ece"] = 0.02
    (classifier.folder / "card.json").write_text(json.dumps(card))
    done = export_classifier(tmp_path / "run", tmp_path / "out", "hub", files)
    names = {"model.safetensors", "engine.xml", "engine.bin", "card.json", "config.json"}
    assert {path.name for path in done.folder.iterdir()} == names | {"README.md"}
    assert done.proof.difference == 0
    found = Classifier.load(done.folder).predict(files)
    assert found == classifier.predict(files)
    config = json.loads((done.folder / "config.json").read_text())
    assert list(config["id2label"].values()) == list(CLASSES)
    assert config["problem_type"] == "multi_label_classification"
    huggingface_hub = pytest.importorskip("huggingface_hub")
    read = huggingface_hub.ModelCard.load(done.folder / "README.md").data
    assert read.pipeline_tag == "image-classification" and read.library_name == "foveate"
    figures = {result.metric_name: result.metric_value for result in read.eval_results}
    assert figures == {"accuracy": 0.9, "macro_f1": 0.8, "ece": 0.02}
    assert read.eval_results[0].dataset_name == "images, test"


def test_the_folder_of_mlflow_says_how_it_is_loaded(tmp_path: Path, files: Path) -> None:
    folder = export_classifier(probe_of_views(tmp_path), tmp_path / "out", "mlflow", files).folder
    lines = (folder / "MLmodel").read_text().splitlines()
    model = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}
    assert model["flavors"]["onnx"]["data"] == model["flavors"]["python_function"]["data"]
    assert (folder / model["flavors"]["onnx"]["data"]).is_file()
    inputs = json.loads(model["signature"]["inputs"])
    assert [entry["name"] for entry in inputs] == ["pixels", "pixels_2"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["pixels", "pixels_2"]
    environment = model["flavors"]["python_function"]["env"]["virtualenv"]
    assert "requirements.txt" in (folder / environment).read_text()


def test_a_network_that_cannot_be_traced(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a branch on data")

    monkeypatch.setattr("foveate.export.torch.traced", refuse)
    with refused(ArtefactError, "a branch on data", "onnx"):
        export_classifier(small_classifier(tmp_path / "run"), format="torch", images=files)


def test_a_process_without_torch_exports_predicts_and_runs_the_program(
    trained: Path, images: Path, tmp_path: Path, python
) -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
sys.argv = ["foveate", *sys.argv[1:]]
from foveate.cli import main
main()
"""
    one = images / "test/blob/100.jpg"
    expected = json.loads(python(program, "predict", trained, one, "--json"))
    for format in ("onnx", "openvino"):
        out = tmp_path / format
        options = ["--format", format, "--out", out, "--images", images, "--json", "--quiet"]
        printed = json.loads(python(program, "export", trained, *options))
        assert printed["proof"]["images"] == printed["proof"]["of"] == 96
        assert printed["format"] == format and printed["folder"] == str(out)
        (found,) = answers(out / "predict.py", one)
        assert found["labels"] == expected["labels"]


def test_the_proof_finds_another_preprocessing(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program of someone who resizes in another way."""
    import foveate.export

    written = foveate.export.program
    monkeypatch.setattr(
        "foveate.export.program",
        lambda *given: written(*given).replace("Image.Resampling[interpolation.upper()]", "0"),
    )
    classifier = small_classifier(tmp_path / "run")
    with refused(ArtefactError, "disagrees", str(files), "Nothing was written"):
        export_classifier(classifier, tmp_path / "out", images=files)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_files_that_only_the_classifier_reads_are_named(tmp_path: Path, files: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((files / "grey.jpg").read_bytes()[:-2])  # without its end
    classifier = small_classifier(tmp_path / "run")
    done = export_classifier(classifier, tmp_path / "out", images=[cut, files / "grey.jpg"])
    assert [*done.proof.unread] == [str(cut)] and done.proof.images == 1
    assert str(cut) in (done.folder / "README.md").read_text()
    with refused(ArtefactError, "reads no image", str(cut)):
        export_classifier(classifier, tmp_path / "other", images=[cut])


def test_images_of_any_kind(tmp_path: Path, files: Path) -> None:
    classifier = small_classifier(tmp_path / "run")
    image, pixels = Image.open(files / "grey.jpg"), np.zeros((40, 50, 3), np.uint8)
    given = [image, pixels, (files / "small.png").read_bytes(), b"no image"]
    done = export_classifier(classifier, tmp_path / "a", images=given)
    assert (done.proof.images, done.proof.of) == (3, 4)
    done = export_classifier(classifier, tmp_path / "b", images="digits")
    assert (done.proof.images, done.proof.of) == (100, 1797)
    assert export_classifier(classifier, tmp_path / "d", images=image).proof.images == 1
    table = tmp_path / "table.csv"
    table.write_text(f"path,label\n{files / 'bits.png'},cat\n{files / 'wide.webp'},dog\n")
    assert export_classifier(classifier, tmp_path / "c", images=table).proof.images == 2


def test_a_runs_own_data_are_found_by_their_name(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    name = json.loads((trained / "config.json").read_text())["data"]
    assert Path(name).is_dir()
    done = export_classifier(trained, tmp_path / "out")
    assert done.proof.of == 96
    monkeypatch.chdir(tmp_path)
    with refused(UsageError, name, "images"):
        export_classifier(trained, tmp_path / "other")


def test_in_bf16_the_proof_says_how_far_this_machine_is(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.engine.openvino.precision", lambda: "bf16")
    done = export_classifier(small_classifier(tmp_path / "run"), tmp_path / "out", images=files)
    assert done.proof.on_this_machine is not None
    gap, others = done.proof.on_this_machine
    assert 0 <= gap < 0.2 and others <= done.proof.images
    assert "bf16" in (done.folder / "README.md").read_text()


# Bad input


def test_on_the_command_line(tmp_path: Path, files: Path) -> None:
    small_classifier(tmp_path / "run")
    small_classifier(tmp_path / "damaged")
    weights = tmp_path / "damaged/classifier/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    newer = small_classifier(tmp_path / "newer").folder / "card.json"
    newer.write_text(newer.read_text().replace('"format": 1', '"format": 99'))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    run, given = tmp_path / "run", ("--images", files)
    for code, names, arguments in [
        (2, ["--format"], (run, "--format", "caffe")),
        (2, ["--images"], (run,)),
        (2, ["empty", "exists", "--out"], (run, *given, "--out", tmp_path / "empty")),
        (2, ["in the way"], (run, *given, "--out", tmp_path / "file" / "out")),
        (4, ["nowhere"], (run, "--images", tmp_path / "nowhere")),
        (4, ["empty", "no images"], (run, "--images", tmp_path / "empty")),
        (5, ["no run"], (tmp_path / "empty", *given)),
        (5, ["model.safetensors", "damaged"], (tmp_path / "damaged", *given)),
        (5, ["99", "update"], (tmp_path / "newer", *given)),
    ]:
        done = foveate("export", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert not absent(" ".join(done.stderr.split()), *names), done.stderr
    assert not (tmp_path / "run/export-onnx").exists()
    done = foveate("export", run, *given)
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "export-onnx", "predict.py", str(len([*files.iterdir()])))


def test_from_python(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = small_classifier(tmp_path / "run")
    with refused(UsageError, "caffe", "onnx", "openvino"):
        export_classifier(classifier, format="caffe")
    with refused(DataError, "no images"):
        export_classifier(classifier, images=[])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    with refused(DataError, "none of the 1"):
        export_classifier(classifier, images=[bad])
    with refused(ArtefactError, "nowhere"):
        package.export_classifier(tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused(MissingExtraError, "foveate[export]"):
        export_classifier(classifier, images=files)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "foveate.engine.openvino")
    with refused(MissingExtraError, "pip install openvino"):
        export_classifier(Classifier.load(tmp_path / "run"), format="openvino", images=files)


def test_the_class_view_is_what_the_program_takes() -> None:
    """A field that is new in View has to be taken by predict.py too."""
    assert [*View(8, 8).__dict__] == ["resize", "crop", "stretch", "interpolation", "fit"]
