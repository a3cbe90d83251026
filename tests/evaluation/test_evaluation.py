"""Evaluation goes by the classes' names."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import absent, refused

from foveate.classifier import Classifier
from foveate.cli.train import show
from foveate.data.dataset import Dataset
from foveate.data.layouts import load_dataset
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.evaluation import evaluate
from foveate.evaluation.labels import known_labels
from foveate.metrics import summarise
from foveate.progress import Silent
from foveate.runs import read_json

pytestmark = pytest.mark.usefixtures("warm_features")


@pytest.fixture(scope="module")
def classifier(trained: Path) -> Classifier:
    return Classifier.load(trained)


def table(folder: Path, images: Path, names: dict[str, str], rows: range = range(100, 108)) -> Path:
    """A CSV of test images whose classes have other names."""
    lines = ["path,label"]
    for kind, name in names.items():
        for i in rows:
            file = next((images / "test" / kind).glob(f"{i}.*"))
            shutil.copy(file, folder / f"{kind}{file.name}")
            lines.append(f"{kind}{file.name},{name}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def test_the_test_split_is_what_the_run_measured(
    classifier: Classifier, trained: Path, images: Path
) -> None:
    """The run judged cached features with the head; here the saved graph judges the files."""
    found, expected = evaluate(classifier, images), read_json(trained / "metrics.json")["test"]
    assert found["split"] == "test" and found["n"] == 24 and found["data"] == "photos"
    # in bf16 a near tie may turn
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1.5 / 24)
    assert found["log_loss"] == pytest.approx(expected["log_loss"], abs=0.02)
    told = {"split", "data", "bad", "notes", "new", "learnt_from", "slices"}
    sure = {"macro_f1_ci95", "ece_ci95", "reliability", "before_calibration", "risk_coverage"}
    assert set(found) == {*expected, *told, *sure}
    assert found["learnt_from"] == {"n": 0, "files": [], "copies": []} and found["new"]["n"] == 24
    assert found["bad"] == {}


def test_a_summary_of_its_own_predictions(classifier: Classifier, images: Path) -> None:
    dataset = load_dataset(images / "test")
    found = evaluate(classifier, dataset)
    predictions = classifier.predict([images / "test" / name for name in dataset.files])
    rows = np.array([[dict(p.top)[c] for c in classifier.classes] for p in predictions])
    expected = summarise(rows, dataset.labels, classifier.classes)
    assert found["n"] == expected["n"] and found["per_class"] == expected["per_class"]
    assert found["confusion"] == expected["confusion"]
    assert found["log_loss"] == pytest.approx(expected["log_loss"])


def test_a_folder_without_splits_is_measured_whole(classifier: Classifier, images: Path) -> None:
    found = evaluate(classifier, images / "test")
    assert found["split"] == "all" and found["n"] == 24
    assert found["confusion"] == evaluate(classifier, images)["confusion"]


def test_classes_in_another_order(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    """A dataset that numbers the same names backwards."""
    dataset = load_dataset(images / "test")
    backwards = replace(dataset, classes=dataset.classes[::-1], labels=2 - dataset.labels)
    assert np.array_equal(known_labels(backwards, classifier.classes), dataset.labels)
    assert (
        evaluate(classifier, backwards)["confusion"] == evaluate(classifier, dataset)["confusion"]
    )


def test_some_of_the_classes(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    """Without "blob", folder order would call "noise" class 0."""
    found = evaluate(classifier, table(tmp_path, images, {"noise": "noise", "stripes": "stripes"}))
    assert found["n"] == 16 and found["confusion"][0] == [0, 0, 0]
    assert found["confusion"][1:] == evaluate(classifier, images)["confusion"][1:]
    assert found["per_class"]["blob"]["support"] == 0


@pytest.mark.parametrize("name", ["Blob", "disc", "blob ish"])
def test_a_class_that_the_classifier_does_not_know(
    name: str, classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    path = table(tmp_path, images, {"blob": name, "noise": "noise"})
    with refused(DataError, f"'{name}'", "'blob', 'noise', 'stripes'"):
        evaluate(classifier, path)


def test_an_unknown_class_without_images_is_no_matter(
    classifier: Classifier, images: Path, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """It is in the training split only: what is measured are test images."""
    root = tmp_path / "photos"
    shutil.copytree(images / "test", root / "test")
    draw_folder(root / "train", 2)
    shutil.copytree(root / "train" / "blob", root / "train" / "unknown")
    assert evaluate(classifier, root)["n"] == 24


def spoiled(images: Path, root: Path, n: int) -> Path:
    shutil.copytree(images / "test", root)
    for file in sorted((root / "blob").iterdir())[:n]:
        file.write_bytes(b"not an image")
    return root


def test_bad_images_are_skipped_and_named(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    found = evaluate(classifier, spoiled(images, tmp_path / "set", 1))
    assert found["n"] == 23 and list(found["bad"]) == ["blob/100.jpg"]
    assert "blob/100.jpg" in found["bad"]["blob/100.jpg"]
    assert found["confusion"][1:] == evaluate(classifier, images)["confusion"][1:]


@pytest.mark.parametrize(
    ("n", "policy", "names"),
    [
        (1, "error", ["1 of 24", "'blob/100.jpg'"]),
        (2, None, ["2 of 24", "5%"]),
        (8, None, ["8 of 24", "5%"]),
    ],
)
def test_policies(
    n: int,
    policy: str | None,
    names: list[str],
    classifier: Classifier,
    images: Path,
    tmp_path: Path,
) -> None:
    with refused(DataError, *names):
        evaluate(classifier, spoiled(images, tmp_path / "set", n), policy)  # type: ignore[arg-type]


def test_an_unknown_policy_is_refused(classifier: Classifier, images: Path) -> None:
    with refused(UsageError, "'ignore'", "skip", "error"):
        evaluate(classifier, images, "ignore")  # type: ignore[arg-type]


def test_progress_counts_every_image(classifier: Classifier, images: Path) -> None:
    class Counting(Silent):
        def __init__(self) -> None:
            self.phases: dict[str, list[int]] = {}

        def begin(self, phase: str, total: int) -> None:
            self.phase = phase
            self.phases[phase] = [total, 0]

        def advance(self, n: int = 1) -> None:
            self.phases[self.phase][1] += n

    progress = Counting()
    evaluate(classifier, images, progress=progress)
    assert progress.phases["images"] == progress.phases["quality"] == [24, 24]


def test_no_such_data(classifier: Classifier, tmp_path: Path) -> None:
    with refused(DataError, "nothing"):
        evaluate(classifier, tmp_path / "nothing")


def test_a_class_that_the_folder_does_not_train(
    classifier: Classifier, images: Path, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The classifier knows it: the test split is measured whole."""
    root = tmp_path / "photos"
    shutil.copytree(images / "test", root / "test")
    draw_folder(root / "train", 2)
    shutil.rmtree(root / "train" / "blob")
    found = evaluate(classifier, root)
    assert found["n"] == 24 and found["per_class"]["blob"]["support"] == 8
    assert found["confusion"] == evaluate(classifier, images)["confusion"]
    (root / "test" / "blob").rename(root / "test" / "disc")
    with refused(DataError, "'disc'"):
        evaluate(classifier, root)


def test_unicode_forms_of_a_classifier_and_a_folder(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for name in (apart, "tea"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    dataset = Dataset.of([tmp_path / f"{n}.png" for n in (apart, "tea")], [apart, "tea"])
    for known in (composed, apart):
        assert known_labels(dataset, ("tea", known)).tolist() == [1, 0]


def test_the_table_leaves_out_classes_without_images(
    classifier: Classifier, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(classifier, table(tmp_path, images, {"noise": "noise", "stripes": "stripes"}))
    show({"test": found, "notes": [], "bad": {}}, classifier.classes)
    printed = capsys.readouterr().out
    above, _, below = printed.partition("no images of")
    assert "blob" not in above and below.startswith(" 'blob'")


def test_the_training_split_is_not_measured_without_a_word(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    """Images directly in `test` have no labels; what is left is the training split."""
    shutil.copytree(images / "test", tmp_path / "set" / "train")
    shutil.copytree(images / "test" / "blob", tmp_path / "set" / "test")
    found = evaluate(classifier, tmp_path / "set")
    assert (found["n"], found["split"]) == (24, "all")
    for names in (["no test split", "'train'"], ["left out", ": 8 (", "'test/100.jpg'"]):
        assert any(not absent(note, *names) for note in found["notes"]), found["notes"]


def test_what_the_run_learnt_from_is_no_test(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    for kind, few in (("blob", 8), ("noise", 3)):
        (tmp_path / "mix" / kind).mkdir(parents=True)
        for file in sorted((images / "train" / kind).iterdir())[:few]:
            shutil.copy(file, tmp_path / "mix" / kind / f"renamed-{file.name}")
    whole = evaluate(classifier, tmp_path / "mix")
    assert (whole["n"], whole["learnt_from"]["n"], whole["new"]) == (11, 11, None)
    accuracy = classifier.metrics["test"]["accuracy"]
    assert not whole["trusted"] and not absent(whole["why"], f"{accuracy:.1%}", "24", "test")

    shutil.copy(images / "test" / "stripes" / "100.jpg", tmp_path / "mix" / "noise" / "new.jpg")
    part = evaluate(classifier, tmp_path / "mix")
    assert (part["n"], part["new"]["n"]) == (12, 1) and not part["trusted"]
    assert part["new"]["per_class"]["noise"]["support"] == 1
    assert "noise/new.jpg" not in part["learnt_from"]["files"] == whole["learnt_from"]["files"]


def test_a_run_of_another_version_says_nothing_of_what_it_learnt_from(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    data = read_json(tmp_path / "run" / "data.json")
    for file in data["files"].values():
        del file["sha256"]
    (tmp_path / "run" / "data.json").write_text(json.dumps(data))
    assert evaluate(Classifier.load(tmp_path / "run"), images / "train")["learnt_from"]["n"] == 0
    (tmp_path / "run" / "data.json").write_text("{}")
    with refused(ArtefactError, "data.json"):
        evaluate(Classifier.load(tmp_path / "run"), images / "train")
    shutil.copytree(trained / "classifier", tmp_path / "moved")  # out of its run
    assert evaluate(Classifier.load(tmp_path / "moved"), images / "train")["new"]["n"] == 72


def test_what_is_left_out_is_noted(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "test", tmp_path / "set")
    (tmp_path / "set" / "blob" / "list").write_text("none")
    assert any("'blob/list'" in note for note in evaluate(classifier, tmp_path / "set")["notes"])
