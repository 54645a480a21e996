"""Extracts the bits of blocks in a GGUF file.

Axes: N blocks.
"""

import mlx.core as mx


def half(blocks: mx.array, place: int) -> mx.array:
    """Return the float16 that begins at byte `place` of each block, as float32 (N, 1)."""
    return mx.contiguous(blocks[:, place : place + 2]).view(mx.float16).astype(mx.float32)


def nibbles(rows: mx.array) -> mx.array:
    """Return the lower halves of bytes followed by the upper ones, (..., n) to (..., 2n)."""
    return mx.concatenate([rows & 15, rows >> 4], axis=-1)


def bits(rows: mx.array, width: int) -> mx.array:
    """Return the lowest `width` bits of bytes, then the next, and so on, (..., n) to (..., 8 / width, n)."""
    shifts = mx.arange(0, 8, width, dtype=mx.uint8)[:, None]
    return mx.bitwise_and(rows[..., None, :] >> shifts, 2**width - 1)
