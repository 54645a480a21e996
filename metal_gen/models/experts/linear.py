"""The projections of experts: one array holds all matrices, and a product picks the ones it needs.

Axes: R rows, E experts, K chosen experts of a row, N groups of M rows each.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import mlx.core as mx

from metal_gen.models.matrices.adapted import AdaptedMatrix
from metal_gen.models.matrices.few_rows import count_pieces
from metal_gen.models.matrices.matrix import DenseMatrix, JoinedMatrix, Matrix, computed
from metal_gen.models.matrices.quantized import QuantizedMatrix


class ExpertLinear(Protocol):
    """x W^T with a matrix for each expert, (E, out, in)."""

    def each(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (R, 1 or K, in) by the experts (R, K) to (R, K, out), each row separately."""
        ...

    def grouped(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (N, M, in) by the ascending experts (N,) to (N, M, out)."""
        ...


@dataclass(frozen=True)
class DenseExperts:
    """Experts of plain (unpacked) numbers."""

    numbers: mx.array

    @cached_property
    def _matrices(self) -> mx.array:
        """The matrices as (E, in, out): a view of the same memory, made once instead of at every use."""
        return computed(self.numbers.swapaxes(1, 2))

    @cached_property
    def _pieces(self) -> tuple[int, mx.array]:
        """Pieces per matrix for a product with one row, and all pieces, (E * pieces, in, out / pieces)."""
        count = count_pieces(self.numbers, 1, is_turned=True) or 1
        experts, out, width = self.numbers.shape
        return count, computed(self.numbers.reshape(experts * count, out // count, width).swapaxes(1, 2))

    def each(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (R, 1 or K, in) by the experts (R, K) to (R, K, out), each row separately."""
        count, pieces = self._pieces
        places = experts[..., None]
        if count > 1:
            places = places * count + mx.arange(count)
        return mx.gather_mm(rows[:, :, None, None], pieces, rhs_indices=places).flatten(2)

    def grouped(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (N, M, in) by the ascending experts (N,) to (N, M, out)."""
        return mx.gather_mm(rows, self._matrices, rhs_indices=experts, sorted_indices=True)


@dataclass(frozen=True)
class QuantizedExperts:
    """Experts of packed numbers."""

    matrix: QuantizedMatrix

    def each(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (R, 1 or K, in) by the experts (R, K) to (R, K, out), each row separately."""
        return self._gathered(rows[:, :, None], experts, is_sorted=False).squeeze(2)

    def grouped(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (N, M, in) by the ascending experts (N,) to (N, M, out)."""
        return self._gathered(rows, experts, is_sorted=True)

    def _gathered(self, rows: mx.array, experts: mx.array, *, is_sorted: bool) -> mx.array:
        form = self.matrix.for_products
        return mx.gather_qmm(
            rows,
            form.packed,
            form.scales,
            form.biases,
            rhs_indices=experts,
            sorted_indices=is_sorted,
            **form.packing.keywords,
        )


@dataclass(frozen=True)
class JoinedExperts:
    """Projections of the same inputs whose forms differ."""

    parts: tuple[ExpertLinear, ...]

    def each(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (R, 1 or K, in) by the experts (R, K) to (R, K, out), each row separately."""
        return mx.concatenate([part.each(rows, experts) for part in self.parts], axis=-1)

    def grouped(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (N, M, in) by the ascending experts (N,) to (N, M, out)."""
        return mx.concatenate([part.grouped(rows, experts) for part in self.parts], axis=-1)


@dataclass(frozen=True)
class AdaptedExperts:
    """Experts with an adapter for each, kept separately."""

    base: ExpertLinear
    down: DenseExperts
    up: DenseExperts

    def each(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (R, 1 or K, in) by the experts (R, K) to (R, K, out), each row separately."""
        return self.base.each(rows, experts) + self.up.each(self.down.each(rows, experts), experts)

    def grouped(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map (N, M, in) by the ascending experts (N,) to (N, M, out)."""
        return self.base.grouped(rows, experts) + self.up.grouped(self.down.grouped(rows, experts), experts)


def expert_linear(matrix: Matrix) -> ExpertLinear:
    """Return the projection for the matrices of all experts, (E, out, in), whatever their form."""
    if isinstance(matrix, AdaptedMatrix):
        down, up = DenseExperts(matrix.down.numbers), DenseExperts(matrix.up.numbers)
        return AdaptedExperts(expert_linear(matrix.base), down, up)
    if isinstance(matrix, JoinedMatrix):
        return JoinedExperts(tuple(map(expert_linear, matrix.parts)))
    if isinstance(matrix, QuantizedMatrix):
        return QuantizedExperts(matrix)
    assert isinstance(matrix, DenseMatrix)
    return DenseExperts(matrix.numbers)
