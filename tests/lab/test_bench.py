"""What an experiment is given: images, notes, and a memory of what was measured."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import foveate
from PIL import Image
from refusals import absent, refused

from foveate.errors import DataError, UsageError
from foveate.lab import bench as bench_module
from foveate.lab import find, images
from foveate.lab.bench import Bench, Findings, run
from foveate.lab.drawing import figure
from foveate.lab.page import write_page


def experiment(measured: list[str], stop: bool = False) -> Any:
    """One that measures two random numbers, and is interrupted before the second."""

    def draw(name: str) -> float:
        if stop and name == "second":
            raise KeyboardInterrupt
        measured.append(name)
        return float(torch.rand(()))

    def go(bench: Bench) -> Findings:
        bench.steps(2)
        values = [bench.measure(name, draw, name) for name in ("first", "second")]
        made, axes = figure()
        axes[0, 0].plot(values)
        rows = [{"value": value} for value in values] + [{"other": 1}]
        return Findings(made, rows, ("One.", "Two.", "Three."), None, "Nothing?")

    return SimpleNamespace(run=go, QUESTION="Is <this> one?", MINUTES=(1, 1), __name__="lab.my_own")


@pytest.fixture(autouse=True)
def known_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module.inspect, "getsource", lambda module: "code")


def test_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    measured: list[str] = []
    whole = run(experiment([]), Bench(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run(experiment(measured, stop=True), Bench(tmp_path / "part"))
    found = run(experiment(measured), Bench(tmp_path / "part"))
    assert measured == ["first", "second"]
    assert found["rows"] == whole["rows"]
    assert (tmp_path / "part/table.csv").read_text() == (tmp_path / "whole/table.csv").read_text()
    svg = [(tmp_path / name / "figure.svg").read_bytes() for name in ("whole", "part")]
    assert svg[0] == svg[1]


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_other_options_or_a_damaged_memory_start_over(tmp_path: Path, text: str | None) -> None:
    measured: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(experiment(measured, stop=True), Bench(tmp_path))
    if text is not None:
        (tmp_path / "measured.json").write_text(text)
    run(experiment(measured), Bench(tmp_path, seed=1 if text is None else 0))
    assert measured == ["first", "first", "second"]


def test_draws_nothing_from_the_random_numbers_of_others(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(experiment([]), Bench(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)


def test_digits_take_the_place_of_fashion_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "fashion_is_here", lambda: False)
    bench = Bench(tmp_path)
    found = bench.images("fashion-mnist", side=16, most=200)
    assert found.name == "digits" and found.x.shape == (200, 1, 16, 16)
    assert not absent(bench.notes[0], "Fashion-MNIST", "digits")


def photos(folder: Path, sizes: dict[str, int]) -> str:
    rng = np.random.default_rng(0)
    for label, n in sizes.items():
        (folder / label).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return str(folder)


def test_photos_of_the_user(tmp_path: Path) -> None:
    bench = Bench(tmp_path, data=photos(tmp_path / "photos", {"a": 30, "b": 25, "c": 3}))
    found = bench.images("fashion-mnist", side=16)
    assert found.classes == ("a", "b") and not absent(bench.notes[0], "1", "20")
    assert found.x.shape == (44, 3, 16, 16) and found.test_x.shape == (11, 3, 16, 16)
    assert found.x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert sorted(torch.cat([found.y, found.test_y]).bincount().tolist()) == [25, 30]
    few = found.few(5)
    assert few.y.bincount().tolist() == [5, 5] and few.test_x is found.test_x


def test_too_few_images_and_unreadable_ones(tmp_path: Path) -> None:
    few = photos(tmp_path / "few", {"a": 30, "b": 19})
    with refused(DataError, "few", "1", "20"):
        Bench(tmp_path, data=few).images()
    bad = photos(tmp_path / "bad", {"a": 30, "b": 30})
    (tmp_path / "bad/b/7.png").write_bytes(b"no image")
    with refused(DataError, "b/7.png", "remove"):
        Bench(tmp_path, data=bad).images()


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    result = run(experiment([]), Bench(tmp_path / "my-own"))
    write_page(tmp_path / "index.html", [(tmp_path / "my-own", result)])
    text = (tmp_path / "index.html").read_text()
    assert not absent(text, "my-own", "Is &lt;this&gt; one?", "One.", "Nothing?", "svg+xml;base64")


def test_the_command(tmp_path: Path) -> None:
    name = "vanishing-gradient"
    listed = json.loads(foveate("lab", "--json").stdout)["labs"]
    assert name in [one["lab"] for one in listed]
    with refused(UsageError, f"'{name}'"):
        find("vanishing_gradients")
    assert foveate("lab", "nothing-of-this").returncode == 2
    assert foveate("lab", "--quick").returncode == 2
    done = foveate("lab", name, "--quick", "--out", tmp_path / "x", "--json", "--seed", "3")
    found = json.loads(done.stdout)
    assert (found["lab"], found["seed"], found["quick"]) == (name, 3, True)
    assert Path(found["folder"], "figure.png").exists()
    shown = foveate("lab", name, "--quick", "--out", tmp_path / "x")
    assert not absent(shown.stdout, found["question"], "figure.png")
