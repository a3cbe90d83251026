"""The report of a comparison: networks trained on the same images, or finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from foveate.data.dataset import Dataset
from foveate.progress import Progress
from foveate.report.answer import percent
from foveate.report.charts import STYLES, Line, Point, lines, scatter, short
from foveate.report.page import ABSENT, thumbnails, write_page
from foveate.report.run import Shown, ShownSet
from foveate.report.sections import Table, notes
from foveate.report.texts import Texts, isolated

SHOWN = 8  # images that one alone has right
MOST_PAIRS = 60  # rows of the table of differences
MOST_CONFUSIONS = 12
MOST_APART = 5  # runs that are laid over the first one with images
SAME = "not distinguishable"
DASH = "–"

Found = dict[str, Any]


class Part(NamedTuple):
    """A section of the page: sentences, charts, a table, and images."""

    title: Markup
    said: Sequence[Markup] = ()
    charts: Sequence[Markup] = ()
    table: Table | None = None
    sets: Sequence[ShownSet] = ()


def write_comparison(
    out: Path, found: Found, dataset: Dataset, lang: str, threads: int, progress: Progress
) -> None:
    """Write the report of `comparison.compare`.

    Args:
        out: the HTML file.
        found: what it returns.
        dataset: that all learnt from.
        lang: "en" or "zh".
        threads: cores to use.
        progress: is advanced with each thumbnail.

    Raises:
        UsageError: `out` is no HTML file, or one of others is there; no such language.
        FoveateError: it cannot be written.
    """
    t, settings = Texts(lang), found["settings"]
    done = [row for row in found["rows"] if row["status"] == "done"]
    done.sort(key=lambda row: -(row["accuracy"] or 0))
    parts = []
    if done:
        split = t(f"split_{found['split']}")
        about = [t("candidates_about", split=split)]
        parts.append(Part(t("candidates"), about, table=qualities(done, t)))
    points = [
        Point(plain(row["name"]), row["latency_ms"], row["accuracy"], interval_of(row), front)
        for row in done
        if (front := row.get("on_front")) is not None and row["accuracy"] is not None
    ]
    if done:
        charts = [scatter(t("accuracy"), t("latency"), points)] if points else []
        parts.append(Part(t("front"), about_costs(done, t), charts, costs(done, t)))
    parts += pairs(found["pairs"], t)
    parts += differing([found["apart"]] if found["apart"] else [], t)
    parts += curves(found["curves"], t)
    parts += not_compared(found["rows"], t)
    page = {
        "title": t("title_compared", data=settings["data"]),
        "about": t(
            "about_compared",
            recipe=settings["recipe"],
            seeds=settings["seeds"],
            n=found["judged"],
        ),
        "answer": [*summary(found, t), *left_out(found["rows"], t)],
        "parts": parts,
    }
    write(out, page, dataset, t, threads, progress)


def write_overlay(
    out: Path, found: Found, dataset: Dataset | None, lang: str, threads: int, progress: Progress
) -> None:
    """Write the report of `comparison.compare_runs`; arguments and errors as above, but the
    dataset, which may be missing: then the page is without images."""
    t = Texts(lang)
    parts = [Part(t("candidates"), table=runs(found["runs"], t)), *pairs(found["pairs"], t)]
    parts += differing(found["apart"][:MOST_APART], t)
    parts += curves(found["curves"], t)
    names = ", ".join(row["name"] for row in found["runs"])
    page = {
        "title": t("title_runs", names=names),
        "about": t("about_runs", n=found["judged"]),
        "answer": summary_of_runs(found, t),
        "parts": parts,
        "notes": notes(found["notes"]),
    }
    write(out, page, dataset, t, threads, progress)


def write(
    out: Path,
    page: dict[str, Any],
    dataset: Dataset | None,
    t: Texts,
    threads: int,
    progress: Progress,
) -> None:
    sets = [one for part in page["parts"] for one in part.sets]
    files = list(dict.fromkeys(shown.file for one in sets for shown in one.images))
    images = {} if dataset is None else thumbnails(dataset, files, threads, progress)
    held = sum(bool(image) for image in images.values())
    more = {"images": images, "held": held, "gone": len(files) - held}
    write_page(out, t, ABSENT | page | more)


# What is said


def summary(found: Found, t: Texts) -> list[Markup]:
    """The result of a comparison in sentences."""
    done = [row for row in found["rows"] if row["status"] == "done"]
    if not done:
        return [t("nothing_compared")]
    if found["best"] is None:
        return [t("none_judged")]
    best = found["best"]
    said = [right_most_often(best, t)]
    if len(done) == 1:
        return [*said, t("only_one", name=best["name"])]
    said += told_apart(best, found["pairs"], found["judged"], t)
    if best["rivals"]:
        choice = found["choice"]
        said.append(t("fastest_of_these", name=choice["name"], ms=f"{choice['latency_ms']:.1f}"))
    return said


def left_out(rows: Sequence[Found], t: Texts) -> list[Markup]:
    """Those that were not trained."""
    return [
        t("left_out_row", name=row["name"], why=status(row, t))
        for row in rows
        if row["status"] != "done"
    ]


def status(row: Found, t: Texts) -> Markup:
    return t(f"status_{row['status'].replace(' ', '_')}")


def summary_of_runs(found: Found, t: Texts) -> list[Markup]:
    """The result of laying runs over one another, in sentences."""
    best = found["best"]
    return [right_most_often(best, t), *told_apart(best, found["pairs"], found["judged"], t)]


def right_most_often(best: Found, t: Texts) -> Markup:
    sentence = t("right_most_often", name=best["name"], accuracy=percent(best["accuracy"]))
    if interval := best.get("accuracy_ci95"):
        sentence += t("interval", low=percent(interval[0]), high=percent(interval[1]))
    if best["of"] == 1:
        return sentence + t("the_only_one")
    points = f"{100 * best['correction']:.1f}"
    return sentence + t("as_the_best", points=points, of=best["of"])


def told_apart(best: Found, of: Sequence[Found], n: int, t: Texts) -> list[Markup]:
    """What the best can be told from, and what it would take to tell the others."""
    if all(pair["verdict"] == SAME for pair in of):
        said = [t("none_told_apart", n=n)]
    else:
        mine = [pair for pair in of if best["name"] in (pair["first"], pair["second"])]
        beaten = [other(pair, best["name"]) for pair in mine if pair["verdict"] != SAME]
        said = [t("told_from", names=", ".join(beaten))] if beaten else []
        if best["rivals"]:
            said.append(t("not_told_from", names=", ".join(best["rivals"]), n=n))
    asked = [
        (pair["needed"], other(pair, best["name"]))
        for pair in of
        if best["name"] in (pair["first"], pair["second"])
        and pair["verdict"] == SAME
        and pair["needed"] is not None
    ]
    if asked:
        needed, name = min(asked)
        said.append(t("would_need", needed=f"{needed:,}", name=name))
    return said


def other(pair: Found, name: str) -> str:
    found: str = pair["second"] if pair["first"] == name else pair["first"]
    return found


def about_costs(done: Sequence[Found], t: Texts) -> list[Markup]:
    said = [t("front_about")]
    cached = [row["name"] for row in done if row["cached"]]
    return [*said, t("from_cache", names=", ".join(cached))] if cached else said


def plain(name: str) -> Markup:
    """A name in a chart, where HTML's own means of isolating it are not known."""
    return Markup.escape(short(name))


# Tables


def interval_of(row: Found) -> tuple[float, float] | None:
    ends = row.get("accuracy_ci95")
    return None if ends is None else (ends[0], ends[1])


def between(ends: Sequence[float] | None) -> str:
    return DASH if ends is None else f"{100 * ends[0]:.1f} – {100 * ends[1]:.1f}"


def signed(ends: Sequence[float] | None) -> str:
    return DASH if ends is None else f"{100 * ends[0]:+.1f} … {100 * ends[1]:+.1f}"


def share(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else percent(value, digits)


def number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def qualities(done: Sequence[Found], t: Texts) -> Table:
    """How good each is, the most accurate first."""
    tested = any("test" in row for row in done)
    heads = ["network", "accuracy", "interval95", *(["of_test"] if tested else [])]
    heads += ["macro_f1", "log_loss", "ece", "refuses_both"]
    rows: list[list[Markup | str]] = [
        [
            isolated(row["name"]),
            share(row["accuracy"]) + ("*" if "accuracy_corrected" in row else ""),
            between(row["accuracy_ci95"]),
            *([share(row.get("test", {}).get("accuracy"))] if tested else []),
            number(row["macro_f1"], ".3f"),
            number(row["log_loss"], ".3f"),
            number(row["ece"], ".3f"),
            f"{share(row['refused_own'], 0)} / {share(row['refused_unknown'], 0)}",
        ]
        for row in done
    ]
    return Table([t(key) for key in heads], rows)


def costs(done: Sequence[Found], t: Texts) -> Table:
    """What each costs, in the same order."""
    heads = ("network", "latency", "throughput", "size_mb", "parameters", "gmacs", "to_train")
    rows: list[list[Markup | str]] = [
        [
            isolated(row["name"]),
            number(row["latency_ms"], ".1f"),
            number(row["throughput"], ".0f"),
            number(row["bytes"] / 1e6, ".1f"),
            f"{row['parameters']:,}",
            number(row["macs"] / 1e9, ".2f"),
            number(row["seconds_cold"], ".1f"),
        ]
        for row in done
    ]
    return Table([t(key) for key in heads], rows)


def runs(found: Sequence[Found], t: Texts) -> Table:
    """A row of each run that is laid over the others."""
    heads = (
        *("run", "network", "recipe", "shared_accuracy", "own_accuracy", "interval95"),
        *("macro_f1", "ece", "to_train"),
    )
    rows: list[list[Markup | str]] = [
        [
            isolated(row["name"]),
            isolated(row["model"]),
            isolated(row["recipe"]),
            percent(row["shared_accuracy"]),
            share(row["accuracy"]),
            between(row["accuracy_ci95"]),
            number(row["macro_f1"], ".3f"),
            number(row["ece"], ".3f"),
            number(row["seconds"], ".1f"),
        ]
        for row in found
    ]
    return Table([t(key) for key in heads], rows, 3)


def pairs(found: Sequence[Found], t: Texts) -> list[Part]:
    """The differences, the surest first."""
    if not found:
        return []
    heads = ("pair", "points", "interval95", "alone_right", "p_corrected", "verdict")
    rows: list[list[Markup | str]] = [
        [
            t("against_name", first=pair["first"], second=pair["second"]),
            f"{100 * pair['difference']:+.1f}",
            signed(pair["difference_ci95"]),
            f"{pair['newly_right']} : {pair['newly_wrong']}",
            f"{pair['p_corrected']:.2g}",
            verdict(pair, t),
        ]
        for pair in found[:MOST_PAIRS]
    ]
    table = Table([t(key) for key in heads], rows)
    return [Part(t("pairs"), [t("pairs_about")], table=table)]


def verdict(pair: Found, t: Texts) -> Markup:
    if pair["verdict"] != SAME:
        return t(f"verdict_{pair['verdict']}")
    if pair["needed"] is None:
        return t("verdict_same")
    return t("verdict_needs", n=f"{pair['needed']:,}")


def not_compared(rows: Sequence[Found], t: Texts) -> list[Part]:
    """Those that were not trained, and why."""
    missing = [row for row in rows if row["status"] != "done"]
    if not missing:
        return []
    cells: list[list[Markup | str]] = [
        [
            isolated(row["name"]),
            status(row, t),
            isolated(row["reason"]),
        ]
        for row in missing
    ]
    heads = [t(key) for key in ("network", "status", "reason")]
    return [Part(t("not_compared_rows"), table=Table(heads, cells, 3))]


# Images and curves


def differing(found: Sequence[Found], t: Texts) -> list[Part]:
    """Where two differ: the confusions, and images that one alone has right."""
    parts = []
    for one in found:
        first, second = one["first"], one["second"]
        about = t(
            "apart_about",
            first=first,
            second=second,
            a=len(one["only_first"]),
            b=len(one["only_second"]),
        )
        rows: list[list[Markup | str]] = [
            [isolated(c["label"]), isolated(c["answer"]), str(c["first"]), str(c["second"])]
            for c in one["confusions"][:MOST_CONFUSIONS]
        ]
        heads = [t("true_class"), t("answer"), isolated(first), isolated(second)]
        sets = [
            ShownSet(t("right_alone", name=name), [shown(image, wrong, t) for image in of[:SHOWN]])
            for name, wrong, of in (
                (first, second, one["only_first"]),
                (second, first, one["only_second"]),
            )
            if of
        ]
        table = Table(heads, rows, 2) if rows else None
        title = t("apart", first=first, second=second)
        parts.append(Part(title, [about], table=table, sets=sets))
    return parts


def shown(image: Found, wrong: str, t: Texts) -> Shown:
    """An image, its label, and what the one that is wrong says."""
    none = t("no_label")
    answer = isolated(image["answer"]) if image["answer"] else none
    label = isolated(image["label"]) if image["label"] else none
    return Shown(image["file"], [label, t("other_says", name=wrong, answer=answer)])


def curves(found: dict[str, Found], t: Texts) -> list[Part]:
    """Those of probes over one another, and those of trainings by steps."""
    charts, drawn = [], 0
    for along in ("penalty", "epoch"):
        each = [(name, one) for name, one in found.items() if one["along"] == along]
        each = each[: len(STYLES)]
        drawn += len(each)
        if each:
            shown_lines = [
                Line(plain(name), style, [(x, y) for x, y in one["points"]])
                for (name, one), style in zip(each, STYLES, strict=False)
            ]
            log = along == "penalty"
            name = t("log_loss")
            charts.append(lines(name, t("penalty" if log else "epoch"), shown_lines, None, log))
    if not charts:
        return []
    said = [t("curves_compared")]
    if drawn < len(found):
        said.append(t("curves_first", n=drawn, of=len(found)))
    return [Part(t("curves"), said, charts)]
