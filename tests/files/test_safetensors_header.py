"""Tests that headers which the safetensors package refuses are refused."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import read_header


def written(folder, header, data=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(shape=(2, 2), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


WRONG = {
    "same place": {"a": tensor(), "b": tensor()},
    "overlap": {"a": tensor((3,), (0, 12)), "b": tensor((2,), (8, 16))},
    "bytes of no tensor": {"a": tensor((1,), (0, 4)), "b": tensor((2,), (8, 16))},
    "bytes before all": {"a": tensor((2,), (8, 16))},
    "bytes after all": {"a": tensor((2,), (0, 8))},
    "a part of a number": {"a": tensor((3.9,), (0, 12)), "b": tensor((1,), (12, 16))},
    "a whole float": {"a": tensor((4.0,))},
    "true for one": {"a": tensor((True, 4))},
    "less than nothing": {"a": tensor((-2, -2))},
    "more than any file": {"a": tensor((2**63, 2**63, 0), (0, 0)), "b": tensor()},
    "end before begin": {"a": tensor((2, 2), (16, 0))},
    "infinite": b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, Infinity]}}',
    "shape by name": {"a": tensor() | {"shape": {"0": 4}}},
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "three offsets": {"a": tensor() | {"data_offsets": [0, 8, 16]}},
    "unknown type": {"a": tensor(dtype="F33")},
    "type of a type": {"a": tensor(dtype=["F32"])},
    "notes that are no texts": {"__metadata__": {"format": 1}, "a": tensor()},
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "half a pair": b'{"\\ud800": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
    "not UTF-8": b'{"\xff": 1}',
    "twice": b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
    b'"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}',
}


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG)
def test_headers_that_the_package_refuses(header, tmp_path):
    path = written(tmp_path, header)
    with pytest.raises(SafetensorError), safe_open(str(path), "np"):
        pass
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged") as caught:
        read_header(path)
    assert len(caught.value.message) < len(str(path)) + 400


def test_order_and_spacing_of_a_header_are_free(tmp_path):
    text = json.dumps({"b": tensor((2,), (8, 16)), "none": tensor((0, 5), (8, 8)), "a": tensor((2,), (0, 8))})
    tensors = read_header(written(tmp_path, text.encode() + b"    "))
    assert {name: info.offset - tensors["a"].offset for name, info in tensors.items()} == {
        "a": 0,
        "b": 8,
        "none": 8,
    }


def test_a_header_costs_no_more_than_it_may(tmp_path):
    with pytest.raises(CheckpointError, match="more than 8,000,000 values"):
        read_header(written(tmp_path, b'{"x": [' + b"[]," * 10_000_000 + b"[]]}"))


def test_other_than_regular_files_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("pipe.safetensors", "zero.safetensors"):
        with pytest.raises(CheckpointError, match="Not a regular file"):
            read_header(tmp_path / name)


WHOLE = save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.int8)}, {"format": "pt"})
BYTES = st.sampled_from(b'[]{}",:0123456789.-eE\\ \x00\xff')


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), BYTES), min_size=1, max_size=3), st.integers(0, 3))
def test_changed_bytes_are_read_as_the_package_reads_them(tmp_path_factory, changes, lost):
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(content[: len(content) - lost])
    try:
        with safe_open(str(path), "np") as file:
            names = set(file.keys())
    except SafetensorError:
        names = None
    try:
        assert set(read_header(path)) == names
    except CheckpointError:
        assert names is None
