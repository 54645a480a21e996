"""The matrices of a model: what projections multiply by, and what embeddings are looked up in.

Checkpoints store them (out, in), and a product is x W^T. Those of experts have one axis more in front,
(E, out, in).

Axes: R rows, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import mlx.core as mx

from metal_gen.models.matrices.matvec import matvec, row_blocks


class Matrix(Protocol):
    """Whatever form its numbers have."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        ...

    @property
    def dtype(self) -> mx.Dtype:
        """Of results."""
        ...

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        ...


class ArrayMatrix(Matrix, Protocol):
    """A matrix made of arrays whose axes before the last are those of the matrix."""

    @property
    def arrays(self) -> list[mx.array]:
        """All that it is made of."""
        ...

    def of(self, arrays: Sequence[mx.array]) -> Self:
        """A matrix of the same form, made of others."""
        ...

    def is_like(self, other: Matrix) -> bool:
        """Whether the other has the same form, so that the two can be one."""
        ...

    def take(self, places: mx.array) -> mx.array:
        """The rows of these places, (R,) to (R, in)."""
        ...


@dataclass(frozen=True)
class DenseMatrix:
    """A matrix of plain numbers."""

    numbers: mx.array

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        return self.numbers.shape

    @property
    def dtype(self) -> mx.Dtype:
        """Of numbers and results."""
        return self.numbers.dtype

    @property
    def arrays(self) -> list[mx.array]:
        """All that it is made of."""
        return [self.numbers]

    def of(self, arrays: Sequence[mx.array]) -> "DenseMatrix":
        """A matrix of the same form, made of others."""
        return DenseMatrix(*arrays)

    def is_like(self, other: Matrix) -> bool:
        """Whether the other has the same form, so that the two can be one."""
        return isinstance(other, DenseMatrix) and self.dtype == other.dtype

    @cached_property
    def _turned(self) -> mx.array:
        """(in, out): the same memory, turned once instead of at every use."""
        return computed(self.numbers.T)

    @cached_property
    def _blocks(self) -> mx.array | None:
        """The numbers as `matvec` takes them; None where that is no faster."""
        blocks = row_blocks(self.numbers)
        return None if blocks is None else computed(blocks)

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        if rows.shape[0] == 1 and self._blocks is not None:
            product = matvec(self._blocks, rows)
            return product if bias is None else product + bias
        return rows @ self._turned if bias is None else mx.addmm(bias, rows, self._turned)

    def take(self, places: mx.array) -> mx.array:
        """The rows of these places, (R,) to (R, in)."""
        return self.numbers[places]


@dataclass(frozen=True)
class JoinedMatrix:
    """Matrices one below the other that are multiplied one by one, because their forms differ.

    Args:
        parts: (..., out, in), of the same inputs.
    """

    parts: tuple[ArrayMatrix, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        *experts, _, width = self.parts[0].shape
        return (*experts, sum(part.shape[-2] for part in self.parts), width)

    @property
    def dtype(self) -> mx.Dtype:
        """Of results."""
        return self.parts[0].dtype

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        product = mx.concatenate([part.times(rows) for part in self.parts], axis=-1)
        return product if bias is None else product + bias


def join(parts: Sequence[ArrayMatrix], axis: int) -> ArrayMatrix | JoinedMatrix:
    """Several matrices as one, which is one in memory too where they have the same form.

    Args:
        parts: At least one.
        axis: Along which they are joined.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if not all(map(first.is_like, parts)):
        return JoinedMatrix(tuple(parts))
    arrays = zip(*(part.arrays for part in parts), strict=True)
    return first.of([computed(mx.concatenate(list(of_parts), axis)) for of_parts in arrays])


def by_expert(matrix: ArrayMatrix, experts: int) -> ArrayMatrix:
    """The matrices of all experts that follow one another, (E * out, in), as (E, out, in)."""
    # Computed here, because a lazy view belongs to the thread that made it, and weights are read in another.
    return matrix.of([computed(array.reshape(experts, -1, array.shape[-1])) for array in matrix.arrays])


def first_rows(matrix: ArrayMatrix, count: int) -> ArrayMatrix:
    """A matrix of the first so many rows of another."""
    return matrix.of([array[:count] for array in matrix.arrays])


def computed(view: mx.array) -> mx.array:
    """The same, computed: a view is then not made anew at every use."""
    mx.eval(view)
    return view
