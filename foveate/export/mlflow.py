"""An ONNX model as a folder of MLflow's ONNX flavour, which `mlflow.onnx.load_model` and
`mlflow models serve` take. MLflow is neither needed nor told."""

import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foveate.classifier import Classifier
from foveate.export.graph import OUTPUT, input_names
from foveate.export.program import ONNX
from foveate.storage import encode

WRITTEN_AS = "2.9.0"  # the version of MLflow whose form this is; later ones read it
ENVIRONMENT = "python_env.yaml"


def write_model_file(classifier: Classifier, folder: Path) -> None:
    """Write MLmodel and the files of its environment beside `model.onnx`."""
    needed = [f"{name}=={version(name)}" for name in ("onnx", "onnxruntime", "numpy")]
    python = ".".join(map(str, sys.version_info[:3]))
    channels, views = classifier.preprocess.channels, classifier.preprocess.views
    inputs = [
        tensor(name, "uint8", [-1, view.crop, view.crop, channels])
        for name, view in zip(input_names(classifier), views, strict=True)
    ]
    outputs = [tensor(OUTPUT, "float32", [-1, len(classifier.classes)])]
    model = {
        "artifact_path": "model",
        "flavors": {
            "onnx": {
                "code": None,
                "data": ONNX.file,
                "onnx_version": version("onnx"),
                "providers": ["CPUExecutionProvider"],
            },
            "python_function": {
                "data": ONNX.file,
                "env": {"virtualenv": ENVIRONMENT},
                "loader_module": "mlflow.onnx",
                "python_version": python,
            },
        },
        "mlflow_version": WRITTEN_AS,
        "signature": {"inputs": encode(inputs), "outputs": encode(outputs), "params": None},
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    environment = {
        "python": python,
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    # JSON is YAML
    for name, value in (("MLmodel", model), (ENVIRONMENT, environment)):
        text = "".join(f"{key}: {encode(entry)}\n" for key, entry in value.items())
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in needed))


def tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    """An entry of a signature."""
    spec = {"dtype": dtype, "shape": shape}
    return {"name": name, "type": "tensor", "tensor-spec": spec}
