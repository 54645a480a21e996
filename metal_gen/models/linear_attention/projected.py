"""Parts the projection of a layer of linear attention into heads.

Axes: B sequences, L tokens, R rows, G key heads, H value heads, C channels, K size of a key, V of a value.
"""

import mlx.core as mx

from metal_gen.models.config.linear_attention import LinearAttentionConfig

EPSILON = 1e-6


def parted(
    projected: mx.array, sizes: LinearAttentionConfig, *, by_key_head: bool
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Return queries, keys and values (R, C), gates (R, H * V), and beta and decay (R, H).

    Args:
        projected: Rows of the projection.
        sizes: Sizes of the heads.
        by_key_head: Whether the projection groups its outputs by key head.
    """
    conv, value, heads = sizes.conv_size, sizes.value_size, sizes.linear_num_value_heads
    if not by_key_head:
        mixed, gates, beta, decay = mx.split(projected, [conv, conv + value, conv + value + heads], axis=-1)
        return mixed, gates, beta, decay
    rows = len(projected)
    count, key = sizes.linear_num_key_heads, sizes.linear_key_head_dim
    most, few = mx.split(projected, [conv + value], axis=-1)
    shared = value // count
    queries, keys, values, gates = mx.split(
        most.reshape(rows, count, -1), [key, 2 * key, 2 * key + shared], axis=-1
    )
    beta, decay = mx.split(few.reshape(rows, count, -1), 2, axis=-1)
    flat = [part.reshape(rows, -1) for part in (queries, keys, values, gates, beta, decay)]
    return mx.concatenate(flat[:3], axis=-1), flat[3], flat[4], flat[5]


def heads_of(mixed: mx.array, sizes: LinearAttentionConfig) -> tuple[mx.array, mx.array, mx.array]:
    """Return queries, scaled, and keys of length 1, (B, L, G, K), and values, (B, L, H, V)."""
    queries, keys, values = mx.split(mixed, [sizes.key_size, 2 * sizes.key_size], axis=-1)
    key = sizes.linear_key_head_dim
    queries, keys = (heads.reshape(*heads.shape[:2], -1, key) for heads in (queries, keys))
    # An RMS norm divides by the root of a mean, not of a sum.
    queries, keys = (mx.fast.rms_norm(heads, None, EPSILON / key) for heads in (queries, keys))
    values = values.reshape(*values.shape[:2], -1, sizes.linear_value_head_dim)
    return queries * (1 / key), keys * key**-0.5, values
