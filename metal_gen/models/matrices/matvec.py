"""A matrix times one row on the CPU, in the form that a BLAS reads fastest.

MLX's CPU backend passes every product to the BLAS as a general matrix product, even for one row. OpenBLAS
then packs the matrix before it multiplies, which doubles the work. It multiplies small enough pieces
without packing: 1.2 to 1.8 times as fast (`scripts/bench_matvec.py`).

Axes: N pieces, M rows of a piece, K columns.
"""

from functools import cache

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.blas import blas_in_use

# OpenBLAS multiplies without packing if M x N x K of a product is at most this.
PIECE_NUMBERS = 1_000_000
LARGEST_PIECE_NUMBERS = 4 * PIECE_NUMBERS


@cache
def is_faster_in_pieces() -> bool:
    """Return whether this machine's BLAS packs a matrix for a single row; the one in MLX's wheel does not."""
    blas = blas_in_use()
    return blas is None or not blas.is_reference


def count_pieces(weight: mx.array) -> int | None:
    """Return how many pieces of equally many rows to cut a matrix (..., out, in) into.

    Returns:
        None if MLX does not pass the product to a BLAS (on a GPU, or in half precision), or if the rows
        cannot be divided into such pieces.
    """
    if not runs_on_cpu() or weight.dtype != mx.float32 or not is_faster_in_pieces():
        return None
    rows, columns = weight.shape[-2:]
    wanted = min(max(1, rows * columns // PIECE_NUMBERS), rows)
    near = (count for step in range(rows) for count in (wanted - step, wanted + step))
    pieces = next(count for count in near if count > 0 and rows % count == 0)
    return pieces if rows // pieces * columns <= LARGEST_PIECE_NUMBERS else None


def row_blocks(weight: mx.array) -> mx.array | None:
    """Cut a matrix (out, in) into pieces, (N, M, K): a view, or None if there is nothing to gain."""
    pieces = count_pieces(weight)
    return None if pieces is None else weight.reshape(pieces, -1, weight.shape[1])


def matvec(blocks: mx.array, row: mx.array) -> mx.array:
    """Multiply (N, M, K) by (1, K) and return (1, N * M)."""
    # Three axes on both sides: with two on the right, MLX would join the pieces again.
    return (blocks @ row.reshape(1, -1, 1)).reshape(1, -1)
