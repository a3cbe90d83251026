"""foveate data show, audit, preview, pack, cache"""

import re
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, NamedTuple

import typer

from foveate.cli import settings
from foveate.cli.audit import audit
from foveate.cli.console import JSON_HELP, Quiet, TerminalProgress, print_json, print_table, say
from foveate.cli.help import Verb
from foveate.cli.preview import preview

app = typer.Typer(
    help="Inspect data sets and the cache.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
app.command("preview", cls=Verb)(preview)
app.command("audit", cls=Verb)(audit)


@app.command()
def pack(
    data: settings.Data,
    out: Annotated[Path, typer.Argument(help="A new folder for the tars.", show_default=False)],
    size: Annotated[str, typer.Option(help="Size of a tar, such as 500MB.")] = "1GB",
    task: settings.Task = "multiclass",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Write images and labels as tars in WebDataset's layout, which foveate train reads.

    The images' bytes stay as they are. An index beside the tars gives any image by one read.
    """
    from foveate.data.layouts import load_dataset
    from foveate.data.shards import pack
    from foveate.errors import UsageError

    most = bytes_of(size)
    if out.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(f"{out} lies in {data}, of whose images it would be one: choose another")
    dataset = load_dataset(data, task)
    with TerminalProgress(quiet) as progress:
        tars = pack(dataset, out, most, progress)
    total = sum(tar.stat().st_size for tar in tars)
    found = {"folder": str(out), "tars": len(tars), "images": len(dataset), "bytes": total}
    if as_json:
        print_json(found)
        return
    say(f"{len(dataset)} images in {len(tars)} tars, {total / 1e6:.1f} MB")
    for note in dataset.notes:
        say(f"note  {note}")
    say(f"next  foveate train {quote(str(out))}")


def bytes_of(text: str) -> int:
    """A size such as 500MB, in bytes; UsageError for what is none."""
    from foveate.errors import UsageError

    found = re.fullmatch(r"(\d{1,6}) ?(KB|MB|GB)", text.strip().upper())
    if found is None or int(found[1]) < 1:
        raise UsageError(f"--size is a number with KB, MB or GB, such as 500MB, not {text!r}")
    return int(found[1]) * {"KB": 1000, "MB": 1000**2, "GB": 1000**3}[found[2]]


@app.command()
def show(
    data: settings.Data,
    task: settings.Task = "multiclass",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    quiet: Quiet = False,
) -> None:
    """Show layout, classes, counts, splits, sizes and unreadable files. Decodes every image."""
    from foveate.data.dataset import duplicates, listed
    from foveate.data.layouts import load_dataset

    dataset = load_dataset(data, task)
    with TerminalProgress(quiet) as progress:
        seen = inspect(dataset, progress)
    sizes, bad, damaged = seen.sizes, seen.bad, seen.damaged
    notes = [*dataset.notes, *seen.notes]
    counts = dataset.counts()
    found = {
        "name": dataset.name,
        "layout": dataset.layout,
        "task": dataset.task,
        "images": len(dataset),
        "classes": list(dataset.classes),
        "counts": counts,
        "sizes": {f"{w}x{h}": n for (w, h), n in sizes.most_common()},
        "bad": bad,
        "damaged": damaged,
        "ignored": list(dataset.ignored),
        "duplicates": [list(names) for names in duplicates(dataset)],
        "notes": notes,
    }
    if as_json:
        print_json(found)
        return
    splits = list(counts)
    kinds = "with {} labels" if task == "multilabel" else "in {} classes"
    kinds = kinds.format(len(dataset.classes))
    say(f"{dataset.name}: {dataset.layout}; {len(dataset)} images {kinds}")
    rows = [[c, *(str(counts[s][c]) for s in splits)] for c in dataset.classes]
    total = Counter(dataset.splits)
    print_table("", ["class", *splits], [*rows, ["all", *(str(total[s]) for s in splits)]])
    if sizes:
        sides = sorted(min(size) for size in sizes.elements())
        common = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sizes.most_common(3))
        say(
            f"shorter side {sides[0]} to {sides[-1]} pixels, median {sides[len(sides) // 2]}; most "
            f"often {common}"
        )
    for name, reason in (bad | damaged).items():
        say(f"bad   {name}: {reason}")
    same = duplicates(dataset)
    if same:
        say(f"note  {len(same)} images have byte-identical duplicates: {listed(same[0], 3)}")
    for note in notes:
        say(f"note  {note}")


class Seen(NamedTuple):
    """Of all images: how often each size occurs, the unreadable files and the damaged ones with
    the reasons, and sentences for people."""

    sizes: Counter[tuple[int, int]]
    bad: dict[str, str]
    damaged: dict[str, str]
    notes: list[str]


def inspect(dataset: Any, progress: Any) -> Seen:
    """Decode every image. A file that does not come in time ends it, as it ends a training."""
    import numpy as np

    from foveate.data import workers
    from foveate.data.image import load_image
    from foveate.data.levels import find_levels
    from foveate.errors import ImageError
    from foveate.machine import cores

    levels, note = find_levels(dataset, np.arange(len(dataset)), cores())
    damaged: dict[str, str] = {}

    def size(i: int) -> tuple[int, int] | ImageError:
        name, damage = dataset.files[i], list[str]()
        try:
            shape = load_image(dataset.read(i), name, None, levels, damage.append).size
        except ImageError as error:
            return error
        if damage:
            damaged[name] = damage[0]
        return shape

    sizes: Counter[tuple[int, int]] = Counter()
    bad: dict[str, str] = {}
    progress.begin("images", len(dataset))
    name = dataset.files.__getitem__
    outcomes = workers.work_ahead(
        range(len(dataset)), size, name, cores(), 4 * cores(), workers.LIMIT
    )
    for i, outcome in enumerate(outcomes):
        progress.advance()
        if isinstance(outcome, ImageError):
            bad[name(i)] = str(outcome)
        else:
            sizes[outcome] += 1
    return Seen(sizes, bad, damaged, [note] if note else [])


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete what is cached.")] = False,
    size: Annotated[
        bool, typer.Option("--size", help="Show how large it is (the default).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """The cache: features, converted networks and weights, downloaded sets. Runs are not in it."""
    from foveate.errors import UsageError
    from foveate.storage import cache_root, cache_size, clear_cache

    if clear and size:
        raise UsageError("--clear and --size exclude each other")
    if clear:
        freed = clear_cache()
        if as_json:
            print_json({"folder": str(cache_root()), "freed": freed})
        else:
            say(f"freed {freed / 1e6:.1f} MB")
        return
    parts = cache_size()
    if as_json:
        print_json({"folder": str(cache_root()), "bytes": parts})
        return
    say(f"cache  {cache_root()}")
    for part, bytes_ in parts.items():
        say(f"{part:<10} {bytes_ / 1e6:8.1f} MB")
    say(f"{'all':<10} {sum(parts.values()) / 1e6:8.1f} MB")
