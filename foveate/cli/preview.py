"""foveate data preview"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from foveate.cli import settings
from foveate.cli.augmentation import Policy, given_parts, takes_augmentation
from foveate.cli.console import JSON_HELP, clean, print_json, say
from foveate.cli.help import DATA

if TYPE_CHECKING:
    from PIL import Image

    from foveate.data.augment import Augment
    from foveate.data.batches.assembly import Batch
    from foveate.data.dataset import Dataset
    from foveate.data.preprocess import Preprocess

GAP, MARGIN = 4, 16  # pixels
LEAST_CELL = 96  # pixels a side; smaller images are shown larger, by whole pixels
INK, PAPER, FAINT = (32, 32, 32), (255, 255, 255), (110, 110, 110)


@takes_augmentation
def preview(
    context: typer.Context,
    data: settings.Data,
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="The image to write.")],
    task: settings.Task = "multiclass",
    augment: Policy = None,
    size: Annotated[
        int,
        typer.Option(
            min=8, max=1024, rich_help_panel=DATA, help="Side in pixels of what the network reads."
        ),
    ] = 224,
    channels: Annotated[
        Literal["1", "3"], typer.Option(rich_help_panel=DATA, help="Grey or colour.")
    ] = "3",
    rows: Annotated[int, typer.Option(min=1, max=40, help="Images, of different classes.")] = 6,
    columns: Annotated[
        int, typer.Option(min=1, max=40, help="Variants of each, one an epoch.")
    ] = 6,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="As in training; it also chooses the images.")
    ] = 0,
    epoch: Annotated[int, typer.Option(min=0, max=99_999, help="The first one shown.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Draw what training will see: each image as evaluation sees it, beside its variants of the
    first epochs."""
    from dataclasses import replace

    from foveate.data.augment import Augment
    from foveate.data.augment.policies import resolve
    from foveate.data.layouts import load_dataset
    from foveate.data.levels import find_levels
    from foveate.data.preprocess import Preprocess
    from foveate.errors import UsageError
    from foveate.machine import cores
    from foveate.storage import replacing

    if out.suffix.lower() != ".png":
        raise UsageError(f"'{out}' must end in .png")
    dataset = split(load_dataset(data, task), seed)
    n = int(channels)
    preprocess = Preprocess(scale_for(size), size, channels=n, mean=(0.5,) * n, std=(0.5,) * n)
    levels = find_levels(dataset, training_rows(dataset), cores())
    preprocess = replace(preprocess, levels=levels.levels)
    choice = resolve(dataset, size, n, augment, given_parts(context))
    augmentation = choice.augmentation.fit(
        dataset, rows=training_rows(dataset), preprocess=preprocess
    )
    shown = show(dataset, augmentation, preprocess, rows, range(epoch, epoch + columns), seed)
    changed = "" if choice.augmentation == Augment(choice.policy) else ", with changes"
    done = ", ".join(augmentation.describe())
    footer = [f"policy {choice.policy}{changed}: {done}; seed {seed}"]
    notes = [*dataset.notes, *choice.reasons, *([levels.note] if levels.note else [])]
    footer += [f"note  {reason}" for reason in notes]
    grid = draw_grid(shown, [f"epoch {e}" for e in range(epoch, epoch + columns)], footer)
    with replacing(out) as temporary:
        grid.save(temporary, format="PNG")
    if as_json:
        print_json(
            {
                "file": str(out),
                "policy": choice.policy,
                "reasons": notes,
                "augmentation": augmentation.to_dict(),
                "images": [row.file for row in shown if row.file],
            }
        )
        return
    for line in footer:
        say(line)
    say(f"grid  {out}   ({grid.width}x{grid.height})")


class Row(NamedTuple):
    """One line of the grid: `cells` are (H, W, C), uint8; the mixed line has no original, no file,
    and captions."""

    name: str
    file: str
    original: Any
    cells: list[Any]
    captions: list[str]


def scale_for(size: int) -> int:
    """The shorter side to which evaluation resizes for networks of this input: 256 for 224, as
    published ones do."""
    from foveate.data.augment.policies import SMALL

    return size if size <= SMALL else round(size * 256 / 224)


def split(dataset: "Dataset", seed: int) -> "Dataset":
    """With the splits of a training: what it holds out is not augmented, and does not count when a
    policy is chosen."""
    from foveate.data.splits import with_splits
    from foveate.errors import DataError

    try:
        return with_splits(dataset, seed)[0]
    except DataError:  # so few images that nothing can be held out
        return dataset


def training_rows(dataset: "Dataset") -> Any:
    import numpy as np

    from foveate.errors import DataError, quoted

    rows = np.flatnonzero([split == "train" for split in dataset.splits])
    if not len(rows):
        raise DataError(f"{quoted(dataset.name)} has no training images")
    return rows


def show(
    dataset: "Dataset",
    augmentation: "Augment",
    preprocess: "Preprocess",
    rows: int,
    epochs: range,
    seed: int,
) -> list[Row]:
    """Images of different classes with their variants, and at the end those that mixup or CutMix
    makes of them."""
    import numpy as np

    from foveate.data.batches import TrainingBatches
    from foveate.data.preprocess import decode
    from foveate.errors import DataError, ImageError, quoted

    originals: dict[int, Any] = {}
    for row in candidates(dataset, seed):
        try:
            originals[row] = decode(dataset.read(row), dataset.files[row], preprocess)
        except ImageError:
            continue
        if len(originals) == rows:
            break
    if not originals:
        raise DataError(f"none of the training images of {quoted(dataset.name)} can be read")

    def batches(augmentation: "Augment") -> "Iterator[Batch]":
        """One an epoch, of all the images, by the code that training runs."""
        made = TrainingBatches(
            dataset, np.array(list(originals)), preprocess, augmentation, len(originals), seed
        )
        for e in epochs:
            yield from made.epoch(e)

    variants: dict[int, list[Any]] = {row: [] for row in originals}
    for batch in batches(augmentation.replace(mixup=0.0, cutmix=0.0)):
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            variants[int(row)].append(pixels.permute(1, 2, 0).numpy())
    names = [dataset.label(row) for row in originals]
    shown = [
        Row(name, dataset.files[row], original, variants[row], [])
        for name, (row, original) in zip(names, originals.items(), strict=True)
    ]
    if augmentation.mixup or augmentation.cutmix:
        shown.append(mixed(list(batches(augmentation)), dataset.classes))
    return shown


def candidates(dataset: "Dataset", seed: int) -> Iterator[int]:
    """Training images in random order, in turn from classes that are spread over all."""
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = rng.permutation(training_rows(dataset))
    waiting = [list(rows[dataset.having(c)[rows]]) for c in range(len(dataset.classes))]
    shown: set[int] = set()  # an image may have several labels
    while any(waiting):
        for queue in waiting:
            if queue and (row := int(queue.pop())) not in shown:
                shown.add(row)
                yield row


def mixed(batches: "list[Batch]", classes: tuple[str, ...]) -> Row:
    """The line of mixed images: of each batch the one that is mixed most evenly."""
    cells, captions = [], []
    for batch in batches:
        most = int(batch.targets.max(dim=1).values.argmin())
        parts = sorted(
            ((float(share), c) for c, share in enumerate(batch.targets[most]) if share >= 0.005),
            reverse=True,
        )
        cells.append(batch.pixels[most].permute(1, 2, 0).numpy())
        captions.append(" + ".join(f"{100 * share:.0f} % {classes[c]}" for share, c in parts))
    return Row("mixed", "", None, cells, captions)


def draw_grid(rows: list[Row], titles: list[str], footer: list[str]) -> "Image.Image":
    """Originals left, variants right, names before them, the policy below."""
    import numpy as np
    from PIL import Image, ImageDraw

    from foveate.lettering import font_for, shorten, wrap

    side = rows[0].cells[0].shape[0]
    zoom = -(-LEAST_CELL // side)
    cell = side * zoom
    size = max(13, min(20, cell // 12))
    names = [clean(row.name) for row in rows]
    name_width = min(220, max(int(font_for(name, size).getlength(name)) for name in names))
    left, top, line = MARGIN + name_width + 2 * GAP, MARGIN + 2 * size, size + 6
    width = left + (cell + GAP) * (1 + len(titles)) + 2 * GAP + MARGIN
    wrapped = [part for text in footer for part in wrap(clean(text), width - 2 * MARGIN, size)]
    captions = line if any(row.captions for row in rows) else 0
    height = top + (cell + GAP) * len(rows) + captions + GAP + line * len(wrapped) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int, colour: tuple[int, int, int] = INK) -> None:
        text = shorten(text, room, size)
        pen.text((x, y), text, colour, font_for(text, size))

    xs = [left + (cell + GAP) * i + (2 * GAP if i else 0) for i in range(1 + len(titles))]
    for x, title in zip(xs, ["original", *titles], strict=True):
        write(x, MARGIN, title, cell, FAINT)
    y = top
    for row, name in zip(rows, names, strict=True):
        write(MARGIN, y + cell // 2 - size // 2, name, name_width)
        for x, pixels in zip(xs, [row.original, *row.cells], strict=True):
            if pixels is not None:
                rgb = (
                    np.broadcast_to(pixels, (side, side, 3))
                    .repeat(zoom, axis=0)
                    .repeat(zoom, axis=1)
                )
                sheet.paste(Image.fromarray(rgb), (x, y))
        for x, caption in zip(xs[1:], row.captions, strict=False):
            write(x, y + cell + 2, clean(caption), cell, FAINT)
        y += cell + GAP
    y += captions + GAP
    for text in wrapped:
        write(MARGIN, y, text, width)
        y += line
    return sheet
