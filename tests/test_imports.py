"""The house's rules, read from the source: imports go one way, torch stays behind its doors, only
the CLI speaks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "foveate"
# A folder, or a file beside the folders, may import what stands above it here, and its own
# neighbours in a line.
LAYERS = [
    {"errors", "arguments", "forking"},
    {"machine", "storage", "progress", "catalogue", "metrics", "lettering"},
    {"download", "models"},
    {"data"},
    {"weights"},
    {"probe", "checkpoint", "runs"},
    {"engine", "heads"},
    {"features"},
    {"audit", "distance", "novelty", "rejection"},
    {"classifier"},
    {"explanation"},
    {"evaluation", "verification", "report", "export", "server"},
    {"training"},
    {"comparison", "lab", "recomputation"},
    {"advice"},
    {"cli"},
]
LAYER = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
EXCEPTIONS = {("data/preprocess.py", "weights")}  # `Preprocess.of` looks a name up
TORCH_AT_THE_TOP = {
    "models",
    "data/batches",
    "training",
    "lab",
}  # folders: others import it in functions
TORCH_TOO = {
    "probe.py",
    "checkpoint.py",
    "engine/torch.py",
    "engine/pixels.py",
    "explanation/cam.py",
    "explanation/gradients.py",
    "explanation/randomisation.py",
    "data/decoding.py",
    "data/torch_dataset.py",
}
FILES = sorted(ROOT.rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[str]:
    """Dotted names of everything imported below a node."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a thing lives"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def at_import_time(tree: ast.Module) -> list[ast.stmt]:
    """Top-level statements, without functions' bodies and without what only type checkers read."""
    return [
        s
        for s in tree.body
        if not (isinstance(s, ast.If) and "TYPE_CHECKING" in ast.unparse(s.test))
    ]


def top_level_imports(file: Path) -> list[str]:
    statements = at_import_time(ast.parse(file.read_text()))
    flat = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
    return [imported for s in flat for imported in imports(s)]


def test_every_room_has_a_layer():
    assert {room(file) for file in FILES} - {"__init__", "__main__"} == set(LAYER)


@pytest.mark.parametrize(
    "file", [f for f in FILES if room(f) not in ("__init__", "__main__")], ids=name
)
def test_imports_point_down(file):
    inside = [
        i.split(".")[1] for i in imports(ast.parse(file.read_text())) if i.startswith("foveate.")
    ]
    above = [target for target in inside if target in LAYER and LAYER[target] > LAYER[room(file)]]
    assert set(above) == {above for below, above in EXCEPTIONS if below == name(file)}


@pytest.mark.parametrize("file", sorted((ROOT / "models").glob("*.py")), ids=name)
def test_models_import_torch_alone(file):
    outside = {i.split(".")[0] for i in imports(ast.parse(file.read_text()))} - set(
        sys.stdlib_module_names
    )
    # drawings are written as PNG by matplotlib, which is imported for that alone
    assert outside <= {"torch", "foveate"} | ({"matplotlib"} if file.stem == "drawing" else set())
    assert "matplotlib" not in {i.split(".")[0] for i in top_level_imports(file)}
    assert all(
        i.startswith("foveate.models")
        for i in imports(ast.parse(file.read_text()))
        if i.startswith("foveate")
    )


@pytest.mark.parametrize("file", sorted((ROOT / "data" / "augment").glob("*.py")), ids=name)
def test_augmentation_knows_no_batches(file):
    assert not any(
        i.startswith("foveate.data.batches") for i in imports(ast.parse(file.read_text()))
    )


EVALUATES = ("engine", "features.py", "classifier", "evaluation.py", "weights")


@pytest.mark.parametrize("file", [f for f in FILES if name(f).startswith(EVALUATES)], ids=name)
def test_evaluation_and_prediction_cannot_augment(file):
    """They do not know how."""
    inside = imports(ast.parse(file.read_text()))
    assert not any(i.startswith(("foveate.data.augment", "foveate.training")) for i in inside)


def folder(file: Path) -> str:
    return file.relative_to(ROOT).parent.as_posix()


@pytest.mark.parametrize("file", FILES, ids=name)
def test_torch_is_imported_where_it_is_used(file):
    at_the_top = any(i.split(".")[0] in ("torch", "torchvision") for i in top_level_imports(file))
    assert not at_the_top or folder(file) in TORCH_AT_THE_TOP or name(file) in TORCH_TOO


@pytest.mark.parametrize("file", FILES, ids=name)
def test_openvino_has_one_door(file):
    directly = any(i.split(".")[0] == "openvino" for i in imports(ast.parse(file.read_text())))
    assert directly == (name(file) == "engine/openvino.py")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_scikit_learn_is_for_the_images_that_it_ships(file):
    assert name(file) in ("data/builtin.py", "lab/colour.py") or not any(
        i.split(".")[0] == "sklearn" for i in imports(ast.parse(file.read_text()))
    )


@pytest.mark.parametrize("file", [f for f in FILES if room(f) != "cli"], ids=name)
def test_only_the_cli_prints_or_exits(file):
    calls = [
        ast.unparse(n.func)
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Call)
    ]
    assert not {"print", "exit", "sys.exit", "quit", "sys.stdout.write", "sys.stderr.write"} & set(
        calls
    )


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_hidden_machinery(file):
    source = ast.parse(file.read_text())
    calls = {ast.unparse(n.func) for n in ast.walk(source) if isinstance(n, ast.Call)}
    assert not {"exec", "eval", "pickle.load", "pickle.loads"} & calls
    assert not any(i.split(".")[0] == "pickle" or i.endswith(".*") for i in imports(source))


@pytest.mark.parametrize(
    "statement",
    [
        "import foveate",
        "import foveate.cli",
        "from foveate import Classifier, train",
        "import foveate.engine.openvino",
        "from foveate.data.augment import Augment",
    ],
)
def test_import_loads_no_torch(statement):
    code = (
        f"import sys; {statement}; sys.exit(sum(m in sys.modules for m in ('torch', 'torchvision', "
        "'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_import_foveate_loads_nothing_heavy():
    code = (
        "import sys; import foveate; print([m for m in ('numpy', 'PIL', 'rich', 'openvino') if m "
        "in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
