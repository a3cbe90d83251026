"""When to answer none of these, on features whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load, save
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from foveate import distance, rejection
from foveate.data.splits import judging_folds
from foveate.distance import Hashing, Moments
from foveate.heads import Head, fit_head
from foveate.rejection import (
    DIMENSIONS,
    FEWEST,
    FOREIGN,
    MEASURES,
    SHRINK,
    UNKNOWN,
    Fitted,
    Pair,
    Rejection,
    Scale,
    area_under_roc,
    energy,
    fit_rejection,
    fit_to_held_out,
    normal_places,
    share_of_kinds,
    thresholds_of,
)

RNG = np.random.default_rng
CLASSES, WIDTH = 6, 40
RATE = 0.05
NAMES = "known|thresholds|means|factors|buckets|shift|root|between"
Drawn = tuple[np.ndarray, np.ndarray]


def drawn(n: int, seed: int, classes: int = CLASSES) -> Drawn:
    """Classes around centres of their own, in a world whose axes differ in spread."""
    rng, fixed = RNG(seed), RNG(99)
    spread = np.geomspace(3, 0.3, WIDTH)
    centres = fixed.normal(0, 0.45, (CLASSES + 1, WIDTH)) * spread
    labels = rng.permutation(np.arange(n) % classes)
    features = centres[labels] + rng.normal(0, 1, (n, WIDTH)) * spread
    return features.astype(np.float32), labels


def strangers(n: int, seed: int) -> np.ndarray:
    """Images of a kind that was never taught: of the centre that no class has."""
    features, labels = drawn(n * (CLASSES + 1), seed, CLASSES + 1)
    return features[labels == CLASSES][:n]


def foreigners(n: int, seed: int) -> np.ndarray:
    """Images of another world: spread where the others hardly are."""
    return RNG(seed).normal(0, 6, (n, WIDTH)).astype(np.float32)


def learnt(
    n: int = 900, classes: int = CLASSES, rate: float = RATE, threads: int = 1, group: int = 1
) -> tuple[Head, Fitted | None]:
    features, labels = drawn(n, 0, classes)
    folds = judging_folds(labels, np.arange(n) // group, 0)
    head = fit_head(features, labels, folds, classes)
    rows = np.arange(n)
    args = features, rows, labels, folds, head.out_of_fold, head.penalty, rate, classes
    return head, fit_rejection(*args, seed=0, threads=threads)


@pytest.fixture(scope="module")
def known() -> tuple[Head, Fitted]:
    head, fitted = learnt()
    assert fitted is not None
    return head, fitted


def reasons(head: Head, found: Rejection, features: np.ndarray) -> list[str | None]:
    return found.refused(features, features @ head.weight.T + head.bias)


def share(found: list[str | None]) -> float:
    return float(np.mean([reason is not None for reason in found]))


def test_images_of_the_classes_are_accepted_as_often_as_was_asked(
    known: tuple[Head, Fitted],
) -> None:
    head, fitted = known
    assert fitted.refused.shape == (900,)
    assert fitted.refused.mean() == pytest.approx(RATE, abs=0.02)
    new = reasons(head, fitted.rejection, drawn(2000, 1)[0])
    assert share(new) == pytest.approx(RATE, abs=0.02)


def test_another_world_is_foreign(known: tuple[Head, Fitted]) -> None:
    head, fitted = known
    assert set(reasons(head, fitted.rejection, foreigners(200, 2))) == {FOREIGN}


def test_a_kind_that_was_never_taught_is_refused_about_as_often_as_those_left_out(
    known: tuple[Head, Fitted],
) -> None:
    head, fitted = known
    found = reasons(head, fitted.rejection, strangers(300, 3))
    assert UNKNOWN in found and share(found) > 3 * RATE
    shares = np.array([kind.refused.mean() for kind in fitted.kinds])
    assert [kind.label for kind in fitted.kinds] == list(range(CLASSES))
    one = share_of_kinds(shares)["a_kind_ci95"]
    assert one[0] <= share(found) <= one[1]
    assert np.mean([kind.auroc for kind in fitted.kinds]) > 0.7


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_another_rate(rate: float) -> None:
    head, fitted = learnt(rate=rate)
    assert fitted is not None
    assert share(reasons(head, fitted.rejection, drawn(3000, 1)[0])) == pytest.approx(
        rate, abs=0.4 * rate + 0.005
    )


def test_too_few_images_to_say() -> None:
    assert learnt(FEWEST - 1)[1] is None
    assert learnt(FEWEST)[1] is not None


def test_features_that_were_learnt_from_the_training_images() -> None:
    """To a network, images that it learnt from look less strange than new ones."""
    (features, labels), (held_out, others), (new, _) = drawn(900, 0), drawn(600, 1), drawn(2000, 2)
    head = fit_head(features, labels, judging_folds(labels, np.arange(900), 0), CLASSES)
    centres = np.stack([features[labels == c].mean(axis=0) for c in range(CLASSES)])
    nearer = (0.5 * features + 0.5 * centres[labels]).astype(np.float32)
    logits = held_out @ head.weight.T + head.bias
    judged = held_out, logits, judging_folds(others, np.arange(600), 0)
    fitted = fit_to_held_out((nearer, labels), judged, RATE, CLASSES)
    assert fitted is not None and fitted.kinds == ()
    assert fitted.refused.mean() == pytest.approx(RATE, abs=0.03)
    assert share(reasons(head, fitted.rejection, new)) == pytest.approx(RATE, abs=0.03)
    assert share(reasons(head, fitted.rejection, foreigners(100, 3))) > 0.95
    few = tuple(part[: FEWEST - 1] for part in judged)
    assert fit_to_held_out((nearer, labels), few, RATE, CLASSES) is None


def test_two_classes_leave_nothing_to_leave_out() -> None:
    head, fitted = learnt(300, classes=2)
    assert fitted is not None and fitted.kinds == ()
    assert share(reasons(head, fitted.rejection, foreigners(100, 2))) > 0.9
    assert share(reasons(head, fitted.rejection, drawn(600, 1, 2)[0])) < 0.1


def test_classes_of_few_images_are_not_left_out() -> None:
    features, labels = drawn(300, 0)
    keep = np.append(np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)[:3])
    features, labels = features[keep], labels[keep]
    folds = judging_folds(labels, np.arange(len(keep)), 0)
    head = fit_head(features, labels, folds, CLASSES)
    fitted = fit_rejection(
        *(features, np.arange(len(keep)), labels, folds, head.out_of_fold, head.penalty),
        *(RATE, CLASSES),
    )
    assert fitted is not None and {kind.label for kind in fitted.kinds} == {1, 2, 3, 4, 5}


def test_of_many_classes_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "KINDS", 3)
    fitted = learnt(400)[1]
    assert fitted is not None and len(fitted.kinds) == 3
    monkeypatch.setattr(rejection, "KINDS", 20)
    monkeypatch.setattr(rejection, "OUTPUTS", 1)
    fitted = learnt(400)[1]
    assert fitted is not None and len(fitted.kinds) == rejection.FEW_KINDS


def test_images_that_are_never_judged_are_learnt_from() -> None:
    features, labels = drawn(600, 0)
    folds = judging_folds(labels, np.arange(600), 0)
    folds[labels == 0] = -1
    head = fit_head(features, labels, folds, CLASSES)
    fitted = fit_rejection(
        *(features, np.arange(600), labels, folds, head.out_of_fold, head.penalty),
        *(RATE, CLASSES),
    )
    assert fitted is not None and fitted.refused.shape == (500,)
    assert share(reasons(head, fitted.rejection, features[labels == 0])) < 0.3


def test_the_result_is_the_same_for_any_number_of_threads(known: tuple[Head, Fitted]) -> None:
    fitted = learnt(threads=3)[1]
    assert fitted is not None
    for name, tensor in known[1].rejection.tensors().items():
        np.testing.assert_array_equal(tensor, fitted.rejection.tensors()[name])
    np.testing.assert_array_equal(fitted.refused, known[1].refused)


def written(found: Rejection) -> dict[str, np.ndarray]:
    return load(save({name: np.ascontiguousarray(t) for name, t in found.tensors().items()}))


def test_it_can_be_saved(known: tuple[Head, Fitted]) -> None:
    head, fitted = known
    tensors = written(fitted.rejection)
    again = Rejection.of(tensors, WIDTH, CLASSES)
    features = np.concatenate([drawn(300, 1)[0], strangers(100, 3), foreigners(50, 2)])
    assert reasons(head, again, features) == reasons(head, fitted.rejection, features)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.pop("rejection.known"),
        lambda t: t.update({"rejection.known": t["rejection.known"][:2]}),
        lambda t: t.update({"rejection.thresholds": np.array([np.nan, 1.0])}),
        lambda t: t.update({"rejection.means": t["rejection.means"][:2]}),
        lambda t: t.update({"rejection.factors": t["rejection.factors"][:3]}),
        lambda t: t.update({"rejection.buckets": t["rejection.buckets"] + 1}),
        lambda t: t.update({"rejection.buckets": np.zeros_like(t["rejection.buckets"])}),
        lambda t: t.pop("rejection.shift"),
        lambda t: t.update({"rejection.root": t["rejection.root"][:, :3]}),
        lambda t: t.update({"rejection.between": t["rejection.between"].T}),
    ],
)
def test_a_damaged_file(
    damage: Callable[[dict[str, np.ndarray]], object], known: tuple[Head, Fitted]
) -> None:
    tensors = written(known[1].rejection)
    damage(tensors)
    with pytest.raises(ValueError, match=NAMES):
        Rejection.of(tensors, WIDTH, CLASSES)


def test_one_image_is_measured_as_among_others(known: tuple[Head, Fitted]) -> None:
    """Alone it takes another way, without BLAS."""
    head, fitted = known
    features = np.concatenate([drawn(40, 1)[0], strangers(20, 3), foreigners(5, 2)])
    alone = [reasons(head, fitted.rejection, features[i : i + 1])[0] for i in range(65)]
    assert alone == reasons(head, fitted.rejection, features)


def pair_of(features: np.ndarray, labels: np.ndarray) -> Pair:
    return Pair.fit(Moments.of(features, labels, CLASSES))


def test_distances_are_mahalanobis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "SHRINK", 0.0)
    features, labels = drawn(600, 0)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(CLASSES)])
    within = EmpiricalCovariance(assume_centered=True).fit(features - means[labels])
    scale = (600 - CLASSES) / 600  # ours divides by the degrees of freedom
    expected = np.min([within.mahalanobis(features - mean) for mean in means], axis=0) * scale
    nearest = pair_of(features, labels).distances(features)[0]
    np.testing.assert_allclose(nearest, expected, rtol=1e-3)


def test_the_distance_to_all_is_that_to_one_gaussian() -> None:
    """Its covariance is inverted here as it stands."""
    features, labels = drawn(600, 0)
    present = labels != 2  # and a class has no image
    features, labels = features[present].astype(np.float64), labels[present]
    means = np.stack([features[labels == c].mean(axis=0) for c in np.unique(labels)])
    counts = np.bincount(labels)[np.unique(labels)]
    inside = features - means[np.searchsorted(np.unique(labels), labels)]
    within = inside.T @ inside / (len(labels) - len(means))
    within = (1 - SHRINK) * within + SHRINK * np.trace(within) / WIDTH * np.eye(WIDTH)
    apart = means - features.mean(axis=0)
    total = within + (apart.T * (counts / counts.sum())) @ apart
    off = features - features.mean(axis=0)
    to_all = (off @ np.linalg.inv(total) * off).sum(axis=1)
    to_each = [((features - m) @ np.linalg.inv(within) * (features - m)).sum(1) for m in means]
    moments = Moments.of(features.astype(np.float32), labels, CLASSES)
    nearest, excess = Pair.fit(moments).distances(features.astype(np.float32))
    np.testing.assert_allclose(nearest, np.min(to_each, axis=0), rtol=1e-3)
    np.testing.assert_allclose(excess, np.min(to_each, axis=0) - to_all, atol=0.01)


@pytest.mark.slow
def test_distances_are_those_of_pytorch_ood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose covariances are not divided by the number of images, and distances are halved."""
    detectors = pytest.importorskip("pytorch_ood.detector")
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(rejection, "SHRINK", 0.0)
    features, labels = drawn(600, 0)
    rows = torch.from_numpy(features)
    theirs = detectors.Mahalanobis(None).fit_features(rows, torch.from_numpy(labels))
    found = 2 * theirs.predict_features(rows).numpy() * (600 - CLASSES)
    np.testing.assert_allclose(pair_of(features, labels).distances(features)[0], found, rtol=2e-3)


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = RNG(0)
    high, low = rng.normal(0.7, 1, 200).round(1), rng.normal(0, 1, 300).round(1)  # with ties
    truth = roc_auc_score(np.r_[np.ones(200), np.zeros(300)], np.r_[high, low])
    assert area_under_roc(high, low) == pytest.approx(truth, abs=1e-12)


def test_energy_is_that_of_scipy() -> None:
    logits = RNG(0).normal(0, 5, (50, 7)).astype(np.float32)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1), rtol=1e-6)
    assert energy(np.array([[900.0, -900.0, 0.0]]))[0] == -900  # nothing overflows


def test_scores_are_normal_and_go_beyond_what_is_known() -> None:
    known = np.sort(RNG(0).exponential(1, (len(MEASURES), 400)), axis=1)
    z = Scale(known).scores(known)
    assert abs(z.mean()) < 0.01 and z.std() == pytest.approx(1, abs=0.03)
    beyond = Scale(known).scores(known[:, -1:] + 1)
    assert (beyond > z.max()).all() and (beyond == normal_places(400)[-1]).all()


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.05, 0.3])
def test_thresholds_spend_what_they_may(rate: float) -> None:
    known = RNG(0).normal(0, 1, (len(MEASURES), 1000))
    scale, edges = thresholds_of(known, rate)
    refused = rejection.beyond(scale.strangeness(known), edges).mean()
    assert rate - 0.002 <= refused <= rate


def test_what_is_said_of_the_kinds() -> None:
    few = share_of_kinds(np.array([0.2, 0.4, 0.6, 0.8]))
    assert few == {"share": 0.5, "share_ci95": None, "a_kind_ci95": None}
    many = share_of_kinds(np.array([0.2, 0.3, 0.4, 0.6, 0.7, 0.8]))
    low, high = many["share_ci95"]
    assert 0.2 < low < many["share"] == 0.5 < high < 0.8
    assert many["a_kind_ci95"][0] < low and many["a_kind_ci95"][1] > high
    same = share_of_kinds(np.ones(6))
    assert same["share_ci95"] == [1.0, 1.0] and same["a_kind_ci95"] == [1.0, 1.0]


def test_a_further_kind_lies_in_its_interval() -> None:
    """Of shares that differ as those of real classes do, in about 95 of 100 cases."""
    rng, held = RNG(0), 0
    for _ in range(400):
        shares = rng.beta(1.2, 2.0, 11)
        low, high = share_of_kinds(shares[:10])["a_kind_ci95"]
        held += low <= shares[10] <= high
    assert held / 400 > 0.9


def wide(n: int, width: int = 3000) -> np.ndarray:
    return (RNG(0).normal(0, 1, (n, width)) * np.geomspace(5, 0.1, width) + 3).astype(np.float32)


def test_hashing_keeps_distances() -> None:
    features = wide(200)
    hashing = Hashing.fit(features, DIMENSIONS)
    reduced = hashing.reduced(features)
    assert reduced.shape == (200, DIMENSIONS) and abs(reduced.mean()) < 1e-4
    scaled = features * np.abs(hashing.factors)
    apart = np.linalg.norm(scaled[:100] - scaled[100:], axis=1)
    found = np.linalg.norm(reduced[:100] - reduced[100:], axis=1)
    np.testing.assert_allclose(found, apart, rtol=0.2)
    assert (found / apart).mean() == pytest.approx(1, abs=0.02)


def test_hashing_adds_each_feature_to_its_sum() -> None:
    features = wide(5, 50)
    hashing = Hashing.fit(features, 8)
    expected = np.zeros((5, 8)) - hashing.shift
    for bucket, factor, column in zip(hashing.buckets, hashing.factors, features.T, strict=True):
        expected[:, bucket] += factor * column
    np.testing.assert_allclose(hashing.reduced(features), expected, atol=1e-4)


def test_few_features_keep_a_sum_each() -> None:
    features = wide(20, 8)
    hashing = Hashing.fit(features, DIMENSIONS)
    assert sorted(hashing.buckets) == list(range(8))
    found = np.linalg.norm(hashing.reduced(features), axis=1)
    scaled = (features - features.mean(axis=0)) * hashing.factors
    np.testing.assert_allclose(found, np.linalg.norm(scaled, axis=1), rtol=1e-4)


def test_a_kind_that_is_left_out_has_no_part_in_what_refuses_it() -> None:
    """The certificate of a class is what a run without it does: the benchmark on real photos
    showed that principal axes of all images promise twice as much."""
    said, found = [], []
    for seed in range(3):
        features, labels = drawn(1400, seed, CLASSES + 1)
        said.append(fitted_on(features, labels)[1].kinds[CLASSES].refused.mean())
        taught = labels < CLASSES
        head, without = fitted_on(features[taught], labels[taught])
        found.append(share(reasons(head, without.rejection, features[~taught])))
    assert np.mean(found) == pytest.approx(np.mean(said), abs=0.1)


def fitted_on(features: np.ndarray, labels: np.ndarray) -> tuple[Head, Fitted]:
    rows, classes = np.arange(len(labels)), labels.max() + 1
    folds = judging_folds(labels, rows, 0)
    head = fit_head(features, labels, folds, classes)
    args = head.out_of_fold, head.penalty, RATE, classes
    fitted = fit_rejection(features, rows, labels, folds, *args)
    assert fitted is not None
    return head, fitted


def test_the_inverse_of_a_triangular_matrix() -> None:
    lower = np.tril(RNG(0).normal(0, 1, (150, 150))) + 10 * np.eye(150)
    np.testing.assert_allclose(distance.inverse_of_lower(lower) @ lower, np.eye(150), atol=1e-12)
