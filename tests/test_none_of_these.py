"""What a run, its classifier and the commands do with images of none of the classes."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent, refused
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_sample_images

from foveate import train
from foveate.classifier import Classifier
from foveate.classifier.card import RELATION, read_card
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.evaluation import evaluate
from foveate.runs import read_json
from foveate.storage import sha256
from foveate.training.foreign import EACH, KINDS, foreign_images
from foveate.training.recorded import read_arguments

NONE = "none of these"
Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(draw_folder: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images to learn from, 24 to test. To be read only."""
    root = tmp_path_factory.mktemp("refusing") / "photos"
    draw_folder(root / "test", 8, first=100)
    return draw_folder(root / "train", 40).parent


def run_of(photos: Path, cache: Path, name: str, **settings: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(cache))
        return train(photos, out=photos.parent / name, command="train photos", **settings).run


@pytest.fixture(scope="module")
def run(photos: Path, backbone_cache: Path) -> Path:
    """To be read only."""
    return run_of(photos, backbone_cache, "run")


@pytest.fixture(scope="module")
def without(photos: Path, backbone_cache: Path) -> Path:
    """The run that refuses nothing. To be read only."""
    return run_of(photos, backbone_cache, "without", reject="off")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, of nothing like blobs, noise and stripes."""
    path = tmp_path_factory.mktemp("stranger") / "china.jpg"
    Image.fromarray(load_sample_images().images[0]).save(path)
    return path


def test_what_a_run_says_of_it(run: Path) -> None:
    metrics = read_json(run / "metrics.json")
    said = metrics["rejection"]
    assert said["rate"] == read_json(run / "config.json")["reject"] == 0.05
    assert set(said["foreign"]) == set(KINDS)
    assert all(0 <= share <= 1 for share in said["foreign"].values())
    false = said["false_refusals"]
    assert list(false) == ["out_of_fold", "test"] and false["test"]["n"] == 24
    assert false["out_of_fold"]["share"] == pytest.approx(0.05, abs=0.05)
    kinds = said["unknown_kinds"]
    shares = list(kinds["classes"].values())
    assert set(kinds["classes"]) == {"blob", "noise", "stripes"} and shares == sorted(shares)
    assert kinds["share"] == pytest.approx(np.mean(shares)) and kinds["share_ci95"] is None
    for split in ("out_of_fold", "test"):
        accepted = metrics[split]["accepted"]
        assert accepted["share"] == pytest.approx(1 - false[split]["share"])
        assert 0 <= accepted["accuracy"] <= 1
    card = read_card(run / "classifier")
    assert card["rejection"] == said and RELATION in card["files"]
    text = (run / "classifier" / "README.md").read_text()
    assert not absent(text, NONE, "never taught", "noise", "scrambled pieces")


def test_what_is_refused_and_what_is_not(run: Path, stranger: Path, warm_cache: Path) -> None:
    classifier = Classifier.load(run)
    found = classifier.predict(stranger)
    assert found.label == NONE and found.rejected == "foreign" and found.labels == ()
    assert found.top[0][0] in classifier.classes and found.top[0][1] == found.probability
    assert found.to_dict()["rejected"] == "foreign" and found.to_dict()["label"] == NONE
    assert classifier.predict(np.zeros((200, 200, 3), np.uint8)).label == NONE
    own = classifier.predict(run.parent / "photos" / "test")
    assert np.mean([p.rejected is None for p in own]) > 0.75
    assert all(p.label == p.top[0][0] for p in own if p.rejected is None)
    assert Classifier.load(run).predict_proba([stranger]).sum() == pytest.approx(1)


def test_probabilities_are_those_without_refusing(
    run: Path, without: Path, photos: Path, warm_cache: Path
) -> None:
    ours, others = Classifier.load(run), Classifier.load(without)
    assert ours.rejection is not None and others.rejection is None
    files = photos / "test"
    np.testing.assert_allclose(ours.predict_proba(files), others.predict_proba(files), atol=1e-6)
    assert {p.rejected for p in others.predict(files)} == {None}
    metrics = read_json(without / "metrics.json")
    assert metrics["rejection"] is None and "accepted" not in metrics["test"]
    assert "rejection" not in read_card(without / "classifier")
    assert not absent((without / "classifier" / "README.md").read_text(), "gets one of them too")


def test_torch_refuses_the_same(
    run: Path, stranger: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, warm_cache: Path
) -> None:
    files = [stranger, *sorted((photos / "test").rglob("*.png"))]
    expected = [p.rejected for p in Classifier.load(run).predict(files)]
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")
    found = [p.rejected for p in Classifier.load(run).predict(files)]
    assert expected[0] == found[0] == "foreign"
    assert sum(a != b for a, b in zip(expected, found, strict=True)) <= 1  # bf16 and f32


@pytest.mark.parametrize("tta", ["mirror", "ten"])
def test_with_test_time_augmentation(
    tta: Any, run: Path, stranger: Path, photos: Path, warm_cache: Path
) -> None:
    classifier = Classifier.load(run)
    assert classifier.predict(stranger, tta=tta).rejected == "foreign"
    own = classifier.predict(photos / "test", tta=tta)
    assert np.mean([p.rejected is None for p in own]) > 0.5


def test_evaluate_measures_what_is_accepted(
    run: Path, photos: Path, stranger: Path, tmp_path: Path, warm_cache: Path
) -> None:
    classifier = Classifier.load(run)
    found = evaluate(classifier, photos)
    said = read_json(run / "metrics.json")["test"]
    assert found["accepted"] == pytest.approx(said["accepted"])
    assert found["accuracy"] == said["accuracy"]  # before refusal
    for kind in ("blob", "noise"):
        (tmp_path / "strange" / kind).mkdir(parents=True)
        shutil.copy(stranger, tmp_path / "strange" / kind / f"{kind}.jpg")
    strange = evaluate(classifier, tmp_path / "strange")
    assert strange["accepted"] == {"share": 0.0, "accuracy": None}
    assert strange["accuracy"] is not None


# The commands


def test_predict_prints_what_is_refused(
    run: Path, stranger: Path, tmp_path: Path, warm_cache: Path
) -> None:
    done = foveate("predict", run, stranger)
    assert done.returncode == 0 and not absent(done.stdout, "china.jpg", NONE, "foreign")
    line = json.loads(foveate("predict", run, stranger, "--json").stdout)
    assert line["label"] == NONE and line["rejected"] == "foreign" and len(line["top"]) == 3
    table, folders = tmp_path / "table.csv", tmp_path / "sorted"
    done = foveate("predict", run, stranger, "--csv", table, "--sort-into", folders)
    assert done.returncode == 0, done.stderr
    row = next(csv.DictReader(io.StringIO(table.read_text("utf-8-sig"))))
    assert row["label"] == NONE and row["rejected"] == "foreign" and row["error"] == ""
    assert [p.name for p in (folders / "(none of these)").iterdir()] == ["china.jpg"]


def test_train_and_evaluate_print_what_is_refused(
    photos: Path, run: Path, tmp_path: Path, warm_cache: Path
) -> None:
    done = foveate("train", photos, "--out", tmp_path / "run", "--reject", "0.1")
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "refuses", "never taught", "noise", "given a class")
    assert read_json(tmp_path / "run" / "config.json")["reject"] == 0.1
    assert not absent(foveate("evaluate", run, photos).stdout, "given a class")


@pytest.mark.parametrize("value", ["banana", "0", "0.5", "nan", "-1", "OFF", ""])
def test_no_such_share(value: str, photos: Path, tmp_path: Path, warm_cache: Path) -> None:
    done = foveate("train", photos, "--out", tmp_path / "run", f"--reject={value}")
    assert done.returncode == 2 and not absent(done.stderr, "reject", "0.5", "off")
    assert not (tmp_path / "run").exists()


# What is refused of a caller


@pytest.mark.parametrize("value", [0, 0.5, True, float("nan"), "0.05", [0.05], -0.1])
def test_reject_is_a_share_or_off(value: Any, photos: Path, tmp_path: Path) -> None:
    with refused(UsageError, "reject", "0.5", "off"):
        train(photos, reject=value, out=tmp_path / "run")


def test_where_it_does_not_apply(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "train" / "blob", tmp_path / "blob")
    labels = ["a|b", "a", "b", "", "a|b"]
    lines = [f"blob/{3 * i:03}.png,{label}" for i, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    with refused(UsageError, "reject", "labels"):
        train(tmp_path / "labels.csv", task="multilabel", reject=0.1, out=tmp_path / "run")


def test_off_applies_everywhere(images: Path, tmp_path: Path, warm_features: Path) -> None:
    clf = train(images, "lenet5", reject="off", epochs=1, out=tmp_path / "run")
    assert clf.rejection is None


def test_no_class_has_the_name_of_the_answer(draw_folder: Draw, tmp_path: Path) -> None:
    draw_folder(tmp_path / "photos", 4)
    (tmp_path / "photos" / "blob").rename(tmp_path / "photos" / "None of These")
    with refused(DataError, "'None of These'", "rename"):
        train(tmp_path / "photos", out=tmp_path / "run")


def test_few_images_refuse_nothing_and_it_is_said(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    assert metrics["rejection"] is None and Classifier.load(trained).rejection is None
    assert any(NONE in note and "100" in note for note in metrics["notes"])


# Networks that are trained by steps


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    out = tmp_path_factory.mktemp("scratch") / "run"
    return train("digits", "lenet5", recipe="scratch", epochs=1, out=out).run


def test_a_random_start_refuses_by_images_that_were_held_out(scratch: Path, stranger: Path) -> None:
    metrics, card = read_json(scratch / "metrics.json"), read_card(scratch / "classifier")
    said = metrics["rejection"]
    assert said == card["rejection"] and card["format"] == 5 and RELATION in card["files"]
    assert said["rate"] == read_json(scratch / "config.json")["reject"] == 0.05
    assert said["unknown_kinds"]["share"] is None and "learnt" in said["unknown_kinds"]["why"]
    assert said["foreign"]["noise"] == 1
    for split, found in said["false_refusals"].items():
        assert found["n"] == metrics[split]["n"] and found["share"] < 0.15
        assert metrics[split]["accepted"]["share"] == pytest.approx(1 - found["share"])
    classifier = Classifier.load(scratch)
    assert classifier.predict(stranger).rejected == "foreign"
    assert read_arguments(scratch, weights_given=False)["reject"] == 0.05


def test_torch_refuses_what_the_graph_refuses(
    scratch: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = [stranger, *rng.integers(0, 256, (3, 28, 28), np.uint8)]
    expected = [p.rejected for p in Classifier.load(scratch).predict(images)]
    monkeypatch.setattr("foveate.classifier.choose_engine", lambda: "torch")
    assert [p.rejected for p in Classifier.load(scratch).predict(images)] == expected
    assert expected[0] == "foreign"


def test_a_head_that_is_not_linear_refuses_nothing_and_it_is_said(tmp_path: Path) -> None:
    clf = train("digits", "lenet5_1998", recipe="scratch", epochs=1, out=tmp_path / "run")
    assert clf.rejection is None and clf.metrics["rejection"] is None
    assert any(NONE in note and "linear" in note for note in clf.metrics["notes"])


@pytest.mark.slow
def test_a_fine_tuned_network_refuses(
    draw_folder: Draw, stranger: Path, tmp_path: Path, warm_cache: Path
) -> None:
    draw_folder(tmp_path / "photos" / "validation", 34, first=50)
    draw_folder(tmp_path / "photos" / "train", 10)
    settings: dict[str, Any] = {"size": 64, "epochs": 1, "out": tmp_path / "run"}
    clf = train(tmp_path / "photos", recipe="finetune", **settings)
    assert clf.card["form"] == "probe" and clf.card["format"] == 4
    assert list(clf.metrics["rejection"]["false_refusals"]) == ["validation", "test"]
    assert clf.predict(stranger).rejected == "foreign"
    with refused(ArtefactError, "probe", "without labels"):  # it knows no relation
        evaluate(clf, stranger.parent)


# Files


def test_a_card_without_it_predicts_as_ever(
    run: Path, stranger: Path, tmp_path: Path, warm_cache: Path
) -> None:
    folder = copied(run, tmp_path)
    change_card(folder, lambda card: card.pop("rejection"))
    clf = Classifier.load(folder)
    assert clf.rejection is None and clf.predict(stranger).rejected is None
    expected = Classifier.load(run).predict_proba([stranger])
    np.testing.assert_allclose(clf.predict_proba([stranger]), expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["rejection"].update(rate=2),
        lambda card: card["rejection"].pop("rate"),
        lambda card: card.update(rejection="yes"),
        lambda card: card["files"].pop(RELATION),
        lambda card: card.update(thresholds=[0.5, 0.5, 0.5]),
    ],
)
def test_a_card_that_contradicts_itself(
    change: Callable[[dict[str, Any]], Any], run: Path, tmp_path: Path
) -> None:
    folder = copied(run, tmp_path)
    change_card(folder, change)
    with refused(ArtefactError, "card.json"):
        Classifier.load(folder)


def test_tensors_that_do_not_fit(
    run: Path, stranger: Path, tmp_path: Path, warm_cache: Path
) -> None:
    folder = copied(run, tmp_path)
    tensors = load_file(folder / RELATION)
    tensors["rejection.thresholds"] = np.zeros(3)
    save_file(tensors, folder / RELATION)
    change_card(folder, lambda card: card["files"].update({RELATION: sha256(folder / RELATION)}))
    with refused(ArtefactError, RELATION, "damaged"):
        Classifier.load(folder).predict(stranger)


def copied(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run / "classifier", tmp_path / "classifier")
    return tmp_path / "classifier"


def change_card(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    card = read_json(folder / "card.json")
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_it_is_recorded(run: Path, without: Path) -> None:
    assert read_arguments(run, weights_given=False)["reject"] == 0.05
    assert read_arguments(without, weights_given=False)["reject"] == "off"


def test_images_of_nothing_are_the_same_each_time(photos: Path) -> None:
    from foveate.data.layouts import load_dataset

    dataset = load_dataset(photos)
    made, again = (foreign_images(dataset, np.arange(len(dataset))) for _ in range(2))
    assert made.digests == again.digests and len(set(made.digests)) == len(made)
    assert made.classes == KINDS and np.bincount(made.labels).tolist() == [EACH] * len(KINDS)
    assert made[0][0].size == made[len(made) - 1][0].size
    flat = np.asarray(made[2 * EACH][0])
    assert (flat == flat[0, 0]).all()
    own = np.sort(np.asarray(made[len(made) - 1][0]).reshape(-1, 3), axis=0)
    source = dataset[len(dataset) - 1][0].resize((256, 256))
    np.testing.assert_array_equal(own, np.sort(np.asarray(source).reshape(-1, 3), axis=0))
