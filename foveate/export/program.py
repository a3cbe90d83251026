"""predict.py: the program beside an exported file. It needs numpy, Pillow and one runtime, and
gives the classifier's answers: the same decoding, the same resize, the same thresholds.

What it says twice (how an image is decoded and framed) is `data/image.py` and `data/preprocess.py`
once more, in as few lines as all ordinary files need; each export runs it beside the classifier.
"""

from typing import Any, NamedTuple


class Runtime(NamedTuple):
    """What differs between runtimes.

    Args:
        file: the network's.
        package: to be installed.
        imports, load, run: lines of Python; `load` gives `about`, the metadata, and `run` gives
            `rows`, (N, classes), of `inputs`.
    """

    file: str
    package: str
    imports: str
    load: str
    run: str


ONNX = Runtime(
    file="model.onnx",
    package="onnxruntime",
    imports="import onnxruntime",
    load="""\
model = Path(__file__).with_name("model.onnx")
session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map""",
    run="""\
    ends = [end.name for end in session.get_inputs()]
    rows = session.run(None, dict(zip(ends, inputs)))[0]""",
)
OPENVINO = Runtime(
    file="model.xml",
    package="openvino",
    imports="""\
sys.modules.setdefault("openvino_telemetry", None)  # importing openvino would call a host
import openvino""",
    load="""\
# f32 gives the same answers everywhere; "bf16" is faster where the CPU has it, and rounds
options = {"INFERENCE_PRECISION_HINT": "f32"}
model = openvino.Core().read_model(Path(__file__).with_name("model.xml"))
keys = ["foveate." + k for k in ("classes", "preprocess", "thresholds", "operating_point")]
about = {key: model.get_rt_info(key.split(".")).astype(str) for key in keys}
session = openvino.compile_model(model, "CPU", options)""",
    run="""\
    rows = session(dict(enumerate(inputs)))[0]""",
)
TORCH = Runtime(
    file="model.pt2",
    package="torch",
    imports="import torch",
    load="""\
keys = ("classes", "preprocess", "thresholds", "operating_point")
about = {"foveate." + key: "" for key in keys}
model = Path(__file__).with_name("model.pt2")
session = torch.export.load(model, extra_files=about).module()""",
    run="""\
    with torch.inference_mode():
        rows = session(*map(torch.from_numpy, inputs)).numpy()""",
)

PROGRAM = '''\
"""Classify images: python predict.py [--json] IMAGE ...

It needs numpy, Pillow and {package}. Written by Foveate beside {file}, which holds the classes and
how they expect an image.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

{imports}

{load}
classes, preprocess, thresholds, point = (
    json.loads(about["foveate." + key])
    for key in ("classes", "preprocess", "thresholds", "operating_point")
)
first = ("resize", "crop", "stretch", "interpolation", "fit")
views = [{{key: preprocess[key] for key in first if key in preprocess}}] + list(
    preprocess.get("more", [])
)
BATCH = 8  # images at once


def load(path, short_side):
    """An image, upright, in RGB, on white. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where
    that leaves twice the pixels that are needed: the classifier learnt from such."""
    image = Image.open(path)
    scale = 2 * short_side / min(image.size)
    if scale < 1:
        image.draft(image.mode, tuple(round(side * scale) for side in image.size))
    image = ImageOps.exif_transpose(image)
{deep}\
    if image.mode in ("I", "F"):
        raise ValueError("numbers without a defined white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def square(image, resize, crop, stretch, interpolation, fit="crop"):
    """The part of an image that one view sees, (1, crop, crop, channels), uint8. Pillow's resize is
    antialiased and takes the part as fractions of pixels: that of other libraries differs."""
    sampling = Image.Resampling[interpolation.upper()]
    image = image.convert("L" if preprocess["channels"] == 1 else "RGB")
    width, height = image.size
    if fit == "pad":
        scale = crop / max(image.size)
        small = image.resize([max(1, round(side * scale)) for side in image.size], sampling)
        border = tuple(round(255 * mean) for mean in preprocess["mean"])
        image = Image.new(image.mode, (crop, crop), border if len(border) > 1 else border[0])
        image.paste(small, ((crop - small.width) // 2, (crop - small.height) // 2))
    else:
        seen = min(width, height) * crop / resize
        w = min(width, seen * stretch) if width > height else seen
        h = min(height, seen * stretch) if height > width else seen
        if fit == "squash":
            w, h = width, height
        part = ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)
        image = image.resize((crop, crop), sampling, box=part)
    return np.asarray(image).reshape(1, crop, crop, preprocess["channels"])


def predict(images):
    """Squares of each view, of several images -> the labels and the probabilities of each."""
    inputs = [np.concatenate(squares) for squares in zip(*images)]
{run}
    for row in rows:
        found = dict(zip(classes, map(float, row)))
        if thresholds is not None:
            given = [c for c, p, t in zip(classes, row, thresholds) if p >= t]
        elif point and found[point["positive"]] >= point["threshold"]:
            given = [point["positive"]]
        else:
            others = (c for c in classes if not point or c != point["positive"])
            given = [max(others, key=found.get)]
        yield given, found


names = [argument for argument in sys.argv[1:] if argument != "--json"]
for some in (names[start : start + BATCH] for start in range(0, len(names), BATCH)):
    read, answers = {{}}, {{}}
    for name in some:
        try:
            read[name] = [square(load(name, view["resize"]), **view) for view in views]
        except Exception as error:  # Pillow raises many kinds for damaged files
            answers[name] = {{"file": name, "error": str(error)}}
    for name, (given, found) in zip(read, predict(read.values()) if read else []):
        answers[name] = {{"file": name, "labels": given, "probabilities": found}}
    for name in some:
        found = answers[name].get("probabilities")
        if "--json" in sys.argv:
            print(json.dumps(answers[name]))
        elif found is None:
            print(name, "cannot be read:", answers[name]["error"], file=sys.stderr)
        else:
            best = sorted(found, key=found.get, reverse=True)[:3]
            shown = (f"{{label}} {{100 * found[label]:.1f}} %" for label in best)
            print(name, *answers[name]["labels"], "", *shown, sep="  ")
'''

HIGH_BYTE = """\
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
"""
LEVELS = """\
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        black, white = preprocess["levels"]  # become 0 and 255
        scaled = (np.asarray(image).astype(np.float64) - black) * (255 / (white - black)) + 0.5
        image = Image.fromarray(np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8))
"""


def program(runtime: Runtime, preprocess: dict[str, Any]) -> str:
    """The text of predict.py.

    Args:
        runtime: which.
        preprocess: of the card; where it has levels, deep images are scaled by them.
    """
    deep = LEVELS if preprocess.get("levels") else HIGH_BYTE
    return PROGRAM.format(**runtime._asdict(), deep=deep)
