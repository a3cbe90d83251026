"""Panels of `--help`, and what a shell completes.

Plain text on purpose: rich's panels would take as long to import as all else that help does, and
read no better without colour or in 80 columns.
"""

from glob import escape
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

EVERYDAY = "Everyday"
DATA = "Data"
STEPS = "Fine-tuning, and training from scratch"
AUGMENTATION = "Augmentation"
EXECUTION = "Execution"
PANELS = (EVERYDAY, DATA, STEPS, AUGMENTATION, EXECUTION)  # in this order


class Verb(TyperCommand):
    """A verb whose options are listed by panel; those of no panel are for every day. Where all
    are, they are its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[Any]] = {name: [] for name in ("Arguments", *PANELS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if parameter.param_type_name == "argument":
                sections["Arguments"].append(record)
            elif record is not None:
                sections[getattr(parameter, "rich_help_panel", None) or EVERYDAY].append(record)
        if not any(sections[panel] for panel in PANELS[1:]):
            sections = {"Arguments": sections["Arguments"], "Options": sections[EVERYDAY]}
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def complete_networks(incomplete: str) -> list[str]:
    """Names of networks."""
    from foveate.catalogue import CATALOGUE

    return [name for name in CATALOGUE if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Names of published weights."""
    from foveate.weights import WEIGHTS

    return [name for name in WEIGHTS if name.startswith(incomplete)]


def complete_families(incomplete: str) -> list[str]:
    """Families of networks, as `models --family` takes them."""
    from foveate.catalogue import CATALOGUE

    families = {entry.family.lower().replace(" ", "") for entry in CATALOGUE.values()}
    return sorted(family for family in families if family.startswith(incomplete))


def complete_data(incomplete: str) -> list[str]:
    """Built-in sets, where no file begins so: paths are completed by the shell itself, as soon as
    it is given nothing else."""
    path = Path(incomplete)
    folder, name = (path, "") if incomplete.endswith(("/", "\\")) else (path.parent, path.name)
    if any(folder.glob(escape(name) + "*")):
        return []
    from foveate.data.builtin import BUILTIN

    return [name for name in BUILTIN if name.startswith(incomplete)]
