"""Explanations of classifiers: by label, by method, of several views, drawn, and refused."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exportable import CLASSES, odd_files, probe_of_views, small_classifier
from PIL import Image
from refusals import refused

from foveate.classifier import Classifier
from foveate.classifier.embedding import head_of
from foveate.data.preprocess import View
from foveate.engine import openvino
from foveate.errors import ArtefactError, ImageError, UsageError
from foveate.explanation import Explainer, Explanation, explain, placed
from foveate.explanation.drawing import draw
from foveate.explanation.exact import pooled
from foveate.explanation.maps import map_source
from foveate.explanation.masking import logits_of
from foveate.explanation.methods import METHODS

OLDEST = Path(__file__).parent.parent / "classifier" / "format_1"


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return probe_of_views(tmp_path_factory.mktemp("views"), graph=False)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A whole network of several labels an image, whose logits are divided by a temperature."""
    folder = tmp_path_factory.mktemp("labels")
    return small_classifier(
        folder, "resnet20", thresholds=(0.5, 0.5, 0.5), graph=False, temperature=2.0
    )


def pixels(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_class_is_the_most_probable_unless_it_is_named(views: Classifier) -> None:
    explainer = Explainer(views)
    p = views.predict_proba(pixels())[0]
    found = explainer.compare(pixels(), 3, check=False)
    assert [one.label for one in found] == [CLASSES[i] for i in np.argsort(-p)]
    assert [one.probability for one in found] == pytest.approx(sorted(p, reverse=True))
    one = explainer.explain(pixels(), CLASSES[2], check=False)
    assert (one.label, one.predicted) == (CLASSES[2], found[0].label)
    assert one.probability == pytest.approx(p[2])


def test_each_view_has_a_map_and_the_image_has_their_sum(views: Classifier) -> None:
    one = explain(views, pixels())
    assert one.method == "exact"
    assert [view.shape for view in one.views] == [(8, 8), (8, 8)]
    assert one.total == pytest.approx(sum(float(view.sum()) for view in one.views), abs=1e-4)
    assert one.image.shape == one.pixels.shape[:2] == (40, 60)
    assert set(one.checks) == {"deletion", "insertion", "randomisation"}
    assert one.trusted == (one.why == "")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("auto", "exact")])
def test_every_method_explains_a_label(labels: Classifier, method: str) -> None:
    """In units of the calibrated logit."""
    one = explain(labels, pixels(), CLASSES[1], method=method)
    assert one.method == method
    assert all(bool(np.isfinite(view).all()) and view.any() for view in one.views)
    assert one.probability == pytest.approx(labels.predict_proba(pixels())[0, 1])
    assert set(one.checks["randomisation"]) == {"the head", "the last stage"}
    if method == "gradients":  # what the logit gains is what all pixels add
        grey = np.full((40, 60, 3), np.round(255 * np.array(labels.preprocess.mean)), np.uint8)
        p = labels.predict_proba(np.stack([pixels(), grey]))[:, 1]
        logits = np.log(p / (1 - p))
        assert one.total == pytest.approx(logits[0] - logits[1], abs=0.05)


def test_a_whole_network_has_grad_cam(labels: Classifier) -> None:
    assert Explainer(labels).method.name == "gradcam"
    with refused(UsageError, "exact", "scratch", "gradcam"):
        Explainer(labels, "exact")
    with refused(UsageError, "'cam'", "gradcam", "occlusion"):
        Explainer(labels, "cam")


def test_of_a_fine_tuned_probe_the_last_stage_is_made_random_too(tmp_path: Path) -> None:
    classifier = probe_of_views(tmp_path, graph=False)
    assert set(explain(classifier, pixels()).checks["randomisation"]) == {"the head"}
    classifier.card |= {"recipe": "finetune"}
    one = explain(classifier, pixels())
    assert one.method == "exact"
    assert set(one.checks["randomisation"]) == {"the head", "the last stage"}


def test_what_was_not_checked_is_not_trusted(views: Classifier) -> None:
    one = explain(views, pixels(), check=False)
    assert not one.trusted and "not checked" in one.why and one.checks == {}


def test_a_probe_of_the_first_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph is enough, with the first pooling and mirror images; its code was not saved."""
    monkeypatch.setattr(openvino, "precision", lambda: "f32")
    classifier = Classifier.load(OLDEST)
    squares = classifier.preprocess.squares(Image.fromarray(pixels()))
    [seen] = map_source(classifier).of(squares)
    features = np.mean([pooled(maps, 1) for maps in seen], axis=0)
    head = head_of(classifier)
    [logits] = logits_of(classifier, [squares])
    np.testing.assert_allclose(head.weight @ features + head.bias, logits, atol=2e-3)

    assert explain(classifier, pixels(), check=False).views[0].any()
    with refused(UsageError, "Small"):
        explain(classifier, pixels(), method="gradcam")


@pytest.mark.parametrize("label", ["bird", "", "Cat"])
def test_a_class_that_is_none(views: Classifier, label: str) -> None:
    with refused(UsageError, f"'{label}'", "cat"):
        explain(views, pixels(), label)


def test_what_is_no_image(views: Classifier, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    with refused(ImageError, "bad.jpg"):
        explain(views, bad)
    with refused(ImageError, "none.jpg"):
        explain(views, tmp_path / "none.jpg")
    with refused(UsageError, "one image"):
        explain(views, [pixels()])
    with refused(UsageError, "int"):
        explain(views, 3)


def test_a_damaged_classifier(tmp_path: Path) -> None:
    classifier = probe_of_views(tmp_path, graph=False)
    tensors = classifier.folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with refused(ArtefactError, "model.safetensors"):
        explain(classifier, pixels())


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "PIL"])
def test_an_image_may_be_given_in_any_way(views: Classifier, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pixels()).save(path)
    expected = explain(views, pixels(), check=False)
    with path.open("rb") as file, Image.open(path) as image:
        given = {"path": str(path), "bytes": path.read_bytes(), "file": file, "PIL": image}[kind]
        found = explain(views, given, check=False)
    np.testing.assert_array_equal(found.image, expected.image)


def test_a_grey_image(views: Classifier) -> None:
    assert explain(views, pixels()[:, :, 0], check=False).pixels.shape == (40, 60, 3)


def test_files_of_odd_shapes(views: Classifier, tmp_path: Path) -> None:
    explainer, folder = Explainer(views), odd_files(tmp_path / "odd")
    shapes = {}
    for name in ("turned-6.jpg", "wide.webp", "high.bmp", "small.png", "large.jpg"):
        one = explainer.explain(folder / name, check=False)
        assert one.image.shape == one.pixels.shape[:2] and np.isfinite(one.image).all(), name
        shapes[name] = one.image.shape
    assert shapes["turned-6.jpg"][0] > shapes["turned-6.jpg"][1]  # upright
    assert (shapes["wide.webp"], shapes["small.png"]) == ((100, 640), (18, 20))
    assert max(shapes["large.jpg"]) <= 640


def test_maps_lie_where_the_views_see() -> None:
    """On an image of 100 x 60, of which the square in the middle is seen; and its centre half."""
    ones = np.ones((3, 3), np.float32)
    found = placed([ones, ones], [View(32, 32), View(64, 32)], (100, 60))
    assert found.shape == (60, 100)
    assert found[30, 50] == 2 and found[5, 30] == 1 and found[30, 5] == 0
    padded = np.zeros((4, 4), np.float32)
    padded[1:3] = 1  # the image lies in the middle rows
    found = placed([padded], [View(32, 32, fit="pad")], (100, 50))
    assert found[25, 50] == pytest.approx(1) and found.min() > 0.4
    squashed = placed([ones], [View(32, 32, fit="squash")], (100, 60))
    assert (squashed == 1).all()


def test_the_drawing_marks_what_is_not_to_be_trusted(views: Classifier) -> None:
    one = explain(views, pixels(200, 300), check=False)
    checked = {"checks": {"deletion": {}}, "trusted": False, "why": "it finds nothing"}
    alarm = replace(one, **checked, label="猫 <b>\x1b[31m")
    trusted = replace(one, checks={"deletion": {}}, trusted=True, why="")

    def red(explanation: Explanation) -> int:
        return int((np.asarray(draw([explanation])) == (176, 0, 0)).all(axis=2).sum())

    assert red(alarm) > 500 and red(trusted) == red(one) == 0
    assert draw([one, trusted]).width > draw([one]).width


def test_as_json(views: Classifier) -> None:
    found = json.loads(json.dumps(explain(views, pixels()).to_dict()))
    assert found["views"][0]["shape"] == [8, 8]
    assert np.shape(found["views"][1]["values"]) == (8, 8)
    assert isinstance(found["trusted"], bool) and found["baseline"]


def test_the_refused_are_explained_by_their_most_probable_class(tmp_path: Path) -> None:
    classifier = probe_of_views(tmp_path, graph=False)
    seen = []

    def scores(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        seen.append((features.shape, logits.shape))
        return np.full((3, 1), 9.0)

    vars(classifier)["rejection"] = SimpleNamespace(
        scores=scores, reasons=lambda strange: ["foreign"]
    )
    one, answer = explain(classifier, pixels(), check=False), classifier.predict(pixels())
    width = head_of(classifier).weight.shape[1]
    assert seen == [((1, width), (1, 3))] * 2
    assert one.predicted == answer.label == "none of these"
    assert one.label == answer.top[0][0]
