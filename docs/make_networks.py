"""Write docs/networks/: a page and a diagram per paper, from the catalogue and the papers' files.

    python docs/make_networks.py

A test runs `pages()` and compares, so the pages cannot say what the files do not.
"""

import inspect
import re
from importlib import import_module
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from foveate.catalogue import CATALOGUE, PAPERS, Entry
from foveate.models import MODELS
from foveate.models.diagram import draw
from foveate.models.summary import summarise, summarise_stages
from foveate.weights import WEIGHTS

FOLDER = Path(__file__).parent / "networks"
FACES = {  # the network that stands for its paper on the page; elsewhere the first of the file
    "alexnet": "alexnet_one_tower",
    "googlenet": "googlenet_2014",
    "lenet": "lenet5",
    "resnet": "resnet50",
    "shufflenet_v2": "shufflenet_v2_x1_0",
    "vgg": "vgg16",
    "mobilenet_v3": "mobilenet_v3_large",
}


def papers() -> dict[str, list[str]]:
    """The networks of each file, in the order of MODELS."""
    return {f: list(names) for f, names in groupby(MODELS, key=lambda name: CATALOGUE[name].file)}


def docstring(file: str) -> str:
    return inspect.getdoc(import_module(f"foveate.models.{file}")) or ""


def idea(file: str) -> str:
    """The paragraph of a file's docstring, without its line breaks."""
    match = re.search(r"^Idea    (.*?)(?=^\S)", docstring(file), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{file}.py does not say its Idea"
    return " ".join(match[1].split())


def differences(file: str) -> str:
    """What a file's docstring lists as D1, D2 ..., and the sentences between."""
    _, _, text = docstring(file).partition("\nDifferences from the paper")
    paragraphs: list[str] = []
    for line in text.partition(":")[2].splitlines():
        listed = re.match(r"  (D\d+) +(.*)", line)
        if listed:
            paragraphs.append(f"- **{listed[1]}** {listed[2]}")
        elif not line.strip():
            continue
        elif paragraphs and (line.startswith("   ") or goes_on(paragraphs[-1])):
            paragraphs[-1] += f" {line.strip()}"
        else:
            paragraphs.append(line.strip())
    text = "".join(
        f"{paragraph}\n" if paragraph.startswith("- ") else f"\n{paragraph}\n\n"
        for paragraph in paragraphs
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def goes_on(paragraph: str) -> bool:
    """A sentence between the lists that has not come to its end."""
    return not paragraph.startswith("- ") and not paragraph.endswith((".", ":"))


def meta_twin(name: str) -> nn.Module:
    with torch.device("meta"):
        network = MODELS[name]()
    assert isinstance(network, nn.Module)
    return network


def pages() -> dict[str, str]:
    """File name -> text, of everything in docs/networks/."""
    found = {"index.md": index()}
    for file, names in papers().items():
        face = FACES.get(file, names[0])
        found[f"{file}.svg"] = f"{draw(meta_twin(face), title=face)}\n"
        found[f"{file}.md"] = page(file, names, face)
    return found


def index() -> str:
    lines = [
        "# The networks",
        "",
        "One paper a file, one page a paper, in the order of their history.",
        "",
    ]
    lines += ["| year | paper | networks | file |", "|---|---|---|---|"]
    for file, names in papers().items():
        paper = PAPERS[file]
        title, _, what = paper.title.partition(": ")
        listed = ", ".join(f"`{name}`" for name in names)
        lines.append(
            f"| {paper.year} | [{title}]({file}.md): {what.rstrip('.')} | {listed} | "
            f"{source(file)} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "`foveate models` lists them with their figures; `foveate models NAME` shows one, and "
            "`--diagram FILE.svg` draws it.",
            "`foveate models NAME --on IMAGE` draws what each stage makes of an image; "
            "`foveate models NAME NAME` puts two side by side.",
            "",
        ]
    )


def source(file: str) -> str:
    return f"[`models/{file}.py`](../../foveate/models/{file}.py)"


def page(file: str, names: list[str], face: str) -> str:
    paper = PAPERS[file]
    entries = [CATALOGUE[name] for name in names]
    parts = [
        f"# {paper.title.rstrip('.')}",
        f"{paper.reference}\n\nIn {source(file)}.",
        f"## The idea\n\n{idea(file)}",
        f"## The network\n\n![{face}]({file}.svg)\n\n{stages_table(face)}",
        f"## What there is\n\n{variants_table(entries)}",
        f"## Differences from the paper\n\n{differences(file)}",
        f"## How to use it\n\n{usage(names, entries)}",
    ]
    return "\n\n".join(parts) + "\n"


def stages_table(name: str) -> str:
    summary = summarise(meta_twin(name))
    size = "x".join(str(n) for n in summary.size)
    lines = [
        f"`{name}`, an image of {size}, {summary.depth} layers deep (convolutions and linear "
        "layers).",
        "",
    ]
    lines += [
        "| stage | output | parameters | MACs | receptive field | stride |",
        "|---|---|---|---|---|---|",
    ]
    for stage in summarise_stages(meta_twin(name), summary):
        shape = " x ".join(str(n) for n in stage.shape)
        field = (
            "the whole image"
            if stage.field is None
            else " x ".join(str(n) for n in dict.fromkeys(stage.field))
        )
        stride = (
            "" if stage.stride is None else " x ".join(str(n) for n in dict.fromkeys(stage.stride))
        )
        lines.append(
            f"| {stage.name} | {shape} | {stage.parameters:,} | {stage.macs:,} | {field} | "
            f"{stride} |"
        )
    return "\n".join(lines)


def variants_table(entries: list[Entry]) -> str:
    lines = [
        "| network | parameters | G MACs | pixels | published weights |",
        "|---|---|---|---|---|",
    ]
    for entry in entries:
        sets = [w for w in WEIGHTS.values() if w.network == entry.name]
        listed = ", ".join(f"`{w.key}` top-1 {w.accuracy} %" for w in sets) or "none"
        row = (
            f"| `{entry.name}` | {entry.parameters:,} | {entry.macs / 1e9:.3f} | "
            f"{entry.input_size} | {listed} |"
        )
        lines.append(row)
    return "\n".join(
        [*lines, "", "Parameters as built, with auxiliary classifiers where there are any."]
    )


def usage(names: list[str], entries: list[Entry]) -> str:
    """By its name; for LeNet, which everybody meets first, also by its function."""
    lenet = "lenet5" in names
    smallest = CATALOGUE["lenet5"] if lenet else min(entries, key=lambda e: e.parameters)
    classes = 10 if lenet else 7
    shape = f"{1 if lenet else 3}, {smallest.input_size}, {smallest.input_size}"
    blocks = ["```python\nimport torch\n\nimport foveate"]
    blocks += ["import foveate.models\n" if lenet else ""]
    blocks += [f'network = foveate.build("{smallest.name}", num_classes={classes})']
    blocks += [f"network = foveate.models.lenet5(num_classes={classes})  # the same"] * lenet
    blocks += [
        f"x = torch.zeros(2, {shape})",
        f"network.eval()(x).shape  # (2, {classes}): logits",
        "network.embed(x).shape  # what the head reads",
        "[m.shape for m in network.stages(x)]  # the map at the end of each stage\n```",
    ]
    text = "\n".join(blocks)
    published = [w for w in WEIGHTS.values() if w.network in names]
    if published:
        name = published[0].network
        text += f'\n\nWith its published weights: `foveate.build("{name}", weights="imagenet")`; '
        text += f"as a backbone on your own photos: `foveate train PHOTOS --model {name}`."
    return text


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(name)
