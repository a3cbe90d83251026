"""What may be asked of an evaluation: of a class, costs, another run; and what stays of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

from foveate.classifier import Classifier
from foveate.cli.evaluate import asked_lines, more_lines
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.evaluation import decided, evaluate, fix_point, forget_point
from foveate.evaluation.answers import judged_by_run
from foveate.runs import read_json


@pytest.fixture
def classifier(trained: Path, tmp_path: Path) -> Classifier:
    """Of a run that may be changed."""
    return Classifier.load(shutil.copytree(trained, tmp_path / "run"))


def test_what_the_run_held_back_is_measured_without_its_images(classifier: Classifier) -> None:
    found, written = evaluate(classifier), read_json(classifier.run / "metrics.json")
    assert found["split"] == "test" and found["data"] is None and found["n"] == 24
    assert found["confusion"] == written["test"]["confusion"]
    for key in ("accuracy", "ece", "macro_f1"):
        assert found[key] == pytest.approx(written["test"][key], abs=1e-6), key
    assert found["macro_f1_ci95"][0] <= found["macro_f1"] <= found["macro_f1_ci95"][1]
    assert sum(one["n"] for one in found["reliability"]) == 24
    assert found["risk_coverage"][0]["accuracy"] == pytest.approx(found["accuracy"])
    assert any("surest" in line for line in more_lines(found))
    split, honest = judged_by_run(classifier, ("out_of_fold",)) or ("", None)
    assert split == "out_of_fold" and honest is not None and len(honest) == 72
    right = honest.right(classifier.decision).mean()
    assert right == pytest.approx(written["out_of_fold"]["accuracy"], abs=0.05)


def test_a_threshold_is_fixed_saved_and_kept_to(
    classifier: Classifier, images: Path, warm_cache: Path
) -> None:
    before = classifier.predict(images / "test", top=3)
    pointed = fix_point(classifier, "noise", recall=0.9)
    point = pointed.card["operating_point"]
    assert point["positive"] == "noise" and point["split"] == "out_of_fold"
    assert point["measured"]["positives"] == 24 and point["on_test"]["positives"] == 8
    assert read_json(pointed.run / "metrics.json")["operating_point"] == point
    assert "'noise' from a probability" in (pointed.folder / "README.md").read_text()
    for old, new in zip(before, pointed.predict(images / "test", top=3), strict=True):
        p = dict(new.top)
        assert dict(old.top) == p
        flagged = p["noise"] >= point["threshold"]
        others = max((c for c in p if c != "noise"), key=lambda c: p[c])
        assert new.label == ("noise" if flagged else others)
        assert new.labels == (new.label,) and new.probability == p[new.label]
    found = evaluate(pointed, images, positive="noise", recall=0.9)
    on_these = found["operating_point"]["on_these"]
    assert on_these["recall"] == found["per_class"]["noise"]["recall"]
    assert on_these["given"] == sum(row[1] for row in found["confusion"])
    assert any("takes it back" in line for line in asked_lines(found, pointed.run))
    unsaved = evaluate(Classifier.load(pointed.run), images, positive="noise", recall=0.5)
    assert unsaved["operating_point"]["threshold"] > point["threshold"]
    assert Classifier.load(pointed.run).card["operating_point"] == point
    plain = forget_point(pointed)
    assert "operating_point" not in plain.card
    assert "operating_point" not in read_json(plain.run / "metrics.json")
    assert plain.predict(images / "test", top=3) == before


def test_an_answer_that_is_not_the_most_probable_is_printed(
    classifier: Classifier, images: Path, warm_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate.cli.answers import Printed

    low = decided(classifier, {"positive": "noise", "threshold": 0.001})
    other = next(
        p
        for p in low.predict(images / "test" / "blob")
        if p.label == "noise" and p.top[0][0] != "noise" and p.top[0][1] > 0.5
    )
    assert not other.unsure and other.probability == dict(other.top)["noise"]
    Printed(3, several=False, as_json=False, at_once=False).take(other)
    assert "  noise; most probable:" in capsys.readouterr().out


def test_a_threshold_is_said_where_nothing_is_new(
    classifier: Classifier, images: Path, warm_cache: Path
) -> None:
    found = evaluate(classifier, images / "train", positive="noise", recall=0.9)
    assert found["new"] is None and found["operating_point"]["positive"] == "noise"
    assert any("recall of 90 %" in line for line in asked_lines(found, classifier.run))


def test_a_class_is_ranked(classifier: Classifier) -> None:
    found = evaluate(classifier, positive="stripes")["ranking"]
    assert found["positive"] == "stripes" and found["positives"] == 8
    assert 0.5 < found["auroc_ci95"][0] <= found["auroc"] <= 1


def test_costs_change_answers(classifier: Classifier, tmp_path: Path) -> None:
    table = tmp_path / "costs.csv"
    table.write_text("true,blob,noise,stripes\nblob,0,50,50\nnoise,1,0,1\nstripes,1,1,0\n")
    found = evaluate(classifier, cost=table)["costs"]
    assert found["changed"] > 0
    # a blob is so dear to miss that it is answered wherever it is possible
    assert sum(row[0] for row in found["confusion"]) > 8


def test_another_run_on_the_same_images(
    classifier: Classifier, images: Path, tmp_path: Path, warm_cache: Path
) -> None:
    other = Classifier.load(shutil.copytree(classifier.run, tmp_path / "other"))
    found = evaluate(classifier, images, against=other)["against"]
    assert found["run"] == "other" and found["verdict"] == "not distinguishable"
    assert found["n"] == 24 and found["difference"] == 0 and found["needed"] is None
    assert any("there is none" in line for line in asked_lines({"against": found}, tmp_path))
    with refused(DataError, "learnt from each"):
        evaluate(classifier, images / "train", against=other)
    narrow = json.loads((other.folder / "card.json").read_text())
    narrow["classes"] = ["blob", "noise", "waves"]
    (other.folder / "card.json").write_text(json.dumps(narrow))
    with refused(DataError, "'stripes'", "'waves'"):
        evaluate(classifier, images, against=Classifier.load(other.run))


def test_columns_of_a_table_are_slices(
    classifier: Classifier, images: Path, tmp_path: Path, warm_cache: Path
) -> None:
    lines = ["path,label,camera,Note"]
    for kind in classifier.classes:
        for i, file in enumerate(sorted((images / "test" / kind).iterdir())):
            lines.append(f"{file},{kind},{'old' if i % 2 else 'new'},n{len(lines)}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    found = evaluate(classifier, table)["slices"]
    by = {one["by"] for one in found}
    assert "camera" in by and "Note" not in by
    camera = [one for one in found if one["by"] == "camera"]
    assert {one["value"]: one["n"] for one in camera} == {"old": 12, "new": 12}
    whole = evaluate(classifier, table)["accuracy"]
    assert np.mean([one["accuracy"] for one in camera]) == pytest.approx(whole)
    assert not any(one["differs"] for one in found)


def test_what_a_run_no_longer_has(classifier: Classifier, images: Path) -> None:
    (classifier.run / "probabilities.safetensors").unlink()
    for ask in (
        lambda: evaluate(classifier),
        lambda: fix_point(classifier, "noise", recall=0.9),
    ):
        with refused(ArtefactError, "probabilities.safetensors", "train again"):
            ask()


def test_damaged_probabilities(classifier: Classifier) -> None:
    path = classifier.run / "probabilities.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with refused(ArtefactError, "probabilities.safetensors", "damaged"):
        evaluate(classifier)


def test_what_cannot_be_asked(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    with refused(UsageError, "'bird'"):
        evaluate(classifier, positive="bird")
    with refused(UsageError, "recall", "positive"):
        evaluate(classifier, recall=0.9)
    with refused(UsageError, "recall", "precision"):
        fix_point(classifier, "noise")
    with refused(UsageError, "tta", "name the data"):
        evaluate(classifier, tta="mirror")
    with refused(UsageError, "groups", "name the data"):
        evaluate(classifier, groups="none")
    with refused(UsageError, "against", "name the data"):
        evaluate(classifier, against=classifier)
    with refused(UsageError, "Classifier", "str"):
        text: Any = "run"
        evaluate(classifier, images, against=text)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (images / "test" / "noise").iterdir():
        shutil.copy(file, flat)
    with refused(UsageError, "positive", "labels"):
        evaluate(classifier, flat, positive="noise")
