"""The gated delta rule as one GPU kernel, with the same code for Metal and CUDA.

32 lanes hold one row of one head's memory in their registers, each a part of its keys, and process one token
after another. MLX does not check the kernel, so `rules` compares its results before it is used.

Axes: as in `delta_rule`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

LANES = 32
ROWS_OF_A_GROUP = 4

# Inputs are flat float32. `lengths` holds L. B and L are known at run time, other sizes when compiling.
BODY = """
    const int text = head_of_text / H, head = head_of_text % H, shared = head / (H / G);
    const int length = lengths[0];
    const int first = (head_of_text * V + row) * K + lane;
    float kept[K / LANES];
    for (int part = 0; part < K / LANES; ++part) kept[part] = memory[first + LANES * part];
    for (int token = text * length; token < (text + 1) * length; ++token) {
        const int key = (token * G + shared) * K + lane;
        const float fading = left[token * H + head];
        float known = 0.0f, read = 0.0f;
        for (int part = 0; part < K / LANES; ++part) {
            kept[part] *= fading;
            known += kept[part] * keys[key + LANES * part];
        }
        known = sum_of_lanes(known);
        const int value = (token * H + head) * V + row;
        const float change = (values[value] - known) * beta[token * H + head];
        for (int part = 0; part < K / LANES; ++part) {
            kept[part] += change * keys[key + LANES * part];
            read += kept[part] * queries[key + LANES * part];
        }
        read = sum_of_lanes(read);
        if (lane == 0) outputs[value] = read;
    }
    for (int part = 0; part < K / LANES; ++part) after[first + LANES * part] = kept[part];
"""
METAL_PLACE = """
    const int lane = thread_position_in_grid.x, row = thread_position_in_grid.y;
    const int head_of_text = thread_position_in_grid.z;
"""
METAL_HEADER = "inline float sum_of_lanes(float number) { return metal::simd_sum(number); }"
CUDA_PLACE = """
    const int lane = threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    const int head_of_text = blockIdx.z;
"""
CUDA_HEADER = """
__device__ inline float sum_of_lanes(float number) {
    for (int apart = 16; apart > 0; apart /= 2) number += __shfl_xor_sync(0xffffffff, number, apart);
    return number;
}
"""


def can_take(key_size: int, value_size: int) -> bool:
    """Return whether the kernel supports memories of V x K numbers."""
    return key_size % LANES == 0 and value_size % ROWS_OF_A_GROUP == 0


def kernel_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Read and write the memory on a GPU. Arguments and results are those of `delta_rule`."""
    batch, length, heads, value_size = values.shape
    sizes = {"G": keys.shape[2], "H": heads, "K": keys.shape[3], "V": value_size, "LANES": LANES}
    outputs, after = _kernel()(
        inputs=[queries, keys, values, mx.exp(decay), beta, memory, mx.array([length], mx.int32)],
        template=list(sizes.items()),
        grid=(LANES, value_size, batch * heads),
        threadgroup=(LANES, ROWS_OF_A_GROUP, 1),
        output_shapes=[values.shape, memory.shape],
        output_dtypes=[mx.float32, mx.float32],
    )
    return outputs, after


@cache
def _kernel() -> Callable[..., Any]:
    metal = mx.metal.is_available()
    make: Any = mx.fast.metal_kernel if metal else mx.fast.cuda_kernel
    kernel: Callable[..., Any] = make(
        name="metal_gen_delta_rule",
        input_names=["queries", "keys", "values", "left", "beta", "memory", "lengths"],
        output_names=["outputs", "after"],
        source=(METAL_PLACE if metal else CUDA_PLACE) + BODY,
        header=METAL_HEADER if metal else CUDA_HEADER,
    )
    return kernel
