"""foveate data preview: the grid shows what training will see, pixel by pixel."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from refusals import absent, refused
from typer.main import get_command
from typer.testing import CliRunner

from foveate.cli import app
from foveate.cli import preview as module
from foveate.cli.augmentation import Policy
from foveate.cli.preview import GAP, MARGIN, scale_for, split
from foveate.data.augment import PARTS, POLICIES, Augment, options_of
from foveate.data.augment.part import Pair
from foveate.data.augment.policies import resolve
from foveate.data.batches import TrainingBatches
from foveate.data.image import load_image
from foveate.data.layouts import load_dataset
from foveate.data.preprocess import Preprocess
from foveate.data.splits import with_splits
from foveate.errors import DataError, FoveateError, UsageError


def run(*arguments: object) -> str:
    """What the command prints; its errors are raised."""
    done = CliRunner().invoke(
        app, ["data", "preview", *map(str, arguments)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def fails(error: type[FoveateError], names: list[str], *arguments: object) -> None:
    with refused(error, *names):
        run(*arguments)


def cells(grid: np.ndarray, side: int, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, side, side, 3): cut out of the grid, from the right edge and the title
    line."""
    top = MARGIN + 2 * max(13, min(20, side // 12))
    right = grid.shape[1] - MARGIN
    steps = [side + GAP] * 2
    corner = grid[top:, right - columns * steps[1] :]
    return np.array(
        [
            [corner[r * steps[0] :, c * steps[1] :][:side, :side] for c in range(columns)]
            for r in range(rows)
        ]
    )


def test_the_cells_are_what_training_will_see(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    options = ["--augment", "light", "--rotation", 15, "--size", 128, "--rows", 3, "--columns", 4]
    found = json.loads(run(images, out, *options, "--seed", 7, "--epoch", 5, "--json"))
    assert found["file"] == str(out) and found["policy"] == "light" and found["reasons"] == []
    wanted = Augment.from_dict(found["augmentation"])
    assert wanted == Augment(crop="random", hflip=0.5, rotation=15)
    shown = cells(np.asarray(Image.open(out)), 128, 3, 4)
    data, preprocess = load_dataset(images), Preprocess(scale_for(128), 128)
    assert [data.classes[data.labels[data.files.index(f)]] for f in found["images"]] == [
        "blob",
        "noise",
        "stripes",
    ]
    rows = [data.files.index(file) for file in found["images"]]
    assert {data.splits[row] for row in rows} == {"train"}
    # training itself, with other batches and other images beside these
    training = TrainingBatches(
        data, np.arange(len(data)), preprocess, wanted, batch_size=20, seed=7, threads=1
    )
    for i, epoch in enumerate(range(5, 9)):
        for batch in training.epoch(epoch):
            for row, pixels in zip(batch.rows, batch.pixels, strict=True):
                if row in rows:
                    assert np.array_equal(
                        shown[rows.index(row), i], pixels.permute(1, 2, 0).numpy()
                    )


def test_the_original_is_what_evaluation_sees(images: Path, tmp_path: Path) -> None:
    found = json.loads(
        run(images, tmp_path / "a.png", "--size", 128, "--rows", 1, "--columns", 1, "--json")
    )
    grid = np.asarray(Image.open(tmp_path / "a.png"))
    data, preprocess = load_dataset(images), Preprocess(scale_for(128), 128)
    file = found["images"][0]
    expected = preprocess.pixels(
        load_image(data.read(data.files.index(file)), file, preprocess.resize)
    )
    window = np.lib.stride_tricks.sliding_window_view(grid[MARGIN + 26 :][:128], 128, axis=1)
    assert any(
        np.array_equal(window[:, x].transpose(0, 2, 1), expected) for x in range(window.shape[1])
    )


def test_the_same_twice_and_another_with_another_seed(images: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ["--seed", seed, "--size", 64, "--rows", 2, "--columns", 2]
        run(images, tmp_path / f"{name}.png", *options)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b and a != c


def test_it_prints_the_policy_and_why(images: Path, tmp_path: Path) -> None:
    printed = run(images, tmp_path / "a.png", "--size", 32, "--rotation", 20)
    assert not absent(printed, "light", "random square", "20°", "seed 0", "32 pixels", "a.png")
    for digit in range(10):
        (tmp_path / f"signs/{digit}").mkdir(parents=True)
        Image.new("L", (9, 12), 25 * digit).save(tmp_path / f"signs/{digit}/a.png")
    options = ["--size", 32, "--augment", "standard", "--columns", 1]
    printed = run(tmp_path / "signs", tmp_path / "d.png", *options)
    assert not absent(printed, "no horizontal flips", "digits"), printed


def test_the_policy_depends_on_the_data(images: Path, tmp_path: Path) -> None:
    found = json.loads(run(images, tmp_path / "a.png", "--json", "--columns", 1))
    assert found["policy"] == "strong" and "20 training images" in found["reasons"][0]


def test_every_option_arrives(images: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "crop": "resized", "crop-area": "0.5 0.9", "crop-ratio": "1 1.5",
        "rotation": 3, "translate": 0.1, "scale": 0.2, "shear": 4,
        "brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.1,
        "pca-colour": 0.2, "pca-from": "imagenet", "auto": "rand", "magnitude": 7,
        "erasing": 0.6, "mixup": 0.7, "cutmix": 0.8,
    }  # fmt: skip
    options = [word for name, value in given.items() for word in [f"--{name}", *str(value).split()]]
    small = ["--size", 32, "--rows", 2, "--columns", 1, "--json"]
    found = json.loads(
        run(images, tmp_path / "a.png", *small, "--augment", "none", "--hflip", "--vflip", *options)
    )
    for name, value in given.items():
        shown = found["augmentation"][name.replace("-", "_")]
        assert shown == (
            [float(v) for v in value.split()] if name in ("crop-area", "crop-ratio") else value
        ), name
    assert (found["augmentation"]["hflip"], found["augmentation"]["vflip"]) == (0.5, 0.5)
    found = json.loads(
        run(images, tmp_path / "a.png", *small, "--crop", "random", "--padding", 0.3, "--no-hflip")
    )
    assert (found["augmentation"]["padding"], found["augmentation"]["hflip"]) == (0.3, 0)


def test_pca_colour_is_fitted_and_in_the_json(images: Path, tmp_path: Path) -> None:
    small = ["--size", 32, "--rows", 1, "--columns", 1, "--json", "--pca-colour", 0.1]
    found = json.loads(run(images, tmp_path / "a.png", *small))["augmentation"]["pca"]
    assert len(found["eigenvalues"]) == 3 and found["eigenvalues"][0] != 0.2175
    published = json.loads(run(images, tmp_path / "a.png", *small, "--pca-from", "imagenet"))
    assert published["augmentation"]["pca"]["eigenvalues"][0] == 0.2175


def test_grey(images: Path, tmp_path: Path) -> None:
    options = "--channels 1 --size 128 --rows 1 --columns 2 --augment strong".split()
    run(images, tmp_path / "a.png", *options)
    shown = cells(np.asarray(Image.open(tmp_path / "a.png")), 128, 1, 2)
    assert (shown[..., 0] == shown[..., 1]).all() and (shown[..., 1] == shown[..., 2]).all()


def test_small_images_are_shown_larger(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "a.png", "--size", 20, "--rows", 1, "--columns", 1)
    shown = cells(np.asarray(Image.open(tmp_path / "a.png")), 100, 1, 1)[0, 0]
    assert np.array_equal(shown, shown[::5, ::5].repeat(5, axis=0).repeat(5, axis=1))


def test_mixed_line(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[module.Row] = []
    draw_grid = module.draw_grid
    monkeypatch.setattr(
        module, "draw_grid", lambda rows, *rest: seen.extend(rows) or draw_grid(rows, *rest)
    )
    run(images, tmp_path / "a.png", "--rows", 3, "--columns", 5, "--size", 64, "--mixup", 1)
    last = seen[-1]
    assert (
        last.name == "mixed"
        and last.original is None
        and len(last.cells) == len(last.captions) == 5
    )
    for caption, cell in zip(last.captions, last.cells, strict=True):
        parts = [part.split(" % ") for part in caption.split(" + ")]
        assert sum(int(share) for share, _ in parts) in (99, 100, 101)
        assert {name for _, name in parts} <= {"blob", "noise", "stripes"}
        assert cell.shape == (64, 64, 3)
    assert any("+" in caption for caption in last.captions)


def test_images_that_cannot_be_read_are_passed_over(tmp_path: Path, draw_folder) -> None:
    folder = draw_folder(tmp_path / "set", 3)
    for path in (folder / "blob").iterdir():
        path.write_bytes(b"broken")
    found = json.loads(
        run(folder, tmp_path / "a.png", "--rows", 9, "--columns", 1, "--size", 32, "--json")
    )
    assert len(found["images"]) == 4  # of six, two would be held out
    for path in folder.glob("*/*"):
        path.write_bytes(b"broken")
    fails(DataError, ["'set'", "training"], folder, tmp_path / "a.png")


def test_what_is_refused(images: Path, tmp_path: Path, draw_folder) -> None:
    out = tmp_path / "a.png"
    fails(UsageError, ["a.jpg'", ".png"], images, tmp_path / "a.jpg")
    fails(UsageError, ["hue", "one channel"], images, out, "--channels", 1, "--hue", 0.1)
    options = ["--magnitude", 3, "--augment", "light"]
    fails(UsageError, ["magnitude", "'rand'"], images, out, *options)
    fails(UsageError, ["rotation", "0 to 180"], images, out, "--rotation", 200)
    fails(DataError, ["nowhere"], tmp_path / "nowhere", out)
    draw_folder(tmp_path / "part/test", 2)
    (tmp_path / "part/train").mkdir()
    draw_folder(tmp_path / "part/val", 2)
    fails(DataError, ["'part'", "training"], tmp_path / "part", out)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("folder.png", "file/a.png"):
        fails(UsageError, [name], images, tmp_path / name, "--columns", 1, "--rows", 1)
    for option in ("--seed", "--epoch"):
        done = CliRunner().invoke(
            app, ["data", "preview", str(images), str(out), option, str(2**64)]
        )
        assert done.exit_code == 2
    assert not out.exists()


def test_policies_of_the_command_line_are_those_there_are() -> None:
    literal = get_args(get_args(Policy)[0])[0]
    assert get_args(literal) == tuple(POLICIES)


@pytest.mark.parametrize("path", [("train",), ("data", "preview")], ids=" ".join)
def test_a_command_has_an_option_for_each_of_augment(path: tuple[str, ...]) -> None:
    command = get_command(app)
    for word in path:
        command = command.get_command(None, word)
    found = {parameter.name: parameter for parameter in command.params}
    names = [name for name in found if name in options_of(PARTS)]
    assert names == list(options_of(PARTS))
    for name, option in options_of(PARTS).items():
        assert found[name].help == option.help
        flag = "--" + name.replace("_", "-")
        no = [f"--no-{flag[2:]}"] if option.type is bool else []
        assert [*found[name].opts, *found[name].secondary_opts] == [flag, *no]
        assert found[name].default is None and found[name].nargs == (
            2 if isinstance(option, Pair) else 1
        )


def test_scale_for() -> None:
    assert [scale_for(size) for size in (224, 299, 32, 64)] == [256, 342, 32, 64]


def test_what_training_holds_out_does_not_count(tmp_path: Path) -> None:
    """Of 110 images a class some 77 are left to learn from: few enough for the policy of small
    sets."""
    for kind in "ab":
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(110):
            Image.new("RGB", (70, 70), (2 * i, i, ord(kind))).save(
                tmp_path / f"photos/{kind}/{i}.png"
            )
    data = load_dataset(tmp_path / "photos")
    seen = split(data, seed=0)
    assert resolve(data, 224, 3).policy == "standard" and resolve(seen, 224, 3).policy == "strong"
    assert seen == with_splits(data, seed=0)[0]
    few = data.select(np.arange(4))
    assert split(few, seed=0) == few
