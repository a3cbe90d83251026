"""The command line: one file per verb. The only place that prints or exits.

Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 failure, 2 usage, 3
missing extra, 4 bad data, 5 bad run or model file, 75 stopped by SIGUSR1 to be queued again, 130
Ctrl-C, 143 SIGTERM.
"""

import importlib
import os
import signal
import sys
import warnings
from difflib import get_close_matches
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from foveate import arguments
from foveate.cli.console import (
    any_console,
    complain,
    flush,
    forget_output,
    is_of_output,
    log_to_stderr,
    unwritten,
)
from foveate.cli.help import Verb
from foveate.errors import FoveateError

VERBS = {  # as `foveate --help` lists them; each is a module of its name
    "train": "Turn labelled images into a classifier, and measure it.",
    "predict": "Classify images.",
    "evaluate": "Measure a classifier on labelled images.",
    "explain": "Show which parts of an image speak for a class, checked.",
    "compare": "Train several networks on the same images, or lay runs over one another.",
    "review": "Show the labels of a run that may be wrong, on one page.",
    "advise": "Say what would help a probe most.",
    "report": "Write the report of a run: what it can do, and what it confuses.",
    "verify": "Compute the numbers of a run again.",
    "export": "Write a classifier for another runtime, proven.",
    "serve": "Answer over HTTP, with a page to drop images on.",
    "models": "List the networks, or describe one.",
    "data": "Inspect data sets and the cache.",
    "weights": "Check weights files and published figures.",
    "lab": "Run an experiment of the lecture on deep networks.",
    "doctor": "Show what Foveate finds on this machine.",
    "demo": "Train on digits that are installed with Foveate.",
}


TYPER: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class Verbs(TyperGroup):
    """The verbs. A verb's module is loaded when it is called: to read all their options takes as
    long as all else that `foveate --help` does."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    completing = False  # the name of a verb

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self.completing = True
        return super().shell_complete(ctx, incomplete)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in VERBS:
            return None
        if self.completing:
            return TyperCommand(name, help=VERBS[name])
        module = importlib.import_module(f"foveate.cli.{name}")
        if hasattr(module, "app"):  # a verb of verbs
            return get_command(module.app)
        command = typer.Typer(add_completion=False, **TYPER)
        command.command(name, cls=Verb)(getattr(module, name))
        return get_command(command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        near = [repr(name) for name in get_close_matches(args[0], VERBS)]
        if near and args[0] not in VERBS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="foveate",
    cls=Verbs,
    help="A folder of images becomes a classifier you can trust.",
    epilog="Start with: foveate demo   or   foveate train PHOTOS",
    no_args_is_help=True,
    **TYPER,
)


def version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        from foveate import __version__

        typer.echo(f"foveate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network (as FOVEATE_OFFLINE=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    log_to_stderr()
    if debug:
        os.environ["FOVEATE_DEBUG"] = "1"
    if offline:
        os.environ["FOVEATE_OFFLINE"] = "1"  # also for the processes that this one starts


def terminate(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like an error, so that what is half-written is removed."""
    raise SystemExit(143)


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, terminate)
    arguments.ON_THE_COMMAND_LINE = True  # messages spell options as it does
    # Pillow warns of damaged EXIF blocks and the like, which users cannot act on
    warnings.filterwarnings("ignore", module="PIL")
    try:
        any_console()
        try:
            app(prog_name="foveate")  # also as python -m foveate
        except OSError as error:
            if not is_of_output(error):
                raise
            forget_output()
            raise unwritten(error) from error
        finally:
            flush()
    except FoveateError as error:
        if os.environ.get("FOVEATE_DEBUG"):
            raise
        complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if os.environ.get("FOVEATE_DEBUG"):
            raise
        complain(
            f"unexpected error ({type(error).__name__}: {error}); for the traceback run: "
            "foveate --debug ..."
        )
        sys.exit(1)
