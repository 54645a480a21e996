"""A matrix times a few rows on the CPU, in the form that a BLAS reads fastest.

MLX's CPU backend passes every product to the BLAS as a general matrix product. OpenBLAS then packs the matrix
before it multiplies: for a few rows, that is most of the work. It multiplies small enough pieces without
packing, with one thread, in 0.4 to 0.7 of the processor time (`scripts/bench_few_rows.py`). So the pieces are
shared out over several streams of MLX, each of which is a thread.

Axes: N pieces, M rows of a piece, K columns, R rows that are multiplied.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.blas import Blas, blas_in_use

# OpenBLAS multiplies without packing if M x K x R of a product is at most this
# (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c).
MOST_UNPACKED = 1_000_000
# M x R may not be larger if the matrix is turned.
MOST_TURNED_RESULTS = 1_200
# OpenBLAS has products without packing for these processors, by its names in small letters.
UNPACKED_CORES = {"skylakex", "cooperlake", "sapphirerapids"}
# With more threads, the whole matrix is left to all of them: not measured.
MOST_STREAMS = 4
# Less than this takes longer to hand to another stream than to multiply.
LEAST_PART_BYTES = 1 << 19
# With more rows, packing costs little beside multiplying.
MOST_ROWS = 16
# Smaller pieces would take longer to begin than to multiply.
LEAST_PIECE_NUMBERS = 32_768
# For several rows and a smaller matrix, turning the rows costs more than packing.
LEAST_NUMBERS = 500_000


@cache
def most_rows_in_pieces() -> int:
    """Return for how many rows pieces are faster than the whole matrix with this machine's BLAS; 0 for none.

    The BLAS in MLX's wheel never packs. An OpenBLAS that packs pieces too gains a little with one row.
    """
    blas = blas_in_use()
    if blas is None:
        return 1
    if blas.is_reference or (blas.threads or 1) > MOST_STREAMS:
        return 0
    return MOST_ROWS if _is_unpacked(blas) else 1


def _is_unpacked(blas: Blas) -> bool:
    return (blas.core or "").lower() in UNPACKED_CORES


@cache
def count_streams() -> int:
    """Return over how many streams to share out the pieces of a matrix.

    A product without packing has one thread. One with packing has all threads of OpenBLAS.
    """
    blas = blas_in_use()
    return blas.threads or 1 if blas is not None and _is_unpacked(blas) else 1


@cache
def other_stream(number: int) -> mx.ThreadLocalStream:
    """Return a stream of the CPU beside the usual one; each thread has its own by this number."""
    return mx.new_thread_local_stream(mx.cpu)


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


def in_pieces(weight: mx.array, rows: int) -> list[mx.array] | None:
    """Cut a matrix (out, in) into pieces, (N, M, K), shared out over streams.

    Returns:
        Views, one for each stream; None if there is nothing to gain.
    """
    count = count_pieces(weight, rows)
    if count is None:
        return None
    parts = max(1, min(count_streams(), count, weight.nbytes // LEAST_PART_BYTES))
    pieces = weight.reshape(count, -1, weight.shape[1])
    bounds = [count * part // parts for part in range(parts + 1)]
    return [pieces[begin:end] for begin, end in pairwise(bounds)]


def times_few_rows(parts: Sequence[mx.array], rows: mx.array) -> mx.array:
    """Multiply (N, M, K), shared out over streams, by (R, K) and return (R, N * M)."""
    # Three axes on both sides: with two on the right, MLX would join the pieces again. OpenBLAS multiplies by
    # columns without packing, not by turned rows.
    count = rows.shape[0]
    columns = rows.reshape(1, -1, 1) if count == 1 else mx.contiguous(rows.T)[None]
    products = [parts[0] @ columns]
    products += [
        mx.matmul(part, columns, stream=other_stream(number)) for number, part in enumerate(parts[1:])
    ]
    product = products[0] if len(products) == 1 else mx.concatenate(products)
    return product.reshape(1, -1) if count == 1 else product.reshape(-1, count).T
