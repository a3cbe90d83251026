"""The contact sheet of a run: labels that may be wrong, contradictions and the surest mistakes,
with a field for each that makes a table of corrections."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from foveate.data.corrections import Correction, read_corrections
from foveate.data.dataset import Dataset
from foveate.errors import ArtefactError, DataError, UsageError, quoted
from foveate.progress import Progress
from foveate.report.page import damaged, thumbnails
from foveate.runs import read_json, read_lines, settings_of
from foveate.storage import disk_errors, replacing

SHOWN = 4  # images of a line; its correction holds for all
MISTAKES = 30
SHEET = "review.html"
TITLE = b"<title>Review of "


@dataclass(frozen=True)
class Review:
    """What a sheet shows; `why` says why no label can be suspected."""

    suspects: list[dict[str, Any]]
    contradictions: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    why: str
    found: int  # suspects, of which the first are shown
    earlier: tuple[Correction, ...] = ()  # that were applied before the run

    def files(self) -> list[str]:
        """Of all images that are shown."""
        lines = [[*s["shown"], *s["agree"]] for s in self.suspects]
        lines += [pair["files"] for pair in self.contradictions]
        lines += [[mistake["file"]] for mistake in self.mistakes]
        return list(dict.fromkeys(file for line in lines for file in line))


def read_review(run: Path, most: int) -> Review:
    """What a run found, with the `most` worst suspects.

    Raises:
        ArtefactError: there is no finished run; its files are damaged.
    """
    if not (run / "metrics.json").is_file():
        raise ArtefactError(f"{quoted(run)} is not a finished run: it has no metrics.json")
    recipe = settings_of(run).get("recipe")
    found: dict[str, Any] = {"suspects": [], "contradictions": []}
    if (run / "review.json").is_file():
        found = read_json(run / "review.json")
    elif recipe == "probe":
        found["why_no_suspects"] = "the run is of a version that looked for none; train again"
    else:
        found["why_no_suspects"] = f"only a probe judges each label, and this run's is {recipe}"
    try:
        suspects = [
            suspect | {"shown": suspect["files"][:SHOWN], "times": f"{suspect['ratio']:,.0f}"}
            for suspect in found["suspects"]
        ]
        doubted = {file for suspect in suspects for file in suspect["files"]}
        doubted |= {file for pair in found["contradictions"] for file in pair["files"]}
        doubted |= {*found.get("confirmed", ())}
        mistakes = surest_mistakes(read_lines(run / "predictions.jsonl"), doubted)
        why = found.get("why_no_suspects") or ""
        table = run / "corrections.csv"
        earlier = read_corrections(table) if table.is_file() else []
        return Review(
            *(suspects[:most], found["contradictions"], mistakes, str(why), len(suspects)),
            tuple(earlier),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(run, error) from error


def surest_mistakes(
    predictions: Iterable[dict[str, Any]], left_out: set[str]
) -> list[dict[str, Any]]:
    """The wrong answers that were the most probable; not those of the test split, which would be
    no test if its labels were corrected by what it tests."""
    wrong = []
    for row in predictions:
        known = row["split"] == "test" or row["file"] in left_out
        if row["label"] != row["predicted"] and not known:
            several = row.get("probabilities", {})
            sure = row.get("probability", max(several.values(), default=0.0))
            shown = f"{100 * row['probability']:.0f} %" if "probability" in row else ""
            split = row["split"].replace("_", " ")
            wrong.append((-sure, row | {"probability": shown, "split": split}))
    wrong.sort(key=lambda pair: pair[0])
    return [row for _, row in wrong[:MISTAKES]]


def write_review(
    run: Path,
    dataset: Dataset,
    out: Path,
    again: str,
    most: int,
    threads: int,
    progress: Progress,
) -> Review:
    """Write the sheet of a run: one HTML file that needs no network.

    Args:
        run: its folder.
        dataset: the images that it was trained on, by the same names.
        out: the file.
        again: the command that trains on the images once more.
        most: suspects that are shown.
        threads: cores to use.
        progress: is advanced with each thumbnail.

    Raises:
        ArtefactError: there is no finished run; its files are damaged.
        DataError: none of the images is there.
        UsageError: `out` is no HTML file, or one of others is there.
    """
    check_place(out)
    review = read_review(run, most)
    files = review.files()
    images = thumbnails(dataset, files, threads, progress)
    if files and not any(file in dataset.files for file in files):
        raise DataError(
            f"{quoted(dataset.name)} has none of the images of {quoted(run)}, such as "
            f"{quoted(files[0])}; give the folder or table that it was trained on"
        )
    here = resources.files("foveate.report")
    script = (here / "review.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Environment(autoescape=True).from_string((here / SHEET).read_text(encoding="utf-8"))
    text = page.render(
        run=run.resolve().name,
        again=again,
        earlier=[[correction.file, correction.says] for correction in review.earlier],
        summary=summary(review),
        classes=read_json(run / "data.json", {"classes": [str]})["classes"],
        several=dataset.task == "multilabel",
        suspects=review.suspects,
        unshown=review.found - len(review.suspects),
        contradictions=review.contradictions,
        mistakes=review.mistakes,
        why=review.why,
        images=images,
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
    with disk_errors(out), replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return review


def check_place(out: Path) -> None:
    """UsageError unless a sheet may take this place."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a sheet is an .html file, not {quoted(out)}")
    with disk_errors(out):
        if out.exists() and TITLE not in out.read_bytes():
            raise UsageError(f"{quoted(out)} exists and is no sheet; choose another --out")


def summary(review: Review) -> str:
    """What there is, in a sentence."""
    if review.why:
        return f"No label can be called wrong: {review.why}."
    labels = "1 label" if review.found == 1 else f"{review.found} labels"
    pairs = len(review.contradictions)
    twice = "1 photo has" if pairs == 1 else f"{pairs} photos have"
    return f"{labels} may be wrong" + (f", and {twice} two labels." if pairs else ".")
