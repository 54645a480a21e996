"""Tests which files hold the weights, and which file a tensor comes from."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from metal_gen.errors import CheckpointError
from metal_gen.files.weight_files import WEIGHTS_INDEX, choose_weights, read_headers, weight_map_of

ONE, TWO, THREE = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))


def checkpoint(folder, files, weight_map=None):
    for name, tensors in files.items():
        save_file({tensor: np.ones(2, np.float32) for tensor in tensors}, folder / name)
    if weight_map is not None:
        (folder / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def places(folder):
    return {name: info.path.name for name, info in read_headers(folder).items()}


@pytest.mark.parametrize("named", [ONE, TWO, THREE])
def test_a_tensor_comes_from_the_file_that_the_index_names(tmp_path, named):
    weight_map = {"a": ONE, "b": TWO, "c": THREE, "head": named}
    files = {ONE: ["a", "head"], TWO: ["b", "head"], THREE: ["c", "head"]}
    assert places(checkpoint(tmp_path, files, weight_map)) == weight_map


def test_a_tensor_in_one_file_needs_no_index(tmp_path):
    files = {ONE: ["a"], TWO: ["b"], THREE: ["c"]}
    assert places(checkpoint(tmp_path, files)) == {"a": ONE, "b": TWO, "c": THREE}


def test_an_index_that_forgets_a_tensor_does_not_hide_it(tmp_path):
    files = {ONE: ["a", "forgotten"], TWO: ["b"], THREE: ["c"]}
    found = places(checkpoint(tmp_path, files, {"a": ONE, "b": TWO, "c": THREE}))
    assert found["forgotten"] == ONE


@pytest.mark.parametrize("weight_map", [None, {"a": ONE, "b": TWO, "c": THREE}])
def test_a_tensor_in_two_files_without_an_index_is_refused(tmp_path, weight_map):
    files = {ONE: ["a", "head"], TWO: ["b", "head"], THREE: ["c"]}
    with pytest.raises(CheckpointError, match=f"has head both in {ONE} and in {TWO}"):
        read_headers(checkpoint(tmp_path, files, weight_map))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("[" * 200_000, "nested deeper"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": ["x"]}}', "names a file outside its folder"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "names a file outside its folder"),
        ('{"weight_map": {"a": "' + "x" * 10**6 + '"}}', "names a file outside its folder"),
    ],
    ids=lambda value: value[:30],
)
def test_an_invalid_index_is_refused(tmp_path, index, said):
    checkpoint(tmp_path, {"model.safetensors": ["a"]})
    (tmp_path / WEIGHTS_INDEX).write_text(index)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_headers(tmp_path)
    assert len(caught.value.message) < len(str(tmp_path)) + 300


def test_an_index_has_a_limited_number_of_files():
    weight_map = {str(n): f"{n}.safetensors" for n in range(10_001)}
    with pytest.raises(CheckpointError, match="more than 10,000 files"):
        weight_map_of({"weight_map": weight_map}, "the index")


def test_only_weights_in_the_folder_itself_are_chosen():
    names = [
        "/model.safetensors",
        "sub/model.safetensors",
        "../model-1.safetensors",
        "model.bin",
        "config.json",
    ]
    assert choose_weights(names, []) == []
    assert choose_weights(names, ["config.json"]) == []
    assert choose_weights([*names, "model-x.safetensors"], names[:1]) == ["model-x.safetensors"]
