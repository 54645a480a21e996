"""Tests a matrix times one row, in the form that is fastest for a CPU's BLAS."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from on_device import cpu_only

from metal_gen.device.blas import Blas
from metal_gen.models.layers import Linear
from metal_gen.models.matrices import matvec as module
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.matvec import PIECE_NUMBERS, is_faster_in_pieces, matvec, row_blocks


@pytest.fixture(autouse=True)
def as_with_openblas(monkeypatch):
    monkeypatch.setattr(module, "is_faster_in_pieces", lambda: True)


@cpu_only
def test_the_reference_blas_multiplies_whole_matrices(monkeypatch):
    monkeypatch.setattr(module, "is_faster_in_pieces", lambda: False)
    assert row_blocks(mx.zeros((64, 64))) is None


@pytest.mark.parametrize(("folder", "pays"), [("mlx_cpu.libs", False), ("lib", True), (None, True)])
def test_only_an_openblas_gains_by_pieces(monkeypatch, folder, pays):
    blas = None if folder is None else Blas(Path(folder) / "libblas.so")
    monkeypatch.setattr(module, "blas_in_use", lambda: blas)
    assert is_faster_in_pieces.__wrapped__() is pays


@cpu_only
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 48), (1187 * 4, 300), (3000, 1024), (2, 2_000_001)])
def test_the_product_equals_that_of_the_whole_matrix(shape):
    weight = mx.random.normal(shape, key=mx.random.key(1))
    row = mx.random.normal((1, shape[1]), key=mx.random.key(2))
    expected = np.array(row, np.float64) @ np.array(weight, np.float64).T
    assert np.abs(np.array(matvec(row_blocks(weight), row)) - expected).max() < 1e-5 * shape[1]


@cpu_only
def test_pieces_are_near_the_largest_size_without_packing():
    for rows, columns in [(151_936, 1024), (6144, 1024), (1024, 3072), (151_936, 128)]:
        pieces, height, width = row_blocks(mx.zeros((rows, columns))).shape
        assert (pieces * height, width) == (rows, columns)
        assert PIECE_NUMBERS / 4 < height * width < PIECE_NUMBERS * 4


@cpu_only
def test_matrices_without_a_blas_stay_whole(monkeypatch):
    assert row_blocks(mx.zeros((64, 64), mx.bfloat16)) is None
    assert row_blocks(mx.zeros((151_643, 896))) is None  # A prime number of rows.
    monkeypatch.setattr(module, "runs_on_cpu", lambda: False)
    assert row_blocks(mx.zeros((64, 64))) is None


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_single_row_gives_the_same_as_among_others(has_bias):
    weight = mx.random.normal((300, 200), key=mx.random.key(1))
    bias = mx.random.normal((300,), key=mx.random.key(2)) if has_bias else None
    rows = mx.random.normal((4, 200), key=mx.random.key(3))
    linear = Linear(DenseMatrix(weight), bias)
    alone = mx.concatenate([linear(rows[place : place + 1]) for place in range(4)])
    assert np.abs(np.array(alone) - np.array(linear(rows))).max() < 1e-4
