"""Tests weight files that change after their header was read."""

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

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
