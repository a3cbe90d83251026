"""The card of a classifier: what it is and where it comes from, for programs and for people."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from foveate.catalogue import CATALOGUE
from foveate.data.preprocess import Preprocess
from foveate.errors import ArtefactError, quoted
from foveate.storage import check, is_of, read_object, sha256, unreadable
from foveate.weights import WEIGHTS
from foveate.weights.starting_point import OWN, TIMM

# 1 had no `divide_logits`, 2 no levels of the Preprocess, 3 one view, one backbone and the first
# pooling, and no rejection, 4 none of networks as they are; the least that is needed is written
FORMAT = 5
READABLE = (1, 2, 3, 4, 5)
TENSORS, GRAPH, GRAPH_WEIGHTS = "model.safetensors", "engine.xml", "engine.bin"
# what to expect of images without labels, which a probe knows, and when to answer none of these
RELATION = "novelty.safetensors"
# a backbone with a linear layer on its stages; several with one; a network as it is
FORMS = ("probe", "joined", "network")


def read_card(folder: Path) -> dict[str, Any]:
    """card.json, checked: its form, and the SHA-256 of each file it lists. A file that it does not
    list is none of the classifier's."""
    path = folder / "card.json"
    card = read_object(path, {"format": the_number_of_a_format})
    if card["format"] not in READABLE:
        raise ArtefactError(
            f"{quoted(path)} has format {card['format']}, this version reads up to {FORMAT}; "
            "update Foveate"
        )
    try:
        check(card, CARD)
        if card["thresholds"] is not None and len(card["thresholds"]) != len(card["classes"]):
            raise ValueError("thresholds are not as many as classes")
        if card["thresholds"] is None and len(card["classes"]) < 2:
            raise ValueError("there is only one class")
        if (GRAPH in card["files"]) != (GRAPH_WEIGHTS in card["files"]):
            raise ValueError(f"{GRAPH} and {GRAPH_WEIGHTS} belong together")
        views = len(Preprocess.from_dict(card["preprocess"]).views)
        if (card["form"] == "joined") != ("branches" in card):
            raise ValueError("branches and the form joined belong together")
        if card["form"] == "joined" and sum(b["views"] for b in card["branches"]) != views:
            raise ValueError(f"the branches do not read {views} views")
        if card["form"] == "network" and views > 1:
            raise ValueError(f"a network as it is reads one view, not {views}")
        point = card.get("operating_point")
        if point is not None and point["positive"] not in card["classes"]:
            raise ValueError("the operating point is of no class")
        refuses = card.get("rejection") is not None
        if refuses and RELATION not in card["files"]:
            raise ValueError(f"rejection needs {RELATION}")
        if refuses and card["thresholds"] is not None:
            raise ValueError("rejection needs one class an image")
    except (ValueError, ArtefactError) as error:
        raise unreadable(path, ValueError(str(error)[:200])) from error
    for name, digest in card["files"].items():
        file = folder / name
        try:
            found = sha256(file)
        except PermissionError as error:
            raise unreadable(file, error) from error
        except (OSError, ValueError) as error:  # also a name that no system allows
            raise unreadable(file, FileNotFoundError()) from error
        if found != digest:
            raise ArtefactError(
                f"{quoted(file)} is damaged (its SHA-256 is not the card's); restore it from a "
                "backup"
            )
    if card["form"] != "network" and head_shape(folder / TENSORS) != [len(card["classes"])]:
        raise ArtefactError(
            f"{quoted(folder / TENSORS)} does not fit the card's {len(card['classes'])} classes"
        )
    return card


# What is expected of each field; the predicates' names are read in messages.


def the_number_of_a_format(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def a_known_form(value: Any) -> bool:
    return value in FORMS


def the_name_of_a_network(model: Any) -> bool:
    """Of ours, of timm, or of one that was handed in. A name runs no code."""
    if not isinstance(model, str):
        return False
    return model in WEIGHTS or model in CATALOGUE or model.startswith((TIMM, OWN))


def a_known_pooling(value: Any) -> bool:
    return the_number_of_a_format(value) and value in (1, 2)


def at_least_1(value: Any) -> bool:
    return is_of(value, int) and value >= 1


def different_names(classes: Any) -> bool:
    names = isinstance(classes, list) and all(isinstance(c, str) and c for c in classes)
    return names and len(set(classes)) == len(classes) >= 1


def between_0_and_1(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def above_0(value: Any) -> bool:
    return is_of(value, float) and 0 < value < 1e9


def hashes_of_files(files: Any) -> bool:
    """By names without a folder; the tensors are among them."""
    return (
        isinstance(files, dict)
        and TENSORS in files
        and all(Path(name).name == name and isinstance(h, str) for name, h in files.items())
    )


CARD: dict[Any, Any] = {
    "form": a_known_form,
    "model": the_name_of_a_network,
    "classes": different_names,
    "thresholds": (None, [between_0_and_1]),
    "mirror": bool,
    "temperature?": above_0,
    "divide_logits?": bool,
    "pooling?": a_known_pooling,
    "branches?": [{"model": the_name_of_a_network, "views": at_least_1, "log_loss": float}],
    "preprocess": {},
    "files": hashes_of_files,
    "metrics?": {str: {str: (None, float, [float])}},
    "rejection?": (None, {"rate": between_0_and_1}),
    "operating_point?": (None, {"positive": str, "threshold": between_0_and_1}),
}


def head_shape(path: Path) -> list[int]:
    """The shape of the head's bias, read from the file's header; [] if the two are no head."""
    try:
        with safe_open(path, "np") as tensors:
            shape: list[int] = tensors.get_slice("linear.bias").get_shape()
            weight = tensors.get_slice("linear.weight").get_shape()
            return shape if len(weight) == 2 and weight[:1] == shape else []
    except SafetensorError:
        return []


def head_width(path: Path) -> int:
    """How many numbers the head reads; the file is `card`'s, which has been checked."""
    with safe_open(path, "np") as tensors:
        return int(tensors.get_slice("linear.weight").get_shape()[1])


def of_what(m: dict[str, Any]) -> str:
    """Of how many images a figure is, and in how many groups they are.

    >>> of_what({"n": 300, "groups": 100})
    '300 images in 100 groups'
    """
    groups = m.get("groups", m["n"])
    return f"{m['n']} images" + (f" in {groups} groups" if groups < m["n"] else "")


def seen_of(preprocess: Preprocess) -> str:
    """What of an image is seen, in a sentence.

    >>> seen_of(Preprocess(336, 224))
    "It sees the centre 67 % of an image's shorter side, in 224 pixels."
    """
    said = []
    for view in preprocess.views:
        share = 100 * view.crop / view.resize
        part = "all of an image" if view.fit != "crop" else "the whole of an image's shorter side"
        if share < 100:
            part = f"the centre {share:.0f} % of an image's shorter side"
        said.append(f"{part}, in {view.crop} pixels")
    return f"It sees {'; and '.join(dict.fromkeys(said))}."


def model_card(card: dict[str, Any]) -> str:
    """The card as Markdown, for people."""

    lines = [f"# {title_of(card)}", "", *described(card), ""]
    lines += [
        "```python",
        "import foveate",
        'clf = foveate.Classifier.load("classifier")',
        'clf.predict("x.jpg")',
        "```",
    ]
    if (point := card.get("operating_point")) is not None:
        lines += ["", point_of(point)]
    return "\n".join([*lines, "", limit_of(card), ""])


def title_of(card: dict[str, Any]) -> str:
    kinds = "classes" if card["thresholds"] is None else "labels"
    several = "" if card["thresholds"] is None else ", of which an image may have any number"
    return f"A classifier of {len(card['classes'])} {kinds}{several}"


def limit_of(card: dict[str, Any]) -> str:
    if card["thresholds"] is not None:
        return "It knows only these labels."
    if card.get("rejection") is not None:
        kinds, foreign, false = refusals(card["rejection"])
        return f"It answers none of these for {kinds}; for {foreign}; and for {false}."
    return "It knows only these classes: an image of anything else gets one of them too."


def point_of(point: dict[str, Any]) -> str:
    """An operating point in a sentence."""
    (kind, asked), expected = next(iter(point["asked"].items())), point["expected"]
    low, high = (100 * expected[end] for end in ("low", "high"))
    return (
        f"It answers {plain(point['positive'])} from a probability of {point['threshold']:.3g} "
        f"on, for a {kind} of {100 * asked:g} %: on as many new images, {low:.1f} to {high:.1f} % "
        "is to be expected."
    )


def refusals(rejection: dict[str, Any]) -> tuple[str, str, str]:
    """What is refused, in words: kinds that were never taught, images of nothing, and images of the
    classes."""
    kinds, foreign = rejection["unknown_kinds"], rejection["foreign"]
    unknown = "an unmeasured share of kinds that were never taught"
    if kinds["share"] is not None:
        shares = list(kinds["classes"].items())
        (worst, low), (best, high) = shares[0], shares[-1]
        apart = f"from {100 * low:.0f} % of {plain(worst)} to {100 * high:.0f} % of {plain(best)}"
        unknown = f"{with_interval(kinds)} of a kind that was never taught, {apart}"
    of_nothing = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in foreign.items())
    split, false = list(rejection["false_refusals"].items())[-1]
    of_classes = f"{with_interval(false)} of images of its classes ({split.replace('_', ' ')})"
    return unknown, of_nothing, of_classes


def plain(name: str) -> str:
    """A class's name in quotes, without what Markdown or a terminal could act on."""
    return "'" + "".join(c if c.isalnum() or c in " -_.,+" else "?" for c in name) + "'"


def with_interval(found: dict[str, Any]) -> str:
    """A share, and its 95 % interval where there is one.

    >>> with_interval({"share": 0.42, "share_ci95": [0.31, 0.55]})
    '42 % (31 to 55)'
    """
    if found["share_ci95"] is None:
        return f"{100 * found['share']:.0f} %"
    low, high = (100 * end for end in found["share_ci95"])
    return f"{100 * found['share']:.0f} % ({low:.0f} to {high:.0f})"


def described(card: dict[str, Any]) -> list[str]:
    """Paragraphs of Markdown on how it was made, what it sees, how good it is, and its classes."""

    def safe(text: str) -> str:
        return "".join(c if c.isalnum() or c in " -_.,+" else f"&#{ord(c)};" for c in text)

    several = card["thresholds"] is not None
    models = [branch["model"] for branch in card.get("branches", ())]
    names = list(dict.fromkeys(models)) or [card["model"]]
    backbones = f"Backbones {', '.join(names)}" if len(names) > 1 else f"Backbone {names[0]}"
    their = "their" if len(names) > 1 else "its"
    how = {
        "probe": f"{backbones}, frozen; a linear head solved on {their} stages with Foveate.",
        "finetune": (
            f"{card['model']}, fine-tuned from published weights, a linear head on its stages, "
            "with Foveate."
        ),
        "scratch": f"{card['model']}, trained from a random start with Foveate.",
    }
    lines = [how[card["recipe"]], "", seen_of(Preprocess.from_dict(card["preprocess"])), ""]
    for split, m in card["metrics"].items():
        if m["accuracy"] is None:
            lines.append(f"- {split.replace('_', ' ')}: nothing could be judged")
            continue
        sure = "too few to say how sure"
        if interval := m["accuracy_ci95"]:
            sure = "95 % interval {:.1%} to {:.1%}".format(*interval)
        lines.append(
            f"- {split.replace('_', ' ')}: {'all labels right' if several else 'accuracy'} "
            f"{m['accuracy']:.1%} "
            f"({sure}) on {of_what(m)}, macro-F1 "
            f"{m['macro_f1']:.3f}, "
            f"ECE {m['ece']:.3f}"
        )
    names = [safe(c) for c in card["classes"]]
    if several:
        names = [
            f"{name} (from {t:.0%} on)" for name, t in zip(names, card["thresholds"], strict=True)
        ]
    return [*lines, "", f"{'Labels' if several else 'Classes'}: {', '.join(names)}."]
