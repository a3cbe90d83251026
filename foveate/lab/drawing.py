"""How the figures of experiments look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foveate.storage import replacing

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B0A000")
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib: figures are the same everywhere
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "foveate",
    "svg.fonttype": "path",
}


def style() -> Any:
    """A context in which figures look like this."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def figure(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.2) -> Any:
    """A matplotlib Figure, and its axes as an array of (rows, columns)."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False)


def line(axes: Any, x: Sequence[float], y: ArrayLike, number: int, label: str = "") -> None:
    """A line with its points, in the colour of that number; of (runs, points), the mean over runs
    and their spread."""
    values = np.atleast_2d(np.asarray(y, float))
    colour = COLOURS[number % len(COLOURS)]
    middle = values.mean(axis=0)
    axes.plot(x, middle, color=colour, label=label or None, marker="o", markersize=3, linewidth=1.5)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def bars(axes: Any, names: Sequence[str], values: Sequence[float], form: str = "{:.3g}") -> None:
    """Horizontal bars with their names and values, from top to bottom."""
    places = range(len(names))
    axes.barh(places, values, color=[COLOURS[i % len(COLOURS)] for i in places], height=0.7)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            form.format(value),
            (value, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
        )
    axes.margins(x=0.15)


def dots(axes: Any, runs: dict[str, list[float]], label: str) -> None:
    """A row for each name, with a dot for each of its runs and a mark at their mean."""
    for place, values in enumerate(runs.values()):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.4, markersize=4)
        axes.plot([np.mean(values)], [place], "|", color=colour, markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set(xlabel=label, ylim=(len(runs) - 0.5, -0.5))


def image(axes: Any, pixels: ArrayLike, title: str = "", **options: Any) -> None:
    """An image without axes; (H, W) is grey. `options` are those of `Axes.imshow`."""
    values = np.asarray(pixels)
    grey = {"cmap": "gray"} if values.ndim == 2 else {}
    axes.imshow(values, interpolation="nearest", **(grey | options))
    axes.set_title(title, fontsize=8, loc="center")
    axes.set_axis_off()


def divided(made: Any, axes: Any, row: int, parts: int) -> list[Any]:
    """New axes in the place of a row of a figure's: so many, of equal width."""
    grid = axes[row, 0].get_gridspec()
    for old in axes[row]:
        old.remove()
    inner = grid[row, :].subgridspec(1, parts)
    return [made.add_subplot(inner[0, part]) for part in range(parts)]


def sheet(axes: Any, images: ArrayLike, names: Sequence[str], columns: Sequence[str] = ()) -> None:
    """Images of one size in rows, which have names; (rows, columns, H, W, channels), in [0, 1]."""
    values = np.asarray(images)
    frame = max(1, values.shape[2] // 40)
    around = (frame, frame)
    framed = np.pad(values, ((0, 0), (0, 0), around, around, (0, 0)), constant_values=1)
    n, m, height, width, channels = framed.shape
    joined = framed.swapaxes(1, 2).reshape(n * height, m * width, channels)
    axes.imshow(joined.repeat(3 // channels, axis=2), interpolation="nearest")
    axes.set_yticks([(i + 0.5) * height for i in range(n)], names)
    axes.set_xticks([(i + 0.5) * width for i in range(len(columns))], columns)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def save(made: Any, path: Path) -> None:
    """Write a Figure as `path`.png and `path`.svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    made.set_dpi(150)
    with replacing(path.with_suffix(".png")) as temporary:
        raster: Any = FigureCanvasAgg(made)
        raster.print_png(str(temporary))
    with replacing(path.with_suffix(".svg")) as temporary:
        canvas: Any = FigureCanvasSVG(made)
        canvas.print_svg(str(temporary), metadata={"Date": None})  # the same file every time
