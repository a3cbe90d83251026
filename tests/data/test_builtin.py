import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from foveate.data import builtin as module
from foveate.data.builtin import BUILTIN, CIFAR, FASHION, IDX_FILES, load_builtin, pnm, read_idx
from foveate.data.dataset import Dataset
from foveate.data.image import load_image
from foveate.data.layouts import load_dataset
from foveate.download import Remote
from foveate.errors import DataError, FoveateError


def packed(data: bytes) -> bytes:
    """Gzipped without the time, so that the bytes, part of test names, are always equal."""
    return gzip.compress(data, mtime=0)


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    shape = b"".join(n.to_bytes(4) for n in values.shape)
    return packed(bytes([0, 0, kind, values.ndim]) + shape + values.astype(np.uint8).tobytes())


def idx_folder(folder: Path, side: int = 28) -> tuple[np.ndarray, ...]:
    """30 and 20 images of ten classes, as the four files of MNIST."""
    rng = np.random.default_rng(0)
    arrays = (
        rng.integers(0, 256, (30, side, side)),
        np.arange(30) % 10,
        rng.integers(0, 256, (20, side, side)),
        np.arange(20)[::-1] % 10,
    )
    folder.mkdir(parents=True)
    for name, values in zip(IDX_FILES, arrays, strict=True):
        (folder / name).write_bytes(idx(values))
    return arrays


def pixels(dataset: Dataset, i: int) -> np.ndarray:
    return np.asarray(load_image(dataset.read(i), dataset.files[i]))


def check(dataset: Dataset, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Every image of a split is there, under its own label and number."""
    chosen = [i for i in range(len(dataset)) if dataset.splits[i] == split]
    assert len(chosen) == len(labels)
    for i in chosen:
        number = int(Path(dataset.files[i]).stem)
        assert dataset.labels[i] == labels[number]
        assert dataset.files[i].split("/")[:2] == [split, dataset.classes[dataset.labels[i]]]
        expected = (
            images[number] if images.ndim == 4 else np.repeat(images[number][..., None], 3, axis=-1)
        )
        assert np.array_equal(pixels(dataset, i), expected)


def serve(folder: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of tmp_path/site."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FOVEATE_OFFLINE", raising=False)
    monkeypatch.delenv("FOVEATE_MIRROR", raising=False)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    (tmp_path / "site").mkdir()
    yield from serve(tmp_path / "site")


def remote(url: str, file: Path) -> Remote:
    return Remote(
        url + file.name, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
    )


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    published = load_digits()
    dataset = load_dataset("digits")
    assert (dataset.name, dataset.layout, len(dataset)) == ("digits", "built-in set", 1797)
    assert dataset.classes == tuple("0123456789") and dataset.notes == ()
    assert set(dataset.splits) == {"train"}
    numbers = [int(Path(file).stem) for file in dataset.files]
    assert sorted(numbers) == list(range(1797))
    assert np.array_equal(dataset.labels, published.target[numbers])
    for i in range(0, 1797, 7):
        grey = pixels(dataset, i)[..., 0].astype(float)
        assert np.abs(grey * 16 / 255 - published.images[numbers[i]]).max() <= 16 / 255 / 2 + 1e-9
        assert np.array_equal(np.rint(grey * 16 / 255), published.images[numbers[i]])


@pytest.mark.parametrize("shape", [(3, 5), (5, 3, 3), (1, 1), (28, 28)])
def test_pnm_is_what_pillow_reads(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    values.flat[:2] = 10, 32  # white space, right behind the header
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pnm(values)))), values)


@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 5, 6), (0, 28, 28)])
def test_read_idx(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape)
    (tmp_path / "x.gz").write_bytes(idx(values))
    found = read_idx(tmp_path / "x.gz")
    assert found.dtype == np.uint8 and np.array_equal(found, values)


GOOD = idx(np.arange(600).reshape(6, 10, 10) % 251)


@pytest.mark.parametrize(
    "data,names",
    [
        (b"", []),
        (b"not gzip", ["gzip"]),
        (GOOD[: len(GOOD) // 2], ["ended"]),
        (GOOD[:40] + b"\xff\xff\xff\xff" + GOOD[44:], []),
        (GOOD[:-8] + bytes(4) + GOOD[-4:], ["CRC"]),
        (packed(b""), []),
        (packed(b"\0\0\x08"), []),
        (packed(b"\0\0\x08\3\0\0"), []),
        (packed(b"\0\1\x08\1\0\0\0\1x"), ["IDX"]),
        (idx(np.zeros(4), kind=13), ["IDX"]),
        (packed(b"\0\0\x08\1\0\0\0\5abc"), ["reshape"]),
        (packed(b"\0\0\x08\2" + b"\xff" * 8 + b"abc"), []),
        (packed(b"\0\0\x08\xff" + b"\0" * 1020), []),
    ],
)
def test_damaged_idx_files(tmp_path: Path, data: bytes, names: list[str]) -> None:
    (tmp_path / "x.gz").write_bytes(data)
    with refused(DataError, str(tmp_path / "x.gz"), "damaged", *names):
        read_idx(tmp_path / "x.gz")


def test_a_missing_idx_file(tmp_path: Path) -> None:
    with refused(DataError, str(tmp_path / "x.gz"), "No such file"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize("seed", range(5))
def test_idx_with_random_damage(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = gzip.decompress(GOOD)
    for _ in range(60):
        broken = bytearray(GOOD if rng.random() < 0.5 else plain[: rng.integers(1, len(plain))])
        for position in rng.integers(0, min(len(broken), 60), 2):
            broken[position] = rng.integers(256)
        is_plain = broken[:2] != GOOD[:2]
        (tmp_path / "x.gz").write_bytes(packed(bytes(broken)) if is_plain else bytes(broken))
        with contextlib.suppress(DataError):
            assert read_idx(tmp_path / "x.gz").dtype == np.uint8


def test_fashion_mnist_from_the_debian_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, train_labels, test, test_labels = idx_folder(tmp_path / "debian")
    monkeypatch.setattr(module, "DEBIAN_FASHION", tmp_path / "debian")
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    dataset = load_dataset("fashion-mnist")
    assert set(dataset.classes) == set(FASHION)
    named = np.array([dataset.classes.index(name) for name in FASHION])
    check(dataset, "train", train, named[train_labels])
    check(dataset, "test", test, named[test_labels])


def publish_idx(site: str, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> tuple:
    """`idx_folder` at a site, as the set that is published at `url`."""
    folder.rmdir()
    arrays = idx_folder(folder)
    files = [remote(site, folder / file) for file in IDX_FILES]
    contents = [gzip.decompress((folder / file).read_bytes()) for file in IDX_FILES]
    monkeypatch.setattr(module, url, site)
    monkeypatch.setattr(
        module, "IDX_HASHES", {site: tuple((file.sha256, file.size) for file in files)}
    )
    hashes = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    monkeypatch.setattr(module, "IDX_CONTENT_HASHES", {site: hashes})
    monkeypatch.setattr(module, "DEBIAN_FASHION", folder / "nowhere")
    return arrays


@pytest.mark.parametrize("name,url", [("mnist", "MNIST_URL"), ("fashion-mnist", "FASHION_URL")])
def test_idx_sets_are_fetched(
    tmp_path: Path, cache: Path, site: str, monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    train, train_labels, test, test_labels = publish_idx(site, tmp_path / "site", monkeypatch, url)
    dataset = load_dataset(name)
    published = FASHION if name == "fashion-mnist" else tuple("0123456789")
    named = np.array([dataset.classes.index(c) for c in published])
    check(dataset, "train", train, named[train_labels])
    check(dataset, "test", test, named[test_labels])
    assert sorted(p.name for p in (cache / "datasets" / name).iterdir()) == sorted(IDX_FILES)

    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    assert load_dataset(name).files == dataset.files


def test_a_wrong_file_from_the_site_is_refused(
    tmp_path: Path, site: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / IDX_FILES[0]).write_bytes(b"x" * module.IDX_HASHES[module.MNIST_URL][0][1])
    for table in ("IDX_HASHES", "IDX_CONTENT_HASHES"):
        monkeypatch.setattr(module, table, {site: getattr(module, table)[module.MNIST_URL]})
    monkeypatch.setattr(module, "MNIST_URL", site)
    with refused(FoveateError, IDX_FILES[0], "not the published file"):
        load_builtin("mnist")
    assert list((cache / "datasets" / "mnist").iterdir()) == []


@pytest.mark.parametrize("form", ["published", "repacked", "unpacked"])
def test_idx_files_that_were_put_there_by_hand(
    tmp_path: Path, site: str, cache: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    train, train_labels, *_ = publish_idx(site, tmp_path / "site", monkeypatch, "MNIST_URL")
    monkeypatch.setenv("FOVEATE_OFFLINE", "1")
    folder = cache / "datasets/mnist"
    folder.mkdir(parents=True)
    for file in IDX_FILES:
        published = (tmp_path / "site" / file).read_bytes()
        if form == "unpacked":
            (folder / file.removesuffix(".gz")).write_bytes(gzip.decompress(published))
        else:
            repacked = gzip.compress(gzip.decompress(published), 1, mtime=1)
            (folder / file).write_bytes(published if form == "published" else repacked)
    dataset = load_dataset("mnist")
    check(dataset, "train", train, train_labels)
    assert len(dataset) == 50 and len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "no gzip", "unpacked", "empty"])
def test_a_damaged_idx_file_that_was_put_there_is_not_used(
    tmp_path: Path,
    site: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    arrays = publish_idx(site, tmp_path / "site", monkeypatch, "MNIST_URL")
    folder = cache / "datasets/mnist"
    folder.mkdir(parents=True)
    published = (tmp_path / "site" / IDX_FILES[0]).read_bytes()
    content = bytearray(gzip.decompress(published))
    content[100] ^= 1  # a pixel
    file = folder / (IDX_FILES[0] if damage != "unpacked" else IDX_FILES[0].removesuffix(".gz"))
    broken = {"flip": packed(content), "truncate": published[:-9], "no gzip": b"<html>"}
    file.write_bytes(broken.get(damage, b"") or (content if damage == "unpacked" else b""))
    with (
        monkeypatch.context() as offline,
        refused(FoveateError, site + IDX_FILES[0], str(folder), *IDX_FILES, "FOVEATE_OFFLINE"),
    ):
        offline.setenv("FOVEATE_OFFLINE", "1")
        load_builtin("mnist")
    assert str(file) in caplog.text
    check(load_dataset("mnist"), "train", arrays[0], arrays[1])  # fetched


def test_sets_come_from_a_mirror(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose folders are those of wget -x."""
    publish_idx(site, tmp_path / "site", monkeypatch, "MNIST_URL")
    folder = tmp_path / "site/foveate/example.org/mnist"
    folder.mkdir(parents=True)
    for file in IDX_FILES:
        (tmp_path / "site" / file).rename(folder / file)
    there = "https://example.org/mnist/"
    monkeypatch.setattr(module, "MNIST_URL", there)
    for table in ("IDX_HASHES", "IDX_CONTENT_HASHES"):
        monkeypatch.setattr(module, table, {there: getattr(module, table)[site]})
    monkeypatch.setenv("FOVEATE_MIRROR", f"{site}foveate")
    assert len(load_dataset("mnist")) == 50


CIFAR_FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def cifar_record(label: int, image: np.ndarray) -> bytes:
    """A record of the published format: the label, then 1,024 bytes each of red, green and blue."""
    return bytes([label, *image[..., 0].ravel(), *image[..., 1].ravel(), *image[..., 2].ravel()])


def cifar_archive(path: Path, odd: tarfile.TarInfo | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ten images in each of six files; `odd` replaces the one of its name, or data_batch_2.bin."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) * 7 % 10
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(CIFAR_FILES):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            if odd is not None and name == "data_batch_2.bin":
                tar.addfile(odd)
                continue
            rows = range(10 * number, 10 * number + 10)
            body = b"".join(cifar_record(int(labels[i]), images[i]) for i in rows)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return images, labels


def use_archive(site: str, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CIFAR_10", remote(site, archive))


def test_cifar10(tmp_path: Path, site: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "site" / "cifar.tar.gz"
    images, labels = cifar_archive(archive)
    use_archive(site, archive, monkeypatch)
    dataset = load_dataset("cifar10")
    assert dataset.classes == CIFAR
    check(dataset, "train", images[:50], labels[:50])
    check(dataset, "test", images[50:], labels[50:])
    assert [p.name for p in (cache / "datasets" / "cifar10").iterdir()] == [
        "cifar-10-binary.tar.gz"
    ]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "odd,names",
    [
        (
            member("cifar-10-batches-bin/data_batch_2.bin", tarfile.SYMTYPE, "/etc/passwd"),
            ["regular file"],
        ),
        (
            member("cifar-10-batches-bin/data_batch_2.bin", tarfile.SYMTYPE, "data_batch_1.bin"),
            ["regular file"],
        ),
        (
            member(
                "cifar-10-batches-bin/data_batch_2.bin",
                tarfile.LNKTYPE,
                "cifar-10-batches-bin/data_batch_1.bin",
            ),
            ["regular file"],
        ),
        (member("cifar-10-batches-bin/data_batch_2.bin", tarfile.DIRTYPE), ["regular file"]),
        (
            member("cifar-10-batches-bin/data_batch_2.bin", tarfile.FIFOTYPE),
            ["regular file"],
        ),
        (member("cifar-10-batches-bin/data_batch_2.bin", tarfile.CHRTYPE), ["regular file"]),
        (
            member("../data_batch_2.bin", tarfile.REGTYPE),
            ["lacks"],
        ),
        (member("/data_batch_2.bin", tarfile.REGTYPE), ["lacks"]),
    ],
    ids=["link out", "link within", "hard link", "folder", "pipe", "device", "above", "absolute"],
)
def test_archives_with_odd_members(
    tmp_path: Path,
    site: str,
    monkeypatch: pytest.MonkeyPatch,
    odd: tarfile.TarInfo,
    names: list[str],
) -> None:
    archive = tmp_path / "site" / "cifar.tar.gz"
    cifar_archive(archive, odd)
    use_archive(site, archive, monkeypatch)
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    with refused(DataError, "'cifar-10-batches-bin/data_batch_2.bin'", *names):
        load_builtin("cifar10")
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


def test_published_hashes_are_whole() -> None:
    assert set(BUILTIN) == {"digits", "fashion-mnist", "mnist", "cifar10"}
    known = [*module.IDX_HASHES[module.FASHION_URL], *module.IDX_HASHES[module.MNIST_URL]]
    known.append((module.CIFAR_10.sha256, module.CIFAR_10.size))
    assert all(len(bytes.fromhex(digest)) == 32 and size > 0 for digest, size in known)
    assert module.IDX_CONTENT_HASHES.keys() == module.IDX_HASHES.keys()
    contents = [digest for hashes in module.IDX_CONTENT_HASHES.values() for digest in hashes]
    assert (
        [len(bytes.fromhex(digest)) for digest in contents] == [32] * len(set(contents)) == 8 * [32]
    )
    assert len({digest for digest, _ in known}) == 9
    for url in (module.FASHION_URL, module.MNIST_URL, module.CIFAR_10.url):
        assert url.startswith("https://")


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 7]], ids=["too few", "out of range"])
def test_labels_that_do_not_fit_are_refused(
    labels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = (np.zeros((3, 2, 2), np.uint8), np.array(labels))
    monkeypatch.setitem(BUILTIN, "digits", lambda: (("a", "b"), {"train": part}))
    with refused(DataError, "train", "'digits'", "damaged"):
        load_builtin("digits")
