"""Networks compared on made images: one way of seeing them is better, and is found; what was
interrupted goes on; what cannot be trained here is a row that says so."""

import csv
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import foveate
from PIL import Image
from refusals import absent, refused

from foveate import comparison
from foveate.comparison import candidates, compare, speed
from foveate.comparison.budget import Deadline, OverBudgetError
from foveate.errors import ArtefactError, FoveateError, UsageError
from foveate.progress import Silent
from foveate.runs import Run

pytestmark = pytest.mark.usefixtures("warm_features")

MODEL = "efficientnet_lite0"
WHOLE, CENTRE = f"{MODEL} whole", f"{MODEL} 1/2"
ASKED: dict[str, Any] = {"framings": ["whole", "1/2"], "progress": Silent()}


@pytest.fixture(scope="session")
def edges(tmp_path_factory: pytest.TempPathFactory, draw_image: Callable[..., Any]) -> Path:
    """Noise, and noise with a bar along the left edge, which the centre does not show."""
    root = tmp_path_factory.mktemp("edges") / "edges"
    for kind in ("bar", "none"):
        (root / kind).mkdir(parents=True)
        for i in range(26):
            pixels = np.asarray(draw_image("noise", i + 100 * (kind == "bar"))).copy()
            if kind == "bar":
                pixels[:, : pixels.shape[1] // 8] = 0
            Image.fromarray(pixels).save(root / kind / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def compared(
    backbone_cache: Path, edges: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Two ways of one network, and a network that has no weights. To be read only."""
    out = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        patch.setenv("FOVEATE_CACHE", str(backbone_cache))
        (backbone_cache / "features").mkdir(exist_ok=True)
        return compare(edges, [MODEL, "lenet5"], out=out, **ASKED)


def quick(patch: pytest.MonkeyPatch) -> None:
    """Speed is measured on as little as possible."""
    for name in ("ROUNDS", "ALONE", "TOGETHER"):
        patch.setattr(speed, name, 1)


@pytest.fixture(autouse=True)
def measured_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


@pytest.fixture
def begun(compared: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of that comparison's folder."""
    return Path(shutil.copytree(compared["folder"], tmp_path / "out"))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The runs that are trained or read back, as they are asked for."""
    asked: list[str] = []
    real = comparison.train

    def train(*given: Any, **options: Any) -> Any:
        asked.append(options["out"].name)
        return real(*given, **options)

    monkeypatch.setattr(comparison, "train", train)
    yield asked


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["rows"]}


# what is found


def test_a_planted_better_way_is_found(compared: dict[str, Any]) -> None:
    rows = by_name(compared)
    assert rows[WHOLE]["accuracy"] > 0.85 and rows[CENTRE]["accuracy"] < 0.75
    (pair,) = compared["pairs"]
    assert (pair["first"], pair["second"], pair["verdict"]) == (WHOLE, CENTRE, "better")
    best = compared["best"]
    assert (best["name"], best["rivals"], best["of"]) == (WHOLE, [], 2)
    assert best["accuracy"] == rows[WHOLE]["accuracy"] - best["correction"]
    assert not absent(" ".join(compared["said"]), WHOLE, CENTRE, "better")


def test_figures_are_those_of_the_runs(compared: dict[str, Any]) -> None:
    for name in (WHOLE, CENTRE):
        row = by_name(compared)[name]
        run = Path(compared["folder"]) / "runs" / row["runs"][0]
        metrics = json.loads((run / "metrics.json").read_text())
        told = metrics["out_of_fold"]
        assert {key: row[key] for key in ("n", "accuracy", "accuracy_ci95", "macro_f1", "ece")} == {
            key: told[key] for key in ("n", "accuracy", "accuracy_ci95", "macro_f1", "ece")
        }
        assert (metrics["rejection"], row["refused_own"]) == (None, None)  # of too few images
        files = [file for file in (run / "classifier").rglob("*") if file.is_file()]
        assert row["bytes"] == sum(file.stat().st_size for file in files)
        assert row["latency_ms"] > 0 and row["throughput"] > 0 and row["seconds_cold"] > 0
        assert row["latency_ms_range"][0] <= row["latency_ms"] <= row["latency_ms_range"][1]
    # what a probe reads of the backbone, and the head; not the classifier of ImageNet
    assert abs(by_name(compared)[WHOLE]["macs"] - 385_187_552) < 3e6


def test_all_have_the_same_folds_and_groups(compared: dict[str, Any]) -> None:
    runs = sorted((Path(compared["folder"]) / "runs").iterdir())
    first, second = (json.loads((run / "data.json").read_text()) for run in runs)
    assert first["files"] == second["files"] and first["links"] == second["links"]


def test_a_network_without_weights_is_a_row_that_says_so(compared: dict[str, Any]) -> None:
    for name in ("lenet5 whole", "lenet5 1/2"):
        row = by_name(compared)[name]
        assert (row["status"], row["runs"]) == ("no weights", [])
        assert "no weights" in row["reason"] and "accuracy" not in row


def test_the_table(compared: dict[str, Any]) -> None:
    with (Path(compared["folder"]) / "table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert [*rows] == [*by_name(compared)]
    assert float(rows[WHOLE]["accuracy"]) == by_name(compared)[WHOLE]["accuracy"]
    assert float(rows[WHOLE]["accuracy_corrected"]) == compared["best"]["accuracy"]
    assert rows["lenet5 1/2"]["status"] == "no weights" and not rows["lenet5 1/2"]["accuracy"]


def test_the_images_that_one_alone_has_right(compared: dict[str, Any]) -> None:
    apart = compared["apart"]
    assert (apart["first"], apart["second"]) == (WHOLE, CENTRE)
    (pair,) = compared["pairs"]
    assert len(apart["only_first"]) == pair["newly_right"] > 5
    assert len(apart["only_second"]) == pair["newly_wrong"]
    for image in apart["only_first"]:
        assert image["file"].startswith(image["label"]) and image["answer"] != image["label"]


@pytest.mark.parametrize(("lang", "word"), [("en", "right most often"), ("zh", "正确率最高")])
def test_the_report(begun: Path, edges: Path, lang: Any, word: str, trainings: list[str]) -> None:
    compare(edges, [MODEL, "lenet5"], out=begun, lang=lang, **ASKED)
    page = (begun / "report.html").read_text(encoding="utf-8")
    assert not absent(page, word, WHOLE, CENTRE, "lenet5", "<svg", "data:image/jpeg")
    assert trainings == []  # the page is written anew, nothing else
    assert ">efficientnet_lite0 whole</text>" in page  # the chart has no tag that it cannot draw


# going on


def test_what_is_finished_is_not_done_again(
    begun: Path, edges: Path, trainings: list[str], compared: dict[str, Any]
) -> None:
    again = compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)
    assert trainings == [] and again | {"folder": ""} == compared | {"folder": ""}
    (begun / "comparison.json").unlink()
    modified = (begun / "runs/efficientnet_lite0-whole/metrics.json").stat().st_mtime_ns
    again = compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)
    assert (begun / "runs/efficientnet_lite0-whole/metrics.json").stat().st_mtime_ns == modified
    assert again["pairs"] == compared["pairs"] and again["best"] == compared["best"]


def test_a_network_may_be_added_and_nothing_else_changed(
    begun: Path, edges: Path, trainings: list[str]
) -> None:
    more = compare(edges, [MODEL, "lenet5", "alexnet_2012"], out=begun, **ASKED)
    assert [*by_name(more)][-1] == "alexnet_2012 1/2"
    with refused(UsageError, str(begun), "seeds 1, now 2"):
        compare(edges, [MODEL, "lenet5", "alexnet_2012"], seeds=2, out=begun, **ASKED)
    with refused(UsageError, str(begun), "lenet5", "alexnet_2012"):
        compare(edges, [MODEL], out=begun, **ASKED)
    (edges.parent / "other").mkdir()
    for kind in ("bar", "none"):
        shutil.copytree(edges / kind, edges.parent / "other" / kind)
    (edges.parent / "other/bar/0.png").unlink()
    with refused(UsageError, str(begun), "other data"):
        compare(edges.parent / "other", [MODEL, "lenet5", "alexnet_2012"], out=begun, **ASKED)


def stopped(*given: Any, **options: Any) -> Any:
    raise KeyboardInterrupt


def test_interrupted_at_every_stage(
    tmp_path: Path, edges: Path, monkeypatch: pytest.MonkeyPatch, compared: dict[str, Any]
) -> None:
    """Each call is stopped at a later stage than the one before; the last one ends."""
    out, real = tmp_path / "out", comparison.train
    done: list[str] = []

    def train(*given: Any, **options: Any) -> Any:
        if options["framing"] == "1/2" and "1/2" not in done:
            done.append("1/2")
            raise KeyboardInterrupt
        return real(*given, **options)

    stages = ["find_groups_alike", "measure_speed", "verdict", "write_json", "write_table"]
    for stage in [stages[0], "train", *stages[1:], "write_comparison"]:
        with monkeypatch.context() as patch:
            patch.setattr(comparison, stage, train if stage == "train" else stopped)
            with pytest.raises(KeyboardInterrupt):
                compare(edges, [MODEL, "lenet5"], out=out, **ASKED)
    found = compare(edges, [MODEL, "lenet5"], out=out, **ASKED)
    assert found["pairs"] == compared["pairs"] and found["best"] == compared["best"]
    assert {"comparison.json", "report.html", "table.csv"} <= {p.name for p in out.iterdir()}


def test_a_run_that_a_killed_process_left_is_done_again(
    begun: Path, edges: Path, compared: dict[str, Any]
) -> None:
    half = begun / "runs/efficientnet_lite0-1-2"
    for path in half.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)
    assert found["pairs"] == compared["pairs"]


def test_a_full_disk_loses_nothing(
    begun: Path, edges: Path, monkeypatch: pytest.MonkeyPatch, compared: dict[str, Any]
) -> None:
    (begun / "comparison.json").unlink()
    real = Path.write_text

    def write_text(path: Path, *given: Any, **options: Any) -> int:
        if "comparison.json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        with refused(FoveateError, "disk is full", "comparison.json"):
            compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)
    found = compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)
    assert found["pairs"] == compared["pairs"]


# what cannot be trained


def failing(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """Trainings fail, one after the other, with these; the others are real."""
    real, left = comparison.train, [*errors]

    def train(*given: Any, **options: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(*given, **options)

    monkeypatch.setattr(comparison, "train", train)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "too large"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "too large"),
        (ArtefactError("the weights are damaged"), "failed"),
    ],
)
def test_one_that_fails_is_a_row_and_the_others_go_on(
    begun: Path, edges: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    (begun / "comparison.json").unlink()
    failing(monkeypatch, error)
    rows = by_name(compare(edges, [MODEL, "lenet5"], out=begun, **ASKED))
    assert (rows[WHOLE]["status"], rows[CENTRE]["status"]) == (status, "done")
    assert rows[WHOLE]["reason"]


def test_what_fails_for_all_is_an_error(
    tmp_path: Path, edges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, UsageError("the cause"), UsageError("another"))
    with refused(UsageError, "the cause"):
        compare(edges, [MODEL], out=tmp_path / "out", **ASKED)
    failing(monkeypatch, RuntimeError("a bug"))
    with refused(RuntimeError, "a bug"):
        compare(edges, [MODEL], out=tmp_path / "out", **ASKED)


def test_a_network_too_large_for_the_memory_is_known_before(
    tmp_path: Path, edges: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[str]
) -> None:
    monkeypatch.setattr(candidates, "free_memory", lambda: 300 << 20)
    found = compare(edges, [MODEL], out=tmp_path / "out", **ASKED)
    assert {row["status"] for row in found["rows"]} == {"too large"} and trainings == []
    assert not absent(found["rows"][0]["reason"], "GB")
    assert (found["pairs"], found["best"]) == ([], None) and found["said"]


def test_memory_that_is_needed_grows_with_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "weights_missing", lambda model: "")
    monkeypatch.setattr(candidates, "free_memory", lambda: 1 << 30)
    small, large = (candidates.Candidate(name, name) for name in (MODEL, "vgg16"))
    assert candidates.obstacle(small, "probe") is None
    status, reason = candidates.obstacle(large, "probe") or ("", "")
    assert status == "too large" and "2.6 GB" in reason  # 138,357,544 numbers, four times


def test_a_budget_that_is_over(tmp_path: Path, edges: Path) -> None:
    found = compare(edges, [MODEL], out=tmp_path / "out", seconds=1e-3, **ASKED)
    assert {row["status"] for row in found["rows"]} == {"over budget"}
    assert not list((tmp_path / "out/runs").glob("*"))
    again = compare(edges, [MODEL], out=tmp_path / "out", seconds=1e-3, **ASKED)
    assert again == found


@pytest.mark.parametrize(("seconds", "epochs"), [(10.0, None), (55.0, 1), (160.0, 3), (1e6, 5)])
def test_as_many_epochs_as_fit(
    tmp_path: Path,
    edges: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    epochs: int | None,
) -> None:
    """An epoch takes 50 s, and the recipe has 5."""
    asked: list[int] = []

    def train(*given: Any, **options: Any) -> Any:
        asked.append(options["epochs"])
        raise UsageError("far enough")

    monkeypatch.setattr(comparison, "measure_epoch", lambda *given, **options: (50.0, 5))
    monkeypatch.setattr(comparison, "train", train)
    given: dict[str, Any] = {"recipe": "finetune", "seconds": seconds, "out": tmp_path / "out"}
    if epochs is None:
        rows = compare(edges, [MODEL, "lenet5"], **given, progress=Silent())["rows"]
        assert [row["status"] for row in rows] == ["over budget", "no weights"]
        assert "50 s" in rows[0]["reason"] and asked == []
        return
    for _ in range(2):  # decided once: a training that is resumed has as many
        with refused(UsageError, "far enough"):
            compare(edges, [MODEL, "lenet5"], **given, progress=Silent())
        monkeypatch.setattr(comparison, "measure_epoch", lambda *given, **options: (1.0, 5))
    assert asked == [epochs, epochs]


def test_a_deadline_ends_what_is_not_finished() -> None:
    deadline = Deadline(Silent(), 1e-9)
    with pytest.raises(OverBudgetError, match="images, 0 of 10"):
        deadline.begin("images", 10)
    deadline.begin("thumbnails", 3)  # of a training that is finished
    deadline.advance()
    unlimited = Deadline(Silent(), None)
    unlimited.begin("images", 1)
    unlimited.advance()


# bad input


@pytest.mark.parametrize(
    ("models", "options", "names"),
    [
        ([MODEL], {}, ["two or more", MODEL]),
        ([], {}, ["two or more"]),
        ([MODEL, "EfficientNet-Lite0"], {}, [MODEL, "twice"]),
        ([MODEL], {"framings": ["2/3", "2/3"]}, ["2/3", "twice"]),
        ([MODEL, "resnt18"], {}, ["resnt18", "resnet18"]),
        ([MODEL, "timm:resnt18"], {}, ["resnt18", "resnet18"]),
        ([MODEL, "lenet5"], {"efforts": ["slow"]}, ["slow", "fast"]),
        ([MODEL, "lenet5"], {"efforts": ["fast"], "recipe": "finetune"}, ["efforts", "finetune"]),
        ([MODEL, "lenet5"], {"framings": ["half"]}, ["half", "whole"]),
        ([MODEL, "lenet5"], {"framings": ["whole+2/3"], "recipe": "finetune"}, ["whole+2/3"]),
        ([MODEL, "lenet5"], {"efforts": ["fast", "most"]}, ["most", MODEL]),
        ([MODEL, "lenet5"], {"recipe": "scratch"}, ["scratch", "probe, finetune"]),
        ([MODEL, "lenet5"], {"seeds": 0}, ["seeds", "0"]),
        ([MODEL, "lenet5"], {"seconds": 0}, ["seconds", "0"]),
        ([MODEL, "lenet5"], {"seconds": float("nan")}, ["seconds", "nan"]),
        ([MODEL, "lenet5"], {"lang": "fr"}, ["fr", "zh"]),
        ("resnet18,resnet50", {}, ["models", "list"]),
        (None, {}, ["models", "None"]),
        ([MODEL, 18], {}, ["models", "18"]),
    ],
)
def test_refused(
    edges: Path, tmp_path: Path, models: Any, options: dict[str, Any], names: list[str]
) -> None:
    with refused(UsageError, *names):
        compare(edges, models, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_touched(edges: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with refused(UsageError, str(tmp_path), "no comparison"):
        compare(edges, [MODEL], out=tmp_path, **ASKED)
    assert [p.name for p in tmp_path.iterdir() if p.name == "notes.txt"]


def test_two_processes_do_not_share_a_folder(begun: Path, edges: Path) -> None:
    with Run(begun, fresh=False).alone(), refused(UsageError, str(begun), "another process"):
        compare(edges, [MODEL, "lenet5"], out=begun, **ASKED)


# the command line


def test_the_command(edges: Path, begun: Path) -> None:
    asked = ["compare", edges, "--models", f"{MODEL},lenet5", "--framings", "whole,1/2"]
    done = foveate(*asked, "--out", begun, COLUMNS="140")
    assert done.returncode == 0, done.stderr
    assert not absent(done.stdout, WHOLE, CENTRE, "better", "no weights: lenet5 whole", "report")
    found = json.loads(foveate(*asked, "--out", begun, "--json").stdout)
    assert found["best"]["name"] == WHOLE and found["folder"] == str(begun)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["photos"], ["--models"]),
        (["photos", "more", "--models", "a,b"], ["2 data sets"]),
        (["run", "other", "--seeds", "2"], ["--seeds", "--models"]),
        (["photos", "--models", "a,b", "--images", "photos"], ["--images"]),
    ],
)
def test_a_command_that_says_too_little_or_too_much(arguments: list[str], names: list[str]) -> None:
    done = foveate("compare", *arguments)
    assert (done.returncode, done.stdout) == (2, "") and not absent(done.stderr, *names)
