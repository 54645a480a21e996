"""Attention over keys and values in 8 bits.

A few queries read the numbers as they are. Many, as in a prompt, need them unpacked, once for a layer, for
the fused kernel.

Axes: B sequences, H query heads, H_kv key/value heads, L new tokens, S keys, D head size.
"""

import mlx.core as mx

from metal_gen.cache.packed_heads import BITS, GROUP_SIZE, PackedHeads
from metal_gen.device.backend import runs_on_cuda, runs_on_metal

# With more tokens, unpacking takes less than their scores.
MOST_PACKED_TOKENS = 16
# Compiled steps attend to multiples of this many tokens.
STRETCH = 256


def packed_attention(
    queries: mx.array, keys: PackedHeads, values: PackedHeads, scale: float, mask: mx.array | str | None
) -> mx.array:
    """Attend as `mx.fast.scaled_dot_product_attention` does, with the same arguments.

    Returns:
        (B, H, L, D) in the dtype of the queries, or in float32.
    """
    if queries.shape[2] > MOST_PACKED_TOKENS:
        unpacked = [heads.unpacked(queries.dtype) for heads in (keys, values)]
        return mx.fast.scaled_dot_product_attention(queries, *unpacked, scale=scale, mask=mask)
    batch, heads, length, size = queries.shape
    kv_heads, count = keys.shape[1:3]
    repeats = heads // kv_heads
    # The heads that share keys are rows of one product. In half precision, large scores would be too coarse.
    rows = (queries.astype(mx.float32) * scale).reshape(batch, kv_heads, repeats * length, size)
    scores = _product(rows, keys, transpose=True)
    if (seen := _seen(mask, length, count)) is not None:
        if seen.ndim == 4:  # (B, 1, L, S) or (B, H, L, S)
            seen = seen[:, :, None] if seen.shape[1] == 1 else mx.unflatten(seen, 1, (kv_heads, repeats))
        apart = scores.reshape(batch, kv_heads, repeats, length, count)
        scores = mx.where(seen, apart, -mx.inf).reshape(scores.shape)
    attended = _weighed(mx.softmax(scores, axis=-1), values)
    return attended.reshape(batch, heads, length, size)


def _weighed(weights: mx.array, values: PackedHeads) -> mx.array:
    """Add up values, (B, H_kv, S, D), with the weights of some rows, (B, H_kv, rows, S).

    Several stretches are added up side by side: one long product would leave most of a GPU idle.
    """
    count = weights.shape[-1]
    whole = count // STRETCH * STRETCH
    if whole == 0:
        return _product(weights, values, transpose=False)
    parts = mx.unflatten(weights[..., :whole], -1, (-1, STRETCH)).swapaxes(2, 3)
    attended = _product(parts, values[:, :, :whole].in_stretches(STRETCH), transpose=False).sum(axis=2)
    if whole == count:
        return attended
    return attended + _product(weights[..., whole:], values[:, :, whole:], transpose=False)


def _product(rows: mx.array, heads: PackedHeads, *, transpose: bool) -> mx.array:
    # Only kernels for Metal read heads that are parts of a buffer where they are.
    arrays = heads.arrays if runs_on_metal() else [mx.contiguous(array) for array in heads.arrays]
    numbers, scales, biases = arrays
    size = GROUP_SIZE
    if transpose and scales.shape[-1] == 1 and runs_on_cuda():
        # As in `QuantizedMatrix.for_products`: MLX's kernel for Hopper fails where a head is a single group.
        scales, biases = (mx.contiguous(mx.repeat(each, 2, axis=-1)) for each in (scales, biases))
        size //= 2
    return mx.quantized_matmul(rows, numbers, scales, biases, transpose=transpose, group_size=size, bits=BITS)


def _seen(mask: mx.array | str | None, length: int, count: int) -> mx.array | None:
    """Return which keys each token sees, (L, S) or as given; None if all are seen."""
    if not isinstance(mask, str):
        return mask
    return mx.arange(count)[None] <= mx.arange(count - length, count)[:, None]
