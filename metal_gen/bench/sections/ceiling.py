"""The hardware limit: the machine's memory bandwidth, and the bytes that a token reads.

A decode step has to read every weight, and all keys and values so far. These bytes divided by the bandwidth
are a lower bound of the step's time for any program that reads the weights once per token.
"""

import os
import time
from collections.abc import Callable, Sequence

import mlx.core as mx

from metal_gen.bench.measurement import Measurement, Trial, Unit
from metal_gen.bench.request import CEILING
from metal_gen.byte_sizes import MIB
from metal_gen.cache.config import HybridCacheConfig
from metal_gen.device.backend import DTYPE_BYTES, dtype_named, runs_on_cpu
from metal_gen.generation.memory.plan import MemoryPlan
from metal_gen.models.matrices.few_rows import count_pieces

# Large enough that the start of an operation does not matter, small enough to fit next to a model.
SMALLEST_BYTES, LARGEST_BYTES = 8 * MIB, 1024 * MIB
MOST_STREAMS = 16
ROWS_STEP = 1024
# On a GPU, starting an operation takes longer than a pass over a few MiB.
SHORTEST_S = 0.02


def read_bytes_per_token(plan: MemoryPlan, depth: int) -> int:
    """Return the bytes that one decode step has to read after `depth` tokens.

    These are the weights that a token needs, the keys and values that attention reads, and the states of
    linear attention.
    """
    model, cache = plan.model, plan.cache
    window = model.sliding_window or depth
    kinds = [kind for kind in model.layer_types if kind != "linear_attention"]
    seen = sum(min(depth, window) if kind == "sliding_attention" else depth for kind in kinds)
    per_layer = cache.bytes_per_token // (cache.batch_size * cache.num_layers)
    states = cache.state_nbytes if isinstance(cache, HybridCacheConfig) else 0
    return plan.weights_read_bytes + seen * per_layer + states


def ceiling_tps(bandwidth: float, plan: MemoryPlan, depth: int) -> float:
    """Return the maximum tokens per second at this bandwidth in bytes per second."""
    return bandwidth / read_bytes_per_token(plan, depth)


def bandwidth_trials(plan: MemoryPlan) -> list[Trial]:
    """Return trials of three ways to keep the memory busy; the fastest one is the ceiling.

    Each works on as many bytes as a token reads, so that weights which fit into a processor's cache are
    compared with that cache.
    """
    nbytes = min(max(read_bytes_per_token(plan, 0), SMALLEST_BYTES), LARGEST_BYTES)
    columns = plan.model.hidden_size
    # Rows that can be cut into pieces, as a model's matrices are.
    rows = max(1, nbytes // (columns * DTYPE_BYTES[plan.dtype]) // ROWS_STEP) * ROWS_STEP
    dtype = dtype_named(plan.dtype)
    trials = [
        _trial("copy_bytes_per_s", _copy(nbytes)),
        _trial("matvec_bytes_per_s", _matvec(rows, columns, dtype, [mx.default_stream(mx.default_device())])),
    ]
    if runs_on_cpu():
        # MLX computes an operation on one thread unless the BLAS uses more.
        streams = [mx.new_stream(mx.cpu) for _ in range(min(os.cpu_count() or 1, MOST_STREAMS))]
        trials.append(_trial("parallel_bytes_per_s", _matvec(rows, columns, dtype, streams)))
    return trials


def best_bandwidth(measurements: Sequence[Measurement]) -> float | None:
    """Return the highest bandwidth measured, in bytes per second; None without values."""
    return max((value for measurement in measurements for value in measurement.values), default=None)


def ceiling_measurements(bandwidth: float, plan: MemoryPlan, depths: Sequence[int]) -> list[Measurement]:
    """Return the ceiling and the bytes it follows from, at each depth."""
    figures = []
    for depth in depths:
        where = {"depth": depth}
        needed = float(read_bytes_per_token(plan, depth))
        figures.append(Measurement(CEILING, "read_bytes", Unit.BYTES, parameters=where, values=[needed]))
        most = [ceiling_tps(bandwidth, plan, depth)]
        figures.append(
            Measurement(CEILING, "ceiling_tps", Unit.TOKENS_PER_SECOND, parameters=where, values=most)
        )
    return sorted(figures, key=lambda figure: figure.name, reverse=True)


def _trial(name: str, run: Callable[[int], int]) -> Trial:
    """Return a trial of enough passes, computed together, to hide the cost of starting them.

    Args:
        name: Name of the figure.
        run: Makes the given number of passes and returns the bytes moved.
    """

    def measure() -> tuple[float]:
        passes = 1
        while True:
            begin = time.perf_counter()
            moved = run(passes)
            taken_s = time.perf_counter() - begin
            if taken_s >= SHORTEST_S:
                return (moved / taken_s,)
            passes *= 2

    return Trial((Measurement(CEILING, name, Unit.BYTES_PER_SECOND),), measure)


def _copy(nbytes: int) -> Callable[[int], int]:
    """Return a run that copies into existing memory: half the bytes are read, half are written."""
    words = nbytes // 2 // DTYPE_BYTES["float32"]
    source, target = mx.full((words,), 1.5), mx.full((words,), 2.5)
    mx.eval(source, target)

    def run(passes: int) -> int:
        for _ in range(passes):
            target[1:] = source[1:]
        mx.eval(target)
        return passes * (source.nbytes + target.nbytes)

    return run


def _matvec(rows: int, columns: int, dtype: mx.Dtype, streams: Sequence[mx.Stream]) -> Callable[[int], int]:
    """Return a run that multiplies a row by a matrix as decoding does, one part per stream."""
    row = mx.ones((1, columns), dtype)
    parts = [mx.full((max(1, rows // len(streams)), columns), 0.5, dtype) for _ in streams]
    mx.eval(row, parts)
    pieces = count_pieces(parts[0], 1)

    def product(part: mx.array, stream: mx.Stream) -> mx.array:
        if pieces is None:
            return mx.matmul(row, part.T, stream=stream)
        return mx.matmul(part.reshape(pieces, -1, columns), row.reshape(1, -1, 1), stream=stream)

    def run(passes: int) -> int:
        on_streams = list(zip(parts, streams, strict=True)) * passes
        mx.eval([product(part, stream) for part, stream in on_streams])
        return passes * sum(part.nbytes for part in parts)

    return run
