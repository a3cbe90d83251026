"""Images without labels: how they are found, and what `evaluate` says of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import foveate
from PIL import Image, ImageFilter
from refusals import absent, refused

from foveate import train
from foveate.classifier import Classifier
from foveate.classifier.embedding import dataset_features, head_of
from foveate.data.layouts import load_dataset
from foveate.data.unlabelled import load_unlabelled
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.evaluation import evaluate
from foveate.storage import sha256

KINDS = ("blob", "noise", "stripes")
Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def run(backbone_cache: Path, draw_folder: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of enough images to learn the relation from. To be read only."""
    root = tmp_path_factory.mktemp("unlabelled")
    draw_folder(root / "photos", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        return train(root / "photos", out=root / "run", command="train photos").run


@pytest.fixture
def classifier(run: Path, warm_cache: Path) -> Classifier:
    return Classifier.load(run)


@pytest.fixture
def flat(draw_image: Callable[[str, int], Image.Image], tmp_path: Path) -> Path:
    """30 new images in one folder, named kind-number."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for kind in KINDS:
        for i in range(200, 210):
            draw_image(kind, i).save(folder / f"{kind}-{i}.png")
    return folder


def table(folder: Path, lines: list[str]) -> Path:
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


# What has no labels


def test_a_folder_of_nothing_but_images(flat: Path) -> None:
    (flat / "notes.txt").write_text("none")
    (flat / "empty").mkdir()
    found = load_unlabelled(flat)
    assert found is not None and len(found) == 30 and found.classes == ()
    assert (
        found.files[0] == "blob-200.png" and found.read(0) == (flat / "blob-200.png").read_bytes()
    )
    assert any("notes.txt" in note for note in found.notes)


def test_class_folders_have_labels(images: Path, flat: Path, tmp_path: Path) -> None:
    for source in (images, images / "test", "digits", load_dataset(images), tmp_path / "none"):
        assert load_unlabelled(source) is None
    (flat / "cat").mkdir()
    assert load_unlabelled(flat / "cat") is None  # empty: refused as ever
    Image.new("RGB", (40, 40)).save(flat / "cat" / "1.png")
    assert load_unlabelled(flat) is None


def test_a_table_without_labels(flat: Path) -> None:
    path = table(flat, ["path;group;split", "blob-200.png;a;test", "noise-200.png;;train"])
    found = load_unlabelled(path)
    assert found is not None
    assert list(zip(found.files, found.groups, found.splits, strict=True)) == [
        ("blob-200.png", "a", "test"),
        ("noise-200.png", "", "train"),
    ]
    assert load_unlabelled(table(flat, ["path,label", "blob-200.png,blob"])) is None
    assert load_unlabelled(table(flat, ["path,kind", "blob-200.png,blob"])) is None


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["path", "gone.png"], ["table.csv", "'gone.png'"]),
        (["path", "blob-200.png", "blob-200.png"], ["table.csv", "'blob-200.png'", "once"]),
        (["path", ""], ["table.csv", "no rows"]),
        (["path,split", "blob-200.png,never"], ["line 2", "'never'"]),
    ],
)
def test_bad_tables(lines: list[str], names: list[str], flat: Path) -> None:
    with refused(DataError, *names):
        load_unlabelled(table(flat, lines))


# What is read of an image


def test_features_and_head_are_the_classifier(
    classifier: Classifier, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(images / "test")
    rows = [row for _, row in dataset_features(classifier, dataset)]
    logits = head_of(classifier).logits(np.stack(rows))
    expected = np.log(classifier.predict_proba(dataset))
    apart = logits - logits.mean(axis=1, keepdims=True)
    assert apart == pytest.approx(expected - expected.mean(axis=1, keepdims=True), abs=0.02)
    monkeypatch.setattr("foveate.classifier.embedding.choose_engine", lambda: "torch")
    in_torch = np.stack([row for _, row in dataset_features(classifier, dataset)])
    gap = np.linalg.norm(in_torch - rows, axis=1) / np.linalg.norm(in_torch, axis=1)
    assert gap.max() < 0.05  # bf16 and f32


# What is expected


def test_new_images_like_those_of_training(classifier: Classifier, flat: Path) -> None:
    (flat / "broken.png").write_bytes(b"nothing")
    found = evaluate(classifier, flat, on_bad="skip")
    m = found["predicted"]
    names = [p.top[0][0] for p in classifier.predict(sorted(flat.glob("*-*.png")))]
    truth = np.mean(
        [n == p.name.split("-")[0] for n, p in zip(names, sorted(flat.glob("*-*")), strict=True)]
    )
    assert m["supported"] and m["n"] == 30 and 1 < m["groups"] <= 30 and m["why"] is None
    low, high = m["accuracy_ci95"]
    assert low <= truth <= high and low < m["accuracy"] < high
    assert m["answers"] == {kind: names.count(kind) for kind in KINDS}
    assert list(found["bad"]) == ["broken.png"] and found["split"] == "all"
    assert any("predicted, not measured" in note for note in found["notes"])


def test_what_the_run_learnt_from_is_left_out(
    classifier: Classifier, run: Path, flat: Path, tmp_path: Path
) -> None:
    learnt = run.parent / "photos" / "blob"
    shutil.copy(learnt / "003.png", flat / "again.png")
    found = evaluate(classifier, flat)
    assert found["predicted"]["n"] == 30 and found["learnt_from"]["files"] == ["again.png"]
    shutil.copytree(learnt, tmp_path / "learnt")
    found = evaluate(classifier, tmp_path / "learnt")
    assert not found["predicted"]["supported"] and found["predicted"]["n"] == 0
    assert "learnt" in found["predicted"]["why"] and found["learnt_from"]["n"] == 40


def test_nothing_is_said_of_other_images(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for i in range(12):
        shade = Image.new("RGB", (60, 60), (20 * i, 255 - 20 * i, 90))
        shade.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / "other" / f"{i}.png")
    m = evaluate(classifier, tmp_path / "other")["predicted"]
    assert not m["supported"] and m["accuracy"] is None and m["accuracy_ci95"] is None
    assert m["unlike"] > 0.5 and "unlike" in m["why"] and m["farther"] > 0.1


def test_the_groups_and_the_test_split_of_a_table(classifier: Classifier, flat: Path) -> None:
    lines = [f"{p.name},{p.name.split('-')[0]},test" for p in sorted(flat.glob("*.png"))]
    lines[0] = lines[0].replace("test", "train")
    m = evaluate(classifier, table(flat, ["path,group,split", *lines]))["predicted"]
    assert (m["n"], m["groups"]) == (29, 3)


# What is refused


def test_a_run_that_learnt_no_relation(trained: Path, flat: Path, warm_cache: Path) -> None:
    """Of 72 judged images, or of an older version."""
    with refused(ArtefactError, "classifier", "100", "train a probe", "path,label"):
        evaluate(Classifier.load(trained), flat)


def test_a_damaged_relation(run: Path, flat: Path, tmp_path: Path, warm_cache: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "classifier" / "novelty.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with refused(ArtefactError, "novelty.safetensors", "damaged"):
        Classifier.load(tmp_path / "run")
    card = json.loads((file.parent / "card.json").read_text())
    card["files"][file.name] = sha256(file)
    (file.parent / "card.json").write_text(json.dumps(card))
    with refused(ArtefactError, "novelty.safetensors", "damaged"):
        evaluate(Classifier.load(tmp_path / "run"), flat)


def test_test_time_augmentation_does_not_apply(classifier: Classifier, flat: Path) -> None:
    with refused(UsageError, "tta", "mirror", "without labels"):
        evaluate(classifier, flat, tta="mirror")


def test_several_labels_an_image(
    warm_cache: Path, draw_folder: Draw, flat: Path, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "p", 6)
    lines = [
        f"p/{kind}/{file.name},{kind}{'|odd' if i % 2 else ''}"
        for kind in KINDS
        for i, file in enumerate(sorted((tmp_path / "p" / kind).iterdir()))
    ]
    classifier = train(
        table(tmp_path, ["path,label", *lines]), task="multilabel", out=tmp_path / "r"
    )
    with refused(UsageError, "any number of labels"):
        evaluate(classifier, flat)


def test_a_network_without_a_linear_head(
    warm_cache: Path, images: Path, flat: Path, tmp_path: Path
) -> None:
    classifier = train(images, recipe="scratch", model="lenet5", epochs=1, out=tmp_path / "r")
    with refused(UsageError, "scratch", "probe"):
        evaluate(classifier, flat)


# The command line


def test_the_command(run: Path, flat: Path, warm_cache: Path) -> None:
    done = foveate("evaluate", run, flat)
    assert done.returncode == 0, done.stderr
    assert not absent(
        done.stdout, "expected", "accuracy", "95 %", "30 images", "training images"
    ), done.stdout
    printed = json.loads(foveate("evaluate", run, flat, "--json").stdout)
    assert printed["run"] == str(run) and printed["predicted"]["supported"]
    assert set(printed["predicted"]) == set(
        "accuracy accuracy_ci95 n groups supported why unlike farther answers".split()
    )


def test_the_command_says_what_else_it_takes(run: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "test" / "blob", tmp_path / "shots" / "day 1")
    shutil.copytree(images / "test" / "noise", tmp_path / "shots" / "day 2")
    done = foveate("evaluate", run, tmp_path / "shots")
    assert done.returncode == 4
    assert not absent(" ".join(done.stderr.split()), "'day 1'", "without labels", "path")
