"""Matrices with what an adapter adds to them kept beside, as two thin factors (LoRA, arXiv 2106.09685).

Quantizing W + U D anew would lose most of U D, whose numbers are smaller than a step between packed
ones; beside it, nothing is lost.

Axes: R rows, E experts, r rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix, JoinedMatrix, computed, join


@dataclass(frozen=True)
class AdaptedMatrix:
    """W + U D, of which W stays as it is.

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
        """Of results."""
        return self.base.dtype

    def times(self, rows: mx.array, bias: mx.array | None = None) -> mx.array:
        """Map (R, in) to (R, out), and add the bias."""
        return self.base.times(rows, bias) + self.up.times(self.down.times(rows))

    def take(self, places: mx.array) -> mx.array:
        """The rows of these places, (R,) to (R, in)."""
        assert not isinstance(self.base, JoinedMatrix)
        return self.base.take(places) + self.up.take(places) @ self.down.numbers


SingleMatrix = ArrayMatrix | AdaptedMatrix
AnyMatrix = ArrayMatrix | JoinedMatrix | AdaptedMatrix


def join_adapted(parts: Sequence[SingleMatrix], axis: int) -> AnyMatrix:
    """Several matrices, adapted or not, as one.

    Of all adapters one product remains, as of all bases: D of the parts one below the other, and U of
    each over the columns of its own D, with zeros beside.

    Args:
        parts: At least one.
        axis: Of outputs, along which they are joined.
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
