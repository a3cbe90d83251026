"""foveate weights check: its diagnosis of a file; and a file that it calls loadable does load."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from commands import foveate
from refusals import absent, refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from foveate.errors import ArtefactError, UsageError
from foveate.models import build as build_random
from foveate.weights import WEIGHTS, build, source_file
from foveate.weights.diagnosis import convert, diagnose
from foveate.weights.files import kept_file
from foveate.weights.matching import COUNTER

SMALL = "squeezenet1_1"  # the smallest file without batch-norms
NORMED = "shufflenet_v2_x0_5"  # and with


def state(name: str, **arguments: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, **arguments).state_dict()


@pytest.fixture
def write(tmp_path: Path):
    """(content, name) -> the path of a file that torch.save wrote."""

    def write(content: object, name: str = "model.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def test_a_file_of_torchvision(write) -> None:
    path = write(state(SMALL))
    found = diagnose(path)
    assert (found.network, found.source, found.loads, found.classes, found.channels) == (
        SMALL,
        "torchvision",
        True,
        1000,
        3,
    )
    assert (found.tensors, found.parameters, found.published, found.twins) == (
        52,
        1_235_496,
        None,
        (),
    )
    assert (found.problems, found.notes, found.traps) == ((), (), ())
    assert not absent(found.naming, "Foveate's own names")
    assert all(theirs == ours for theirs, ours in found.names.items()) and len(found.names) == 52
    assert json.loads(json.dumps(asdict(found)))["network"] == SMALL
    assert torch.equal(
        build(SMALL, weights=path).state_dict()["classifier.1.weight"],
        state(SMALL)["classifier.1.weight"],
    )


def test_the_published_file() -> None:
    found = diagnose(source_file(WEIGHTS["efficientnet_lite0"]))
    assert (found.network, found.published, found.loads) == (
        "efficientnet_lite0",
        "efficientnet_lite0",
        True,
    )
    assert found.source == "efficientnet_pytorch"
    assert not absent(found.hash, "published efficientnet_lite0", "57934424")
    assert not absent(found.naming, "rule")
    assert found.names["_conv_stem.weight"] == "features.0.0.weight"
    assert found.traps == ()


def test_hashes(write, tmp_path: Path) -> None:
    content = state(SMALL)
    assert not absent(diagnose(write(content)).hash, "no published hash")
    save_file(content, tmp_path / "x.safetensors")
    digest = diagnose(tmp_path / "x.safetensors").sha256
    named = tmp_path / f"x-{digest[:10]}.safetensors"
    save_file(content, named)
    assert not absent(diagnose(named).hash, f"begins with {digest[:10]}", "not in", "table")
    other = diagnose(write(content, "mine-01234567.pth"))
    assert not absent(other.hash, "01234567", "different", other.sha256[:16])
    wrong = diagnose(write(content, WEIGHTS[SMALL].file))
    assert not absent(wrong.hash, f"published {SMALL}", "different", wrong.sha256[:16])
    assert wrong.network == SMALL and wrong.published is None
    kept = tmp_path / kept_file(WEIGHTS[SMALL]).name
    save_file(content, kept)
    assert not absent(diagnose(kept).hash, "copy", f"published {SMALL}")


def test_a_copy_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(build_random("resnet20", 5).state_dict(), tmp_path / "x.safetensors")
    found = diagnose(tmp_path / "x.safetensors")
    assert (found.network, found.twins, found.source, found.classes) == (
        "resnet20",
        ("plain20",),
        "foveate",
        5,
    )
    assert found.loads


def test_other_classes_and_channels(write) -> None:
    content = state(SMALL, num_classes=10)
    content["features.0.weight"] = content["features.0.weight"][:, :1].clone()
    path = write(content)
    found = diagnose(path)
    assert (found.network, found.classes, found.channels, found.loads) == (SMALL, 10, 1, True)
    head, first = found.notes
    assert not absent(head, "head", "10", "1000")
    assert not absent(first, "convolution", "1 channels", "3")
    assert build(SMALL, weights=path)(torch.zeros(1, 1, 64, 64)).shape == (1, 10)


def test_a_checkpoint_of_a_training_script(write) -> None:
    wrapped = {f"module._orig_mod.{k}": v for k, v in state(NORMED).items()}
    path = write(
        {"state_dict": wrapped, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
    )
    found = diagnose(path)
    assert (found.network, found.loads) == (NORMED, True)
    wrapper, parallel, compiled = found.notes
    assert not absent(wrapper, "'state_dict'", "'epoch'", "'optimizer'")
    assert not absent(parallel, "'module.'", "DistributedDataParallel")
    assert not absent(compiled, "'_orig_mod.'", "torch.compile")
    build(NORMED, weights=path)


def test_old_files_have_no_counters(write) -> None:
    path = write({k: v for k, v in state(NORMED).items() if not k.endswith(COUNTER)})
    found = diagnose(path)
    assert (found.network, found.loads, len(found.notes)) == (NORMED, True, 1)
    assert not absent(found.notes[0], "num_batches_tracked", "harmless")
    build(NORMED, weights=path)


def test_half_precision(write) -> None:
    path = write({k: v.half() if v.is_floating_point() else v for k, v in state(SMALL).items()})
    found = diagnose(path)
    assert found.loads and len(found.notes) == 1
    assert not absent(found.notes[0], "52", "float16", "float32", "precision")
    assert build(SMALL, weights=path).state_dict()["classifier.1.bias"].dtype == torch.float32
    doubled = diagnose(write({k: v.double() for k, v in state(SMALL).items()}))
    assert len(doubled.notes) == 1 and not absent(doubled.notes[0], "52", "float64", "float32")


def test_traps_of_the_numbers_are_reported(write, tmp_path: Path) -> None:
    content = state(SMALL)
    content["classifier.1.bias"][3] = float("nan")
    found = diagnose(write(content))
    assert found.network == SMALL
    assert not absent(found.traps[0], "1 tensors", "not finite", "classifier.1.bias")
    assert (found.finite, found.loads) == (False, False)
    with refused(ArtefactError, "model.pth", "not finite", "'classifier.1.bias'"):
        build(SMALL, weights=tmp_path / "model.pth")


def test_part_of_a_larger_module(write, tmp_path: Path) -> None:
    content = state(SMALL)
    path = write({f"net.{k}": v for k, v in content.items()} | {"loss.weight": torch.ones(2)})
    found = diagnose(path)
    assert (found.network, found.loads, found.left) == (SMALL, True, ("loss.weight",))
    part, left = found.notes
    assert not absent(part, "'net.'", "larger module") and not absent(left, "'loss.weight'")
    built = build(SMALL, weights=path).state_dict()
    assert all(torch.equal(built[k], v) for k, v in content.items())
    assert convert(path, tmp_path / "ours.safetensors").network == SMALL
    again = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(again[k], v) for k, v in content.items())


def test_several_sets_of_tensors(write, tmp_path: Path) -> None:
    content, other = state(SMALL), {k: v + 1 for k, v in state(SMALL).items()}
    path = write({"net": content, "ema": other, "epoch": 3})
    found = diagnose(path)
    assert (found.network, found.key, found.sets) == (SMALL, "net", {"ema": 52})
    assert any(not absent(note, "'ema'", "52", "--key ema") for note in found.notes)
    for chosen in (diagnose(path, "ema"), diagnose(f"{path}#ema")):
        assert (chosen.network, chosen.key, chosen.sets) == (SMALL, "ema", {"net": 52})
    convert(f"{path}#ema", tmp_path / "ours.safetensors")
    assert torch.equal(
        load_file(tmp_path / "ours.safetensors")["classifier.1.bias"], other["classifier.1.bias"]
    )
    parts = {f"model.{k}": v for k, v in content.items()}
    path = write(parts | {f"teacher.{k}": v for k, v in other.items()})
    found = diagnose(path)
    assert (found.network, found.loads, found.sets) == (SMALL, True, {"teacher": 52})
    assert diagnose(path, "teacher").network == SMALL


def test_the_nearest_has_most_shapes_in_common(write) -> None:
    content = state("resnet18", num_classes=7)
    del content["layer1.0.bn1.weight"]
    found = diagnose(write({f"model.{k}": v for k, v in content.items()}))
    assert (found.network, found.nearest, found.failing) == (None, "resnet18", 1)
    strange = {f"{i}.weight": torch.ones(i + 3, 7, 5) for i in range(30)}
    found = diagnose(write({k: v for k, v in content.items() if "layer1" in k} | strange))
    assert (found.network, found.nearest, found.loads, found.names) == (None, None, False, {})
    assert found.failing == found.tensors and len(found.problems) == 1


def test_a_headless_backbone(write) -> None:
    found = diagnose(write({k: v for k, v in state(NORMED).items() if not k.startswith("fc")}))
    assert (found.network, found.nearest, found.failing, found.loads) == (None, NORMED, 2, False)
    assert len(found.problems) == 1
    assert not absent(found.problems[0], "head", NORMED, "'fc.weight', 'fc.bias'", "backbone alone")


def test_every_misfit_is_named(write) -> None:
    content = state(NORMED)
    del content["conv5.1.bias"]
    content["extra.weight"] = torch.zeros(3)
    content["conv5.0.weight"] = content["conv5.0.weight"][:, :100].clone()
    found = diagnose(write(content))
    assert (found.network, found.nearest, found.failing) == (None, NORMED, 3)
    missing, unexpected, misshapen = found.problems
    assert not absent(missing, "1 tensors", NORMED, "missing", "'conv5.1.bias'")
    assert not absent(unexpected, "1 tensors", NORMED, "1 in 'extra'", "'extra.weight'")
    assert not absent(misshapen, "'conv5.0.weight'", "1024x100x1x1", NORMED, "1024x192x1x1")


def test_many_misfits_are_counted(write) -> None:
    content = {k: v if v.ndim < 4 else v[:, :1].clone() for k, v in state(NORMED).items()}
    found = diagnose(write(content))
    assert found.network is None
    assert len(found.problems) == 6  # five by name
    assert not absent(found.problems[-1], f"{found.failing - 5} more")


def test_missing_statistics(write) -> None:
    found = diagnose(write({k: v for k, v in state(NORMED).items() if "running_" not in k}))
    assert len(found.problems) == 1
    assert not absent(found.problems[0], "statistics", "56 batch-norms", "missing")


def test_missing_auxiliary_classifiers(write, tmp_path: Path) -> None:
    """A GoogLeNet without them fits, and is written with new ones."""
    path = write(
        torchvision.models.googlenet(
            num_classes=5, aux_logits=False, init_weights=False
        ).state_dict()
    )
    found = diagnose(path)
    assert (found.network, found.loads) == ("googlenet", False)
    assert any(not absent(note, "auxiliary classifiers", "missing") for note in found.notes)
    convert(path, tmp_path / "ours.safetensors")
    network = build("googlenet", weights=tmp_path / "ours.safetensors")
    assert torch.equal(
        network.state_dict()["fc.weight"], torch.load(path, weights_only=True)["fc.weight"]
    )
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_a_classifier_of_foveate(write) -> None:
    content = {
        f"backbone.{k}": v for k, v in state(SMALL).items() if not k.startswith("classifier")
    }
    found = diagnose(
        write(content | {"linear.weight": torch.zeros(3, 9), "linear.bias": torch.zeros(3)})
    )
    assert (found.network, found.source) == (None, "foveate")
    assert any("foveate.Classifier.load" in problem for problem in found.problems)


def test_timms_safetensors_are_written_under_our_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv2_100", num_classes=5).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    found = convert(tmp_path / "model.safetensors", tmp_path / "ours.safetensors")
    assert (found.network, found.source, found.loads) == ("mobilenet_v2", "timm", False)
    assert not absent(found.naming, "known names", "order of the layers")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = build("mobilenet_v2", weights=tmp_path / "ours.safetensors").eval()
        assert torch.equal(ours(x), theirs(x))


def test_what_is_no_file_of_tensors(write, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("nothing")
    cut = write(state(SMALL), "cut.pth")
    cut.write_bytes(cut.read_bytes()[:5000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    whole = write(torchvision.models.squeezenet1_1(), "whole.pth")
    for path, *names in (
        (tmp_path, str(tmp_path), "folder"),
        (tmp_path / "none.pth", "none.pth", "no file"),
        (tmp_path / "text.pth", "text.pth", "damaged"),
        (cut, "cut.pth", "damaged"),
        (tmp_path / "cut.safetensors", "cut.safetensors", "damaged"),
        (whole, "whole.pth", "code", "torch.save(network.state_dict(), FILE)"),
        (write([1, 2], "list.pth"), "list.pth", "state_dict"),
    ):
        with refused(ArtefactError, *names):
            diagnose(path)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "marker",))

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Evil()}, tmp_path / "evil.pth")
    with refused(ArtefactError, "evil.pth", "code"):
        diagnose(tmp_path / "evil.pth")
    assert not (tmp_path / "marker").exists()


def test_convert_refuses(write, tmp_path: Path) -> None:
    path = write(state(SMALL))
    with refused(UsageError, "x.pth", ".safetensors"):
        convert(path, tmp_path / "x.pth")
    (tmp_path / "x.safetensors").touch()
    with refused(UsageError, "x.safetensors", "exists"):
        convert(path, tmp_path / "x.safetensors")
    with refused(ArtefactError, "model.pth", "classifier.1.weight"):
        convert(
            write({k: v for k, v in state(SMALL).items() if "classifier" not in k}),
            tmp_path / "y.safetensors",
        )


def lines_of(*arguments: object) -> dict[str, str]:
    done = foveate("weights", "check", *arguments)
    assert done.returncode == 0, done.stderr
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])


def follow(line: str) -> torch.nn.Module:
    """Do what the `next` line says."""
    import foveate as package

    return eval(line, {"foveate": package})


def test_the_command(write, tmp_path: Path) -> None:
    content = state(SMALL)
    path = write({"net": {f"net.{k}": v for k, v in content.items()}, "ema": content}, "a b.ckpt")
    lines = lines_of(path)
    assert not absent(lines["fits"], SMALL, "1000 classes", "3 channels")
    built = follow(lines["next"]).state_dict()
    assert all(torch.equal(built[k], v) for k, v in content.items())
    ours = tmp_path / "ours.safetensors"
    lines = lines_of(path, "--key", "ema", "--save-as", ours)
    assert lines["saved"] == str(ours)
    assert (
        lines["next"] == f'foveate.build("{SMALL}", weights="{ours}")'
    )  # the new file, not the old
    follow(lines["next"])


def test_the_command_names_what_fails(write) -> None:
    content = state(SMALL)
    broken = write({k: v for k, v in content.items() if k != "features.0.bias"})
    done = foveate("weights", "check", broken)
    assert (done.returncode, done.stderr) == (1, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert not absent(lines["fits"], "no network", SMALL, "1 tensors")
    assert not absent(lines["problem"], SMALL, "'features.0.bias'")
    assert "next" not in lines


def test_the_command_in_json(write, tmp_path: Path) -> None:
    done = foveate("weights", "check", write(state(SMALL)), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["network"], found["loads"], found["failing"]) == (
        0,
        SMALL,
        True,
        0,
    )
    done = foveate("weights", "check", tmp_path / "none.pth", "--json")
    assert (done.returncode, done.stdout) == (5, "")
    assert not absent(done.stderr, "none.pth", "no file")
