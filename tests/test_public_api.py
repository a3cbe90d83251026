"""The public names are a promise: this test is where it is changed, knowingly."""

import inspect
import pkgutil
import typing

import pytest

import foveate

PUBLIC = """
    ArtefactError Augment Classifier DataError Dataset Exported FoveateError ImageError
    MissingExtraError Prediction Preprocess TrainConfig UsageError View build compare compare_runs
    evaluate export_classifier extract_features find_lr freeze list_models load_dataset load_image
    replace_head set_in_channels train
""".split()
SIGNATURES = {
    "train": "data model recipe weights task effort framing fit reject positive recall augment "
    "size channels config out resume seed groups on_bad corrections engine threads cache "
    "tensorboard lang progress command settings",
    "find_lr": "data model recipe weights task framing fit augment size channels config seed "
    "threads progress "
    "settings",
    "evaluate": "classifier data on_bad progress tta groups positive recall precision cost against",
    "export_classifier": "classifier out format images int8 budget progress check_images",
    "build": "name num_classes in_channels weights",
    "compare": "data models recipe efforts framings seeds seconds out task on_bad threads lang "
    "progress",
    "compare_runs": "runs data out threads lang progress",
    "list_models": "pretrained family",
    "extract_features": "dataset model weights size framing fit mirror engine threads progress",
    "freeze": "network what lr head_lr layer_decay size",
    "replace_head": "network num_classes",
    "set_in_channels": "network channels",
    "load_dataset": "source task",
    "load_image": "source name short_side levels on_damage",
    "Preprocess": "resize crop stretch interpolation channels mean std levels fit more",
    "View": "resize crop stretch interpolation fit",
    "Prediction": "file label probability labels top error rejected",
}


def test_names():
    assert foveate.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(foveate))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_explained(name):
    assert inspect.getdoc(getattr(foveate, name))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert list(inspect.signature(getattr(foveate, name)).parameters) == SIGNATURES[name].split()


def test_settings_of_train_are_the_fields_of_train_config():
    from foveate.training import Settings

    hints = typing.get_type_hints(foveate.TrainConfig)
    assert typing.get_type_hints(Settings) == hints


def test_no_public_function_has_a_modules_name():
    modules = {name for _, name, _ in pkgutil.walk_packages(foveate.__path__, "foveate.")}
    functions = {name for name in PUBLIC if inspect.isfunction(getattr(foveate, name))}
    verbs = {name for name in modules if name.startswith("foveate.cli.")}  # a file for each verb
    assert not {name.rpartition(".")[2] for name in modules - verbs} & functions


def test_submodules_resolve_in_a_fresh_interpreter(python):
    program = "import foveate; print(*(getattr(foveate, n).__name__ for n in foveate.SUBMODULES))"
    found = python(program).split()
    assert found == [f"foveate.{name}" for name in foveate.SUBMODULES]
    rooms = {m.name for m in pkgutil.iter_modules(foveate.__path__)} - {"__main__"}
    assert set(foveate.SUBMODULES) == rooms


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'treain'"):
        _ = foveate.treain


def test_error_tree_and_exit_codes():
    codes = {
        e.__name__: e.exit_code for e in (foveate.FoveateError, *subclasses(foveate.FoveateError))
    }
    assert codes == {
        "FoveateError": 1,
        "UsageError": 2,
        "MissingExtraError": 3,
        "DataError": 4,
        "ImageError": 4,
        "ArtefactError": 5,
    }


def subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)
