"""What would help: the gain of more images is that of a known law, several gains are drawn towards
nothing, and the command says it of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from refusals import absent, refused

from foveate import train
from foveate.advice import Suggestion, advise, by_class, verdict_of
from foveate.advice.curve import (
    LEAST,
    RESAMPLES,
    Curve,
    answers,
    extrapolated,
    halved,
    learn_curve,
)
from foveate.advice.gain import Gain, shrunk
from foveate.advice.trials import gain_of
from foveate.data.layouts import load_dataset
from foveate.data.splits import judging_folds
from foveate.errors import ArtefactError, DataError, UsageError
from foveate.heads import fit_head
from foveate.training.honest import Judging

RNG = np.random.default_rng
CLASSES, WIDTH = 5, 60


def drawn(n: int, seed: int, group: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and groups: classes around centres, images of a group around a place of
    their own."""
    rng = RNG(seed)
    centres = RNG(1).normal(0, 0.3, (CLASSES, WIDTH))
    groups = np.arange(n) // group
    labels = (rng.permutation(groups.max() + 1) % CLASSES)[groups]
    place = rng.normal(0, 0.9, (groups.max() + 1, WIDTH))[groups] if group > 1 else 0
    features = centres[labels] + place + rng.normal(0, 1, (n, WIDTH))
    return features.astype(np.float32), labels, groups


def curve_of(n: int, seed: int, group: int = 1) -> tuple[Curve, Any]:
    features, labels, groups = drawn(n, seed, group)
    folds = judging_folds(labels, groups, 0)
    head = fit_head(features, labels, folds, CLASSES)
    judging = Judging(np.arange(n), groups, folds, folds)
    curve = learn_curve(features, labels, judging, head, CLASSES)
    assert curve is not None
    return curve, head


def error_of(n: int, seed: int) -> float:
    features, labels, groups = drawn(n, seed)
    head = fit_head(features, labels, judging_folds(labels, groups, 0), CLASSES)
    others, truth, _ = drawn(4000, 99)
    return float((answers(head, others) != truth).mean())


def test_the_gain_of_twice_the_images_is_about_the_one_they_bring() -> None:
    expected = [curve_of(300, seed)[0].gain() for seed in range(3)]
    realised = [error_of(300, seed) - error_of(600, seed + 100) for seed in range(3)]
    assert np.mean([g.mean for g in expected]) == pytest.approx(np.mean(realised), abs=0.02)
    held = [g.interval[0] < r < g.interval[1] for g, r in zip(expected, realised, strict=True)]
    assert sum(held) >= 2
    assert np.mean(realised) > 0.02  # there is something to be found


def test_a_curve_falls_and_its_errors_are_those_of_heads() -> None:
    curve, head = curve_of(300, 0)
    means = curve.errors.mean(axis=1)
    assert means[0] > means[1] > means[2] and curve.sizes.tolist() == [75, 150, 240]
    _, labels, _ = drawn(300, 0)
    np.testing.assert_array_equal(curve.errors[-1], head.out_of_fold.argmax(axis=1) != labels)
    assert curve.within is None
    assert len(curve.resampled(lambda means: means[0])) == RESAMPLES + 1
    fallen = curve.fallen(CLASSES)
    assert fallen.sum() == pytest.approx((curve.errors[0] - curve.errors[-1]).sum())
    shares = by_class(curve, "abcde")
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_more_of_the_same_occasions_is_another_question() -> None:
    curve, _ = curve_of(400, 0, group=8)
    assert curve.within is not None and curve.within.mean < curve.gain().mean


def test_too_few_to_learn_from_parts() -> None:
    n = LEAST - 1
    features, labels, groups = drawn(n, 0)
    folds = judging_folds(labels, groups, 0)
    judging = Judging(np.arange(n), groups, folds, folds)
    head = fit_head(features, labels, folds, CLASSES)
    assert learn_curve(features, labels, judging, head, CLASSES) is None


def test_a_power_law_is_continued() -> None:
    sizes = np.array([100.0, 200.0, 400.0])
    errors = 0.05 + 20 / sizes  # half of the last ones stay
    truth = 20 / 500 - 20 / 1000
    assert extrapolated(sizes, errors, 500) == pytest.approx(truth)
    assert extrapolated(sizes, errors[::-1].copy(), 500) == pytest.approx(0)  # errors do not rise
    assert extrapolated(sizes, np.array([0.1, 0.01, 0.0]), 500) == 0


def test_half_of_each_group() -> None:
    groups = RNG(0).integers(0, 20, 300)
    kept = halved(groups)
    for group in range(20):
        assert kept[groups == group].sum() == (np.count_nonzero(groups == group) + 1) // 2


def test_gains_that_are_noise_are_drawn_to_nothing() -> None:
    rng = RNG(0)
    noise = [Gain(float(rng.normal(0, 0.01)), 0.01) for _ in range(8)]
    best = max(range(8), key=lambda i: noise[i].mean)
    found = shrunk(noise)
    assert found[best].mean < 0.6 * noise[best].mean
    assert all(g.interval[0] < 0 for g in found)
    sure = shrunk([*noise, Gain(0.06, 0.004)])[-1]
    assert sure.mean == pytest.approx(0.06, abs=0.006) and sure.interval[0] > 0.04
    assert shrunk([]) == []


def test_ninety_five_per_cent_to_a_standard_error() -> None:
    gain = Gain.of_95(0.01, (-0.0096, 0.0296))
    assert gain is not None and gain.error == pytest.approx(0.01)
    assert Gain.of_95(0.01, None) is None


def test_the_part_of_a_log_loss() -> None:
    rng = RNG(0)
    before = rng.exponential(1, 500)
    gain = gain_of(before, 0.8 * before, np.arange(500), 0.1)
    assert gain.mean == pytest.approx(0.02)
    nothing = gain_of(before, before[rng.permutation(500)], np.arange(500), 0.1)
    assert nothing.mean == pytest.approx(0, abs=1e-9) and nothing.interval[0] < 0


def suggestion(name: str, gain: float, low: float) -> Suggestion:
    return Suggestion(name, "words", gain, (low, gain + 0.01), None, "command", {})


def test_the_verdict() -> None:
    better, worse = suggestion("more images", 0.02, 0.01), suggestion("framing 2/3", 0.03, -0.01)
    assert verdict_of([worse, better], 0.1).startswith("more images would help most: +2.0 points")
    assert "nothing here helps measurably" in verdict_of([worse], 0.1)
    assert "nothing here helps measurably" in verdict_of([suggestion("x", 0.001, 0.0005)], 0.1)
    assert verdict_of([better], 0.0).startswith("stop")


# A run


@pytest.fixture
def known(trained: Path, backbone_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's features are in the cache."""
    monkeypatch.setenv("FOVEATE_CACHE", str(backbone_cache))


@pytest.mark.slow
def test_of_a_run_and_its_images(trained: Path, images: Path, known: None) -> None:
    found = advise(trained, load_dataset(images))
    assert found.verdict and found.images == 72 and not found.not_tried
    names = [one.name for one in found.suggestions]
    assert {"more images", "framing 2/3", "backbone efficientnet_lite2", "fine-tune"} <= set(names)
    assert names[-1] == "fine-tune" and found.suggestions[-1].gain is None
    gains = [one.gain for one in found.suggestions[:-1]]
    assert gains == sorted(gains, reverse=True)
    again = advise(trained)
    assert "framings and backbones" in again.not_tried
    with refused(DataError, "96", "trained on"):
        advise(trained, load_dataset("digits"))


def test_the_command(trained: Path, known: None) -> None:
    done = foveate("advise", trained, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"accuracy", "images", "verdict", "suggestions", "not_tried"} == set(found)
    done = foveate("advise", trained)
    assert not absent(done.stdout, "72", "more images", "fine-tune", "not measured", "not tried")


def test_what_cannot_be_advised(trained: Path, tmp_path: Path, warm_cache: Path) -> None:
    with refused(ArtefactError, "nowhere"):
        advise(tmp_path / "nowhere")
    scratch = train("digits", "lenet5", recipe="scratch", epochs=1, out=tmp_path / "scratch").run
    with refused(UsageError, "probe"):
        advise(scratch)
    assert foveate("advise", scratch).returncode == 2


def test_features_that_are_gone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "empty"))
    with refused(ArtefactError, "cache", "foveate train"):
        advise(trained)
