"""The report of an audit: what is wrong with a data set, with the images that it is about."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from foveate.data.dataset import Dataset
from foveate.progress import Progress
from foveate.report import sections
from foveate.report.answer import percent
from foveate.report.page import ABSENT, thumbnails, write_page
from foveate.report.run import IN_SET, REPORT, SETS, Shown, ShownSet, wrong_data
from foveate.report.texts import Texts, isolated


def write_audit(
    folder: Path,
    dataset: Dataset,
    found: dict[str, Any],
    lang: str,
    threads: int,
    progress: Progress,
) -> Path:
    """Write `report.html` into the folder of an audit.

    Args:
        folder: of its files.
        dataset: the images.
        found: what its audit.json holds.
        lang: "en" or "zh".
        threads: cores to use.
        progress: is advanced with each thumbnail.

    Returns:
        The page.

    Raises:
        UsageError: another's report.html is there; no such language.
        FoveateError: it cannot be written.
    """
    t, out = Texts(lang), folder / REPORT
    sets = [*leaks(found, t), *wrong_data(found, found["groups"], t)]
    files = list(dict.fromkeys(shown.file for one in sets for shown in one.images))
    images = thumbnails(dataset, files, threads, progress)
    held = sum(bool(image) for image in images.values())
    problems = what_is_wrong(found, t)
    table, more = sections.classes(dataset.counts(), None, t)
    values = ABSENT | {
        "title": t("title_audit", data=dataset.name),
        "about": t("about_audit", images=len(dataset), classes=len(dataset.classes)),
        "answer": [t("audit_found", n=len(problems)), estimate(found["estimate"], t)],
        "problems": problems,
        "classes": table,
        "more_classes": more,
        "sets": sets,
        "notes": sections.notes(dataset.notes),
        "images": images,
        "held": held,
        "gone": len(files) - held,
    }
    write_page(out, t, values)
    return out


def what_is_wrong(found: dict[str, Any], t: Texts) -> list[Markup]:
    """Each kind of finding in a sentence."""
    said = []
    if found["leaks"]:
        first = found["leaks"][0]
        n = len(found["leaks"])
        said.append(t("audit_leaks", n=n, file=first["file"], of=first["of"]))
    said += sections.wrong_labels(found, t)
    alone = [name for name, n in found["classes"].items() if n["groups"] == 1]
    if alone:
        said.append(t("found_unjudged", n=len(alone), name=alone[0]))
    said += sections.grouped(found["groups"], t) + sections.faults(found["images"], t)
    for pair in found["alike"]:
        (a, b), (first_share, second_share) = pair["classes"], pair["taken_for_the_other"]
        shares = {"first": percent(first_share, 0), "second": percent(second_share, 0)}
        said.append(t("found_alike", a=a, b=b, **shares))
    return said + sections.left_out(found["bad"], (), t)


def estimate(found: dict[str, Any], t: Texts) -> Markup:
    """What a probe's accuracy would be, and what memory adds to it."""
    honest, among = found["honest"], found["among_copies"]
    if honest is None or honest["accuracy"] is None:
        return t("audit_unknown")
    sentence = t("audit_accuracy", accuracy=percent(honest["accuracy"]))
    if interval := honest["accuracy_ci95"]:
        sentence += t("interval", low=percent(interval[0]), high=percent(interval[1]))
    if among and among["memory"] > 0:
        memory = f"{100 * among['memory']:.1f}"
        return sentence + t("audit_memory", accuracy=percent(among["accuracy"]), memory=memory)
    return sentence + t("full_stop")


def leaks(found: dict[str, Any], t: Texts) -> list[ShownSet]:
    """Images of two splits, each beside the one that it is like."""
    shown = []
    for one in found["leaks"][: SETS * IN_SET // 2]:
        shown.append(Shown(one["file"], [sections.named(t, one["split"]), isolated(one["kind"])]))
        shown.append(Shown(one["of"], [sections.named(t, one["of_split"])]))
    return [ShownSet(t("leaks_shown"), shown)] if shown else []
