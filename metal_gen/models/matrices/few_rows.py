"""A matrix times a few rows on the CPU, in the form that a BLAS reads fastest.

MLX's CPU backend passes every product to the BLAS as a general matrix product. OpenBLAS then packs the matrix
before it multiplies: for a few rows, that is most of the work. It multiplies small enough pieces without
packing, which takes less than half the time (`scripts/bench_few_rows.py`).

Axes: N pieces, M rows of a piece, K columns, R rows that are multiplied.
"""

from functools import cache

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.blas import blas_in_use

# OpenBLAS multiplies without packing if M x K x R of a product is at most this
# (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c).
MOST_UNPACKED = 1_000_000
# M x R may not be larger if the matrix is turned.
MOST_TURNED_RESULTS = 1_200
# OpenBLAS has products without packing for these processors, by its names in small letters.
UNPACKED_CORES = {"skylakex", "cooperlake", "sapphirerapids"}
MOST_THREADS = 4
# With more rows, packing costs little beside multiplying.
MOST_ROWS = 16
# Smaller pieces would take longer to begin than to multiply.
LEAST_PIECE_NUMBERS = 32_768
# For several rows and a smaller matrix, turning the rows costs more than packing.
LEAST_NUMBERS = 500_000


@cache
def most_rows_in_pieces() -> int:
    """Return for how many rows pieces are faster than the whole matrix with this machine's BLAS; 0 for none.

    The BLAS in MLX's wheel never packs. An OpenBLAS that packs pieces too gains a little with one row. A
    piece is multiplied by one thread, so with many threads the whole matrix is left to all of them.
    """
    blas = blas_in_use()
    if blas is None:
        return 1
    if blas.is_reference or (blas.threads or 1) > MOST_THREADS:
        return 0
    return MOST_ROWS if (blas.core or "").lower() in UNPACKED_CORES else 1


def count_pieces(weight: mx.array, rows: int, *, is_turned: bool = False) -> int | None:
    """Return how many pieces of equally many rows to cut a matrix (..., out, in) into.

    Args:
        weight: The matrix.
        rows: Number of rows that it is multiplied by.
        is_turned: Whether the product is the rows times the turned matrix, and not the matrix times columns.

    Returns:
        None if MLX does not pass the product to a BLAS (on a GPU, or in half precision), if there are too
        many rows or too few numbers, or if the matrix cannot be divided into such pieces.
    """
    if weight.dtype != mx.float32 or not runs_on_cpu() or rows > most_rows_in_pieces():
        return None
    height, width = weight.shape[-2:]
    if rows > 1 and height * width < LEAST_NUMBERS:
        return None
    most_height = MOST_UNPACKED // (width * rows)
    if is_turned:
        most_height = min(most_height, MOST_TURNED_RESULTS // rows)
    if not most_height:
        return None
    least = -(-height // most_height)
    count = next((count for count in range(least, height + 1) if height % count == 0), None)
    if count is None or (count > 1 and height // count * width < LEAST_PIECE_NUMBERS):
        return None
    return count


def in_pieces(weight: mx.array, rows: int) -> mx.array | None:
    """Cut a matrix (out, in) into pieces, (N, M, K): a view, or None if there is nothing to gain."""
    count = count_pieces(weight, rows)
    return None if count is None else weight.reshape(count, -1, weight.shape[1])


def times_few_rows(pieces: mx.array, rows: mx.array) -> mx.array:
    """Multiply (N, M, K) by (R, K) and return (R, N * M)."""
    # Three axes on both sides: with two on the right, MLX would join the pieces again.
    count = rows.shape[0]
    if count == 1:
        return (pieces @ rows.reshape(1, -1, 1)).reshape(1, -1)
    # OpenBLAS multiplies by columns without packing, not by turned rows.
    return (pieces @ mx.contiguous(rows.T)[None]).reshape(-1, count).T
