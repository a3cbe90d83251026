"""Dataset: classes, notes, and whether it is trainable; duplicates, groups, digests, selections."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from indexed import fill, image
from refusals import absent, refused

from foveate.data.dataset import (
    Dataset,
    apply_policy,
    check_policy,
    check_trainable,
    duplicates,
    learnable,
    listed,
)
from foveate.data.layouts import index, load_dataset, natural
from foveate.errors import DataError, UsageError


def made(
    labels: Iterable[str],
    splits: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    contents: Iterable[bytes] | None = None,
) -> Dataset:
    """A dataset in memory, in the order given within a split and a class."""
    labels = list(labels)
    splits = list(splits or ["train"] * len(labels))
    groups = list(groups or [""] * len(labels))
    names = [f"{i}.pnm" for i in range(len(labels))]
    bytes_of = dict(zip(names, contents or map(image, range(len(labels))), strict=True))
    return index(
        "made",
        "by hand",
        list(zip(names, labels, splits, groups, strict=True)),
        bytes_of.__getitem__,
    )


# Classes, notes, checks


def test_a_class_only_in_test_is_left_out_and_noted() -> None:
    whole = made("abcc", ["train", "train", "test", "test"])
    assert whole.classes == ("a", "b", "c") and len(whole) == 4
    dataset = learnable(whole)
    assert dataset.classes == ("a", "b") and dataset.files == ("0.pnm", "1.pnm")
    assert dataset.labels.tolist() == [0, 1] and dataset.read(1) == image(1)
    assert not absent(dataset.notes[-1], "'c'", "test split", "2 images")
    assert learnable(dataset) is dataset
    kept = learnable(made("bcab", ["train", "test", "test", "train"]))
    assert (kept.classes, kept.labels.tolist(), kept.splits) == (("b",), [0, 0], ("train",) * 2)


def test_a_class_in_validation_alone_is_learnt() -> None:
    dataset = made("aab", ["train", "test", "validation"])
    assert dataset.classes == ("a", "b")
    assert len(dataset.notes) == 3
    assert all(
        any(not absent(note, f"{split} split", "'b'") for note in dataset.notes)
        for split in ("train", "test")
    )


def test_only_a_test_split() -> None:
    dataset = made("ab", ["test", "test"])
    assert dataset.classes == ("a", "b") and len(dataset) == 2
    with refused(DataError, "'made'", "test split"):
        learnable(dataset)


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("cat", "cat "),
        ("STRASSE", "straße"),
        ("１", "1"),
    ],
)
def test_similar_names_are_noted(names: tuple[str, str]) -> None:
    both = " and ".join(map(ascii, sorted(names, key=natural)))
    notes = made(names).notes
    assert len(notes) == 1 and not absent(notes[0], both, "case", "Unicode")
    assert len(made(names).classes) == 2


@pytest.mark.parametrize("splits", [["train", "train"], ["train", "test"]])
def test_unicode_forms_of_a_class_are_one(splits: list[str]) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    dataset = made([apart, composed, "tea"], [*splits, "train"])
    assert dataset.classes == (composed, "tea") and sorted(dataset.labels) == [0, 0, 1]
    assert any(not absent(note, "Unicode", composed) for note in dataset.notes)
    assert made([apart]).classes == (composed,)


@pytest.mark.parametrize("names", [("Dress", "dress"), ("dress ", "dress"), ("STRASSE", "straße")])
@pytest.mark.parametrize("splits", [("train", "test"), ("validation", "train")])
def test_two_splits_write_a_class_differently(
    names: tuple[str, str], splits: tuple[str, str]
) -> None:
    with refused(DataError, *map(ascii, names), *splits):
        made([*names, "hat"], [*splits, "train"])
    both = made([*names, *names], [splits[0], *splits, splits[1]])
    assert len(both.classes) == 2  # each split has each: two classes, and a note


@pytest.mark.parametrize("most,noted", [(10, False), (11, True), (99, True)])
def test_imbalance_is_noted(most: int, noted: bool) -> None:
    notes = made("a" * most + "b").notes
    assert len(notes) == noted
    for note in notes:
        assert not absent(note, "imbalanced", f"'a' has {most}", "'b' 1", "macro-F1", "balance")


def test_groups_on_both_sides_are_noted() -> None:
    dataset = made("abab", ["train", "train", "test", "test"], ["g", "h", "g", ""])
    assert len(dataset.notes) == 1 and not absent(dataset.notes[0], "1 groups", "test split", "'g'")


def test_counts() -> None:
    dataset = made("aabb", ["train", "test", "train", "train"])
    assert dataset.counts() == {"train": {"a": 1, "b": 2}, "test": {"a": 1, "b": 0}}


@pytest.mark.parametrize(
    "labels,splits,names",
    [
        ("aaa", None, ["'made'", "one class, 'a'"]),
        ("aab", None, ["class 'b' (1);", "two"]),
        ("ab", None, ["class 'a' (1), 'b' (1)"]),
        ("aabb", ["train", "train", "train", "test"], ["class 'b' (1);"]),
    ],
)
def test_too_little_to_learn_from(labels: str, splits: list[str] | None, names: list[str]) -> None:
    with refused(DataError, *names):
        check_trainable(made(labels, splits))


def test_enough_to_learn_from() -> None:
    check_trainable(made("aabb"))
    check_trainable(made("aabb", ["train", "validation", "train", "validation"]))


def test_a_class_that_lost_its_images() -> None:
    dataset = made("aabbb")
    with refused(DataError, "'b' (0)"):
        check_trainable(dataset.select(np.array([0, 1])))


def unreadable(n: int) -> dict[str, str]:
    return {f"{i}.jpg": f"image '{i}.jpg' is empty" for i in range(n)}


@pytest.mark.parametrize("n", [2, 12, 19, 20, 21, 39, 40, 60, 100, 140, 1000, 12_340])
def test_by_default_five_percent_are_allowed_and_always_one(n: int) -> None:
    allowed = max(1, n // 20)
    apply_policy(n, {}, None)
    apply_policy(n, unreadable(allowed), None)
    with refused(DataError, f"{allowed + 1} of {n} images", "5%", "'0.jpg'", "on_bad='skip'"):
        apply_policy(n, unreadable(allowed + 1), None)


def test_skip_allows_all_but_all() -> None:
    apply_policy(10, unreadable(9), "skip")
    for policy in ("skip", None):
        with refused(DataError, "1 of 1 images", "'0.jpg'"):
            apply_policy(1, unreadable(1), policy)
    with refused(DataError, "10 of 10 images", "'0.jpg'"):
        apply_policy(10, unreadable(10), "skip")


def test_policy_error_allows_none_and_lists_are_short() -> None:
    apply_policy(10, {}, "error")
    with refused(DataError, "1 of 1000 images", "on_bad='error'", "'0.jpg'"):
        apply_policy(1000, unreadable(1), "error")
    with refused(DataError, "3 of 9 images", "on_bad='skip'"):  # by default these are too many
        apply_policy(9, unreadable(3), "error")
    with pytest.raises(DataError) as caught:
        apply_policy(9, unreadable(9), "skip")
    assert str(caught.value).count("is empty") == 5


def test_damaged_images_are_refused_by_error_alone() -> None:
    damaged = {"d.jpg": "image 'd.jpg' is damaged (bad Huffman code)"}
    for policy in ("skip", None):
        apply_policy(1, {}, policy, damaged)
    with refused(DataError, "2 of 9 images", "'0.jpg'", "'d.jpg'"):
        apply_policy(9, unreadable(1), "error", damaged)


@pytest.mark.parametrize("policy", ["ignore", "auto", "", 1])
def test_other_policies_are_refused(policy: object) -> None:
    with refused(UsageError, repr(str(policy)), "skip", "error"):
        check_policy(policy)


# Duplicates, groups, selections


def test_duplicates() -> None:
    same = [image(1), image(2), image(1), image(3), image(2)]
    assert sorted(map(sorted, duplicates(made("aabbb", contents=same)))) == [
        ["0.pnm", "2.pnm"],
        ["1.pnm", "4.pnm"],
    ]
    assert duplicates(made("aab")) == []


def test_unreadable_images_are_no_duplicates(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "a/2.jpg", "a/3.jpg")
    dataset = load_dataset(root)
    (root / "a" / "1.jpg").unlink()
    (root / "a" / "2.jpg").unlink()
    assert duplicates(dataset) == []
    assert len(set(dataset.grouping())) == 3


def partition(numbers: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(numbers == n).tolist()) for n in numbers}


def joined(groups: list[str], contents: list[bytes]) -> set[frozenset[int]]:
    """Components by repeated merging: slow and plain."""
    sets = [{i} for i in range(len(groups))]
    for i in range(len(groups)):
        for j in range(i):
            if (groups[i] and groups[i] == groups[j]) or contents[i] == contents[j]:
                a, b = (next(s for s in sets if k in s) for k in (i, j))
                if a is not b:
                    sets.remove(b)
                    a |= b
    return {frozenset(s) for s in sets}


@pytest.mark.parametrize(
    "groups,contents,expected",
    [
        (["", "", ""], "xyz", [{0}, {1}, {2}]),
        (["g", "", "g"], "xyz", [{0, 2}, {1}]),
        (["", "", ""], "xyx", [{0, 2}, {1}]),
        # 0 = 1 by bytes, 1 - 3 by group, 3 = 2 by bytes
        (["g", "h", "", "h"], "xxyy", [{0, 1, 2, 3}]),
        (["g", "h", "h", "k"], "xxyz", [{0, 1, 2}, {3}]),
    ],
)
def test_grouping(groups: list[str], contents: str, expected: list[set[int]]) -> None:
    dataset = made("a" * len(groups), groups=groups, contents=[c.encode() for c in contents])
    assert partition(dataset.grouping()) == set(map(frozenset, expected))


@pytest.mark.parametrize("seed", range(10))
def test_grouping_is_transitive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [str(g) if g < 12 else "" for g in rng.integers(0, 20, 40)]
    contents = [bytes([c]) for c in rng.integers(0, 30, 40)]
    assert partition(made("a" * 40, groups=groups, contents=contents).grouping()) == joined(
        groups, contents
    )


def test_digests_are_sha256_and_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    reads: list[str] = []

    def read(name: str) -> bytes:
        reads.append(name)
        return name.encode()

    dataset = index("x", "y", [(n, "a", "train", "") for n in ("1", "2")], read)
    assert dataset.digests == tuple(hashlib.sha256(n).hexdigest() for n in (b"1", b"2"))
    assert dataset.select(np.array([1])).digests == dataset.digests[1:]
    assert sorted(reads) == ["1", "2"]


def test_select() -> None:
    dataset = made("aabb", ["train", "test", "train", "train"], ["g", "", "h", ""])
    order = np.array([3, 0])
    chosen = dataset.select(order)
    assert chosen.files == tuple(dataset.files[i] for i in order)
    assert chosen.groups == tuple(dataset.groups[i] for i in order)
    assert chosen.splits == tuple(dataset.splits[i] for i in order)
    assert chosen.labels.tolist() == dataset.labels[order].tolist()
    assert [chosen.read(i) for i in range(2)] == [dataset.read(i) for i in order]
    assert chosen.select(np.array([1])).read(0) == dataset.read(0)
    assert chosen.digests == tuple(dataset.digests[i] for i in order)


# Words


@pytest.mark.parametrize(
    "names,expected",
    [
        ([], ""),
        (["a"], "'a'"),
        (["a\n"], r"'a\n'"),
        ("abcde", "'a', 'b', 'c', 'd', 'e'"),
        ("abcdef", "'a', 'b', 'c', 'd', 'e' and 1 more"),
    ],
)
def test_listed(names: Iterable[str], expected: str) -> None:
    assert listed(names) == expected
