"""Small files in folders, each with different bytes, and the rows of an index of them."""

from pathlib import Path

from foveate.data.dataset import Dataset


def image(number: int = 0) -> bytes:
    return b"P5 2 2 255\n" + number.to_bytes(4)


def fill(root: Path, *names: str) -> Path:
    """The named files below root, each with bytes of its own."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number))
    return root


def rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [
        (file, dataset.classes[label], split)
        for file, label, split in zip(dataset.files, dataset.labels, dataset.splits, strict=True)
    ]
