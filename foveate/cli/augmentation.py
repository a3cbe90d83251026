"""The options of augmentation on the command line, made from the parts themselves.

`@takes_augmentation` gives a command an option for each option of each part, so that a new part is
there without a line here; `given_parts` reads them back.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

import typer

from foveate.cli.help import AUGMENTATION
from foveate.data.augment import PARTS, PolicyOptions, options_of
from foveate.data.augment.part import Number, Option, Pair

Policy = Annotated[
    Literal["none", "light", "standard", "strong"] | None,
    typer.Option(
        "--augment", rich_help_panel=AUGMENTATION, help="Policy [default: chosen from the data]"
    ),
]


def takes_augmentation(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all parts to a command, behind its parameter `augment`.

    typer reads a command's options from its signature: this writes one. The command itself is
    called with its own parameters alone, and finds the others in its context.
    """
    own = inspect.signature(command, eval_str=True)
    parameters = list(own.parameters.values())
    behind = 1 + list(own.parameters).index("augment")
    parameters[behind:behind] = [option_of(*named) for named in options_of(PARTS).items()]

    @wraps(command)
    def run(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name in own.parameters})

    # where inspect.signature looks first; functions have no such attribute in typeshed
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def option_of(name: str, option: Option) -> inspect.Parameter:
    """A part's option as a parameter that typer understands."""
    flag = name.replace("_", "-")
    declared = [f"--{flag}/--no-{flag}"] if option.type is bool else []
    metavar = "FROM TO" if isinstance(option, Pair) else None
    default = typer.Option(
        None, *declared, help=option.help, metavar=metavar, rich_help_panel=AUGMENTATION
    )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=option.type | None)


def given_parts(context: typer.Context) -> dict[str, Any]:
    """The options of `Augment` that were given on the command line."""
    given = {}
    for name, option in options_of(PARTS).items():
        value = context.params.get(name)
        if value is not None:
            flag = option.flag if isinstance(option, Number) else None
            given[name] = value if flag is None else flag * value
    return given


def given_augment(context: typer.Context) -> PolicyOptions | None:
    """The policy and the options that were given; None if none was."""
    policy, options = context.params["augment"], given_parts(context)
    return PolicyOptions(policy, options) if policy or options else None
