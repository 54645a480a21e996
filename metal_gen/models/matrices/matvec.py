"""A matrix times one row on the CPU, in the form in which a BLAS reads the matrix fastest.

MLX's CPU backend gives every product to the BLAS as a general one, also where there is one row. An
OpenBLAS then packs the matrix before it multiplies, which is all the work again. Small enough pieces
it multiplies as they are: 1.2 to 1.8 times as fast (`scripts/bench_matvec.py`).

Axes: N pieces, M rows of a piece, K columns.
"""

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu

# OpenBLAS multiplies without packing where M x N x K of a product is at most this.
PIECE_NUMBERS = 1_000_000
LARGEST_PIECE_NUMBERS = 4 * PIECE_NUMBERS


def count_pieces(weight: mx.array) -> int | None:
    """Into how many pieces to cut a matrix, (..., out, in), so that each has equally many rows.

    Returns:
        None where MLX does not give the product to a BLAS, on a GPU and in half precision, and where the
        rows cannot be parted so.
    """
    if not runs_on_cpu() or weight.dtype != mx.float32:
        return None
    rows, columns = weight.shape[-2:]
    wanted = min(max(1, rows * columns // PIECE_NUMBERS), rows)
    near = (count for step in range(rows) for count in (wanted - step, wanted + step))
    pieces = next(count for count in near if count > 0 and rows % count == 0)
    return pieces if rows // pieces * columns <= LARGEST_PIECE_NUMBERS else None


def row_blocks(weight: mx.array) -> mx.array | None:
    """Cut a matrix (out, in) into pieces, (N, M, K): a view, or None where there is nothing to gain."""
    pieces = count_pieces(weight)
    return None if pieces is None else weight.reshape(pieces, -1, weight.shape[1])


def matvec(blocks: mx.array, row: mx.array) -> mx.array:
    """Multiply: (N, M, K) by (1, K) to (1, N * M)."""
    # Three axes on both sides: with two on the right MLX would join the pieces again.
    return (blocks @ row.reshape(1, -1, 1)).reshape(1, -1)
