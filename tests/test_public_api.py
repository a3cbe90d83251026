"""The public names are a promise: this test is where it is changed, knowingly."""

import inspect

import pytest

import foveate

PUBLIC = [
    "ArtefactError",
    "Classifier",
    "DataError",
    "Dataset",
    "FoveateError",
    "ImageError",
    "MissingExtraError",
    "Prediction",
    "Preprocess",
    "UsageError",
    "build",
    "evaluate",
    "load_dataset",
    "load_image",
    "train",
]
SIGNATURES = {
    "train": "data model recipe task effort out seed on_bad engine threads resume settings augment parts size channels "
    "cache tensorboard progress command",
    "evaluate": "classifier data on_bad progress tta",
    "build": "name weights num_classes in_channels",
    "load_dataset": "source task",
    "load_image": "source name short_side",
    "Preprocess": "resize crop stretch interpolation channels mean std",
    "Prediction": "file label probability labels top error",
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
