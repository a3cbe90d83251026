"""The command line: one file per verb. The only place that prints or exits.

Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 failure, 2 usage, 3
missing extra, 4 bad data, 5 bad run or model file, 75 stopped by SIGUSR1 to be queued again, 130
Ctrl-C, 143 SIGTERM.
"""

import os
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated

import typer

from foveate.cli import data, demo, doctor, evaluate, models, predict, train, weights
from foveate.cli.console import complain
from foveate.errors import FoveateError

app = typer.Typer(
    name="foveate",
    help="A folder of images becomes a classifier you can trust.",
    epilog="Start with: foveate demo   or   foveate train PHOTOS",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("models")(models.models)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


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
    # Pillow warns of damaged EXIF blocks and the like, which users cannot act on
    warnings.filterwarnings("ignore", module="PIL")
    try:
        app()
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
