"""Tests weight files that change after their header was read, and checkpoints of many files."""

import json
import resource

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import read_header


@pytest.fixture
def path(tmp_path):
    save_file({"a": np.ones((64, 64), np.float32), "b": np.ones(3, np.float32)}, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("read", [TensorFiles.numbers, TensorFiles.stored])
def test_a_file_that_is_cut_short_meanwhile(path, read):
    files = TensorFiles(read_header(path), mx.float32)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match="was changed while it was read: a is gone"):
        read(files, "a")


def test_a_file_that_is_replaced_meanwhile(path):
    tensors = read_header(path)
    save_file({"a": np.ones((8, 8), np.float32)}, path)
    files = TensorFiles(tensors, mx.float32)
    for name in tensors:
        with pytest.raises(CheckpointError, match="was changed while it was read"):
            files.stored(name)


def test_more_shards_than_a_mac_lets_a_process_open_by_default(tmp_path):
    """The limit is a Mac's; the files are opened by MLX."""
    config = tiny_config("qwen3", hidden_size=8, intermediate_size=8, head_dim=8, num_hidden_layers=28)
    weights = tiny_weights(config)
    names = {name: f"model-{place:05}-of-{len(weights):05}.safetensors" for place, name in enumerate(weights)}
    write_checkpoint(tmp_path, config, weights).joinpath("model.safetensors").unlink()
    for name, file in names.items():
        save_file({name: weights[name]}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert len(names) > 300
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        model = Checkpoint(tmp_path).weights.load("float32")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(model.layers) == 28
