"""curves.png: how a training went, in one picture."""

from pathlib import Path
from typing import Any

from foveate.storage import replacing
from foveate.training.record import Record

TRAINING, VALIDATION, MARK = "#4878a8", "#c8643c", "#909090"


def draw_curves(path: Path, history: tuple[Record, ...]) -> None:
    """Loss and accuracy by epoch, training beside validation, and the epoch that is kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    learnt = [r for r in history if r.epoch > 0]
    best = max((r for r in history if r.best), key=lambda r: r.epoch)
    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, mine, its in (
        (left, "log-loss", "loss", "validation_loss"),
        (right, "accuracy", "accuracy", "validation_accuracy"),
    ):
        draw(axes, [r.epoch for r in learnt], [getattr(r, mine) for r in learnt], TRAINING, "training, augmented")
        draw(axes, [r.epoch for r in history], [getattr(r, its) for r in history], VALIDATION, "validation")
        axes.axvline(best.epoch, color=MARK, linewidth=1, linestyle=":")
        axes.annotate(f"kept: {getattr(best, its):.3f}", (best.epoch, getattr(best, its)), fontsize=8,
                      xytext=(4, 6), textcoords="offset points", color=VALIDATION)  # fmt: skip
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]


def draw(axes: Any, x: list[int], y: list[float], colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label, linewidth=1.5, marker="o", markersize=3)
