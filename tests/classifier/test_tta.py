"""Test-time augmentation: the views, and the average of their probabilities."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from foveate import Classifier, UsageError, evaluate
from foveate.classifier.tta import Samples
from foveate.data.preprocess import Preprocess

PREPROCESS = Preprocess(14, 14, stretch=1.12)
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def test_samples() -> None:
    plain, mirror, ten = (Samples(kind, PREPROCESS) for kind in ("none", "mirror", "ten"))
    small = PIXELS[:14, :14]
    assert np.array_equal(plain.of((small,)), [(small,)])
    assert np.array_equal(mirror.of((small,)), [(small,), (small[:, ::-1],)])
    assert (plain.preprocess, mirror.preprocess) == (PREPROCESS, PREPROCESS)
    assert ten.preprocess.crop == 16 and ten.preprocess.stretch == 1.12  # 256 for 224
    samples = [pixels for (pixels,) in ten.of((PIXELS,))]
    assert [pixels.shape for pixels in samples] == [(14, 14, 3)] * 10
    assert np.array_equal(samples[0], PIXELS[:14, :14])
    assert np.array_equal(samples[3], PIXELS[2:, 2:])
    assert np.array_equal(samples[4], PIXELS[1:15, 1:15])
    assert all(np.array_equal(samples[5 + i], samples[i][:, ::-1]) for i in range(5))


def test_samples_of_two_views_are_taken_at_the_same_place() -> None:
    ten = Samples("ten", PREPROCESS.framed("whole+2/3"))
    whole, centre = ten.preprocess.views
    assert (whole.resize, whole.crop, centre.resize, centre.crop) == (16, 16, 24, 16)
    samples = ten.of((PIXELS, PIXELS[::-1]))
    assert len(samples) == 10
    for first, second in samples:
        assert first.shape == second.shape == (14, 14, 3)
    assert np.array_equal(samples[1][1], PIXELS[::-1][:14, 2:])


def test_probabilities_are_averaged(trained: Path, images: Path) -> None:
    clf = Classifier.load(trained)
    folder = images / "test" / "blob"
    files = sorted(folder.iterdir())[:3]
    plain = [dict(p.top) for p in clf.predict(files, top=3)]
    mirrored = [Image.open(f).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for f in files]
    other = [dict(p.top) for p in clf.predict(mirrored, top=3)]
    both = [dict(p.top) for p in clf.predict(files, top=3, tta="mirror")]
    for a, b, mean in zip(plain, other, both, strict=True):
        for label, probability in mean.items():
            assert probability == pytest.approx((a[label] + b[label]) / 2, abs=0.02)
            assert min(a[label], b[label]) - 0.02 <= probability


def test_unreadable_images_keep_their_place(trained: Path, images: Path) -> None:
    clf = Classifier.load(trained)
    good = (images / "test" / "blob" / "100.jpg").read_bytes()
    sources = [b"none", good, b"none", good, good, b"none"]
    for tta in ("none", "mirror", "ten"):
        errors = [bool(p.error) for p in clf.predict(sources, tta=tta)]
        assert errors == [True, False, True, False, False, True]
    assert clf.predict(sources[1], tta="ten").probability < 1


def test_evaluate(trained: Path, images: Path) -> None:
    clf = Classifier.load(trained)
    plain, ten = evaluate(clf, images), evaluate(clf, images, tta="ten")
    assert ten["n"] == plain["n"] and ten["log_loss"] != plain["log_loss"]


def test_what_is_refused(trained: Path, images: Path) -> None:
    clf = Classifier.load(trained)
    with refused(UsageError, "'all'", "none", "mirror", "ten"):
        clf.predict(images / "test", tta="all")  # type: ignore[arg-type]
    clf.card = clf.card | {"mirror": True}
    with refused(UsageError, "mirror"):
        clf.predict(images / "test", tta="mirror")
