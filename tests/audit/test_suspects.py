"""Labels that look wrong: found, in one line a group, and their correction measured elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from foveate.audit.groups import Grouping, Pair, connected
from foveate.audit.suspects import (
    Answers,
    doubt_labels,
    find_suspects,
    interval_over_groups,
    measure_gains,
    suggestions,
    why_none,
)
from foveate.data.dataset import Dataset
from foveate.heads import Head, fit_head

CLASSES = ("ant", "bee", "cat")
FOLDS = 5


def grouping_of(groups: np.ndarray, pairs: tuple[Pair, ...] = ()) -> Grouping:
    alone = np.arange(len(groups))
    copies = connected(len(groups), list(pairs))
    return Grouping(alone, copies, groups, groups, pairs, (), ())


def drawn(n: int, labels: np.ndarray | None = None, seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """A dataset of n images, of three classes in turn, and features that tell most apart."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % 3
    centres = rng.normal(size=(3, 12)) * 2
    features = (centres[true] + rng.normal(size=(n, 12))).astype(np.float32)
    names = tuple(f"{CLASSES[c]}/{i:04}.png" for i, c in enumerate(true))
    given = true if labels is None else labels
    dataset = Dataset(
        *("drawn", "", names, given, CLASSES, ("train",) * n, ("",) * n),
        read=lambda i: b"%d" % i,
    )
    return dataset, features


def wronged(n: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(labels, whether each was changed) of `drawn(n)`."""
    rng = np.random.default_rng(seed + 100)
    changed = rng.random(n) < share
    return np.where(changed, (np.arange(n) + rng.integers(1, 3, n)) % 3, np.arange(n) % 3), changed


def solved(
    dataset: Dataset, features: np.ndarray, groups: np.ndarray | None = None
) -> tuple[Head, np.ndarray, Answers]:
    """The head, the folds and the answers out of fold."""
    n = len(dataset)
    groups = np.arange(n) if groups is None else groups
    folds = (groups * 7919) % FOLDS
    head = fit_head(features, dataset.labels, folds, 3)
    p = np.exp(head.out_of_fold - head.out_of_fold.max(axis=1, keepdims=True), dtype=np.float64)
    p /= p.sum(axis=1, keepdims=True)
    return head, folds, Answers(np.arange(n), p, groups)


def test_wrong_labels_come_first_with_the_right_one() -> None:
    labels, changed = wronged(600, 0.06)
    dataset, features = drawn(600, labels)
    _, _, answers = solved(dataset, features)
    found = find_suspects(dataset, grouping_of(np.arange(600)), features, answers)
    rows = [suspect.rows[0] for suspect in found]
    assert changed[rows[:15]].mean() >= 0.9 and changed[rows].sum() > 0.6 * changed.sum()
    assert all(len(suspect.rows) == 1 for suspect in found)
    assert [s.ratio for s in found] == sorted((s.ratio for s in found), reverse=True)
    right = [CLASSES[row % 3] == s.suggested for row, s in zip(rows, found, strict=True)]
    assert np.mean(right) > 0.8
    first = found[0]
    assert first.label == dataset.label(rows[0]) != first.suggested
    # those that agree have the label, are no suspects, and are the nearest
    assert len(first.agree) == 3 and not {*first.agree} & {*rows}
    assert {dataset.label(row) for row in first.agree} == {first.suggested}


def test_a_group_is_one_line_and_its_label_confirmed_is_none() -> None:
    groups = np.arange(600)
    groups[[3, 6, 9, 12]] = 3  # a burst of ants, filed as bees
    labels = np.arange(600) % 3
    labels[[3, 6, 9, 12]] = 1
    dataset, features = drawn(600, labels)
    features[[3, 6, 9, 12]] = features[[0, 15, 18, 21]]
    grouping = grouping_of(groups)
    _, _, answers = solved(dataset, features, groups)
    found = find_suspects(dataset, grouping, features, answers)
    burst = [suspect for suspect in found if 3 in suspect.rows]
    assert len(burst) == 1 and {*burst[0].rows} == {3, 6, 9, 12}
    assert (burst[0].label, burst[0].suggested) == ("bee", "ant")
    confirmed = frozenset(dataset.files[row] for row in (3, 6, 9, 12))
    again = find_suspects(dataset, grouping, features, answers, confirmed)
    assert len(again) == len(found) - 1 and not any(3 in suspect.rows for suspect in again)


def test_copies_with_the_same_label_are_named_too() -> None:
    labels, _ = wronged(300, 0.0)
    labels[0] = 1
    dataset, features = drawn(301, np.append(labels, 1))  # the last is a copy of the first
    features[300] = features[0]
    photos = np.arange(301)
    photos[300] = 0
    grouping = replace(grouping_of(photos), photos=photos)
    head, _, _ = solved(dataset.select(np.arange(300)), features[:300])
    p = np.exp(head.out_of_fold - head.out_of_fold.max(axis=1, keepdims=True), dtype=np.float64)
    answers = Answers(np.arange(300), p / p.sum(axis=1, keepdims=True), np.arange(300))
    found = find_suspects(dataset, grouping, features, answers)
    assert found[0].rows == (0, 300)


def test_what_a_correction_gains_is_measured_at_other_images() -> None:
    labels, _ = wronged(900, 0.2)
    dataset, features = drawn(900, labels)
    head, folds, answers = solved(dataset, features)
    grouping = grouping_of(np.arange(900))
    suspects = find_suspects(dataset, grouping, features, answers)
    calls = []
    gains = measure_gains(
        *(dataset, features, np.arange(900), folds, np.arange(900), head, suspects, 1),
        lambda: calls.append(1),
    )
    assert [gain.first for gain in gains] == [10, 20, 50, len(suspects)]
    assert len(calls) == 5
    everything = gains[-1]
    assert everything.judged == 900 - len(suspects)
    assert everything.log_loss < gains[0].log_loss < 0  # surer, and right
    assert everything.interval is not None and everything.interval[0] <= everything.accuracy
    # nothing to be gained where the labels are right
    clean, features = drawn(900)
    head, folds, answers = solved(clean, features)
    doubtful = find_suspects(clean, grouping, features, answers)
    assert len(doubtful) < 0.05 * 900
    assert not any(
        gain.measurable
        for gain in measure_gains(
            *(clean, features, np.arange(900), folds, np.arange(900), head, doubtful, 1)
        )
    )


def test_the_gain_of_many_images_is_measured_on_fewer_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, _ = wronged(900, 0.1)
    dataset, features = drawn(900, labels)
    rng = np.random.default_rng(1)
    features = np.hstack([features, 0.1 * rng.normal(size=(900, 60))]).astype(np.float32)
    features[:, 12:] += 0.3 * features[:, :12] @ rng.normal(size=(12, 60)).astype(np.float32)
    head, folds, answers = solved(dataset, features)
    suspects = find_suspects(dataset, grouping_of(np.arange(900)), features, answers)
    arguments = (dataset, features, np.arange(900), folds, np.arange(900), head, suspects, 1)
    exact = measure_gains(*arguments)
    monkeypatch.setattr("foveate.audit.suspects.MANY", 100)
    monkeypatch.setattr("foveate.audit.suspects.AXES", 30)
    for gain, other in zip(exact, measure_gains(*arguments), strict=True):
        assert other.log_loss == pytest.approx(gain.log_loss, abs=0.02)
        assert other.judged == gain.judged


def test_no_group_with_a_suspect_judges_a_correction() -> None:
    labels, _ = wronged(300, 0.1)
    dataset, features = drawn(300, labels)
    groups = np.arange(300) // 2
    head, folds, answers = solved(dataset, features, groups)
    suspects = find_suspects(dataset, grouping_of(2 * groups), features, answers)
    gains = measure_gains(
        *(dataset, features, np.arange(300), folds, groups, head, suspects, 1),
    )
    touched = {groups[row] for suspect in suspects for row in suspect.rows}
    assert {gain.judged for gain in gains} == {300 - 2 * len(touched)}


def test_labels_at_random_accuse_nobody() -> None:
    rng = np.random.default_rng(0)
    dataset, features = drawn(300, rng.integers(0, 3, 300))
    _, _, answers = solved(dataset, features)
    right = float((answers.probabilities.argmax(axis=1) == dataset.labels).mean())
    figures = {"accuracy": right, "accuracy_ci95": [right - 0.05, right + 0.05]}
    found = doubt_labels(dataset, grouping_of(np.arange(300)), features, answers, figures)
    assert not found.suspects and "nothing was learnt" in found.why
    assert found.to_dict(dataset)["why_no_suspects"] == found.why and not found.notes(dataset)
    unknown = {"accuracy": None, "why": "one group a class"}
    assert why_none(unknown, dataset.labels) == "one group a class"


def test_doubts_name_contradictions_and_the_worst() -> None:
    labels, _ = wronged(300, 0.05)
    labels[3] = 1
    dataset, features = drawn(300, labels)
    _, _, answers = solved(dataset, features)
    grouping = grouping_of(np.arange(300), (Pair(0, 3, "mirrored"), Pair(6, 9, "scaled")))
    figures = {"accuracy": 0.9, "accuracy_ci95": [0.85, 0.95]}
    found = doubt_labels(dataset, grouping, features, answers, figures)
    assert [(pair.first, pair.second) for pair in found.contradictions] == [(0, 3)]
    first, second = found.notes(dataset)
    assert "1 pair" in first and dataset.files[0] in first
    assert dataset.files[found.suspects[0].rows[0]] in second
    listed = found.to_dict(dataset)["suspects"]
    assert len(listed) == len(found.suspects) and listed[0]["files"]


def test_each_of_several_labels_is_a_question() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    p = np.array([[0.99, 0.98, 0.01], [0.9, 0.001, 0.999], [0.3, 0.2, 0.1]])
    suggested, probability, ratio = suggestions(p, labels)
    assert suggested[:2].tolist() == [[1, 1, 0], [1, 0, 1]]
    assert ratio[0] == pytest.approx(49) and ratio[1] == pytest.approx(999) and ratio[2] < 1
    assert probability[0] == pytest.approx(0.98)


def test_the_interval_counts_groups() -> None:
    rng = np.random.default_rng(0)
    each = rng.choice([-1.0, 0, 0, 0, 1], 200)
    groups = np.arange(200)
    alone = interval_over_groups(each, groups)
    expected = each.mean() + 1.96 * each.std(ddof=1) / np.sqrt(200) * np.array([-1, 1])
    assert alone == pytest.approx(expected)
    together = interval_over_groups(np.repeat(each, 4), np.repeat(groups, 4))
    assert together == pytest.approx(expected)
    assert interval_over_groups(each, groups % 5) is None


@pytest.mark.slow
def test_the_ranking_beside_cleanlabs() -> None:
    """The same images come first as by its self-confidence; more of them are wrong than by its
    margin."""
    rank = pytest.importorskip("cleanlab.rank")
    for seed, share in enumerate((0.02, 0.05, 0.1, 0.2)):
        labels, changed = wronged(900, share, seed)
        dataset, features = drawn(900, labels, seed)
        _, _, answers = solved(dataset, features)
        _, _, ratio = suggestions(answers.probabilities, labels)
        scores = {
            method: rank.get_label_quality_scores(labels, answers.probabilities, method=method)
            for method in ("self_confidence", "normalized_margin")
        }
        assert spearmanr(ratio, -scores["self_confidence"]).statistic > 0.97
        ours = roc_auc_score(changed, ratio)
        assert ours >= roc_auc_score(changed, -scores["normalized_margin"]) - 1e-3
        assert ours > 0.93
