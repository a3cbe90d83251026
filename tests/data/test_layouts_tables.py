"""Tables of paths and labels, in several dialects of CSV; and those that cannot be used."""

from pathlib import Path

import pytest
from indexed import fill, image, rows
from refusals import refused

from foveate.data.layouts import load_dataset
from foveate.errors import DataError, ImageError


def table(folder: Path, text: str | bytes, *names: str) -> Path:
    path = fill(folder, *names) / "table.csv"
    folder.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table(tmp_path: Path) -> None:
    text = (
        "path,label,split,group\nx/1.jpg,cat,train,g1\n2.jpg,dog,VAL,\nx/3.jpg,cat,test,g2\n4.jpg, "
        "dog ,, g3 \n"
    )
    dataset = load_dataset(table(tmp_path / "t", text, "x/1.jpg", "2.jpg", "x/3.jpg", "4.jpg"))
    assert (dataset.name, dataset.layout, dataset.classes) == (
        "table",
        "table of paths and labels",
        ("cat", "dog"),
    )
    found = dict(
        zip(
            dataset.files,
            zip(dataset.splits, dataset.groups, dataset.labels, strict=True),
            strict=True,
        )
    )
    assert found == {
        "x/1.jpg": ("train", "g1", 0),
        "2.jpg": ("validation", "", 1),
        "x/3.jpg": ("test", "g2", 0),
        "4.jpg": ("train", "g3", 1),
    }
    assert dataset.read(dataset.files.index("x/3.jpg")) == image(2)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\n1.jpg,a\n",
        b"path,label\r\n1.jpg,a\r\n",
        b'label,more,path\n"a",?,"1.jpg"\n',
        b"path,label\n1.jpg,a,, \n",
        b"path,label\n\n1.jpg,a\n\n",
        b"path;label\n1.jpg;a\n;\n",
        b"path\tlabel\tsplit\n1.jpg\ta\t \n",
        b"sep=;\r\npath;label\r\n1.jpg;a\r\n",
        b"Path, label\n1.jpg, a\n",
        b" PATH ,Label\n ./1.jpg,a\n , \n",
        b'path, label\n1.jpg, "a"\n',
        "path,label\n1.jpg,a\n".encode("utf-16"),
        b"\xfe\xff" + "path;label\n1.jpg;a\n".encode("utf-16-be"),
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
    assert dataset.read(0) == image(0)


@pytest.mark.parametrize(
    "text,names",
    [
        ("", ["path and label", "no rows"]),
        ("path,label\n", ["no rows"]),
        ("path,label,Label\n1.jpg,a,b\n", ["column", "'label'", "more than once"]),
        ("path,label,group,group\n1.jpg,a,b,b\n", ["'group'", "more than once"]),
        ("path,class\n1.jpg,a\n", ["column label", "path,label[,split][,group]", "path, class"]),
        ("file;label\n1.jpg;a\n", ["column path", "file, label"]),
        ("path,label\n1.jpg,a\n1.jpg,\n", ["line 3", "empty"]),
        ("path,label\n1.jpg,  \n", ["line 2", "empty"]),
        ("path,label\n,a\n", ["line 2", "empty"]),
        ("path,label\n1.jpg\n", ["line 2", "empty"]),
        ("path,label\n1.jpg,a\n1.jpg,a,b\n", ["line 3", "3 cells", "header 2"]),
        ("path;label\n1.jpg;a;b\n", ["line 2", "3 cells"]),
        (
            "path,label,split\n1.jpg,a,holdout\n",
            ["line 2", "'holdout'", "train", "test", "val", "valid"],
        ),
        ("path,label\ngone.jpg,a\n1.jpg,a\n", ["1 files", "'gone.jpg'"]),
        ("path,label\n" + "".join(f"g{i},a\n" for i in range(9)), ["9 files", "'g4' and 4 more"]),
        ("path,label\n" + "n" * 300 + ",a\n", ["1 files", "nnn"]),
        ("path,label\na\0.jpg,a\n", ["1 files", r"'a\x00.jpg'"]),
        ("path,label\n1.jpg," + "x" * 200_000 + "\n", ["CSV", "field larger"]),
        (b"path,label\n1.jpg,caf\xe9\n", ["UTF-8", "'utf-8' codec"]),
        ("path,label\n1.jpg,a".encode("utf-16")[:-1], ["UTF-8"]),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str | bytes, names: list[str]) -> None:
    with refused(DataError, "table.csv'", *names):
        load_dataset(table(tmp_path, text, "1.jpg"))


def test_a_table_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, "path,label\n1.jpg,a\n", "1.jpg")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with refused(DataError, "table.csv'", "CSV", "Permission denied"):
        load_dataset(path)


def test_a_label_of_very_many_digits(tmp_path: Path) -> None:
    long = "9" * 5000
    dataset = load_dataset(
        table(tmp_path, f"path,label\n1.jpg,{long}\n2.jpg,7\n", "1.jpg", "2.jpg")
    )
    assert dataset.classes == ("7", long)


def test_a_vanished_folder_of_a_table_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    dataset = load_dataset(table(tmp_path, "path,label\nf,a\n"))
    with refused(ImageError, "'f'", "regular file"):
        dataset.read(0)
