"""Matrices with an adapter kept separately, as two thin factors (LoRA, arXiv 2106.09685).

Quantizing W + U D again would lose most of U D, because its numbers are smaller than one quantization
step. Kept separately, the adapter loses nothing.

Axes: R rows, E experts, r rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix, JoinedMatrix, computed, join


@dataclass(frozen=True)
class AdaptedMatrix:
    """W + U D, where W stays unchanged.

    Args:
        base: W, (..., out, in).
        down: D, (..., r, in).
        up: U, (..., out, r), scaled.
    """

    base: ArrayMatrix | JoinedMatrix
    down: DenseMatrix
    up: DenseMatrix

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (E, out, in)."""
        return self.base.shape

    @property
    def dtype(self) -> mx.Dtype:
        """Dtype of results."""
        return self.base.dtype

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        return self.base.times(rows, bias) + self.up.times(self.down.times(rows))

    def take(self, places: mx.array) -> mx.array:
        """Return the rows of W + U D at these places: (R,) to (R, in)."""
        assert not isinstance(self.base, JoinedMatrix)
        return self.base.take(places) + self.up.take(places) @ self.down.numbers


SingleMatrix = ArrayMatrix | AdaptedMatrix
AnyMatrix = ArrayMatrix | JoinedMatrix | AdaptedMatrix


def parts_of(matrix: AnyMatrix) -> tuple[ArrayMatrix, ...]:
    """Return the matrices that are multiplied separately."""
    if isinstance(matrix, AdaptedMatrix):
        return (*parts_of(matrix.base), matrix.down, matrix.up)
    return matrix.parts if isinstance(matrix, JoinedMatrix) else (matrix,)


def join_adapted(parts: Sequence[SingleMatrix], axis: int) -> AnyMatrix:
    """Join several matrices, adapted or not, into one.

    The result has one adapter product and one base product. Its D stacks the D of the parts. Its U holds
    the U of each part in the columns of that part's D, and zeros elsewhere.

    Args:
        parts: At least one matrix.
        axis: Axis of the outputs, along which the parts are joined.
    """
    base = join([_base_of(part) for part in parts], axis)
    adapted = [part for part in parts if isinstance(part, AdaptedMatrix)]
    if not adapted:
        return base
    down = mx.concatenate([part.down.numbers for part in adapted], axis)
    rank, ups, before = down.shape[axis], [], 0
    for part in parts:
        if isinstance(part, AdaptedMatrix):
            up = part.up.numbers
            beside = (before, rank - before - up.shape[-1])
            ups.append(mx.pad(up, [(0, 0)] * (up.ndim - 1) + [beside]))
            before += up.shape[-1]
        else:
            ups.append(mx.zeros((*part.shape[:-1], rank), down.dtype))
    return AdaptedMatrix(base, DenseMatrix(computed(down)), DenseMatrix(computed(mx.concatenate(ups, axis))))


def _base_of(part: SingleMatrix) -> ArrayMatrix:
    if not isinstance(part, AdaptedMatrix):
        return part
    assert not isinstance(part.base, JoinedMatrix)
    return part.base
