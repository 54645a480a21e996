"""The bits that blocks of a GGUF file are made of.

Axes: N blocks.
"""

import mlx.core as mx


def half(blocks: mx.array, place: int) -> mx.array:
    """The float16 at a byte of each block, (N, 1) in float32."""
    return mx.contiguous(blocks[:, place : place + 2]).view(mx.float16).astype(mx.float32)


def nibbles(rows: mx.array) -> mx.array:
    """The lower halves of bytes and then the upper ones, (..., n) to (..., 2n)."""
    return mx.concatenate([rows & 15, rows >> 4], axis=-1)


def bits(rows: mx.array, width: int) -> mx.array:
    """The lowest so many bits of bytes, then the next ones, and so on, (..., n) to (..., 8 / width, n)."""
    shifts = mx.arange(0, 8, width, dtype=mx.uint8)[:, None]
    return mx.bitwise_and(rows[..., None, :] >> shifts, 2**width - 1)
