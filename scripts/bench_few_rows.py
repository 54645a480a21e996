"""Measures a few rows times the matrices of a model on the CPU: in pieces, as decoding does it, and whole.

    scripts/bench_few_rows.py                     # the shapes of Qwen3-0.6B
    scripts/bench_few_rows.py 18944x3584 3584x18944

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
from metal_gen.models.matrices.few_rows import in_pieces, times_few_rows  # noqa: E402

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
    print(f"{blas_in_use()}\n{'matrix':>14} {'rows':>4} {'whole':>10} {'pieces':>10} {'ratio':>6}")
    parser.add_argument("--rows", default="1,2,4,8,16", help="numbers of rows: %(default)s")
    wanted = parser.parse_args()
    for shape in wanted.shapes:
        height, width = map(int, shape.split("x"))
        weights = [mx.random.normal((height, width)) for _ in range(-(-LEAST_BYTES // (4 * height * width)))]
        mx.eval(weights)
        for count in map(int, wanted.rows.split(",")):
            print(f"{shape:>14} {count:>4} {compared(weights, count)}", flush=True)


def compared(weights: list[mx.array], count: int) -> str:
    """Multiply a number of rows by all matrices in both ways, and return the speeds."""
    rows = mx.random.normal((count, weights[0].shape[1]))
    pieces = [cut for weight in weights if (cut := in_pieces(weight, count)) is not None]
    if not pieces:
        return "not in pieces"
    mx.eval(rows, pieces)
    times = alternate(
        lambda: [rows @ weight.T for weight in weights],
        lambda: [times_few_rows(parts, rows) for parts in pieces],
    )
    nbytes = sum(weight.nbytes for weight in weights)
    speeds = [nbytes / seconds / 1e9 for seconds in times]
    return f"{speeds[0]:>10.1f} {speeds[1]:>10.1f} {speeds[1] / speeds[0]:>6.2f}"


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
