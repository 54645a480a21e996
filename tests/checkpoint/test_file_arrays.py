"""Tests tensors that several threads read into one array, and files that fail or change meanwhile."""

import errno
import json
import os
from itertools import count

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint

from metal_gen.checkpoint import file_arrays
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.file_arrays import FilledArrays
from metal_gen.device.large_pages import LEAST_BYTES
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import BITS, read_header
from metal_gen.models.matrices.matrix import DenseMatrix

READ_BY_MLX = (
    *("F32", "F16", "BF16", "F8_E4M3", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL", "C64"),
)


def write_file(path, tensors):
    """Write tensors of random bytes: name -> (dtype, shape). They begin at an odd place of the file."""
    chance, places, content = np.random.default_rng(len(tensors)), {}, b""
    for name, (dtype, shape) in tensors.items():
        nbytes = BITS[dtype] // 8 * int(np.prod(shape))
        most = 2 if dtype == "BOOL" else 256
        begin, content = len(content), content + chance.integers(0, most, nbytes, np.uint8).tobytes()
        places[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(content)]}
    header = json.dumps(places).encode()
    header += b" " * (1 - len(header) % 2)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    return read_header(path)


def bits(array):
    return np.array(array.view(mx.uint8)).tobytes() if array.ndim else bits(array.reshape(1))


@pytest.fixture(autouse=True, params=[0, 1 << 20], ids=["by threads", "small"])
def small_parts(monkeypatch, request):
    """Cut even small tensors into several parts, for several threads or for a small array."""
    monkeypatch.setattr(file_arrays, "PIECE_BYTES", 100)
    monkeypatch.setattr(file_arrays, "SMALL_BYTES", request.param)


@pytest.fixture
def stored(tmp_path):
    """The tensors of two files, to be joined, and all their numbers."""
    tensors = {}
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        tensors |= write_file(path, {name: ("U8", [30, 13]), f"{name}_other": ("U8", [7])})
    arrays = [mx.load(str(tmp_path / f"{name}.safetensors"))[name] for name in ("a", "b")]
    return [tensors["a"], tensors["b"]], mx.concatenate(arrays).tolist()


@pytest.mark.parametrize("dtype", READ_BY_MLX)
def test_numbers_are_those_that_mlx_reads(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    shapes = {"odd": ("U8", [3]), "many": (dtype, [37, 5]), "one": (dtype, []), "no": (dtype, [0])}
    tensors = write_file(path, shapes)
    by_mlx = mx.load(str(path))
    with FilledArrays([path]) as files:
        for name, info in tensors.items():
            array = files.array([info])
            assert (array.dtype, array.shape) == (by_mlx[name].dtype, by_mlx[name].shape)
            assert bits(array) == bits(by_mlx[name])


def test_numbers_in_large_pages_are_those_that_mlx_reads(tmp_path):
    path = tmp_path / "x.safetensors"
    count = LEAST_BYTES // 2 + 321
    tensors = write_file(path, {"odd": ("U8", [3]), "some": ("I16", [count]), "more": ("I16", [2 * count])})
    by_mlx = mx.load(str(path))
    with FilledArrays([path]) as files:
        joined = files.array([tensors["some"], tensors["more"]])
        assert mx.array_equal(joined, mx.concatenate([by_mlx["some"], by_mlx["more"]]))
        assert mx.array_equal(files.array([tensors["some"]]), by_mlx["some"])


def test_a_dtype_that_mlx_cannot_read_is_an_error_of_the_file(tmp_path):
    tensors = write_file(tmp_path / "x.safetensors", {"x": ("F64", [3])})
    with (
        FilledArrays([tmp_path / "x.safetensors"]) as files,
        pytest.raises(CheckpointError, match=r"MLX cannot read .*x\.safetensors: .*F64"),
    ):
        files.array([tensors["x"]])


def test_a_small_tensor_needs_no_threads(tmp_path, monkeypatch):
    """With thousands of them, handing memory to threads takes longer than reading."""
    monkeypatch.setattr(file_arrays, "SMALL_BYTES", 6)
    tensors = write_file(tmp_path / "x.safetensors", {"small": ("U16", [3]), "large": ("U16", [4])})
    with FilledArrays([tmp_path / "x.safetensors"]) as files:
        monkeypatch.setattr(type(files._filler), "array", lambda *_: pytest.fail("by threads"))
        assert files.array([tensors["small"]]).shape == (3,)
        with pytest.raises(pytest.fail.Exception, match="by threads"):
            files.array([tensors["large"]])


def test_tensors_of_several_files_are_joined(stored):
    tensors, expected = stored
    with FilledArrays([info.path for info in tensors]) as files:
        assert files.array(tensors).tolist() == expected
        assert files.array(tensors[:1]).tolist() == expected[:30]


def test_reads_that_return_few_bytes_are_continued(stored, monkeypatch):
    tensors, expected = stored
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, parts, place: read(file, [parts[0][:7]], place))
    with FilledArrays([info.path for info in tensors]) as files:
        assert files.array(tensors).tolist() == expected


def test_an_error_in_the_middle_names_the_file(stored, monkeypatch):
    tensors, expected = stored
    read, calls = os.preadv, count()

    def fail_once(*arguments):
        if next(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", fail_once)
    with FilledArrays([info.path for info in tensors]) as files:
        with pytest.raises(CheckpointError, match=r"cannot read .*safetensors: Input/output error"):
            files.array(tensors)
        assert files.array(tensors).tolist() == expected


def test_a_file_that_is_cut_short_while_it_is_read(stored):
    tensors, _ = stored
    with FilledArrays([info.path for info in tensors]) as files:
        os.truncate(tensors[1].path, tensors[1].offset + 200)
        with pytest.raises(CheckpointError, match=r"b\.safetensors was changed while it was read: b is gone"):
            files.array(tensors)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(stored, tmp_path):
    tensors, expected = stored
    with FilledArrays([info.path for info in tensors]) as files:
        write_file(tmp_path / "new", {"x": ("F32", [400])})
        (tmp_path / "new").replace(tensors[0].path)
        assert files.array(tensors).tolist() == expected


def test_a_file_that_was_replaced_by_one_with_the_same_names_is_refused(stored):
    """Its tensor has the same shape, at another place."""
    tensors, _ = stored
    write_file(tensors[0].path, {"a_other": ("U8", [7]), "a": ("U8", [30, 13])})
    with (
        FilledArrays([info.path for info in tensors]) as files,
        pytest.raises(CheckpointError, match="was changed while it was read: a is gone"),
    ):
        files.array(tensors)


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
        FilledArrays([tmp_path / "x.safetensors"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_projections_are_joined_while_they_are_read(tmp_path, dtype):
    """The checkpoint is float32: for float16, parts are converted and then joined."""
    config = tiny_config("qwen2")
    weights = tiny_weights(config)
    files = Checkpoint(write_checkpoint(tmp_path, config, weights)).weights
    with_copies = files.loading_peak_bytes(dtype) > files.nbytes(dtype)
    assert with_copies is (dtype == "float16")
    attention = files.load(dtype).layers[0].attention
    names = [f"model.layers.0.self_attn.{kind}_proj" for kind in "qkv"]
    wanted = getattr(mx, dtype)
    for array, end in ((attention.qkv.weight, "weight"), (attention.qkv.bias, "bias")):
        numbers = array.numbers if isinstance(array, DenseMatrix) else array
        expected = mx.concatenate([mx.array(weights[f"{name}.{end}"]) for name in names]).astype(wanted)
        assert mx.array_equal(numbers, expected)
