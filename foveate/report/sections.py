"""What each section of a report says: of figures, data, curves and the rest, ready for the page."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from foveate.metrics import believed, worst_confusions
from foveate.report.answer import ORDER, Figures, percent
from foveate.report.charts import Line, confusion_matrix, lines, worst_classes
from foveate.report.texts import TEXTS, Texts, isolated

MOST_CLASSES = 100  # rows of the table of classes
MOST_PAIRS = 10
MOST_NOTES = 40
LONGEST = 600  # characters of a note
MOST_EPOCHS = 400  # points of a line


class Table(NamedTuple):
    """A table: the names of its columns, of which the first `left` are text, and its rows."""

    columns: list[Markup]
    rows: list[list[Markup | str]]
    left: int = 1


def named(t: Texts, name: str, prefix: str = "") -> Markup:
    """One of a few names of our own in the page's language; any other one as it is."""
    key = f"{prefix}{name.replace(' ', '_')}"
    return t(key) if key in TEXTS else isolated(name)


def figures(metrics: dict[str, Any], t: Texts) -> Table:
    """A row for each split."""
    there = [split for split in ORDER if split in metrics]
    several = any("mean_average_precision" in metrics[split] for split in there)
    keys = ["labels_right", "interval95", "mean_ap"] if several else []
    keys = keys or ["accuracy", "interval95", "balanced"]
    heads = ["measured", "images", "groups", *keys, "macro_f1", "ece"]
    rows: list[list[Markup | str]] = []
    for split in there:
        found, name = believed(metrics[split]), t(f"split_{split}")
        if "without_copies" in metrics[split]:
            n = metrics[split]["copies"]["n"]
            name = t("without_copies", split=name, n=n)
        if found is None:
            rows.append([name, t("not_judged"), *[""] * (len(heads) - 2)])
            continue
        interval = found["accuracy_ci95"]
        first = found.get("mean_average_precision")
        rows.append(
            [
                name,
                str(found["n"]),
                str(found.get("groups", found["n"])),
                percent(found["accuracy"]),
                "" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}",
                percent(found["balanced_accuracy"]) if first is None else f"{first:.3f}",
                f"{found['macro_f1']:.3f}",
                f"{found['ece']:.3f}",
            ]
        )
    return Table([t(key) for key in heads], rows)


def beside_figures(metrics: dict[str, Any], t: Texts) -> list[Markup]:
    """Of what is refused, of copies, and of the run before."""
    said = []
    for split in (split for split in ORDER if split in metrics):
        found = metrics[split].get("accepted")
        if found and found["accuracy"] is not None:
            shares = {key: percent(found[key]) for key in ("share", "accuracy")}
            said.append(t("accepted", split=t(f"split_{split}"), **shares))
    if point := metrics.get("operating_point"):
        (kind, asked), expected = next(iter(point["asked"].items())), point["expected"]
        said.append(
            t(
                f"point_{kind}",
                name=point["positive"],
                threshold=f"{point['threshold']:.3g}",
                asked=f"{100 * asked:g} %",
                low=percent(expected["low"]),
                high=percent(expected["high"]),
            )
        )
    among = metrics.get("out_of_fold", {}).get("among_copies")
    if among and among["memory"] > 0:
        memory = f"{100 * among['memory']:.1f}"
        said.append(t("among_copies", accuracy=percent(among["accuracy"]), memory=memory))
    since = metrics.get("compared_with")
    if since:
        verdict = t("within_noise" if since["within_noise"] else "beyond_noise")
        said.append(
            t(
                "since",
                run=since["run"],
                before=percent(since["before"]),
                after=percent(since["after"]),
                n=since["n"],
                better=since["newly_right"],
                worse=since["newly_wrong"],
                verdict=verdict,
            )
        )
    return said


def slices(result: dict[str, Any], t: Texts) -> list[Markup]:
    """Of an evaluation, the slices that are better or worse than the rest."""
    return [
        t(
            "slice",
            by=one["by"],
            value=one["value"],
            accuracy=percent(one["accuracy"]),
            n=one["n"],
            others=percent(one["others"]),
        )
        for one in result.get("slices", ())
        if one["differs"]
    ][:MOST_PAIRS]


def problems(
    metrics: dict[str, Any], data: dict[str, Any], review: dict[str, Any], t: Texts
) -> list[Markup]:
    """What is wrong with the data, in sentences."""
    said = [*grouped(data.get("groups", ()), t)]
    for figures_of in (metrics[split] for split in ORDER if split in metrics):
        if "copies" in figures_of and figures_of["copies"].get("files"):
            n, file = figures_of["copies"]["n"], figures_of["copies"]["files"][0]
            said.append(t("found_leaks", n=n, of=figures_of["n"], file=file))
    said += wrong_labels(review, t)
    never = metrics.get("out_of_fold", {}).get("unjudged", {}).get("classes")
    if never:
        said.append(t("found_unjudged", n=len(never), name=never[0]))
    area = metrics.get("seen", {}).get("area", 1.0)
    if area < 0.995:
        said.append(t("unseen", share=percent(1 - area, 0)))
    return said + left_out(data.get("bad", {}), data.get("ignored", ()), t)


def wrong_labels(found: dict[str, Any], t: Texts) -> list[Markup]:
    """Labels that contradict one another, and those that look wrong."""
    said = []
    if pairs := found.get("contradictions"):
        first, second = pairs[0]["files"][:2]
        said.append(t("found_contradictions", n=len(pairs), a=first, b=second))
    if suspects := found.get("suspects"):
        worst = suspects[0]
        labels = suspect_of(worst, t)
        said.append(t("found_suspects", n=len(suspects), file=worst["files"][0], **labels))
    return said


def suspect_of(suspect: dict[str, Any], t: Texts) -> dict[str, Any]:
    """What is said of a label that may be wrong."""
    return {
        "label": suspect["label"] or t("no_label"),
        "suggested": suspect["suggested"] or t("no_label"),
        "times": f"{min(suspect['ratio'], 9999):,.0f}",
    }


def left_out(bad: dict[str, str], ignored: Sequence[str], t: Texts) -> list[Markup]:
    said = []
    if bad:
        said.append(t("found_bad", n=len(bad), file=next(iter(bad))))
    if ignored:
        said.append(t("found_ignored", n=len(ignored), file=ignored[0]))
    return said


def grouped(groups: Iterable[dict[str, Any]], t: Texts) -> list[Markup]:
    """Copies, bursts and the like, a sentence for each kind."""
    kinds: dict[str, list[list[str]]] = {}
    for group in groups:
        kinds.setdefault(group["kind"], []).append(group["files"])
    said = []
    for kind, found in kinds.items():
        largest = max(found, key=len)
        said.append(
            t(
                "found_groups",
                kind=named(t, kind, "kind_"),
                groups=len(found),
                images=sum(map(len, found)),
                largest=len(largest),
                file=largest[0],
            )
        )
    return said


def classes(
    counts: dict[str, dict[str, int]], found: Figures | None, t: Texts
) -> tuple[Table, Markup | None]:
    """A row for each class, the worst first; and a sentence where not all find room.

    Args:
        counts: images of each class by split.
        found: the figures, if there are any.
    """
    figures_of = (found or {}).get("per_class", {})
    names = list(dict.fromkeys([*(c for n in counts.values() for c in n), *figures_of]))
    nothing = {"f1": 0.0, "support": 0, "precision": 0.0, "recall": 0.0}

    def order(name: str) -> tuple[bool, float]:
        m = figures_of.get(name, nothing)
        return m["support"] == 0, m["f1"]

    names.sort(key=order)
    splits = [s for s in ("train", "validation", "test") if s in counts]
    heads = ["class", *splits, *(("judged", "precision", "recall", "f1") if figures_of else ())]
    rows: list[list[Markup | str]] = []
    for name in names[:MOST_CLASSES]:
        row: list[Markup | str] = [isolated(name), *(str(counts[s].get(name, 0)) for s in splits)]
        if figures_of:
            m = figures_of.get(name, nothing)
            numbers = [f"{m[key]:.2f}" for key in ("precision", "recall", "f1")]
            row += [str(m["support"]), *(numbers if m["support"] else [""] * 3)]
        rows.append(row)
    more = t("more_classes", n=MOST_CLASSES, of=len(names)) if len(names) > MOST_CLASSES else None
    return Table([t(key) for key in heads], rows), more


def confusions(found: Figures | None, names: Sequence[str], t: Texts) -> dict[str, Any] | None:
    """The matrix, and the pairs that are mistaken most often; None of labels."""
    if found is None or "confusion" not in found:
        return None
    matrix, shown = found["confusion"], len(worst_classes(found["confusion"]))
    pairs = worst_confusions(matrix, tuple(names), MOST_PAIRS)
    rows: list[list[Markup | str]] = [
        [
            isolated(pair["true"]),
            isolated(pair["predicted"]),
            t("of_images", n=pair["n"], of=pair["of"]),
            percent(pair["n"] / max(1, pair["of"]), 0),
        ]
        for pair in pairs
    ]
    heads = ("true_class", "answer", "images", "share")
    return {
        "svg": confusion_matrix(matrix, names, t),
        "part": t("confusion_part", n=shown, of=len(names)) if shown < len(names) else None,
        "pairs": Table([t(key) for key in heads], rows, 2),
    }


def curves(
    history: list[dict[str, Any]], metrics: dict[str, Any], t: Texts
) -> dict[str, Any] | None:
    """Of a probe the log-loss by penalty, of others loss and accuracy by epoch."""
    if not history:
        return None
    if "penalty" in history[0]:
        path = [(row["penalty"], row["log_loss"]) for row in history]
        line = Line(Markup(""), "line", path)
        svg = lines(t("log_loss"), t("penalty"), [line], metrics["penalty"], log=True)
        return {"about": t("curves_probe", penalty=f"{metrics['penalty']:g}"), "svgs": [svg]}
    step = -(-len(history) // MOST_EPOCHS)
    shown = history[::step]
    svgs = []
    for name, mine, its in (
        ("log_loss", "loss", "validation_loss"),
        ("accuracy", "accuracy", "validation_accuracy"),
    ):
        learnt = [(r["epoch"], r[mine]) for r in shown if r["epoch"] > 0]
        judged = [(r["epoch"], r[its]) for r in shown]
        drawn = [Line(t("of_training"), "second", learnt)] if learnt else []
        drawn.append(Line(t("of_validation"), "line", judged))
        svgs.append(lines(t(name), t("epoch"), drawn, metrics["best_epoch"]))
    about = t("curves_steps", epochs=metrics["epochs"], best=metrics["best_epoch"])
    return {"about": about, "svgs": svgs}


def refusal(rejection: dict[str, Any] | None, t: Texts) -> Table | None:
    """What is refused, a row for each kind."""
    if not rejection:
        return None

    def row(name: Markup, found: dict[str, Any]) -> list[Markup | str]:
        if found["share"] is None:
            return [name, t("not_judged"), ""]
        interval = found.get("share_ci95")
        sure = "" if interval is None else f"{100 * interval[0]:.0f} – {100 * interval[1]:.0f}"
        return [name, percent(found["share"], 0), sure]

    rows = [row(t("refused_kinds"), rejection["unknown_kinds"])]
    rows += [
        [named(t, kind, "foreign_"), percent(share, 0), ""]
        for kind, share in rejection["foreign"].items()
    ]
    rows += [
        row(t("refused_own") + Markup(" ({})").format(t(f"split_{split}")), found)
        for split, found in rejection["false_refusals"].items()
    ]
    return Table([t(key) for key in ("what", "refused_share", "interval95")], rows)


def framing(seen: dict[str, Any] | None, t: Texts) -> dict[str, Any] | None:
    """What of an image is seen, and what was tried."""
    if not seen:
        return None
    about = t(
        "framing_about",
        area=percent(seen["area"], 0),
        framing=seen["framing"],
        fit=seen["fit"],
        passes=seen["passes"],
        backbones=", ".join(dict.fromkeys(seen["backbones"])),
    )
    heads = ("way", "views", "photos", "log_loss", "difference", "chosen")
    rows: list[list[Markup | str]] = []
    for trial in seen["tried"]:
        difference = trial["difference"]
        against = "" if difference is None else f"{difference:+.3f} ± {trial['error']:.3f}"
        rows.append(
            [
                isolated(trial["name"]),
                str(trial["views"]),
                str(trial["photos"]),
                f"{trial['log_loss']:.3f}",
                against,
                t("yes") if trial["chosen"] else "",
            ]
        )
    return {"about": about, "tried": Table([t(key) for key in heads], rows) if rows else None}


def transfer(metrics: dict[str, Any], plan: dict[str, Any] | None, t: Texts) -> dict[str, Any]:
    """Which parts of the network learnt."""
    temperature = f"{metrics.get('temperature', 1.0):.3f}"
    if plan is None:
        about = t(
            "plan_probe",
            model=", ".join(dict.fromkeys(metrics.get("seen", {}).get("backbones", ())))
            or metrics["model"],
            penalty=f"{metrics.get('penalty', 0):g}",
            temperature=temperature,
        )
        return {"about": about, "parts": None}
    rows: list[list[Markup | str]] = [
        [
            isolated(part["name"]),
            f"{part['parameters']:,}",
            t("frozen") if part["frozen"] else f"{part['lr']:.2g}",
        ]
        for part in plan["parts"]
    ]
    parts = Table([t(key) for key in ("part", "parameters", "rate")], rows)
    about = t("plan_steps", model=metrics["model"], temperature=temperature)
    return {"about": about, "parts": parts}


def reproduction(
    metrics: dict[str, Any], config: dict[str, Any], env: dict[str, Any], t: Texts
) -> Table:
    """Seed, versions, machine and the like."""
    packages = env.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    machine = f"{env.get('cpu', '')}, {env.get('cores', '')}, {env.get('system', '')}"
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items())
    rows: list[list[Markup | str]] = [
        [t("seed"), str(metrics.get("seed", ""))],
        [t("engine"), isolated(str(metrics.get("engine", "")))],
        [t("fingerprint"), isolated(str(config.get("fingerprint", ""))[:16])],
        [t("machine"), isolated(machine)],
        [t("versions"), isolated(f"python {env.get('python', '')}, {versions}")],
        [t("seconds"), isolated(seconds)],
    ]
    return Table([], rows, 2)


def notes(said: Sequence[str]) -> list[Markup]:
    """The notes of a run, as they were printed."""
    return [
        isolated(note if len(note) <= LONGEST else f"{note[:LONGEST]}…")
        for note in said[:MOST_NOTES]
    ]


def faults(images: Iterable[dict[str, Any]], t: Texts) -> list[Markup]:
    """Bad images, a sentence for each kind."""
    first: dict[str, str] = {}
    counts = Counter[str]()
    for image in images:
        first.setdefault(image["kind"], image["file"])
        counts[image["kind"]] += 1
    return [
        t("found_faults", n=n, kind=named(t, kind, "fault_"), file=first[kind])
        for kind, n in counts.items()
    ]
