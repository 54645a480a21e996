"""K-quants: blocks of 256 numbers in groups of 16 or 32, with small integers as scales.

Source: `dequantize_row_q2_K` and its neighbors in `ggml-quants.c` of https://github.com/ggml-org/llama.cpp

Axes: N blocks.
"""

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks.bits import bits, half, nibbles

NUMBERS = 256
# Groups of 16 have their own scales, but MLX has no groups of this size.
SMALL_GROUP = 16
# MLX's groups in a block if one scale serves the whole block.
WIDE_GROUPS = 2
Affine = tuple[mx.array, mx.array, mx.array]


def q2_k(blocks: mx.array) -> tuple[mx.array]:
    """Decode 2 bits, in groups of 16 with a 4-bit scale and minimum; unquantized numbers (N, 256)."""
    values = bits(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, SMALL_GROUP, SMALL_GROUP)
    scales, minima = half(blocks, 80) * (blocks[:, :16] & 15), half(blocks, 82) * (blocks[:, :16] >> 4)
    return ((values * scales[..., None] - minima[..., None]).reshape(-1, NUMBERS),)


def q3_k(blocks: mx.array) -> Affine:
    """Decode 3 bits around 4, in groups of 16 with a 6-bit scale around 32.

    The product of the two is an integer from -124 to 128, so a block needs only one scale. 128 minus the
    product fits into 8 bits.

    Returns:
        Integers (N, 256), scales and biases (N, 2).
    """
    lower = bits(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, NUMBERS)
    upper = bits(blocks[:, :32], 1).reshape(-1, NUMBERS) << 2
    values = (lower | upper).astype(mx.int16).reshape(-1, SMALL_GROUP, SMALL_GROUP) - 4
    scales = nibbles(blocks[:, 96:104]) | (bits(blocks[:, 104:108], 2).reshape(-1, SMALL_GROUP) << 4)
    products = values * (scales.astype(mx.int16) - 32)[..., None]
    scale = mx.broadcast_to(-half(blocks, 108), (len(blocks), WIDE_GROUPS))
    return (128 - products).astype(mx.uint8).reshape(-1, NUMBERS), scale, -128 * scale


def q4_k(blocks: mx.array) -> Affine:
    """Decode 4 bits to integers (N, 256), scales and biases (N, 8)."""
    values = nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, NUMBERS)
    return values, *_scales(blocks)


def q5_k(blocks: mx.array) -> Affine:
    """Decode 5 bits to integers (N, 256), scales and biases (N, 8)."""
    values = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, NUMBERS)
    highest = bits(blocks[:, 16:48], 1).reshape(-1, NUMBERS) << 4
    return values | highest, *_scales(blocks)


def q6_k(blocks: mx.array) -> tuple[mx.array]:
    """Decode 6 bits around 32, in groups of 16 with an 8-bit scale; unquantized numbers (N, 256)."""
    lower = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, NUMBERS)
    upper = bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, NUMBERS)
    values = (lower | (upper << 4)).reshape(-1, SMALL_GROUP, SMALL_GROUP).astype(mx.float32) - 32
    scales = half(blocks, 208) * mx.contiguous(blocks[:, 192:208]).view(mx.int8)
    return ((values * scales[..., None]).reshape(-1, NUMBERS),)


def _scales(blocks: mx.array) -> tuple[mx.array, mx.array]:
    """Return scales and biases of eight groups of 32, of 6 bits each, in 12 bytes after two float16."""
    lower, upper, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = mx.concatenate([lower & 63, (rest & 15) | ((lower >> 2) & 48)], axis=1)
    minima = mx.concatenate([upper & 63, (rest >> 4) | ((upper >> 2) & 48)], axis=1)
    return half(blocks, 0) * scales, -(half(blocks, 2) * minima)
