"""Measures a few rows times the matrices of a model on the CPU: in pieces, as decoding does it, and whole.

    scripts/bench_few_rows.py                     # the shapes of Qwen3-0.6B
    scripts/bench_few_rows.py 18944x3584 3584x18944

Prints GB/s of the matrix for both, their ratio, and the processor time of pieces as a share of that of the
whole matrix, as medians of alternating runs.
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
# Threads of OpenBLAS keep a processor busy for a while after a product, in wait for another.
PAUSE_S = 0.1


def main() -> None:
    """Measure, and print a line per shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="rows x columns, such as 4096x1024")
    parser.add_argument("--rows", default="1,2,4,8,16", help="numbers of rows: %(default)s")
    wanted = parser.parse_args()
    print(blas_in_use())
    print(f"{'matrix':>14} {'rows':>4} {'whole':>10} {'pieces':>10} {'ratio':>6} {'processor':>9}")
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
    (whole_s, whole_processor_s), (cut_s, cut_processor_s) = times
    speeds = f"{nbytes / whole_s / 1e9:>10.1f} {nbytes / cut_s / 1e9:>10.1f}"
    return f"{speeds} {whole_s / cut_s:>6.2f} {cut_processor_s / whole_processor_s:>9.2f}"


def alternate(*runs: Callable[[], list[mx.array]]) -> list[tuple[float, float]]:
    """Return the median seconds of each function, by the clock and of the processor.

    They run in turn, after one warm-up round.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(REPEATS + 1):
        for taken, run in zip(times, runs, strict=True):
            time.sleep(PAUSE_S)
            begin, begin_processor = time.perf_counter(), time.process_time()
            mx.eval(run())
            taken.append((time.perf_counter() - begin, time.process_time() - begin_processor))
    return [(statistics.median(clock), statistics.median(used)) for clock, used in map(_columns, times)]


def _columns(taken: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [clock for clock, _ in taken[1:]], [used for _, used in taken[1:]]


if __name__ == "__main__":
    main()
