"""Settings: each recipe's own, what is given instead, and what is refused."""

from dataclasses import fields, replace

import pytest
from refusals import refused

from foveate.errors import UsageError
from foveate.training.config import CHOICES, FINETUNE, RANGES, SCRATCH, TrainConfig, resolve_config


def test_every_field_is_checked():
    checked = {*CHOICES, *RANGES, "freeze", "compile"}
    assert checked == {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range(name):
    low, high = RANGES[name]
    for value in (low - 1, high + 1, float("nan"), True, "3"):
        with refused(UsageError, name, f"{low:g}", f"{high:g}"):
            resolve_config("scratch", {name: value}, norms=True)
    if isinstance(getattr(TrainConfig, name), int):
        with refused(UsageError, name, "whole", "1.5"):
            resolve_config("scratch", {name: 1.5}, norms=True)


@pytest.mark.parametrize("name", CHOICES)
def test_a_name_that_does_not_exist(name):
    with refused(UsageError, name, "'tape'", *CHOICES[name]):
        resolve_config("scratch", {name: "tape"}, norms=True)


@pytest.mark.parametrize("value", [-1, 1.5, "all", None])
def test_freeze(value):
    with refused(UsageError, "freeze", "none", "early", "backbone", repr(value)):
        TrainConfig(freeze=value)


def test_a_setting_that_does_not_exist():
    with refused(UsageError, "'epoch'", "epochs"):
        resolve_config("scratch", {"epoch": 3}, norms=True)
    with refused(UsageError, "'zzz'", "epochs", "batch_size"):
        resolve_config("scratch", {"zzz": 3}, norms=True)


@pytest.mark.parametrize(
    ("recipe", "given", "norms", "names"),
    [
        ("scratch", {"batch_norm": "frozen"}, False, ["batch_norm"]),
        ("finetune", {"momentum": 0.8}, True, ["momentum", "sgd", "adamw"]),
        ("scratch", {"momentum": 0.8, "optimizer": "adamw"}, True, ["momentum", "sgd", "adamw"]),
        ("scratch", {"unfreeze_at": 2}, True, ["unfreeze_at", "frozen"]),
        ("finetune", {"unfreeze_at": 5}, True, ["unfreeze_at", "5 epochs"]),
        ("scratch", {"epochs": 5, "warmup": 10.0}, True, ["warmup", "10 epochs", "5"]),
        ("scratch", {"batch_size": 4, "accumulate": 8}, True, ["accumulate 8", "batch of 4"]),
        ("scratch", {"epochs": 1, "progressive": 0.5}, True, ["progressive", "2 epochs"]),
        ("scratch", {"schedule": "one-cycle", "warmup": 2.0}, True, ["warmup", "cosine"]),
    ],
)
def test_what_does_not_apply(recipe, given, norms, names):
    with refused(UsageError, *names):
        resolve_config(recipe, given, norms)


@pytest.mark.parametrize(
    ("name", "value"),
    [("compile", "no"), ("compile", None), ("compile", 1), ("freeze", True), ("freeze", 1.0)],
)
def test_what_only_looks_like_a_setting(name, value):
    """Each would have counted as true, or as one stage."""
    with refused(UsageError, name, repr(value)):
        TrainConfig(**{name: value})


def test_recipes_have_their_own():
    assert resolve_config("finetune", {}, norms=True) == FINETUNE
    assert resolve_config("scratch", {}, norms=True) == SCRATCH
    bare = resolve_config("scratch", {}, norms=False)
    assert (bare.optimizer, bare.lr, bare.clip) == ("adamw", 1e-3, 1.0)


def test_a_short_training_warms_up_shortly():
    assert resolve_config("scratch", {"epochs": 1}, norms=True).warmup == 0.1
    assert resolve_config("finetune", {"epochs": 2}, norms=True).warmup == 0.2
    assert resolve_config("scratch", {"epochs": 100}, norms=True).warmup == 1


def test_a_rate_is_the_heads_too():
    config = resolve_config("finetune", {"lr": 3e-4}, norms=True)
    assert (config.lr, config.head_lr) == (3e-4, 3e-4)
    config = resolve_config("finetune", {"lr": 3e-4, "head_lr": 1e-2}, norms=True)
    assert (config.lr, config.head_lr) == (3e-4, 1e-2)


def test_another_optimizer_brings_its_own_numbers():
    adamw, sgd = ({"optimizer": name} for name in ("adamw", "sgd"))
    for recipe, norms in (("scratch", True), ("scratch", False), ("finetune", True)):
        assert resolve_config(recipe, adamw, norms).weight_decay == 0.01
        assert resolve_config(recipe, sgd, norms).weight_decay == 5e-4
    assert resolve_config("scratch", adamw, norms=True).lr == 1e-3
    # 0.1 would throw a deep network off
    assert resolve_config("scratch", sgd, norms=False).lr == 1e-2
    assert resolve_config("finetune", sgd, norms=True).lr == 1e-2
    assert resolve_config("scratch", adamw | {"weight_decay": 0.1}, norms=True).weight_decay == 0.1
    assert (
        resolve_config("finetune", {"optimizer": "sgd", "momentum": 0.5}, norms=True).momentum
        == 0.5
    )


def test_one_cycle_has_no_warmup():
    assert resolve_config("scratch", {"schedule": "one-cycle"}, norms=True).warmup == 0


def test_single_settings_win_over_a_whole_config():
    whole = TrainConfig(epochs=7, lr=0.02, head_lr=0.03, warmup=2.0, batch_norm="frozen")
    assert resolve_config("scratch", {}, norms=False, whole=whole) == whole
    found = resolve_config("finetune", {"lr": 0.01, "epochs": 3}, norms=True, whole=whole)
    assert found == replace(whole, lr=0.01, head_lr=0.01, epochs=3)  # the warm-up stays
    with refused(UsageError, "momentum", "sgd", "adamw"):
        resolve_config("scratch", {"momentum": 0.5}, True, TrainConfig(optimizer="adamw"))
    with refused(UsageError, "optimizer", "adamw", "lr", "weight_decay", "sgd"):
        resolve_config("scratch", {"optimizer": "adamw", "lr": 1e-3}, True, whole)
    with refused(UsageError, "TrainConfig", "dict"):
        resolve_config("scratch", {}, True, {"epochs": 3})
