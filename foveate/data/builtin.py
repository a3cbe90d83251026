"""Built-in data sets.

Their images are arrays; each is encoded as a PNM file, the simplest image format, so that all other
code reads them like files.
"""

import gzip
import hashlib
import io
import logging
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.data.layouts import index
from foveate.download import Remote, fetch, is_published
from foveate.errors import DataError, quoted
from foveate.storage import cache_root

Pixels = NDArray[np.uint8]  # (N, H, W) grey or (N, H, W, 3) RGB
Part = tuple[Pixels, NDArray[np.int64]]  # images and labels of a split

FASHION = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist

FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
IDX_HASHES = {
    FASHION_URL: (
        ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    ),
    MNIST_URL: (
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    ),
}
# Of the files without gzip: what is put in the cache by hand may be packed by another gzip, or not
# at all. Fashion-MNIST's were computed from Debian's package, whose files have the hashes above
# once the names and times that it leaves out are put back. MNIST's are as several projects that
# check both hashes publish them.
IDX_CONTENT_HASHES = {
    FASHION_URL: (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    MNIST_URL: (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
CIFAR_10 = Remote(  # no hash of its content is known: it is taken as it was published only
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)


def load_builtin(name: str) -> Dataset:
    """One of BUILTIN as a Dataset; downloaded to the cache if it is not installed."""
    classes, parts = BUILTIN[name]()
    pixels = np.concatenate([images for images, _ in parts.values()])
    rows: list[tuple[str, str, str, str]] = []
    position: dict[str, int] = {}
    for split, (images, labels) in parts.items():
        if len(images) != len(labels) or labels.max() >= len(classes):
            raise DataError(
                f"the {split} split of {quoted(name)} is damaged: its labels do not fit its images"
            )
        for i, label in enumerate(labels):
            file = f"{split}/{classes[label]}/{i:05d}.pnm"
            position[file] = len(position)
            rows.append((file, classes[label], split, ""))
    dataset = index(name, "built-in set", rows, partial(read_pnm, pixels, position))
    ordered = pixels[[position[file] for file in dataset.files]]  # `index` has sorted the files
    return replace(dataset, pixels=ordered.reshape(*ordered.shape[:3], -1))


def read_pnm(pixels: Pixels, position: dict[str, int], file: str) -> bytes:
    return pnm(pixels[position[file]])


def pnm(pixels: Pixels) -> bytes:
    """(H, W) or (H, W, 3), uint8 -> a PGM or PPM file."""
    height, width = pixels.shape[:2]
    return f"P{5 if pixels.ndim == 2 else 6} {width} {height} 255\n".encode() + pixels.tobytes()


def digits() -> tuple[tuple[str, ...], dict[str, Part]]:
    """1,797 hand-written digits, 8x8, grey, from scikit-learn (UCI, Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # published as 0 to 16
    return tuple("0123456789"), {"train": (pixels, bunch.target.astype(np.int64))}


def fashion_mnist() -> tuple[tuple[str, ...], dict[str, Part]]:
    """70,000 articles of clothing, 28x28, grey (Xiao et al., arXiv:1708.07747)."""
    if (DEBIAN_FASHION / IDX_FILES[0]).is_file():
        return FASHION, idx_parts([DEBIAN_FASHION / name for name in IDX_FILES])
    return FASHION, idx_parts(fetch_idx("fashion-mnist", FASHION_URL))


def mnist() -> tuple[tuple[str, ...], dict[str, Part]]:
    """70,000 hand-written digits, 28x28, grey (LeCun et al. 1998)."""
    return tuple("0123456789"), idx_parts(fetch_idx("mnist", MNIST_URL))


def cifar10() -> tuple[tuple[str, ...], dict[str, Part]]:
    """60,000 photos of ten classes, 32x32 (Krizhevsky 2009)."""
    archive = fetch(CIFAR_10, cache_root() / "datasets" / "cifar10" / "cifar-10-binary.tar.gz")
    batches = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    parts = {}
    with tarfile.open(archive) as tar:
        for split, names in batches.items():
            raw = b"".join(member_bytes(tar, f"cifar-10-batches-bin/{name}") for name in names)
            # a record: label, 1024 red values, 1024 green, 1024 blue
            records = np.frombuffer(raw, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            parts[split] = (np.ascontiguousarray(pixels), records[:, 0].astype(np.int64))
    return CIFAR, parts


def member_bytes(tar: tarfile.TarFile, name: str) -> bytes:
    """A regular file of an archive, read into memory: nothing is written, so no path can escape."""
    try:
        member = tar.getmember(name)
    except KeyError as error:
        raise DataError(f"the archive lacks {quoted(name)}") from error
    file = tar.extractfile(member) if member.isreg() else None  # extractfile would follow a link
    if file is None:
        raise DataError(f"{quoted(name)} in the archive is not a regular file")
    return file.read()


def fashion_is_here() -> bool:
    """Whether Fashion-MNIST is on this machine, so that nothing is downloaded."""
    cached = cache_root() / "datasets" / "fashion-mnist"
    there = all(
        (cached / name).is_file() or (cached / name).with_suffix("").is_file() for name in IDX_FILES
    )
    return there or (DEBIAN_FASHION / IDX_FILES[0]).is_file()


def fetch_idx(name: str, url: str) -> list[Path]:
    """The four IDX files of a set in the cache, downloaded unless they were put there by hand."""
    folder = cache_root() / "datasets" / name
    others = f"where {', '.join(IDX_FILES)} belong, as they are or unpacked (without .gz)"
    by_hand = f"put it in '{folder}', {others}"
    paths = []
    for file, known, content in zip(
        IDX_FILES, IDX_HASHES[url], IDX_CONTENT_HASHES[url], strict=True
    ):
        remote, path = Remote(url + file, *known), folder / file
        found = None if is_published(path, remote) else repacked(path, content)
        paths.append(found or fetch(remote, path, by_hand=by_hand))
    return paths


def repacked(path: Path, content: str) -> Path | None:
    """The .gz file at `path`, or the same without gzip, if its content has this SHA-256.

    Another content is logged, and None.
    """
    for candidate in (path, path.with_suffix("")):
        if not candidate.is_file():
            continue
        try:
            with opened_idx(candidate) as file:
                # gzip's file reads as any other, but its stub has no getbuffer or fileno
                if hashlib.file_digest(file, "sha256").hexdigest() == content:  # type: ignore[arg-type]
                    return candidate
        except (OSError, EOFError, zlib.error):  # no gzip, or damaged
            pass
        message = "'%s' does not have the published content; it is not used"
        logging.getLogger("foveate").warning(message, candidate)
    return None


def opened_idx(path: Path) -> BinaryIO:
    """A file in IDX format, gzipped if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def idx_parts(paths: list[Path]) -> dict[str, Part]:
    """The splits in four IDX files, in the order of IDX_FILES."""
    arrays = [read_idx(path) for path in paths]
    return {
        "train": (arrays[0], arrays[1].astype(np.int64)),
        "test": (arrays[2], arrays[3].astype(np.int64)),
    }


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array from a file in LeCun's IDX format.

    Its header: two zero bytes, the type (8: uint8), the number of dimensions, and the length of
    each as a big-endian int32.
    """
    try:
        with opened_idx(path) as file:
            raw = file.read()
        stream = io.BytesIO(raw)
        zero, kind, dims = int.from_bytes(stream.read(2)), stream.read(1)[0], stream.read(1)[0]
        shape = [int.from_bytes(stream.read(4)) for _ in range(dims)]
        if zero != 0 or kind != 8:
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise DataError(
            f"{quoted(path)} is damaged: {error}; delete it to fetch it again"
        ) from error


BUILTIN: dict[str, Callable[[], tuple[tuple[str, ...], dict[str, Part]]]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
}
