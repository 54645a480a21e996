"""Residual sum and RMSNorm as one GPU kernel; whether this device may use it.

A group of threads takes one row. It holds the sum in its registers until the mean of the squares is known.

Axes: R rows.
"""

from collections.abc import Sequence
from functools import cache, partial

import mlx.core as mx

from metal_gen.device.backend import dtype_named, runs_on_cpu
from metal_gen.models.kernels.choice import PLAIN, Choice
from metal_gen.models.kernels.dialect import LANES, Code
from metal_gen.models.kernels.passed import choice_by_trial, trial_key
from metal_gen.models.kernels.trial import Trial, random_arrays

# T is the dtype of all but `eps`. N numbers in a row and WARPS are known when compiling.
BODY = """
    constexpr int E = 16 / sizeof(T), STEP = 32 * WARPS * E, LOADS = (N + STEP - 1) / STEP;
    struct alignas(16) Numbers { T of[E]; };
    SHARED float squares[WARPS];
    const size_t first = size_t(group) * N;
    float kept[LOADS][E], own = 0.0f;
    for (int load = 0; load < LOADS; ++load) {
        const int place = load * STEP + (row * 32 + lane) * E;
        if (place >= N) break;
        const Numbers left = *(const DEVICE Numbers*)(rows + first + place);
        const Numbers right = *(const DEVICE Numbers*)(added + first + place);
        Numbers sum;
        for (int e = 0; e < E; ++e) {
            sum.of[e] = T(float(left.of[e]) + float(right.of[e]));
            kept[load][e] = float(sum.of[e]);
            own += kept[load][e] * kept[load][e];
        }
        *(DEVICE Numbers*)(sums + first + place) = sum;
    }
    own = sum_of_lanes(own);
    if (lane == 0) squares[row] = own;
    WAIT_FOR_GROUP;
    float all = 0.0f;
    for (int other = 0; other < WARPS; ++other) all += squares[other];
    const float factor = inverse_root(all / N + eps[0]);
    for (int load = 0; load < LOADS; ++load) {
        const int place = load * STEP + (row * 32 + lane) * E;
        if (place >= N) break;
        const Numbers weights = *(const DEVICE Numbers*)(weight + place);
        Numbers result;
        for (int e = 0; e < E; ++e)
            result.of[e] = T(float(T(kept[load][e] * factor)) * float(weights.of[e]));
        *(DEVICE Numbers*)(normed + first + place) = result;
    }
"""
CODE = Code(
    name="add_rms_norm",
    inputs=("rows", "added", "weight", "eps"),
    outputs=("sums", "normed"),
    body=BODY,
)
# A load has so many bytes.
LOAD_BYTES = 16
MOST_WARPS = 32
# Models with smaller rows wait for the host, to which a kernel costs more than two operations of MLX: on an
# H200, rows of 1,024 lose 2 %, and rows of 4,096 gain 2 %.
SMALLEST_SIZE = 2048
# Steps, slots and guesses have no more rows. For long prompts, time and memory are those of plain operations.
MOST_ROWS = 64
# Largest difference, as a share of the largest number: a few roundings.
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
TRIED_EPS = 1e-6


def can_add(rows: mx.array, added: mx.array, weight: mx.array) -> bool:
    """Return whether the kernel takes these arrays: (R, hidden), (R, hidden) and (hidden,)."""
    same = rows.dtype == added.dtype == weight.dtype and rows.shape == added.shape
    return same and len(rows) <= MOST_ROWS and rows.shape[-1] * rows.dtype.size % LOAD_BYTES == 0


def add_rms_norm(
    rows: mx.array, added: mx.array, weight: mx.array, eps: mx.array
) -> tuple[mx.array, mx.array]:
    """Return rows + added, and its RMSNorm, as `layers.RMSNorm` defines it.

    Args:
        rows: (R, hidden).
        added: (R, hidden), in the same dtype.
        weight: Factor of each number, (hidden,), in the same dtype.
        eps: Constant that keeps zeros zero, at least (1,), float32.
    """
    count, size = rows.shape
    loads = size * rows.dtype.size // LOAD_BYTES
    warps = min(MOST_WARPS, -(-loads // LANES))
    sums, normed = CODE(
        [rows, added, weight, eps],
        [(rows.shape, rows.dtype), (rows.shape, rows.dtype)],
        sizes={"T": rows.dtype, "N": size, "WARPS": warps},
        grid=(LANES * count, warps, 1),
        group=(LANES, warps, 1),
    )
    return sums, normed


def choose_add_norm(hidden_size: int, dtype: str) -> Choice:
    """Return how to compute residual sums and their norms here, where the kernel works and gains time.

    Args:
        hidden_size: Numbers in a row.
        dtype: Dtype of computation.
    """
    return PLAIN if hidden_size < SMALLEST_SIZE else try_add_norm(hidden_size, dtype)


def try_add_norm(hidden_size: int, dtype: str) -> Choice:
    """Return whether the kernel works here, after a trial. Arguments are those of `choose_add_norm`."""
    if runs_on_cpu() or hidden_size * dtype_named(dtype).size % LOAD_BYTES:
        return PLAIN
    return _chosen(hidden_size, dtype)


@cache
def _chosen(hidden_size: int, dtype: str) -> Choice:
    key = trial_key(CODE, hidden_size, dtype, MOST_WARPS)
    trial = partial(_AddNormTrial, hidden_size, dtype_named(dtype))
    return choice_by_trial(key, [trial], TOLERANCE[dtype])


class _AddNormTrial(Trial):
    """As many rows of random numbers as the kernel takes."""

    def __init__(self, hidden_size: int, dtype: mx.Dtype) -> None:
        numbers = random_arrays([(MOST_ROWS, hidden_size), (MOST_ROWS, hidden_size), (hidden_size,)])
        self.arrays = [each.astype(dtype) for each in numbers]
        mx.eval(self.arrays)

    def by_kernel(self) -> Sequence[mx.array]:
        """Return sums and norms."""
        rows, added, weight = self.arrays
        return add_rms_norm(rows, added, weight, mx.array([TRIED_EPS]))

    def plainly(self) -> Sequence[mx.array]:
        """See `Trial`."""
        rows, added, weight = (each.astype(mx.float32) for each in self.arrays)
        return [rows + added, mx.fast.rms_norm(rows + added, weight, TRIED_EPS)]
