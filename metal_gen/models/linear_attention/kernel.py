"""The gated delta rule as one GPU kernel.

32 lanes hold one row of one head's memory in their registers, each a part of its keys, and process one token
after another. MLX does not check the kernel, so `rules` compares its results before it is used.

Axes: as in `delta_rule`.
"""

import mlx.core as mx

from metal_gen.models.kernels.dialect import LANES, Code

ROWS_OF_A_GROUP = 4

# Inputs are flat float32. `lengths` holds L. B and L are known at run time, other sizes when compiling.
BODY = """
    const int text = beyond / H, head = beyond % H, shared = head / (H / G);
    const int length = lengths[0];
    const int first = (beyond * V + across) * K + lane;
    float kept[K / 32];
    for (int part = 0; part < K / 32; ++part) kept[part] = memory[first + 32 * part];
    for (int token = text * length; token < (text + 1) * length; ++token) {
        const int key = (token * G + shared) * K + lane;
        const float fading = left[token * H + head];
        float known = 0.0f, read = 0.0f;
        for (int part = 0; part < K / 32; ++part) {
            kept[part] *= fading;
            known += kept[part] * keys[key + 32 * part];
        }
        known = sum_of_lanes(known);
        const int value = (token * H + head) * V + across;
        const float change = (values[value] - known) * beta[token * H + head];
        for (int part = 0; part < K / 32; ++part) {
            kept[part] += change * keys[key + 32 * part];
            read += kept[part] * queries[key + 32 * part];
        }
        read = sum_of_lanes(read);
        if (lane == 0) outputs[value] = read;
    }
    for (int part = 0; part < K / 32; ++part) after[first + 32 * part] = kept[part];
"""
CODE = Code(
    name="delta_rule",
    inputs=("queries", "keys", "values", "left", "beta", "memory", "lengths"),
    outputs=("outputs", "after"),
    body=BODY,
)


def can_take(key_size: int, value_size: int) -> bool:
    """Return whether the kernel supports memories of V x K numbers."""
    return key_size % LANES == 0 and value_size % ROWS_OF_A_GROUP == 0


def kernel_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Read and write the memory on a GPU. Arguments and results are those of `delta_rule`."""
    batch, length, heads, value_size = values.shape
    sizes = {"G": keys.shape[2], "H": heads, "K": keys.shape[3], "V": value_size}
    outputs, after = CODE(
        [queries, keys, values, mx.exp(decay), beta, memory, mx.array([length], mx.int32)],
        [(values.shape, mx.float32), (memory.shape, mx.float32)],
        sizes=sizes,
        grid=(LANES, value_size, batch * heads),
        group=(LANES, ROWS_OF_A_GROUP, 1),
    )
    return outputs, after
