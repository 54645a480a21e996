"""The matrices of a model: projections multiply by them, and embeddings are looked up in them.

Checkpoints store them as (out, in), and a product is x W^T. The matrices of experts have one more axis
in front, (E, out, in).

Axes: R rows, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.models.matrices.few_rows import MOST_ROWS, in_pieces, times_few_rows


class Matrix(Protocol):
    """A matrix, in whatever form its numbers are stored."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        ...

    @property
    def dtype(self) -> mx.Dtype:
        """Dtype of results."""
        ...

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        ...


class ArrayMatrix(Matrix, Protocol):
    """A matrix made of arrays that share all of its axes but the last."""

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays of the matrix."""
        ...

    def of(self, arrays: Sequence[mx.array]) -> Self:
        """Return a matrix of the same form, made of other arrays."""
        ...

    def is_like(self, other: Matrix) -> bool:
        """Return whether the other matrix has the same form, so that the two can be joined in memory."""
        ...

    def take(self, places: mx.array) -> mx.array:
        """Return the rows at these places: (R,) to (R, in)."""
        ...


@dataclass(frozen=True)
class DenseMatrix:
    """A matrix of plain (unpacked) numbers."""

    numbers: mx.array

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        return self.numbers.shape

    @property
    def dtype(self) -> mx.Dtype:
        """Dtype of numbers and results."""
        return self.numbers.dtype

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays of the matrix."""
        return [self.numbers]

    def of(self, arrays: Sequence[mx.array]) -> "DenseMatrix":
        """Return a matrix of the same form, made of other arrays."""
        return DenseMatrix(*arrays)

    def is_like(self, other: Matrix) -> bool:
        """Return whether the other matrix has the same form, so that the two can be joined in memory."""
        return isinstance(other, DenseMatrix) and self.dtype == other.dtype

    @cached_property
    def _turned(self) -> mx.array:
        """The matrix as (in, out): a view of the same memory, made once instead of at every use."""
        return computed(self.numbers.T)

    @cached_property
    def _pieces(self) -> dict[int, list[mx.array] | None]:
        """By number of rows, the numbers as `times_few_rows` takes them; None if that is no faster."""
        return {}

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        pieces = self._for_rows(rows.shape[0])
        if pieces is not None:
            product = times_few_rows(pieces, rows)
            return product if bias is None else product + bias
        return rows @ self._turned if bias is None else mx.addmm(bias, rows, self._turned)

    def _for_rows(self, count: int) -> list[mx.array] | None:
        if count > MOST_ROWS:
            return None
        if count not in self._pieces:
            parts = in_pieces(self.numbers, count)
            self._pieces[count] = None if parts is None else [computed(part) for part in parts]
        return self._pieces[count]

    def take(self, places: mx.array) -> mx.array:
        """Return the rows at these places: (R,) to (R, in)."""
        return self.numbers[places]


@dataclass(frozen=True)
class JoinedMatrix:
    """Stacked matrices that are multiplied one by one, because their forms differ.

    Args:
        parts: Matrices (..., out, in) with the same inputs.
    """

    parts: tuple[ArrayMatrix, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        *experts, _, width = self.parts[0].shape
        return (*experts, sum(part.shape[-2] for part in self.parts), width)

    @property
    def dtype(self) -> mx.Dtype:
        """Dtype of results."""
        return self.parts[0].dtype

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        product = mx.concatenate([part.times(rows) for part in self.parts], axis=-1)
        return product if bias is None else product + bias


def join(parts: Sequence[ArrayMatrix], axis: int) -> ArrayMatrix | JoinedMatrix:
    """Join several matrices into one, which is one in memory too if they all have the same form.

    Args:
        parts: At least one matrix.
        axis: Axis along which they are joined.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if not all(map(first.is_like, parts)):
        return JoinedMatrix(tuple(parts))
    arrays = zip(*(part.arrays for part in parts), strict=True)
    return first.of([computed(mx.concatenate(list(of_parts), axis)) for of_parts in arrays])


def by_expert(matrix: ArrayMatrix, experts: int) -> ArrayMatrix:
    """Reshape the stacked matrices of all experts, (E * out, in), to (E, out, in)."""
    # Computed here, because a lazy view belongs to the thread that made it, and another thread reads weights.
    return matrix.of([computed(array.reshape(experts, -1, array.shape[-1])) for array in matrix.arrays])


def first_rows(matrix: ArrayMatrix, count: int) -> ArrayMatrix:
    """Return a matrix of the first `count` rows of another."""
    return matrix.of([array[:count] for array in matrix.arrays])


def computed(view: mx.array) -> mx.array:
    """Compute a view and return it, so that it is not made again at every use."""
    mx.eval(view)
    wait_for_release()  # What it was made of may be large.
    return view


def in_order(array: mx.array) -> mx.array:
    """Compute an array with its numbers in order in memory, as MLX's CUDA kernels require packed numbers.

    A transposed column is in order for MLX, but has the strides of a row. Flattening it gives it new ones.
    """
    return computed(mx.contiguous(array).reshape(-1).reshape(array.shape))
