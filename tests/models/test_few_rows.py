"""Tests a matrix times a few rows, in the form that is fastest for a CPU's BLAS."""

from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from on_device import cpu_only

from metal_gen.device.blas import Blas
from metal_gen.models.layers import Linear
from metal_gen.models.matrices import few_rows as module
from metal_gen.models.matrices.few_rows import (
    LEAST_PIECE_NUMBERS,
    MOST_ROWS,
    MOST_TURNED_RESULTS,
    MOST_UNPACKED,
    count_streams,
    in_pieces,
    most_rows_in_pieces,
    times_few_rows,
)
from metal_gen.models.matrices.matrix import DenseMatrix


@pytest.fixture(autouse=True)
def as_with_openblas(monkeypatch):
    monkeypatch.setattr(module, "most_rows_in_pieces", lambda: MOST_ROWS)


@cpu_only
def test_the_reference_blas_multiplies_whole_matrices(monkeypatch):
    monkeypatch.setattr(module, "most_rows_in_pieces", lambda: 0)
    assert in_pieces(mx.zeros((64, 64)), 1) is None


@pytest.mark.parametrize(
    ("blas", "most", "streams"),
    [
        (None, 1, 1),
        (Blas(Path("mlx_cpu.libs/libblas.so")), 0, 1),
        (Blas(Path("lib/libblas.so")), 1, 1),
        (Blas(Path("lib/libopenblas.so"), "OpenBLAS 0.3.21", 2, "Haswell"), 1, 1),
        (Blas(Path("lib/libopenblas.so"), "OpenBLAS 0.3.21", 2, "SkylakeX"), MOST_ROWS, 2),
        (Blas(Path("lib/libopenblas.so"), "OpenBLAS 0.3.21", 16, "SkylakeX"), 0, 16),
    ],
    ids=["unknown", "reference", "another", "Haswell", "SkylakeX", "many threads"],
)
def test_rows_that_gain_by_pieces_and_streams_for_them(monkeypatch, blas, most, streams):
    monkeypatch.setattr(module, "blas_in_use", lambda: blas)
    assert most_rows_in_pieces.__wrapped__() == most
    assert count_streams.__wrapped__() == streams


@cpu_only
@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 7, MOST_ROWS])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 48), (4800, 300), (3000, 1024), (64, 60_000)])
def test_the_product_equals_that_of_the_whole_matrix(shape, count, streams, monkeypatch):
    monkeypatch.setattr(module, "LEAST_NUMBERS", 1)
    monkeypatch.setattr(module, "LEAST_PART_BYTES", 1)
    monkeypatch.setattr(module, "count_streams", lambda: streams)
    weight = mx.random.normal(shape, key=mx.random.key(1))
    rows = mx.random.normal((count, shape[1]), key=mx.random.key(2))
    parts = in_pieces(weight, count)
    assert sum(part.shape[0] * part.shape[1] for part in parts) == shape[0]
    expected = np.array(rows, np.float64) @ np.array(weight, np.float64).T
    product = times_few_rows(parts, rows)
    assert product.shape == (count, shape[0])
    assert np.abs(np.array(product) - expected).max() < 1e-5 * shape[1]


@cpu_only
@pytest.mark.parametrize("count", [1, 3, 8, MOST_ROWS])
@pytest.mark.parametrize(
    "shape",
    [(4096, 1024), (6144, 1024), (1024, 3072), (8224, 1024), (2560, 9728), (151_936, 1024), (248_320, 4096)],
)
def test_a_piece_is_small_enough_not_to_be_packed_and_no_smaller_than_it_must(shape, count):
    weight = SimpleNamespace(shape=shape, dtype=mx.float32)
    for is_turned in (False, True):
        pieces = module.count_pieces(weight, count, is_turned=is_turned)

        def is_packed(number, is_turned=is_turned):
            height = shape[0] // number
            is_wide = is_turned and height * count > MOST_TURNED_RESULTS
            return height * shape[1] * count > MOST_UNPACKED or is_wide

        assert shape[0] % pieces == 0
        assert shape[0] // pieces * shape[1] >= LEAST_PIECE_NUMBERS
        assert not is_packed(pieces)
        assert all(is_packed(number) for number in range(1, pieces) if shape[0] % number == 0)


@cpu_only
def test_matrices_that_gain_nothing_stay_whole(monkeypatch):
    assert in_pieces(mx.zeros((64, 64), mx.bfloat16), 1) is None
    assert in_pieces(mx.zeros((64, 64)), 2) is None
    assert in_pieces(mx.zeros((1024, 1024)), MOST_ROWS + 1) is None
    assert in_pieces(mx.zeros((2, MOST_UNPACKED + 1)), 1) is None
    assert in_pieces(mx.zeros((151_643, 32)), 1) is None  # A prime number of rows.
    monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    assert in_pieces(mx.zeros((64, 64)), 1) is None


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_single_row_gives_about_the_same_as_among_others(has_bias):
    weight = mx.random.normal((300, 200), key=mx.random.key(1))
    bias = mx.random.normal((300,), key=mx.random.key(2)) if has_bias else None
    rows = mx.random.normal((4, 200), key=mx.random.key(3))
    linear = Linear(DenseMatrix(weight), bias)
    alone = mx.concatenate([linear(rows[place : place + 1]) for place in range(4)])
    assert np.abs(np.array(alone) - np.array(linear(rows))).max() < 1e-4
