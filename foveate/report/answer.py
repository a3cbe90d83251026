"""The first two sentences of a report: how good it is, and whether to believe what it says."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from foveate.metrics import believed, worst_confusions
from foveate.report.calibration import Calibration
from foveate.report.texts import Texts

Figures = dict[str, Any]
# what a figure is of: the first of these that may be believed is the answer
ORDER = ("new", "test", "validation", "out_of_fold", "learnt_from")


def percent(share: float, digits: int = 1) -> str:
    """A share for people; the sign stays on the number's line.

    >>> percent(0.9167)
    '91.7\xa0%'
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def headline_of(metrics: dict[str, Any]) -> str:
    """The split that is the answer: the first with a figure, or else the first there is."""
    there = [split for split in ORDER if split in metrics]
    return next((split for split in there if believed(metrics[split])), there[0])


def how_good(split: str, figures: Figures, classes: Sequence[str], t: Texts) -> Markup:
    """How good it is on new images, and what it confuses.

    Args:
        split: its name.
        figures: of it, as metrics.json has them.
    """
    found = believed(figures)
    if found is None:
        if "copies" in figures:
            why = t("why_all_copies", n=figures["copies"]["n"])
        else:
            why = t("why_one_group")
        return t("unknown_accuracy", why=why)
    several = "mean_average_precision" in found
    sentence = t(
        "labels_of_100" if several else "right_of_100",
        right=Markup("<b>{}</b>").format(f"{100 * found['accuracy']:.0f}"),
    )
    interval = found["accuracy_ci95"]
    if interval is None:
        sentence += t("no_interval")
    else:
        sentence += t("interval", low=percent(interval[0]), high=percent(interval[1]))
    sentence += t("measured_on_learnt" if split == "learnt_from" else "measured_on", n=found["n"])
    sentence += mistaken(found, classes, t)
    if split == "out_of_fold" and not figures.get("trusted", True):
        judged, never = found["n"], figures.get("unjudged", {"n": 0})["n"]
        sentence += t("half_unjudged", judged=judged, of=judged + never)
    return sentence


def mistaken(found: Figures, classes: Sequence[str], t: Texts) -> Markup:
    """The commonest mistake; of labels, the one that is known least."""
    if "confusion" not in found:
        seen = {name: m["f1"] for name, m in found["per_class"].items() if m["support"]}
        if not seen:
            return t("full_stop")
        worst = min(seen, key=lambda name: seen[name])
        return t("worst_label", name=worst, f1=f"{seen[worst]:.2f}")
    worst_pair = worst_confusions(found["confusion"], tuple(classes), 1)
    if not worst_pair:
        return t("confuses_nothing")
    return t("confuses", **worst_pair[0])


def believable(
    figures: Figures | None,
    calibration: Calibration | None,
    rejection: dict[str, Any] | None,
    t: Texts,
) -> Markup:
    """Whether to believe its percentages, and what it refuses.

    Args:
        figures: of the answer's split, None where there are none.
        calibration: of its answers, None where these are not known.
        rejection: the certificate, None where nothing is refused.
    """
    if figures is None:
        sentence = t("percentages_unknown")
    elif calibration is None or calibration.verdict is None:
        sentence = t("unchecked", ece=f"{100 * figures['ece']:.1f}")
    else:
        sentence = t(
            calibration.verdict,
            **{
                "believe": {"ece": f"{100 * calibration.error:.1f}"},
                "uneven": {"ece": f"{100 * calibration.error:.1f}"},
            }.get(
                calibration.verdict,
                {
                    "accuracy": percent(calibration.accuracy),
                    "confidence": percent(calibration.confidence),
                },
            ),
        )
    return sentence + refused(rejection, t)


def refused(rejection: dict[str, Any] | None, t: Texts) -> Markup:
    if not rejection:
        return t("refuses_nothing")
    false = list(rejection["false_refusals"].values())[-1]["share"]
    unknown = rejection["unknown_kinds"]["share"]
    if unknown is None:
        return t("refuses_unmeasured", false=percent(false, 0))
    return t("refuses", unknown=percent(unknown, 0), false=percent(false, 0))
