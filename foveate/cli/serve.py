"""foveate serve"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from foveate.cli.console import Quiet, complain, say
from foveate.cli.help import EXECUTION


def serve(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a classifier's.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on. Others than this machine need --token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes any that is free.")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(help="What requests must bring; FOVEATE_TOKEN keeps it out of lists."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which clients call this machine."),
    ] = None,
    show_training: Annotated[
        bool, typer.Option("--show-training", help="Name the nearest training images.")
    ] = False,
    max_mb: Annotated[
        int, typer.Option(min=1, max=1000, help="Megabytes of one request, at most.")
    ] = 32,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request, at most.")] = 64,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Images that may wait; beyond, requests get 503.")
    ] = 256,
    threads: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=EXECUTION, help="Cores to use [default: all]"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP what images show, with a page to drop them on, until Ctrl-C or SIGTERM."""
    from foveate.classifier import Classifier
    from foveate.errors import MissingExtraError, UsageError

    try:
        from foveate.server.app import App
        from foveate.server.connection import http_server, is_local, listen
    except ImportError as error:
        if error.name not in ("starlette", "uvicorn", "python_multipart", "h11"):
            raise
        raise MissingExtraError(
            f"{error.name} is not installed: pip install 'foveate[serve]'"
        ) from error
    from foveate.server.settings import LOCAL_NAMES, Settings

    for talker in ("uvicorn.error", "python_multipart"):  # a line for each request that is no HTTP
        logging.getLogger(talker).setLevel(logging.ERROR)
    token = token or os.environ.get("FOVEATE_TOKEN", "")
    if max_images > max_waiting:
        raise UsageError(f"--max-images {max_images} is more than --max-waiting {max_waiting}")
    listener = listen(host, port)
    with listener:
        local = is_local(listener)
        if not local and not token:
            raise UsageError(
                f"--host {host} lets other machines in: give a --token, or stay on 127.0.0.1"
            )
        classifier = Classifier.load(run, threads)
        settings = Settings(
            token=token,
            hosts=tuple(name.lower() for name in (*LOCAL_NAMES, *(allow_host or ()))),
            any_address=not local,
            show_training=show_training,
            body=max_mb << 20,
            images=max_images,
            waiting=max_waiting,
        )
        app = App(classifier, settings)
        try:
            name, number = listener.getsockname()[:2]
            shown = f"[{name}]" if ":" in name else name
            say(f"serve   http://{shown}:{number}/")
            sys.stdout.flush()
            server = http_server(app)
            server.run([listener])
        finally:
            app.close()
    if server.forced:
        complain("stopped before all requests were answered")
        raise SystemExit(128 + server.forced)
