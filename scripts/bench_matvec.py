"""Measures one row times the matrices of a model on the CPU: in blocks, as decoding does it, and whole.

    scripts/bench_matvec.py                     # the shapes of Qwen3-0.6B
    scripts/bench_matvec.py 18944x3584 3584x18944

Prints GB/s of the matrix for both, and their ratio, as medians of alternating runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from metal_gen.device.backend import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402

from metal_gen.device.blas import blas_in_use  # noqa: E402
from metal_gen.models.matrices.matvec import matvec, row_blocks  # noqa: E402

SHAPES = ("4096x1024", "1024x2048", "6144x1024", "1024x3072", "151936x1024", "151936x128")
# The copies are larger than a processor's cache, so that memory is read.
LEAST_BYTES = 400_000_000
REPEATS = 9


def main() -> None:
    """Measure, and print a line per shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="rows x columns, such as 4096x1024")
    print(f"{blas_in_use()}\n{'matrix':>14} {'whole':>10} {'pieces':>10} {'ratio':>6}")
    for shape in parser.parse_args().shapes:
        rows, columns = map(int, shape.split("x"))
        copies = -(-LEAST_BYTES // (4 * rows * columns))
        weights = [mx.random.normal((rows, columns)) for _ in range(copies)]
        blocks = [row_blocks(weight) for weight in weights]
        row = mx.random.normal((1, columns))
        mx.eval(weights, blocks, row)

        def whole(row: mx.array = row, weights: list[mx.array] = weights) -> list[mx.array]:
            return [row @ weight.T for weight in weights]

        def pieces(row: mx.array = row, blocks: list[mx.array | None] = blocks) -> list[mx.array]:
            return [matvec(block, row) for block in blocks if block is not None]

        nbytes = sum(weight.nbytes for weight in weights)
        speeds = [nbytes / seconds / 1e9 for seconds in alternate(whole, pieces)]
        print(f"{shape:>14} {speeds[0]:>10.1f} {speeds[1]:>10.1f} {speeds[1] / speeds[0]:>6.2f}")


def alternate(*runs: Callable[[], list[mx.array]]) -> list[float]:
    """Return the median seconds of each function, run in turn after one warm-up round."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS + 1):
        for taken, run in zip(times, runs, strict=True):
            begin = time.perf_counter()
            mx.eval(run())
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken[1:]) for taken in times]


if __name__ == "__main__":
    main()
