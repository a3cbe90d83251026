import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from foveate.data.dataset import Dataset, apply_policy, check_trainable, duplicates, listed
from foveate.data.image import SUFFIXES
from foveate.data.index import SPLITS, from_folder, index, load_dataset, natural
from foveate.errors import DataError, ImageError


def picture(number: int = 0) -> bytes:
    return b"P5 2 2 255\n" + number.to_bytes(4)


def fill(root: Path, *names: str) -> Path:
    """The named files below root, each with bytes of its own."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return root


def table(folder: Path, text: str | bytes, *names: str) -> Path:
    path = fill(folder, *names) / "table.csv"
    folder.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [
        (file, dataset.classes[label], split)
        for file, label, split in zip(dataset.files, dataset.labels, dataset.splits, strict=True)
    ]


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
    bytes_of = dict(zip(names, contents or map(picture, range(len(labels))), strict=True))
    return index("made", "by hand", list(zip(names, labels, splits, groups, strict=True)), bytes_of.__getitem__)


# Folders


def test_one_folder_per_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", "dog/1.jpg", "cat/10.jpg", "cat/9.png", "cat/deep/er/2.WEBP")
    dataset = load_dataset(str(root))
    assert (dataset.name, dataset.layout, dataset.classes) == ("pets", "one folder per class", ("cat", "dog"))
    assert rows(dataset) == [
        ("cat/9.png", "cat", "train"),
        ("cat/10.jpg", "cat", "train"),
        ("cat/deep/er/2.WEBP", "cat", "train"),
        ("dog/1.jpg", "dog", "train"),
    ]
    assert len(dataset) == 4 and dataset.labels.dtype == np.int64
    assert [dataset.read(i) for i in range(4)] == [(root / name).read_bytes() for name in dataset.files]
    assert dataset.notes == dataset.ignored == ()
    assert dataset.groups == ("",) * 4


@pytest.mark.parametrize("alias,split", SPLITS.items())
@pytest.mark.parametrize("spelling", [str.lower, str.capitalize, str.upper])
def test_split_folders(tmp_path: Path, alias: str, split: str, spelling: Callable[[str], str]) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg", f"{spelling(alias)}/a/3.jpg")
    dataset = load_dataset(root)
    assert dataset.layout.startswith("split folders: ")
    assert (f"{spelling(alias)}/a/3.jpg", "a", split) in rows(dataset)
    assert dataset.classes == ("a", "b")


def test_the_aliases() -> None:
    assert {alias for alias, split in SPLITS.items() if split == "validation"} == {"val", "valid", "validation", "dev"}
    assert {alias for alias, split in SPLITS.items() if split != "validation"} == {"train", "test"}


def test_split_names_without_train_are_classes(tmp_path: Path) -> None:
    dataset = load_dataset(fill(tmp_path / "p", "test/1.jpg", "val/2.jpg"))
    assert (dataset.classes, dataset.layout) == (("test", "val"), "one folder per class")


def test_other_folders_beside_the_splits_are_noted(tmp_path: Path) -> None:
    dataset = load_dataset(fill(tmp_path / "p", "train/a/1.jpg", "test/a/2.jpg", "extra/a/3.jpg"))
    assert len(dataset) == 2
    assert "beside the splits there are other folders, not used: 'extra'" in dataset.notes


def test_natural_order(tmp_path: Path) -> None:
    names = ["10", "9", "a10", "a2", "b", "1", "01"]
    dataset = load_dataset(fill(tmp_path / "p", *(f"{c}/x.jpg" for c in names)))
    assert dataset.classes == ("01", "1", "9", "10", "a2", "a10", "b")


def test_the_order_on_the_disk_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "p", *(f"{c}/{i}.jpg" for c in "abc" for i in range(12)))
    before = load_dataset(root)
    listdir, walk = Path.iterdir, os.walk
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listdir(path), reverse=True))
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((h, f[::-1], n[::-1]) for h, f, n in walk(*a, **k)))
    assert rows(load_dataset(root)) == rows(before)
    assert load_dataset(root).classes == before.classes


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    root = fill(
        tmp_path / "p", "a/1.jpg", "b/2.jpg", ".git/3.jpg", "a/.thumbs/4.jpg", "a/._1.jpg", ".DS_Store", "a/.DS_Store"
    )
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert dataset.ignored == ()


def test_what_is_no_picture_is_listed_as_ignored(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/2.jpg", "a/notes.txt", "b/c/x.mp4", "b/noname", "README.md", "loose.jpg")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert sorted(dataset.ignored) == ["README.md", "a/notes.txt", "b/c/x.mp4", "b/noname", "loose.jpg"]


def test_ignored_files_of_the_split_layout(tmp_path: Path) -> None:
    dataset = load_dataset(fill(tmp_path / "p", "train/a/1.jpg", "train/list.txt", "test/a/2.jpg", "test/a/x.xml"))
    assert sorted(dataset.ignored) == ["test/a/x.xml", "train/list.txt"]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    assert len(load_dataset(fill(tmp_path / "p", f"a/1{suffix}", f"a/2{suffix.upper()}"))) == 2


def test_an_empty_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "c").mkdir()
    dataset = load_dataset(root)
    assert dataset.classes == ("a", "b")
    assert dataset.notes == ("the folder 'c' has no pictures and is no class",)


@pytest.mark.parametrize(
    "names,words",
    [
        ([], r"'.*p' has no class folders; expected p/CLASS/picture.jpg, .* or p/train/CLASS/picture.jpg$"),
        (["1.jpg", "2.PNG", "x.txt"], r"has no class folders.*\(2 pictures lie directly in it: sort them into folders"),
        (["train/1.jpg"], "has no class folders"),
        (["a/x.txt"], r"'p' has no pictures \(looked for .avif .bmp"),
    ],
)
def test_folders_without_classes_or_pictures(tmp_path: Path, names: list[str], words: str) -> None:
    root = fill(tmp_path / "p", *names)
    root.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        load_dataset(root)


ODD_NAMES = [
    "été ☀️",
    "猫",
    "قطة",
    "line\nbreak",
    "-rf",
    'it\'s "quoted" `x`',
    "<b>&amp;",
    "=1+1",
    "back\\slash",
    " spaces ",
    "tab\t",
    "%s{}",
    "x" * 250,
    os.fsdecode(b"latin-\xe9"),
    "\x1b[31m",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_of_files_and_classes(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path / "p", f"{name}/{name}.jpg", "z/1.jpg")
    dataset = load_dataset(root)
    assert name in dataset.classes and f"{name}/{name}.jpg" in dataset.files
    position = dataset.files.index(f"{name}/{name}.jpg")
    assert dataset.classes[dataset.labels[position]] == name
    assert dataset.read(position) == picture(0)
    assert dataset.digests[position]
    (root / name / f"{name}.jpg").unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        dataset.read(position)


def test_a_link_to_the_folder_above_is_no_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "round").symlink_to(root)
    (root / "above").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "a" / "again").symlink_to("..")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "b/2.jpg")
    assert sorted(dataset.ignored) == ["a/again", "above", "round", "self"]


def test_a_link_to_a_class_folder_elsewhere_is_a_class(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "1.jpg")
    root = fill(tmp_path / "p", "a/1.jpg")
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "2.jpg").symlink_to(elsewhere / "1.jpg")
    assert load_dataset(root).files == ("a/1.jpg", "a/2.jpg", "b/1.jpg")


def test_links_that_lead_nowhere_and_pipes_are_bad_pictures(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg")
    (root / "a" / "2.jpg").symlink_to("2.jpg")
    (root / "a" / "3.jpg").symlink_to("gone.jpg")
    os.mkfifo(root / "a" / "4.jpg")
    dataset = load_dataset(root)
    assert dataset.files == ("a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg")
    for i, words in [(1, "Too many levels"), (2, "No such file"), (3, "is not a regular file")]:
        with pytest.raises(ImageError, match=words):
            dataset.read(i)
    assert [bool(digest) for digest in dataset.digests] == [True, False, False, False]


def test_a_folder_below_a_class_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "a/shut/2.jpg")
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"the folder '.*a/shut' cannot be read: Permission denied"):
        load_dataset(root)


@pytest.mark.parametrize("closed", ["p", "p/train"])
def test_a_root_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    root = fill(tmp_path / "p", "train/a/1.jpg")
    iterdir = Path.iterdir

    def denied(path: Path) -> object:
        if path == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=f"the folder '.*{closed}' cannot be read: Permission denied"):
        load_dataset(root)


def test_a_thousand_classes(tmp_path: Path) -> None:
    dataset = load_dataset(fill(tmp_path / "p", *(f"{c}/{i}.jpg" for c in range(1000) for i in range(2))))
    assert dataset.classes == tuple(map(str, range(1000)))
    assert np.array_equal(dataset.labels, np.repeat(np.arange(1000), 2))
    check_trainable(dataset)


def test_the_name_of_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path / "pets", "a/1.jpg"))
    assert load_dataset(".").name == "pets"


# Sources


def test_a_path_wins_over_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "digits", "a/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("digits").files == ("a/1.jpg",)


@pytest.mark.parametrize("source", ["nowhere", "no\0where", "n" * 300, "Digits"])
def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such folder or file: '.*' \(built-in sets: digits, fashion-mnist, mnist"):
        load_dataset(source)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(picture())
    with pytest.raises(DataError, match=r"x.jpg' is a file; expected a folder of pictures, or a .csv with columns"):
        load_dataset(tmp_path / "x.jpg")


# Tables


def test_a_table(tmp_path: Path) -> None:
    text = "path,label,split,group\nx/1.jpg,cat,train,g1\n2.jpg,dog,VAL,\nx/3.jpg,cat,test,g2\n4.jpg, dog ,, g3 \n"
    dataset = load_dataset(table(tmp_path / "t", text, "x/1.jpg", "2.jpg", "x/3.jpg", "4.jpg"))
    assert (dataset.name, dataset.layout, dataset.classes) == ("table", "table of paths and labels", ("cat", "dog"))
    found = dict(zip(dataset.files, zip(dataset.splits, dataset.groups, dataset.labels, strict=True), strict=True))
    assert found == {
        "x/1.jpg": ("train", "g1", 0),
        "2.jpg": ("validation", "", 1),
        "x/3.jpg": ("test", "g2", 0),
        "4.jpg": ("train", "g3", 1),
    }
    assert dataset.read(dataset.files.index("x/3.jpg")) == picture(2)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\n1.jpg,a\n",
        b"path,label\r\n1.jpg,a\r\n",
        b'label,more,path\n"a",?,"1.jpg"\n',
        b"path,label\n1.jpg,a,too,many\n",
        b"path,label\n\n1.jpg,a\n\n",
    ],
)
def test_dialects_of_tables(tmp_path: Path, text: bytes) -> None:
    assert rows(load_dataset(table(tmp_path, text, "1.jpg"))) == [("1.jpg", "a", "train")]


def test_a_table_with_odd_names(tmp_path: Path) -> None:
    text = 'path,label\n"line\nbreak.jpg","a\nb"\n"""q"", -x.jpg",🐱\n'
    dataset = load_dataset(table(tmp_path, text, "line\nbreak.jpg", '"q", -x.jpg'))
    assert rows(dataset) == [("line\nbreak.jpg", "a\nb", "train"), ('"q", -x.jpg', "🐱", "train")]


def test_absolute_paths_in_a_table(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "1.jpg") / "1.jpg"
    dataset = load_dataset(table(tmp_path / "t", f"path,label\n{elsewhere},a\n"))
    assert dataset.read(0) == picture(0)


@pytest.mark.parametrize(
    "text,words",
    [
        ("", "lacks the column path and label; expected path,label.*found no rows"),
        ("path,label\n", "lacks the column path and label; .* found no rows"),
        ("path,class\n1.jpg,a\n", r"lacks the column label; expected path,label\[,split\]\[,group\], found path"),
        ("file;label\n1.jpg;a\n", "lacks the column path and label; .* found file;label"),
        ("path,label\n1.jpg,a\n1.jpg,\n", "line 3: the path or the label is empty"),
        ("path,label\n1.jpg,  \n", "line 2: the path or the label is empty"),
        ("path,label\n,a\n", "line 2: the path or the label is empty"),
        ("path,label\n1.jpg\n", "line 2: the path or the label is empty"),
        ("path,label,split\n1.jpg,a,holdout\n", "line 2: split 'holdout' is none of train, test, val, valid, valid"),
        ("path,label,split\n1.jpg,a, \n", "line 2: split '' is none of"),
        ("path,label\ngone.jpg,a\n1.jpg,a\n", "names 1 files that do not exist: 'gone.jpg'"),
        ("path,label\n" + "".join(f"g{i},a\n" for i in range(9)), "names 9 files .*'g4' and 4 more"),
        ("path,label\n" + "n" * 300 + ",a\n", "names 1 files that do not exist"),
        ("path,label\na\0.jpg,a\n", r"names 1 files that do not exist: 'a\\x00.jpg'"),
        ("path,label\n1.jpg," + "x" * 200_000 + "\n", "cannot be read as a UTF-8 CSV: field larger than"),
        (b"path,label\n1.jpg,caf\xe9\n", "cannot be read as a UTF-8 CSV: 'utf-8' codec"),
        ("path,label".encode("utf-16"), "cannot be read as a UTF-8 CSV"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"table.csv'.* {words}|table.csv', {words}"):
        load_dataset(table(tmp_path, text, "1.jpg"))


def test_a_table_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, "path,label\n1.jpg,a\n", "1.jpg")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"cannot be read as a UTF-8 CSV: .*Permission denied"):
        load_dataset(path)


def test_a_label_of_very_many_digits(tmp_path: Path) -> None:
    long = "9" * 5000
    dataset = load_dataset(table(tmp_path, f"path,label\n1.jpg,{long}\n1.jpg,7\n", "1.jpg"))
    assert dataset.classes == ("7", long)


def test_a_vanished_folder_of_a_table_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    dataset = load_dataset(table(tmp_path, "path,label\nf,a\n"))
    with pytest.raises(ImageError, match="is not a regular file"):
        dataset.read(0)


# Classes, notes, checks


def test_a_class_only_in_test_is_left_out_and_noted() -> None:
    dataset = made("abcc", ["train", "train", "test", "test"])
    assert dataset.classes == ("a", "b") and len(dataset) == 2
    assert dataset.notes == ("class 'c' is only in the test split: its 2 pictures cannot be learnt, left out",)


def test_a_class_in_validation_alone_is_learnt() -> None:
    dataset = made("aab", ["train", "test", "validation"])
    assert dataset.classes == ("a", "b")
    assert "the train split has no picture of 'b'" in dataset.notes
    assert "the test split has no picture of 'b'" in dataset.notes


def test_only_a_test_split() -> None:
    dataset = made("ab", ["test", "test"])
    assert dataset.classes == () and len(dataset) == 0
    with pytest.raises(DataError, match="'made' has no class; a classifier needs at least two"):
        check_trainable(dataset)


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("cat", "cat "),
        ("STRASSE", "straße"),
        tuple(unicodedata.normalize(f, "café") for f in ("NFC", "NFD")),
    ],
)
def test_near_namesakes_are_noted(names: tuple[str, str]) -> None:
    both = " and ".join(map(ascii, sorted(names, key=natural)))
    assert made(names).notes == (f"classes {both} differ only in case, spaces or Unicode form",)
    assert len(made(names).classes) == 2


@pytest.mark.parametrize("most,noted", [(10, False), (11, True), (99, True)])
def test_imbalance_is_noted(most: int, noted: bool) -> None:
    notes = made("a" * most + "b").notes
    expected = (
        f"the classes are imbalanced: 'a' has {most} pictures, 'b' 1; "
        "read the balanced accuracy and macro-F1, not the accuracy alone"
    )
    assert notes == ((expected,) if noted else ())


def test_groups_on_both_sides_are_noted() -> None:
    dataset = made("abab", ["train", "train", "test", "test"], ["g", "h", "g", ""])
    assert dataset.notes == ("1 groups are both in the test split and outside it: 'g'",)


def test_counts() -> None:
    dataset = made("aabb", ["train", "test", "train", "train"])
    assert dataset.counts() == {"train": {"a": 1, "b": 2}, "test": {"a": 1, "b": 0}}


@pytest.mark.parametrize(
    "labels,splits,words",
    [
        ("aaa", None, "'made' has only one class, 'a'; a classifier needs at least two"),
        ("aab", None, r"too few readable pictures to learn from in class 'b' \(1\); each class needs two"),
        ("ab", None, r"in class 'a' \(1\), 'b' \(1\)"),
        ("aabb", ["train", "train", "train", "test"], r"in class 'b' \(1\)"),
    ],
)
def test_too_little_to_learn_from(labels: str, splits: list[str] | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_trainable(made(labels, splits))


def test_enough_to_learn_from() -> None:
    check_trainable(made("aabb"))
    check_trainable(made("aabb", ["train", "validation", "train", "validation"]))


def test_a_class_that_lost_its_pictures() -> None:
    dataset = made("aabbb")
    with pytest.raises(DataError, match=r"in class 'b' \(0\)"):
        check_trainable(dataset.select(np.array([0, 1])))


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 60, 100, 140, 1000, 12_340])
def test_policy_skip_bears_five_percent(n: int) -> None:
    allowed = n // 20
    bad = {f"{i}.jpg": f"image '{i}.jpg' is empty" for i in range(allowed + 1)}
    apply_policy(n, {}, "skip")
    apply_policy(n, dict(list(bad.items())[:allowed]), "skip")
    with pytest.raises(DataError, match=rf"{allowed + 1} of {n} pictures are unreadable, more than 5%:\n  image '0"):
        apply_policy(n, bad, "skip")


def test_policy_error_bears_none_and_lists_are_short() -> None:
    apply_policy(10, {}, "error")
    with pytest.raises(DataError, match=r"^image 'x' is empty \(1 of 1000 pictures are unreadable\)$"):
        apply_policy(1000, {"x": "image 'x' is empty"}, "error")
    with pytest.raises(DataError) as caught:
        apply_policy(9, {str(i): f"reason {i}" for i in range(9)}, "skip")
    assert str(caught.value).count("reason") == 5


# Duplicates, groups, selections


def test_duplicates() -> None:
    same = [picture(1), picture(2), picture(1), picture(3), picture(2)]
    assert sorted(map(sorted, duplicates(made("aabbb", contents=same)))) == [["0.pnm", "2.pnm"], ["1.pnm", "4.pnm"]]
    assert duplicates(made("aab")) == []


def test_unreadable_pictures_are_no_duplicates(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", "a/1.jpg", "a/2.jpg", "a/3.jpg")
    dataset = from_folder(root)
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
        (["g", "h", "", "h"], "xxyy", [{0, 1, 2, 3}]),  # 0 = 1 by bytes, 1 - 3 by group, 3 = 2 by bytes
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
    assert partition(made("a" * 40, groups=groups, contents=contents).grouping()) == joined(groups, contents)


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
    "names",
    [
        ["9", "10"],
        ["", "a", "a1", "a2", "a10", "ab", "b"],
        ["1a", "1b", "a"],
        ["01", "1", "2"],
        ["x9y9", "x9y10", "x10y1"],
        ["٣", "٤"],
        ["1", "²"],
    ],
)
def test_natural(names: list[str]) -> None:
    shuffled = names[::-1]
    assert sorted(shuffled, key=natural) == names


def test_natural_tells_all_names_apart() -> None:
    names = ["1", "01", "001", "a1", "a01", "", "a"]
    assert len({natural(name) for name in names}) == len(names)


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
