"""The report of an evaluation: how good a classifier is on labelled images that it is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveate.metrics import believed
from foveate.report import sections
from foveate.report.answer import believable, headline_of, how_good
from foveate.report.calibration import calibrate
from foveate.report.charts import reliability_curve
from foveate.report.page import ABSENT, write_page
from foveate.report.plots import CONFUSION, RELIABILITY, plot_confusion, plot_reliability
from foveate.report.run import REPORT
from foveate.report.texts import Texts


def write_evaluation(
    folder: Path,
    name: str,
    figures: dict[str, Any],
    result: dict[str, Any],
    classes: Sequence[str],
    rejection: dict[str, Any] | None,
    lang: str,
) -> Path:
    """Write `report.html`, which holds no image, and `confusion.png` and `reliability.png` into a
    folder.

    Args:
        folder: made if need be.
        name: of the run.
        figures: those of `result` by what they are of, as "test" or "new".
        result: what `evaluate` returns of labelled images.
        classes: of the classifier.
        rejection: its run's certificate, if it refuses.
        lang: "en" or "zh".

    Returns:
        The page.

    Raises:
        UsageError: another's report.html is there; no such language.
        FoveateError: it cannot be written.
    """
    t, split, out = Texts(lang), headline_of(figures), folder / REPORT
    found = believed(figures[split])
    calibration = calibrate((found or {}).get("reliability"))
    table, more = sections.classes({}, found, t)
    values = ABSENT | {
        "title": (
            t("title_own", run=name)
            if result["data"] is None  # the images that its run held back
            else t("title_evaluation", run=name, data=result["data"])
        ),
        "about": t("about_audit", images=result["n"], classes=len(classes)),
        "answer": [
            how_good(split, figures[split], classes, t),
            believable(found, calibration, rejection, t),
        ],
        "figures": sections.figures(figures, t),
        "beside": [*sections.beside_figures(figures, t), *sections.slices(result, t)],
        "problems": sections.left_out(result["bad"], (), t),
        "classes": table,
        "more_classes": more,
        "confusion": sections.confusions(found, classes, t),
        "calibration": calibration and reliability_curve(calibration.bins, t),
        "refusal": sections.refusal(rejection, t),
        "notes": sections.notes(result["notes"]),
    }
    write_page(out, t, values)
    if found is not None and "confusion" in found:
        plot_confusion(folder / CONFUSION, found["confusion"], classes)
    if calibration is not None:
        plot_reliability(folder / RELIABILITY, calibration.bins)
    return out
